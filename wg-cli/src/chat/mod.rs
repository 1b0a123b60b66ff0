//! The pure core of a chat: who wants it to run, who forbids it, and for which reason a handler may start.
//!
//! No I/O, clock, log or channel here: the daemon tells what happened and carries out what comes back, and the
//! simulator does the same with a world of its own. *When* a wanted handler starts is the business of
//! `supervisor::Machine`; this core answers *whether* it may.
//!
//! ```text
//!  inbox, connections, a person's verbs ──▶ Chat::handle ──▶ Act (start, wake, stop, persist)
//!  the driver, before every spawn       ──▶ Chat::need   ──▶ Need::Because(reason) or Need::Not(why)
//! ```

mod state;

pub use state::{Server, state, state_without_a_daemon};

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::names::StartReason;

/// For how long a released chat is left alone, so that the person who asked for it gets the lock.
pub const HOLD_OFF: Duration = Duration::from_secs(10);

/// What a person has decided for a chat. Only a person's verb changes it; no event of a process does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Wish {
    /// It runs whenever somebody needs it.
    Run,
    /// It stays down until it is resumed.
    Stopped,
    /// It is retired; `restore` brings it back.
    Archived,
    /// It was retired by a purge; `restore` brings it back.
    Purged,
}

/// What happened around a chat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Happened {
    /// The inbox was read: is there an unanswered message?
    Looked {
        /// Whether a message waits for its answer.
        unanswered: bool,
    },
    /// A consumer connected.
    ConsumerCame(u64),
    /// A consumer's connection ended.
    ConsumerLeft(u64),
    /// A person asked to stop the chat.
    Stop,
    /// A person asked to resume it, which is a reason to start in itself.
    Resume,
    /// A person archived it.
    Archive,
    /// A purge archived it.
    Purge,
    /// A person brought it back.
    Restore,
    /// The handler was asked to leave so that a person can have the session.
    Release,
    /// Somebody else took the session, or the hold-off has passed.
    HoldOffOver,
    /// A handler was started: a resume has been honoured.
    Started,
    /// The wish that was just handed out could not be written down, so this former one stands.
    WishNotKept(Wish),
}

/// What the daemon does about it, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// Write the wish to the chat's state file before anything else is done.
    PersistWish(Wish),
    /// Write the moment at which a consumer was last seen.
    PersistConsumerSeen,
    /// Lift a park, then start for this reason.
    Unpark(StartReason),
    /// Ask the machine to start; it knows whether it already runs or has to wait.
    Start(StartReason),
    /// End the handler and everything below it.
    Stop,
}

/// Whether a handler may start now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// For this reason.
    Because(StartReason),
    /// It may not, or nobody needs it.
    Not(WhyNot),
}

/// Why no handler may start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhyNot {
    /// A person's wish stands against it.
    Wish(Wish),
    /// It was released to a person until this moment.
    HeldOff(Instant),
    /// No unanswered message, no consumer, no resume.
    NobodyNeedsIt,
}

/// What was found out right before a start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "four independent facts, each a column of the decision's table"
)]
pub struct Findings {
    /// No handler may be started at all: the service is paused or ending.
    pub starts_are_off: bool,
    /// A live process that is not the chat's own handler has the session.
    pub held: bool,
    /// A message waits for its answer.
    pub unanswered: bool,
    /// The chat's agent makes sense.
    pub agent_is_usable: bool,
}

/// What follows from the findings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Start, and write this down as the reason.
    Start(StartReason),
    /// Nothing: a wish forbids it, nobody needs it, or starts are off. What changes that wakes the chat.
    NotNeeded,
    /// Ask again then: it was released to a person.
    HeldOff(Instant),
    /// Somebody has the session; watch who.
    Held,
    /// It cannot work until its agent is changed.
    Refuse,
}

/// One chat as the daemon sees it.
#[derive(Debug, Clone)]
pub struct Chat {
    wish: Wish,
    unanswered: bool,
    consumers: BTreeSet<u64>,
    resume_asked: bool,
    held_off_until: Option<Instant>,
    /// The graph says that its task is over, whoever wrote that.
    retired: bool,
}

impl Chat {
    /// A chat with the wish that its state file holds; nothing is known of its inbox yet.
    #[must_use]
    pub fn new(wish: Wish) -> Self {
        Self {
            wish,
            unanswered: false,
            consumers: BTreeSet::new(),
            resume_asked: false,
            held_off_until: None,
            retired: false,
        }
    }

    /// The wish in force: a chat whose task is over in the graph is archived, whoever wrote that.
    #[must_use]
    pub fn wish(&self) -> Wish {
        if self.retired {
            self.wish.max(Wish::Archived)
        } else {
            self.wish
        }
    }

    /// Takes note of whether the chat's task is over in the graph, where other tools write too.
    pub fn set_retired(&mut self, retired: bool) {
        self.retired = retired;
    }

    /// Whether this consumer is connected.
    #[must_use]
    pub fn has_consumer(&self, who: u64) -> bool {
        self.consumers.contains(&who)
    }

    /// How many consumers are connected.
    #[must_use]
    pub fn consumers(&self) -> usize {
        self.consumers.len()
    }

    /// Whether a message waited for its answer when the inbox was last read.
    #[must_use]
    pub fn has_unanswered(&self) -> bool {
        self.unanswered
    }

    /// When the hold-off ends, if one is in force. Changed by `Release`, `HoldOffOver` and the wishes only.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.held_off_until
    }

    /// Whether a handler may start at `now`, and for which reason of the closed set.
    ///
    /// A message outranks a consumer, and both outrank a resume, because the reason is what `wg why` shows.
    #[must_use]
    pub fn need(&self, now: Instant) -> Need {
        let wish = self.wish();
        if wish != Wish::Run {
            return Need::Not(WhyNot::Wish(wish));
        }
        if let Some(until) = self.held_off_until
            && now < until
        {
            return Need::Not(WhyNot::HeldOff(until));
        }
        if self.unanswered {
            Need::Because(StartReason::Message)
        } else if !self.consumers.is_empty() {
            Need::Because(StartReason::Consumer)
        } else if self.resume_asked {
            Need::Because(StartReason::Resume)
        } else {
            Need::Not(WhyNot::NobodyNeedsIt)
        }
    }

    /// Decides about one start. `retry` is true where the restart policy asks for it.
    ///
    /// The lock comes before the need: whoever holds it is shown and watched, whether or not somebody waits.
    pub fn decide(&mut self, found: Findings, retry: bool, now: Instant) -> Decision {
        self.unanswered = found.unanswered;
        if found.starts_are_off {
            return Decision::NotNeeded;
        }
        let reason = match self.need(now) {
            Need::Not(WhyNot::Wish(_)) => return Decision::NotNeeded,
            Need::Not(WhyNot::HeldOff(until)) => return Decision::HeldOff(until),
            Need::Not(WhyNot::NobodyNeedsIt) => None,
            Need::Because(reason) => Some(reason),
        };
        match reason {
            _ if found.held => Decision::Held,
            None => Decision::NotNeeded,
            Some(_) if !found.agent_is_usable => Decision::Refuse,
            Some(_) if retry => Decision::Start(StartReason::Retry),
            Some(reason) => Decision::Start(reason),
        }
    }

    /// Takes what happened and returns what to do about it.
    #[must_use = "the daemon carries these out"]
    pub fn handle(&mut self, happened: Happened, now: Instant) -> Vec<Act> {
        match happened {
            Happened::Looked { unanswered } => {
                self.unanswered = unanswered;
                // Also when it was unanswered before: the machine merges repeated starts, and a message that
                // arrives in a back-off may cut it short.
                if unanswered {
                    self.start_if_needed(now)
                } else {
                    Vec::new()
                }
            }
            Happened::ConsumerCame(who) => {
                self.consumers.insert(who);
                let mut acts = vec![Act::PersistConsumerSeen];
                acts.extend(self.start_if_needed(now));
                acts
            }
            Happened::ConsumerLeft(who) => {
                if self.consumers.remove(&who) {
                    vec![Act::PersistConsumerSeen]
                } else {
                    Vec::new()
                }
            }
            Happened::Stop => self.forbid(Wish::Stopped),
            Happened::Archive => self.forbid(Wish::Archived),
            Happened::Purge => self.forbid(Wish::Purged),
            Happened::Resume => match self.wish() {
                // An archived chat is restored, never resumed by accident.
                Wish::Archived | Wish::Purged => Vec::new(),
                Wish::Run | Wish::Stopped => {
                    let mut acts = Vec::new();
                    if self.wish == Wish::Stopped {
                        self.wish = Wish::Run;
                        acts.push(Act::PersistWish(Wish::Run));
                    }
                    self.held_off_until = None;
                    self.resume_asked = true;
                    acts.push(Act::Unpark(StartReason::Resume));
                    acts
                }
            },
            Happened::Restore => {
                if self.wish() == Wish::Run {
                    return Vec::new();
                }
                self.wish = Wish::Run;
                self.retired = false;
                let mut acts = vec![Act::PersistWish(Wish::Run)];
                acts.extend(self.start_if_needed(now));
                acts
            }
            Happened::Release => {
                self.held_off_until = now.checked_add(HOLD_OFF);
                Vec::new()
            }
            Happened::HoldOffOver => {
                if self.held_off_until.take().is_none() {
                    return Vec::new();
                }
                self.start_if_needed(now)
            }
            Happened::Started => {
                self.resume_asked = false;
                Vec::new()
            }
            Happened::WishNotKept(was) => {
                self.wish = was;
                if was != Wish::Run {
                    self.resume_asked = false;
                }
                // What the wish would have ended, such as a hold-off, has ended: whoever waited is served.
                self.start_if_needed(now)
            }
        }
    }

    fn start_if_needed(&self, now: Instant) -> Vec<Act> {
        match self.need(now) {
            Need::Because(reason) => vec![Act::Start(reason)],
            Need::Not(_) => Vec::new(),
        }
    }

    /// A wish against running. A weaker one never replaces a stronger one: stopping an archived chat does not
    /// make it a stopped chat that a resume would start.
    fn forbid(&mut self, wish: Wish) -> Vec<Act> {
        self.resume_asked = false;
        self.held_off_until = None;
        if self.wish >= wish {
            // Stop all the same: a handler may have been started by somebody else meanwhile.
            return vec![Act::Stop];
        }
        self.wish = wish;
        vec![Act::PersistWish(wish), Act::Stop]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "a test needs one instant to count from"
    )]
    fn start() -> Instant {
        Instant::now()
    }

    #[test]
    fn nobody_there_and_nothing_unanswered_is_no_reason_to_start() {
        let chat = Chat::new(Wish::Run);
        assert_eq!(chat.need(start()), Need::Not(WhyNot::NobodyNeedsIt));
    }

    #[test]
    fn a_message_a_consumer_and_a_resume_are_reasons_in_that_order() {
        let now = start();
        let mut chat = Chat::new(Wish::Run);
        assert_eq!(
            chat.handle(Happened::Resume, now),
            vec![Act::Unpark(StartReason::Resume)]
        );
        assert_eq!(chat.need(now), Need::Because(StartReason::Resume));
        assert_eq!(
            chat.handle(Happened::ConsumerCame(1), now),
            vec![Act::PersistConsumerSeen, Act::Start(StartReason::Consumer)]
        );
        assert_eq!(
            chat.handle(Happened::Looked { unanswered: true }, now),
            vec![Act::Start(StartReason::Message)]
        );
        assert!(
            chat.handle(Happened::Looked { unanswered: false }, now)
                .is_empty()
        );
        assert!(chat.handle(Happened::Started, now).is_empty());
        assert_eq!(chat.need(now), Need::Because(StartReason::Consumer));
        assert_eq!(
            chat.handle(Happened::ConsumerLeft(1), now),
            vec![Act::PersistConsumerSeen]
        );
        assert_eq!(chat.need(now), Need::Not(WhyNot::NobodyNeedsIt));
    }

    #[test]
    fn a_wish_is_persisted_before_anything_is_ended() {
        for (event, wish) in [
            (Happened::Stop, Wish::Stopped),
            (Happened::Archive, Wish::Archived),
            (Happened::Purge, Wish::Purged),
        ] {
            let mut chat = Chat::new(Wish::Run);
            assert_eq!(
                chat.handle(event, start()),
                vec![Act::PersistWish(wish), Act::Stop]
            );
            assert_eq!(chat.wish(), wish);
        }
    }

    #[test]
    fn a_purged_chat_never_starts_whatever_happens_but_a_restore() {
        let now = start();
        let events = [
            Happened::Looked { unanswered: true },
            Happened::ConsumerCame(1),
            Happened::ConsumerLeft(1),
            Happened::Stop,
            Happened::Resume,
            Happened::Archive,
            Happened::Purge,
            Happened::Release,
            Happened::HoldOffOver,
            Happened::Started,
        ];
        // Every sequence of three events.
        for a in events {
            for b in events {
                for c in events {
                    let mut chat = Chat::new(Wish::Purged);
                    for event in [a, b, c] {
                        let acts = chat.handle(event, now);
                        assert!(
                            !acts
                                .iter()
                                .any(|act| matches!(act, Act::Start(_) | Act::Unpark(_))),
                            "{a:?} {b:?} {c:?}"
                        );
                        assert_eq!(chat.need(now), Need::Not(WhyNot::Wish(Wish::Purged)));
                    }
                }
            }
        }
        let mut chat = Chat::new(Wish::Purged);
        assert!(
            chat.handle(Happened::Looked { unanswered: true }, now)
                .is_empty()
        );
        assert_eq!(
            chat.handle(Happened::Restore, now),
            vec![
                Act::PersistWish(Wish::Run),
                Act::Start(StartReason::Message)
            ]
        );
    }

    #[test]
    fn a_stop_of_an_archived_chat_does_not_open_it_to_a_resume() {
        let mut chat = Chat::new(Wish::Archived);
        assert_eq!(chat.handle(Happened::Stop, start()), vec![Act::Stop]);
        assert!(chat.handle(Happened::Resume, start()).is_empty());
        assert_eq!(chat.wish(), Wish::Archived);
    }

    #[test]
    fn a_wish_that_could_not_be_written_down_leaves_the_chat_as_needed_as_it_was() {
        let now = start();
        let mut chat = Chat::new(Wish::Run);
        let unanswered = Happened::Looked { unanswered: true };
        assert!(chat.handle(Happened::Release, now).is_empty());
        assert!(chat.handle(unanswered, now).is_empty());
        let asked = chat.handle(Happened::Archive, now);
        assert_eq!(asked, vec![Act::PersistWish(Wish::Archived), Act::Stop]);
        // The hold-off went with the wish, so nothing else would wake the chat.
        assert_eq!(
            chat.handle(Happened::WishNotKept(Wish::Run), now),
            vec![Act::Start(StartReason::Message)]
        );
        assert_eq!(chat.wish(), Wish::Run);

        let mut chat = Chat::new(Wish::Stopped);
        assert!(!chat.handle(Happened::Resume, now).is_empty());
        assert!(
            chat.handle(Happened::WishNotKept(Wish::Stopped), now)
                .is_empty()
        );
        assert_eq!(chat.need(now), Need::Not(WhyNot::Wish(Wish::Stopped)));
    }

    #[test]
    fn a_start_is_decided_by_wish_then_lock_then_need_then_agent() {
        let now = start();
        let found = Findings {
            starts_are_off: false,
            held: false,
            unanswered: true,
            agent_is_usable: true,
        };
        let decide = |wish, found: Findings, retry| Chat::new(wish).decide(found, retry, now);
        for (wish, found, retry, decision) in [
            (
                Wish::Run,
                found,
                false,
                Decision::Start(StartReason::Message),
            ),
            (Wish::Run, found, true, Decision::Start(StartReason::Retry)),
            (
                Wish::Run,
                Findings {
                    unanswered: false,
                    ..found
                },
                true,
                Decision::NotNeeded,
            ),
            (
                Wish::Run,
                Findings {
                    starts_are_off: true,
                    ..found
                },
                false,
                Decision::NotNeeded,
            ),
            (
                Wish::Run,
                Findings {
                    agent_is_usable: false,
                    ..found
                },
                false,
                Decision::Refuse,
            ),
            (
                Wish::Run,
                Findings {
                    held: true,
                    agent_is_usable: false,
                    ..found
                },
                false,
                Decision::Held,
            ),
            (
                Wish::Run,
                Findings {
                    held: true,
                    unanswered: false,
                    ..found
                },
                false,
                Decision::Held,
            ),
            (
                Wish::Stopped,
                Findings {
                    held: true,
                    ..found
                },
                false,
                Decision::NotNeeded,
            ),
            (Wish::Archived, found, true, Decision::NotNeeded),
            (Wish::Purged, found, true, Decision::NotNeeded),
        ] {
            assert_eq!(
                decide(wish, found, retry),
                decision,
                "{wish:?} {found:?} {retry}"
            );
        }
    }

    #[test]
    fn a_released_chat_waits_for_the_person_and_no_longer() {
        let now = start();
        let mut chat = Chat::new(Wish::Run);
        assert!(chat.handle(Happened::Release, now).is_empty());
        assert!(
            chat.handle(Happened::Looked { unanswered: true }, now)
                .is_empty()
        );
        assert_eq!(
            chat.need(at(now, 9)),
            Need::Not(WhyNot::HeldOff(at(now, 10)))
        );
        assert_eq!(chat.deadline(), Some(at(now, 10)));
        assert_eq!(chat.need(at(now, 10)), Need::Because(StartReason::Message));
        assert_eq!(
            chat.handle(Happened::HoldOffOver, at(now, 10)),
            vec![Act::Start(StartReason::Message)]
        );
        assert_eq!(chat.deadline(), None);
    }
}
