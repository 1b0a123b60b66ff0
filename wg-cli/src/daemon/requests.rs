//! What each request does. Quick ones are answered on the thread that read them. Whatever may wait for a process
//! runs in the chat's own `command:` lane, so that a stop, an archive and a start of one chat never interleave; whatever may wait for the
//! lock of a file, in a lane of that file (`inbox:`, `presence:`, `graph`). A slow one delays nobody else.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use command_queue::SubmitOptions;
use serde::Serialize;
use serde_json::{Value, json};

use super::graph_seen::InGraph;
use super::host::unit_of;
use super::{Daemon, explain, lanes, local, purge};
use crate::chat::{Happened, Wish};
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::ipc::protocol::{EARLIER_LIST, OneChat, PROTOCOL_VERSION, Reply, Request};
use crate::ipc::server::{Answer, ConnectionId, Service, Standing};
use crate::names::EventKind;
use crate::ops::{ChatChange, Ended, PurgeOptions, SendOptions};
use crate::patience::Patience;
use crate::store::config::Config;
use crate::store::files::Durability;
use crate::store::graph::{ChatId, Graph};

/// How long the ladder of one chat may take, beyond its own graces.
const LADDER: Duration = Duration::from_secs(120);

/// Who asks, where a client does not say.
const SOMEBODY: &str = "somebody over the socket";

/// The daemon as the IPC server sees it.
#[derive(Debug)]
pub(super) struct Requests {
    daemon: Arc<Daemon>,
    consumers: parking_lot::Mutex<std::collections::BTreeMap<ConnectionId, Vec<ChatId>>>,
}

impl Requests {
    pub(super) fn new(daemon: Arc<Daemon>) -> Self {
        Self {
            daemon,
            consumers: parking_lot::Mutex::default(),
        }
    }
}

impl Service for Requests {
    fn request(&self, from: ConnectionId, line: &[u8], answer: Answer) {
        let request: Request = match serde_json::from_slice(line) {
            Ok(request) => request,
            Err(e) => {
                answer.send(&Reply::Err {
                    error: format!("Invalid request: {e}"),
                    code: ExitCode::Usage.code(),
                });
                return;
            }
        };
        let daemon = &self.daemon;
        match request {
            Request::Attach { chat_id, consumer } => {
                let chat = ChatId(chat_id);
                if let Err(unknown) = daemon.known(chat) {
                    answer.send(&reply::<()>(Err(unknown)));
                    return;
                }
                self.consumers.lock().entry(from).or_default().push(chat);
                log::debug!(
                    "{chat}: consumer {} came",
                    consumer.as_deref().unwrap_or("unnamed")
                );
                // Its leave takes the same lane, so the two are written down in their order.
                let of = Arc::clone(daemon);
                daemon.in_lane(&presence(chat), "attach", move || {
                    of.act(chat, Happened::ConsumerCame(from.0));
                    answer.send(&reply(Ok(of.row(chat))));
                });
            }
            Request::Subscribe { chat_id } => {
                daemon.events.subscribe(from, chat_id.map(ChatId));
                answer.send(&Reply::of(json!({ "subscribed": true })));
            }
            Request::Listen { chat_id } => {
                let listening = daemon.listen(from, ChatId(chat_id));
                answer.send(&reply(listening.map(|()| json!({ "listening": true }))));
            }
            Request::TurnBegin {
                chat_id,
                message_id,
            } => {
                let queued = daemon.turn_begin(from, ChatId(chat_id), message_id);
                answer.send(&reply(
                    queued.map(|ahead| json!({ "queued": true, "ahead": ahead })),
                ));
            }
            Request::TurnWaits {
                chat_id,
                message_id,
                reason,
            } => {
                daemon.turn_waits(from, ChatId(chat_id), message_id, &reason);
                answer.send(&Reply::of(json!({})));
            }
            Request::TurnResume {
                chat_id,
                message_id,
                ..
            } => {
                let resumed = daemon.turn_resume(from, ChatId(chat_id), message_id);
                answer.send(&reply(resumed.map(|()| json!({ "resumed": true }))));
            }
            Request::TurnProgress {
                chat_id,
                message_id,
            } => {
                daemon.turn_progress(from, ChatId(chat_id), message_id);
                answer.send(&Reply::of(json!({})));
            }
            Request::TurnEnd {
                chat_id,
                message_id,
            } => {
                daemon.turn_end(from, ChatId(chat_id), message_id);
                answer.send(&Reply::of(json!({})));
            }
            Request::Shutdown {
                force,
                keep_handlers,
            } => daemon.end_for(force, keep_handlers, answer),
            Request::Hello { .. }
            | Request::Status
            | Request::UserChat { .. }
            | Request::CreateChat(_)
            | Request::ArchiveChat(_)
            | Request::DeleteChat(_)
            | Request::StopChat(_)
            | Request::ResumeChat(_)
            | Request::RestoreChat(_)
            | Request::InterruptChat(_)
            | Request::ListChats
            | Request::PurgeChats { .. }
            | Request::SetChatExecutor { .. }
            | Request::Explain(_)
            | Request::ReleaseChat(_)
            | Request::Reload
            | Request::Pause
            | Request::Resume => daemon.dispatch(from, request, answer),
        }
    }

    fn closed(&self, connection: ConnectionId) {
        self.daemon.events.unsubscribe(connection);
        self.daemon.listeners.closed(connection);
        for chat in self.daemon.turns.closed(connection) {
            log::debug!("{chat}: the turn of a handler that is gone was given back");
        }
        let chats = self
            .consumers
            .lock()
            .remove(&connection)
            .unwrap_or_default();
        if chats.is_empty() {
            return;
        }
        // Written down elsewhere: this is the polling thread.
        for chat in chats {
            let daemon = Arc::clone(&self.daemon);
            self.daemon.in_lane(&presence(chat), "leave", move || {
                daemon.act(chat, Happened::ConsumerLeft(connection.0));
            });
        }
    }

    fn standing(&self, connection: ConnectionId) -> Standing {
        if self.daemon.turns.is_handler(connection) || self.daemon.listeners.is_handler(connection)
        {
            Standing::Handler
        } else if self.consumers.lock().contains_key(&connection)
            || self.daemon.events.is_subscribed(connection)
        {
            Standing::Watcher
        } else {
            Standing::Caller
        }
    }
}

/// The lane in which the comings and goings of a chat's consumers are written down.
fn presence(chat: ChatId) -> String {
    format!("presence:{}", chat.0)
}

impl Daemon {
    #[expect(
        clippy::too_many_lines,
        reason = "one arm for each request, side by side"
    )]
    fn dispatch(self: &Arc<Self>, from: ConnectionId, request: Request, answer: Answer) {
        match request {
            Request::Hello { .. } => answer.send(&Reply::of(json!({
                "version": PROTOCOL_VERSION,
                "daemon_version": env!("CARGO_PKG_VERSION"),
                "pid": std::process::id(),
                "capabilities": ["attach", "subscribe", "explain", "listen"],
            }))),
            Request::Status => answer.send(&reply(Ok(self.status()))),
            Request::ListChats => {
                let rows = self.rows();
                answer.send(&Reply::of(json!({ EARLIER_LIST: rows, "chats": rows })));
            }
            Request::UserChat {
                message,
                request_id,
                attachments,
                chat_id,
                user,
                patience_ms,
            } => {
                let patience = patience_ms.map_or(Patience::Forever, |ms| {
                    Patience::For(Duration::from_millis(ms)).begun()
                });
                let options = SendOptions {
                    request_id,
                    durability: Durability::Sync,
                    user,
                    patience,
                };
                let chat = ChatId(chat_id);
                let daemon = Arc::clone(self);
                self.in_lane(&format!("inbox:{}", chat.0), "send", move || {
                    answer.send(&reply(daemon.user_chat(
                        chat,
                        &message,
                        attachments,
                        &options,
                    )));
                });
            }
            Request::CreateChat(wanted) => {
                let daemon = Arc::clone(self);
                self.in_lane(lanes::GRAPH, "create", move || {
                    answer.send(&reply(daemon.create_chat(&wanted)));
                });
            }
            Request::Explain(OneChat { chat_id, .. }) => {
                let chat = ChatId(chat_id);
                answer.send(&reply(
                    self.known(chat).map(|()| explain::explain(self, chat)),
                ));
            }
            Request::StopChat(one) => self.command("stop", &one, answer, |daemon, chat, actor| {
                daemon.forbid(chat, Happened::Stop, actor, "stopped by a person")
            }),
            Request::ArchiveChat(one) => {
                self.command("archive", &one, answer, |daemon, chat, actor| {
                    daemon.forbid(chat, Happened::Archive, actor, "archived by a person")
                });
            }
            Request::DeleteChat(one) => {
                self.command("delete", &one, answer, |daemon, chat, actor| {
                    let change =
                        daemon.forbid(chat, Happened::Archive, actor, "deleted by a person")?;
                    Graph::edit(&daemon.workspace, |graph| {
                        graph.delete(chat, actor, "deleted by a person")
                    })?;
                    daemon.refresh_task(chat);
                    Ok(ChatChange {
                        text: format!("deleted {chat}; its history stays where it is"),
                        ..change
                    })
                });
            }
            Request::ResumeChat(one) => {
                self.command("resume", &one, answer, |daemon, chat, actor| {
                    daemon.resume(chat, actor)
                });
            }
            Request::RestoreChat(one) => {
                self.command("restore", &one, answer, |daemon, chat, actor| {
                    daemon.restore(chat, actor)
                });
            }
            Request::InterruptChat(OneChat { chat_id, .. }) => {
                answer.send(&reply(self.interrupt(ChatId(chat_id))));
            }
            Request::ReleaseChat(OneChat { chat_id, actor }) => {
                let released = self.known(ChatId(chat_id)).map(|()| {
                    let actor = actor.as_deref().unwrap_or(SOMEBODY);
                    self.released(ChatId(chat_id), actor);
                    json!({ "chat_id": chat_id, "held_off": true })
                });
                answer.send(&reply(released));
            }
            Request::PurgeChats {
                include_active,
                include_self,
                dry_run,
                force_unproven,
                caller_chat_id,
                progress,
            } => {
                let daemon = Arc::clone(self);
                self.in_lane("purge", "purge", move || {
                    let options = PurgeOptions {
                        include_active,
                        include_self,
                        dry_run,
                        force_unproven,
                        caller: crate::ops::Caller {
                            actor: "purge-chats".to_owned(),
                            user: String::new(),
                            chat: caller_chat_id.map(|n| ChatId(n).to_string()),
                        },
                    };
                    let purged = purge::purge(
                        &daemon,
                        &options,
                        caller_chat_id.map(ChatId),
                        &mut |done, total| {
                            if progress {
                                let line = json!({ "event": "purge_progress", "done": done, "total": total });
                                daemon.events.push_to(from, format!("{line}\n").into_bytes().into());
                            }
                        },
                    );
                    daemon.events.settle();
                    answer.send(&reply(purged));
                });
            }
            Request::SetChatExecutor {
                chat_id,
                executor,
                model,
            } => {
                let daemon = Arc::clone(self);
                self.in_lane(lanes::GRAPH, "set executor", move || {
                    answer.send(&reply(daemon.set_executor(
                        ChatId(chat_id),
                        executor.as_deref(),
                        model.as_deref(),
                    )));
                });
            }
            Request::Reload => answer.send(&reply(self.reload())),
            Request::Pause => {
                self.paused.store(true, Ordering::SeqCst);
                answer.send(&Reply::of(json!({ "paused": true })));
            }
            Request::Resume => {
                self.paused.store(false, Ordering::SeqCst);
                for chat in self.units() {
                    // Asked afresh, each decides by its own inbox and lock.
                    self.driver().wake(unit_of(chat));
                }
                answer.send(&Reply::of(json!({ "paused": false })));
            }
            // Handled where the connection is known.
            Request::Attach { .. }
            | Request::Subscribe { .. }
            | Request::Shutdown { .. }
            | Request::Listen { .. }
            | Request::TurnBegin { .. }
            | Request::TurnWaits { .. }
            | Request::TurnProgress { .. }
            | Request::TurnEnd { .. }
            | Request::TurnResume { .. } => {
                drop(answer);
            }
        }
    }

    /// Runs work in a lane of its own, out of the way of everything else. `what` is what the status calls it.
    pub(super) fn in_lane(&self, lane: &str, what: &str, work: impl FnOnce() + Send + 'static) {
        let options = SubmitOptions::foreground().labelled(what);
        let submitted = self.queue.submit_detached(lane, options, move |_| work());
        if let Err(e) = submitted {
            // The work is dropped with its answer, which tells the client.
            log::error!("lane {lane} takes no work: {e}");
        }
    }

    fn command(
        self: &Arc<Self>,
        verb: &str,
        one: &OneChat,
        answer: Answer,
        work: impl FnOnce(&Arc<Self>, ChatId, &str) -> Result<ChatChange, Failure> + Send + 'static,
    ) {
        let chat = ChatId(one.chat_id);
        if let Err(unknown) = self.known(chat) {
            answer.send(&reply::<()>(Err(unknown)));
            return;
        }
        let actor = one.actor.clone().unwrap_or_else(|| SOMEBODY.to_owned());
        let daemon = Arc::clone(self);
        self.in_lane(&format!("command:{}", chat.0), verb, move || {
            let done = work(&daemon, chat, &actor);
            daemon.events.settle();
            answer.send(&reply(done));
        });
    }

    /// Says whether the chat exists; one that another tool just added to the graph is taken in.
    pub(super) fn known(&self, chat: ChatId) -> Result<(), Failure> {
        if self.in_graph(chat) != InGraph::Gone {
            return Ok(());
        }
        let loaded = Graph::load(&self.workspace)?;
        match loaded
            .graph
            .chats()
            .into_iter()
            .find(|task| task.id == chat)
        {
            Some(task) => {
                self.admit(task);
                Ok(())
            }
            None => Err(local::unknown(&self.workspace, &loaded.graph, chat)),
        }
    }

    fn create_chat(
        &self,
        wanted: &crate::ipc::protocol::NewChatRequest,
    ) -> Result<crate::ops::CreatedChat, Failure> {
        let mut made = local::create_chat(&self.workspace, wanted, true)?;
        let chat = ChatId(made.chat_id);
        self.known(chat)?;
        self.ensure_unit(chat);
        made.state = self.chat_state(chat);
        Ok(made)
    }

    fn user_chat(
        &self,
        chat: ChatId,
        message: &str,
        attachments: Vec<Value>,
        options: &SendOptions,
    ) -> Result<crate::ops::Sent, Failure> {
        self.known(chat)?;
        self.ensure_unit(chat);
        let mut sent = local::append(&self.workspace, chat, message, attachments, options, true)?;
        self.act(chat, Happened::Looked { unanswered: true });
        sent.state = self.chat_state(chat);
        sent.note = local::note(chat, sent.state);
        Ok(sent)
    }

    /// Carries out a wish against running, and waits until nothing is left of the handler.
    pub(super) fn forbid(
        self: &Arc<Self>,
        chat: ChatId,
        happened: Happened,
        actor: &str,
        why: &str,
    ) -> Result<ChatChange, Failure> {
        let before = self.chats.lock().get(&chat).map(|entry| entry.core.wish());
        self.act_for(chat, happened, actor, why)
            .map_err(|e| unwritten(chat, e))?;
        let down = self
            .driver()
            .stop(unit_of(chat))
            .wait(self.stop_grace() * 3 + LADDER)
            .map_err(|e| {
                Failure::new(ExitCode::System, format!("{chat} is not down yet"))
                    .caused_by(e)
                    .with_cure(format!("wg why {chat}"))
            })?;
        let now = self.chats.lock().get(&chat).map(|entry| entry.core.wish());
        if before != now {
            let kind = match now {
                Some(Wish::Archived) => EventKind::Archived,
                Some(Wish::Purged) => EventKind::Purged,
                Some(Wish::Run | Wish::Stopped) | None => EventKind::Stopped,
            };
            self.event(kind, Some(chat), &format!("{why} ({actor})"));
        }
        let ended = Ended::of(
            usize::from(down.was_running),
            down.report.ended.len() + self.end_borrowers(chat),
        );
        let mut text = match now {
            Some(Wish::Archived | Wish::Purged) => {
                format!("archived {chat}; its history stays where it is")
            }
            Some(Wish::Run | Wish::Stopped) | None => {
                format!("stopped {chat}; it stays down until wg chat resume {chat}")
            }
        };
        if !down.report.survivors.is_empty() {
            let names: Vec<String> = down
                .report
                .survivors
                .iter()
                .map(|process| format!("{} ({})", process.pid, process.name))
                .collect();
            return Err(Failure::new(
                ExitCode::System,
                format!(
                    "{chat}: not everything could be ended: {}",
                    names.join(", ")
                ),
            ));
        }
        if let Some(words) = ended.in_words() {
            text = format!("{text}, {words}");
        }
        if down.report.best_effort() {
            let unseen = down.report.unreadable;
            text = format!("{text}; best effort: {unseen} processes could not be looked into");
        }
        Ok(self.change(chat, before != now || down.was_running, ended, text))
    }

    fn resume(&self, chat: ChatId, actor: &str) -> Result<ChatChange, Failure> {
        let before = self.chats.lock().get(&chat).map(|entry| entry.core.wish());
        if let Some(Wish::Archived | Wish::Purged) = before {
            return Err(
                Failure::new(ExitCode::Failed, format!("{chat} is archived"))
                    .with_cure(format!("wg chat restore {chat}")),
            );
        }
        let parked = matches!(
            self.machine_state(chat),
            Some(supervisor::State::Parked { .. })
        );
        self.act_for(chat, Happened::Resume, actor, "resumed by a person")
            .map_err(|e| unwritten(chat, e))?;
        Ok(self.change(
            chat,
            before == Some(Wish::Stopped) || parked,
            Ended::default(),
            format!("resumed {chat}"),
        ))
    }

    fn restore(&self, chat: ChatId, actor: &str) -> Result<ChatChange, Failure> {
        let before = self.chats.lock().get(&chat).map(|entry| entry.core.wish());
        self.act_for(chat, Happened::Restore, actor, "restored by a person")
            .map_err(|e| unwritten(chat, e))?;
        let changed = before != Some(Wish::Run);
        if changed {
            self.event(
                EventKind::Restored,
                Some(chat),
                &format!("restored by {actor}"),
            );
        }
        let text = if changed {
            format!("restored {chat}")
        } else {
            format!("{chat} was not retired")
        };
        Ok(self.change(chat, changed, Ended::default(), text))
    }

    fn interrupt(&self, chat: ChatId) -> Result<ChatChange, Failure> {
        self.known(chat)?;
        local::interrupt(&self.workspace, chat, "daemon").map(|change| ChatChange {
            state: self.chat_state(chat),
            ..change
        })
    }

    fn set_executor(
        &self,
        chat: ChatId,
        executor: Option<&str>,
        model: Option<&str>,
    ) -> Result<ChatChange, Failure> {
        self.known(chat)?;
        let change = local::set_executor(&self.workspace, chat, executor, model)?;
        self.refresh_task(chat);
        self.driver().config_changed(unit_of(chat));
        Ok(ChatChange {
            state: self.chat_state(chat),
            ..change
        })
    }

    fn reload(&self) -> Result<Value, Failure> {
        let config = Config::put_in_force(&self.workspace)?;
        *self.config.write() = Arc::new(config);
        super::turns::configure(&self.queue, &self.config());
        super::starts::configure(&self.queue, &self.config()).map_err(|e| {
            Failure::new(ExitCode::Bug, "the lane of starts cannot be changed").caused_by(e)
        })?;
        let policy = crate::wire::policy(&self.config());
        let chats = self.units();
        for chat in &chats {
            self.driver().set_policy(unit_of(*chat), policy.clone());
            self.driver().config_changed(unit_of(*chat));
        }
        log::info!(
            "the configuration was read again; {} chats heed it",
            chats.len()
        );
        Ok(json!({ "status": "reloaded", "chats": chats.len() }))
    }

    pub(super) fn change(
        &self,
        chat: ChatId,
        changed: bool,
        ended: Ended,
        text: String,
    ) -> ChatChange {
        ChatChange {
            chat_id: chat.0,
            task_id: chat.task_id(),
            changed,
            state: self.chat_state(chat),
            ended,
            text,
        }
    }
}

/// A wish that is not on the disk does not hold, and whoever asked is told so.
fn unwritten(chat: ChatId, error: crate::store::StoreError) -> Failure {
    let cause = Failure::from(error);
    Failure::new(
        cause.code,
        format!("{chat} stays as it was: the wish could not be written down"),
    )
    .caused_by(cause)
}

fn reply<T: Serialize>(outcome: Result<T, Failure>) -> Reply {
    match outcome {
        Ok(value) => match serde_json::to_value(value) {
            Ok(value) => Reply::of(value),
            Err(e) => Reply::Err {
                error: format!("the reply cannot be written: {e}"),
                code: ExitCode::Bug.code(),
            },
        },
        Err(failure) => Reply::Err {
            error: failure.to_string(),
            code: failure.code.code(),
        },
    }
}
