//! From "stop" to "nobody is left", as the supervisor's driver does it.

use exit_classifier::Ending;
use supervisor::{Event, Generation};

use super::census::Kind as Counted;
use super::daemon::Run;
use super::process::{Kind, Pid};
use super::world::{Asker, ChatNo, Matter, World};

/// How long each asking step of the ladder waits, in milliseconds.
const GRACE: u64 = 10_000;

/// How long the status of an adopted process may take to be known, in milliseconds.
const STATUS: u64 = 2_500;

impl World<'_> {
    /// The machine wants the process to be gone.
    pub(super) fn terminate(&mut self, chat: ChatNo, generation: Generation) {
        let Some(run) = self.run_mut(chat, generation) else {
            return;
        };
        if run.gone_at.is_some() || run.sweeping {
            return;
        }
        run.stop_asked = true;
        self.climb(chat, generation, 0);
    }

    /// Takes this step of the ladder: release, SIGTERM, then no more asking.
    pub(super) fn climb(&mut self, chat: ChatNo, generation: Generation, step: u32) {
        let Some(run) = self.run_mut(chat, generation) else {
            return;
        };
        if run.gone_at.is_some() || run.sweeping {
            return;
        }
        let pid = run.pid;
        match step {
            // One that has not taken its lock cannot be asked: the signals come next.
            0 if self.locks[chat] == Some(pid) => self.ask_release(pid),
            0 | 1 => {
                self.count(Counted::Event, "sigterm");
                self.tell_to_stop(pid);
            }
            2.. => {
                self.count(Counted::Event, "sigkill");
                self.begin_sweep(chat, generation);
                return;
            }
        }
        let next = if step == 0 && self.locks[chat] == Some(pid) {
            1
        } else {
            2
        };
        self.matter(
            GRACE,
            Matter::Rung {
                chat,
                generation,
                step: next,
            },
        );
    }

    /// The descriptor of the process says that it has ended.
    pub(super) fn saw_exit(&mut self, chat: ChatNo, generation: Generation) {
        let now = self.now;
        let Some(run) = self.run_mut(chat, generation) else {
            return;
        };
        if run.gone_at.is_some() {
            return;
        }
        run.gone_at = Some(now);
        self.feed(chat, Event::LeaderExited { generation });
        self.begin_sweep(chat, generation);
    }

    pub(super) fn begin_sweep(&mut self, chat: ChatNo, generation: Generation) {
        let Some(run) = self.run_mut(chat, generation) else {
            return;
        };
        if run.sweeping {
            return;
        }
        run.sweeping = true;
        let delay = self.dice.between(1, 40);
        self.matter(delay, Matter::Pass { chat, generation });
    }

    /// Looks at what is left below a handler, kills it, and looks again until nothing is.
    pub(super) fn pass(&mut self, chat: ChatNo, generation: Generation) {
        let Some(run) = self.run_mut(chat, generation) else {
            return;
        };
        let (pid, gone, adopted, stop_asked) = (run.pid, run.gone_at, run.adopted, run.stop_asked);
        let mut left: Vec<Pid> = self
            .procs
            .contains_key(&pid)
            .then_some(pid)
            .into_iter()
            .collect();
        if !stop_asked || self.conduct.sweeps_after_stop() {
            left.extend(self.marked(chat).into_iter().filter(|other| *other != pid));
        }
        if !left.is_empty() {
            for one in left {
                self.kill_with_fork(one);
            }
            let delay = self.dice.between(1, 40);
            self.matter(delay, Matter::Pass { chat, generation });
            return;
        }
        let Some(gone_at) = gone else {
            // Killed in the pass before; its descriptor will say so.
            self.matter(1, Matter::Pass { chat, generation });
            return;
        };
        let Some(ending) = self.status_of(chat, pid, adopted) else {
            if self.now < gone_at + STATUS {
                self.matter(100, Matter::Pass { chat, generation });
            } else {
                self.finish(chat, Ending::Lost);
            }
            return;
        };
        self.finish(chat, ending);
    }

    /// How the process ended, if anybody can know: its parent, or the note that it left.
    fn status_of(&self, chat: ChatNo, pid: Pid, adopted: bool) -> Option<Ending> {
        let dead = self.dead.get(&pid)?;
        if !adopted {
            return Some(if dead.status_is_lost {
                Ending::Lost
            } else {
                dead.ending
            });
        }
        let noted = self.disks[chat]
            .exit
            .filter(|(of, _)| *of == pid)
            .map(|(_, ending)| ending);
        if dead.status_is_lost {
            noted
        } else {
            Some(dead.ending)
        }
    }

    fn finish(&mut self, chat: ChatNo, ending: Ending) {
        let Some(run) = self.unit_mut(chat).and_then(|unit| unit.run.take()) else {
            return;
        };
        let Run {
            generation,
            waiting,
            ..
        } = run.clone();
        let disposition = self.judge(chat, &run, ending);
        self.count(Counted::Event, "exited");
        self.booked(chat, &disposition);
        let besides = self.conduct.after_exit(&disposition);
        self.feed(
            chat,
            Event::Exited {
                generation,
                disposition,
            },
        );
        if let Some(event) = besides {
            self.feed(chat, event);
        }
        if run.stop_asked {
            self.stop_is_done(chat);
        }
        for asker in waiting {
            self.is_down(chat, asker);
        }
    }

    /// A process is killed; one that was about to fork has done so.
    fn kill_with_fork(&mut self, pid: Pid) {
        let Some(process) = self.procs.get(&pid) else {
            return;
        };
        if let Kind::Agent { of } = process.kind
            && process.forks_when_killed
        {
            let (chat, nonce) = (process.chat, process.nonce.clone());
            let child = self.start_process(chat, nonce, Kind::Agent { of });
            if let Some(child) = self.procs.get_mut(&child) {
                child.forks_when_killed = false;
            }
            self.count(Counted::Event, "forked_when_killed");
        }
        self.kill(pid);
    }

    /// SIGKILL.
    pub(super) fn kill(&mut self, pid: Pid) {
        self.end_process(
            pid,
            Ending::Signal {
                number: nix::libc::SIGKILL,
                core: false,
            },
        );
    }

    /// A stop that somebody waits for has come to its end.
    pub(super) fn is_down(&mut self, chat: ChatNo, asker: Asker) {
        match asker {
            Asker::Nobody => {}
            Asker::Lane => self.lane_is_done(chat),
            Asker::Purge => self.purge_is_done_with(chat),
        }
    }
}
