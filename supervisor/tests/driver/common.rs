//! A host for tests: shell commands, and everything that happens on a channel.

#![expect(clippy::unwrap_used, reason = "a helper of tests fails as a test does")]

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, unbounded};
use supervisor::tree::{Group, Marker};
use supervisor::{
    Completion, Disposition, Driver, Ended, Generation, Handle, Holder, Host, Ladder, Machine,
    Notice, Policy, Prepared, Rung, Shutdown, StartReason, UnitId, ValidPolicy, clock,
};

/// Longer than anything takes; a test that waits this long has failed.
pub(crate) const LONG: Duration = Duration::from_secs(60);
pub(crate) const UNIT: UnitId = UnitId(1);
pub(crate) const MARKER: &str = "SUPERVISOR_TEST_UNIT";

/// What the host answers for a unit.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    Run(Vec<String>),
    HeldBy(Holder),
    NotNeeded,
    Refuse,
}

#[derive(Clone, Debug)]
pub(crate) enum Seen {
    Asked,
    Spawned(UnitId, u32),
    Ended(Ended),
    Notice(Notice),
}

#[derive(Debug, Default)]
pub(crate) struct Answers {
    pub(crate) by_unit: HashMap<UnitId, Answer>,
    pub(crate) grace: Option<Duration>,
    pub(crate) marker: Option<String>,
    /// Whether standard output is that of the test.
    pub(crate) aloud: bool,
    /// The control group of every unit.
    pub(crate) group: Option<Group>,
    pub(crate) exempt: HashSet<u32>,
}

struct TestHost {
    answers: Arc<Mutex<Answers>>,
    seen: Sender<Seen>,
    marker: String,
}

impl Host for TestHost {
    fn prepare(&mut self, unit: UnitId, _: Generation, _: StartReason) -> Prepared {
        self.tell(Seen::Asked);
        let answers = self.answers.lock().unwrap();
        match answers.by_unit.get(&unit) {
            Some(Answer::Run(argv)) => {
                let mut command = Command::new(&argv[0]);
                command.args(&argv[1..]).stdin(Stdio::null());
                // What a failing test leaves behind must not hold its terminal.
                command.stderr(Stdio::null());
                if !answers.aloud {
                    command.stdout(Stdio::null());
                }
                command.env(MARKER, format!("{}/{unit}/x", self.marker));
                Prepared::Go(Box::new(command))
            }
            Some(Answer::HeldBy(holder)) => Prepared::Held {
                holder: holder.clone(),
                watchable: true,
            },
            Some(Answer::Refuse) => Prepared::Refused {
                reason: "not here".into(),
            },
            Some(Answer::NotNeeded) | None => Prepared::NotNeeded,
        }
    }

    fn judge(&mut self, _: UnitId, ended: &Ended) -> Disposition {
        self.tell(Seen::Ended(ended.clone()));
        match ended.status {
            _ if ended.stop_asked => Disposition::Requested,
            Some(status) if status.success() => Disposition::Clean,
            Some(status) if status.code() == Some(3) => Disposition::Finished,
            Some(status) if status.code() == Some(91) => Disposition::IdleLeft,
            Some(status) => Disposition::Crash {
                reason: format!("code {:?} signal {:?}", status.code(), status.signal()),
            },
            None => Disposition::Crash {
                reason: "lost".into(),
            },
        }
    }

    fn spawned(&mut self, unit: UnitId, _: Generation, pid: u32, _: u64) {
        self.tell(Seen::Spawned(unit, pid));
    }

    fn notice(&mut self, _: UnitId, notice: &Notice) {
        self.tell(Seen::Notice(notice.clone()));
    }

    fn marker(&mut self, unit: UnitId) -> Option<Marker> {
        let shared = self.answers.lock().unwrap().marker.clone();
        let marker = shared.as_ref().unwrap_or(&self.marker);
        Some(Marker {
            name: MARKER.into(),
            prefix: format!("{marker}/{unit}/"),
        })
    }

    fn group(&mut self, _: UnitId) -> Option<Group> {
        self.answers.lock().unwrap().group.clone()
    }

    fn is_exempt(&mut self, pid: u32) -> bool {
        self.answers.lock().unwrap().exempt.contains(&pid)
    }

    fn ladder(&mut self, _: UnitId) -> Ladder {
        let grace = self.answers.lock().unwrap().grace.unwrap_or(LONG);
        Ladder {
            signals: vec![Rung { signal: 15, grace }],
            final_grace: LONG,
            ..Ladder::standard()
        }
    }
}

impl TestHost {
    fn tell(&self, seen: Seen) {
        // The test may have ended already.
        drop(self.seen.send(seen));
    }
}

/// A host that never has anything to do.
struct Nobody;

impl Host for Nobody {
    fn prepare(&mut self, _: UnitId, _: Generation, _: StartReason) -> Prepared {
        Prepared::NotNeeded
    }

    fn judge(&mut self, _: UnitId, _: &Ended) -> Disposition {
        Disposition::Clean
    }
}

/// A driver that is killed, with all its units, when the test ends.
pub(crate) struct Bench {
    pub(crate) handle: Handle,
    pub(crate) seen: Receiver<Seen>,
    pub(crate) answers: Arc<Mutex<Answers>>,
    pub(crate) marker: String,
}

impl Bench {
    pub(crate) fn new() -> Self {
        let (sender, seen) = unbounded();
        let answers = Arc::new(Mutex::new(Answers::default()));
        let marker = format!("{}-{}", std::process::id(), clock::now().as_nanos());
        let host = TestHost {
            answers: Arc::clone(&answers),
            seen: sender,
            marker: marker.clone(),
        };
        Self {
            handle: Driver::start(host).unwrap(),
            seen,
            answers,
            marker,
        }
    }

    pub(crate) fn answer(&self, unit: UnitId, answer: Answer) {
        self.answers.lock().unwrap().by_unit.insert(unit, answer);
    }

    pub(crate) fn grace(&self, grace: Duration) {
        self.answers.lock().unwrap().grace = Some(grace);
    }

    /// Adds unit 1, running this shell script.
    pub(crate) fn add(&self, script: &str) {
        self.answer(UNIT, shell(script));
        self.handle
            .add(UNIT, Machine::new(eager(), 7, clock::now()));
    }

    pub(crate) fn next(&self) -> Seen {
        self.seen
            .recv_timeout(LONG)
            .expect("because something is about to happen")
    }

    /// Adds unit 1, running this script with the test's own standard output.
    pub(crate) fn add_aloud(&self, script: &str) {
        self.answers.lock().unwrap().aloud = true;
        self.add(script);
    }

    /// Adds unit 1, running this script with a file name in `$READY`; opening that
    /// for writing is heard by [`wait_ready`](Self::wait_ready).
    pub(crate) fn add_announced(&self, script: &str) {
        rustix::fs::mkfifoat(rustix::fs::CWD, self.fifo(), rustix::fs::Mode::RWXU).unwrap();
        let fifo = self.fifo();
        self.add(&format!("READY={}; export READY; {script}", fifo.display()));
    }

    /// Waits until the script has opened the file named in `$READY`.
    pub(crate) fn wait_ready(&self) {
        let mut bytes = Vec::new();
        File::open(self.fifo())
            .unwrap()
            .read_to_end(&mut bytes)
            .unwrap();
    }

    fn fifo(&self) -> PathBuf {
        std::env::temp_dir().join(format!("supervisor-test-{}", self.marker))
    }

    /// Sends a signal to a process of this bench's units.
    pub(crate) fn signal(&self, pid: u32, signal: i32) {
        assert!(
            self.carriers().iter().any(|process| process.pid == pid),
            "a stranger"
        );
        let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).unwrap());
        let signal = nix::sys::signal::Signal::try_from(signal).unwrap();
        nix::sys::signal::kill(pid, signal).unwrap();
    }

    /// Kills one of the processes that carry this bench's marker, whichever.
    pub(crate) fn kill_some_carrier(&self, choice: u64) {
        let carriers = self.carriers();
        if carriers.is_empty() {
            return;
        }
        let victim = &carriers[usize::try_from(choice).unwrap() % carriers.len()];
        let marker = Marker {
            name: MARKER.into(),
            prefix: format!("{}/", self.marker),
        };
        let others = carriers.iter().filter(|other| *other != victim);
        let others: Vec<u32> = others.map(|other| other.pid).collect();
        // Whatever is not the victim is exempt, so that just this one ends.
        let mut is_exempt = |pid: u32| pid != victim.pid || others.contains(&pid);
        drop(supervisor::tree::end(
            None,
            Some(&marker),
            Duration::ZERO,
            &mut is_exempt,
        ));
    }

    /// Lets go of the driver without a word.
    pub(crate) fn abandon(mut self) {
        self.handle = Driver::start(Nobody).unwrap();
    }

    pub(crate) fn share_marker(&self, other: &Self) {
        self.answers.lock().unwrap().marker = Some(other.marker.clone());
    }

    /// Returns the pid of the next process of `unit`.
    pub(crate) fn spawned(&self, unit: UnitId) -> u32 {
        loop {
            if let Seen::Spawned(of, pid) = self.next()
                && of == unit
            {
                return pid;
            }
        }
    }

    pub(crate) fn ended(&self) -> Ended {
        loop {
            if let Seen::Ended(ended) = self.next() {
                return ended;
            }
        }
    }

    pub(crate) fn notice(&self, matches: impl Fn(&Notice) -> bool) -> Notice {
        loop {
            if let Seen::Notice(notice) = self.next()
                && matches(&notice)
            {
                return notice;
            }
        }
    }

    /// Whoever still carries this driver's marker.
    pub(crate) fn carriers(&self) -> Vec<supervisor::tree::Process> {
        let marker = Marker {
            name: MARKER.into(),
            prefix: format!("{}/", self.marker),
        };
        supervisor::tree::carriers(&marker).unwrap().0
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        drop(self.handle.shutdown(Shutdown::KillAll).wait(LONG));
        self.handle.join();
        drop(fs::remove_file(self.fifo()));
    }
}

/// Waits for a child of this test program that its driver let go.
pub(crate) fn reap(pid: u32) {
    let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).unwrap());
    nix::sys::wait::waitpid(pid, None).unwrap();
}

/// Waits until it is down.
pub(crate) fn wait(completion: &Completion) -> supervisor::Down {
    completion.wait(LONG).expect("because every stop ends")
}

pub(crate) fn shell(script: &str) -> Answer {
    Answer::Run(vec!["sh".into(), "-c".into(), script.into()])
}

/// The standard policy without any pause after a crash.
pub(crate) fn eager() -> ValidPolicy {
    let mut policy = Policy::standard();
    policy.backoff_first = Duration::ZERO;
    policy.backoff_cap = Duration::ZERO;
    policy.unsafe_no_backoff = true;
    policy.validate().unwrap()
}
