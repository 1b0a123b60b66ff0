//! Many that want one directory, and somebody who kills and stops them and deletes and replaces the lock's files.

use std::fs::{self, File};
use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::Child;
use std::time::{Duration, Instant};

use rustix::process::{Signal, WaitId, WaitIdOptions};

use super::inside;
use crate::frame::{Attack, pause};

/// As many want the directory at once.
const WANTING: usize = 5;
/// Faults of one round.
const FAULTS: u32 = 60;
/// Nobody inside for so long, though nobody is stopped, is a stuck lock.
const STUCK: Duration = Duration::from_secs(30);
/// How long the last ones may take to leave by themselves.
const CALM: Duration = Duration::from_secs(30);

/// One that wants the directory: `wg lock run` and its command, in a process group of their own.
#[derive(Debug)]
struct Wanting {
    wrapper: Child,
    /// Whether it was signalled, so that its code says nothing.
    hit: bool,
    stopped_until: Option<Instant>,
}

/// Which of the lock's files are deleted and replaced in a round. Both at once is the documented loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Aim {
    Nothing,
    Record,
    Guard,
}

/// One round in a directory of its own.
pub(super) fn round(attack: &mut Attack) -> io::Result<()> {
    let folder = attack.folder("storm")?;
    let dir = folder.join("d");
    fs::create_dir(&dir)?;
    let aim = attack.one_of(&[Aim::Nothing, Aim::Record, Aim::Guard]);
    if aim == Aim::Guard {
        fs::write(folder.join(inside::UNGUARDED), "")?;
    }
    let mut all: Vec<Wanting> = Vec::new();
    let (mut seen, mut since) = (0, Instant::now());
    let mut faults = 0;
    while faults < FAULTS && attack.goes_on() {
        while all.len() < WANTING {
            all.push(start(attack, &folder, &dir)?);
        }
        pause(Duration::from_micros(attack.dice.below(20_000)));
        go_on(attack, &mut all);
        reap(attack, &mut all)?;
        let entries = entries(&folder);
        if entries != seen || all.iter().any(|it| it.stopped_until.is_some()) {
            (seen, since) = (entries, Instant::now());
        } else if since.elapsed() > STUCK {
            attack.found(format!("nobody came in for {} s", STUCK.as_secs()));
            break;
        }
        // A round starts when the first one is in: before that there is nothing to hit, nor when all have just left.
        if entries > 0 && !all.is_empty() {
            faults += 1;
            fault(attack, &folder, &mut all, aim);
        }
    }
    calm(attack, &mut all)?;
    attack.add("entries", entries(&folder));
    audit(attack, &folder, &dir)
}

fn start(attack: &mut Attack, folder: &Path, dir: &Path) -> io::Result<Wanting> {
    let own = std::env::current_exe()?;
    let wait = attack.one_of(&["20", "0.01", "1"]);
    let mut wg = attack.wg::<&str>(&["lock", "run", "--wait", wait, "--dir"]);
    wg.arg(dir).arg("--").arg(own).arg("inside").arg(folder);
    attack.count("started");
    Ok(Wanting {
        wrapper: wg.process_group(0).spawn()?,
        hit: false,
        stopped_until: None,
    })
}

fn fault(attack: &mut Attack, folder: &Path, all: &mut [Wanting], aim: Aim) {
    // Most of the time whoever has the directory: to hit those who wait is cheap to bear.
    let inside = inside_now(folder).and_then(parent);
    let holder = all.iter().position(|it| Some(it.wrapper.id()) == inside);
    let anybody = usize::try_from(attack.dice.below(all.len() as u64)).unwrap_or(0);
    let at = match holder {
        Some(holder) if attack.dice.below(4) > 0 => holder,
        Some(_) | None => anybody,
    };
    let wanting = &mut all[at];
    match attack.dice.below(6) {
        // Without its guard a command is nobody's when its wrapper is killed: see the limitations of session-lock.
        0 if aim != Aim::Guard => {
            attack.count("wrappers killed");
            wanting.hit = true;
            attack.signal(wanting.wrapper.id(), Signal::KILL);
        }
        1 => {
            if let Some(pid) = inside_now(folder)
                && attack.signal(pid, Signal::KILL)
            {
                attack.count("commands killed");
                // Whose command it was is not known.
                for wanting in all {
                    wanting.hit = true;
                }
            }
        }
        2 => {
            attack.count("groups killed");
            wanting.hit = true;
            signal_group(wanting, Signal::KILL);
        }
        3 if wanting.stopped_until.is_none() => {
            attack.count("groups stopped");
            let span = Duration::from_millis(attack.dice.below(200));
            wanting.stopped_until = Some(Instant::now() + span);
            wanting.hit = true;
            signal_group(wanting, Signal::STOP);
        }
        4 => {
            let signal = attack.one_of(&[Signal::TERM, Signal::INT, Signal::HUP, Signal::USR1]);
            attack.count("signals passed on");
            wanting.hit = true;
            attack.signal(wanting.wrapper.id(), signal);
        }
        _ => spoil(attack, &folder.join("d"), aim),
    }
}

/// Deletes or replaces the file that is aimed at.
fn spoil(attack: &mut Attack, dir: &Path, aim: Aim) {
    let name = match aim {
        Aim::Nothing => return,
        Aim::Record => ".handler.pid",
        Aim::Guard => ".handler.guard",
    };
    let Some(entry) = super::entry_of(attack.root(), dir) else {
        return;
    };
    let file = entry.join(name);
    if attack.dice.below(2) == 0 {
        if fs::remove_file(file).is_ok() {
            attack.count("files deleted");
        }
    } else {
        let text: &[u8] = match aim {
            // What is no record at all blocks a directory, and says so: see `planted`.
            Aim::Record => b"4194304\n2026-01-01T00:00:00Z\nother-tool\n",
            Aim::Nothing | Aim::Guard => b"noise\n",
        };
        let beside = entry.join("beside");
        if fs::write(&beside, text).is_ok() && fs::rename(&beside, file).is_ok() {
            attack.count("files replaced");
        }
    }
}

fn inside_now(folder: &Path) -> Option<u32> {
    let arena = File::open(folder.join(inside::ARENA)).ok()?;
    inside::who(&arena).ok().filter(|pid| *pid > 1)
}

/// The process that started it.
fn parent(pid: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("PPid:"))?;
    line.trim().parse().ok()
}

fn entries(folder: &Path) -> u64 {
    fs::metadata(folder.join(inside::ENTRIES)).map_or(0, |it| it.len())
}

/// The wrapper is not waited for yet, so the group is still its own.
fn signal_group(wanting: &Wanting, signal: Signal) {
    let group = i32::try_from(wanting.wrapper.id()).ok();
    if let Some(group) = group.and_then(rustix::process::Pid::from_raw) {
        match rustix::process::kill_process_group(group, signal) {
            // It may have ended, and left nobody.
            Ok(()) | Err(_) => {}
        }
    }
}

fn go_on(attack: &mut Attack, all: &mut [Wanting]) {
    let now = Instant::now();
    for wanting in all {
        if wanting.stopped_until.is_some_and(|until| until <= now) {
            wanting.stopped_until = None;
            attack.count("groups continued");
            signal_group(wanting, Signal::CONT);
        }
    }
}

fn reap(attack: &mut Attack, all: &mut Vec<Wanting>) -> io::Result<()> {
    let mut ended = Vec::new();
    for wanting in all.iter_mut() {
        // Until it is waited for, its group is its own: a command that was stopped with a wrapper that is gone would have the
        // directory for ever, and rightly so.
        if wanting.stopped_until.is_some() && has_ended(&wanting.wrapper)? {
            wanting.stopped_until = None;
            signal_group(wanting, Signal::CONT);
        }
        if wanting.stopped_until.is_none()
            && let Some(status) = wanting.wrapper.try_wait()?
        {
            ended.push(wanting.wrapper.id());
            let code = status.code();
            // 0: it was inside. 124: another was, for all the time.
            if !wanting.hit && !matches!(code, Some(0 | 124)) {
                attack.found(format!(
                    "`wg lock run` left with {code:?}, signal {:?}, though nobody touched it",
                    status.signal()
                ));
            }
            if code == Some(124) {
                attack.count("waited in vain");
            }
        }
    }
    all.retain(|wanting| !ended.contains(&wanting.wrapper.id()));
    Ok(())
}

/// Whether it has ended, without waiting for it.
fn has_ended(wrapper: &Child) -> io::Result<bool> {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    let pid = rustix::process::Pid::from_child(wrapper);
    Ok(rustix::process::waitid(WaitId::Pid(pid), options)?.is_some())
}

/// Lets everybody who is left come in and leave.
fn calm(attack: &mut Attack, all: &mut Vec<Wanting>) -> io::Result<()> {
    for wanting in all.iter_mut() {
        wanting.stopped_until = None;
        signal_group(wanting, Signal::CONT);
    }
    for wanting in all.drain(..) {
        attack.wait(wanting.wrapper, "the last `wg lock run`")?;
    }
    // Commands whose wrapper was killed.
    let until = Instant::now() + CALM;
    while !attack.processes().is_empty() && Instant::now() < until {
        pause(Duration::from_millis(5));
    }
    Ok(())
}

fn audit(attack: &mut Attack, folder: &Path, dir: &Path) -> io::Result<()> {
    let broken = fs::read_to_string(folder.join(inside::BROKEN)).unwrap_or_default();
    for line in broken.lines() {
        attack.found(line);
    }
    let dir = dir.to_string_lossy().into_owned();
    let done = attack.run(&["lock", "run", "--dir", &dir, "--", "true"])?;
    if done.code != Some(0) {
        attack.found(format!("the lock is stuck: {}", done.stderr));
    }
    let list = attack.run(&["lock", "list", "--json"])?;
    let list: serde_json::Value = serde_json::from_str(&list.stdout).unwrap_or_default();
    if list["locks"]
        .as_array()
        .is_none_or(|locks| !locks.is_empty())
    {
        attack.found(format!("nobody is there, and the list says {list}"));
    }
    Ok(())
}
