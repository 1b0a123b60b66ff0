//! What a person reads, and the evidence below it.

use std::time::Duration;

use exit_classifier::{Asked, Ending, LockHolder, Observation, RuleSet, signal as signals};
use rustix::process::Signal;

use crate::common::{never_started, run, seen, signal};

#[track_caller]
fn reads(seen: &Observation<'_>, sentence: &str) {
    assert_eq!(RuleSet::handler().classify(seen).sentence(), sentence);
}

#[test]
fn every_kind_of_ending_makes_one_sentence() {
    reads(
        &Observation::new(Ending::Code(75), Duration::from_millis(31)),
        "left with code 75 after 31 ms: the session lock was held (rule lock_held)",
    );
    reads(
        &Observation::new(signal(9), Duration::from_secs(724)),
        "died of SIGKILL after 12 min: who sent that signal is not known (rule killed)",
    );
    reads(
        &Observation::new(signal(40), Duration::from_secs(1)),
        "died of signal 40 after 1.0 s: it failed (rule unknown_ending)",
    );
    reads(
        &Observation::new(Ending::Lost, Duration::from_secs(7_500)),
        "ended unseen after 2 h 5 min: how it ended cannot be known (rule lost)",
    );
    reads(
        &seen(never_started(2)),
        "never started (ENOENT: no such file or directory): the program cannot be started as configured (rule not_started_permanent)",
    );
    reads(
        &seen(never_started(0)),
        "never started: the start failed (rule not_started_unknown)",
    );
    reads(
        &seen(never_started(4_242)),
        "never started (error number 4242): the start failed (rule not_started_unknown)",
    );
    reads(
        &Observation {
            wrapper: true,
            ..seen(Ending::Code(137))
        },
        "left with code 137 (a shell's word for SIGKILL) after 5.0 s: who sent that signal is not known (rule killed)",
    );
    reads(
        &Observation {
            asked: Some(Asked::Stop),
            ..seen(signal(15))
        },
        "died of SIGTERM after 5.0 s: it was asked to stop (rule stop_asked)",
    );
}

#[test]
fn who_sent_a_signal_is_never_claimed_because_no_status_says_it() {
    // Each of these did it itself, and looks as if somebody else had.
    for script in ["kill -9 $$", "kill -TERM $$", "ulimit -c 0; kill -ABRT $$"] {
        let ending = run(script);
        for rules in [RuleSet::handler(), RuleSet::agent(), RuleSet::command()] {
            let sentence = rules.classify(&seen(ending)).sentence();
            for claim in ["somebody", "itself"] {
                assert!(!sentence.contains(claim), "{sentence}");
            }
        }
    }
}

#[test]
fn an_ending_is_shown_in_a_few_words() {
    for (ending, text) in [
        (Ending::Code(1), "exit code 1"),
        (signal(15), "SIGTERM"),
        (
            Ending::Signal {
                number: 9,
                core: true,
            },
            "SIGKILL (core dumped)",
        ),
        (signal(64), "signal 64"),
        (Ending::Lost, "status unknown"),
        (never_started(0), "never started"),
        (
            never_started(13),
            "never started (EACCES: permission denied)",
        ),
    ] {
        assert_eq!(ending.to_string(), text);
    }
}

#[test]
fn the_evidence_says_what_was_known_and_nothing_else() {
    let verdict = RuleSet::handler().classify(&seen(Ending::Code(1)));
    assert_eq!(
        verdict.evidence,
        [
            ("ending", "exit code 1".to_owned()),
            ("ran_ms", "5000".to_owned())
        ]
    );

    let everything = Observation {
        ending: Ending::Code(139),
        ran_for: Duration::from_millis(31),
        asked: Some(Asked::Release),
        lock_holder: Some(LockHolder {
            pid: 4711,
            alive: true,
            own_child: false,
        }),
        memory_drained: true,
        oom_kills: 2,
        wrapper: true,
        stderr_tail: b"first\n\n\x1b[31mfatal: gone\x1b[0m\r\n",
    };
    let verdict = RuleSet::handler().classify(&everything);
    let evidence: Vec<_> = verdict
        .evidence
        .iter()
        .map(|(key, value)| (*key, value.as_str()))
        .collect();
    assert_eq!(
        evidence,
        [
            ("ending", "exit code 139"),
            ("ran_ms", "31"),
            ("asked", "release"),
            ("holder_pid", "4711"),
            ("holder", "live_other"),
            ("memory_drained", "true"),
            ("oom_kills", "2"),
            ("wrapper", "true"),
            ("decoded", "SIGSEGV"),
            ("stderr", "first\nfatal: gone"),
        ]
    );
    assert_eq!(verdict.fact("holder_pid"), Some("4711"));
    assert_eq!(verdict.fact("nonsense"), None);

    for (alive, own_child, word) in [
        (true, true, "live_own"),
        (false, true, "dead_own"),
        (false, false, "dead_other"),
    ] {
        let lock_holder = Some(LockHolder {
            pid: 1,
            alive,
            own_child,
        });
        let verdict = RuleSet::handler().classify(&Observation {
            lock_holder,
            ..everything
        });
        assert_eq!(verdict.fact("holder"), Some(word));
    }
}

#[cfg(target_os = "linux")]
const OF_LINUX_ALONE: &[(Signal, &str)] =
    &[(Signal::STKFLT, "SIGSTKFLT"), (Signal::POWER, "SIGPWR")];
#[cfg(not(target_os = "linux"))]
const OF_LINUX_ALONE: &[(Signal, &str)] = &[];

/// The numbers in this crate are written out; here the platform's own headers are asked.
#[test]
fn names_of_signals_are_those_of_this_platform() {
    let known = [
        (Signal::HUP, "SIGHUP"),
        (Signal::INT, "SIGINT"),
        (Signal::QUIT, "SIGQUIT"),
        (Signal::ILL, "SIGILL"),
        (Signal::TRAP, "SIGTRAP"),
        (Signal::ABORT, "SIGABRT"),
        (Signal::BUS, "SIGBUS"),
        (Signal::FPE, "SIGFPE"),
        (Signal::KILL, "SIGKILL"),
        (Signal::USR1, "SIGUSR1"),
        (Signal::SEGV, "SIGSEGV"),
        (Signal::USR2, "SIGUSR2"),
        (Signal::PIPE, "SIGPIPE"),
        (Signal::ALARM, "SIGALRM"),
        (Signal::TERM, "SIGTERM"),
        (Signal::CHILD, "SIGCHLD"),
        (Signal::CONT, "SIGCONT"),
        (Signal::STOP, "SIGSTOP"),
        (Signal::TSTP, "SIGTSTP"),
        (Signal::TTIN, "SIGTTIN"),
        (Signal::TTOU, "SIGTTOU"),
        (Signal::URG, "SIGURG"),
        (Signal::XCPU, "SIGXCPU"),
        (Signal::XFSZ, "SIGXFSZ"),
        (Signal::VTALARM, "SIGVTALRM"),
        (Signal::PROF, "SIGPROF"),
        (Signal::WINCH, "SIGWINCH"),
        (Signal::IO, "SIGIO"),
        (Signal::SYS, "SIGSYS"),
    ];
    let known: Vec<_> = known.iter().chain(OF_LINUX_ALONE).collect();
    for (signal, name) in &known {
        assert_eq!(signals::name(signal.as_raw()), Some(*name));
    }
    let named = (-1..=128).filter(|n| signals::name(*n).is_some()).count();
    #[cfg(target_os = "linux")]
    assert_eq!(
        named,
        known.len(),
        "no number has a name that it should not have"
    );
    #[cfg(not(target_os = "linux"))]
    assert!(named >= known.len());
    assert_eq!(
        [
            signals::SIGHUP,
            signals::SIGINT,
            signals::SIGQUIT,
            signals::SIGABRT,
            signals::SIGKILL,
            signals::SIGTERM
        ],
        [
            Signal::HUP,
            Signal::INT,
            Signal::QUIT,
            Signal::ABORT,
            Signal::KILL,
            Signal::TERM
        ]
        .map(Signal::as_raw)
    );
}

#[test]
fn error_numbers_are_those_of_this_platform() {
    use exit_classifier::errno::{EACCES, EAGAIN, EMFILE, ENOENT, ENOEXEC, ENOMEM};
    use rustix::io::Errno;
    for (ours, theirs, name) in [
        (ENOENT, Errno::NOENT, "ENOENT"),
        (EACCES, Errno::ACCESS, "EACCES"),
        (ENOEXEC, Errno::NOEXEC, "ENOEXEC"),
        (EAGAIN, Errno::AGAIN, "EAGAIN"),
        (ENOMEM, Errno::NOMEM, "ENOMEM"),
        (EMFILE, Errno::MFILE, "EMFILE"),
        (1, Errno::PERM, "EPERM"),
        (5, Errno::IO, "EIO"),
        (7, Errno::TOOBIG, "E2BIG"),
        (20, Errno::NOTDIR, "ENOTDIR"),
        (21, Errno::ISDIR, "EISDIR"),
        (22, Errno::INVAL, "EINVAL"),
        (23, Errno::NFILE, "ENFILE"),
        (26, Errno::TXTBSY, "ETXTBSY"),
        (28, Errno::NOSPC, "ENOSPC"),
    ] {
        assert_eq!(ours, theirs.raw_os_error(), "{name}");
        let text = never_started(ours).to_string();
        assert!(
            text.starts_with(&format!("never started ({name}: ")),
            "{text}"
        );
    }
}
