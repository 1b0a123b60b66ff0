//! From "start" to a process that is watched, and from a process that somebody else
//! started to one of ours.

use std::io;
use std::os::fd::OwnedFd;
use std::process::Child;

use super::UnitId;
use super::core::{Core, Start, Watched};
use super::handle::Adopted;
use super::host::{Host, Prepared};
use super::unit::Run;
use crate::tree;
use crate::{Event, Generation, SpawnFailure, State, clock};

impl<H: Host> Core<H> {
    pub(super) fn start(&mut self, start: Start) {
        let Start {
            unit,
            generation,
            epoch,
            reason,
        } = start;
        let Some(entry) = self.units.get(&unit) else {
            return;
        };
        let wanted = matches!(
            entry.machine.state(), State::Starting { generation: now, .. } if *now == generation
        );
        // A stop came in between: the wish that this start follows from is void.
        if !wanted || entry.machine.epoch() != epoch || self.closing.is_some() {
            return;
        }
        let event = match self.host.prepare(unit, generation, reason) {
            Prepared::Go(mut command) => {
                let program = command.get_program().to_owned();
                let inherited = tree::is_subreaper();
                match command.spawn() {
                    Ok(child) => return self.started(unit, generation, child, inherited),
                    Err(error) => {
                        let failure = self.host.spawn_error(unit, &program, &error);
                        Event::SpawnFailed {
                            generation,
                            failure,
                        }
                    }
                }
            }
            Prepared::Held { holder, watchable } => Event::Held {
                generation,
                holder,
                watchable,
            },
            Prepared::NotNeeded => Event::NotNeeded { generation },
            Prepared::Refused { reason } => Event::SpawnFailed {
                generation,
                failure: SpawnFailure::Permanent { reason },
            },
            Prepared::NotNow { reason, after } => Event::NotNow {
                generation,
                reason,
                after,
            },
        };
        self.feed(unit, event);
    }

    fn started(&mut self, unit: UnitId, generation: Generation, mut child: Child, inherited: bool) {
        let pid = child.id();
        // The child is not reaped yet, so that its pid can only mean itself.
        let opened = tree::open(pid).and_then(|descriptor| {
            let start =
                tree::start_ticks(pid).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
            let token = self.register(unit, Watched::Process(generation), &descriptor)?;
            Ok((descriptor, start, token))
        });
        let (descriptor, start_ticks, token) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                // What cannot be watched must not run.
                let ended = child.kill().and_then(|()| child.wait());
                if let Err(error) = ended {
                    log::warn!("failed to end pid {pid}, which cannot be watched: {error}");
                }
                let reason = format!("failed to watch the new process: {error}");
                let failure = SpawnFailure::Transient { reason };
                return self.feed(
                    unit,
                    Event::SpawnFailed {
                        generation,
                        failure,
                    },
                );
            }
        };
        self.leaders.insert(pid);
        let marker = self.host.marker(unit);
        let mut run = Run::new(pid, start_ticks, generation, clock::now(), marker);
        run.orphans = self.host.owns_orphans(unit);
        run.inherited = inherited;
        run.group = self.host.group(unit);
        run.child = Some(child);
        run.descriptor = Some(descriptor);
        run.token = Some(token);
        if let Some(entry) = self.units.get_mut(&unit) {
            entry.run = Some(Box::new(run));
        }
        self.host.spawned(unit, generation, pid, start_ticks);
        self.feed(unit, Event::Spawned { generation, pid });
    }

    pub(super) fn adopt(&mut self, unit: UnitId, pid: u32, start_ticks: u64) -> Adopted {
        let Some(entry) = self.units.get(&unit) else {
            return Adopted::Refused;
        };
        if entry.run.is_some() || self.closing.is_some() || pid <= 1 {
            return Adopted::Refused;
        }
        let descriptor = match open_if_same(pid, start_ticks) {
            Ok(descriptor) => descriptor,
            Err(error) => {
                log::warn!("failed to watch pid {pid}, which is not adopted: {error}");
                return Adopted::Refused;
            }
        };
        let since = clock::moment_of_ticks(start_ticks);
        let token = match &descriptor {
            Some(descriptor) => {
                // The generation is not known before the machine has agreed.
                match self.register(unit, Watched::Process(Generation(0)), descriptor) {
                    Ok(token) => Some(token),
                    Err(error) => {
                        log::warn!("failed to watch pid {pid}, which is not adopted: {error}");
                        return Adopted::Refused;
                    }
                }
            }
            None => None,
        };
        self.feed(unit, Event::Adopted { pid, since });
        let process = self
            .units
            .get(&unit)
            .and_then(|entry| entry.machine.state().process());
        let Some((_, generation)) = process else {
            if let (Some(token), Some(descriptor)) = (token, &descriptor) {
                self.unregister(token, descriptor);
            }
            return Adopted::Refused;
        };
        if let Some(token) = token {
            self.tokens
                .insert(token, (unit, Watched::Process(generation)));
        }
        let marker = self.host.marker(unit);
        let mut run = Run::new(pid, start_ticks, generation, since, marker);
        run.orphans = self.host.owns_orphans(unit);
        run.group = self.host.group(unit);
        if let Some(group) = &run.group
            && let Err(error) = group.thaw()
        {
            // Whoever had it before may have been killed in the middle of a stop.
            log::debug!("failed to thaw `{}`: {error}", group.dir().display());
        }
        if token.is_some() {
            self.leaders.insert(pid);
        }
        run.descriptor = descriptor;
        run.token = token;
        if let Some(entry) = self.units.get_mut(&unit) {
            entry.run = Some(Box::new(run));
        }
        if token.is_some() {
            return Adopted::Alive;
        }
        self.process_ready(unit, generation);
        Adopted::Ended
    }
}

/// Opens the process if it still is the one that started then; `None` if it is gone.
fn open_if_same(pid: u32, start_ticks: u64) -> io::Result<Option<OwnedFd>> {
    match tree::open(pid) {
        Ok(descriptor) => {
            let same = tree::start_ticks(pid) == Some(start_ticks);
            Ok(same.then_some(descriptor))
        }
        Err(error) if error.raw_os_error() == Some(nix::errno::Errno::ESRCH as i32) => Ok(None),
        Err(error) => Err(error),
    }
}
