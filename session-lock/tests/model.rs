//! The protocol, explored: every order in which three processes can perform their steps, with a crash at any point
//! and files deleted at any point, on a pretended directory.
//!
//! The machine is the one that the crate runs. Only what a step does to files is written twice: here, and in the
//! driver; `tests/trace.rs` holds the driver to it.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a model panics where it is wrong, and says how much it explored"
)]

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};

use session_lock::protocol::{Acquisition, Answer, RELEASE, Step, Turn, Verdict};

const PROCESSES: usize = 3;

type File = u8;
type GuardFile = u8;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Claim {
    record: File,
    generation: u8,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
struct Guard {
    locked_by: Option<usize>,
    claims: Vec<Claim>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Phase {
    Idle,
    Acquiring(Acquisition<File>, Step),
    Critical,
    /// The number of steps of the release that are done.
    Releasing(usize),
    /// The kernel has freed the guard, but the process still looks alive.
    Dying,
    Dead,
}

/// How far a step got.
enum Progress {
    /// It waits for another.
    Waits,
    /// It is two calls, and one of them is done.
    Half,
    Went(Answer<File>),
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Process {
    phase: Phase,
    acquisitions_left: u8,
    guard: Option<GuardFile>,
    text: Vec<Claim>,
    /// Our record, and whether it ever had a name.
    draft: Option<(File, bool)>,
    staged: Option<File>,
    judged: Option<File>,
    displaced: Option<File>,
    /// Whether the record was seen to be ours; removing it is a call of its own.
    may_unlink: bool,
    generation: u8,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct World {
    guard_name: Option<GuardFile>,
    guards: Vec<Guard>,
    record_name: Option<File>,
    /// Who wrote each record.
    owners: Vec<usize>,
    /// The records that were made to say nothing.
    void: Vec<File>,
    processes: Vec<Process>,
    highest_generation: u8,
    last_entered: u8,
    crashes_left: u8,
    guard_deletions_left: u8,
    record_deletions_left: u8,
}

impl World {
    fn new(acquisitions: u8, crashes: u8, guard_deletions: u8, record_deletions: u8) -> Self {
        let process = Process {
            phase: Phase::Idle,
            acquisitions_left: acquisitions,
            guard: None,
            text: Vec::new(),
            draft: None,
            staged: None,
            judged: None,
            displaced: None,
            may_unlink: false,
            generation: 0,
        };
        Self {
            guard_name: None,
            guards: Vec::new(),
            record_name: None,
            owners: Vec::new(),
            void: Vec::new(),
            processes: vec![process; PROCESSES],
            highest_generation: 0,
            last_entered: 0,
            crashes_left: crashes,
            guard_deletions_left: guard_deletions,
            record_deletions_left: record_deletions,
        }
    }

    /// Returns every state that can come next.
    fn successors(&self) -> Vec<Self> {
        let mut next = Vec::new();
        for who in 0..self.processes.len() {
            if let Some(world) = self.after_turn_of(who) {
                next.push(world);
            }
            let running = !matches!(
                self.processes[who].phase,
                Phase::Idle | Phase::Dying | Phase::Dead
            );
            if running && self.crashes_left > 0 {
                next.push(self.after_crash_of(who));
            }
        }
        if self.guard_deletions_left > 0 && self.guard_name.is_some() {
            let mut world = self.clone();
            world.guard_deletions_left -= 1;
            world.guard_name = None;
            next.push(world);
        }
        if self.record_deletions_left > 0 && self.record_name.is_some() {
            let mut world = self.clone();
            world.record_deletions_left -= 1;
            world.record_name = None;
            next.push(world);
        }
        next
    }

    fn after_crash_of(&self, who: usize) -> Self {
        let mut world = self.clone();
        world.crashes_left -= 1;
        world.unlock_all_of(who);
        let process = &mut world.processes[who];
        process.phase = Phase::Dying;
        process.acquisitions_left = 0;
        world
    }

    fn unlock_all_of(&mut self, who: usize) {
        for guard in &mut self.guards {
            if guard.locked_by == Some(who) {
                guard.locked_by = None;
            }
        }
    }

    /// Lets one process do its next step, or returns `None` if it has none.
    fn after_turn_of(&self, who: usize) -> Option<Self> {
        let mut world = self.clone();
        match self.processes[who].phase {
            Phase::Dead => return None,
            Phase::Dying => world.processes[who].phase = Phase::Dead,
            Phase::Idle => {
                let process = &mut world.processes[who];
                process.acquisitions_left = process.acquisitions_left.checked_sub(1)?;
                let machine = Acquisition::new();
                process.phase = Phase::Acquiring(machine, machine.first());
            }
            Phase::Acquiring(mut machine, step) => {
                let phase = match world.perform(who, step) {
                    Progress::Waits => return None,
                    Progress::Half => Phase::Acquiring(machine, step),
                    Progress::Went(answer) => match machine.next(answer) {
                        Turn::Do(next) => Phase::Acquiring(machine, next),
                        Turn::Acquired => {
                            world.enter(who);
                            Phase::Critical
                        }
                        Turn::Held(_) => {
                            world.forget(who);
                            Phase::Idle
                        }
                    },
                };
                world.processes[who].phase = phase;
            }
            Phase::Critical => world.processes[who].phase = Phase::Releasing(0),
            Phase::Releasing(done) => {
                let progress = world.perform(who, RELEASE[done]);
                let done = done + usize::from(matches!(progress, Progress::Went(_)));
                world.processes[who].phase = if done == RELEASE.len() {
                    world.forget(who);
                    Phase::Idle
                } else {
                    Phase::Releasing(done)
                };
            }
        }
        Some(world)
    }

    fn enter(&mut self, who: usize) {
        let generation = self.processes[who].generation;
        assert!(
            generation > self.last_entered,
            "generation {generation} after {}: {self:#?}",
            self.last_entered
        );
        self.last_entered = generation;
    }

    /// Closes what the attempt, or the lock, had open.
    fn forget(&mut self, who: usize) {
        let process = &mut self.processes[who];
        assert_eq!(process.staged, None, "a temporary record is left behind");
        process.guard = None;
        process.text.clear();
        process.draft = None;
        process.judged = None;
        process.displaced = None;
    }

    fn perform(&mut self, who: usize, step: Step) -> Progress {
        let own = self.processes[who].draft.map(|(file, _)| file);
        Progress::Went(match step {
            Step::OpenGuard => {
                let file = self.guard_name.unwrap_or_else(|| {
                    self.guards.push(Guard::default());
                    GuardFile::try_from(self.guards.len() - 1).unwrap()
                });
                self.guard_name = Some(file);
                self.processes[who].guard = Some(file);
                Answer::Done
            }
            Step::LockGuard => {
                let guard = self.guard_of(who);
                if guard.locked_by.is_some() {
                    Answer::Busy
                } else {
                    guard.locked_by = Some(who);
                    Answer::Done
                }
            }
            Step::CheckGuard | Step::ConfirmGuard => {
                if self.guard_name == self.processes[who].guard {
                    Answer::Done
                } else {
                    Answer::Replaced
                }
            }
            Step::ReadGuard => {
                self.processes[who].text = self.guard_of(who).claims.clone();
                Answer::Done
            }
            Step::ReadRecord => {
                self.processes[who].judged = self.record_name;
                match self.record_name {
                    None => Answer::Absent,
                    Some(file) => Answer::Found(file, self.judge(who, file)),
                }
            }
            Step::AwaitExit => {
                let owner = self.owners[usize::from(self.processes[who].judged.unwrap())];
                match self.processes[owner].phase {
                    Phase::Dead => Answer::Done,
                    // It ends within the time that is waited.
                    Phase::Dying => return Progress::Waits,
                    Phase::Idle | Phase::Acquiring(..) | Phase::Critical | Phase::Releasing(_) => {
                        Answer::StillRunning
                    }
                }
            }
            // Neither changes what anybody decides by.
            Step::ClearMarker | Step::MarkFree => Answer::Done,
            Step::WriteClaim => self.write_claim(who),
            Step::UnlinkRecord if !self.processes[who].may_unlink => {
                if self.record_name == own {
                    self.processes[who].may_unlink = true;
                    return Progress::Half;
                }
                Answer::Done
            }
            Step::UnlockGuard => {
                let guard = self.guard_of(who);
                assert_eq!(guard.locked_by, Some(who), "unlocked another's guard");
                guard.locked_by = None;
                Answer::Done
            }
            Step::LinkRecord
            | Step::StageRecord
            | Step::ExchangeRecords
            | Step::LookAtDisplaced
            | Step::GiveBack
            | Step::DropStaged
            | Step::UnlinkRecord
            | Step::VoidRecord => self.change_names(who, step, own.unwrap()),
        })
    }

    fn guard_of(&mut self, who: usize) -> &mut Guard {
        &mut self.guards[usize::from(self.processes[who].guard.unwrap())]
    }

    fn write_claim(&mut self, who: usize) -> Answer<File> {
        let process = &mut self.processes[who];
        let file = if let Some((file, false)) = process.draft {
            file
        } else {
            self.owners.push(who);
            File::try_from(self.owners.len() - 1).unwrap()
        };
        process.draft = Some((file, false));
        let before = process.text.iter().map(|claim| claim.generation).max();
        // Without one before, the clock gives one that is higher than any.
        process.generation = before.unwrap_or(self.highest_generation) + 1;
        self.highest_generation = self.highest_generation.max(process.generation);
        let mut claims = vec![Claim {
            record: file,
            generation: process.generation,
        }];
        let judged = |claim: &&Claim| Some(claim.record) == process.judged;
        claims.extend(process.text.iter().find(judged).cloned());
        self.guard_of(who).claims = claims;
        Answer::Done
    }

    /// Performs a step that gives names to records, exchanges them, or takes them away.
    fn change_names(&mut self, who: usize, step: Step, own: File) -> Answer<File> {
        let process = &mut self.processes[who];
        if step == Step::LinkRecord {
            if self.record_name.is_some() {
                return Answer::Taken;
            }
            self.record_name = Some(own);
            process.draft = Some((own, true));
        } else if step == Step::StageRecord {
            process.staged = Some(own);
            process.draft = Some((own, true));
        } else if step == Step::ExchangeRecords {
            if self.record_name.is_none() {
                return Answer::Absent;
            }
            process.displaced = self.record_name;
            std::mem::swap(&mut self.record_name, &mut process.staged);
        } else if step == Step::LookAtDisplaced {
            return Answer::Displaced(process.displaced.unwrap());
        } else if step == Step::GiveBack {
            std::mem::swap(&mut self.record_name, &mut process.staged);
        } else if step == Step::DropStaged {
            process.staged = None;
        } else if step == Step::UnlinkRecord {
            process.may_unlink = false;
            self.record_name = None;
        } else {
            let staged = |process: &Process| process.staged == Some(own);
            if self.record_name == Some(own) || self.processes.iter().any(staged) {
                self.void.push(own);
            }
        }
        Answer::Done
    }

    /// Judges a record as the driver does.
    fn judge(&self, who: usize, record: File) -> Verdict {
        let owner = self.owners[usize::from(record)];
        let paired = self.processes[who]
            .text
            .iter()
            .any(|claim| claim.record == record);
        match self.processes[owner].phase {
            _ if self.void.contains(&record) => Verdict::Stale,
            Phase::Dead => Verdict::Stale,
            // Our own number, and we hold nothing: adopted.
            _ if owner == who => Verdict::Stale,
            Phase::Idle
            | Phase::Acquiring(..)
            | Phase::Critical
            | Phase::Releasing(_)
            | Phase::Dying => {
                if paired {
                    Verdict::PerhapsEnding
                } else {
                    Verdict::Holds
                }
            }
        }
    }

    fn owners_now(&self) -> Vec<usize> {
        let critical = |who: &usize| self.processes[*who].phase == Phase::Critical;
        (0..self.processes.len()).filter(critical).collect()
    }

    /// Lets one more process come, alone, when all others are done; returns whether it gets the lock.
    fn is_usable(&self) -> bool {
        let mut world = self.clone();
        let mut newcomer = Self::new(1, 0, 0, 0).processes.remove(0);
        newcomer.acquisitions_left = 1;
        world.processes.push(newcomer);
        let who = world.processes.len() - 1;
        for _ in 0..64 {
            match world.after_turn_of(who) {
                Some(next) if next.processes[who].phase == Phase::Critical => return true,
                Some(next) => world = next,
                None => return false,
            }
        }
        false
    }
}

/// Explores everything that can follow from `start` and returns the number of states.
fn explore(start: World) -> usize {
    let undisturbed = start.crashes_left + start.guard_deletions_left == 0;
    // 128 bits of hash stand for a state: two states that share them are not to be expected before 2^60 of them.
    let hashers = [RandomState::new(), RandomState::new()];
    let fingerprint = |world: &World| {
        let [one, other] = hashers.each_ref().map(|hasher| hasher.hash_one(world));
        (one, other)
    };
    let mut seen = HashSet::new();
    let mut open = vec![start];
    while let Some(world) = open.pop() {
        if !seen.insert(fingerprint(&world)) {
            continue;
        }
        let owners = world.owners_now();
        assert!(owners.len() <= 1, "{owners:?} own it: {world:#?}");
        let next = world.successors();
        if next.is_empty() {
            let all_done = world.processes.iter().all(|process| {
                process.acquisitions_left == 0 && matches!(process.phase, Phase::Idle | Phase::Dead)
            });
            assert!(all_done, "stuck: {world:#?}");
            assert!(world.is_usable(), "nobody can take it any more: {world:#?}");
            assert!(
                !undisturbed || world.last_entered > 0,
                "all gave way: {world:#?}"
            );
        }
        open.extend(next);
    }
    seen.len()
}

#[track_caller]
fn check(acquisitions: u8, crashes: u8, guard_deletions: u8, record_deletions: u8) {
    let start = World::new(acquisitions, crashes, guard_deletions, record_deletions);
    let states = explore(start);
    println!(
        "{acquisitions} acquisitions each, {crashes} crashes, {guard_deletions} guards and \
         {record_deletions} records deleted: {states} states"
    );
    assert!(states > 1000, "explored too little: {states}");
}

#[test]
fn three_processes_never_own_it_together() {
    check(2, 0, 0, 0);
}

#[test]
fn a_crash_at_any_point_leaves_nothing_stuck() {
    check(1, 2, 0, 0);
}

#[test]
fn deleting_the_guard_at_any_point_lets_nobody_else_in() {
    check(1, 1, 1, 0);
}

#[test]
fn deleting_the_record_at_any_point_lets_nobody_else_in() {
    check(1, 1, 0, 2);
}
