//! How the service is, as it tells or as the files tell: one that speaks another version of the protocol is there all the same.

use serde_json::Value;

use super::{Lanes, ServiceStatus, read, typed};
use crate::daemon::local;
use crate::failure::Failure;
use crate::ipc::Request;
use crate::store::service_state::ServiceState;
use crate::store::workspace::Workspace;

/// How the service is; never starts it.
///
/// # Errors
///
/// The daemon is there and does not answer, or the files cannot be read.
pub fn service_status(workspace: &Workspace) -> Result<ServiceStatus, Failure> {
    match read(workspace, &Request::Status)? {
        Some(reply) => match typed(reply.clone()) {
            Ok(status) => Ok(status),
            Err(error) => {
                log::debug!("the service is of another version: {error}");
                let state = ServiceState::read(workspace).ok().flatten();
                let pid = reply.get("pid").and_then(Value::as_u64);
                Ok(ServiceStatus {
                    status: "running".to_owned(),
                    pid: pid
                        .and_then(|pid| u32::try_from(pid).ok())
                        .or_else(|| state.as_ref().map(|state| state.pid)),
                    socket: state
                        .as_ref()
                        .map(|state| state.socket_path.display().to_string()),
                    started_at: state.map(|state| state.started_at),
                    version: reply
                        .get("version")
                        .and_then(Value::as_str)
                        .map(str::to_owned),
                    ..status_from_files(workspace)?
                })
            }
        },
        None => status_from_files(workspace),
    }
}

/// The status as far as the files tell it, without a daemon that could be asked.
fn status_from_files(workspace: &Workspace) -> Result<ServiceStatus, Failure> {
    Ok(ServiceStatus {
        status: "not_running".to_owned(),
        pid: None,
        socket: None,
        started_at: None,
        uptime_secs: None,
        version: None,
        paused: false,
        log: workspace.daemon_log_path().display().to_string(),
        chats: local::list_chats(workspace)?,
        graph_trouble: local::graph_damage(workspace)?,
        control_groups: false,
        lanes: Lanes::default(),
    })
}
