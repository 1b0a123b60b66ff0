//! Requests and replies. Field and verb names are shared with the earlier tool, whose aliases are accepted.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The version that a `hello` carries; a newer daemon still serves `status` and `shutdown` to an older one.
pub const PROTOCOL_VERSION: u32 = 1;

/// What a client may ask of the daemon.
///
/// One line of JSON, tagged by `cmd`; optional fields may be absent. `coordinator_id` is accepted for
/// `chat_id`, and `*_coordinator` for `*_chat`, as earlier clients write them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "cmd", rename_all = "snake_case")]
pub enum Request {
    /// Opens a conversation: the reply carries the daemon's version and capabilities.
    Hello {
        /// The client's protocol version.
        #[serde(default)]
        version: u32,
        /// What the client understands beyond the version.
        #[serde(default)]
        capabilities: Vec<String>,
    },
    /// Asks how the service and its chats are.
    Status,
    /// Ends the daemon.
    Shutdown {
        /// Skips the grace of the stop ladder.
        #[serde(default)]
        force: bool,
        /// Leaves the handlers for the next daemon to adopt.
        #[serde(default)]
        keep_handlers: bool,
    },
    /// Appends a message to a chat's inbox and wakes the chat.
    UserChat {
        /// The text.
        message: String,
        /// The sender's own name for this message; its reply bears the same.
        #[serde(default)]
        request_id: Option<String>,
        /// Files that go with the message, as the earlier tool writes them.
        #[serde(default)]
        attachments: Vec<Value>,
        /// The chat.
        #[serde(default, alias = "coordinator_id")]
        chat_id: u32,
        /// Who sends.
        #[serde(default)]
        user: Option<String>,
        /// For how many milliseconds the sender waits to hear that it was accepted: after that it is not.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        patience_ms: Option<u64>,
    },
    /// Makes a chat.
    #[serde(alias = "create_coordinator")]
    CreateChat(NewChatRequest),
    /// Ends a chat's handler and retires the chat; its history stays.
    #[serde(alias = "archive_coordinator")]
    ArchiveChat(OneChat),
    /// Ends a chat's handler and abandons the chat's task.
    #[serde(alias = "delete_coordinator")]
    DeleteChat(OneChat),
    /// Ends a chat's handler; it stays down until it is resumed.
    #[serde(alias = "stop_coordinator")]
    StopChat(OneChat),
    /// Lifts a stop or a park.
    ResumeChat(OneChat),
    /// Brings an archived or purged chat back.
    RestoreChat(OneChat),
    /// Ends the turn in flight, not the chat.
    #[serde(alias = "interrupt_coordinator")]
    InterruptChat(OneChat),
    /// Lists the chats with their true states.
    #[serde(alias = "list_coordinators")]
    ListChats,
    /// Archives every chat and ends every handler, with proof.
    PurgeChats {
        /// Also purges chats in a turn or with a consumer; earlier clients leave it out, which means no.
        #[serde(default)]
        include_active: bool,
        /// Also purges the chat that the caller runs in.
        #[serde(default)]
        include_self: bool,
        /// Says what would be done.
        #[serde(default)]
        dry_run: bool,
        /// Signals holders that could not be proven ours, too.
        #[serde(default)]
        force_unproven: bool,
        /// The chat that the caller runs in.
        #[serde(default)]
        caller_chat_id: Option<u32>,
        /// Tells how far it is: lines `{"event":"purge_progress","done":…,"total":…}` before the answer.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        progress: bool,
    },
    /// Changes the agent of a chat.
    #[serde(alias = "set_coordinator_executor")]
    SetChatExecutor {
        /// The chat.
        #[serde(alias = "coordinator_id")]
        chat_id: u32,
        /// The agent's name.
        #[serde(default)]
        executor: Option<String>,
        /// The model, recorded for agents that take one.
        #[serde(default)]
        model: Option<String>,
    },
    /// Says why a chat is in the state it is in.
    Explain(OneChat),
    /// Makes this connection a consumer of the chat until it closes.
    Attach {
        /// The chat.
        #[serde(alias = "coordinator_id")]
        chat_id: u32,
        /// What the consumer calls itself.
        #[serde(default)]
        consumer: Option<String>,
    },
    /// Streams events over this connection.
    Subscribe {
        /// Only this chat's events.
        #[serde(default, alias = "coordinator_id")]
        chat_id: Option<u32>,
    },
    /// A handler wants to hear over this connection when there may be something to do: a line with `"event":"wake"` each time.
    Listen {
        /// The chat.
        chat_id: u32,
    },
    /// A handler wants to begin a turn. The reply says how many are ahead; a line with `"event":"turn_granted"` follows.
    TurnBegin {
        /// The chat.
        chat_id: u32,
        /// The message of the inbox that is to be answered.
        message_id: u64,
    },
    /// A handler wants to begin a turn, and waits for something else before it may ask for it.
    TurnWaits {
        /// The chat.
        chat_id: u32,
        /// The message of the inbox that is to be answered.
        message_id: u64,
        /// For what, such as `directory held by chat-2`.
        reason: String,
    },
    /// The agent of a turn showed a sign of life.
    TurnProgress {
        /// The chat.
        chat_id: u32,
        /// The message.
        message_id: u64,
    },
    /// A turn is over.
    TurnEnd {
        /// The chat.
        chat_id: u32,
        /// The message.
        message_id: u64,
    },
    /// A turn was running before this daemon; it keeps its slot.
    TurnResume {
        /// The chat.
        chat_id: u32,
        /// The message.
        message_id: u64,
        /// Since when, RFC 3339.
        #[serde(default)]
        started_at: Option<String>,
    },
    /// A chat's handler was asked to leave for a person: hold off, so that the person gets the lock.
    ReleaseChat(OneChat),
    /// Reads the configuration again; a bad file leaves the old one in force.
    #[serde(alias = "reconfigure")]
    Reload,
    /// Starts no further handler until `resume`.
    Pause,
    /// Lifts a pause.
    Resume,
}

/// A request about one chat.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OneChat {
    /// The chat.
    #[serde(alias = "coordinator_id")]
    pub chat_id: u32,
    /// Who asks, for the record of the decision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor: Option<String>,
}

/// The fields of a new chat.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewChatRequest {
    /// The chat's number, where the caller wants a certain one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<u32>,
    /// A name for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The model, recorded for agents that take one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The agent: a preset or an `[agents.NAME]` of the configuration.
    #[serde(default, skip_serializing_if = "Option::is_none", alias = "agent")]
    pub executor: Option<String>,
    /// The endpoint, recorded for agents that take one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// A command line for the shell, instead of an agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// The agent's working directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    /// Who asks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
}

/// An answer: `{"ok":true, …}` or `{"ok":false,"error":"…"}`.
#[derive(Debug, Clone, PartialEq)]
pub enum Reply {
    /// Done; the fields stand beside `ok`.
    Ok(Map<String, Value>),
    /// Refused, with the sentence for the person and the exit code that `wg` ends with.
    Err {
        /// One sentence with cause and cure.
        error: String,
        /// The exit code of the table, see [`crate::exit_code::ExitCode`].
        code: u8,
    },
}

/// The list of chats, as the earlier tool calls it.
pub const EARLIER_LIST: &str = "coordinators";

/// Adds the earlier name of a chat's number.
fn name_twice(map: &mut Map<String, Value>) {
    if let Some(id) = map.get("chat_id").filter(|id| id.is_u64()).cloned() {
        map.entry("coordinator_id").or_insert(id);
    }
}

impl Reply {
    /// An `ok` reply with the fields of `value`, which must be an object; any other value stands under `data`.
    #[must_use]
    pub fn of(value: Value) -> Self {
        match value {
            Value::Object(map) => Self::Ok(map),
            other @ (Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::String(_)
            | Value::Array(_)) => Self::Ok(Map::from_iter([("data".to_owned(), other)])),
        }
    }

    /// The line to send, with its line feed. A chat is named in it by both names, as earlier clients expect it.
    #[must_use]
    pub fn to_line(&self) -> Vec<u8> {
        let mut map = Map::new();
        match self {
            Self::Ok(fields) => {
                map.insert("ok".into(), Value::Bool(true));
                map.extend(fields.clone());
                name_twice(&mut map);
                if let Some(Value::Array(rows)) = map.get_mut(EARLIER_LIST) {
                    let rows = rows.iter_mut().filter_map(Value::as_object_mut);
                    rows.for_each(name_twice);
                }
            }
            Self::Err { error, code } => {
                map.insert("ok".into(), Value::Bool(false));
                map.insert("error".into(), Value::String(error.clone()));
                map.insert("code".into(), Value::from(*code));
            }
        }
        let mut line = Value::Object(map).to_string().into_bytes();
        line.push(b'\n');
        line
    }

    /// Reads a reply line.
    ///
    /// # Errors
    ///
    /// A sentence that says what is not a reply about it.
    pub fn parse(line: &[u8]) -> Result<Self, String> {
        let value: Value =
            serde_json::from_slice(line).map_err(|e| format!("the reply is not JSON: {e}"))?;
        let Value::Object(mut map) = value else {
            return Err("the reply is not a JSON object".to_owned());
        };
        match map.shift_remove("ok") {
            Some(Value::Bool(true)) => Ok(Self::Ok(map)),
            Some(Value::Bool(false)) => Ok(Self::Err {
                error: map
                    .get("error")
                    .and_then(Value::as_str)
                    .unwrap_or("refused without a reason")
                    .to_owned(),
                code: map
                    .get("code")
                    .and_then(Value::as_u64)
                    .and_then(|c| u8::try_from(c).ok())
                    .unwrap_or(1),
            }),
            _ => Err("the reply has no `ok`".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aliases_of_the_earlier_tool_are_accepted() {
        let parse = |text: &str| serde_json::from_str::<Request>(text).unwrap();
        assert_eq!(
            parse(r#"{"cmd":"stop_coordinator","coordinator_id":3}"#),
            Request::StopChat(OneChat {
                chat_id: 3,
                actor: None
            })
        );
        assert_eq!(
            parse(r#"{"cmd":"purge_chats"}"#),
            Request::PurgeChats {
                include_active: false,
                include_self: false,
                dry_run: false,
                force_unproven: false,
                caller_chat_id: None,
                progress: false,
            }
        );
        assert!(matches!(
            parse(r#"{"cmd":"user_chat","message":"hi","request_id":"r","coordinator_id":2}"#),
            Request::UserChat { chat_id: 2, .. }
        ));
        assert!(matches!(
            parse(r#"{"cmd":"create_chat","name":"a","id":9}"#),
            Request::CreateChat(NewChatRequest { id: Some(9), .. })
        ));
    }

    #[test]
    fn a_reply_reads_back_as_what_was_written() {
        let ok = Reply::of(serde_json::json!({"inbox_id": 1}));
        assert_eq!(Reply::parse(&ok.to_line()).unwrap(), ok);
        let err = Reply::Err {
            error: "no".into(),
            code: 75,
        };
        assert_eq!(Reply::parse(&err.to_line()).unwrap(), err);
        assert!(Reply::parse(b"{}").is_err());
        assert!(Reply::parse(b"nonsense").is_err());
    }

    #[test]
    fn a_reply_names_its_chat_by_both_names() {
        let line = |value| serde_json::from_slice::<Value>(&Reply::of(value).to_line()).unwrap();
        let one = line(serde_json::json!({"chat_id": 3, "text": "stopped"}));
        assert_eq!(
            (&one["chat_id"], &one["coordinator_id"]),
            (&3.into(), &3.into())
        );
        let list =
            line(serde_json::json!({"coordinators": [{"chat_id": 3}], "chats": [{"chat_id": 3}]}));
        assert_eq!(list["coordinators"][0]["coordinator_id"], 3);
        assert_eq!(
            line(serde_json::json!({"paused": true})).get("coordinator_id"),
            None
        );
    }
}
