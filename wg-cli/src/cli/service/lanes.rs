//! The lanes in use, for people: what runs, what waits, and for what.

use std::time::Duration;

use super::super::table::Table;
use crate::clock;
use crate::ops::{LaneRow, Lanes};

/// How many agents think, and how many wait to; nothing where none does either.
pub(super) fn turns(lanes: &Lanes) -> Option<String> {
    let turns = lanes.groups.iter().find(|group| group.group == "turns")?;
    let waiting = match turns.waiting {
        0 => String::new(),
        1 => ", 1 chat waits".to_owned(),
        several => format!(", {several} chats wait"),
    };
    (turns.taken + turns.waiting > 0)
        .then(|| format!("{} of {} taken{waiting}", turns.taken, turns.width))
}

/// One row for each lane.
pub(super) fn table(lanes: &[LaneRow]) -> String {
    let mut table = Table::new(&["LANE", "RUNS", "WAIT", "FOR", "BEHIND"]);
    for lane in lanes {
        table.row(&[
            lane.lane.clone(),
            running(lane),
            lane.waiting.to_string(),
            age(lane.waiting_secs),
            behind(lane),
        ]);
    }
    table.to_text(|_, cell| cell.to_owned())
}

fn age(seconds: Option<u64>) -> String {
    seconds.map_or_else(String::new, |seconds| {
        clock::span(Duration::from_secs(seconds))
    })
}

fn running(lane: &LaneRow) -> String {
    let mut texts: Vec<String> = lane
        .running
        .iter()
        .map(|task| {
            let given_up = if task.given_up { ", given up" } else { "" };
            format!("{} ({}{given_up})", task.what, age(Some(task.ran_secs)))
        })
        .collect();
    let kept = lane.running.iter().filter(|task| task.given_up).count();
    let without_place = lane.abandoned.saturating_sub(kept);
    if without_place > 0 {
        texts.push(format!("{without_place} given up"));
    }
    texts.join(", ")
}

/// What the next task of the lane waits for, and who has it.
fn behind(lane: &LaneRow) -> String {
    let holders = lane.behind.join(", ");
    match lane.blocked_by.as_deref() {
        Some("group") => format!("a turn: {holders}"),
        Some("wedged") => format!("{holders}, given up"),
        Some("pool") => "a free worker".to_owned(),
        Some("pause") => "the lane is paused".to_owned(),
        Some(_) => holders,
        None => String::new(),
    }
}
