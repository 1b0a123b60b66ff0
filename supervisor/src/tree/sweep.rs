//! The rules by which a tree is ended, without a system call: given what one pass
//! over all processes saw, which of them are to be signalled now.

use std::collections::{HashMap, HashSet};

use super::table::Table;
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

/// A signal that the rules ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Order {
    pub(crate) process: Process,
    pub(crate) kind: OrderKind,
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
    /// When what was killed is gone.
    AfterDeaths,
    /// Never: two passes found nobody.
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
    /// Whether the leader has ended, so that nothing is below it any more.
    leader_gone: bool,
    /// So many passes in a row must find nobody.
    needed: u32,
}

/// A tree that still grows while it is being frozen is killed unfrozen.
const MOST_ROUNDS: u32 = 20;
/// A process can be created and its parent end while a listing is being read, so
/// that neither is seen: one empty pass is no proof, see `EMPTY_PASSES`.
const EMPTY_PASSES: u32 = 2;

impl Sweep {
    pub(crate) fn new(target: Target) -> Self {
        Self {
            target,
            stage: Stage::Freeze { rounds: 0 },
            known: HashMap::new(),
            killed: HashMap::new(),
            frozen: HashSet::new(),
            unreadable: 0,
            leader_gone: false,
            needed: EMPTY_PASSES,
        }
    }

    pub(crate) fn target(&self) -> &Target {
        &self.target
    }

    /// Asks for this many empty passes more than usual.
    pub(crate) fn need_more(&mut self, passes: u32) {
        self.needed = EMPTY_PASSES + passes;
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
        self.unreadable = if self.target.marker.is_some() {
            table.unreadable()
        } else {
            0
        };
        let mut victims = self.victims(table, is_exempt);
        for process in &victims {
            self.known.insert(process.pid, process.clone());
        }
        let leader = self.live_leader(table);
        if victims.is_empty() && leader.is_none() {
            let empty = match self.stage {
                Stage::Verify { empty } => empty + 1,
                Stage::Freeze { .. } | Stage::Kill => 1,
            };
            self.stage = Stage::Verify { empty };
            let next = if empty >= self.needed {
                Next::Done
            } else {
                Next::Again
            };
            return (Vec::new(), next);
        }
        if let Stage::Freeze { rounds } = self.stage {
            let fresh: Vec<Process> = victims
                .iter()
                .chain(&leader)
                .filter(|process| !self.frozen.contains(&(process.pid, process.start)))
                .cloned()
                .collect();
            if !fresh.is_empty() && rounds < MOST_ROUNDS {
                self.stage = Stage::Freeze { rounds: rounds + 1 };
                self.frozen
                    .extend(fresh.iter().map(|process| (process.pid, process.start)));
                let freeze = fresh.into_iter().map(|process| Order {
                    process,
                    kind: OrderKind::Freeze,
                });
                return (freeze.collect(), Next::Again);
            }
        }
        self.stage = Stage::Kill;
        if victims.is_empty() {
            // Only the leader is left. It went last because its descendants would
            // have been handed to somebody else otherwise.
            let kill = leader.into_iter().map(|process| Order {
                process,
                kind: OrderKind::Kill,
            });
            return (kill.collect(), Next::AfterDeaths);
        }
        victims.sort_by_key(|process| std::cmp::Reverse(table.upward(process.pid).len()));
        let orders = victims
            .into_iter()
            .map(|process| {
                self.killed.insert(process.pid, process.clone());
                Order {
                    process,
                    kind: OrderKind::Kill,
                }
            })
            .collect();
        (orders, Next::AfterDeaths)
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
                if entry.start < self.target.floor || is_exempt(pid) {
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
}

#[cfg(test)]
mod tests {
    use super::super::table::Entry;
    use super::*;

    fn entry(pid: u32, parent: u32, group: u32, start: u64) -> Entry {
        Entry {
            pid,
            parent,
            group,
            session: group,
            start,
            alive: true,
            headless: false,
            name: format!("p{pid}"),
            carried: Vec::new(),
            unreadable: false,
        }
    }

    fn target(leader: u32) -> Target {
        Target {
            leader: Some((leader, 10)),
            pinned: true,
            floor: 10,
            marker: None,
            orphans: false,
        }
    }

    fn pids(orders: &[Order], kind: OrderKind) -> Vec<u32> {
        orders
            .iter()
            .filter(|o| o.kind == kind)
            .map(|o| o.process.pid)
            .collect()
    }

    #[test]
    fn a_tree_is_frozen_then_killed_leaves_first_and_the_leader_last() {
        let full = || {
            Table::from_entries([
                entry(1, 0, 1, 1),
                entry(900_100, 1, 900_100, 10),
                entry(900_101, 900_100, 900_100, 11),
                entry(900_102, 900_101, 900_102, 12),
            ])
        };
        let mut sweep = Sweep::new(target(900_100));
        let (orders, next) = sweep.pass(&full(), &mut |_| false);
        let mut frozen = pids(&orders, OrderKind::Freeze);
        frozen.sort_unstable();
        assert_eq!(
            (frozen, next),
            (vec![900_100, 900_101, 900_102], Next::Again)
        );

        let (orders, next) = sweep.pass(&full(), &mut |_| false);
        assert_eq!(pids(&orders, OrderKind::Kill), [900_102, 900_101]);
        assert_eq!(next, Next::AfterDeaths);

        let alone = Table::from_entries([entry(1, 0, 1, 1), entry(900_100, 1, 900_100, 10)]);
        let (orders, _) = sweep.pass(&alone, &mut |_| false);
        assert_eq!(pids(&orders, OrderKind::Kill), [900_100]);

        let empty = Table::from_entries([entry(1, 0, 1, 1)]);
        assert_eq!(sweep.pass(&empty, &mut |_| false), (vec![], Next::Again));
        assert_eq!(sweep.pass(&empty, &mut |_| false), (vec![], Next::Done));
        assert_eq!(sweep.report(&empty).ended.len(), 2);
    }

    #[test]
    fn one_found_after_an_empty_pass_starts_the_count_again() {
        let mut sweep = Sweep::new(target(900_100));
        let empty = Table::from_entries([entry(1, 0, 1, 1)]);
        let late = Table::from_entries([entry(900_103, 1, 900_100, 15)]);
        assert_eq!(sweep.pass(&empty, &mut |_| false).1, Next::Again);
        let (orders, _) = sweep.pass(&late, &mut |_| false);
        assert_eq!(pids(&orders, OrderKind::Kill), [900_103]);
        assert_eq!(sweep.pass(&empty, &mut |_| false).1, Next::Again);
        assert_eq!(sweep.pass(&empty, &mut |_| false).1, Next::Done);
    }

    #[test]
    fn what_was_seen_below_the_leader_is_ended_although_its_parent_is_gone() {
        let mut sweep = Sweep::new(target(900_100));
        let before = Table::from_entries([
            entry(900_100, 1, 900_100, 10),
            entry(900_104, 900_100, 900_104, 14),
        ]);
        sweep.observe(&before, &mut |_| false);
        let after = Table::from_entries([entry(900_104, 1, 900_104, 14)]);
        let (orders, _) = sweep.pass(&after, &mut |_| false);
        assert_eq!(pids(&orders, OrderKind::Freeze), [900_104]);
    }

    #[test]
    fn a_recycled_pid_is_not_taken_for_the_one_that_was_seen() {
        let mut sweep = Sweep::new(target(900_100));
        sweep.observe(
            &Table::from_entries([
                entry(900_100, 1, 900_100, 10),
                entry(900_104, 900_100, 900_104, 14),
            ]),
            &mut |_| false,
        );
        let reused = Table::from_entries([entry(900_104, 1, 900_104, 99)]);
        assert_eq!(sweep.pass(&reused, &mut |_| false), (vec![], Next::Again));
    }

    #[test]
    fn what_is_exempt_and_everything_below_it_stays() {
        let table = Table::from_entries([
            entry(900_100, 1, 900_100, 10),
            entry(900_105, 900_100, 900_105, 15),
            entry(900_106, 900_105, 900_105, 16),
        ]);
        let mut sweep = Sweep::new(target(900_100));
        let (orders, _) = sweep.pass(&table, &mut |pid| pid == 900_105);
        assert_eq!(pids(&orders, OrderKind::Freeze), [900_100]);
    }

    #[test]
    fn neither_this_process_nor_its_ancestors_are_ever_touched() {
        let own = std::process::id();
        let table = Table::from_entries([
            entry(900_100, 1, 900_100, 10),
            entry(900_107, 900_100, 900_100, 17),
            entry(own, 900_107, 900_100, 18),
        ]);
        let mut sweep = Sweep::new(target(900_100));
        let (orders, _) = sweep.pass(&table, &mut |_| false);
        assert!(
            !orders
                .iter()
                .any(|order| [own, 900_107].contains(&order.process.pid))
        );
    }

    #[test]
    fn children_that_came_to_this_process_are_victims_only_of_a_target_that_owns_them() {
        let own = std::process::id();
        let table = Table::from_entries([
            entry(own, 1, own, 1),
            entry(900_110, own, 900_110, 9),
            entry(900_111, own, 900_111, 15),
            entry(900_112, 900_111, 900_112, 16),
        ]);
        let mut sweep = Sweep::new(target(900_100));
        assert_eq!(sweep.pass(&table, &mut |_| false).0, []);
        let mut sweep = Sweep::new(Target {
            orphans: true,
            ..target(900_100)
        });
        let (orders, _) = sweep.pass(&table, &mut |_| false);
        let mut frozen = pids(&orders, OrderKind::Freeze);
        frozen.sort_unstable();
        assert_eq!(frozen, [900_111, 900_112], "the one from before stays");
    }

    #[test]
    fn a_group_whose_name_is_no_longer_pinned_is_no_evidence() {
        let stranger = Table::from_entries([entry(900_108, 1, 900_100, 18)]);
        let mut sweep = Sweep::new(target(900_100));
        sweep.unpin();
        assert_eq!(sweep.pass(&stranger, &mut |_| false).0, []);
    }

    #[test]
    fn what_could_not_be_read_makes_a_report_a_best_effort_if_there_is_a_marker() {
        let dark = Table::from_entries([Entry {
            unreadable: true,
            ..entry(900_109, 1, 900_109, 20)
        }]);
        for (marker, best_effort) in [
            (
                Some(Marker {
                    name: "M".into(),
                    prefix: "x/".into(),
                }),
                true,
            ),
            (None, false),
        ] {
            let mut sweep = Sweep::new(Target {
                marker,
                ..target(900_100)
            });
            assert_eq!(sweep.pass(&dark, &mut |_| false).0, []);
            assert_eq!(sweep.report(&dark).best_effort(), best_effort);
        }
    }
}
