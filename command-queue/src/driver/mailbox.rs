//! Where tasks are left for a lane that somebody will look at anyway.
//!
//! A submitter and a worker that meet at one lock for each task spend more time on the meeting than on the task. So
//! the usual task is left here, under a lock of its own, and the worker takes all of them when it has none left.
//!
//! While the mailbox is *attended* somebody is bound to look: a worker that runs a task of this lane, or one that
//! will take its token. Whoever ends that looks once more afterwards; whoever leaves a task asks afterwards, and sees
//! to the lane themselves if nobody attends. Both orders are sequentially consistent, so one of the two sees the
//! other.

use std::collections::VecDeque;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};

use super::sync::{AtomicBool, Mutex, MutexGuard};

pub(crate) struct Mailbox<T> {
    inbox: Mutex<Inbox<T>>,
    has_mail: AtomicBool,
    attended: AtomicBool,
}

#[expect(
    clippy::box_collection,
    reason = "an idle lane keeps no buffer, and there are many idle lanes"
)]
struct Inbox<T> {
    /// The number of the next task.
    next: u64,
    /// Absent in a lane that never had more to do than it could see to at once.
    mail: Option<Box<VecDeque<T>>>,
}

/// The mailbox, held open for one task.
pub(crate) struct Slit<'a, T> {
    mailbox: &'a Mailbox<T>,
    inbox: MutexGuard<'a, Inbox<T>>,
}

impl<T> Mailbox<T> {
    pub(crate) fn new() -> Self {
        Self {
            inbox: Mutex::new(Inbox {
                next: 0,
                mail: None,
            }),
            has_mail: AtomicBool::new(false),
            attended: AtomicBool::new(false),
        }
    }

    /// Returns whether something was left.
    pub(crate) fn has_mail(&self) -> bool {
        self.has_mail.load(SeqCst)
    }

    /// Returns whether somebody will look.
    pub(crate) fn is_attended(&self) -> bool {
        self.attended.load(SeqCst)
    }

    /// Says whether somebody will look from now on. Returns whether the caller has to look once more, because
    /// somebody may have relied on what was said before.
    pub(crate) fn set_attended(&self, attended: bool) -> bool {
        if self.attended.load(Relaxed) == attended {
            return false;
        }
        self.attended.store(attended, SeqCst);
        !attended && self.has_mail.load(SeqCst)
    }

    /// Opens the mailbox, unless the queue is closed. That is asked under the lock, so that closing can wait for
    /// everybody who saw the queue open.
    pub(crate) fn open(&self, is_open: impl FnOnce() -> bool) -> Option<Slit<'_, T>> {
        let inbox = self.inbox.lock();
        is_open().then_some(Slit {
            mailbox: self,
            inbox,
        })
    }

    /// Waits until everybody who has it open is done.
    pub(crate) fn fence(&self) {
        drop(self.inbox.lock());
    }

    /// Hands over everything that was left.
    pub(crate) fn empty_into(&self, take: impl FnOnce(&mut VecDeque<T>)) {
        if self.has_mail.load(SeqCst) {
            self.hand_over(&mut self.inbox.lock(), take);
        }
    }

    fn hand_over(&self, inbox: &mut Inbox<T>, take: impl FnOnce(&mut VecDeque<T>)) {
        self.has_mail.store(false, SeqCst);
        if let Some(mail) = &mut inbox.mail {
            take(mail);
        }
    }

    /// Returns the next number, for a task that goes elsewhere. What was left before is handed over first, so that
    /// numbers arrive there in order.
    pub(crate) fn next_number(&self, take: impl FnOnce(&mut VecDeque<T>)) -> u64 {
        let mut inbox = self.inbox.lock();
        if inbox.mail.as_ref().is_some_and(|mail| !mail.is_empty()) {
            self.hand_over(&mut inbox, take);
        }
        let number = inbox.next;
        inbox.next += 1;
        number
    }

    /// Gives the buffer of an empty mailbox back.
    pub(crate) fn shrink(&self) {
        let mut inbox = self.inbox.lock();
        if inbox.mail.as_ref().is_some_and(|mail| mail.is_empty()) {
            inbox.mail = None;
        }
    }
}

impl<T> Slit<'_, T> {
    /// Returns the number of the task that is about to be left.
    pub(crate) fn number(&self) -> u64 {
        self.inbox.next
    }

    /// Leaves a task. Returns whether somebody will look; if not, the caller has to see to the lane.
    pub(crate) fn leave(self, task: T) -> bool {
        let Self { mailbox, mut inbox } = self;
        inbox.next += 1;
        inbox.mail.get_or_insert_default().push_back(task);
        mailbox.has_mail.store(true, SeqCst);
        drop(inbox);
        mailbox.is_attended()
    }
}
