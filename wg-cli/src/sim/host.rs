//! What the driver asks the simulated daemon: may this one start, what did its end mean. It follows `daemon/host.rs`.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::io;
use std::time::Duration;

use exit_classifier::{Asked, Ending, LockHolder, Observation};
use supervisor::{Event, Generation, Notice, SpawnFailure, StartReason as Cause};

use super::census::Kind as Counted;
use super::daemon::Run;
use super::process::{Cut, Handler, Kind, Phase};
use super::world::{ChatNo, Matter, Spawning, World};
use crate::chat::{Decision, Findings, Happened};
use crate::names::StartReason;
use crate::store::chat_state::SpawnRecord;
use crate::wire;

/// How often a decision that cannot be taken just now is tried again, as in `daemon/host.rs`.
const NOT_NOW: Duration = Duration::from_secs(2);

impl World<'_> {
    pub(super) fn prepare(&mut self, chat: ChatNo, generation: Generation, reason: Cause) -> Event {
        let not_now = |reason: &str| Event::NotNow {
            generation,
            reason: reason.to_owned(),
            after: NOT_NOW,
        };
        self.asked(chat);
        if self.files_unreadable {
            return not_now("the inbox cannot be read");
        }
        let holder = self.live_holder(chat);
        let found = Findings {
            starts_are_off: self.is_ending() || self.is_paused(),
            held: holder.is_some(),
            unanswered: self.disks[chat].unanswered().is_some(),
            agent_is_usable: self.disks[chat].agent_is_usable,
        };
        let retry = matches!(reason, Cause::Retry(_));
        let (now, conduct) = (self.instant(), self.conduct);
        let decision = match self.entry_mut(chat) {
            Some(entry) => conduct.decide(&mut entry.core, found, retry, now),
            None => Decision::NotNeeded,
        };
        self.count(Counted::Decision, decision_word(decision));
        match decision {
            Decision::NotNeeded => Event::NotNeeded { generation },
            Decision::HeldOff(until) => Event::NotNow {
                generation,
                reason: "it was released to a person".to_owned(),
                after: until.saturating_duration_since(now),
            },
            Decision::Held => match holder {
                Some((holder, watchable)) => Event::Held {
                    generation,
                    holder,
                    watchable,
                },
                None => Event::NotNeeded { generation },
            },
            Decision::Refuse => Event::SpawnFailed {
                generation,
                failure: SpawnFailure::Permanent {
                    reason: "the agent makes no sense".to_owned(),
                },
            },
            Decision::Start(reason) => self.go(chat, generation, reason),
        }
    }

    /// Writes the decision down, then starts the process.
    fn go(&mut self, chat: ChatNo, generation: Generation, reason: StartReason) -> Event {
        let nonce = format!("{}-{}", self.boot, self.dice.between(0, u64::MAX - 1));
        let records = self.conduct.records_before_spawn();
        if records {
            if self.disk_is_full {
                return Event::NotNow {
                    generation,
                    reason: "the decision to start could not be written down".to_owned(),
                    after: NOT_NOW,
                };
            }
            self.disks[chat].record.spawn = Some(SpawnRecord {
                nonce: nonce.clone(),
                generation: generation.0,
                reason,
                actor: "daemon".to_owned(),
                at: self.wall(),
                pid: None,
                start_ticks: None,
                boot_id: Some(format!("boot-{}", self.boot)),
                log_from: 0,
                group: None,
            });
        }
        let errno = match self.spawning {
            Spawning::Works => None,
            Spawning::NoProgram => Some(nix::libc::ENOENT),
            Spawning::NoRoom => Some(nix::libc::EAGAIN),
        };
        self.attempted(chat, &nonce);
        if let Some(errno) = errno {
            self.count(Counted::Event, "spawn_failed");
            let error = io::Error::from_raw_os_error(errno);
            return Event::SpawnFailed {
                generation,
                failure: SpawnFailure::of(OsStr::new("wg"), &error),
            };
        }
        let kind = Kind::Handler(Handler {
            phase: Phase::Fresh,
            core: self.handler_core(),
            release_asked: false,
            told_to_stop: false,
            cut: Cut::No,
            step_at: 0,
        });
        let pid = self.start_process(chat, Some(nonce), kind);
        self.count(Counted::Event, "spawned");
        self.say(format_args!(
            "handler {pid} of chat {chat} starts ({reason})"
        ));
        let delay = self.dice.between(1, 200);
        self.step_in(pid, delay);
        let since = self.now;
        if let Some(unit) = self.unit_mut(chat) {
            unit.run = Some(Run {
                pid,
                generation,
                since,
                gone_at: None,
                stop_asked: false,
                adopted: false,
                sweeping: false,
                waiting: Vec::new(),
            });
        }
        // A pid that cannot be written down is no reason to end the handler: the nonce tells whose it is.
        if !self.disk_is_full
            && let Some(spawn) = &mut self.disks[chat].record.spawn
        {
            spawn.pid = Some(pid);
            spawn.start_ticks = Some(u64::from(pid) * 10);
        }
        self.act(chat, Happened::Started);
        Event::Spawned { generation, pid }
    }

    /// What the end of a handler counts as, as `judge` of `daemon/host.rs` makes it.
    pub(super) fn judge(
        &mut self,
        chat: ChatNo,
        run: &Run,
        ending: Ending,
    ) -> supervisor::Disposition {
        let holder = self.live_holder(chat);
        let ran_for = run.gone_at.unwrap_or(run.since).saturating_sub(run.since);
        let mut seen = Observation::new(ending, Duration::from_millis(ran_for));
        if run.stop_asked {
            seen.asked = Some(Asked::Stop);
        }
        seen.lock_holder = holder.as_ref().map(|(holder, _)| LockHolder {
            pid: holder.pid,
            alive: true,
            own_child: holder.pid == run.pid,
        });
        let verdict = crate::daemon::handler_rules().classify(&seen);
        self.count(Counted::Rule, verdict.rule.clone());
        wire::disposition(&verdict, holder, None)
    }

    pub(super) fn notice(&mut self, chat: ChatNo, notice: &Notice) {
        self.count(Counted::Notice, notice_word(notice));
        if let Some(entry) = self.entry_mut(chat) {
            match notice {
                Notice::Spawned { pid, .. } | Notice::Adopted { pid, .. } => {
                    entry.handler = Some(*pid);
                }
                Notice::Exited { .. } => entry.handler = None,
                Notice::SpawnFailed { .. }
                | Notice::Backoff { .. }
                | Notice::Degraded { .. }
                | Notice::BudgetWarning { .. }
                | Notice::Held { .. }
                | Notice::Contended { .. }
                | Notice::HolderGone { .. }
                | Notice::Parked { .. }
                | Notice::Unparked { .. }
                | Notice::Idle
                | Notice::WokenEarly { .. }
                | Notice::NotNow { .. }
                | Notice::Stopping { .. }
                | Notice::Stopped
                | Notice::Finished => {}
            }
        }
        // Unpausing wakes every chat; until then there is nothing to look for.
        let off = self.is_ending() || self.is_paused();
        if matches!(notice, Notice::Idle) && !(off && self.conduct.rests_while_paused()) {
            self.inbox_changed(chat);
        }
        if crate::daemon::books::matters(notice) {
            let delay = self.dice.between(0, 20);
            self.matter(delay, Matter::Save { chat });
        }
    }
}

fn decision_word(decision: Decision) -> &'static str {
    match decision {
        Decision::Start(StartReason::Message) => "start: message",
        Decision::Start(StartReason::Consumer) => "start: consumer",
        Decision::Start(StartReason::Resume) => "start: resume",
        Decision::Start(StartReason::Retry) => "start: retry",
        Decision::NotNeeded => "not needed",
        Decision::HeldOff(_) => "held off",
        Decision::Held => "held",
        Decision::Refuse => "refuse",
    }
}

fn notice_word(notice: &Notice) -> Cow<'static, str> {
    let all = format!("{notice:?}");
    let word = all.split([' ', '{', '(']).next().unwrap_or_default();
    Cow::Owned(word.to_owned())
}
