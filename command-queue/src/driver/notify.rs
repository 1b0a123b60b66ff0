//! Tells owners and listeners what happened, on a thread of its own: theirs is the only time that it costs.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crossbeam_channel::{Receiver, Sender, unbounded};
use parking_lot::{Mutex, RwLock};

use super::lane::LaneCell;
use super::slot::SlotNotice;
use super::task::{TaskRef, panic_message};
use crate::core::active::Cause;
use crate::core::lane::WaitedLong;
use crate::core::step::Step;
use crate::event::Event;
use crate::id::TaskId;

/// Events that wait for slow listeners; more are counted and dropped.
const BACKLOG: usize = 8192;

type Listener = Arc<dyn Fn(&Event) + Send + Sync>;

enum Message {
    Event(Event),
    Notice(TaskRef, SlotNotice),
}

pub(crate) struct Notifier {
    name: String,
    sender: Sender<Message>,
    receiver: Mutex<Option<Receiver<Message>>>,
    listening: AtomicBool,
    listeners: Arc<RwLock<Vec<Listener>>>,
    lost: AtomicU64,
}

impl Notifier {
    pub(crate) fn new(name: &str) -> Self {
        let (sender, receiver) = unbounded();
        Self {
            name: format!("{name}-notice"),
            sender,
            receiver: Mutex::new(Some(receiver)),
            listening: AtomicBool::new(false),
            listeners: Arc::default(),
            lost: AtomicU64::new(0),
        }
    }

    /// Adds a listener. Returns whether there is a thread to call it.
    pub(crate) fn listen(&self, listener: Listener) -> bool {
        self.listeners.write().push(listener);
        self.listening.store(true, Ordering::SeqCst);
        self.started()
    }

    /// Starts the thread if it does not run yet. Returns whether it does.
    pub(crate) fn started(&self) -> bool {
        let mut place = self.receiver.lock();
        let Some(receiver) = place.take() else {
            return true;
        };
        let listeners = Arc::clone(&self.listeners);
        let spare = receiver.clone();
        let spawned = std::thread::Builder::new()
            .name(self.name.clone())
            .spawn(move || tell(&receiver, &listeners));
        match spawned {
            Ok(_) => true,
            Err(error) => {
                log::warn!("failed to start the notice thread: {error}");
                *place = Some(spare);
                false
            }
        }
    }

    pub(crate) fn notice(&self, task: &TaskRef, notice: SlotNotice) {
        if task.is_slot() {
            drop(self.sender.send(Message::Notice(Arc::clone(task), notice)));
            self.started();
        }
    }

    pub(crate) fn is_listening(&self) -> bool {
        self.listening.load(Ordering::Relaxed)
    }

    pub(crate) fn event(&self, event: impl FnOnce() -> Event) {
        if !self.is_listening() {
            return;
        }
        if self.sender.len() >= BACKLOG {
            self.lost.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let lost = self.lost.swap(0, Ordering::Relaxed);
        if lost > 0 {
            drop(
                self.sender
                    .send(Message::Event(Event::Lost { count: lost })),
            );
        }
        drop(self.sender.send(Message::Event(event())));
    }

    pub(crate) fn returned_late(&self, lane: &LaneCell, seq: u64) {
        self.event(|| Event::ReturnedLate {
            lane: Arc::clone(&lane.name),
            id: TaskId {
                lane: lane.number,
                seq,
            },
        });
    }

    pub(crate) fn waited(&self, lane: &LaneCell, seq: u64, report: WaitedLong) {
        self.event(|| Event::WaitedLong {
            lane: Arc::clone(&lane.name),
            id: TaskId {
                lane: lane.number,
                seq,
            },
            waited: report.waited,
            ahead: report.ahead,
            active: report.active,
            behind: report.behind,
        });
    }

    pub(crate) fn event_of(&self, lane: &LaneCell, step: &Step<TaskRef>) {
        if !self.is_listening() {
            return;
        }
        let name = || Arc::clone(&lane.name);
        let id = |seq: u64| TaskId {
            lane: lane.number,
            seq,
        };
        let event = match step {
            Step::Suspect {
                seq,
                idle_for,
                ran_for,
                ..
            } => Event::Suspected {
                lane: name(),
                id: id(*seq),
                idle_for: *idle_for,
                ran_for: *ran_for,
            },
            Step::Stop {
                seq,
                cause,
                idle_for,
                ran_for,
                ..
            } => match cause {
                Cause::Stalled => Event::Stalled {
                    lane: name(),
                    id: id(*seq),
                    idle_for: *idle_for,
                    ran_for: *ran_for,
                },
                Cause::TimedOut { kind, .. } => Event::TimedOut {
                    lane: name(),
                    id: id(*seq),
                    kind: *kind,
                    idle_for: *idle_for,
                    ran_for: *ran_for,
                },
                Cause::Reset => Event::Reset {
                    lane: name(),
                    id: id(*seq),
                },
            },
            Step::Freed { seq, ran_for, .. } => Event::Reclaimed {
                lane: name(),
                id: id(*seq),
                ran_for: *ran_for,
            },
            Step::Kept { seq, ran_for, .. } => Event::Held {
                lane: name(),
                id: id(*seq),
                ran_for: *ran_for,
            },
            Step::Expired { seq, waited, .. } => Event::QueuedTooLong {
                lane: name(),
                id: id(*seq),
                waited: *waited,
            },
            Step::Blocked(blocked) => Event::Blocked {
                lane: name(),
                active: blocked.active,
                width: blocked.width,
                queued: blocked.queued,
                oldest_active: blocked.oldest_active,
                oldest_queued: blocked.oldest_queued,
                wedged: blocked.wedged,
                suppressed: blocked.suppressed,
            },
            Step::Ineffective(blocked) => Event::RecoveryIneffective {
                lane: name(),
                active: blocked.active,
                queued: blocked.queued,
                wedged: blocked.wedged,
            },
            Step::AskProbe { .. } | Step::ProbeSilent { .. } => return,
        };
        self.event(|| event);
    }
}

/// Ends when the queue is gone with all its workers and slots, because nobody can send then.
fn tell(receiver: &Receiver<Message>, listeners: &RwLock<Vec<Listener>>) {
    while let Ok(message) = receiver.recv() {
        match message {
            Message::Event(event) => {
                let listeners = listeners.read().clone();
                for listener in listeners {
                    shield("a listener", || listener(&event));
                }
            }
            Message::Notice(task, notice) => shield("the owner of a slot", || task.notice(&notice)),
        }
    }
}

fn shield(who: &str, call: impl FnOnce()) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(call)) {
        log::warn!("{who} panicked: {}", panic_message(panic));
    }
}
