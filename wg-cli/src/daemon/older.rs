//! A daemon from before the service lock and the greeting: the earlier tool's. Its state file names a number and proves nothing, so it is
//! believed if its socket answers, and its process is never signalled: it is asked to end.

use std::time::Duration;

use serde_json::{Map, Value};
use session_lock::{PidWatch, ProcessIdentity};

use super::stop::StopOptions;
use crate::clock;
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::ipc::client::CallError;
use crate::ipc::{Client, Request};
use crate::store::service_state::{Alive, ServiceState};
use crate::store::workspace::Workspace;

/// How long it may take to answer and to be gone.
const PATIENCE: Duration = Duration::from_secs(60);

/// Such a daemon that serves the workspace.
#[derive(Debug)]
pub(super) struct OlderDaemon {
    /// Its process, as its state file says.
    pub(super) pid: u32,
    client: Client,
}

/// Returns the daemon of this kind that answers for the workspace.
pub(super) fn answering(workspace: &Workspace) -> Option<OlderDaemon> {
    let state = ServiceState::read(workspace).ok().flatten()?;
    if state.alive() != Alive::Unproven {
        return None;
    }
    let client = Client::connect(workspace).ok()?;
    client.daemon_pid().is_none().then_some(OlderDaemon {
        pid: state.pid,
        client,
    })
}

impl OlderDaemon {
    /// Asks it to end and waits until its process is gone; returns what it said.
    ///
    /// # Errors
    ///
    /// It refuses, or is still there.
    pub(super) fn stop(mut self, options: StopOptions) -> Result<Map<String, Value>, Failure> {
        let unseen = |e| Failure::new(ExitCode::System, "failed to watch the daemon").caused_by(e);
        let identity = ProcessIdentity::of(self.pid).ok().flatten();
        let watch = match &identity {
            Some(identity) => PidWatch::of(identity).map_err(unseen)?,
            None => None,
        };
        let request = Request::Shutdown {
            force: options.force,
            keep_handlers: options.keep_handlers,
        };
        let said = match self.client.call_within(&request, PATIENCE) {
            Ok(said) => said,
            // It went without a farewell.
            Err(CallError::Broken(_)) => Map::new(),
            Err(error) => return Err(error.into()),
        };
        let gone = match &watch {
            Some(watch) => watch.wait(clock::steady() + PATIENCE).map_err(unseen)?,
            None => true,
        };
        if gone {
            Ok(said)
        } else {
            Err(Failure::new(
                ExitCode::System,
                format!("the daemon (PID {}) is still there", self.pid),
            )
            .with_cure("end it yourself: nothing proves who it is"))
        }
    }
}
