//! The queue's lanes, as a status shows them.

use serde::{Deserialize, Serialize};

/// The lanes of the service's queue that are in use.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lanes {
    /// Places that several lanes share.
    pub groups: Vec<GroupRow>,
    /// Lanes in which something runs or waits, by name.
    pub in_use: Vec<LaneRow>,
}

/// Places that several lanes share: `turns` is how many agents may think at once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupRow {
    /// Its name.
    pub group: String,
    /// Places in all.
    pub width: usize,
    /// Places taken; more than there are where turns went on under a new daemon.
    pub taken: usize,
    /// Lanes that wait for one.
    pub waiting: usize,
}

/// One lane in use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaneRow {
    /// Its name: `turn:0`, `command:0`, `starts`.
    pub lane: String,
    /// The chat that it belongs to, where it belongs to one.
    pub chat_id: Option<u32>,
    /// How many of its tasks may run at once.
    pub width: usize,
    /// What holds its places.
    pub running: Vec<LaneTask>,
    /// Tasks that were given up and still run.
    pub abandoned: usize,
    /// Tasks that wait.
    pub waiting: usize,
    /// For how many seconds the one that waits longest has been waiting.
    pub waiting_secs: Option<u64>,
    /// What the next one waits for: `lane`, `wedged`, `group`, `pool`, `pause`; nothing where it starts at once or none waits.
    pub blocked_by: Option<String>,
    /// Who holds what it waits for: tasks of this lane, or other lanes of its group.
    pub behind: Vec<String>,
}

/// What holds a place in a lane.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaneTask {
    /// What it is.
    pub what: String,
    /// For how many seconds it has been running.
    pub ran_secs: u64,
    /// For how many seconds it has shown no sign of life.
    pub idle_secs: u64,
    /// Whether it was given up, and keeps its place until it ends.
    pub given_up: bool,
}
