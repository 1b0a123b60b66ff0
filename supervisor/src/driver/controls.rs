//! What handles ask for.

use std::ops::ControlFlow::{self, Break, Continue};

use crossbeam_channel::Sender;

use super::UnitId;
use super::core::{Closing, Core, Timer, reply};
use super::handle::{Control, Down, Shutdown, UnitReport};
use super::host::Host;
use super::unit::{Stage, Unit};
use crate::tree::Report;
use crate::{Event, Machine, State, clock};

impl<H: Host> Core<H> {
    pub(super) fn obey(&mut self, control: Control) -> ControlFlow<()> {
        match control {
            Control::Add { unit, machine } => self.add(unit, machine),
            Control::Event { unit, event } => self.feed(unit, event),
            Control::Stop { unit, event, done } => self.stop(unit, event, done),
            Control::Adopt {
                unit,
                pid,
                start_ticks,
                answer,
            } => {
                let adopted = self.adopt(unit, pid, start_ticks);
                reply(&answer, adopted);
            }
            Control::Signal {
                unit,
                signal,
                value,
            } => self.signal(unit, signal, value),
            Control::Policy { unit, policy } => {
                if let Some(entry) = self.units.get_mut(&unit) {
                    entry.machine.set_policy(policy);
                }
            }
            Control::Remove { unit, done } => {
                if let Some(entry) = self.units.get_mut(&unit) {
                    entry.removing = true;
                }
                self.stop(unit, Event::Stop, done);
            }
            Control::Explain { unit, answer } => {
                let now = clock::now();
                let report = self.units.get(&unit).map(|entry| UnitReport {
                    explanation: entry.machine.explain(now),
                    stop_step: entry.run.as_ref().and_then(|run| match run.stage {
                        Stage::Asked(step) => Some(step),
                        Stage::Up | Stage::Observing | Stage::Sweeping | Stage::AwaitingStatus => {
                            None
                        }
                    }),
                });
                reply(&answer, report);
            }
            Control::List { answer } => {
                let mut list: Vec<(UnitId, State)> = self
                    .units
                    .iter()
                    .map(|(unit, entry)| (*unit, entry.machine.state().clone()))
                    .collect();
                list.sort_by_key(|(unit, _)| *unit);
                reply(&answer, list);
            }
            Control::Snapshot { unit, answer } => {
                reply(
                    &answer,
                    self.units
                        .get(&unit)
                        .map(|entry| entry.machine.as_ref().clone()),
                );
            }
            Control::Shutdown {
                how: Shutdown::LeaveRunning,
                done,
            } => {
                // Dropping a `Child` neither kills nor reaps it.
                reply(&done, Down::default());
                return Break(());
            }
            Control::Shutdown {
                how: Shutdown::StopAll,
                done,
            } => {
                self.close(&Event::Stop, Some(done));
            }
            Control::Shutdown {
                how: Shutdown::KillAll,
                done,
            } => {
                self.close(&Event::Kill, Some(done));
            }
            Control::NobodyLeft => self.close(&Event::Stop, None),
        }
        self.drain_pending();
        Continue(())
    }

    fn add(&mut self, unit: UnitId, machine: Box<Machine>) {
        if self.closing.is_some() || self.units.contains_key(&unit) {
            return;
        }
        let entry = Unit {
            machine,
            run: None,
            watch: None,
            deadline: None,
            waiting: Vec::new(),
            removing: false,
        };
        self.units.insert(unit, entry);
        self.sync_deadline(unit);
    }

    fn stop(&mut self, unit: UnitId, event: Event, done: Sender<Down>) {
        let Some(entry) = self.units.get_mut(&unit) else {
            reply(&done, Down::default());
            return;
        };
        if entry.run.is_some() {
            entry.waiting.push(done);
            self.feed(unit, event);
        } else {
            self.feed(unit, event);
            reply(&done, Down::default());
            self.forget_if_removing(unit);
        }
    }

    fn close(&mut self, event: &Event, done: Option<Sender<Down>>) {
        self.starts.clear();
        let closing = self.closing.get_or_insert_with(|| Closing {
            done: Vec::new(),
            sum: Down::default(),
        });
        closing.done.extend(done);
        let units: Vec<UnitId> = self.units.keys().copied().collect();
        for unit in units {
            self.feed(unit, event.clone());
        }
    }

    pub(super) fn is_closed(&mut self) -> bool {
        if self.closing.is_none() || self.units.values().any(|entry| entry.run.is_some()) {
            return false;
        }
        if let Some(closing) = self.closing.take() {
            for done in &closing.done {
                reply(done, closing.sum.clone());
            }
        }
        true
    }

    /// Adds what one unit's end came to to the sum that a shutdown reports.
    pub(super) fn book_closing(&mut self, report: &Report) {
        if let Some(closing) = &mut self.closing {
            closing.sum.was_running = true;
            closing
                .sum
                .report
                .ended
                .extend(report.ended.iter().cloned());
            closing
                .sum
                .report
                .survivors
                .extend(report.survivors.iter().cloned());
            let unreadable = closing.sum.report.unreadable.max(report.unreadable);
            closing.sum.report.unreadable = unreadable;
        }
    }

    pub(super) fn forget_if_removing(&mut self, unit: UnitId) {
        let gone = self
            .units
            .get(&unit)
            .is_some_and(|entry| entry.removing && entry.run.is_none());
        if gone {
            self.unwatch(unit);
            if let Some(entry) = self.units.remove(&unit)
                && let Some(at) = entry.deadline
            {
                self.timers.remove(&(at, unit, Timer::Machine));
            }
        }
    }
}
