//! Our supervisor with everything on: a marker for each unit, every notice written
//! to a file, machines with the standard policy but without pauses.

use std::error::Error;
use std::fs::File;
use std::io::{self, Read, Write};
use std::process::{Command, Stdio};
use std::time::Duration;

use supervisor::tree::Marker;
use supervisor::{
    Disposition, Driver, Ended, Generation, Handle, Host, Machine, Notice, Policy, Prepared,
    Shutdown, StartReason, UnitId, clock,
};

use crate::watch;

struct Bench {
    child: String,
    events: File,
}

impl Host for Bench {
    fn prepare(&mut self, unit: UnitId, generation: Generation, _: StartReason) -> Prepared {
        let mut command = Command::new(&self.child);
        command
            .env(
                "BENCH_UNIT",
                format!("{}/{unit}/{generation}", std::process::id()),
            )
            .stdin(Stdio::null());
        Prepared::Go(Box::new(command))
    }

    fn judge(&mut self, _: UnitId, ended: &Ended) -> Disposition {
        Disposition::Crash {
            reason: format!("{:?}", ended.status),
        }
    }

    fn notice(&mut self, unit: UnitId, notice: &Notice) {
        let line = format!("{} {unit} {notice:?}\n", clock::now());
        if let Err(error) = self.events.write_all(line.as_bytes()) {
            eprintln!("failed to write an event: {error}");
        }
    }

    fn marker(&mut self, unit: UnitId) -> Option<Marker> {
        let prefix = format!("{}/{unit}/", std::process::id());
        Some(Marker {
            name: "BENCH_UNIT".into(),
            prefix,
        })
    }
}

/// Whether orphans come to the supervising program, as they do to `wg run` and to the daemon, or go further up.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Orphans {
    ComeHere,
    GoUp,
}

pub(crate) fn run(orphans: Orphans) -> Result<(), Box<dyn Error>> {
    if orphans == Orphans::ComeHere {
        nix::sys::prctl::set_child_subreaper(true)?;
    }
    let mut args = std::env::args().skip(1);
    let count: u64 = args.next().ok_or("a number of units is missing")?.parse()?;
    let child = args.next().ok_or("the path of the child is missing")?;
    let events = File::create(args.next().ok_or("the path of the events is missing")?)?;
    let handle = Driver::start(Bench { child, events })?;
    add(&handle, count)?;
    for unit in 0..count {
        handle.start(UnitId(unit));
    }
    // Stops when its input ends.
    io::stdin().read_to_end(&mut Vec::new())?;
    let down = handle
        .shutdown(Shutdown::StopAll)
        .wait(Duration::from_secs(60))?;
    if !down.report.survivors.is_empty() {
        return Err(format!("survivors: {:?}", down.report.survivors).into());
    }
    handle.join();
    Ok(())
}

fn add(handle: &Handle, count: u64) -> Result<(), Box<dyn Error>> {
    let mut policy = Policy::standard();
    policy.backoff_first = Duration::ZERO;
    policy.backoff_cap = Duration::ZERO;
    policy.crash_hard = 0;
    policy.unsafe_no_backoff = true;
    let policy = policy.validate()?;
    for unit in 0..count {
        handle.add(
            UnitId(unit),
            Machine::new(policy.clone(), unit, clock::now()),
        );
    }
    Ok(())
}

/// Prints what a unit costs that has no process.
pub(crate) fn idle() -> Result<(), Box<dyn Error>> {
    const UNITS: u64 = 10_000;
    let events = File::create("/dev/null")?;
    let child = String::new();
    let handle = Driver::start(Bench { child, events })?;
    let own = std::process::id();
    let known =
        || -> Result<usize, Box<dyn Error>> { Ok(handle.states(Duration::from_secs(10))?.len()) };
    known()?;
    let before = watch::pss_kib(own);
    add(&handle, UNITS)?;
    known()?;
    let after = watch::pss_kib(own);
    let each = after.saturating_sub(before) as f64 / UNITS as f64;
    println!("ours             {each:8.2} KiB for each unit without a process ({UNITS} of them)");
    handle
        .shutdown(Shutdown::StopAll)
        .wait(Duration::from_secs(60))?;
    handle.join();
    Ok(())
}
