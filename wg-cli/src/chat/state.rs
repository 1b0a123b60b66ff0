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
}
