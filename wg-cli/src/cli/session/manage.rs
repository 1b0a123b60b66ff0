//! `wg session new`, `alias` and `rm`: sessions that belong to no chat, and further names for those of the registry.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;
use session_lock::{AcquireError, Kind, SessionLock};

use super::target::{Target, registered};
use crate::cli::args::session::{AliasCommand, New, Rm};
use crate::cli::context::{Context, confirm};
use crate::exit_code::ExitCode;
use crate::failure::{Failure, Outcome};
use crate::store::StoreError;
use crate::store::files;
use crate::store::graph::ChatId;
use crate::store::registry::{self, Registry};
use crate::store::resolve;
use crate::store::workspace::Workspace;

#[derive(Debug, Serialize)]
struct Made {
    session: String,
    uuid: Option<String>,
    dir: PathBuf,
}

/// Makes a session. Where the earlier tool keeps a registry it is registered there, elsewhere its directory's name is its name.
pub(super) fn new(cx: &Context<'_>, args: &New) -> Outcome {
    let workspace = cx.own_workspace()?;
    must_be_free(cx, &workspace, &args.alias)?;
    let made = files::locked(&Registry::lock_path(&workspace), || {
        let Some(mut registry) = Registry::load(&workspace)? else {
            return Ok(Made {
                session: args.alias.clone(),
                uuid: None,
                dir: workspace.chat_root().join(&args.alias),
            });
        };
        let uuid = registry::new_uuid()?;
        registry.add_named(&uuid, &args.alias);
        registry.save()?;
        Ok::<_, StoreError>(Made {
            session: args.alias.clone(),
            dir: workspace.chat_root().join(&uuid),
            uuid: Some(uuid),
        })
    })?;
    fs::create_dir_all(&made.dir).map_err(StoreError::io("create", &made.dir))?;
    cx.report.done(&made, || {
        format!("Made session {} at {}", made.session, made.dir.display())
    })?;
    Ok(ExitCode::Ok)
}

/// A name that leads to one thing must not lead to two.
fn must_be_free(cx: &Context<'_>, workspace: &Workspace, alias: &str) -> Outcome<()> {
    resolve::check_reference(alias)?;
    if alias.trim() != alias {
        return Err(Failure::new(
            ExitCode::Usage,
            format!("`{alias}` cannot be a session's name: it begins or ends with a space"),
        ));
    }
    let taken = |what: String| {
        Err(
            Failure::new(ExitCode::Failed, format!("`{alias}` already means {what}"))
                .with_cure("choose another name"),
        )
    };
    if alias.starts_with('.') || ChatId::from_any_form(alias).is_some() || registry::is_uuid(alias)
    {
        return taken("a chat or a session's uuid".to_owned());
    }
    // A session's directory stands beside the registry, its lock and what a save of it leaves for a moment.
    if alias.starts_with(registry::FILE_NAME) {
        return taken("a file of the workspace".to_owned());
    }
    let graph = cx.graph(workspace)?;
    if let Some(chat) = graph
        .chats()
        .iter()
        .find(|chat| chat.name.as_deref() == Some(alias))
    {
        return taken(chat.id.to_string());
    }
    if registered(workspace, alias)?.is_some() || workspace.chat_root().join(alias).exists() {
        return taken("a session".to_owned());
    }
    Ok(())
}

#[derive(Debug, Serialize)]
struct Aliases {
    uuid: String,
    aliases: Vec<String>,
}

pub(super) fn alias(cx: &Context<'_>, command: &AliasCommand) -> Outcome {
    match command {
        AliasCommand::Add { session, alias } => add_alias(cx, session, alias),
        AliasCommand::Rm { alias } => remove_alias(cx, alias),
    }
}

fn add_alias(cx: &Context<'_>, session: &str, alias: &str) -> Outcome {
    let workspace = cx.own_workspace()?;
    must_be_free(cx, &workspace, alias)?;
    let target = Target::find(cx, &workspace, session)?;
    let uuid = target
        .dir
        .file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default();
    let aliases = change_aliases(&workspace, &uuid, |aliases| aliases.push(alias.to_owned()))?
        .ok_or_else(|| {
            Failure::new(
                ExitCode::Failed,
                format!(
                    "{} is in no registry that could hold another name for it",
                    target.name
                ),
            )
            .with_cure("a chat is named when it is made: wg chat new --name NAME")
        })?;
    cx.report.done(&aliases, || {
        format!("{} is also called {alias}", target.name)
    })?;
    Ok(ExitCode::Ok)
}

fn remove_alias(cx: &Context<'_>, alias: &str) -> Outcome {
    let workspace = cx.own_workspace()?;
    resolve::check_reference(alias)?;
    if ChatId::from_any_form(alias).is_some() {
        return Err(Failure::new(
            ExitCode::Failed,
            format!("`{alias}` is how the chat finds its history, and stays"),
        ));
    }
    let session = registered(&workspace, alias)?
        .filter(|session| session.aliases.iter().any(|known| known == alias));
    let unknown = || {
        Failure::new(ExitCode::Failed, format!("no session is called `{alias}`"))
            .with_cure("wg session list")
    };
    let session = session.ok_or_else(unknown)?;
    let aliases = change_aliases(&workspace, &session.uuid, |aliases| {
        aliases.retain(|known| known != alias);
    })?
    .ok_or_else(unknown)?;
    cx.report.done(&aliases, || {
        format!("{} is no longer called {alias}", session.uuid)
    })?;
    Ok(ExitCode::Ok)
}

/// Changes a session's names under the registry's lock; `None` if it is not registered.
fn change_aliases(
    workspace: &Workspace,
    uuid: &str,
    change: impl FnOnce(&mut Vec<String>),
) -> Outcome<Option<Aliases>> {
    let changed = files::locked(&Registry::lock_path(workspace), || {
        let Some(mut registry) = Registry::load(workspace)? else {
            return Ok(None);
        };
        let Some(session) = registry.sessions().find(|session| session.uuid == uuid) else {
            return Ok(None);
        };
        let mut aliases = session.aliases;
        change(&mut aliases);
        registry.set_aliases(uuid, &aliases);
        registry.save()?;
        Ok::<_, StoreError>(Some(Aliases {
            uuid: uuid.to_owned(),
            aliases,
        }))
    })?;
    Ok(changed)
}

#[derive(Debug, Serialize)]
struct Removed {
    session: String,
    dir: PathBuf,
}

/// Removes a session. Its lock is held meanwhile, so that nobody serves what is going away.
pub(super) fn rm(cx: &Context<'_>, args: &Rm) -> Outcome {
    let workspace = cx.own_workspace()?;
    let target = Target::find(cx, &workspace, &args.session)?;
    if let Some(chat) = target.chat {
        must_be_deleted(cx, &workspace, chat)?;
    }
    if !target.dir.is_dir() {
        return Err(Failure::new(
            ExitCode::Failed,
            format!("{} has no directory", target.name),
        ));
    }
    if !args.yes {
        confirm(&format!("remove {} with its history", target.name), "--yes")?;
    }
    let lock = SessionLock::try_acquire(&target.dir, Kind::Adapter)
        .map_err(|error| held(&target, error))?;
    remove_directory(&target.dir)?;
    drop(lock);
    let uuid = target
        .dir
        .file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default();
    files::locked(&Registry::lock_path(&workspace), || {
        let Some(mut registry) = Registry::load(&workspace)? else {
            return Ok(());
        };
        if registry.remove(&uuid) {
            registry.save()
        } else {
            Ok(())
        }
    })?;
    let removed = Removed {
        session: target.name.clone(),
        dir: target.dir.clone(),
    };
    cx.report
        .done(&removed, || format!("Removed session {}", removed.session))?;
    Ok(ExitCode::Ok)
}

/// A chat that may still be restored needs its history.
fn must_be_deleted(cx: &Context<'_>, workspace: &Workspace, chat: ChatId) -> Outcome<()> {
    let deleted = cx
        .graph(workspace)?
        .chat(chat)
        .is_none_or(|chat| chat.status == "abandoned");
    if deleted {
        return Ok(());
    }
    Err(
        Failure::new(ExitCode::Failed, format!("{chat} needs its session")).with_cure(format!(
            "wg chat delete {chat} first, or wg chat archive {chat}"
        )),
    )
}

fn held(target: &Target, error: AcquireError) -> Failure {
    let code = if matches!(error, AcquireError::Held { .. }) {
        ExitCode::Held
    } else {
        ExitCode::System
    };
    Failure::new(code, format!("{} was not removed", target.name))
        .caused_by(error)
        .with_cure(format!("wg session release {}", target.name))
}

/// Out of the way in one step, then away.
fn remove_directory(dir: &Path) -> Outcome<()> {
    let name = dir
        .file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default();
    let aside = dir.with_file_name(format!(".removed-{name}-{}", registry::nonce()?));
    fs::rename(dir, &aside).map_err(StoreError::io("remove", dir))?;
    fs::remove_dir_all(&aside).map_err(StoreError::io("remove", &aside))?;
    Ok(())
}
