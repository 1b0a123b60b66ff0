//! Which session a text means: a chat's, or one that belongs to no chat.

use std::path::PathBuf;

use crate::cli::context::Context;
use crate::exit_code::ExitCode;
use crate::failure::{Failure, Outcome};
use crate::store::graph::ChatId;
use crate::store::registry::{Registry, Session};
use crate::store::resolve::{self, Make};
use crate::store::workspace::Workspace;

/// A session and the name that people know it by.
#[derive(Debug, Clone)]
pub(super) struct Target {
    /// `chat-3`, or the alias or the directory's name.
    pub name: String,
    /// The chat, where it is one's.
    pub chat: Option<ChatId>,
    /// The directory, which may not be there yet.
    pub dir: PathBuf,
}

impl Target {
    /// Resolves a reference: a chat's in any form, else a session's alias, uuid or directory.
    pub(super) fn find(cx: &Context<'_>, workspace: &Workspace, reference: &str) -> Outcome<Self> {
        let graph = cx.graph(workspace)?;
        let unknown = match resolve::chat(workspace, &graph, reference) {
            Ok(chat) => return Self::of_chat(workspace, chat),
            Err(failure) if failure.code == ExitCode::Failed => failure,
            Err(failure) => return Err(failure),
        };
        if let Some(session) = registered(workspace, reference)? {
            return Ok(Self::of_session(workspace, &session));
        }
        let dir = workspace.chat_root().join(reference);
        // A link is not followed: what it leads to is no session of ours.
        if !is_set_aside(reference) && dir.symlink_metadata().is_ok_and(|there| there.is_dir()) {
            return Ok(Self {
                name: reference.to_owned(),
                chat: None,
                dir,
            });
        }
        Err(unknown)
    }

    /// Every session: those of the chats that are not retired or still have a directory, then the rest.
    pub(super) fn all(cx: &Context<'_>, workspace: &Workspace) -> Outcome<Vec<Self>> {
        let graph = cx.graph(workspace)?;
        let mut targets = Vec::new();
        for chat in graph.chats() {
            let target = Self::of_chat(workspace, chat.id)?;
            if chat.live || target.dir.is_dir() {
                targets.push(target);
            }
        }
        targets.sort_by_key(|target| target.chat);
        if let Some(registry) = Registry::load(workspace)? {
            for session in registry.sessions() {
                let target = Self::of_session(workspace, &session);
                if target.dir.is_dir() && targets.iter().all(|known| known.dir != target.dir) {
                    targets.push(target);
                }
            }
        }
        targets.extend(unregistered(workspace, &targets));
        Ok(targets)
    }

    pub(super) fn of_chat(workspace: &Workspace, chat: ChatId) -> Outcome<Self> {
        let dir = resolve::session_dir(workspace, chat, Make::No)?;
        Ok(Self {
            name: chat.to_string(),
            chat: Some(chat),
            dir,
        })
    }

    /// A session of the registry; where one of its names is a chat's, it is that chat's.
    fn of_session(workspace: &Workspace, session: &Session) -> Self {
        let chat = session
            .aliases
            .iter()
            .find_map(|alias| ChatId::from_any_form(alias));
        let name = match chat {
            Some(chat) => chat.to_string(),
            None => session.aliases.first().unwrap_or(&session.uuid).clone(),
        };
        Self {
            name,
            chat,
            dir: workspace.chat_root().join(&session.uuid),
        }
    }
}

/// Directories below `chat/` that are nobody's whom we know: sessions of their own name.
fn unregistered(workspace: &Workspace, known: &[Target]) -> Vec<Target> {
    let Ok(entries) = std::fs::read_dir(workspace.chat_root()) else {
        return Vec::new();
    };
    let mut found: Vec<Target> = entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| Target {
            name: entry.file_name().to_string_lossy().into_owned(),
            chat: None,
            dir: entry.path(),
        })
        .filter(|found| !is_set_aside(&found.name))
        .filter(|found| known.iter().all(|target| target.dir != found.dir))
        .collect();
    found.sort_by(|one, other| one.name.cmp(&other.name));
    found
}

/// Whether a directory is the earlier tool's archive, or what `rm` was about to remove when it was killed.
fn is_set_aside(name: &str) -> bool {
    name == ".archive" || name.starts_with(".removed-")
}

/// The session with this alias, this uuid, or the only one whose uuid starts so.
pub(super) fn registered(workspace: &Workspace, reference: &str) -> Outcome<Option<Session>> {
    /// As many characters of a uuid are needed to mean it.
    const SHORTEST_PREFIX: usize = 4;
    let Some(registry) = Registry::load(workspace)? else {
        return Ok(None);
    };
    let exact = registry.sessions().find(|session| {
        session.uuid == reference || session.aliases.iter().any(|alias| alias == reference)
    });
    if exact.is_some() || reference.len() < SHORTEST_PREFIX {
        return Ok(exact);
    }
    let mut starts: Vec<Session> = registry
        .sessions()
        .filter(|session| session.uuid.starts_with(reference))
        .collect();
    match starts.len() {
        0 | 1 => Ok(starts.pop()),
        several => Err(Failure::new(
            ExitCode::Failed,
            format!("`{reference}` is the start of {several} sessions' uuids"),
        )
        .with_cure("wg session list")),
    }
}
