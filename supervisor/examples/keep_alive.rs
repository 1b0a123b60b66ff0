//! Keeps a command running: `cargo run --example keep_alive -- sleep 5`.

use std::env;
use std::error::Error;
use std::io::{self, Read};
use std::process::Command;
use std::time::Duration;

use supervisor::{
    Disposition, Driver, Ended, Generation, Host, Machine, Notice, Policy, Prepared, StartReason,
    UnitId, clock,
};

struct KeepAlive(Vec<String>);

impl Host for KeepAlive {
    fn prepare(&mut self, _: UnitId, _: Generation, _: StartReason) -> Prepared {
        let mut command = Command::new(&self.0[0]);
        command.args(&self.0[1..]);
        Prepared::Go(Box::new(command))
    }

    fn judge(&mut self, _: UnitId, ended: &Ended) -> Disposition {
        match ended.status {
            Some(status) if status.success() => Disposition::Clean,
            _ => Disposition::Crash {
                reason: format!("{:?}", ended.status),
            },
        }
    }

    fn notice(&mut self, unit: UnitId, notice: &Notice) {
        log::info!("unit {unit}: {notice:?}");
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let handle = Driver::start(KeepAlive(env::args().skip(1).collect()))?;
    handle.add(
        UnitId(1),
        Machine::new(Policy::standard().validate()?, 1, clock::now()),
    );
    handle.start(UnitId(1));
    io::stdin().read_to_end(&mut Vec::new())?; // Until the end of the input, or Ctrl-D.
    handle.stop(UnitId(1)).wait(Duration::from_secs(20))?;
    Ok(())
}
