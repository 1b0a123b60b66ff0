//! A capacity group: a cap on several lanes together.
//!
//! A lane that finds the group full parks its token here. A slot that comes free is handed to the lane
//! that parked first, and to no other: a slot that went back to the pool first could be snatched for ever.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;

use super::lane::LaneCell;

pub(crate) struct Group {
    pub(crate) name: Arc<str>,
    state: Mutex<State>,
}

struct State {
    width: usize,
    occupied: usize,
    parked: VecDeque<Arc<LaneCell>>,
}

impl Group {
    pub(crate) fn new(name: Arc<str>, width: usize) -> Self {
        Self {
            name,
            state: Mutex::new(State {
                width,
                occupied: 0,
                parked: VecDeque::new(),
            }),
        }
    }

    /// Takes a slot, or parks the lane until one is handed to it.
    pub(crate) fn take_or_park(&self, lane: &Arc<LaneCell>) -> bool {
        let mut state = self.state.lock();
        if state.occupied < state.width {
            state.occupied += 1;
            return true;
        }
        state.parked.push_back(Arc::clone(lane));
        false
    }

    /// Takes a slot whatever the width says, for work that was running before.
    pub(crate) fn take_over_width(&self) {
        self.state.lock().occupied += 1;
    }

    /// Gives a slot back. Returns the lane that it was handed to, if one was parked.
    pub(crate) fn give_back(&self) -> Option<Arc<LaneCell>> {
        let mut state = self.state.lock();
        if state.occupied <= state.width
            && let Some(lane) = state.parked.pop_front()
        {
            return Some(lane);
        }
        state.occupied -= 1;
        None
    }

    /// Changes the width. Returns the lanes that a slot was handed to.
    pub(crate) fn set_width(&self, width: usize) -> Vec<Arc<LaneCell>> {
        let mut state = self.state.lock();
        state.width = width;
        let mut handed = Vec::new();
        while state.occupied < state.width
            && let Some(lane) = state.parked.pop_front()
        {
            state.occupied += 1;
            handed.push(lane);
        }
        handed
    }

    /// Removes a lane that no longer belongs here. Returns whether it was parked.
    pub(crate) fn unpark(&self, lane: &Arc<LaneCell>) -> bool {
        let mut state = self.state.lock();
        let before = state.parked.len();
        state.parked.retain(|parked| !Arc::ptr_eq(parked, lane));
        state.parked.len() < before
    }

    pub(crate) fn figures(&self) -> (usize, usize, usize) {
        let state = self.state.lock();
        (state.width, state.occupied, state.parked.len())
    }
}
