//! `wg run` with commands that do not want to go, or go at the wrong moment: no survivor, no hang, no wrong reason.

use std::fs;
use std::io;
use std::path::Path;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::frame::{Attack, HUNG, pause, text_of};

/// What a command does before it says that it is up. `@` is a number of seconds that only this round sleeps for.
const TRICKS: [(&str, &str); 10] = [
    ("nothing", ""),
    (
        "fifty forks",
        "i=0; while [ $i -lt 50 ]; do sleep @ & i=$((i+1)); done",
    ),
    ("a session of its own", "setsid sh -c 'sleep @ & sleep @' &"),
    ("a double fork", "(setsid sh -c 'sleep @ & sleep @' &)"),
    ("deaf", "trap '' TERM INT HUP; sleep @ &"),
    (
        "a scrubbed environment",
        "(env -i setsid sh -c 'sleep @ & sleep @' >/dev/null 2>&1 </dev/null &)",
    ),
    ("output held", "sleep @ & setsid sleep @ &"),
    (
        "a parent that is killed",
        "sh -c 'sleep @ & setsid sleep @ & kill -9 $$'",
    ),
    (
        "a subreaper that is killed",
        "PATH=\"$PWD:$PATH\" wg run -- sh -c '(setsid sleep @ &); : >sub; sleep @' & S=$!
         while [ ! -e sub ]; do sleep 0.01; done; kill -9 $S",
    ),
    ("a stopped child", "sleep @ & kill -STOP $!"),
];

/// How the round ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The command leaves with this code.
    Leaves(i32),
    /// The command is killed by somebody.
    Killed,
    /// `wg run` is told to end, and told again.
    Told(Signal),
    /// `wg run` is told to end in the moment in which the command leaves.
    Both,
}

pub(crate) fn attack(attack: &mut Attack) -> io::Result<()> {
    while attack.goes_on() {
        cannot_start(attack)?;
        for _ in 0..8 {
            round(attack)?;
        }
    }
    Ok(())
}

fn round(attack: &mut Attack) -> io::Result<()> {
    let folder = attack.folder("run")?;
    let word = format!("600.{}{}", std::process::id(), attack.dice.below(1_000_000));
    let (trick, script) = attack.one_of(&TRICKS);
    let (other, also) = attack.one_of(&TRICKS);
    let end = attack.one_of(&[
        End::Leaves(0),
        End::Leaves(7),
        End::Killed,
        End::Told(Signal::TERM),
        End::Told(Signal::INT),
        End::Both,
    ]);
    let last = match end {
        End::Leaves(code) => format!("exit {code}"),
        End::Killed => "kill -9 $$".to_owned(),
        End::Told(_) => "while :; do sleep @; done".to_owned(),
        End::Both => "exit 7".to_owned(),
    };
    let script = format!("{script}\n{also}\n: >up\n{last}\n").replace('@', &word);
    fs::write(folder.join("script"), script)?;
    std::os::unix::fs::symlink(std::env::current_exe()?, folder.join("wg"))?;
    let what = format!("`wg run` with {trick}, {other}, {end:?}");
    attack.count(trick);

    let mut wg = attack.wg(&[
        "run",
        "--events",
        "--restart",
        "never",
        "--",
        "sh",
        "script",
    ]);
    let mut events = tempfile::tempfile()?;
    wg.current_dir(&folder).stderr(events.try_clone()?);
    let child = wg.spawn()?;
    let pid = child.id();
    if let End::Told(_) | End::Both = end {
        if !comes_up(&folder) {
            attack.found(format!("{what} did not come up"));
        }
        let signal = if let End::Told(signal) = end {
            signal
        } else {
            Signal::TERM
        };
        if end == End::Both {
            pause(Duration::from_micros(attack.dice.below(3_000)));
        }
        attack.signal(pid, signal);
        pause(Duration::from_millis(attack.dice.below(20)));
        attack.signal(pid, signal);
    }
    let status = attack.wait(child, &what)?;
    let told = text_of(&mut events)?;
    check(attack, &what, end, status, &told);
    for left in sleepers(&word) {
        attack.found(format!("{what} left {left} behind in {}", folder.display()));
    }
    Ok(())
}

fn check(attack: &mut Attack, what: &str, end: End, status: Option<ExitStatus>, told: &str) {
    let code = status.and_then(|status| status.code());
    let (codes, rules): (&[i32], &[&str]) = match end {
        End::Leaves(0) => (&[0], &["clean_exit"]),
        End::Leaves(_) => (&[7], &["unknown_ending", "runtime_error"]),
        End::Killed => (&[137], &["killed"]),
        // A shell leaves by SIGINT only with what it waits for; SIGTERM comes next.
        End::Told(Signal::INT) => (&[130, 137, 143], &["stop_asked"]),
        End::Told(_) => (&[143, 137], &["stop_asked"]),
        // Whichever was first.
        End::Both => (
            &[7, 143, 137],
            &["stop_asked", "unknown_ending", "runtime_error"],
        ),
    };
    if !code.is_some_and(|code| codes.contains(&code)) {
        attack.found(format!("{what} left with {status:?}: {told}"));
    }
    let rule = told
        .rsplit("\"rule\":\"")
        .next()
        .and_then(|rest| rest.split('"').next());
    if !rule.is_some_and(|rule| rules.contains(&rule)) {
        attack.found(format!("{what} was judged by {rule:?}: {told}"));
    }
    if told.matches("\"event\":\"spawned\"").count() != 1 {
        attack.found(format!("{what} was not started once: {told}"));
    }
    if told.contains("panicked at") {
        attack.found(format!("{what} panicked: {told}"));
    }
}

/// Programs that cannot be started, each with its code and its name in the reason.
fn cannot_start(attack: &mut Attack) -> io::Result<()> {
    let folder = attack.folder("bad")?;
    let (plain, text) = (folder.join("plain"), folder.join("text"));
    fs::write(&plain, "")?;
    fs::write(&text, "no program")?;
    fs::set_permissions(&text, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let name = |path: &Path| path.display().to_string();
    for (program, code) in [
        ("/nowhere/at/all".to_owned(), 127),
        (name(&folder), 126),
        (name(&plain), 126),
        (name(&text), 126),
        (format!("{}/x", name(&plain)), 126),
    ] {
        let done = attack.run(&["run", "--", &program])?;
        if done.code != Some(code) || !done.stderr.contains(&program) {
            attack.found(format!("`{program}` ended with {done:?}"));
        }
    }
    Ok(())
}

fn comes_up(folder: &Path) -> bool {
    let until = Instant::now() + HUNG;
    while !folder.join("up").exists() {
        if Instant::now() > until {
            return false;
        }
        pause(Duration::from_millis(1));
    }
    true
}

/// Every process that sleeps for this time, whatever its environment says.
fn sleepers(word: &str) -> Vec<String> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let line = fs::read(entry.path().join("cmdline")).ok()?;
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            line.starts_with("sleep")
                .then_some(line)
                .filter(|line| line.contains(word))
                .map(|line| format!("{} ({line})", entry.file_name().display()))
        })
        .collect()
}
