//! A worker that drained itself on a memory limit exited 0, ten such restarts used
//! up its crash budget, and its supervisor gave up. These are the rules that broke.

use supervisor::{Disposition, Event};

use crate::subject::{Subject, crash, memory, secs};

#[test]
fn a_hundred_clean_exits_count_as_no_crash_and_never_give_up() {
    let mut subject = Subject::started();
    for round in 0..100 {
        subject.cycles(secs(1), Disposition::Clean);
        assert_eq!(subject.crash_number(), 0, "round {round}");
    }
    assert_eq!(subject.state_name(), "running");
}

#[test]
fn code_0_neither_adds_nor_resets_so_that_the_fifth_exit_of_1_0_1_0_1_gives_up() {
    let mut subject = Subject::with(|policy| policy.crash_hard = 3);
    subject.start();
    let exits = [crash(), Disposition::Clean, crash(), Disposition::Clean];
    for exit in exits {
        subject.cycles(secs(1), exit);
    }
    assert_eq!(subject.crash_number(), 2);
    subject.ends(secs(1), crash());
    assert!(subject.is_parked());
}

#[test]
fn a_six_minute_clean_run_between_crashes_forgives_nothing_by_itself() {
    let mut subject = Subject::started();
    subject.cycles(secs(1), crash());
    subject.cycles(secs(360), Disposition::Clean);
    subject.ends(secs(1), crash());
    assert_eq!(subject.crash_number(), 2);
}

#[test]
fn ten_thousand_memory_restarts_never_count_as_a_crash() {
    let mut subject = Subject::started();
    for _ in 0..10_000 {
        assert_eq!(subject.cycles(secs(5), memory(7 << 30)), secs(30));
    }
    assert_eq!(subject.crash_number(), 0);
    subject.tell(Event::Stop);
    assert_eq!(subject.state_name(), "stopping");
}
