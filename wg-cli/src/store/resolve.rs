//! The one resolver: which chat a text means, and where a chat's session is.

use std::path::PathBuf;
use std::time::Duration;

use super::graph::{ChatId, Graph};
use super::registry::{self, Registry};
use super::{StoreError, Workspace, files, lock};
use crate::exit_code::ExitCode;
use crate::failure::Failure;

/// The longest reference that is looked at, in bytes.
pub const LONGEST_REFERENCE: usize = 255;

/// How many characters of a uuid are needed to mean it.
const SHORTEST_PREFIX: usize = 4;

/// Whether a session directory is made where there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Make {
    /// It is made.
    Yes,
    /// The path where it would be is returned.
    No,
}

/// Returns the chat that a reference means: `3`, `chat-3`, `.chat-3`, `coordinator-3`, `.coordinator-3`, its name, the uuid of its session or
/// the unambiguous start of one.
///
/// # Errors
/// [`ExitCode::Usage`] for what cannot be a reference; [`ExitCode::Failed`] for an unknown or ambiguous one.
pub fn chat(workspace: &Workspace, graph: &Graph, reference: &str) -> Result<ChatId, Failure> {
    check_reference(reference)?;
    let id = ChatId::from_any_form(reference);
    if let Some(id) = id.filter(|id| graph.chat(*id).is_some()) {
        return Ok(id);
    }
    if let Some(id) = by_name(graph, reference)? {
        return Ok(id);
    }
    if id.is_none()
        && let Some(id) = by_uuid(workspace, graph, reference)?
    {
        return Ok(id);
    }
    let wanted = id.map_or_else(
        || format!("chat `{reference}`"),
        |id| format!("chat {}", id.0),
    );
    Err(Failure::new(
        ExitCode::Failed,
        format!("{wanted} does not exist; {}", chats_here(graph)),
    )
    .with_cure("wg chat list"))
}

/// As [`chat`], where the graph was not read yet: for a chat that is meant by its number, little of it has to be.
///
/// # Errors
/// As [`chat`], and where the graph cannot be read.
pub fn chat_of(workspace: &Workspace, reference: &str) -> Result<ChatId, Failure> {
    check_reference(reference)?;
    if let Some(id) = ChatId::from_any_form(reference)
        && Graph::load_chat(workspace, id)?.is_some()
    {
        return Ok(id);
    }
    chat(workspace, &Graph::load(workspace)?.graph, reference)
}

/// Refuses what cannot be the name of anything here, in one short sentence whatever its size.
///
/// # Errors
/// [`ExitCode::Usage`].
pub fn check_reference(reference: &str) -> Result<(), Failure> {
    match fault(reference) {
        None => Ok(()),
        Some(why) => Err(Failure::new(
            ExitCode::Usage,
            format!("{} is no chat: {why}", quoted(reference)),
        )
        .with_cure("a chat is meant by its number, its name or its session's uuid; wg chat list")),
    }
}

/// Refuses a name for a new chat under which nobody could refer to it.
///
/// # Errors
/// [`ExitCode::Usage`].
pub fn check_name(name: &str) -> Result<(), Failure> {
    let why = match fault(name) {
        Some(why) => why,
        None if ChatId::from_any_form(name).is_some() => "it is the number of a chat",
        None if name.trim() != name => "it begins or ends with a space",
        None => return Ok(()),
    };
    Err(Failure::new(
        ExitCode::Usage,
        format!("{} cannot be a chat's name: {why}", quoted(name)),
    ))
}

/// Says why a text can mean nothing here.
fn fault(reference: &str) -> Option<&'static str> {
    if reference.is_empty() {
        Some("it is empty")
    } else if reference.len() > LONGEST_REFERENCE {
        Some("it is longer than 255 bytes")
    } else if reference.contains(['/', '\\']) {
        Some("it contains a path separator")
    } else if reference == "." {
        Some("it is a directory's name for itself")
    } else if reference.contains("..") {
        Some("it contains `..`")
    } else if reference.chars().any(char::is_control) {
        Some("it contains a control character")
    } else {
        None
    }
}

/// Returns a reference for a sentence: escaped, and at most forty characters of it.
fn quoted(reference: &str) -> String {
    let mut shown: String = reference.chars().take(40).collect();
    if shown.len() < reference.len() {
        shown.push('…');
    }
    format!("`{}`", shown.escape_debug())
}

fn by_name(graph: &Graph, name: &str) -> Result<Option<ChatId>, Failure> {
    let chats = graph.chats();
    let mut named: Vec<ChatId> = chats
        .iter()
        .filter(|chat| chat.name.as_deref() == Some(name))
        .map(|chat| chat.id)
        .collect();
    if named.is_empty() {
        let folded = name.to_lowercase();
        named = chats
            .iter()
            .filter(|chat| {
                chat.name
                    .as_ref()
                    .is_some_and(|name| name.to_lowercase() == folded)
            })
            .map(|chat| chat.id)
            .collect();
    }
    if named.len() > 1 {
        // Of several, the one that is served is meant.
        let live: Vec<ChatId> = chats
            .iter()
            .filter(|chat| chat.live && named.contains(&chat.id))
            .map(|chat| chat.id)
            .collect();
        if live.len() == 1 {
            named = live;
        }
    }
    one_of(name, &named)
}

fn by_uuid(workspace: &Workspace, graph: &Graph, prefix: &str) -> Result<Option<ChatId>, Failure> {
    if prefix.len() < SHORTEST_PREFIX || !registry::is_uuid(prefix) {
        return Ok(None);
    }
    let Some(registry) = Registry::load(workspace)? else {
        return Ok(None);
    };
    let prefix = prefix.to_ascii_lowercase();
    let mut found: Vec<ChatId> = registry
        .sessions()
        .filter(|session| session.uuid.to_ascii_lowercase().starts_with(&prefix))
        .filter_map(|session| {
            session
                .aliases
                .iter()
                .find_map(|alias| ChatId::from_any_form(alias))
        })
        .filter(|id| graph.chat(*id).is_some())
        .collect();
    found.sort_unstable();
    found.dedup();
    one_of(&prefix, &found)
}

fn one_of(reference: &str, found: &[ChatId]) -> Result<Option<ChatId>, Failure> {
    match found {
        [] => Ok(None),
        [one] => Ok(Some(*one)),
        several => {
            let list: Vec<String> = several.iter().map(ChatId::to_string).collect();
            Err(Failure::new(
                ExitCode::Failed,
                format!(
                    "{} means several chats: {}",
                    quoted(reference),
                    list.join(", ")
                ),
            )
            .with_cure("give the number"))
        }
    }
}

/// Says which chats there are, the served ones if there are any.
fn chats_here(graph: &Graph) -> String {
    const SHOWN: usize = 10;
    let chats = graph.chats();
    let live: Vec<u32> = chats
        .iter()
        .filter(|chat| !chat.archived)
        .map(|chat| chat.id.0)
        .collect();
    if live.is_empty() {
        return if chats.is_empty() {
            "there is no chat here yet".to_owned()
        } else {
            "every chat here is archived".to_owned()
        };
    }
    let list: Vec<String> = live.iter().take(SHOWN).map(u32::to_string).collect();
    let more = if live.len() > SHOWN {
        format!(" and {} more", live.len() - SHOWN)
    } else {
        String::new()
    };
    format!("chats here: {}{more}", list.join(", "))
}

/// Returns the session directory of a chat.
///
/// It is the one that the earlier tool's registry names, if it is there; else the first that exists of the names that a session ever had;
/// else `.chat-N`, or a registered uuid directory where there is a registry.
///
/// # Errors
/// [`StoreError::Corrupt`] for a registry that cannot be read, [`StoreError::Io`].
pub fn session_dir(workspace: &Workspace, chat: ChatId, make: Make) -> Result<PathBuf, StoreError> {
    match make {
        Make::Yes => session_dir_within(workspace, chat, lock::PATIENCE),
        Make::No => Ok(Sessions::load(workspace)?.dir(chat)),
    }
}

/// Where sessions are, for those who ask about many at a time: the registry, which names all of them, is read once.
#[derive(Debug)]
pub struct Sessions<'a> {
    workspace: &'a Workspace,
    registry: Option<Registry>,
}

impl<'a> Sessions<'a> {
    /// Reads the registry, if there is one.
    ///
    /// # Errors
    /// As [`session_dir`].
    pub fn load(workspace: &'a Workspace) -> Result<Self, StoreError> {
        let registry = Registry::load(workspace)?;
        Ok(Self {
            workspace,
            registry,
        })
    }

    /// Returns the session directory of a chat, or where it would be; see [`session_dir`].
    #[must_use]
    pub fn dir(&self, chat: ChatId) -> PathBuf {
        match place_of(self.workspace, chat, self.registry.as_ref()) {
            Place::There(dir) | Place::Would(dir) => dir,
            Place::Unregistered => self.workspace.chat_root().join(chat.task_id()),
        }
    }
}

/// As [`session_dir`], made where there is none; the registry's lock, which only a chat that is new to it needs, is waited for no longer
/// than `patience`.
///
/// # Errors
/// As [`session_dir`]; [`StoreError::Busy`] when the time is over.
pub fn session_dir_within(
    workspace: &Workspace,
    chat: ChatId,
    patience: Duration,
) -> Result<PathBuf, StoreError> {
    let registry = Registry::load(workspace)?;
    match place_of(workspace, chat, registry.as_ref()) {
        Place::There(dir) => Ok(dir),
        Place::Would(dir) => files::create_directories(&dir).map(|()| dir),
        Place::Unregistered => register(workspace, chat, patience),
    }
}

/// Where a session is, or would be.
enum Place {
    There(PathBuf),
    Would(PathBuf),
    /// There is a registry, and it does not know this chat.
    Unregistered,
}

fn place_of(workspace: &Workspace, chat: ChatId, registry: Option<&Registry>) -> Place {
    let root = workspace.chat_root();
    let session = registry.and_then(|registry| registry.session_of(chat));
    let registered = session.as_ref().map(|session| root.join(&session.uuid));
    if let Some(dir) = registered.as_ref().filter(|dir| dir.is_dir()) {
        return Place::There(dir.clone());
    }
    let archived = session
        .as_ref()
        .map(|session| root.join(".archive").join(&session.uuid));
    let names = [
        chat.task_id(),
        format!("chat-{}", chat.0),
        chat.legacy_task_id(),
        format!("coordinator-{}", chat.0),
        chat.0.to_string(),
    ];
    if let Some(dir) = names
        .iter()
        .map(|name| root.join(name))
        .chain(archived)
        .find(|dir| dir.is_dir())
    {
        return Place::There(dir);
    }
    match (registered, registry) {
        (Some(dir), _) => Place::Would(dir),
        (None, Some(_)) => Place::Unregistered,
        (None, None) => Place::Would(root.join(chat.task_id())),
    }
}

/// Makes a uuid directory for a chat and tells the registry, under its lock.
fn register(
    workspace: &Workspace,
    chat: ChatId,
    patience: Duration,
) -> Result<PathBuf, StoreError> {
    files::locked_within(&Registry::lock_path(workspace), patience, || {
        // Somebody may have registered it, or removed the registry, while we waited.
        let registry = Registry::load(workspace)?;
        let dir = match (place_of(workspace, chat, registry.as_ref()), registry) {
            (Place::There(dir) | Place::Would(dir), _) => dir,
            (Place::Unregistered, None) => workspace.chat_root().join(chat.task_id()),
            (Place::Unregistered, Some(mut registry)) => {
                let uuid = registry::new_uuid()?;
                let dir = workspace.chat_root().join(&uuid);
                // The directory first: a name without a directory is what splits histories.
                files::create_directories(&dir)?;
                registry.add(&uuid, chat);
                registry.save()?;
                dir
            }
        };
        files::create_directories(&dir)?;
        Ok(dir)
    })
}

/// Takes the session of a chat away again that could not be made, unless something is in it.
///
/// # Errors
/// [`StoreError`].
pub fn unmake_session(workspace: &Workspace, chat: ChatId) -> Result<(), StoreError> {
    let dir = session_dir(workspace, chat, Make::No)?;
    match std::fs::remove_dir(&dir) {
        Err(error) if !files::absent(&error) => return Err(StoreError::io("remove", &dir)(error)),
        Ok(()) | Err(_) => {}
    }
    if Registry::load(workspace)?.is_none() {
        return Ok(());
    }
    files::locked(&Registry::lock_path(workspace), || {
        let Some(mut registry) = Registry::load(workspace)? else {
            return Ok(());
        };
        match registry.session_of(chat) {
            Some(session) if registry.remove(&session.uuid) => registry.save(),
            Some(_) | None => Ok(()),
        }
    })
}

/// Brings a session that the earlier tool moved to `chat/.archive` back to its place, and tells the registry. Returns whether it did.
///
/// Without this that tool would begin a second history for a chat that was restored. A directory that is in the place already is the
/// one in use; then both stay where they are.
///
/// # Errors
/// [`StoreError`].
pub fn unarchive_session(workspace: &Workspace, chat: ChatId) -> Result<bool, StoreError> {
    if Registry::load(workspace)?.is_none() {
        return Ok(false);
    }
    files::locked(&Registry::lock_path(workspace), || {
        let Some(mut registry) = Registry::load(workspace)? else {
            return Ok(false);
        };
        let Some(session) = registry.session_of(chat) else {
            return Ok(false);
        };
        let root = workspace.chat_root();
        let (from, to) = (
            root.join(".archive").join(&session.uuid),
            root.join(&session.uuid),
        );
        if from.is_dir() && to.symlink_metadata().is_ok() {
            log::warn!(
                "`{}` stays: `{}` is in its place",
                from.display(),
                to.display()
            );
        } else if from.is_dir() {
            std::fs::rename(&from, &to).map_err(StoreError::io("move back", &from))?;
            files::sync_directory_of(&to)?;
        }
        let changed = registry.unmark_archived(&session.uuid);
        if changed {
            registry.save()?;
        }
        Ok(changed)
    })
}

/// Returns every chat number that a session, an archived one, the registry, a history or a state file bears.
///
/// # Errors
/// [`StoreError::Corrupt`] for a registry that cannot be read, [`StoreError::Io`].
pub fn used_ids(workspace: &Workspace) -> Result<Vec<ChatId>, StoreError> {
    let mut used = Vec::new();
    let chat_root = workspace.chat_root();
    for dir in [&chat_root, &chat_root.join(".archive")] {
        used.extend(
            files::names_in(dir)?
                .iter()
                .filter_map(|name| ChatId::from_any_form(name)),
        );
    }
    let histories = files::names_in(workspace.root())?;
    used.extend(histories.iter().filter_map(|name| {
        name.strip_prefix("chat-history-")?
            .strip_suffix(".jsonl")
            .and_then(ChatId::from_digits)
    }));
    let states = files::names_in(&workspace.service_dir())?;
    // File 0 may be the dispatcher's own; it says nothing about chats.
    used.extend(states.iter().filter_map(|name| {
        name.strip_prefix("coordinator-state-")?
            .strip_suffix(".json")
            .and_then(ChatId::from_digits)
            .filter(|id| id.0 != 0)
    }));
    if let Some(registry) = Registry::load(workspace)? {
        used.extend(
            registry
                .sessions()
                .flat_map(|session| session.aliases)
                .filter_map(|alias| ChatId::from_any_form(&alias)),
        );
    }
    Ok(used)
}
