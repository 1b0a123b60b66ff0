//! One word for what a chat is doing, from what is wished and where its machine stands.

use supervisor::State;

use super::Wish;
use crate::names::ChatState;

/// The state shown to people and programs. `machine` is `None` while no daemon looks after the chat.
#[must_use]
pub fn state(wish: Wish, machine: Option<&State>) -> ChatState {
    let has_process = machine.is_some_and(|state| state.process().is_some());
    match wish {
        // A wish against running is the truth as soon as nothing is left of the handler.
        Wish::Stopped | Wish::Archived | Wish::Purged if has_process => ChatState::Stopping,
        Wish::Stopped => ChatState::Stopped,
        Wish::Archived => ChatState::Archived,
        Wish::Purged => ChatState::Purged,
        Wish::Run => match machine {
            None => ChatState::Dormant,
            Some(State::Idle { .. }) => ChatState::Idle,
            Some(State::Starting { .. }) => ChatState::Starting,
            Some(State::Running { adopted: false, .. }) => ChatState::Running,
            Some(State::Running { adopted: true, .. }) => ChatState::Adopted,
            Some(State::Backoff { .. }) => ChatState::Backoff,
            Some(State::Degraded { .. }) => ChatState::Degraded,
            Some(State::Held { .. } | State::Contended { .. }) => ChatState::Held,
            Some(State::Parked { .. }) => ChatState::Parked,
            Some(State::Ending { .. } | State::Stopping { .. }) => ChatState::Stopping,
            Some(State::Stopped { .. }) => ChatState::Stopped,
        },
    }
}

/// Who serves a chat while no daemon looks after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Server {
    /// A handler of the last daemon, which goes on alone.
    Handler {
        /// Whether it has the session.
        serves: bool,
    },
    /// Somebody else has the session.
    Another,
    /// Nobody.
    Nobody,
}

/// The state shown while no daemon looks after the chat; `is_parked` is what the last one wrote down.
#[must_use]
pub fn state_without_a_daemon(wish: Wish, server: Server, is_parked: bool) -> ChatState {
    match (wish, server) {
        (Wish::Run, Server::Handler { serves: true }) => ChatState::Running,
        (Wish::Run, Server::Handler { serves: false }) => ChatState::Starting,
        (Wish::Run, Server::Another) => ChatState::Held,
        // To start the service does not help it.
        (Wish::Run, Server::Nobody) if is_parked => ChatState::Parked,
        (Wish::Stopped | Wish::Archived | Wish::Purged, Server::Handler { .. }) => {
            ChatState::Stopping
        }
        (Wish::Run | Wish::Stopped | Wish::Archived | Wish::Purged, _) => state(wish, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use supervisor::{AfterStop, Generation, Moment};

    #[test]
    fn a_wish_against_running_is_shown_once_nothing_is_left() {
        let stopping = State::Stopping {
            since: Moment::ZERO,
            pid: 7,
            generation: Generation(1),
            then: AfterStop::StayDown,
        };
        let idle = State::Idle {
            since: Moment::ZERO,
        };
        for (wish, shown) in [
            (Wish::Stopped, ChatState::Stopped),
            (Wish::Archived, ChatState::Archived),
            (Wish::Purged, ChatState::Purged),
        ] {
            assert_eq!(state(wish, Some(&stopping)), ChatState::Stopping);
            assert_eq!(state(wish, Some(&idle)), shown);
            assert_eq!(state(wish, None), shown);
        }
        assert_eq!(state(Wish::Run, None), ChatState::Dormant);
        assert_eq!(state(Wish::Run, Some(&idle)), ChatState::Idle);
    }

    #[test]
    fn without_a_daemon_a_chat_is_dormant_only_where_the_service_is_all_that_it_lacks() {
        let handler = |serves| Server::Handler { serves };
        for (server, is_parked, shown) in [
            (handler(true), false, ChatState::Running),
            (handler(true), true, ChatState::Running),
            (handler(false), false, ChatState::Starting),
            (Server::Another, true, ChatState::Held),
            (Server::Nobody, true, ChatState::Parked),
            (Server::Nobody, false, ChatState::Dormant),
        ] {
            assert_eq!(
                state_without_a_daemon(Wish::Run, server, is_parked),
                shown,
                "{server:?}"
            );
        }
        for (wish, shown) in [
            (Wish::Stopped, ChatState::Stopped),
            (Wish::Archived, ChatState::Archived),
            (Wish::Purged, ChatState::Purged),
        ] {
            for server in [Server::Nobody, Server::Another] {
                assert_eq!(state_without_a_daemon(wish, server, true), shown);
            }
            assert_eq!(
                state_without_a_daemon(wish, handler(true), false),
                ChatState::Stopping
            );
        }
    }
}
