//! Attacks the built program and says what it found: a second owner, a hang, a lock that stays, a process left behind, a panic.
//!
//! ```sh
//! cargo run --release -p wg-cli --example attack -- lock --seconds 120 --seed 7
//! ```
//!
//! Without a part, every part is run. It is its own `wg` (started under that name it is the program) and its own victim, so that
//! it needs nothing but itself. It prints its seed, what it did and what it found, and leaves with 1 where it found something,
//! its folder kept for a look.
#![expect(clippy::print_stdout, reason = "a stress run tells what it does")]
#![expect(
    clippy::disallowed_methods,
    reason = "it is a driver: it reads the clock"
)]

#[path = "../chaos/dice.rs"]
mod dice;
#[path = "../chaos/disk.rs"]
mod disk;
mod frame;
mod life;
mod lock;
mod run;

use std::io;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use frame::Attack;

/// A part attacks until [`Attack::goes_on`] says that it is enough.
type Part = fn(&mut Attack) -> io::Result<()>;

/// A process that is attacked, or that attacks.
type Victim = fn(&Path) -> ExitCode;

/// What can be attacked.
const PARTS: [(&str, Part); 3] = [
    ("lock", lock::attack),
    ("life", life::attack),
    ("run", run::attack),
];

/// What this program is when it is started by itself, by its first argument; the second is a folder of the part's choice.
const VICTIMS: [(&str, Victim); 1] = [("inside", lock::inside::main)];

fn main() -> ExitCode {
    let mut args = std::env::args();
    if args.next().as_deref() == Some("wg") {
        return wg_cli::cli::main().into();
    }
    let args: Vec<String> = args.collect();
    if let [name, folder] = args.as_slice()
        && let Some((_, main)) = VICTIMS.iter().find(|(own, _)| own == name)
    {
        return main(Path::new(folder));
    }
    let number = |name: &str, default: u64| -> u64 {
        args.iter()
            .position(|arg| arg == name)
            .and_then(|at| args.get(at + 1))
            .and_then(|value| value.parse().ok())
            .unwrap_or(default)
    };
    let seed = number("--seed", u64::from(std::process::id()));
    let span = Duration::from_secs(number("--seconds", 60));
    let chosen: Vec<_> = match args.first().filter(|first| !first.starts_with("--")) {
        Some(name) => PARTS.iter().filter(|(own, _)| own == name).collect(),
        None => PARTS.iter().collect(),
    };
    if chosen.is_empty() {
        let names = PARTS.map(|(name, _)| name).join(", ");
        println!("there is no such part; there are: {names}");
        return ExitCode::from(2);
    }
    let mut clean = true;
    for (name, part) in chosen {
        println!("attack {name} --seconds {} --seed {seed}", span.as_secs());
        match frame::run(*part, span, seed) {
            Ok(nothing_found) => clean &= nothing_found,
            Err(error) => {
                println!("  the attack itself failed: {error}");
                clean = false;
            }
        }
    }
    if clean {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
