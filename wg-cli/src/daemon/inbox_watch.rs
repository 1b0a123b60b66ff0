//! One inotify instance for all sessions and the graph: who wrote to which inbox or outbox, whoever wrote it.
//!
//! Messages may come from the daemon itself, from `wg` without a daemon, or from another tool that appends to
//! the file. Where the kernel gives no inotify instance (128 per user) or no further watch, and where a session's directory is gone,
//! that session is looked at once a second, however busy the others are, and watched as soon as it can be.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};
use parking_lot::Mutex;
use std::sync::Arc;

use crate::clock;
use crate::store::graph::ChatId;

/// Which file of a session changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Changed {
    /// A message may have come.
    Inbox,
    /// A reply may have come.
    Outbox,
    /// Somebody took the session.
    Lock,
    /// Its handler may have been asked to leave.
    Release,
    /// Another tool's screen may have come or gone.
    Marker,
    /// Something was missed: look at everything.
    Anything,
}

/// The graph's file, as its directory names it.
const GRAPH: &str = "graph.jsonl";

/// What the kernel says when a watched directory is not in its place any more.
const OVER: AddWatchFlags = AddWatchFlags::IN_IGNORED
    .union(AddWatchFlags::IN_DELETE_SELF)
    .union(AddWatchFlags::IN_MOVE_SELF);

/// How often sessions without a watch are looked at.
const POLL: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
struct Table {
    watched: BTreeMap<WatchDescriptor, (ChatId, PathBuf)>,
    descriptors: BTreeMap<ChatId, WatchDescriptor>,
    /// The directory of the graph.
    root: Option<WatchDescriptor>,
    /// Beyond what the kernel gives, or gone: looked at every second, and watched again as soon as that can be.
    unwatched: BTreeMap<ChatId, PathBuf>,
}

impl Table {
    /// Watches a directory; says why not where that cannot be.
    fn watch(&mut self, inotify: &Inotify, chat: ChatId, dir: &Path) -> Result<(), Errno> {
        let flags = AddWatchFlags::IN_MODIFY
            | AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_DELETE_SELF
            | AddWatchFlags::IN_MOVE_SELF
            | AddWatchFlags::IN_ONLYDIR;
        let descriptor = inotify.add_watch(dir, flags)?;
        self.watched.insert(descriptor, (chat, dir.to_owned()));
        self.descriptors.insert(chat, descriptor);
        self.unwatched.remove(&chat);
        Ok(())
    }

    /// The watched directory is not in its place any more: whatever is there next is looked for.
    fn lose(&mut self, inotify: &Inotify, descriptor: WatchDescriptor) -> Option<ChatId> {
        let (chat, dir) = self.watched.remove(&descriptor)?;
        self.descriptors.remove(&chat);
        self.unwatched.insert(chat, dir);
        // One that was moved away is still watched where it is now.
        if let Err(e) = inotify.rm_watch(descriptor) {
            log::debug!("{chat}: its watch had ended by itself: {e}");
        }
        Some(chat)
    }
}

/// Watches session directories until it is dropped.
#[derive(Debug)]
pub(super) struct InboxWatch {
    inotify: Option<Arc<Inotify>>,
    table: Arc<Mutex<Table>>,
    stop: UnixStream,
    thread: Option<JoinHandle<()>>,
}

impl InboxWatch {
    /// Starts; `changed` and `graph_changed` are called on the watching thread.
    ///
    /// # Errors
    ///
    /// The operating system's, when neither thread nor pipe can be made.
    pub(super) fn start(
        changed: impl Fn(ChatId, Changed) + Send + 'static,
        graph_changed: impl Fn() + Send + 'static,
    ) -> io::Result<Self> {
        let inotify = match Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK) {
            Ok(inotify) => Some(Arc::new(inotify)),
            Err(e) => {
                log::warn!("no inotify instance ({e}): inboxes are looked at once a second");
                None
            }
        };
        let table = Arc::new(Mutex::new(Table::default()));
        let (stop, stopped) = UnixStream::pair()?;
        stopped.set_nonblocking(true)?;
        let thread = {
            let inotify = inotify.clone();
            let table = Arc::clone(&table);
            thread::Builder::new()
                .name("inbox-watch".into())
                .spawn(move || {
                    run(
                        inotify.as_deref(),
                        &table,
                        &stopped,
                        &changed,
                        &graph_changed,
                    );
                })?
        };
        Ok(Self {
            inotify,
            table,
            stop,
            thread: Some(thread),
        })
    }

    /// Watches the directory of the graph. Where that cannot be, the graph is looked at once a second as long as there is a session that
    /// cannot be watched either, and before each start in any case.
    pub(super) fn add_graph(&self, root: &Path) {
        let flags = AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_ONLYDIR;
        let mut table = self.table.lock();
        if let Some(inotify) = &self.inotify {
            match inotify.add_watch(root, flags) {
                Ok(descriptor) => table.root = Some(descriptor),
                Err(e) => log::warn!("`{}` cannot be watched ({e})", root.display()),
            }
        }
    }

    /// Watches a chat's session directory, once.
    pub(super) fn add(&self, chat: ChatId, dir: &Path) {
        let mut table = self.table.lock();
        if table.descriptors.contains_key(&chat) || table.unwatched.contains_key(&chat) {
            return;
        }
        if let Some(inotify) = &self.inotify {
            match table.watch(inotify, chat, dir) {
                Ok(()) => return,
                Err(e) => log::warn!(
                    "`{}` cannot be watched ({e}): it is looked at once a second",
                    dir.display()
                ),
            }
        }
        table.unwatched.insert(chat, dir.to_owned());
        drop(table);
        self.wake();
    }

    /// Lets the thread look at the table again.
    fn wake(&self) {
        if let Err(e) = (&self.stop).write(&[1]) {
            log::debug!("the inbox watch is gone: {e}");
        }
    }
}

impl Drop for InboxWatch {
    fn drop(&mut self) {
        if let Err(e) = self.stop.shutdown(std::net::Shutdown::Both) {
            log::debug!("the inbox watch is gone: {e}");
        }
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            log::error!("the inbox watch panicked");
        }
    }
}

fn run(
    inotify: Option<&Inotify>,
    table: &Mutex<Table>,
    stopped: &UnixStream,
    changed: &(impl Fn(ChatId, Changed) + Send + 'static),
    graph_changed: &(impl Fn() + Send + 'static),
) {
    // By the clock and not by silence: a busy session must not hide one that is not watched.
    let mut look_at: Option<Instant> = None;
    loop {
        look_at = if table.lock().unwatched.is_empty() {
            None
        } else {
            Some(look_at.unwrap_or_else(|| clock::steady() + POLL))
        };
        let patience = look_at.map_or(PollTimeout::NONE, |at| {
            let left = at.saturating_duration_since(clock::steady());
            PollTimeout::try_from(left.as_nanos().div_ceil(1_000_000)).unwrap_or(PollTimeout::MAX)
        });
        let mut fds = vec![PollFd::new(stopped.as_fd(), PollFlags::POLLIN)];
        if let Some(inotify) = inotify {
            fds.push(PollFd::new(inotify.as_fd(), PollFlags::POLLIN));
        }
        match poll(&mut fds, patience) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(e) => {
                log::error!("the inbox watch cannot poll: {e}");
                return;
            }
        }
        if look_at.is_some_and(|at| clock::steady() >= at) {
            look_at = None;
            if table.lock().root.is_none() {
                graph_changed();
            }
            let unwatched = table.lock().unwatched.clone();
            for (chat, dir) in unwatched {
                if let Some(inotify) = inotify
                    && table.lock().watch(inotify, chat, &dir).is_ok()
                {
                    log::debug!("`{}` is watched again", dir.display());
                }
                // After the watch, so that nothing comes in between.
                changed(chat, Changed::Anything);
            }
        }
        let mut sink = [0_u8; 64];
        if let Ok(0) = (&*stopped).read(&mut sink) {
            return;
        }
        let Some(inotify) = inotify else { continue };
        let mut seen: Vec<(ChatId, Changed)> = Vec::new();
        let mut graph = false;
        while let Ok(events) = inotify.read_events() {
            if events.is_empty() {
                break;
            }
            let mut table = table.lock();
            for event in events {
                if Some(event.wd) == table.root {
                    graph |= event.name.as_deref().is_some_and(|name| name == GRAPH);
                    continue;
                }
                if event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
                    graph = true;
                    seen.extend(
                        table
                            .descriptors
                            .keys()
                            .map(|chat| (*chat, Changed::Anything)),
                    );
                    continue;
                }
                if event.mask.intersects(OVER) {
                    let lost = table.lose(inotify, event.wd);
                    seen.extend(lost.map(|chat| (chat, Changed::Anything)));
                    continue;
                }
                let Some(chat) = table.watched.get(&event.wd).map(|(chat, _)| *chat) else {
                    continue;
                };
                let what = match event.name.as_deref().and_then(std::ffi::OsStr::to_str) {
                    Some("inbox.jsonl") => Changed::Inbox,
                    Some("outbox.jsonl") => Changed::Outbox,
                    Some(".handler.pid") => Changed::Lock,
                    Some(".handler.release-requested") => Changed::Release,
                    Some(".tui-driven") => Changed::Marker,
                    _ => continue,
                };
                seen.push((chat, what));
            }
        }
        if graph {
            graph_changed();
        }
        // A burst of writes is one change.
        seen.sort_unstable();
        seen.dedup();
        for (chat, what) in seen {
            changed(chat, what);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_by_anybody_is_told_with_its_chat() {
        let dir = tempfile::tempdir().unwrap();
        let (tell, told) = crossbeam_channel::unbounded();
        let watch =
            InboxWatch::start(move |chat, what| tell.send((chat, what)).unwrap(), || {}).unwrap();
        for n in 0..3 {
            let session = dir.path().join(n.to_string());
            std::fs::create_dir(&session).unwrap();
            watch.add(ChatId(n), &session);
        }
        std::fs::write(dir.path().join("1/inbox.jsonl"), "x").unwrap();
        assert_eq!(told.recv().unwrap(), (ChatId(1), Changed::Inbox));
        std::fs::write(dir.path().join("2/outbox.jsonl"), "y").unwrap();
        let next = loop {
            let next = told.recv().unwrap();
            if next.0 != ChatId(1) {
                break next;
            }
        };
        assert_eq!(next, (ChatId(2), Changed::Outbox));
    }

    #[test]
    fn a_directory_that_was_removed_or_moved_away_is_watched_again_when_it_is_back() {
        for moved in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            let (tell, told) = crossbeam_channel::unbounded();
            let watch =
                InboxWatch::start(move |chat, what| tell.send((chat, what)).unwrap(), || {})
                    .unwrap();
            let session = dir.path().join("s");
            std::fs::create_dir(&session).unwrap();
            watch.add(ChatId(1), &session);
            if moved {
                std::fs::rename(&session, dir.path().join("away")).unwrap();
            } else {
                std::fs::remove_dir(&session).unwrap();
            }
            assert_eq!(told.recv().unwrap(), (ChatId(1), Changed::Anything));
            std::fs::create_dir(&session).unwrap();
            while watch.table.lock().descriptors.is_empty() {
                assert_eq!(told.recv().unwrap(), (ChatId(1), Changed::Anything));
            }
            std::fs::write(session.join("inbox.jsonl"), "x").unwrap();
            while told.recv().unwrap() != (ChatId(1), Changed::Inbox) {}
        }
    }

    #[test]
    fn a_busy_session_does_not_hide_one_that_is_not_watched() {
        let dir = tempfile::tempdir().unwrap();
        let (tell, told) = crossbeam_channel::unbounded();
        let watch =
            InboxWatch::start(move |chat, what| tell.send((chat, what)).unwrap(), || {}).unwrap();
        let session = dir.path().join("busy");
        std::fs::create_dir(&session).unwrap();
        watch.add(ChatId(1), &session);
        watch.add(ChatId(2), &dir.path().join("missing"));
        loop {
            std::fs::write(session.join("inbox.jsonl"), "x").unwrap();
            if told.recv().unwrap() == (ChatId(2), Changed::Anything) {
                break;
            }
        }
    }
}
