//! One inotify instance for all sessions: who wrote to which inbox or outbox, whoever wrote it.
//!
//! Messages may come from the daemon itself, from `wg` without a daemon, or from another tool that appends to
//! the file. Where the kernel gives no inotify instance (128 per user) or no further watch, the sessions it cannot watch are
//! looked at once a second, and the log says so once.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};
use parking_lot::Mutex;
use std::sync::Arc;

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
    /// Another tool's screen may have come or gone.
    Marker,
    /// Something was missed: look at everything.
    Anything,
}

/// How often sessions without a watch are looked at.
const POLL: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
struct Table {
    watched: BTreeMap<WatchDescriptor, ChatId>,
    descriptors: BTreeMap<ChatId, WatchDescriptor>,
    unwatched: Vec<ChatId>,
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
    /// Starts; `changed` is called on the watching thread.
    ///
    /// # Errors
    ///
    /// The operating system's, when neither thread nor pipe can be made.
    pub(super) fn start(changed: impl Fn(ChatId, Changed) + Send + 'static) -> io::Result<Self> {
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
                .spawn(move || run(inotify.as_deref(), &table, &stopped, &changed))?
        };
        Ok(Self {
            inotify,
            table,
            stop,
            thread: Some(thread),
        })
    }

    /// Watches a chat's session directory, once.
    pub(super) fn add(&self, chat: ChatId, dir: &Path) {
        let mut table = self.table.lock();
        if table.descriptors.contains_key(&chat) || table.unwatched.contains(&chat) {
            return;
        }
        let flags = AddWatchFlags::IN_MODIFY
            | AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_ONLYDIR;
        match self
            .inotify
            .as_ref()
            .map(|inotify| inotify.add_watch(dir, flags))
        {
            Some(Ok(descriptor)) => {
                table.watched.insert(descriptor, chat);
                table.descriptors.insert(chat, descriptor);
            }
            Some(Err(e)) => {
                log::warn!(
                    "`{}` cannot be watched ({e}): it is looked at once a second",
                    dir.display()
                );
                table.unwatched.push(chat);
                drop(table);
                self.wake();
            }
            None => {
                table.unwatched.push(chat);
                drop(table);
                self.wake();
            }
        }
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
) {
    loop {
        let patience = if table.lock().unwatched.is_empty() {
            PollTimeout::NONE
        } else {
            PollTimeout::try_from(POLL).unwrap_or(PollTimeout::MAX)
        };
        let mut fds = vec![PollFd::new(stopped.as_fd(), PollFlags::POLLIN)];
        if let Some(inotify) = inotify {
            fds.push(PollFd::new(inotify.as_fd(), PollFlags::POLLIN));
        }
        match poll(&mut fds, patience) {
            Ok(0) => {
                let look = table.lock().unwatched.clone();
                for chat in look {
                    changed(chat, Changed::Anything);
                }
            }
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(e) => {
                log::error!("the inbox watch cannot poll: {e}");
                return;
            }
        }
        let mut sink = [0_u8; 64];
        if let Ok(0) = (&*stopped).read(&mut sink) {
            return;
        }
        let Some(inotify) = inotify else { continue };
        let mut seen: Vec<(ChatId, Changed)> = Vec::new();
        while let Ok(events) = inotify.read_events() {
            if events.is_empty() {
                break;
            }
            let table = table.lock();
            for event in events {
                if event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
                    seen.extend(
                        table
                            .descriptors
                            .keys()
                            .map(|chat| (*chat, Changed::Anything)),
                    );
                    continue;
                }
                let Some(chat) = table.watched.get(&event.wd).copied() else {
                    continue;
                };
                let what = match event.name.as_deref().and_then(std::ffi::OsStr::to_str) {
                    Some("inbox.jsonl") => Changed::Inbox,
                    Some("outbox.jsonl") => Changed::Outbox,
                    Some(".handler.pid") => Changed::Lock,
                    Some(".tui-driven") => Changed::Marker,
                    _ => continue,
                };
                seen.push((chat, what));
            }
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
        let watch = InboxWatch::start(move |chat, what| tell.send((chat, what)).unwrap()).unwrap();
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
}
