//! The queue's lanes as `service status` shows them: what runs, what waits, and for what.

use std::time::Duration;

use command_queue::{BlockedBy, LaneSnapshot, QueueSnapshot, TaskSnapshot};

use super::turns::chat_of;
use crate::ops::{GroupRow, LaneRow, LaneTask, Lanes};

/// The lane of requests that write the graph.
pub(super) const GRAPH: &str = "graph";

/// Lanes in which one file is written: a write comes and goes, and is told of only where it does not.
const RECORDS: [&str; 4] = ["record:", "presence:", "inbox:", GRAPH];

/// How long a write of records may take before it is told of.
const QUICK: Duration = Duration::from_secs(1);

/// The lanes in use. One that is idle has nothing to tell.
pub(super) fn of(queue: &QueueSnapshot) -> Lanes {
    let groups = queue.groups.iter().map(|group| GroupRow {
        group: group.group.to_string(),
        width: group.width,
        taken: group.occupied,
        // Counted by what the lanes say: a token that has not been parked yet waits as well.
        waiting: waiting_for(queue, &group.group),
    });
    let in_use = queue.lanes.iter().filter(|lane| is_in_use(lane));
    Lanes {
        groups: groups.collect(),
        in_use: in_use.map(|lane| row(queue, lane)).collect(),
    }
}

fn is_in_use(lane: &LaneSnapshot) -> bool {
    if RECORDS.iter().any(|name| lane.lane.starts_with(name)) {
        return lane.abandoned > 0 || lane.oldest_active.is_some_and(|age| age >= QUICK);
    }
    lane.queued + lane.occupied + lane.abandoned > 0
}

fn row(queue: &QueueSnapshot, lane: &LaneSnapshot) -> LaneRow {
    let blocked_by = (lane.queued > 0).then_some(lane.blocked_by);
    LaneRow {
        lane: lane.lane.to_string(),
        chat_id: chat_of(&lane.lane).map(|chat| chat.0),
        width: lane.width,
        running: lane.tasks.iter().map(task).collect(),
        abandoned: lane.abandoned,
        waiting: lane.queued,
        waiting_secs: lane.oldest_queued.map(|age| age.as_secs()),
        blocked_by: blocked_by.and_then(name).map(ToOwned::to_owned),
        behind: match blocked_by {
            Some(BlockedBy::Lane | BlockedBy::Wedged) => lane.tasks.iter().map(what).collect(),
            Some(BlockedBy::Group) => holders(queue, lane),
            _ => Vec::new(),
        },
    }
}

fn waiting_for(queue: &QueueSnapshot, group: &str) -> usize {
    queue
        .lanes
        .iter()
        .filter(|lane| lane.group.as_deref() == Some(group))
        .filter(|lane| lane.queued > 0 && lane.blocked_by == BlockedBy::Group)
        .count()
}

/// The other lanes of its group that hold places of it.
fn holders(queue: &QueueSnapshot, lane: &LaneSnapshot) -> Vec<String> {
    queue
        .lanes
        .iter()
        .filter(|other| other.group == lane.group && other.occupied > 0)
        .map(|other| other.lane.to_string())
        .collect()
}

fn task(task: &TaskSnapshot) -> LaneTask {
    LaneTask {
        what: what(task),
        ran_secs: task.ran_for.as_secs(),
        idle_secs: task.idle_for.as_secs(),
        given_up: task.given_up,
    }
}

fn what(task: &TaskSnapshot) -> String {
    match &task.label {
        Some(label) => label.to_string(),
        None => format!("task {}", task.id),
    }
}

fn name(blocked_by: BlockedBy) -> Option<&'static str> {
    match blocked_by {
        BlockedBy::Lane => Some("lane"),
        BlockedBy::Wedged => Some("wedged"),
        BlockedBy::Group => Some("group"),
        BlockedBy::Pool => Some("pool"),
        BlockedBy::Pause => Some("pause"),
        BlockedBy::Nothing => None,
        other => {
            log::debug!("a lane is blocked by something that has no word here: {other:?}");
            None
        }
    }
}
