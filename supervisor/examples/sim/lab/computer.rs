//! The computer of a world: daemons that end and start, boots, clocks.

use std::cmp::Reverse;
use std::time::Duration;

use supervisor::{Event, Moment, Stamp};

use super::faults::Brain;
use super::rules::{Before, Violation};
use super::world::{Plan, World};

impl World<'_> {
    fn stamp(&self) -> Stamp {
        Stamp {
            boot: self.boot.to_string(),
            at: self.now,
            wall: self.wall,
        }
    }

    pub(super) fn save(&mut self) {
        let stamp = self.stamp();
        self.saved = Some((self.brain.machine.snapshot(stamp.clone()), stamp));
    }

    /// The daemon ends, in order or not, and starts again, on the same boot or not,
    /// with a wall clock that somebody may have set.
    pub(super) fn daemon_restarts(&mut self) -> Result<(), Violation> {
        let lost = self.dice.one_in(3) && self.saved.is_some();
        let wanted_down = self.rules.wants_down();
        let before = Before::of(&self.brain.machine, self.now);
        let then = self.now;
        if !lost {
            self.save();
        }
        let Some((saved, stamp)) = self.saved.clone() else {
            return Ok(());
        };
        let away = Duration::from_secs(self.dice.below(if self.dice.clone().one_in(3) {
            3_000
        } else {
            3
        }));
        let reboot = self.dice.one_in(3);
        if reboot {
            self.boot += 1;
            self.process = None;
            self.now = Moment::from_secs(i64::try_from(self.dice.below(50)).unwrap_or(1));
        } else {
            self.now = self.now + away;
        }
        self.wall += away;
        self.lived += away;
        if self.dice.one_in(6) {
            // Somebody sets the clock, up to an hour either way.
            let jump = Duration::from_secs(self.dice.below(3_600));
            self.wall = if self.dice.one_in(2) {
                self.wall + jump
            } else {
                self.wall.saturating_sub(jump)
            };
        }
        self.now_for_all(then, away, reboot);
        let now = self.stamp();
        let elapsed = if reboot {
            now.wall.saturating_sub(stamp.wall)
        } else {
            away
        };
        let (new, at) = (self.now, stamp.at);
        self.brain = Brain::restore(saved, &self.policy, self.fault, &now);
        self.start_pending = None;
        self.answers.clear();
        self.rules.shift(|moment| {
            if reboot {
                new.before(elapsed).before(at.since(moment))
            } else {
                moment
            }
        });
        let after = Before::of(&self.brain.machine, self.now);
        if let Some(trace) = &mut self.trace {
            trace.push(format!(
                "{} daemon restarts (reboot {reboot}, lost {lost}) → {:?}",
                self.now, after.state
            ));
        }
        self.rules.restored(&before, &after, lost)?;
        self.plan_timer();
        if let Some(process) = &self.process {
            let since = process.since;
            let pid = u32::try_from(process.serial).unwrap_or(1);
            let gone = process.gone;
            let serial = process.serial;
            self.tell(Event::Adopted { pid, since })?;
            if gone {
                self.plan(Duration::ZERO, Plan::ProcessDown(serial));
            }
        }
        // Wishes of people are written down by the host and outlive any daemon.
        if wanted_down {
            self.tell(Event::Stop)?;
        }
        if self.needed {
            self.tell(Event::Wake)
        } else {
            Ok(())
        }
    }

    /// Drops what only the former daemon would have done, and moves the rest to the
    /// clock of the new boot.
    fn now_for_all(&mut self, then: Moment, away: Duration, reboot: bool) {
        let plans = std::mem::take(&mut self.plans);
        let now = self.now;
        for Reverse((at, number, plan)) in plans {
            if matches!(
                plan,
                Plan::MakeStart { .. } | Plan::Answer(_) | Plan::Timer | Plan::EarlyTimer
            ) {
                continue;
            }
            if !reboot {
                self.plans.push(Reverse((at, number, plan)));
                continue;
            }
            let at = now + at.since(then).saturating_sub(away);
            self.plans.push(Reverse((at, number, plan)));
        }
    }
}
