//! The simulated world of chats: hundreds of seeds over the shipped core, and for each invariant a flaw that only it catches.

use std::time::Instant;

use supervisor::{Disposition, Event};
use wg_cli::chat::{Chat, Decision, Findings};
use wg_cli::names::ChatState;
use wg_cli::sim::{self, AsShipped, Census, Conduct, Disk, Fault, Invariant, Kind, Plan};

const SEEDS: u64 = 500;

#[test]
fn every_invariant_holds_after_every_event_of_500_seeds_and_everything_occurs() {
    let mut census = Census::default();
    for seed in 0..SEEDS {
        let outcome = sim::run(Plan::of(seed), &AsShipped);
        census.add(&outcome.census);
        if let Some(breach) = outcome.breaches.first() {
            let plan = Plan {
                log: true,
                ..Plan::of(seed)
            };
            let told = sim::run(plan, &AsShipped).log.join("\n");
            panic!(
                "{told}\nseed {seed}: {breach}\n{}",
                sim::replay_command(seed)
            );
        }
    }
    print!("{census}");
    for fault in Fault::ALL {
        assert!(
            census.of(Kind::Fault, fault.as_str()) > 0,
            "`{fault}` was never done"
        );
    }
    for state in ChatState::ALL {
        let reached = census.of(Kind::State, state.as_str()) > 0;
        // There is no queue of turns in the simulated world.
        assert_eq!(reached, *state != ChatState::Queued, "state `{state}`");
    }
    for event in sim::EVENTS {
        assert!(
            census.of(Kind::Event, event) > 0,
            "`{event}` never happened"
        );
    }
    for rule in RULES {
        assert!(
            census.of(Kind::Rule, rule) > 0,
            "rule `{rule}` never judged"
        );
    }
}

/// The rules for handlers that the world has a cause for.
const RULES: [&str; 15] = [
    "aborted",
    "clean_exit",
    "config",
    "external_stop",
    "idle",
    "killed",
    "lock_held",
    "lock_held_by_other",
    "lost",
    "memory_drain",
    "released",
    "runtime_error",
    "stop_asked",
    "unavailable",
    "unknown_ending",
];

#[test]
fn a_seed_tells_its_whole_run() {
    for seed in [0, 7, 499] {
        let plan = Plan {
            log: true,
            ..Plan::of(seed)
        };
        let (one, other) = (sim::run(plan, &AsShipped), sim::run(plan, &AsShipped));
        assert_eq!(one.log, other.log, "seed {seed}");
        assert_eq!(one.census, other.census, "seed {seed}");
    }
}

/// Runs seeds with a flaw until it is caught often enough; whatever is caught is this invariant alone.
#[track_caller]
fn only(invariant: Invariant, flaw: &dyn Conduct) {
    let mut caught = 0;
    for seed in 0..SEEDS {
        let breaches = sim::run(Plan::of(seed), flaw).breaches;
        for breach in &breaches {
            assert_eq!(
                breach.invariant, invariant,
                "seed {seed}, {flaw:?}: {breach}"
            );
        }
        caught += usize::from(!breaches.is_empty());
        if caught == 3 {
            return;
        }
    }
    panic!("{flaw:?} is caught in {caught} of {SEEDS} seeds only");
}

#[derive(Debug)]
struct LosesAFreshHandler;
impl Conduct for LosesAFreshHandler {
    fn finds_unlocked_handlers(&self) -> bool {
        false
    }
}

#[test]
fn a_new_daemon_that_overlooks_a_handler_without_its_lock_starts_a_second_one() {
    only(Invariant::OneHandler, &LosesAFreshHandler);
}

#[derive(Debug)]
struct IgnoresTheHolder;
impl Conduct for IgnoresTheHolder {
    fn decide(&self, chat: &mut Chat, found: Findings, retry: bool, now: Instant) -> Decision {
        chat.decide(
            Findings {
                held: false,
                ..found
            },
            retry,
            now,
        )
    }
}

#[test]
fn a_decision_that_ignores_the_lock_starts_beside_its_holder() {
    only(Invariant::HolderRespected, &IgnoresTheHolder);
}

#[derive(Debug)]
struct NoPatienceWithCrashes;
impl Conduct for NoPatienceWithCrashes {
    fn after_exit(&self, disposition: &Disposition) -> Option<Event> {
        matches!(disposition, Disposition::Crash { .. }).then_some(Event::Resume)
    }
}

#[test]
fn a_daemon_that_resumes_after_each_crash_makes_a_storm() {
    only(Invariant::AttemptsBounded, &NoPatienceWithCrashes);
}

#[derive(Debug)]
struct SaysStoppedUnwritten;
impl Conduct for SaysStoppedUnwritten {
    fn refuses_unwritten_wish(&self) -> bool {
        false
    }
}

#[test]
fn a_wish_that_was_promised_and_not_written_is_forgotten_by_the_next_daemon() {
    only(Invariant::WithdrawnStaysDown, &SaysStoppedUnwritten);
}

#[derive(Debug)]
struct WritesTheWishAndLeavesIt;
impl Conduct for WritesTheWishAndLeavesIt {
    fn ends_what_runs(&self) -> bool {
        false
    }
}

#[test]
fn a_wish_that_is_only_written_leaves_the_handler() {
    only(Invariant::WithdrawnGoesDown, &WritesTheWishAndLeavesIt);
}

#[derive(Debug)]
struct BelievesTheCursor;
impl Conduct for BelievesTheCursor {
    fn next_message(&self, disk: &Disk) -> Option<u64> {
        disk.after_cursor()
    }
}

#[test]
fn a_handler_that_believes_the_cursor_answers_twice() {
    only(Invariant::AnsweredOnce, &BelievesTheCursor);
}

#[derive(Debug)]
struct DeafToTheInbox;
impl Conduct for DeafToTheInbox {
    fn heeds_inbox(&self) -> bool {
        false
    }
}

#[test]
fn a_daemon_that_is_deaf_to_an_inbox_leaves_a_message_waiting() {
    only(Invariant::Reachable, &DeafToTheInbox);
}

#[derive(Debug)]
struct TakesItsEndForAWish;
impl Conduct for TakesItsEndForAWish {
    fn starts_what_only_its_daemon_stopped(&self) -> bool {
        false
    }
}

#[test]
fn a_daemon_that_takes_the_end_of_its_predecessor_for_a_wish_is_deaf_to_messages() {
    only(Invariant::Reachable, &TakesItsEndForAWish);
}

#[derive(Debug)]
struct StopsTheLeaderOnly;
impl Conduct for StopsTheLeaderOnly {
    fn sweeps_after_stop(&self) -> bool {
        false
    }
}

#[test]
fn a_stop_of_the_leader_alone_leaves_its_agent() {
    only(Invariant::StopLeavesNobody, &StopsTheLeaderOnly);
}

#[derive(Debug)]
struct StartsUnrecorded;
impl Conduct for StartsUnrecorded {
    fn records_before_spawn(&self) -> bool {
        false
    }
}

#[test]
fn a_start_without_a_record_is_seen_at_once() {
    only(Invariant::RecordBeforeSpawn, &StartsUnrecorded);
}

#[derive(Debug)]
struct LooksWhilePaused;
impl Conduct for LooksWhilePaused {
    fn rests_while_paused(&self) -> bool {
        false
    }
}

#[test]
fn a_paused_service_that_looks_again_after_each_answer_spins() {
    only(Invariant::Rests, &LooksWhilePaused);
}
