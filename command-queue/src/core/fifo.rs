//! The waiting tasks of one lane: first in, first out within a priority, with bounded overtaking.
//!
//! Removing a task from the middle leaves an empty entry behind, so that a million waiting tasks cost
//! nothing when one of them is cancelled; the empty ones go when they reach the front or outnumber the rest.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::active::Limits;
use crate::config::Priority;

const CLASSES: usize = 3;

#[derive(Debug)]
pub(crate) struct Waiting<T> {
    pub(crate) seq: u64,
    pub(crate) since: Instant,
    /// Tasks that were waiting or running when this one arrived.
    pub(crate) ahead: u32,
    /// Absent for a task that has none of its own, which is nearly every task.
    pub(crate) limits: Option<Box<Limits>>,
    /// Absent once the task was removed out of turn.
    item: Option<T>,
}

impl<T> Waiting<T> {
    pub(crate) fn new(
        seq: u64,
        since: Instant,
        ahead: u32,
        limits: Option<Box<Limits>>,
        item: T,
    ) -> Self {
        Self {
            seq,
            since,
            ahead,
            limits,
            item: Some(item),
        }
    }
}

/// Invariant: the front of each class is a task, not an empty entry; `len` counts tasks only.
#[derive(Debug)]
pub(crate) struct Fifo<T> {
    classes: [VecDeque<Waiting<T>>; CLASSES],
    len: usize,
}

fn class(priority: Priority) -> usize {
    match priority {
        Priority::Background => 0,
        Priority::Normal => 1,
        Priority::Foreground => 2,
    }
}

impl<T> Fifo<T> {
    pub(crate) fn new() -> Self {
        Self {
            classes: [const { VecDeque::new() }; CLASSES],
            len: 0,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(crate) fn push(&mut self, priority: Priority, waiting: Waiting<T>) {
        self.classes[class(priority)].push_back(waiting);
        self.len += 1;
    }

    /// Returns since when the task that waits longest has waited.
    pub(crate) fn oldest(&self) -> Option<Instant> {
        self.classes
            .iter()
            .filter_map(|class| class.front())
            .map(|head| head.since)
            .min()
    }

    /// Takes the task whose turn it is.
    ///
    /// A task gains one tier each `ageing`, never above foreground. Only the three heads compete: behind a
    /// head of the same class everybody arrived later. Among equals the one that waited longest goes first.
    pub(crate) fn pop(&mut self, now: Instant, ageing: Duration) -> Option<(Waiting<T>, T)> {
        let mut best: Option<(usize, usize, u64)> = None;
        for (index, class) in self.classes.iter().enumerate() {
            let Some(head) = class.front() else { continue };
            if self.len == class.len() {
                best = Some((index, index, head.seq));
                break;
            }
            let tier = tier(index, now.saturating_duration_since(head.since), ageing);
            let better =
                best.is_none_or(|(_, top, seq)| tier > top || (tier == top && head.seq < seq));
            if better {
                best = Some((index, tier, head.seq));
            }
        }
        let (index, ..) = best?;
        let mut head = self.classes[index].pop_front()?;
        let item = head.item.take()?;
        self.len -= 1;
        self.trim(index);
        Some((head, item))
    }

    /// Takes a task out of turn.
    pub(crate) fn remove(&mut self, seq: u64) -> Option<(Instant, T)> {
        for index in 0..CLASSES {
            let class = &mut self.classes[index];
            let Ok(at) = class.binary_search_by_key(&seq, |waiting| waiting.seq) else {
                continue;
            };
            let waiting = &mut class[at];
            let item = waiting.item.take()?;
            let since = waiting.since;
            waiting.limits = None;
            self.len -= 1;
            self.trim(index);
            return Some((since, item));
        }
        None
    }

    /// Takes everything, in the order of submission.
    pub(crate) fn take_all(&mut self) -> Vec<T> {
        let mut all: Vec<_> = self.classes.iter_mut().flat_map(std::mem::take).collect();
        all.sort_by_key(|waiting| waiting.seq);
        self.len = 0;
        all.into_iter().filter_map(|waiting| waiting.item).collect()
    }

    /// Gives memory back that only a longer queue needed.
    pub(crate) fn shrink(&mut self) {
        for class in &mut self.classes {
            if class.is_empty() {
                *class = VecDeque::new();
            }
        }
    }

    fn trim(&mut self, index: usize) {
        let class = &mut self.classes[index];
        while class.front().is_some_and(|head| head.item.is_none()) {
            class.pop_front();
        }
        // The others are counted in `len` as well, which only makes this rarer.
        if class.len() > 64 && class.len() / 2 > self.len {
            class.retain(|waiting| waiting.item.is_some());
        }
    }
}

fn tier(class: usize, waited: Duration, ageing: Duration) -> usize {
    let gained = if waited >= ageing.saturating_mul(2) {
        2
    } else {
        usize::from(waited >= ageing)
    };
    (class + gained).min(CLASSES - 1)
}
