//! Our supervisor with everything on: a marker for each unit, every notice written
//! to a file, machines with the standard policy but without pauses.

use std::fs::File;
use std::io::{self, Read, Write};
use std::process::{Command, Stdio};
use std::time::Duration;

use supervisor::tree::Marker;
use supervisor::{
    Disposition, Driver, Ended, Generation, Host, Machine, Notice, Policy, Prepared, Shutdown,
    StartReason, UnitId, clock,
};

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
            .env(crate::ROLE, "child")
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

pub(crate) fn run() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let count: u64 = args.next().ok_or("a number of units is missing")?.parse()?;
    let child = args.next().ok_or("the path of the child is missing")?;
    let events = File::create(args.next().ok_or("the path of the events is missing")?)?;
    let mut policy = Policy::standard();
    policy.backoff_first = Duration::ZERO;
    policy.backoff_cap = Duration::ZERO;
    policy.crash_hard = 0;
    policy.unsafe_no_backoff = true;
    let policy = policy.validate()?;
    let handle = Driver::start(Bench { child, events })?;
    for unit in 0..count {
        handle.add(
            UnitId(unit),
            Machine::new(policy.clone(), unit, clock::now()),
        );
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
