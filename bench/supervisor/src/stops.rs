//! How long our supervisor takes with children that make it hard.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use supervisor::tree::Marker;
use supervisor::{
    Disposition, Driver, Ended, Generation, Host, Ladder, Machine, Notice, Policy, Prepared, Rung,
    Shutdown, StartReason, UnitId, clock,
};

use crate::watch::{self, Births};

const ROUNDS: u64 = 20;
const GRACE: Duration = Duration::from_millis(100);
const PATIENCE: Duration = Duration::from_secs(60);

/// Each says its pid once what makes it hard is in place.
const CHILDREN: [(&str, &str); 5] = [
    ("goes on SIGTERM", "echo $$ >$BENCH_FIFO; exec sleep 1000"),
    (
        "ignores SIGTERM",
        "trap '' TERM; echo $$ >$BENCH_FIFO; while :; do sleep 1000; done",
    ),
    (
        "50 forks",
        "for i in $(seq 50); do sleep 1000 & done; echo $$ >$BENCH_FIFO; wait",
    ),
    (
        "double fork, own session",
        "(setsid sh -c 'sleep 1000 & wait' &); echo $$ >$BENCH_FIFO; exec sleep 1000",
    ),
    ("is dead already", "echo $$ >$BENCH_FIFO; exec sleep 1000"),
];

struct Shell {
    script: &'static str,
    program: &'static str,
    parked: Sender<()>,
}

impl Host for Shell {
    fn prepare(&mut self, _: UnitId, _: Generation, _: StartReason) -> Prepared {
        let mut command = Command::new(self.program);
        command
            .args(["-c", self.script])
            .env("BENCH_UNIT", format!("{}/x", std::process::id()))
            .stdin(Stdio::null());
        Prepared::Go(Box::new(command))
    }

    fn judge(&mut self, _: UnitId, _: &Ended) -> Disposition {
        Disposition::Finished
    }

    fn notice(&mut self, _: UnitId, notice: &Notice) {
        if let Notice::Parked { .. } = notice {
            // The bench may have gone on.
            let _gone = self.parked.send(());
        }
    }

    fn marker(&mut self, _: UnitId) -> Option<Marker> {
        Some(Marker {
            name: "BENCH_UNIT".into(),
            prefix: format!("{}/", std::process::id()),
        })
    }

    fn ladder(&mut self, _: UnitId) -> Ladder {
        let signals = vec![Rung {
            signal: 15,
            grace: GRACE,
        }];
        Ladder {
            signals,
            ..Ladder::standard()
        }
    }
}

/// Prints the median and the longest of the rounds for each kind of child.
pub(crate) fn show(directory: &Path) -> Result<(), Box<dyn Error>> {
    fs::create_dir_all(directory)?;
    let fifo = directory.join("births");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU)?;
    let mut births = Births::open(&fifo)?;
    println!(
        "\nstop with proof, grace {} ms, {ROUNDS} rounds: p50 / longest ms, ended below it",
        GRACE.as_millis()
    );
    for (name, script) in CHILDREN {
        // The path is quoted by being a variable of the script itself.
        let script = format!("BENCH_FIFO='{}'; {script}", fifo.display());
        let script: &'static str = Box::leak(script.into_boxed_str());
        let mut times = Vec::new();
        let mut ended = BTreeMap::new();
        for _ in 0..ROUNDS {
            let (handle, _) = driver(script, "sh")?;
            handle.start(UnitId(1));
            let pid = births.wait(1, PATIENCE)?[0];
            if name == "is dead already" {
                watch::kill(pid)?;
            }
            let begun = Instant::now();
            let down = handle.stop(UnitId(1)).wait(PATIENCE)?;
            times.push(begun.elapsed());
            *ended.entry(down.report.ended.len()).or_insert(0) += 1;
            if !down.report.survivors.is_empty() {
                return Err(format!("survivors: {:?}", down.report.survivors).into());
            }
            handle.shutdown(Shutdown::KillAll).wait(PATIENCE)?;
            handle.join();
        }
        print(name, &mut times, &format!("{ended:?} (processes: rounds)"));
    }
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        let (handle, parked) = driver("", "/nowhere/at/all")?;
        let begun = Instant::now();
        handle.start(UnitId(1));
        parked.recv_timeout(PATIENCE)?;
        times.push(begun.elapsed());
    }
    print("a missing program: parked", &mut times, "");
    Ok(())
}

fn driver(
    script: &'static str,
    program: &'static str,
) -> Result<(supervisor::Handle, Receiver<()>), Box<dyn Error>> {
    let (parked, receiver) = channel();
    let handle = Driver::start(Shell {
        script,
        program,
        parked,
    })?;
    let policy = Policy::standard().validate()?;
    handle.add(UnitId(1), Machine::new(policy, 1, clock::now()));
    Ok((handle, receiver))
}

fn print(name: &str, times: &mut [Duration], more: &str) {
    times.sort();
    let middle = times[times.len() / 2].as_secs_f64() * 1_000.0;
    let longest = times
        .last()
        .map_or(0.0, |time| time.as_secs_f64() * 1_000.0);
    println!("{name:26} {middle:8.2} / {longest:8.2}  {more}");
}
