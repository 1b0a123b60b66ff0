//! The rules by which a tree is ended, without a system call: given what one pass
//! over all processes saw, which of them are to be signalled now.

use std::collections::{HashMap, HashSet};

use super::group::{Group, Inside};
use super::table::{Entry, Table};
use super::{Marker, Process, Report};

/// Whose descendants are meant.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// The process at the top, with its start time.
    pub(crate) leader: Option<(u32, u64)>,
    /// Whether the leader's pid may be taken as the name of a group and session:
    /// true as long as it is pinned by a process that was not reaped.
    pub(crate) pinned: bool,
    /// Nothing that started earlier can be a descendant.
    pub(crate) floor: u64,
    /// What its descendants carry.
    pub(crate) marker: Option<Marker>,
    /// Whether every other child of this process, which the kernel handed to it, is one.
    pub(crate) orphans: bool,
    /// The control group that its leader enters before it starts anything.
    pub(crate) group: Option<Group>,
}

/// Where the sweep stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Everything found is frozen, so that it cannot fork away from the next pass.
    Freeze { rounds: u32 },
    /// Everything but the leader is killed, and looked for again.
    Kill,
    /// All are gone as far as this many passes in a row saw.
    Verify { empty: u32 },
}

/// How members of the group are reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hand {
    /// Each by a signal of its own.
    Single,
    /// All together: everybody who was seen in it is to be ended.
    Group { all_seen: bool },
}

/// A signal that the rules ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Order {
    pub(crate) process: Process,
    pub(crate) kind: OrderKind,
    /// Whether it is done to all members of the target's group with one write.
    pub(crate) by_group: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OrderKind {
    Freeze,
    Kill,
}

/// When the next pass is useful.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Right away.
    Again,
    /// In a moment, when those that were told to stand still have got round to it, or those that are becoming another program show
    /// what they carry.
    Soon,
    /// When what was killed is gone.
    AfterDeaths,
    /// Never: enough passes found nobody.
    Done,
}

/// One tree on its way out.
#[derive(Clone, Debug)]
pub(crate) struct Sweep {
    target: Target,
    stage: Stage,
    /// Everything that was ever found, so that a process whose parent dies in
    /// between is not lost from sight.
    known: HashMap<u32, Process>,
    killed: HashMap<u32, Process>,
    frozen: HashSet<(u32, u64)>,
    unreadable: u32,
    /// Who had no environment yet in every one of these rounds.
    in_exec: HashSet<(u32, u64)>,
    exec_rounds: u32,
    /// Whether the leader has ended, so that nothing is below it any more.
    leader_gone: bool,
    /// Whether somebody was promised that nobody is left.
    promised: bool,
    /// Whether the leader was seen in its group, so that whoever it started is there as well.
    entered: bool,
    /// Whether the group stands still at our word.
    pace: Pace,
}

/// What its members were told as a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pace {
    /// Nothing, or to go on.
    Free,
    /// To stand still.
    Frozen,
    /// To stand still, which is to be taken back.
    Thawing,
}

/// A tree that still grows while it is being frozen is killed unfrozen.
const MOST_ROUNDS: u32 = 20;
/// A group stands still a moment after it was told to, unless somebody in it is stuck in
/// the kernel. Killing it is as sure then, only not as exactly counted.
const MOST_GROUP_ROUNDS: u32 = 50;
/// A process can be created and its parent end while a listing is being read, so
/// that neither is seen: one empty pass is no proof unless it is conclusive.
const EMPTY_PASSES: u32 = 2;
/// A program is loaded within a moment, unless its file system does not answer. On a machine that starts programs without a pause
/// there is always somebody new that is being loaded.
pub(super) const MOST_EXEC_ROUNDS: u32 = 50;

impl Sweep {
    pub(crate) fn new(target: Target) -> Self {
        Self {
            target,
            stage: Stage::Freeze { rounds: 0 },
            known: HashMap::new(),
            killed: HashMap::new(),
            frozen: HashSet::new(),
            unreadable: 0,
            in_exec: HashSet::new(),
            exec_rounds: 0,
            leader_gone: false,
            promised: false,
            entered: false,
            pace: Pace::Free,
        }
    }

    pub(crate) fn target(&self) -> &Target {
        &self.target
    }

    /// Asks for one empty look nearby and then two at everything, if somebody was promised
    /// that nobody is left.
    pub(crate) fn promise(&mut self, promised: bool) {
        self.promised = promised;
    }

    /// How many passes in a row must find nobody.
    fn needed(&self, table: &Table) -> u32 {
        if self.promised {
            EMPTY_PASSES + 1
        } else if table.is_conclusive() {
            1
        } else {
            EMPTY_PASSES
        }
    }

    /// Returns true if the leader is gone, nothing that it left is known of, and there is no
    /// group to look into.
    pub(crate) fn knows_nobody(&self) -> bool {
        self.leader_gone && self.known.is_empty() && self.target.group.is_none()
    }

    /// Returns true if an empty group proves that nobody is left.
    pub(crate) fn is_proven_by_group(&self) -> bool {
        self.entered
    }

    /// Returns the group to look at, and the leader while it was not seen in there.
    pub(crate) fn group(&self) -> Option<(&Group, Option<u32>)> {
        let leader = self.target.leader.map(|(pid, _)| pid);
        let group = self.target.group.as_ref()?;
        Some((group, leader.filter(|_| !self.entered)))
    }

    /// Returns true once if the group is to be let go on.
    pub(crate) fn take_thaw(&mut self) -> bool {
        let is_due = self.pace == Pace::Thawing;
        if is_due {
            self.pace = Pace::Free;
        }
        is_due
    }

    /// Nothing more will be done: those that are still there go on.
    pub(crate) fn give_up(&mut self) {
        if self.pace == Pace::Frozen {
            self.pace = Pace::Thawing;
        }
    }

    /// Returns true if the last pass found nobody.
    pub(crate) fn is_verifying(&self) -> bool {
        matches!(self.stage, Stage::Verify { .. })
    }

    /// Returns whom a pass must look at besides where it looks anyway.
    pub(crate) fn roots(&self) -> impl Iterator<Item = u32> {
        let leader = self.target.leader.filter(|_| !self.leader_gone);
        leader
            .map(|(pid, _)| pid)
            .into_iter()
            .chain(self.known.keys().copied())
    }

    /// Returns true once something was ordered to be killed.
    pub(crate) fn is_killing(&self) -> bool {
        self.stage == Stage::Kill
    }

    /// The leader has ended: its children have other parents by now.
    pub(crate) fn leader_is_gone(&mut self) {
        self.leader_gone = true;
    }

    /// The leader was reaped, or is a stranger's child: its pid no longer names
    /// its group.
    pub(crate) fn unpin(&mut self) {
        self.target.pinned = false;
    }

    /// Remembers what is below the leader now, before it is asked to leave: what
    /// it leaves behind may have another parent a moment later.
    pub(crate) fn observe(&mut self, table: &Table, is_exempt: &mut dyn FnMut(u32) -> bool) {
        self.note_entry(table);
        for process in self.victims(table, is_exempt) {
            self.known.insert(process.pid, process);
        }
    }

    /// Takes in one pass and returns whom to signal, and when to look again.
    pub(crate) fn pass(
        &mut self,
        table: &Table,
        is_exempt: &mut dyn FnMut(u32) -> bool,
    ) -> (Vec<Order>, Next) {
        self.note_entry(table);
        self.unreadable = if self.target.marker.is_some() && !self.entered {
            table.unreadable()
        } else {
            0
        };
        let victims = self.victims(table, is_exempt);
        for process in &victims {
            self.known.insert(process.pid, process.clone());
        }
        let leader = self.live_leader(table);
        let hand = self.hand(table, &victims, leader.as_ref());
        if hand == Hand::Single {
            // Somebody in there must not be touched. The others are stopped one by one.
            if self.pace == Pace::Frozen {
                self.frozen.clear();
                self.pace = Pace::Thawing;
            } else if self.inside(table).is_some_and(|inside| inside.frozen) {
                // By one who was killed before he could take it back.
                self.pace = Pace::Thawing;
            }
        }
        if victims.is_empty() && leader.is_none() {
            return (Vec::new(), self.nobody(table));
        }
        if let Stage::Freeze { rounds } = self.stage
            && let Some(step) = self.freeze(table, &victims, leader.as_ref(), hand, rounds)
        {
            return step;
        }
        self.stage = Stage::Kill;
        (self.kill(table, victims, leader, hand), Next::AfterDeaths)
    }

    /// Says whether a pass that found nobody must not count, because somebody may be about to show the marker, or may have been missed.
    fn awaits_carriers(&mut self, table: &Table) -> bool {
        if self.target.marker.is_none() || self.entered {
            return false;
        }
        let now: HashSet<(u32, u64)> = table.in_exec().collect();
        if self.exec_rounds == 0 {
            self.in_exec.clone_from(&now);
        }
        self.in_exec.retain(|process| now.contains(process));
        if now.is_empty() && !table.is_partial() {
            return false;
        }
        if self.exec_rounds == MOST_EXEC_ROUNDS {
            let stuck = u32::try_from(self.in_exec.len()).unwrap_or(u32::MAX);
            let missed = u32::from(table.is_partial());
            self.unreadable = self.unreadable.saturating_add(stuck.max(missed));
            return false;
        }
        self.exec_rounds += 1;
        true
    }

    /// One pass more has found nobody.
    fn nobody(&mut self, table: &Table) -> Next {
        let counted = match self.stage {
            Stage::Verify { empty } => empty,
            Stage::Freeze { .. } | Stage::Kill => 0,
        };
        if self.awaits_carriers(table) {
            self.stage = Stage::Verify { empty: counted };
            return Next::Soon;
        }
        let empty = counted + 1;
        self.stage = Stage::Verify { empty };
        // The kernel counts a group's members itself, so that none is between two places.
        let by_group = self.entered && self.inside(table).is_some_and(|inside| !inside.populated);
        if by_group || empty >= self.needed(table) {
            Next::Done
        } else {
            Next::Again
        }
    }

    /// Stops whoever is not stopped yet; `None` if all stand still, or if they never will.
    fn freeze(
        &mut self,
        table: &Table,
        victims: &[Process],
        leader: Option<&Process>,
        hand: Hand,
        rounds: u32,
    ) -> Option<(Vec<Order>, Next)> {
        let inside = self.inside(table).cloned().unwrap_or_default();
        let most = match hand {
            Hand::Single => MOST_ROUNDS,
            Hand::Group { .. } => MOST_GROUP_ROUNDS,
        };
        // Of a group that stood still before it was listed, the list is complete.
        let settled = inside.frozen && hand == Hand::Group { all_seen: true };
        let is_member = |process: &Process| inside.members.contains(&process.pid);
        let fresh: Vec<Process> = victims
            .iter()
            .chain(leader)
            .filter(|process| !self.frozen.contains(&(process.pid, process.start)))
            .filter(|process| !(settled && is_member(process)))
            .cloned()
            .collect();
        let waits = self.pace == Pace::Frozen && !settled;
        if rounds >= most || (fresh.is_empty() && !waits) {
            return None;
        }
        self.stage = Stage::Freeze { rounds: rounds + 1 };
        self.frozen
            .extend(fresh.iter().map(|process| (process.pid, process.start)));
        let orders: Vec<Order> = fresh
            .into_iter()
            .map(|process| Order {
                by_group: hand != Hand::Single && is_member(&process),
                process,
                kind: OrderKind::Freeze,
            })
            .collect();
        if orders.iter().any(|order| order.by_group) {
            self.pace = Pace::Frozen;
        }
        let next = if waits { Next::Soon } else { Next::Again };
        Some((orders, next))
    }

    /// Leaves before parents, and the leader last: its descendants would be handed to
    /// somebody else otherwise. Who is ended with the whole group needs no order.
    fn kill(
        &mut self,
        table: &Table,
        mut victims: Vec<Process>,
        leader: Option<Process>,
        hand: Hand,
    ) -> Vec<Order> {
        let inside = self.inside(table).cloned().unwrap_or_default();
        let by_group = |process: &Process| {
            hand == Hand::Group { all_seen: true } && inside.members.contains(&process.pid)
        };
        victims.sort_by_key(|process| std::cmp::Reverse(table.upward(process.pid).len()));
        let with_leader = leader.filter(|leader| victims.is_empty() || by_group(leader));
        for process in &victims {
            self.killed.insert(process.pid, process.clone());
        }
        victims
            .into_iter()
            .chain(with_leader)
            .map(|process| Order {
                by_group: by_group(&process),
                process,
                kind: OrderKind::Kill,
            })
            .collect()
    }

    fn inside<'a>(&self, table: &'a Table) -> Option<&'a Inside> {
        table.inside(self.target.group.as_ref()?)
    }

    fn note_entry(&mut self, table: &Table) {
        self.entered |= self.inside(table).is_some_and(|inside| inside.has_leader);
    }

    /// Says whether all members of the group are to be ended, so that it can be done to the group.
    fn hand(&self, table: &Table, victims: &[Process], leader: Option<&Process>) -> Hand {
        let Some(inside) = self.inside(table).filter(|inside| inside.hidden == 0) else {
            return Hand::Single;
        };
        let ordered: HashSet<u32> = victims.iter().chain(leader).map(|p| p.pid).collect();
        let mut all_seen = true;
        for pid in &inside.members {
            match table.get(*pid) {
                Some(entry) if entry.alive && !ordered.contains(pid) => return Hand::Single,
                Some(_) => {}
                // It came after the processes were read, and before they are again it cannot be judged.
                None => all_seen = false,
            }
        }
        Hand::Group { all_seen }
    }

    /// Returns what came of it, given the last look at all processes.
    pub(crate) fn report(&self, table: &Table) -> Report {
        let lives = |process: &&Process| {
            table
                .get(process.pid)
                .is_some_and(|e| e.start == process.start && e.alive)
        };
        let mut survivors: Vec<Process> = self.known.values().filter(lives).cloned().collect();
        survivors.extend(self.live_leader(table));
        let ended = self
            .killed
            .values()
            .filter(|p| !lives(p))
            .cloned()
            .collect();
        Report {
            ended,
            survivors,
            unreadable: self.unreadable,
        }
    }

    fn live_leader(&self, table: &Table) -> Option<Process> {
        let (pid, start) = self.target.leader?;
        let entry = table.get(pid)?;
        (entry.start == start && entry.alive).then(|| entry.process())
    }

    /// Everything alive that is known or evidently below the target, but neither
    /// the leader itself, nor this process or what it descends from, nor anything
    /// exempt or below that.
    fn victims(&self, table: &Table, is_exempt: &mut dyn FnMut(u32) -> bool) -> Vec<Process> {
        let leader = self.target.leader;
        let mut queue: Vec<u32> = Vec::new();
        if let Some((pid, start)) = leader {
            let same = table.get(pid).is_some_and(|entry| entry.start == start);
            if same {
                queue.extend(table.children_of(pid));
            }
            if self.target.pinned {
                queue.extend(table.members_of(pid));
            }
        }
        if self.target.orphans {
            queue.extend(table.children_of(std::process::id()));
        }
        queue.extend(self.known.values().filter_map(|process| {
            let entry = table.get(process.pid)?;
            (entry.start == process.start).then_some(entry.pid)
        }));
        if let Some(marker) = &self.target.marker {
            queue.extend(table.carriers(marker));
        }
        if let Some(inside) = self.inside(table) {
            queue.extend(&inside.members);
        }
        let mut exempt = HashMap::new();
        let mut is_exempt = move |pid: u32| *exempt.entry(pid).or_insert_with(|| is_exempt(pid));
        let mut seen = HashSet::new();
        let mut victims = Vec::new();
        while let Some(pid) = queue.pop() {
            let Some(entry) = table.get(pid) else {
                continue;
            };
            if table.is_untouchable(pid) || !seen.insert(pid) {
                continue;
            }
            let is_leader = leader == Some((pid, entry.start));
            if !is_leader {
                if entry.start < self.target.floor || self.is_spared(entry, table, &mut is_exempt) {
                    continue;
                }
                if entry.alive {
                    victims.push(entry.process());
                }
            }
            queue.extend(table.children_of(pid));
        }
        victims
    }

    /// Returns true for what is exempt or below something exempt, by whichever evidence it was found.
    fn is_spared(
        &self,
        entry: &Entry,
        table: &Table,
        is_exempt: &mut dyn FnMut(u32) -> bool,
    ) -> bool {
        // A table that was read while pids were reused can hold a circle.
        let mut line = HashSet::new();
        let mut at = Some(entry);
        while let Some(entry) = at {
            let is_leader = self.target.leader == Some((entry.pid, entry.start));
            // From here on upwards are those that it all comes from, which are exempt in other places.
            if is_leader
                || entry.start < self.target.floor
                || table.is_untouchable(entry.pid)
                || !line.insert(entry.pid)
            {
                return false;
            }
            if is_exempt(entry.pid) {
                return true;
            }
            at = table.get(entry.parent);
        }
        false
    }
}

#[cfg(test)]
mod tests;
