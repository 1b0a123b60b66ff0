//! The table of causes, from the endings of real processes.

use std::fs;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use crate::common::{Shell, check, never_started, run, seen};
use exit_classifier::{Cause, Counts, Ending, Observation, RuleSet, errno};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};

#[test]
fn every_code_of_a_handler_has_the_verdict_of_the_table() {
    let rules = RuleSet::handler();
    for code in 0..=255 {
        let (cause, counts, rule) = match code {
            0 => (Cause::CleanExit, Counts::CleanRestart, "clean_exit"),
            75 => (Cause::LockHeld, Counts::Contention, "lock_held"),
            2 | 64 | 77 | 78 => (Cause::Config, Counts::Permanent, "config"),
            69 => (Cause::Unavailable, Counts::Dependency, "unavailable"),
            12 | 90 => (Cause::MemoryDrain, Counts::Memory, "memory_drain"),
            91 => (Cause::Idle, Counts::NothingNoRespawn, "idle"),
            92 => (Cause::Released, Counts::Nothing, "released"),
            1 => (Cause::RuntimeError, Counts::Crash, "runtime_error"),
            // 70 and 71, 126 and 127 and 128+n from a program that is no shell, and all others.
            _ => (Cause::RuntimeError, Counts::Crash, "unknown_ending"),
        };
        let ending = run(&format!("exit {code}"));
        assert_eq!(ending, Ending::Code(code));
        check(&rules, &seen(ending), cause, counts, rule);
    }
}

#[test]
fn every_code_of_an_agent_has_the_verdict_of_the_table() {
    let rules = RuleSet::agent();
    for code in 0..=255 {
        let (cause, counts, rule) = match code {
            0 => (Cause::CleanExit, Counts::TurnDone, "turn_done"),
            78 => (Cause::Config, Counts::Permanent, "agent_config"),
            69 => (Cause::Unavailable, Counts::Dependency, "agent_unavailable"),
            // The codes of our handlers mean nothing from an agent: 75, 90, 91 and 92 among them.
            _ => (Cause::RuntimeError, Counts::TurnFailed, "turn_failed"),
        };
        check(
            &rules,
            &seen(run(&format!("exit {code}"))),
            cause,
            counts,
            rule,
        );
    }
}

#[test]
fn no_code_but_zero_of_any_other_command_has_a_meaning() {
    let rules = RuleSet::command();
    for code in 0..=255 {
        let (cause, counts, rule) = match code {
            0 => (Cause::CleanExit, Counts::CleanRestart, "clean_exit"),
            1 => (Cause::RuntimeError, Counts::Crash, "runtime_error"),
            _ => (Cause::RuntimeError, Counts::Crash, "unknown_ending"),
        };
        check(&rules, &seen(Ending::Code(code)), cause, counts, rule);
    }
}

/// Every signal that ends a process by default on Linux (`signal(7)`), SIGKILL among them, with its real-time ones.
#[cfg(target_os = "linux")]
fn terminating_signals() -> Vec<i32> {
    (1..=16)
        .chain(24..=27)
        .chain(29..=31)
        .chain(34..=64)
        .collect()
}

#[cfg(target_os = "linux")]
#[test]
fn every_signal_that_ends_a_process_has_the_verdict_of_the_table() {
    for number in terminating_signals() {
        // If the signal did not end the shell, it would leave with 99.
        let ending = run(&format!("ulimit -c 0; kill -{number} $$; exit 99"));
        let Ending::Signal {
            number: died_of, ..
        } = ending
        else {
            panic!("signal {number} gave {ending}");
        };
        assert_eq!(died_of, number);
        let (cause, counts, rule) = match number {
            9 => (Cause::Killed, Counts::Crash, "killed"),
            1 | 2 | 15 => (Cause::Killed, Counts::ExternalStop, "external_stop"),
            4 | 6 | 7 | 8 | 11 | 31 => (Cause::Aborted, Counts::Crash, "aborted"),
            _ => (Cause::RuntimeError, Counts::Crash, "unknown_ending"),
        };
        check(&RuleSet::handler(), &seen(ending), cause, counts, rule);
        check(&RuleSet::command(), &seen(ending), cause, counts, rule);
        let (cause, rule) = match number {
            1 | 2 | 9 | 15 => (Cause::Killed, "turn_killed"),
            4 | 6 | 7 | 8 | 11 | 31 => (Cause::Aborted, "turn_aborted"),
            _ => (Cause::RuntimeError, "turn_failed"),
        };
        check(
            &RuleSet::agent(),
            &seen(ending),
            cause,
            Counts::TurnFailed,
            rule,
        );
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_shell_that_reports_a_signal_with_its_code_is_believed_only_if_it_is_known_as_one() {
    for number in (1..=16).chain(24..=27).chain(29..=31) {
        // The inner shell dies of the signal, the outer one lives on and reports it.
        let ending = run(&format!("ulimit -c 0; sh -c 'kill -{number} $$'; exit $?"));
        assert_eq!(ending, Ending::Code(128 + number), "signal {number}");

        check(
            &RuleSet::handler(),
            &seen(ending),
            Cause::RuntimeError,
            Counts::Crash,
            "unknown_ending",
        );
        let plain = RuleSet::handler().classify(&seen(ending));
        assert_eq!(plain.fact("decoded"), None);

        let told = Observation {
            wrapper: true,
            ..seen(ending)
        };
        let died_of = Ending::Signal {
            number,
            core: false,
        };
        for rules in [RuleSet::handler(), RuleSet::agent(), RuleSet::command()] {
            let (told, died) = (rules.classify(&told), rules.classify(&seen(died_of)));
            assert_eq!(
                (told.cause, told.counts, &told.rule),
                (died.cause, died.counts, &died.rule),
                "signal {number}"
            );
            let name = exit_classifier::signal::name(number).unwrap();
            assert_eq!(told.fact("decoded"), Some(name));
            assert!(
                told.sentence()
                    .contains(&format!("(a shell's word for {name})")),
                "{told}"
            );
        }
    }
}

#[test]
fn a_shell_that_cannot_find_or_run_its_program_says_so_with_127_and_126() {
    let missing = run("/nonexistent/program; exit $?");
    assert_eq!(missing, Ending::Code(127));
    let forbidden = run("/dev/null; exit $?");
    assert_eq!(forbidden, Ending::Code(126));
    for ending in [missing, forbidden] {
        for rules in [RuleSet::handler(), RuleSet::agent(), RuleSet::command()] {
            check(
                &rules,
                &Observation {
                    wrapper: true,
                    ..seen(ending)
                },
                Cause::Config,
                Counts::Permanent,
                "shell_cannot_run",
            );
        }
        check(
            &RuleSet::handler(),
            &seen(ending),
            Cause::RuntimeError,
            Counts::Crash,
            "unknown_ending",
        );
    }
}

#[test]
fn the_core_flag_is_what_the_kernel_says() {
    let dir = tempfile::tempdir().unwrap();
    let ending = |limit: &str| {
        let script = format!("ulimit -c {limit} || exit 98; kill -SEGV $$; exit 99");
        Shell::start_in(&script, dir.path()).end()
    };
    let dumped = ending("unlimited");
    if dumped == Ending::Code(98) {
        // A hard limit of zero: nobody here may dump core, so there is no flag to see.
        return;
    }
    let file_there = fs::read_dir(dir.path()).unwrap().next().is_some();
    if file_there {
        assert_eq!(
            dumped,
            Ending::Signal {
                number: 11,
                core: true
            }
        );
        let verdict = RuleSet::handler().classify(&seen(dumped));
        assert_eq!(verdict.fact("core_dumped"), Some("true"));
        assert_eq!(verdict.fact("ending"), Some("SIGSEGV (core dumped)"));
        assert_eq!(
            verdict.sentence(),
            "died of SIGSEGV (core dumped) after 5.0 s: that is the signal of a fault (rule aborted)"
        );
    }
    assert!(
        matches!(dumped, Ending::Signal { number: 11, .. }),
        "{dumped}"
    );
}

/// The error with which this program really fails to start.
fn fails_to_start(command: &mut Command) -> Ending {
    let error = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap_err();
    Ending::never_started(&error)
}

#[test]
fn a_program_that_cannot_be_started_as_configured_is_permanent_for_everybody() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str, mode: u32| {
        let path = dir.path().join(name);
        let text_of = dir.path().join(format!("{name}.text"));
        fs::write(&text_of, text).unwrap();
        // What is executed is written by another process: a descriptor that is open for writing here could be inherited by another
        // test's child, and the error would be ETXTBSY.
        let copied = Command::new("cp").arg(text_of).arg(&path).status();
        assert!(copied.unwrap().success());
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    };
    let missing = dir.path().join("missing");
    let plain = file("plain", "not a program", 0o644);
    let garbage = file("garbage", "\x00\x01not a program either", 0o755);
    let orphan = file("orphan", "#!/nonexistent/interpreter\n", 0o755);
    let whole = file("whole", "#!/bin/sh\n", 0o755);
    for (ending, errno) in [
        (fails_to_start(&mut Command::new(missing)), errno::ENOENT),
        (fails_to_start(&mut Command::new(orphan)), errno::ENOENT),
        (
            fails_to_start(Command::new(whole).current_dir("/nonexistent")),
            errno::ENOENT,
        ),
        (fails_to_start(&mut Command::new(plain)), errno::EACCES),
        (fails_to_start(&mut Command::new(dir.path())), errno::EACCES),
        (fails_to_start(&mut Command::new(garbage)), errno::ENOEXEC),
    ] {
        assert_eq!(ending, never_started(errno));
        for rules in [RuleSet::handler(), RuleSet::agent(), RuleSet::command()] {
            check(
                &rules,
                &seen(ending),
                Cause::NotStarted,
                Counts::Permanent,
                "not_started_permanent",
            );
            let told = errno.to_string();
            assert_eq!(
                rules.classify(&seen(ending)).fact("errno"),
                Some(told.as_str())
            );
        }
    }
}

#[test]
fn a_system_without_room_is_a_crash_for_everybody() {
    // That EMFILE really looks like this is shown in `no_room.rs`, where it disturbs no other test.
    for errno in [errno::EAGAIN, errno::ENOMEM, errno::EMFILE] {
        let ending = Ending::never_started(&io::Error::from_raw_os_error(errno));
        for rules in [RuleSet::handler(), RuleSet::agent(), RuleSet::command()] {
            check(
                &rules,
                &seen(ending),
                Cause::NotStarted,
                Counts::Crash,
                "not_started_transient",
            );
        }
    }
}

#[test]
fn a_failed_start_that_no_rule_knows_is_a_crash() {
    // More than Linux takes in one argument and macOS in all of them, and too little to show in the memory tests next door.
    let too_long = fails_to_start(Command::new("/bin/true").arg("x".repeat(2 << 20)));
    assert_ne!(too_long, never_started(0));
    let nameless = Ending::never_started(&io::Error::other("no number"));
    assert_eq!(nameless, never_started(0));
    for ending in [too_long, nameless, never_started(-1), never_started(9_999)] {
        for rules in [RuleSet::handler(), RuleSet::agent(), RuleSet::command()] {
            check(
                &rules,
                &seen(ending),
                Cause::NotStarted,
                Counts::Crash,
                "not_started_unknown",
            );
        }
    }
}

#[test]
fn a_process_that_is_not_ours_to_wait_for_is_lost() {
    // The shell starts another one, names it, and ends: what is left is nobody's child here.
    let mut shell = Shell::start("sh -c 'cat <&3; exit 7' 3<&0 & echo $!");
    let mut told = BufReader::new(shell.child().stdout.take().unwrap());
    let mut line = String::new();
    told.read_line(&mut line).unwrap();
    let orphan = Pid::from_raw(line.trim().parse().unwrap()).unwrap();
    let waited = waitid(WaitId::Pid(orphan), WaitIdOptions::EXITED);
    assert_eq!(waited.err(), Some(rustix::io::Errno::CHILD));
    // It ends when its input does, and holds our end of its output open until then.
    drop(shell.close());
    told.read_to_string(&mut line).unwrap();

    let ending = Ending::Lost;
    for (rules, counts, rule) in [
        (RuleSet::handler(), Counts::Crash, "lost"),
        (RuleSet::command(), Counts::Crash, "lost"),
        (RuleSet::agent(), Counts::TurnFailed, "turn_lost"),
    ] {
        check(&rules, &seen(ending), Cause::Lost, counts, rule);
    }
}

#[test]
fn a_process_that_is_only_stopped_has_not_ended() {
    let mut shell = Shell::start("kill -STOP $$; exit 3");
    let pid = Pid::from_raw(i32::try_from(shell.pid()).unwrap()).unwrap();
    let status = waitid(WaitId::Pid(pid), WaitIdOptions::STOPPED)
        .unwrap()
        .unwrap();
    let number = status.stopping_signal().unwrap();
    assert_eq!(Ending::from_wait(status.raw_code(), number), Ending::Lost);
    kill_process(pid, Signal::CONT).unwrap();
    assert_eq!(Ending::from(shell.child().wait().unwrap()), Ending::Code(3));
}

#[test]
fn a_raw_wait_status_reads_like_the_status_it_came_from() {
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;
    for raw in 0..=0xffff {
        let status = ExitStatus::from_raw(raw);
        assert_eq!(
            Ending::from_raw_status(raw),
            Ending::from(status),
            "{raw:#06x}"
        );
    }
}
