//! The closed lists of words that `wg` writes to disk, to the wire and to people.
//!
//! A word that is not in its list is no error where a file is read: `parse` returns `None`, and the reader takes the safe branch.

use std::fmt;

/// Declares an enum whose variants are words, with the list of all of them.
macro_rules! words {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name { $($(#[$doc])* $variant,)+ }

        impl $name {
            /// Every word of the list, in the order in which people read them.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// Returns the word.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }

            /// Returns the variant for a word, `None` for a word that is not in the list.
            #[must_use]
            pub fn parse(word: &str) -> Option<Self> {
                match word { $($word => Some(Self::$variant),)+ _ => None }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                // `pad` and not `write_str`, so that tables can ask for a width.
                f.pad(self.as_str())
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let word = <String as serde::Deserialize>::deserialize(deserializer)?;
                Self::parse(&word).ok_or_else(|| {
                    let known: Vec<&str> = Self::ALL.iter().map(|known| known.as_str()).collect();
                    serde::de::Error::custom(format!("`{}` is not one of: {}", word.escape_debug(), known.join(", ")))
                })
            }
        }
    };
}

words! {
    /// What a chat is doing.
    ChatState {
        /// A handler of this daemon serves it.
        Running = "running",
        /// A handler of an earlier daemon serves it.
        Adopted = "adopted",
        /// A handler was started and does not hold the session yet.
        Starting = "starting",
        /// Its turn waits for a slot or a directory.
        Queued = "queued",
        /// Nothing to do and nobody there; a message or a consumer wakes it.
        Idle = "idle",
        /// Another live process holds the session.
        Held = "held",
        /// Waiting before the next start.
        Backoff = "backoff",
        /// Crashed too often; paced retries.
        Degraded = "degraded",
        /// Not started again until a person or a change of the cause.
        Parked = "parked",
        /// Its handler is being ended.
        Stopping = "stopping",
        /// A person stopped it.
        Stopped = "stopped",
        /// A person archived it.
        Archived = "archived",
        /// A purge retired it.
        Purged = "purged",
        /// The service is not running, and nobody else serves it.
        Dormant = "dormant",
    }
}

words! {
    /// What happened, one line of `events.jsonl`.
    EventKind {
        /// A daemon is up.
        DaemonStarted = "daemon_started",
        /// A handler of an earlier daemon was taken over.
        Adopted = "adopted",
        /// A live process that is not ours holds the session.
        Held = "held",
        /// That process ended.
        HolderGone = "holder_gone",
        /// A handler was started.
        Spawned = "spawned",
        /// A handler could not be started.
        SpawnFailed = "spawn_failed",
        /// A handler ended.
        Exited = "exited",
        /// The next start waits.
        Backoff = "backoff",
        /// Too many crashes in the window.
        Degraded = "degraded",
        /// No further start by itself.
        Parked = "parked",
        /// Starts are allowed again.
        Unparked = "unparked",
        /// Nothing to do.
        Idle = "idle",
        /// A message or a consumer woke it.
        Woken = "woken",
        /// A message is being answered.
        TurnStarted = "turn_started",
        /// A message was answered.
        TurnFinished = "turn_finished",
        /// A turn was ended before its reply.
        TurnInterrupted = "turn_interrupted",
        /// Work waits because the lane is full, or because another has the directory.
        LaneBlocked = "lane_blocked",
        /// A slot that nobody held was taken back.
        LaneReclaimed = "lane_reclaimed",
        /// A handler came near its memory cap.
        MemoryWarning = "memory_warning",
        /// Somebody asked for the session.
        ReleaseRequested = "release_requested",
        /// The session changed hands.
        TakenOver = "taken_over",
        /// The chat was archived.
        Archived = "archived",
        /// The chat was purged.
        Purged = "purged",
        /// The chat was restored.
        Restored = "restored",
        /// A process that a dead handler left behind was ended.
        OrphanEnded = "orphan_ended",
        /// An account of the restart policy is nearly used up.
        BudgetWarning = "budget_warning",
        /// The chat or the daemon stopped.
        Stopped = "stopped",
    }
}

words! {
    /// Why a handler may be started; nothing else is a reason.
    StartReason {
        /// A message is unanswered.
        Message = "message",
        /// Somebody is connected.
        Consumer = "consumer",
        /// A person asked for it.
        Resume = "resume",
        /// The restart policy, for one of the others.
        Retry = "retry",
    }
}

words! {
    /// How a message reaches an agent.
    Protocol {
        /// On its standard input.
        Stdin = "stdin",
        /// In place of `{message}` in its arguments.
        Arg = "arg",
    }
}
