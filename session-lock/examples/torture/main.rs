//! Tries to break the lock: processes that take it all the time are killed and stopped, and its files deleted.
//!
//! ```text
//! torture [SECONDS [SEED]]
//! ```
//!
//! Runs every combination for SECONDS (5 if not given), prints a line for each, and fails on any violation.
#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "this program measures, and prints what it found"
)]

mod run;
mod shared;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use run::{Delete, Faults, Outcome, Plan};

fn main() -> Result<ExitCode, Box<dyn std::error::Error>> {
    let args: Vec<_> = std::env::args().skip(1).collect();
    if let [word, folder] = args.as_slice()
        && word == "worker"
    {
        run::work(Path::new(folder))?;
        return Ok(ExitCode::SUCCESS);
    }
    let seconds = args.first().map_or(Ok(5), |text| text.parse())?;
    let seed = match args.get(1) {
        Some(text) => text.parse()?,
        None => SystemTime::now()
            .duration_since(UNIX_EPOCH)?
            .subsec_nanos()
            .into(),
    };
    println!("seed {seed}, {seconds} s for each line");
    println!(
        "{:>9} {:>11} {:>8} {:>10} {:>9} {:>7} {:>7} {:>7} {:>9} {:>10}  file system",
        "processes",
        "faults",
        "deleted",
        "acquired",
        "succeeded",
        "kills",
        "stops",
        "deletes",
        "stall ms",
        "violations"
    );
    let mut total = Outcome::default();
    for plan in plans(Duration::from_secs(seconds), seed) {
        let outcome = run::run(&plan, worker)?;
        print_line(&plan, &outcome);
        add(&mut total, &outcome);
    }
    let per_cent = |part: u64| part * 100 / total.entries.max(1);
    let faults = total.kills + total.stops + total.deletions;
    println!(
        "{} acquisitions ({} refused), {} faults delivered ({} kills, {} stops, {} deletions): {} per 100 \
         acquisitions",
        total.entries,
        total.refusals,
        faults,
        total.kills,
        total.stops,
        total.deletions,
        per_cent(faults)
    );
    println!(
        "{} overlaps, {} generation violations, {} locks lost, {} errors, longest stall {} ms",
        total.overlaps,
        total.generation_violations,
        total.losses,
        total.errors,
        total.longest_stall.as_millis()
    );
    let stalled = total.longest_stall > Duration::from_secs(1);
    Ok(if total.violations() > 0 || stalled {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

/// Returns the command of a worker: this program once more.
fn worker(folder: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("because it runs"));
    command.arg("worker").arg(folder).env_clear();
    command
}

fn plans(time: Duration, seed: u64) -> Vec<Plan> {
    let mut places = vec![std::env::temp_dir()];
    places.extend(Some(PathBuf::from("/dev/shm")).filter(|memory| memory.is_dir()));
    let mut plans = Vec::new();
    for place in places {
        let mut add = |processes, faults, delete| {
            let place = place.clone();
            plans.push(Plan {
                processes,
                faults,
                delete,
                place,
                time,
                seed,
            });
        };
        for processes in [2, 8, 16] {
            for faults in [Faults::None, Faults::Kill, Faults::Stop] {
                add(processes, faults, Delete::Nothing);
            }
        }
        add(16, Faults::KillAndStop, Delete::Nothing);
        for delete in [Delete::Record, Delete::Guard] {
            add(8, Faults::None, delete);
            add(8, Faults::KillAndStop, delete);
        }
    }
    plans
}

fn print_line(plan: &Plan, outcome: &Outcome) {
    println!(
        "{:>9} {:>11} {:>8} {:>10} {:>9} {:>7} {:>7} {:>7} {:>9} {:>10}  {}",
        plan.processes,
        format!("{:?}", plan.faults),
        format!("{:?}", plan.delete),
        outcome.entries,
        outcome.successions,
        outcome.kills,
        outcome.stops,
        outcome.deletions,
        outcome.longest_stall.as_millis(),
        outcome.violations(),
        plan.place.display(),
    );
}

fn add(total: &mut Outcome, outcome: &Outcome) {
    total.entries += outcome.entries;
    total.refusals += outcome.refusals;
    total.successions += outcome.successions;
    total.kills += outcome.kills;
    total.stops += outcome.stops;
    total.deletions += outcome.deletions;
    total.longest_stall = total.longest_stall.max(outcome.longest_stall);
    total.overlaps += outcome.overlaps;
    total.generation_violations += outcome.generation_violations;
    total.losses += outcome.losses;
    total.errors += outcome.errors;
}
