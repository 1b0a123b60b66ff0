//! Ending the daemon from the outside, with proof that nothing of it is left.

#![expect(
    clippy::disallowed_methods,
    reason = "a stop reads the clock for its deadline"
)]

use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::{Map, Value};
use session_lock::{PidWatch, ProcessIdentity};

use super::local;
use super::older::{self, OlderDaemon};
use super::purge::AllEnded;
use super::run::{Ending, lock_service};
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::ipc::client::is_out_of_time;
use crate::ipc::{CallError, Client, ConnectError, Request};
use crate::ops::Ended;
use crate::process_signal::{self, Signal};
use crate::standstill::{self, LOOK_EVERY, Standstill};
use crate::store::service_state::ServiceState;
use crate::store::workspace::Workspace;

/// Beyond the graces of its ladder, how long the daemon may take.
const PATIENCE: Duration = Duration::from_secs(180);

/// How long a daemon that does not listen any more may take after a signal.
const DEAF: Duration = Duration::from_secs(20);

/// How long one that does not answer may take after a polite signal where force is asked for; then it is killed.
const DEAF_BY_FORCE: Duration = Duration::from_secs(3);

/// How long a daemon that was asked to end at once may take to say that it has, before it is ended from outside.
const FORCED: Duration = Duration::from_secs(15);

/// How a daemon is stopped.
#[derive(Debug, Clone, Copy, Default)]
pub struct StopOptions {
    /// Without grace for turns.
    pub force: bool,
    /// The handlers stay, for the next daemon to adopt.
    pub keep_handlers: bool,
}

/// What a stop did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Stopped {
    /// Whether there was a daemon.
    pub was_running: bool,
    /// Which.
    pub pid: Option<u32>,
    /// Who was ended, the daemon not counted.
    #[serde(flatten)]
    pub ended: Ended,
    /// Processes that are still there: `pid (name)`.
    pub survivors: Vec<String>,
    /// What could not be written, a sentence for each file.
    pub unwritten: Vec<String>,
    /// Processes that the last look could not see into: where there are any, somebody may have been overlooked.
    pub unreadable: u32,
}

/// Stops the daemon of this workspace; without one, ends the handlers that an earlier one left.
///
/// # Errors
///
/// The daemon could not be ended.
pub fn stop(workspace: &Workspace, options: StopOptions) -> Result<Stopped, Failure> {
    let service = workspace.service_dir();
    let holder = service
        .is_dir()
        .then(|| session_lock::inspect(&service).ok())
        .flatten()
        .filter(session_lock::Inspection::is_held)
        .and_then(|found| found.holder().cloned());
    let Some(holder) = holder else {
        return match older::answering(workspace) {
            Some(older) => stop_older(workspace, older, options),
            None => stop_without_daemon(workspace, options),
        };
    };
    // Nobody to watch means that it is gone by now; one that cannot be watched is not.
    let watch = match holder.identity() {
        Some(identity) => PidWatch::of(identity).map_err(|e| {
            Failure::new(ExitCode::System, "failed to watch the daemon").caused_by(e)
        })?,
        None => None,
    };
    let mut stopped = Stopped {
        was_running: true,
        pid: Some(holder.pid),
        ..Stopped::default()
    };
    let mut hears;
    match Client::connect(workspace) {
        Ok(mut client) => {
            let request = Request::Shutdown {
                force: options.force,
                keep_handlers: options.keep_handlers,
            };
            let patience = if options.force { FORCED } else { PATIENCE };
            hears = stopped.ask(&mut client, &request, patience, options.force)?;
        }
        Err(ConnectError::StandsStill(_)) if options.force => hears = Hears::NoSignal,
        // It holds its lock and does not listen: it is starting, ending, or stuck. One that listens and does not answer is only
        // ended by force.
        Err(error)
            if matches!(error, ConnectError::NotRunning)
                || options.force && matches!(error, ConnectError::Deaf) =>
        {
            hears = Hears::SignalsAlone;
            let signal = if options.keep_handlers {
                Signal::USR1
            } else {
                Signal::TERM
            };
            let identity = holder.identity().ok_or_else(|| {
                Failure::new(
                    ExitCode::Held,
                    format!(
                        "process {} holds the service lock without proof of who it is",
                        holder.pid
                    ),
                )
                .with_cure("end it yourself")
            })?;
            signal_daemon(identity, signal)?;
        }
        Err(e) => return Err(e.into()),
    }
    let patience = patience_for_the_end(hears, options.force, stopped.ended);
    let Some(watch) = &watch else {
        return Ok(stopped);
    };
    match wait_for_the_end(watch, holder.pid, patience)? {
        End::Gone => return Ok(stopped),
        End::StandsStill(_) if options.force => hears = Hears::NoSignal,
        End::StandsStill(daemon) => return Err(ConnectError::StandsStill(daemon).into()),
        End::TooLate => {}
    }
    if hears != Hears::Requests
        && options.force
        && let Some(identity) = holder.identity()
    {
        signal_daemon(identity, Signal::KILL)?;
        let unseen = |e| Failure::new(ExitCode::System, "failed to watch the daemon").caused_by(e);
        if watch.wait(Instant::now() + DEAF).map_err(unseen)? {
            if !options.keep_handlers {
                let left = local::end_handlers(workspace, Ending::Force)?;
                stopped.ended = left.ended;
                stopped.survivors = left.survivors;
            }
            remove_state_of_the_dead(workspace)?;
            return Ok(stopped);
        }
    }
    Err(Failure::new(
        ExitCode::System,
        format!("the daemon (PID {}) is still there", holder.pid),
    )
    .with_cure("wg service stop --force, or kill it: its handlers are adopted by the next one"))
}

/// What came of a daemon that is to end.
enum End {
    Gone,
    /// It was stopped meanwhile.
    StandsStill(Standstill),
    /// It is still at it.
    TooLate,
}

/// Waits until it is gone.
fn wait_for_the_end(watch: &PidWatch, daemon: u32, patience: Duration) -> Result<End, Failure> {
    let until = Instant::now() + patience;
    let mut stood_still = false;
    loop {
        let look_at = until.min(Instant::now() + LOOK_EVERY);
        let gone = watch
            .wait(look_at)
            .map_err(|e| Failure::new(ExitCode::System, "failed to watch the daemon").caused_by(e));
        if gone? {
            return Ok(End::Gone);
        }
        if Instant::now() >= until {
            return Ok(End::TooLate);
        }
        let stands_still = standstill::of_service_process(daemon);
        match stands_still {
            Some(daemon) if stood_still => return Ok(End::StandsStill(daemon)),
            Some(_) => stood_still = true,
            None => stood_still = false,
        }
    }
}

/// What a daemon that is to end can hear.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hears {
    /// It was asked, and answered.
    Requests,
    /// It does not answer, and may heed a polite signal.
    SignalsAlone,
    /// It stands still: of all signals only the last has an effect.
    NoSignal,
}

/// How long a daemon may take to be gone. Who had somebody to end, handler or not, is on its way.
fn patience_for_the_end(hears: Hears, is_forced: bool, ended: Ended) -> Duration {
    match hears {
        Hears::NoSignal => Duration::ZERO,
        Hears::SignalsAlone if is_forced => DEAF_BY_FORCE,
        Hears::Requests | Hears::SignalsAlone if ended == Ended::default() => DEAF,
        Hears::Requests | Hears::SignalsAlone => PATIENCE,
    }
}

/// The earlier tool's daemon ends itself; what it leaves is ended as if there had been none.
fn stop_older(
    workspace: &Workspace,
    older: OlderDaemon,
    options: StopOptions,
) -> Result<Stopped, Failure> {
    let pid = older.pid;
    let mut told = Stopped::default();
    told.take(&older.stop(options)?);
    let left = stop_without_daemon(workspace, options)?;
    Ok(Stopped {
        was_running: true,
        pid: Some(pid),
        ended: told.ended + left.ended,
        ..left
    })
}

/// There is no daemon: what an earlier one left is ended, unless it is to stay.
fn stop_without_daemon(workspace: &Workspace, options: StopOptions) -> Result<Stopped, Failure> {
    let left = if options.keep_handlers {
        AllEnded::default()
    } else {
        let ending = if options.force {
            Ending::Force
        } else {
            Ending::Stop
        };
        local::end_handlers(workspace, ending)?
    };
    remove_state_of_the_dead(workspace)?;
    Ok(Stopped {
        was_running: false,
        pid: None,
        ended: left.ended,
        survivors: left.survivors,
        ..Stopped::default()
    })
}

impl Stopped {
    /// Asks the daemon to end and takes over what it tells. Returns what it hears: one that listens and does not get on with it, because
    /// something in it hangs or because it was stopped meanwhile, is to be ended from outside.
    fn ask(
        &mut self,
        client: &mut Client,
        request: &Request,
        patience: Duration,
        force: bool,
    ) -> Result<Hears, Failure> {
        match client.call_within(request, patience) {
            Ok(said) => {
                self.take(&said);
                Ok(Hears::Requests)
            }
            Err(CallError::Broken(error)) if force && is_out_of_time(&error) => {
                Ok(Hears::SignalsAlone)
            }
            Err(CallError::StandsStill(_)) if force => Ok(Hears::NoSignal),
            Err(error) => Err(error.into()),
        }
    }

    /// Takes over what the daemon told of its end.
    fn take(&mut self, reply: &Map<String, Value>) {
        let number = |name: &str| {
            let number = reply.get(name).and_then(Value::as_u64);
            number.and_then(|n| u32::try_from(n).ok()).unwrap_or(0)
        };
        self.ended = Ended {
            handlers: number("handlers_ended"),
            others: number("others_ended"),
        };
        self.unreadable = number("unreadable");
        let unwritten = reply.get("unwritten").and_then(Value::as_array);
        self.unwritten.extend(
            unwritten
                .into_iter()
                .flatten()
                .filter_map(|text| text.as_str().map(str::to_owned)),
        );
        for survivor in reply
            .get("survivors")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
        {
            self.survivors.push(format!(
                "{} ({})",
                survivor["pid"],
                survivor["name"].as_str().unwrap_or("?")
            ));
        }
    }
}

fn signal_daemon(identity: &ProcessIdentity, signal: Signal) -> Result<(), Failure> {
    process_signal::send(identity, signal)
        .map(drop)
        .map_err(|e| Failure::new(ExitCode::System, "failed to signal the daemon").caused_by(e))
}

/// A daemon that was killed leaves its state and its socket behind.
fn remove_state_of_the_dead(workspace: &Workspace) -> Result<(), Failure> {
    if let Ok(Some(state)) = ServiceState::read(workspace)
        && !state.is_alive()
    {
        state.remove(workspace)?;
        // Whoever has the lock makes its own.
        if let Ok(lock) = lock_service(workspace)? {
            if let Err(error) = std::fs::remove_file(workspace.socket_path()?) {
                log::debug!("the socket was gone: {error}");
            }
            drop(lock);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_daemon_that_ended_only_leftovers_has_as_much_time_as_one_that_ended_handlers() {
        use Hears::{NoSignal, Requests, SignalsAlone};
        for (ended, patience) in [
            (Ended::of(1, 0), PATIENCE),
            (Ended::of(0, 1), PATIENCE),
            (Ended::of(0, 0), DEAF),
        ] {
            for hears in [Requests, SignalsAlone] {
                let found = patience_for_the_end(hears, false, ended);
                assert_eq!(found, patience, "{hears:?}, {ended:?}");
            }
            // One that was asked to end at once, and says that it does, is not killed while it is at it.
            assert_eq!(patience_for_the_end(Requests, true, ended), patience);
            assert_eq!(
                patience_for_the_end(SignalsAlone, true, ended),
                DEAF_BY_FORCE
            );
            assert_eq!(patience_for_the_end(NoSignal, true, ended), Duration::ZERO);
        }
    }
}
