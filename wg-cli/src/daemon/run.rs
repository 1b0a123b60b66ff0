//! The daemon's life: lock, log, driver, chats, socket, signals, and the way out.

use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use command_queue::{CommandQueue, QueueConfig};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, unbounded};
use parking_lot::{Mutex, RwLock};
use serde_json::json;
use session_lock::{AcquireError, Kind, SessionLock};
use supervisor::{Driver, Shutdown};

use super::events::{self, Events};
use super::host::ChatHost;
use super::inbox_watch::InboxWatch;
use super::log_file::DaemonLog;
use super::requests::Requests;
use super::service_manager::ServiceManager;
use super::standing::{self, StandingWatch};
use super::{Control, Daemon, boot, descriptors, older};
use crate::chat::Happened;
use crate::clock;
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::ipc::protocol::Reply;
use crate::ipc::server::{Answer, Limits, Server};
use crate::names::EventKind;
use crate::ops::Ended;
use crate::store::StoreError;
use crate::store::config::Config;
use crate::store::error::of_lock;
use crate::store::events::EventLog;
use crate::store::graph::ChatId;
use crate::store::service_state::ServiceState;
use crate::store::workspace::Workspace;
use crate::strays;

/// How long the driver may be busy with something else before the daemon does not count as alive.
const DRIVER_ANSWERS_WITHIN: Duration = Duration::from_secs(10);

/// How a daemon is run.
#[derive(Debug, Clone, Default)]
pub struct DaemonOptions {
    /// In the terminal: the log goes to standard error as well as to the file, and no session of its own is made.
    pub foreground: bool,
    /// Recorded for the earlier tool's sake; chats do not heed it.
    pub max_agents: Option<u32>,
}

/// What became of a call to serve a workspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Served {
    /// This process was the daemon, and was told to end.
    ToTheEnd,
    /// This process is the daemon already, and nothing was done; 0 where that is not known.
    ByAnother(u32),
}

/// How the daemon ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// Every handler is stopped, with its grace.
    Stop,
    /// Every handler is stopped without grace.
    Force,
    /// The handlers stay, for the next daemon to adopt.
    Keep,
}

/// What the starter is told on standard output, one line, before it is closed.
#[derive(Debug)]
enum Word {
    Ready,
    Already(u32),
    Failed(String, u8),
}

/// Runs the daemon of this workspace until it is told to end.
///
/// # Errors
///
/// The workspace is somebody else's, the configuration is bad, or the operating system refuses what a daemon needs.
pub fn run(workspace: &Workspace, options: &DaemonOptions) -> Result<Served, Failure> {
    let told = |word: &Word| {
        if !options.foreground {
            tell_starter(word);
        }
    };
    match run_inner(workspace, options, &told) {
        Ok(served) => Ok(served),
        Err(failure) => {
            told(&Word::Failed(failure.to_string(), failure.code.code()));
            Err(failure)
        }
    }
}

fn run_inner(
    workspace: &Workspace,
    options: &DaemonOptions,
    told: &dyn Fn(&Word),
) -> Result<Served, Failure> {
    workspace.check_owner()?;
    descriptors::check()?;
    if !options.foreground {
        // Fails only for a leader of a group, which a fresh child is not; a hangup of the terminal must not end us.
        if let Err(e) = nix::unistd::setsid() {
            log::debug!("no session of its own: {e}");
        }
    }
    let lock = match lock_service(workspace)? {
        Ok(lock) => lock,
        Err(pid) => {
            told(&Word::Already(pid));
            return Ok(Served::ByAnother(pid));
        }
    };
    if let Some(older) = older::answering(workspace) {
        told(&Word::Already(older.pid));
        return Ok(Served::ByAnother(older.pid));
    }
    let manager = options
        .foreground
        .then(ServiceManager::of_this_process)
        .flatten();
    let (config, reconfigured) = Config::put_in_force_and_compare(workspace)?;
    DaemonLog::open(
        &workspace.daemon_log_path(),
        config.service.log_max_size,
        config.service.log_keep,
        log::Level::Info,
        !options.foreground,
    )
    .map_err(|e| system("failed to open the log", e))?
    .install();

    let (daemon, controls) = Daemon::assemble(workspace, config)?;
    let socket = workspace.socket_path()?;
    let listener = bind(&socket).map_err(StoreError::io("open the socket", &socket))?;
    let ours = standing::inode(&socket);
    log::info!(
        "Daemon starting (PID {}, socket {})",
        std::process::id(),
        socket.display()
    );
    daemon.groups.tell();
    if let Some(agents) = options.max_agents {
        log::info!("max_agents={agents} is recorded; chats do not heed it");
    }
    let state = ServiceState::of_this_process(socket.clone());
    state.write(workspace)?;
    // What a killed handler leaves comes here, before there is a handler, so that a restart need not look for it anywhere else.
    strays::come_here();
    // Signals before the first process: one that came in between would leave handlers behind.
    let signals = Signals::install(daemon.control.clone())
        .map_err(|e| system("failed to handle signals", e))?;
    daemon.booting.store(true, Ordering::SeqCst);
    let server = Server::start(
        listener,
        Limits::standard(),
        Arc::new(Requests::new(Arc::clone(&daemon))),
    )
    .map_err(|e| system("failed to serve the socket", e))?;
    daemon.events.send_through(server.poster());
    daemon.watch_files()?;
    // Before anything that it does.
    daemon.event(
        EventKind::DaemonStarted,
        None,
        &format!(
            "daemon {} {}",
            std::process::id(),
            env!("CARGO_PKG_VERSION")
        ),
    );
    boot::boot(&daemon, reconfigured)?;
    daemon.events.settle();
    told(&Word::Ready);
    if let Some(manager) = &manager {
        manager.ready();
    }

    let standing = StandingWatch::start(
        lock,
        &workspace.service_dir(),
        &socket,
        daemon.control.clone(),
    )?;
    let ending = daemon.main_loop(&controls, manager.as_ref());
    if let Some(manager) = &manager {
        manager.stopping();
    }
    let lock = standing.end();
    daemon.end(ending, &controls);
    drop(signals);
    drop(server);
    let events = match ending {
        Ending::Stop | Ending::Keep => events::LAST_WRITTEN,
        Ending::Force => events::WRITTEN_BY_FORCE,
    };
    daemon.put_away(&state, &socket, ours, events);
    if let Some(lock) = lock
        && let Err(e) = lock.release()
    {
        log::warn!("the service lock: {e}");
    }
    Ok(Served::ToTheEnd)
}

/// Takes the lock that makes this the only daemon of the workspace, or says who has it.
pub(super) fn lock_service(workspace: &Workspace) -> Result<Result<SessionLock, u32>, Failure> {
    let dir = workspace.ensure_service_dir()?;
    match SessionLock::try_acquire(&dir, Kind::Other("wg-daemon".to_owned())) {
        Ok(lock) => Ok(Ok(lock)),
        Err(AcquireError::Held { holder, .. }) => Ok(Err(holder.map_or(0, |holder| holder.pid))),
        Err(e) => Err(of_lock("failed to take the service lock", e)),
    }
}

impl Daemon {
    /// Everything but the doors to the outside: no socket, no signals, no chats yet.
    pub(super) fn assemble(
        workspace: &Workspace,
        config: Config,
    ) -> Result<(Arc<Self>, Receiver<Control>), Failure> {
        let (control, controls) = unbounded();
        let events = EventLog::open(
            workspace,
            config.service.log_max_size,
            config.service.log_keep,
        );
        let queue = CommandQueue::start(QueueConfig::recommended()).map_err(|e| {
            Failure::new(ExitCode::System, "failed to start the lanes").caused_by(e)
        })?;
        super::turns::configure(&queue, &config);
        super::starts::configure(&queue, &config).map_err(|e| {
            Failure::new(ExitCode::Bug, "failed to make the lane of starts").caused_by(e)
        })?;
        let events =
            Events::new(events).map_err(|e| system("failed to start the writer of events", e))?;
        let daemon = Arc::new(Self {
            workspace: workspace.clone(),
            graph_seen: Mutex::default(),
            config: RwLock::new(Arc::new(config)),
            chats: Mutex::default(),
            driver: std::sync::OnceLock::new(),
            watch: std::sync::OnceLock::new(),
            queue,
            turns: super::turns::Turns::default(),
            starts: super::starts::Starts::default(),
            groups: super::groups::Groups::find(workspace),
            listeners: super::listeners::Listeners::default(),
            events,
            control,
            paused: false.into(),
            booting: false.into(),
            ending: false.into(),
            hurried: false.into(),
            goodbyes: Mutex::default(),
            numbers: Mutex::default(),
            started_at: clock::now(),
        });
        let handle = Driver::start(ChatHost::new(Arc::clone(&daemon))).map_err(|e| {
            Failure::new(ExitCode::System, "failed to start the supervisor").caused_by(e)
        })?;
        drop(daemon.driver.set(handle));
        daemon.report_lanes();
        Ok((daemon, controls))
    }

    /// Hears of whatever is written to the sessions and to the graph from now on.
    fn watch_files(self: &Arc<Self>) -> Result<(), Failure> {
        let of = Arc::clone(self);
        let graph_of = Arc::clone(self);
        let watch = InboxWatch::start(
            move |chat, what| of.file_changed(chat, what),
            move || {
                // Boot reads it itself. What is wrong with it was told.
                if !graph_of.booting.load(Ordering::SeqCst) {
                    drop(graph_of.heed_graph());
                }
            },
        )
        .map_err(|e| system("failed to watch the inboxes", e))?;
        watch.add_graph(self.workspace.root());
        drop(self.watch.set(watch));
        Ok(())
    }

    /// Removes what says that this daemon is there, and writes its last words.
    fn put_away(
        &self,
        state: &ServiceState,
        socket: &Path,
        ours: Option<(u64, u64)>,
        events: Duration,
    ) {
        // A successor may have made its own at the same place.
        if standing::inode(socket) == ours
            && let Err(e) = std::fs::remove_file(socket)
        {
            log::debug!("the socket was gone: {e}");
        }
        if let Err(e) = state.remove(&self.workspace) {
            log::warn!("the state file: {}", Failure::from(e));
        }
        self.event(
            EventKind::Stopped,
            None,
            &format!("daemon {} is down", std::process::id()),
        );
        self.events.finish(events);
        log::info!("Daemon shutdown complete");
    }

    /// Waits for the end; meanwhile for the ends of hold-offs, and for the moments at which a service manager wants to hear.
    fn main_loop(&self, controls: &Receiver<Control>, manager: Option<&ServiceManager>) -> Ending {
        let heartbeat = manager.and_then(|manager| Some((manager, manager.watchdog?)));
        let mut beats_at = heartbeat.map(|(_, every)| clock::steady() + every);
        loop {
            let hold_off = self.earliest_deadline();
            let next = hold_off.map(|(at, _)| at).into_iter().chain(beats_at).min();
            let control = match next {
                None => controls.recv().ok(),
                Some(at) => match controls.recv_deadline(at) {
                    Ok(control) => Some(control),
                    Err(RecvTimeoutError::Timeout) => {
                        let now = clock::steady();
                        if let Some((_, chat)) = hold_off.filter(|(at, _)| *at <= now) {
                            self.act(chat, Happened::HoldOffOver);
                        }
                        if let Some((manager, every)) = heartbeat
                            && beats_at.is_some_and(|at| at <= now)
                        {
                            self.beat(manager);
                            beats_at = Some(now + every);
                        }
                        continue;
                    }
                    Err(RecvTimeoutError::Disconnected) => None,
                },
            };
            match control {
                Some(Control::LookAtDeadlines) => {}
                Some(Control::Shutdown(ending)) => return ending,
                // Nobody is left who could tell us to end, so this is the end.
                None => return Ending::Stop,
            }
        }
    }

    /// Says that the daemon is alive only if its driver answers: a daemon that merely has a process must be started again.
    fn beat(&self, manager: &ServiceManager) {
        match self.driver().states(DRIVER_ANSWERS_WITHIN) {
            Ok(_) => manager.alive(),
            Err(error) => log::error!("the driver does not answer: {error}"),
        }
    }

    fn earliest_deadline(&self) -> Option<(Instant, ChatId)> {
        let chats = self.chats.lock();
        chats
            .iter()
            .filter_map(|(chat, entry)| Some((entry.core.deadline()?, *chat)))
            .min()
    }

    /// Ends the handlers, or lets them be, and the driver.
    pub(super) fn end(&self, ending: Ending, controls: &Receiver<Control>) {
        // A start that is being decided sees this; one that was decided is stopped with the rest.
        self.ending.store(true, Ordering::SeqCst);
        if ending == Ending::Force {
            self.hurried.store(true, Ordering::SeqCst);
        }
        let handlers = self
            .chats
            .lock()
            .values()
            .filter(|entry| entry.handler.is_some())
            .count();
        let books = self.all_books();
        let mut completion = self.driver().shutdown(match ending {
            Ending::Stop => Shutdown::StopAll,
            Ending::Force => Shutdown::KillAll,
            Ending::Keep => Shutdown::LeaveRunning,
        });
        // Meanwhile: nobody who is ended waits for a file.
        let unwritten = self.save_all(books);
        let report = loop {
            match completion.wait(Duration::from_millis(200)) {
                Ok(down) => break down.report,
                Err(supervisor::CompletionError::DriverGone) => {
                    break supervisor::tree::Report::default();
                }
                Err(_) => {
                    // A second signal hurries.
                    if let Ok(Control::Shutdown(Ending::Stop | Ending::Force)) = controls.try_recv()
                        && !self.hurried.swap(true, Ordering::SeqCst)
                    {
                        log::info!("told to hurry: the handlers are killed");
                        completion = self.driver().shutdown(Shutdown::KillAll);
                    }
                }
            }
        };
        self.driver().join();
        let borrowers: usize = if ending == Ending::Keep {
            0
        } else {
            let chats: Vec<ChatId> = self.chats.lock().keys().copied().collect();
            chats.into_iter().map(|chat| self.end_borrowers(chat)).sum()
        };
        let ended = if ending == Ending::Keep {
            Ended::default()
        } else {
            Ended::of(handlers, report.ended.len() + borrowers)
        };
        let survivors: Vec<_> = report
            .survivors
            .iter()
            .map(|process| json!({"pid": process.pid, "name": process.name}))
            .collect();
        let reply = Reply::of(json!({
            "status": "stopped",
            "pid": std::process::id(),
            "handlers_ended": ended.handlers,
            "others_ended": ended.others,
            "survivors": survivors,
            "best_effort": report.best_effort(),
            "unreadable": report.unreadable,
            "unwritten": unwritten,
        }));
        for answer in self.goodbyes.lock().drain(..) {
            answer.send(&reply);
        }
    }
}

/// Turns signals into controls: SIGTERM and SIGINT end the daemon (a second one hurries), SIGUSR1 ends it and keeps the
/// handlers. At SIGCHLD what came here from a dead parent is waited for; the handlers are the driver's to wait for.
#[derive(Debug)]
struct Signals {
    handle: signal_hook::iterator::Handle,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Signals {
    fn install(control: Sender<Control>) -> std::io::Result<Self> {
        use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM, SIGUSR1};
        let heard = [SIGTERM, SIGINT, SIGUSR1, SIGHUP, SIGCHLD];
        let mut signals = signal_hook::iterator::Signals::new(heard)?;
        let handle = signals.handle();
        let thread = std::thread::Builder::new()
            .name("signals".into())
            .spawn(move || {
                for signal in signals.forever() {
                    let ending = match signal {
                        SIGCHLD => {
                            strays::reap();
                            continue;
                        }
                        SIGUSR1 => Ending::Keep,
                        // The terminal of a foreground daemon is gone; a background one has none.
                        SIGHUP => continue,
                        _ => Ending::Stop,
                    };
                    if control.send(Control::Shutdown(ending)).is_err() {
                        return;
                    }
                }
            })?;
        Ok(Self {
            handle,
            thread: Some(thread),
        })
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        self.handle.close();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            log::error!("the signal thread panicked");
        }
    }
}

/// Binds the socket for its owner alone. A socket file that is left behind is removed: we hold the service lock, so
/// nobody of ours listens there.
fn bind(path: &Path) -> std::io::Result<UnixListener> {
    use std::os::unix::fs::PermissionsExt;
    if path.symlink_metadata().is_ok() {
        std::fs::remove_file(path)?;
    }
    // The directory is closed to others, so nobody can connect between these two lines.
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

impl Daemon {
    /// Ends the service as a client asks for it, who is answered when it has happened.
    pub(super) fn end_for(&self, force: bool, keep_handlers: bool, answer: Answer) {
        let ending = match (keep_handlers, force) {
            (true, _) => Ending::Keep,
            (false, true) => Ending::Force,
            (false, false) => Ending::Stop,
        };
        self.goodbyes.lock().push(answer);
        drop(self.control.send(Control::Shutdown(ending)));
    }
}

/// Writes the one line that the starter waits for, and closes standard output.
fn tell_starter(word: &Word) {
    let line = match word {
        Word::Ready => json!({"ready": std::process::id()}),
        Word::Already(pid) => json!({"already": pid}),
        Word::Failed(error, code) => json!({"error": error, "code": code}),
    };
    let mut out = std::io::stdout();
    // A starter that has gone away needs no answer.
    drop(writeln!(out, "{line}").and_then(|()| out.flush()));
    if let Ok(null) = std::fs::File::options().write(true).open("/dev/null")
        && let Err(e) = nix::unistd::dup2_stdout(null.as_fd())
    {
        log::debug!("standard output stays open: {e}");
    }
}

fn system(what: &str, error: std::io::Error) -> Failure {
    Failure::new(ExitCode::System, what.to_owned()).caused_by(error)
}
