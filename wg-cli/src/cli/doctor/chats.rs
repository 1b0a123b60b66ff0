//! The files of chats: states, torn lines, the registry.

use std::collections::BTreeSet;
use std::path::Path;

use session_lock::{AcquireError, Kind, SessionLock};

use crate::cli::finding::{Finding, Fix, Weight};
use crate::clock;
use crate::daemon::boot;
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::store::StoreError;
use crate::store::chat_state::ChatRecord;
use crate::store::error::of_lock;
use crate::store::files;
use crate::store::graph::{ChatId, Loaded};
use crate::store::jsonl::Appender;
use crate::store::messages::{self, Message, Side, Which};
use crate::store::numbering;
use crate::store::registry::Registry;
use crate::store::workspace::Workspace;

/// States that cannot be read, and states of chats that there are not.
pub(super) fn states(workspace: &Workspace, loaded: &Loaded, fix: Fix) -> Vec<Finding> {
    let chats = loaded.graph.chats();
    let mut findings: Vec<Finding> = chats
        .iter()
        .filter_map(|chat| damaged(workspace, chat.id, fix))
        .collect();
    let known: BTreeSet<ChatId> = chats.iter().map(|chat| chat.id).collect();
    let is_empty = loaded.graph.tasks().next().is_none();
    // A chat whose line cannot be read is not a chat that is gone.
    if loaded.warnings.is_empty()
        && let Ok(strangers) = boot::states_without_chats(workspace, &known, is_empty)
    {
        if !strangers.kept.is_empty() {
            let text = format!(
                "`{}` is empty, though there are sessions and states of {} chat(s)",
                workspace.graph_path().display(),
                strangers.kept.len()
            );
            findings.push(
                Finding::new("graph", Weight::Error, text).with_advice(
                    "put back a copy of it; what there is of the chats stays as it is",
                ),
            );
        }
        findings.extend(strangers.to_archive.into_iter().map(|chat| {
            let text = format!("there is a state of {chat}, which is not in the graph");
            Finding::new("state", Weight::Warning, text).fixed_by(
                "archive it, as the next start of the service does; nothing is ever started for it",
                fix,
                || Ok(boot::archive_state(workspace, chat)?),
            )
        }));
    }
    findings
}

/// A wish may stand in what cannot be read, so nothing starts until a person has decided.
fn damaged(workspace: &Workspace, chat: ChatId, fix: Fix) -> Option<Finding> {
    let error = ChatRecord::load(workspace, chat).err()?;
    let is_no_file = matches!(error, StoreError::NotARegularFile { .. });
    let text = format!(
        "{chat}: {}; nothing starts, because a stop may have stood in it",
        Failure::from(error).what_and_why()
    );
    let what = format!("set the file aside and leave the chat stopped; then wg chat resume {chat}");
    Some(
        Finding::new("state", Weight::Error, text).fixed_by(&what, fix, || {
            if is_no_file {
                files::set_aside(&workspace.chat_state_path(chat))?;
            }
            ChatRecord::update(workspace, chat, |record| {
                record.stopped_at = Some(clock::now());
                record.wish_actor = Some("wg doctor".to_owned());
                record.wish_reason = Some("its state could not be read".to_owned());
            })?;
            Ok(())
        }),
    )
}

/// A last line without its end: the trace of a crash or a full disk.
pub(super) fn torn(dir: &Path, side: Side, chat: ChatId, fix: Fix) -> Option<Finding> {
    let path = side.path(dir);
    if !ends_torn(&path).ok()? {
        return None;
    }
    let text = format!(
        "the {} of {chat} ends in the middle of a line",
        side.as_str()
    );
    Some(Finding::new("messages", Weight::Note, text).fixed_by(
        "move that line to `*.corrupt` unless it is whole, as the next writer does",
        fix,
        || Ok(Appender::open(&path, |line| Message::parse(line, side).is_some()).map(drop)?),
    ))
}

/// A number after which there is no room, as another tool may have written it: nothing can be appended behind the highest there can be.
pub(super) fn too_high(dir: &Path, side: Side, chat: ChatId, fix: Fix) -> Option<Finding> {
    let id = numbering::too_high(dir, side).ok().flatten()?;
    let text = format!(
        "the {} of {chat} has a message with the number {id}, after which there is no room",
        side.as_str()
    );
    Some(Finding::new("messages", Weight::Error, text).fixed_by(
        "give it the number that follows the one before it, and keep its line as it was in `*.corrupt`",
        fix,
        || {
            // Held meanwhile, so that no handler answers it under its former number.
            let lock = SessionLock::try_acquire(dir, Kind::Adapter).map_err(|error| {
                if matches!(error, AcquireError::Held { .. }) {
                    Failure::new(ExitCode::Held, format!("{chat} is being served"))
                        .with_cure(format!("wg chat stop {chat}, then wg doctor --fix"))
                } else {
                    of_lock(format!("failed to keep handlers of {chat} away"), error)
                }
            })?;
            numbering::mend(dir)?;
            drop(lock);
            Ok(())
        },
    ))
}

/// Numbers that do not rise: a message behind one with the same or a higher number that has no reply. What comes under one while the service
/// or a handler runs gets its own at once; what was there before may have been passed over by another tool on purpose.
pub(super) fn not_rising(dir: &Path, chat: ChatId, fix: Fix) -> Option<Finding> {
    const SHOWN: usize = 5;
    let ids = messages::passed_over(dir).ok()?;
    let shown: Vec<String> = ids.iter().take(SHOWN).map(u64::to_string).collect();
    if shown.is_empty() {
        return None;
    }
    let more = if ids.len() > SHOWN { ", …" } else { "" };
    let text = format!(
        "the inbox of {chat} has {} message(s) behind one with the same or a higher number, as only another tool writes them (number {}{more}); \
         they have no reply",
        ids.len(),
        shown.join(", ")
    );
    Some(Finding::new("messages", Weight::Warning, text).fixed_by(
        "ask each under the number after the highest; the lines that are there stay as they are",
        fix,
        || Ok(messages::renumber(dir, Which::All).map(drop)?),
    ))
}

fn ends_torn(path: &Path) -> Result<bool, StoreError> {
    match files::open_to_read(path)? {
        Some(file) => files::ends_torn(&file).map_err(StoreError::io("read", path)),
        None => Ok(false),
    }
}

/// It says which directory is whose. It is never set aside: going on without it would begin a second history for every chat.
pub(super) fn registry(workspace: &Workspace) -> Option<Finding> {
    let error = Registry::load(workspace).err()?;
    let text = format!(
        "{}; no chat is served, because nobody knows which history is whose",
        Failure::from(error).what_and_why()
    );
    Some(Finding::new("registry", Weight::Error, text).with_advice(
        "put back a copy, or correct it: each session needs its directory's name and its aliases (chat-N, coordinator-N, N)",
    ))
}
