//! The cases that a lock on a directory has to stand, and the tests that show each.
//!
//! They were collected from the failures of many lock files and pid files before the first line was written. A case that no
//! test can show carries its reason.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// How a case is shown.
enum Shown {
    /// By these tests.
    By(&'static [&'static str]),
    /// By no test, for this reason.
    Not(&'static str),
}

use Shown::{By, Not};

/// As many may go without a test.
const MOST_WITHOUT: usize = 8;

#[rustfmt::skip]
const CASES: [(u32, &str, Shown); 69] = [
    // Mutual exclusion.
    (1, "processes under SIGKILL and SIGSTOP, on disk and in memory", By(&["there_is_one_owner", "there_is_one_owner_while_processes_are_killed", "there_is_one_owner_while_processes_are_stopped"])),
    (2, "the record or the guard deleted all the time; both at once is told", By(&["there_is_one_owner_while_the_record_is_deleted", "there_is_one_owner_while_the_guard_is_deleted", "who_lost_both_files_is_told_who_came_instead"])),
    (3, "a peer that removes records by name", Not("how often it robs is that tool's doing; that a robbed holder is told is case 53")),
    (4, "threads of one process, through several spellings of the path", By(&["every_waiter_gets_its_turn", "two_spellings_of_a_path_are_one_directory"])),
    (5, "generations rise over crashes", By(&["generations_rise", "there_is_one_owner_while_processes_are_killed"])),
    (6, "waiters do not starve", By(&["every_waiter_gets_its_turn"])),
    // Records planted by hand.
    (7, "three lines of a live process", By(&["another_tools_live_process_is_respected_and_named"])),
    (8, "a dead process", By(&["a_dead_process_is_succeeded"])),
    (9, "a zombie", By(&["a_zombie_is_dead"])),
    (10, "a process whose first thread has ended", By(&["a_process_whose_first_thread_ended_is_alive"])),
    (11, "our own number", By(&["a_record_with_our_own_number_is_adopted"])),
    (12, "our parent's number", By(&["the_parent_is_another_live_process"])),
    (13, "0, -1, too large, signs, spaces, other digits", By(&["what_is_no_process_number_is_never_asked_about"])),
    (14, "an empty file, young and old", By(&["every_beginning_of_a_record_is_respected_while_it_is_young", "a_beginning_without_a_kind_is_taken_over_when_it_is_old"])),
    (15, "every beginning of a record", By(&["every_beginning_of_a_record_is_respected_while_it_is_young"])),
    (16, "carriage returns", By(&["garbage_is_taken_over_at_once"])),
    (17, "no last line feed", By(&["a_record_without_its_last_line_feed_counts_when_it_is_old"])),
    (18, "an unknown kind", By(&["an_unknown_kind_is_kept_verbatim"])),
    (19, "a file of 10 MB", By(&["garbage_is_taken_over_at_once"])),
    (20, "no UTF-8", By(&["garbage_is_taken_over_at_once"])),
    (21, "further lines", By(&["further_lines_do_not_make_a_live_record_garbage"])),
    (22, "a time stamp in the future", By(&["a_time_stamp_in_the_future_does_not_make_a_beginning_young_for_ever"])),
    // What is no file.
    (23, "a link, also one that leads nowhere", By(&["links_pipes_sockets_and_directories_are_refused_and_never_followed"])),
    (24, "a pipe", By(&["links_pipes_sockets_and_directories_are_refused_and_never_followed"])),
    (25, "a directory", By(&["links_pipes_sockets_and_directories_are_refused_and_never_followed"])),
    (26, "a socket", By(&["links_pipes_sockets_and_directories_are_refused_and_never_followed"])),
    (27, "a record of another user", By(&["a_record_of_another_user_is_judged_like_any_other"])),
    (28, "the guard is a link", By(&["links_pipes_sockets_and_directories_are_refused_and_never_followed"])),
    // Identity.
    (29, "the number was given to another process", By(&["a_number_given_to_another_process_does_not_keep_the_directory", "another_start_time_is_another_process"])),
    (30, "another boot", By(&["a_holder_of_an_earlier_boot_is_gone"])),
    (31, "another pid namespace", By(&["a_holder_in_another_pid_namespace_is_judged_by_its_guard"])),
    (32, "a time namespace", By(&["a_time_namespace_does_not_shift_identities"])),
    (33, "a program name like `a) R 1 (b`", By(&["a_program_name_with_parentheses_does_not_confuse_the_start_time"])),
    (34, "no /proc", By(&["the_lock_works_without_proc"])),
    (35, "no pidfd_open", By(&["the_lock_works_where_the_kernel_lacks_what_it_likes_best"])),
    (36, "a process that may not be signalled", By(&["a_process_that_may_not_be_signalled_is_alive"])),
    // Descriptors and forks.
    (37, "fork, and a drop in the child", By(&["a_forked_child_cannot_release_its_parents_lock"])),
    (38, "fork, and the end of the child", By(&["a_forked_child_cannot_release_its_parents_lock"])),
    (39, "a child outlives its killed holder", By(&["the_work_of_a_killed_holder_keeps_the_directory"])),
    (40, "release and take while others spawn", By(&["a_lock_is_free_for_the_next_at_once_while_other_threads_spawn"])),
    (41, "the holder replaces its own program", By(&["a_program_that_replaced_itself_adopts_its_own_lock", "a_holder_that_replaced_its_program_is_respected"])),
    (42, "becoming a daemon, and binding the lock anew", Not("there is no call for that: a daemon takes the lock after its last fork")),
    (43, "no other child gets the descriptor", By(&["no_other_child_inherits_a_lent_guard"])),
    // Environment.
    (44, "no space, no inodes", By(&["a_full_file_system_is_an_error_and_leaves_no_empty_record"])),
    (45, "a directory that may not be written", By(&["a_directory_that_may_not_be_written_is_an_error"])),
    (46, "the directory removed, renamed, replaced", By(&["a_directory_that_was_replaced_is_lost"])),
    (47, "no hard links, no exchange", By(&["the_lock_works_where_the_kernel_lacks_what_it_likes_best"])),
    (48, "no flock", By(&["a_file_system_without_locks_is_an_error_and_never_a_lock"])),
    (49, "interrupted calls", By(&["an_interrupted_lock_call_is_made_again"])),
    (50, "umask 0777", By(&["no_umask_keeps_the_next_one_out"])),
    (51, "no descriptors half-way", By(&["running_out_of_descriptors_half_way_leaves_nothing_held", "a_failure_at_any_step_leaves_nothing_held"])),
    (52, "a path with any bytes", By(&["a_path_may_hold_any_bytes"])),
    // Release and takeover.
    (53, "a robbed holder leaves the robber's file", By(&["a_robbed_holder_leaves_the_robbers_record"])),
    (54, "releasing twice", Not("`release` takes the lock by value, so it does not compile")),
    (55, "a panic", By(&["a_panic_releases_the_lock"])),
    (56, "a request for an earlier holder", By(&["a_successor_does_not_obey_its_predecessors_request"])),
    (57, "a request while the lock is being taken", By(&["a_plain_request_that_comes_while_the_lock_is_taken_is_judged_by_its_time"])),
    (58, "the holder leaves in the grace", By(&["a_takeover_asks_first"])),
    (59, "the holder ignores SIGTERM", By(&["a_holder_that_ignores_being_told_is_killed"])),
    (60, "the number changes hands before the signal", By(&["signals_reach_only_whom_they_are_meant_for"])),
    (61, "two take over at once", By(&["of_two_that_take_over_one_gets_the_directory"])),
    (62, "a turnstile for whoever takes over", Not("there is none: whoever comes lets those go first who wait")),
    (63, "the time of a hand-over", Not("a test asserts no time: `cargo xtask bench lock` prints it")),
    (64, "a deadline to the millisecond", Not("a test asserts no time; that a deadline ends a wait is shown, also one that has passed")),
    (65, "a stopped holder", By(&["a_stopped_holder_is_not_robbed_whichever_file_is_deleted"])),
    (66, "the back-off of whoever finds it held", Not("the lock has none: when to try again is its user's to decide")),
    // With other tools and other versions.
    (67, "others read our record", By(&["our_record_is_what_other_tools_read_and_write"])),
    (68, "golden bytes", By(&["a_golden_record_is_read_as_ever", "a_golden_guard_is_read_and_written_as_ever"])),
    (69, "a guard of another version", By(&["a_guard_of_another_version_proves_nothing_and_keeps_its_generation"])),
];

#[test]
fn every_case_has_a_test_or_one_of_few_reasons() {
    let tests = tests();
    let mut without = 0;
    for (at, (number, case, shown)) in (1..).zip(&CASES) {
        assert_eq!(*number, at, "{case}");
        match shown {
            By(names) => {
                assert!(!names.is_empty(), "{number}: {case}");
                for name in *names {
                    assert!(tests.contains(*name), "{number}: there is no test `{name}`");
                }
            }
            Not(reason) => {
                assert!(!reason.is_empty(), "{number}: {case}");
                without += 1;
            }
        }
    }
    assert!(without <= MOST_WITHOUT, "{without} cases have no test");
}

/// The names of all tests of this crate.
fn tests() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for folder in ["src", "tests", "tests/lock"] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|it| it == "rs") {
                let text = fs::read_to_string(path).unwrap();
                let marked = text.split("#[test]\n").skip(1);
                names.extend(marked.filter_map(|rest| {
                    let (_, rest) = rest.split_once("fn ")?;
                    Some(rest.split_once('(')?.0.to_owned())
                }));
            }
        }
    }
    names
}
