//! Runs a command and prints what its ending means: `cargo run --example explain -- sh -c 'kill -9 $$'`.
#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "an example reads the clock and prints"
)]

use std::env;
use std::error::Error;
use std::process::Command;
use std::time::{Duration, Instant};

use exit_classifier::{Ending, Observation, RuleSet};

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = env::args_os().skip(1);
    let program = args.next().ok_or("which command? explain CMD [ARGS…]")?;

    let started = Instant::now();
    let (ending, ran_for) = match Command::new(&program).args(args).spawn() {
        Ok(mut child) => (child.wait()?.into(), started.elapsed()),
        Err(error) => (Ending::never_started(&error), Duration::ZERO),
    };
    let mut seen = Observation::new(ending, ran_for);
    seen.wrapper = program == "sh";

    for rules in [RuleSet::handler(), RuleSet::agent(), RuleSet::command()] {
        let verdict = rules.classify(&seen);
        println!("{verdict}");
        println!(
            "  {} · {} · counts as {}",
            verdict.class, verdict.cause, verdict.counts
        );
        for (key, value) in &verdict.evidence {
            println!("  {key} = {value}");
        }
    }
    Ok(())
}
