//! The rules on tables that no machine had to show.

use super::*;
use crate::tree::table::Environment;

fn entry(pid: u32, parent: u32, group: u32, start: u64) -> Entry {
    Entry {
        pid,
        parent,
        group,
        session: group,
        start,
        alive: true,
        headless: false,
        threads: 1,
        name: format!("p{pid}"),
        carried: Vec::new(),
        environment: Environment::Shown,
    }
}

fn target(leader: u32) -> Target {
    Target {
        leader: Some((leader, 10)),
        pinned: true,
        floor: 10,
        marker: None,
        orphans: false,
        group: None,
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
        environment: Environment::Hidden,
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

/// A process that has just become another program.
fn becoming(pid: u32) -> Entry {
    Entry {
        environment: Environment::NotYet,
        ..entry(pid, 1, pid, 20)
    }
}

fn marked() -> Sweep {
    Sweep::new(Target {
        marker: Some(Marker {
            name: "M".into(),
            prefix: "x/".into(),
        }),
        ..target(900_100)
    })
}

#[test]
fn a_pass_that_meets_somebody_without_an_environment_yet_is_no_proof_that_nobody_is_left() {
    let nobody = Table::default();
    let unknown = Table::from_entries([becoming(900_109)]);
    let known = Table::from_entries([Entry {
        carried: vec!["M=x/1".into()],
        ..entry(900_109, 1, 900_109, 20)
    }]);
    let mut sweep = marked();
    assert_eq!(sweep.pass(&nobody, &mut |_| false), (vec![], Next::Again));
    assert_eq!(sweep.pass(&unknown, &mut |_| false), (vec![], Next::Soon));
    // It shows what it carries, and is one of those that are looked for.
    let (orders, _) = sweep.pass(&known, &mut |_| false);
    assert_eq!(orders.len(), 1);
    // Without a marker there is nothing to wait for, and a pass that waited takes nothing from what was seen before.
    let mut sweep = Sweep::new(target(900_100));
    assert_eq!(sweep.pass(&unknown, &mut |_| false).1, Next::Again);
    assert_eq!(sweep.pass(&unknown, &mut |_| false).1, Next::Done);
    let mut sweep = marked();
    assert_eq!(sweep.pass(&nobody, &mut |_| false).1, Next::Again);
    assert_eq!(sweep.pass(&unknown, &mut |_| false).1, Next::Soon);
    assert_eq!(sweep.pass(&nobody, &mut |_| false).1, Next::Done);
    assert!(!sweep.report(&nobody).best_effort());
}

#[test]
fn who_is_never_done_becoming_another_program_is_waited_for_with_an_end_and_makes_a_best_effort() {
    let stuck = || Table::from_entries([becoming(900_109)]);
    let mut sweep = marked();
    for _ in 0..MOST_EXEC_ROUNDS {
        assert_eq!(sweep.pass(&stuck(), &mut |_| false).1, Next::Soon);
    }
    assert_eq!(sweep.pass(&stuck(), &mut |_| false).1, Next::Again);
    assert_eq!(sweep.pass(&stuck(), &mut |_| false).1, Next::Done);
    assert_eq!(sweep.report(&stuck()).unreadable, 1);

    // On a machine where it is another one each time, each was seen before or after.
    let mut sweep = marked();
    for n in 0..MOST_EXEC_ROUNDS {
        let busy = Table::from_entries([becoming(900_200 + n), becoming(900_201 + n)]);
        assert_eq!(sweep.pass(&busy, &mut |_| false).1, Next::Soon);
    }
    let busy = Table::from_entries([becoming(900_300)]);
    assert_eq!(sweep.pass(&busy, &mut |_| false).1, Next::Again);
    assert_eq!(sweep.pass(&busy, &mut |_| false).1, Next::Done);
    assert!(!sweep.report(&busy).best_effort());
}

#[test]
fn a_look_that_broke_off_is_no_proof_that_nobody_is_left_and_is_repeated_with_an_end() {
    let partial = || Table::default().partial();
    let mut sweep = marked();
    for _ in 0..MOST_EXEC_ROUNDS {
        assert_eq!(sweep.pass(&partial(), &mut |_| false).1, Next::Soon);
    }
    assert_eq!(sweep.pass(&partial(), &mut |_| false).1, Next::Again);
    assert_eq!(sweep.pass(&partial(), &mut |_| false).1, Next::Done);
    assert!(sweep.report(&partial()).best_effort());

    let nobody = Table::default();
    let mut sweep = marked();
    assert_eq!(sweep.pass(&partial(), &mut |_| false).1, Next::Soon);
    assert_eq!(sweep.pass(&nobody, &mut |_| false).1, Next::Again);
    assert_eq!(sweep.pass(&nobody, &mut |_| false).1, Next::Done);
    assert!(!sweep.report(&nobody).best_effort());
}

/// A target whose leader enters the group `/g/wg-1`.
fn grouped(leader: u32) -> Target {
    Target {
        group: Some(Group::at("/g/wg-1")),
        pinned: false,
        ..target(leader)
    }
}

/// What the group shows: its members, and whether they stand still. The leader is in it.
fn seen(mut table: Table, members: &[u32], frozen: bool) -> Table {
    let inside = Inside {
        members: members.to_vec(),
        populated: !members.is_empty(),
        frozen,
        has_leader: true,
        hidden: 0,
    };
    table.insert_inside(&Group::at("/g/wg-1"), inside);
    table
}

/// The leader and an orphan that nothing but the group leads to.
fn with_orphan() -> Table {
    Table::from_entries([
        entry(1, 0, 1, 1),
        entry(900_100, 1, 900_100, 10),
        entry(900_101, 1, 900_101, 11),
    ])
}

fn by_group(orders: &[Order]) -> Vec<u32> {
    let mut pids: Vec<u32> = orders
        .iter()
        .filter(|order| order.by_group)
        .map(|order| order.process.pid)
        .collect();
    pids.sort_unstable();
    pids
}

const BOTH: [u32; 2] = [900_100, 900_101];

#[test]
fn whoever_is_in_the_group_is_ended_with_it_and_one_look_at_it_is_proof() {
    let mut sweep = Sweep::new(grouped(900_100));
    let (orders, next) = sweep.pass(&seen(with_orphan(), &BOTH, false), &mut |_| false);
    assert_eq!(pids(&orders, OrderKind::Freeze).len(), 2);
    assert_eq!((by_group(&orders), next), (BOTH.to_vec(), Next::Again));
    // It takes the kernel a moment.
    let (orders, next) = sweep.pass(&seen(with_orphan(), &BOTH, false), &mut |_| false);
    assert_eq!((orders, next), (vec![], Next::Soon));
    let (orders, next) = sweep.pass(&seen(with_orphan(), &BOTH, true), &mut |_| false);
    assert_eq!(pids(&orders, OrderKind::Kill).len(), 2);
    assert_eq!(
        (by_group(&orders), next),
        (BOTH.to_vec(), Next::AfterDeaths)
    );
    let empty = seen(Table::from_entries([entry(1, 0, 1, 1)]), &[], true);
    assert_eq!(sweep.pass(&empty, &mut |_| false), (vec![], Next::Done));
    let report = sweep.report(&empty);
    assert_eq!(report.ended.len(), 1, "the leader is no descendant");
    assert!(!sweep.take_thaw());
}

#[test]
fn one_that_was_forked_while_the_group_froze_is_counted_before_it_is_killed() {
    let mut sweep = Sweep::new(grouped(900_100));
    let (_, next) = sweep.pass(&seen(with_orphan(), &BOTH, false), &mut |_| false);
    assert_eq!(next, Next::Again);
    // It is in the group by now, and came after the processes were read.
    let late = [900_100, 900_101, 900_102];
    let (orders, next) = sweep.pass(&seen(with_orphan(), &late, true), &mut |_| false);
    assert_eq!((orders, next), (vec![], Next::Soon));
    let all = Table::from_entries([
        entry(900_100, 1, 900_100, 10),
        entry(900_101, 1, 900_101, 11),
        entry(900_102, 1, 900_101, 12),
    ]);
    let (orders, _) = sweep.pass(&seen(all, &late, true), &mut |_| false);
    assert_eq!(pids(&orders, OrderKind::Kill).len(), 3);
    assert_eq!(by_group(&orders), late);
}

#[test]
fn a_group_that_does_not_come_to_rest_is_killed_all_the_same() {
    let mut sweep = Sweep::new(grouped(900_100));
    let mut passes = 0;
    let orders = loop {
        let (orders, _) = sweep.pass(&seen(with_orphan(), &BOTH, false), &mut |_| false);
        passes += 1;
        if sweep.is_killing() {
            break orders;
        }
    };
    assert_eq!(passes, MOST_GROUP_ROUNDS + 1);
    assert_eq!(by_group(&orders), BOTH);
    sweep.give_up();
    assert!(sweep.take_thaw(), "who survives goes on");
}

#[test]
fn with_somebody_exempt_in_it_the_group_is_not_touched_as_a_whole() {
    // A daemon that was started from inside, and what it looks after.
    let table = || {
        Table::from_entries([
            entry(900_100, 1, 900_100, 10),
            entry(900_101, 1, 900_101, 11),
            entry(900_105, 1, 900_105, 15),
            entry(900_106, 900_105, 900_106, 16),
        ])
    };
    let members = [900_100, 900_101, 900_105, 900_106];
    let mut sweep = Sweep::new(grouped(900_100));
    let mut exempt = |pid: u32| pid == 900_105;
    let (orders, next) = sweep.pass(&seen(table(), &members, false), &mut exempt);
    assert_eq!(by_group(&orders), []);
    let mut frozen = pids(&orders, OrderKind::Freeze);
    frozen.sort_unstable();
    assert_eq!((frozen, next), (BOTH.to_vec(), Next::Again));
    let (orders, _) = sweep.pass(&seen(table(), &members, false), &mut exempt);
    assert_eq!(pids(&orders, OrderKind::Kill), [900_101]);
    // Its members do not hide that nobody else is left.
    let left = || {
        let both = [
            entry(900_105, 1, 900_105, 15),
            entry(900_106, 900_105, 900_106, 16),
        ];
        seen(Table::from_entries(both), &[900_105, 900_106], false)
    };
    assert_eq!(sweep.pass(&left(), &mut exempt), (vec![], Next::Again));
    assert_eq!(sweep.pass(&left(), &mut exempt), (vec![], Next::Done));
    assert_eq!(sweep.report(&left()).survivors, []);
}

#[test]
fn one_that_turns_out_exempt_in_a_frozen_group_goes_on_at_once() {
    let mut sweep = Sweep::new(grouped(900_100));
    let (orders, _) = sweep.pass(&seen(with_orphan(), &BOTH, false), &mut |_| false);
    assert_eq!(by_group(&orders), BOTH);
    let mut exempt = |pid: u32| pid == 900_101;
    let (orders, _) = sweep.pass(&seen(with_orphan(), &BOTH, true), &mut exempt);
    assert!(sweep.take_thaw() && !sweep.take_thaw());
    assert_eq!(by_group(&orders), []);
    assert_eq!(pids(&orders, OrderKind::Freeze), [900_100]);
}

#[test]
fn a_member_that_is_older_than_the_leader_or_hidden_from_here_is_a_stranger() {
    let old = || {
        Table::from_entries([
            entry(900_099, 1, 900_099, 9),
            entry(900_100, 1, 900_100, 10),
        ])
    };
    let mut sweep = Sweep::new(grouped(900_100));
    let (orders, _) = sweep.pass(&seen(old(), &[900_099, 900_100], false), &mut |_| false);
    assert_eq!(pids(&orders, OrderKind::Freeze), [900_100]);
    assert_eq!(by_group(&orders), []);

    let mut hidden = seen(with_orphan(), &BOTH, false);
    let inside = Inside {
        hidden: 1,
        ..hidden.inside(&Group::at("/g/wg-1")).unwrap().clone()
    };
    hidden.insert_inside(&Group::at("/g/wg-1"), inside);
    let mut sweep = Sweep::new(grouped(900_100));
    let (orders, _) = sweep.pass(&hidden, &mut |_| false);
    assert_eq!(pids(&orders, OrderKind::Freeze).len(), 2);
    assert_eq!(by_group(&orders), []);
}

#[test]
fn an_empty_group_proves_nothing_before_the_leader_was_seen_in_it() {
    let bare = || Table::from_entries([entry(1, 0, 1, 1)]);
    for (has_leader, first) in [(true, Next::Done), (false, Next::Again)] {
        let mut sweep = Sweep::new(Target {
            marker: Some(Marker {
                name: "M".into(),
                prefix: "x/".into(),
            }),
            ..grouped(900_100)
        });
        let mut table = Table::from_entries([Entry {
            environment: Environment::Hidden,
            ..entry(900_109, 1, 900_109, 20)
        }]);
        let inside = Inside {
            has_leader,
            ..Inside::default()
        };
        table.insert_inside(&Group::at("/g/wg-1"), inside);
        assert_eq!(sweep.pass(&table, &mut |_| false).1, first);
        assert_eq!(sweep.report(&table).best_effort(), !has_leader);
    }
    // One that cannot be looked at is no proof either.
    let mut sweep = Sweep::new(grouped(900_100));
    assert_eq!(sweep.pass(&bare(), &mut |_| false).1, Next::Again);
}

#[test]
fn a_group_that_a_former_sweep_left_frozen_goes_on_if_somebody_in_it_is_exempt() {
    let mut sweep = Sweep::new(grouped(900_100));
    let table = seen(with_orphan(), &BOTH, true);
    let (orders, _) = sweep.pass(&table, &mut |pid| pid == 900_101);
    assert_eq!(pids(&orders, OrderKind::Freeze), [900_100]);
    assert!(sweep.take_thaw());
    // If nobody is, it can be ended as it stands.
    let mut sweep = Sweep::new(grouped(900_100));
    let (orders, _) = sweep.pass(&seen(with_orphan(), &BOTH, true), &mut |_| false);
    assert_eq!(pids(&orders, OrderKind::Kill).len(), 2);
}
