//! The daemon: it looks after the chats of one workspace.
//!
//! ```text
//!  ipc::server ─ request ─▶ requests ─┐                      ┌─▶ events.jsonl, daemon.log
//!  inbox_watch ─ changed ─────────────┼─▶ Daemon ─ acts ─▶ supervisor::Handle
//!  signals, deadlines ─ main loop ────┘      ▲                      │ (driver's thread)
//!                                            └──── host ◀───────────┘ prepare, judge, notice
//! ```
//!
//! The state of a chat is in three places, each with one owner: what a person wishes and who needs it in the pure
//! [`Chat`] core (behind one mutex here), when it starts in the supervisor's machine (on the driver's thread), and what must outlive
//! this process in `coordinator-state-N.json`.

pub(crate) mod books;
pub(crate) mod boot;
mod descriptors;
mod down;
mod event_writer;
mod events;
mod explain;
mod graph_seen;
pub mod groups;
mod handover;
pub(crate) mod holder;
mod host;
mod inbox_watch;
mod lanes;
mod listeners;
pub mod local;
mod log_file;
mod older;
pub mod orphans;
mod purge;
mod reap;
mod requests;
mod rules;
mod run;
mod service_manager;
mod standing;
pub mod start;
mod starts;
mod status;
pub mod stop;
mod telling;
mod turns;
mod unread;
pub(crate) mod wishes;
mod words;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use command_queue::CommandQueue;
use crossbeam_channel::Sender;
use exit_classifier::Verdict;
use parking_lot::{Mutex, RwLock};
use supervisor::tree::Marker;
use supervisor::{Ended, Handle, Notice, State};

pub use rules::handler_rules;
pub use run::{DaemonOptions, Served, run};

use crate::agent::AgentSpec;
use crate::chat::{Act, Chat, Decision, Findings, Happened, Need, WhyNot, Wish};
use crate::clock::{self, Timestamp};
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::ipc::server::Answer;
use crate::lock_holders;
use crate::names::{EventKind, StartReason};
use crate::presence;
use crate::store::StoreError;
use crate::store::chat_state::ChatRecord;
use crate::store::config::Config;
use crate::store::events::EventLine;
use crate::store::exit_record::ExitRecord;
use crate::store::graph::{ChatId, ChatTask, Graph};
use crate::store::messages;
use crate::store::resolve::{self, Make};
use crate::store::workspace::Workspace;
use crate::why::LastVerdict;
use events::Events;
use graph_seen::{GraphSeen, InGraph};
use groups::Groups;
use handover::Handover;
use host::unit_of;
use inbox_watch::{Changed, InboxWatch};
use listeners::Listeners;
use starts::Starts;
use turns::Turns;
use unread::Counted;

/// How long the borrowers of one lock may take to be gone.
const BORROWERS: Duration = Duration::from_secs(5);

/// The consumer that stands for those whose files alone tell of them; no connection has this number.
const BY_FILE: u64 = u64::MAX;

/// How long a question to the driver may take before it counts as stuck.
const QUERY: Duration = Duration::from_secs(10);

/// What the main loop is told.
#[derive(Debug)]
enum Control {
    /// A hold-off was set: its end is a deadline.
    LookAtDeadlines,
    /// End the daemon.
    Shutdown(run::Ending),
}

/// A chat as this process knows it.
#[derive(Debug)]
struct Entry {
    core: Chat,
    task: ChatTask,
    /// What the graph said of it when it was last read.
    in_graph: InGraph,
    /// How its session goes from a handler to a person.
    handover: Handover,
    /// Why the last attempt to start could not be made, while that is what it waits for.
    not_now: Option<String>,
    /// The last ending of a handler, kept for `wg why`.
    last: Option<LastVerdict>,
    /// The reason of the start that is under way or has happened.
    reason: Option<StartReason>,
    /// Its handler, while the driver has one.
    handler: Option<u32>,
    /// Whether that handler has had the session, as far as was seen.
    serves: bool,
    /// Its start was decided and what came of that is not told yet. What its handler does meanwhile is told after it.
    is_starting: bool,
    told_later: Vec<EventLine>,
    /// Whether the driver has a unit for it.
    has_unit: bool,
    /// The last reply that was seen, to tell a finished turn from other changes of the outbox.
    replies: u64,
    /// How many messages waited when that was last looked at.
    unread: Option<Counted>,
    /// Held from the change of a wish in the core until that wish is on the disk, by whoever carries out a person's verb, so that
    /// two verbs that meet (a purge has a lane of its own) leave both telling the same. No other chat's verb waits for that.
    wishing: Arc<Mutex<()>>,
}

impl Entry {
    /// Takes its task as the graph tells it now.
    fn heed(&mut self, task: ChatTask) {
        self.in_graph = InGraph::There;
        self.core.set_retired(task.archived || !task.live);
        self.task = task;
    }
}

/// The daemon of one workspace.
#[derive(Debug)]
pub(crate) struct Daemon {
    workspace: Workspace,
    graph_seen: Mutex<GraphSeen>,
    config: RwLock<Arc<Config>>,
    chats: Mutex<BTreeMap<ChatId, Entry>>,
    numbers: unread::Inboxes,
    driver: OnceLock<Handle>,
    watch: OnceLock<InboxWatch>,
    queue: CommandQueue,
    turns: Turns,
    starts: Starts,
    groups: Groups,
    listeners: Listeners,
    events: Events,
    control: Sender<Control>,
    paused: AtomicBool,
    /// Until it is known which handlers of earlier daemons live on, and what dead ones left is ended, nothing is started.
    booting: AtomicBool,
    ending: AtomicBool,
    hurried: AtomicBool,
    /// Clients that asked for the end and are answered when it has come.
    goodbyes: Mutex<Vec<Answer>>,
    started_at: Timestamp,
}

impl Daemon {
    fn config(&self) -> Arc<Config> {
        Arc::clone(&self.config.read())
    }

    fn driver(&self) -> &Handle {
        self.driver
            .get()
            .expect("the driver starts before anything can ask for it")
    }

    /// Whether no handler may be started at all.
    fn starts_are_off(&self) -> bool {
        self.ending.load(Ordering::SeqCst)
            || self.paused.load(Ordering::SeqCst)
            || self.booting.load(Ordering::SeqCst)
    }

    /// How long a stop waits for the turn boundary.
    fn stop_grace(&self) -> Duration {
        if self.hurried.load(Ordering::SeqCst) {
            Duration::ZERO
        } else {
            self.config().service.stop_grace
        }
    }

    /// The marker of everything below one chat's handlers, or below any handler of this workspace.
    fn marker(&self, chat: Option<ChatId>) -> Marker {
        reap::marker(&self.workspace, chat)
    }

    /// The pure core's decision about one start; a chat that is not known is not needed.
    fn decide(&self, chat: ChatId, found: Findings, retry: bool) -> Decision {
        match self.chats.lock().get_mut(&chat) {
            Some(entry) => entry.core.decide(found, retry, clock::steady()),
            None => Decision::NotNeeded,
        }
    }

    /// Reads the inbox and tells the core; returns whether the chat is needed now.
    fn look(&self, chat: ChatId, dir: &Path) -> Result<Need, StoreError> {
        let unanswered = self.is_waited_for(chat, dir)?;
        let mut chats = self.chats.lock();
        let Some(entry) = chats.get_mut(&chat) else {
            return Ok(Need::Not(WhyNot::NobodyNeedsIt));
        };
        let now = clock::steady();
        // The acts are not carried out: whoever looks is about to decide by the answer.
        drop(entry.core.handle(Happened::Looked { unanswered }, now));
        Ok(entry.core.need(now))
    }

    /// Whether the chat is needed, if that can be told.
    fn need_now(&self, chat: ChatId) -> Option<Need> {
        let dir = resolve::session_dir(&self.workspace, chat, Make::No).ok()?;
        self.look(chat, &dir).ok()
    }

    /// The agent that serves a chat, from its task and the configuration.
    fn agent_of(&self, chat: ChatId) -> Result<AgentSpec, Failure> {
        let config = self.config();
        let task = self.chats.lock().get(&chat).map(|entry| entry.task.clone());
        match task {
            Some(task) => AgentSpec::for_chat(&config, &task),
            None => Err(
                Failure::new(ExitCode::Failed, format!("{chat} does not exist"))
                    .with_cure("wg chat list"),
            ),
        }
    }

    /// Counts the consumers that were connected to an earlier daemon, whose files are still held, as one.
    fn look_for_consumers(&self, chat: ChatId, dir: &Path) {
        if presence::count(dir) == 0 {
            return;
        }
        for act in self.told(chat, Happened::ConsumerCame(BY_FILE)) {
            // Whether it starts is decided with everything else that boot finds.
            if act == Act::PersistConsumerSeen {
                self.carry_out(chat, act);
            }
        }
    }

    /// Those consumers are asked for again before each decision: nothing tells when they go.
    fn look_whether_consumers_are_gone(&self, chat: ChatId, dir: &Path) {
        let counted = self
            .chats
            .lock()
            .get(&chat)
            .is_some_and(|entry| entry.core.has_consumer(BY_FILE));
        if counted && presence::count(dir) == 0 {
            self.act(chat, Happened::ConsumerLeft(BY_FILE));
        }
    }

    /// How many consumers a chat has now, as it is told: of those by their files the core hears only at its next decision that they are gone.
    fn consumers(&self, chat: ChatId, dir: Option<&Path>) -> usize {
        let (consumers, by_file) = self.chats.lock().get(&chat).map_or((0, false), |entry| {
            (entry.core.consumers(), entry.core.has_consumer(BY_FILE))
        });
        let are_gone = by_file && dir.is_some_and(|dir| presence::count(dir) == 0);
        consumers - usize::from(are_gone)
    }

    /// Takes what happened around a chat and does what follows.
    fn act(&self, chat: ChatId, happened: Happened) {
        for act in self.told(chat, happened) {
            self.carry_out(chat, act);
        }
    }

    /// As [`Daemon::act`], for a person's verb: the wish is on the disk before anything else is done about it.
    ///
    /// # Errors
    ///
    /// The wish could not be written down. The former one stands then, and nothing was started or ended.
    fn act_for(
        &self,
        chat: ChatId,
        happened: Happened,
        actor: &str,
        why: &str,
    ) -> Result<(), StoreError> {
        let wishing = self.wishing(chat);
        let _in_order = wishing.as_ref().map(|wishing| wishing.lock());
        let was = self.chats.lock().get(&chat).map(|entry| entry.core.wish());
        for act in self.told(chat, happened) {
            if let Act::PersistWish(wish) = act
                && let Err(e) = wishes::persist(&self.workspace, chat, wish, actor, why)
            {
                if let Some(was) = was {
                    self.act(chat, Happened::WishNotKept(was));
                }
                return Err(e);
            }
            self.carry_out(chat, act);
        }
        Ok(())
    }

    /// What is held while a wish for this chat is carried out, if the chat is known.
    fn wishing(&self, chat: ChatId) -> Option<Arc<Mutex<()>>> {
        let chats = self.chats.lock();
        chats.get(&chat).map(|entry| Arc::clone(&entry.wishing))
    }

    /// Tells the core of a chat what happened; returns what it wants done.
    fn told(&self, chat: ChatId, happened: Happened) -> Vec<Act> {
        match self.chats.lock().get_mut(&chat) {
            Some(entry) => entry.core.handle(happened, clock::steady()),
            None => Vec::new(),
        }
    }

    /// Does what a core wants; a wish has been written down by now.
    fn carry_out(&self, chat: ChatId, act: Act) {
        match act {
            Act::PersistWish(wish) => {
                self.refresh_task(chat);
                if wish == Wish::Run {
                    self.ensure_unit(chat);
                    self.driver().start(unit_of(chat));
                }
            }
            Act::PersistConsumerSeen => {
                // Elsewhere: neither the consumer nor a start waits for a process that has the file.
                let (workspace, now) = (self.workspace.clone(), clock::now());
                self.in_lane(&books::record_lane(chat), "consumer seen", move || {
                    let seen = ChatRecord::update(&workspace, chat, |record| {
                        record.last_consumer_at = record.last_consumer_at.max(Some(now));
                    });
                    if let Err(e) = seen {
                        log::warn!(
                            "{chat}: the consumer could not be written down: {}",
                            Failure::from(e)
                        );
                    }
                });
            }
            Act::Start(_) => {
                self.ensure_unit(chat);
                self.driver().wake(unit_of(chat));
            }
            Act::Unpark(_) => {
                self.ensure_unit(chat);
                self.driver().resume(unit_of(chat));
            }
            // Whoever wants to know when it is down asks the driver itself.
            Act::Stop => drop(self.driver().stop(unit_of(chat))),
        }
    }

    /// Gives the driver a machine for the chat, once.
    fn ensure_unit(&self, chat: ChatId) {
        if self.make_unit(chat)
            && let Ok(dir) = resolve::session_dir(&self.workspace, chat, Make::Yes)
        {
            self.watch(chat, &dir);
        }
    }

    /// As [`Daemon::ensure_unit`], where the session is, or would be.
    fn ensure_unit_in(&self, chat: ChatId, dir: &Path) {
        if !dir.is_dir() {
            self.ensure_unit(chat);
        } else if self.make_unit(chat) {
            self.watch(chat, dir);
        }
    }

    fn watch(&self, chat: ChatId, dir: &Path) {
        if let Some(watch) = self.watch.get() {
            watch.add(chat, dir);
        }
    }

    /// Gives the driver a machine for the chat; `false` if it has one.
    fn make_unit(&self, chat: ChatId) -> bool {
        let is_new = |entry: &Entry| !entry.has_unit;
        if !self.chats.lock().get(&chat).is_some_and(is_new) {
            return false;
        }
        // Read before the lock is taken again: whoever sees `has_unit` may speak to the unit, so it is there by then.
        let machine = self.machine_for(chat);
        let mut chats = self.chats.lock();
        let Some(entry) = chats.get_mut(&chat).filter(|entry| is_new(entry)) else {
            return false;
        };
        entry.has_unit = true;
        self.driver().add(unit_of(chat), machine);
        true
    }

    /// Reads the chat's task again after the graph changed.
    fn refresh_task(&self, chat: ChatId) {
        let Ok(loaded) = Graph::load(&self.workspace) else {
            return;
        };
        if let Some(task) = loaded
            .graph
            .chats()
            .into_iter()
            .find(|task| task.id == chat)
            && let Some(entry) = self.chats.lock().get_mut(&chat)
        {
            entry.heed(task);
        }
    }

    /// Takes a chat of the graph into account; one that is known already only has its task refreshed.
    fn admit(&self, task: ChatTask) {
        if let Some(entry) = self.chats.lock().get_mut(&task.id) {
            entry.heed(task);
            return;
        }
        let last = self.events.last_verdict(task.id);
        self.admit_new(task, last);
    }

    /// Takes a chat into account whose last ending was looked up already.
    fn admit_new(&self, task: ChatTask, last: Option<LastVerdict>) {
        let chat = task.id;
        let record = ChatRecord::load(&self.workspace, chat).unwrap_or_else(|e| {
            // Unknown is read as the safe wish: nothing starts until the file can be read.
            log::error!("{chat}: {}", Failure::from(e));
            ChatRecord {
                stopped_at: Some(clock::now()),
                wish_actor: Some(
                    "wg itself, because its state file is damaged (wg doctor)".to_owned(),
                ),
                ..ChatRecord::default()
            }
        });
        // What the graph alone says goes when the graph says otherwise.
        let mut core = Chat::new(wishes::of(&record, None));
        core.set_retired(task.archived || !task.live);
        let mut chats = self.chats.lock();
        // Somebody else may have met it in the meantime.
        if let Some(entry) = chats.get_mut(&chat) {
            entry.heed(task);
            return;
        }
        chats.insert(
            chat,
            Entry {
                core,
                task,
                in_graph: InGraph::There,
                handover: Handover::default(),
                not_now: None,
                last,
                reason: None,
                handler: None,
                serves: false,
                is_starting: false,
                told_later: Vec::new(),
                has_unit: false,
                replies: 0,
                unread: None,
                wishing: Arc::default(),
            },
        );
    }

    /// The chats that have a handler, as far as the driver told.
    fn served(&self) -> BTreeSet<ChatId> {
        let chats = self.chats.lock();
        let served = chats.iter().filter(|(_, entry)| entry.handler.is_some());
        served.map(|(chat, _)| *chat).collect()
    }

    /// Whether this is a service, and not the daemon of one verb, which starts nothing.
    fn is_a_service(&self) -> bool {
        self.watch.get().is_some()
    }

    /// A handler is about to be started for this reason.
    fn starting(&self, chat: ChatId, reason: StartReason) {
        if let Some(entry) = self.chats.lock().get_mut(&chat) {
            entry.reason = Some(reason);
            entry.is_starting = true;
        }
    }

    /// A handler and everything below it is gone, and this is what that meant.
    fn ended(&self, chat: ChatId, ended: &Ended, verdict: &Verdict) {
        for process in &ended.leftovers.ended {
            let text = format!(
                "ended `{}` (pid {}), left behind by handler {}",
                process.name, process.pid, ended.pid
            );
            log::info!("Coordinator-{}: {text}", chat.0);
            self.events.write(EventLine {
                pid: Some(process.pid),
                ..EventLine::new(Some(chat), EventKind::OrphanEnded, text)
            });
        }
        let mut last = LastVerdict::of(verdict, ended.pid);
        if let Some(agent) = self.agent_ending(chat, ended.pid) {
            last.evidence.insert("agent".to_owned(), agent.into());
        }
        log::info!(
            "Coordinator-{}: nex subprocess exited (pid {}): {}",
            chat.0,
            ended.pid,
            last.text
        );
        if let Some(entry) = self.chats.lock().get_mut(&chat) {
            entry.last = Some(last.clone());
        }
        self.events.write(EventLine {
            pid: Some(ended.pid),
            verdict: Some(last.to_event()),
            ..EventLine::new(Some(chat), EventKind::Exited, last.text.clone())
        });
    }

    /// How the last agent of this handler ended, as the handler noted it before it left.
    fn agent_ending(&self, chat: ChatId, pid: u32) -> Option<String> {
        let dir = resolve::session_dir(&self.workspace, chat, Make::No).ok()?;
        let note = ExitRecord::read(&dir).ok().flatten()?;
        // A number comes back; the nonce of a spawn does not.
        let spawn = ChatRecord::load(&self.workspace, chat).ok()?.spawn?;
        let is_its = note.pid == pid && note.nonce.as_deref() == Some(spawn.nonce.as_str());
        note.agent.filter(|_| is_its).map(|agent| agent.ending)
    }

    /// Takes note of what a machine has to tell.
    fn notice(&self, chat: ChatId, notice: &Notice) {
        let reason = {
            let mut chats = self.chats.lock();
            let entry = chats.get_mut(&chat);
            if let Some(entry) = entry {
                entry.handover.heed(notice);
                entry.not_now = if let Notice::NotNow { reason, .. } = notice {
                    Some(reason.clone())
                } else {
                    None
                };
                if let Notice::Spawned { pid, .. } | Notice::Adopted { pid, .. } = notice {
                    entry.handler = Some(*pid);
                    entry.serves = matches!(notice, Notice::Adopted { .. });
                } else if let Notice::Exited { .. } = notice {
                    entry.handler = None;
                }
                entry.reason
            } else {
                None
            }
        };
        let need = matches!(notice, Notice::Backoff { .. }).then(|| self.need_now(chat));
        self.events.notice(chat, notice, reason, need.flatten());
        if telling::follows_a_decision(notice) {
            self.tell_the_rest(chat);
        }
        if starts::ends_a_start(notice) {
            self.start_is_over(chat);
        }
        if let Notice::Backoff { .. } = notice {
            // A person who waited for it may have been faster than this notice.
            self.session_may_be_taken(chat);
        }
        // Where starts are off that is no news, and whoever turns them on wakes every chat: to look again now would be to ask
        // and be told without end.
        if matches!(notice, Notice::Idle) && !self.starts_are_off() {
            // A message may have come between the handler's last look and its end.
            self.inbox_changed(chat);
        }
    }

    fn event(&self, kind: EventKind, chat: Option<ChatId>, text: &str) {
        self.events.write(EventLine::new(chat, kind, text));
    }

    /// Somebody wrote to a session's files.
    fn file_changed(&self, chat: ChatId, what: Changed) {
        // First, because it costs nothing and somebody waits for it.
        self.wake_handlers(chat, what);
        match what {
            Changed::Inbox => self.inbox_changed(chat),
            Changed::Outbox => self.outbox_changed(chat),
            // A record is published by whoever has just taken the session.
            Changed::Lock => {
                if let Some(entry) = self.chats.lock().get_mut(&chat) {
                    entry.serves = true;
                }
                self.start_is_over(chat);
                self.session_may_be_taken(chat);
            }
            // The handler's matter alone.
            Changed::Release => {}
            Changed::Marker | Changed::Anything => {
                self.inbox_changed(chat);
                self.outbox_changed(chat);
            }
        }
    }

    fn inbox_changed(&self, chat: ChatId) {
        let Ok(dir) = resolve::session_dir(&self.workspace, chat, Make::No) else {
            return;
        };
        match self.is_waited_for(chat, &dir) {
            Ok(unanswered) => self.act(chat, Happened::Looked { unanswered }),
            Err(e) => {
                log::warn!("{chat}: {}", Failure::from(e));
                // There may be a message in what cannot be read: the start that follows asks again until it can be.
                self.act(chat, Happened::Looked { unanswered: true });
            }
        }
    }

    fn outbox_changed(&self, chat: ChatId) {
        let Ok(dir) = resolve::session_dir(&self.workspace, chat, Make::No) else {
            return;
        };
        let Ok(last) = messages::last_id(&dir, messages::Side::Outbox) else {
            return;
        };
        let finished = self.chats.lock().get_mut(&chat).is_some_and(|entry| {
            let more = last > entry.replies;
            entry.replies = entry.replies.max(last);
            more && entry.has_unit
        });
        if finished {
            self.driver().progress(unit_of(chat));
        }
        self.inbox_changed(chat);
    }

    /// Where the chat's machine stands, if it has one.
    fn machine_state(&self, chat: ChatId) -> Option<State> {
        self.driver().state(unit_of(chat), QUERY).ok().flatten()
    }

    /// Ends what a dead handler of this chat left with its lock; returns how many processes that were.
    fn end_borrowers(&self, chat: ChatId) -> usize {
        match resolve::session_dir(&self.workspace, chat, Make::No) {
            Ok(dir) => self.end_borrowers_in(chat, &dir),
            Err(_) => 0,
        }
    }

    /// As [`Daemon::end_borrowers`], where the session is.
    fn end_borrowers_in(&self, chat: ChatId, dir: &Path) -> usize {
        let ended = reap::end_inheritors(dir, BORROWERS, &mut |pid| self.is_exempt(pid));
        for process in &ended {
            let text = format!(
                "ended pid {} ({}), left behind with the session lock by a dead handler",
                process.pid, process.name
            );
            log::info!("Coordinator-{}: {text}", chat.0);
            self.events.write(EventLine {
                pid: Some(process.pid),
                ..EventLine::new(Some(chat), EventKind::OrphanEnded, text)
            });
        }
        ended.len()
    }

    /// Whether no sweep may touch this process: it holds a service lock or another session's lock.
    fn is_exempt(&self, pid: u32) -> bool {
        !self
            .chats
            .lock()
            .values()
            .any(|entry| entry.handler == Some(pid))
            && lock_holders::holds_a_lock(pid)
    }
}
