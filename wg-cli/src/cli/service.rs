//! `wg service …`: one function a verb.

mod install;
mod lanes;
mod logs;
mod purge;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::args::service::{ServiceCommand, Start, Status, Stop};
use super::context::Context;
use super::{chat, not_built};
use crate::clock;
use crate::daemon::start::{self, StartOptions, Started};
use crate::daemon::stop::{self, StopOptions, Stopped};
use crate::daemon::{self, DaemonOptions, Served};
use crate::exit_code::ExitCode;
use crate::failure::{Failure, Outcome};
use crate::names::ChatState;
use crate::ops::{self, Ended, ServiceStatus};
use crate::patience::Patience;
use crate::report::Paint;
use crate::store::config::Config;
use crate::store::room;
use crate::store::workspace::Workspace;

pub(super) fn run(cx: &Context<'_>, command: ServiceCommand) -> Outcome {
    match command {
        ServiceCommand::Start(args) => start(cx, &args),
        ServiceCommand::Stop(args) => stop(cx, &args),
        ServiceCommand::Restart(args) => restart(cx, &args),
        ServiceCommand::Status(args) => status(cx, &args),
        ServiceCommand::Reload => told(cx, ops::reload, "The service has read config.toml again."),
        ServiceCommand::Pause => told(
            cx,
            ops::pause,
            "No further handler is started until `wg service resume`.",
        ),
        ServiceCommand::Resume => told(cx, ops::unpause, "Handlers are started again."),
        ServiceCommand::Logs(args) => logs::log(cx, &args),
        ServiceCommand::Events(args) => logs::events(cx, &args),
        ServiceCommand::CreateChat(new) => chat::create(cx, new),
        ServiceCommand::ArchiveChat(one) => chat::change(cx, &one, ops::archive),
        ServiceCommand::StopChat(one) => chat::change(cx, &one, ops::stop),
        ServiceCommand::InterruptChat(one) => chat::change(cx, &one, ops::interrupt),
        // The earlier tool never asked under this name.
        ServiceCommand::DeleteChat(args) => {
            chat::change(cx, &super::args::chat::One { chat: args.chat }, ops::delete)
        }
        ServiceCommand::SetExecutor(args) => chat::set_executor::run(cx, &args),
        ServiceCommand::PurgeChats(args) | ServiceCommand::ArchiveAllChats(args) => {
            purge::run(cx, &args)
        }
        ServiceCommand::Daemon(args) => foreground(cx, &cx.workspace()?, &args),
        ServiceCommand::Install(args) => install::run(cx, &args),
        ServiceCommand::Freeze(_) => Err(not_built(
            "wg service freeze, thaw and tick",
            "wg service pause and resume",
        )),
    }
}

/// Flags of the earlier tool that scripts still pass: they are taken, and it is said that they mean nothing here.
fn mention_what_means_nothing(cx: &Context<'_>, args: &Start) {
    let ignored = [
        ("--port", args.port.is_some()),
        ("--socket", args.socket.is_some()),
        ("--executor", args.executor.is_some()),
        ("--interval", args.interval.is_some()),
        ("--model", args.model.is_some()),
    ];
    for (flag, _) in ignored.iter().filter(|(_, given)| *given) {
        cx.report.note(&format!(
            "note: {flag} means nothing to this service and is ignored"
        ));
    }
}

#[derive(Debug, Serialize)]
struct StartSummary {
    status: &'static str,
    pid: u32,
    socket: String,
    log: String,
}

impl StartSummary {
    fn of(started: &Started) -> Self {
        Self {
            status: if started.already {
                "already_running"
            } else {
                "started"
            },
            pid: started.pid,
            socket: started.socket.display().to_string(),
            log: started.log.display().to_string(),
        }
    }

    fn to_text(&self, first_line: &str) -> String {
        format!("{first_line}\nSocket: {}\nLog: {}", self.socket, self.log)
    }
}

fn start(cx: &Context<'_>, args: &Start) -> Outcome {
    let workspace = cx.workspace()?;
    if args.force {
        return restart(cx, args);
    }
    mention_what_means_nothing(cx, args);
    if args.foreground {
        return foreground(cx, &workspace, args);
    }
    let started = start::start(
        &workspace,
        &StartOptions {
            max_agents: args.max_agents,
        },
        Patience::Forever,
    )?;
    tell_started(cx, &started)?;
    Ok(ExitCode::Ok)
}

fn tell_started(cx: &Context<'_>, started: &Started) -> Outcome<()> {
    let summary = StartSummary::of(started);
    cx.report.done(&summary, || {
        if started.already {
            summary.to_text(&format!("Service already running (PID {})", started.pid))
        } else {
            summary.to_text(&format!("Service started (PID {})", started.pid))
        }
    })
}

fn foreground(cx: &Context<'_>, workspace: &Workspace, args: &Start) -> Outcome {
    cx.report
        .detail(&format!("serving {}", workspace.root().display()));
    let served = daemon::run(
        workspace,
        &DaemonOptions {
            foreground: args.foreground,
            max_agents: args.max_agents,
        },
    )?;
    if let Served::ByAnother(pid) = served
        && args.foreground
    {
        tell_started(
            cx,
            &Started {
                pid,
                already: true,
                socket: workspace.socket_path()?,
                log: workspace.daemon_log_path(),
            },
        )?;
    }
    Ok(ExitCode::Ok)
}

#[derive(Debug, Serialize)]
struct StopSummary {
    status: &'static str,
    pid: Option<u32>,
    force: bool,
    keep_handlers: bool,
    #[serde(flatten)]
    ended: Ended,
    survivors: Vec<String>,
    unreadable: u32,
}

fn stop(cx: &Context<'_>, args: &Stop) -> Outcome {
    let workspace = cx.workspace()?;
    let stopped = stop::stop(
        &workspace,
        StopOptions {
            force: args.force,
            keep_handlers: args.keep_handlers,
        },
    )?;
    let summary = StopSummary {
        status: if stopped.was_running {
            "stopped"
        } else {
            "not_running"
        },
        pid: stopped.pid,
        force: args.force,
        keep_handlers: args.keep_handlers,
        ended: stopped.ended,
        survivors: stopped.survivors.clone(),
        unreadable: stopped.unreadable,
    };
    for unwritten in &stopped.unwritten {
        cx.report.note(unwritten);
    }
    cx.report
        .done(&summary, || stop_text(&stopped, args.keep_handlers))?;
    survivors_are_a_failure(&stopped)
}

fn stop_text(stopped: &Stopped, kept: bool) -> String {
    let ended = stopped
        .ended
        .in_words()
        .map(|words| format!(", {words}"))
        .unwrap_or_default();
    let Some(pid) = stopped.pid.filter(|_| stopped.was_running) else {
        return format!("Service not running{ended}");
    };
    let handlers = if kept {
        ", handlers go on".to_owned()
    } else {
        ended
    };
    let unseen = match stopped.unreadable {
        0 => String::new(),
        count => format!("; best effort: {count} processes could not be looked into"),
    };
    format!("Service stopped (PID {pid}){handlers}{unseen}")
}

fn survivors_are_a_failure(stopped: &Stopped) -> Outcome {
    if stopped.survivors.is_empty() {
        return Ok(ExitCode::Ok);
    }
    Err(Failure::new(
        ExitCode::Failed,
        format!(
            "the service is stopped, but processes are left: {}",
            stopped.survivors.join(", ")
        ),
    )
    .with_cure("wg service stop --force"))
}

fn restart(cx: &Context<'_>, args: &Start) -> Outcome {
    #[derive(Debug, Serialize)]
    struct Restarted {
        stopped_pid: Option<u32>,
        #[serde(flatten)]
        started: StartSummary,
    }
    let workspace = cx.workspace()?;
    mention_what_means_nothing(cx, args);
    // Read before anything is stopped: a daemon that could not start again must go on.
    Config::load(&workspace)?;
    room::check(&workspace)?;
    // Handlers outlive the change of daemons: a turn in flight is not disturbed.
    let stopped = stop::stop(
        &workspace,
        StopOptions {
            force: false,
            keep_handlers: true,
        },
    )?;
    if args.foreground {
        return foreground(cx, &workspace, args);
    }
    let started = start::start(
        &workspace,
        &StartOptions {
            max_agents: args.max_agents,
        },
        Patience::Forever,
    )?;
    let summary = Restarted {
        stopped_pid: stopped.pid,
        started: StartSummary::of(&started),
    };
    cx.report.done(&summary, || {
        let first = match stopped.pid.filter(|_| stopped.was_running) {
            Some(before) => format!("Service restarted (PID {}, was {before})", started.pid),
            None => format!("Service started (PID {}); it was not running", started.pid),
        };
        summary.started.to_text(&first)
    })?;
    Ok(ExitCode::Ok)
}

fn status(cx: &Context<'_>, args: &Status) -> Outcome {
    let workspace = cx.workspace()?;
    let status = ops::service_status(&workspace)?;
    let running = status.pid.is_some();
    cx.report.answer(&status, || status_text(cx, &status))?;
    Ok(if args.check && !running {
        ExitCode::NotRunning
    } else {
        ExitCode::Ok
    })
}

fn status_text(cx: &Context<'_>, status: &ServiceStatus) -> String {
    let mut lines = vec![match status.pid {
        Some(pid) => format!(
            "Service: {} (PID {pid})",
            cx.report.paint(Paint::Good, "running")
        ),
        None => format!(
            "Service: {}",
            cx.report.paint(Paint::Waiting, "not running")
        ),
    }];
    let uptime = status
        .uptime_secs
        .map(|seconds| clock::span(Duration::from_secs(seconds)));
    let facts = [
        ("Socket", status.socket.clone()),
        ("Uptime", uptime),
        ("Version", status.version.clone()),
        (
            "Starts",
            status
                .paused
                .then(|| "paused (wg service resume)".to_owned()),
        ),
        ("Graph", status.graph_trouble.clone()),
        ("Log", Some(status.log.clone())),
        ("Chats", Some(counts(status))),
        ("Turns", lanes::turns(&status.lanes)),
    ];
    lines.extend(
        facts
            .into_iter()
            .filter_map(|(label, value)| value.map(|value| format!("{label}: {value}"))),
    );
    if !status.chats.is_empty() {
        lines.push(String::new());
        lines.push(chat::table(cx.report, &status.chats));
    }
    if !status.lanes.in_use.is_empty() {
        // The table above ends its last line.
        lines.push(lanes::table(&status.lanes.in_use));
    }
    lines.join("\n")
}

/// How many chats are in which state, in the order of the states' list.
fn counts(status: &ServiceStatus) -> String {
    let mut counts: BTreeMap<usize, (ChatState, usize)> = BTreeMap::new();
    for row in &status.chats {
        let order = ChatState::ALL
            .iter()
            .position(|state| *state == row.state)
            .unwrap_or(ChatState::ALL.len());
        counts.entry(order).or_insert((row.state, 0)).1 += 1;
    }
    if counts.is_empty() {
        return "none".to_owned();
    }
    counts
        .values()
        .map(|(state, count)| format!("{count} {state}"))
        .collect::<Vec<_>>()
        .join(", ")
}

/// Asks the daemon for something and tells that it was done.
fn told(
    cx: &Context<'_>,
    verb: fn(&Workspace) -> Outcome<serde_json::Map<String, serde_json::Value>>,
    text: &str,
) -> Outcome {
    let reply = verb(&cx.workspace()?)?;
    cx.report.done(&reply, || text.to_owned())?;
    Ok(ExitCode::Ok)
}
