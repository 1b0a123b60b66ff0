//! The waiting tasks of one lane: first in, first out within a priority, with bounded overtaking.
//!
//! Removing a task from the middle leaves an empty entry behind, so that a million waiting tasks cost
//! nothing when one of them is cancelled; the empty ones go when they reach the front or outnumber the rest.
//! A lane in which never more than one task waits has no buffer at all.

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

/// Invariants: while `single` is taken, the classes are empty; the front of each class is a task, not an empty
/// entry; `len` counts tasks only.
#[derive(Debug)]
#[expect(
    clippy::box_collection,
    reason = "an idle lane keeps no buffer, and there are many idle lanes"
)]
pub(crate) struct Fifo<T> {
    single: Option<(Priority, Waiting<T>)>,
    /// Absent in a lane in which never more than one task waited.
    normal: Option<Box<VecDeque<Waiting<T>>>>,
    others: Option<Box<Others<T>>>,
    len: usize,
}

/// Most lanes only ever see one priority.
#[derive(Debug)]
struct Others<T> {
    background: VecDeque<Waiting<T>>,
    foreground: VecDeque<Waiting<T>>,
}

impl<T> Fifo<T> {
    pub(crate) fn new() -> Self {
        Self {
            single: None,
            normal: None,
            others: None,
            len: 0,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Entries that were removed out of turn count, too.
    fn normal_is_empty(&self) -> bool {
        self.normal.as_ref().is_none_or(|normal| normal.is_empty())
    }

    fn class_mut(&mut self, priority: Priority) -> &mut VecDeque<Waiting<T>> {
        if priority == Priority::Normal {
            return self.normal.get_or_insert_default();
        }
        let others = self.others.get_or_insert_with(|| {
            Box::new(Others {
                background: VecDeque::new(),
                foreground: VecDeque::new(),
            })
        });
        if priority == Priority::Background {
            &mut others.background
        } else {
            &mut others.foreground
        }
    }

    fn classes(&self) -> impl Iterator<Item = (usize, &VecDeque<Waiting<T>>)> {
        let others = self.others.as_deref();
        let background = others.map(|others| (0, &others.background));
        let foreground = others.map(|others| (2, &others.foreground));
        [
            background,
            self.normal.as_deref().map(|normal| (1, normal)),
            foreground,
        ]
        .into_iter()
        .flatten()
    }

    pub(crate) fn push(&mut self, priority: Priority, waiting: Waiting<T>) {
        self.len += 1;
        if self.len == 1 && self.normal_is_empty() && self.others.is_none() {
            self.single = Some((priority, waiting));
            return;
        }
        if let Some((before, first)) = self.single.take() {
            self.class_mut(before).push_back(first);
        }
        self.class_mut(priority).push_back(waiting);
    }

    /// Takes all of these, which have normal priority and came later than those of that priority here. An empty
    /// buffer is left in exchange; if nothing waits here, that is all that happens.
    pub(crate) fn append(&mut self, batch: &mut VecDeque<Waiting<T>>) {
        if self.is_empty() && self.normal_is_empty() {
            self.len = batch.len();
            std::mem::swap(self.class_mut(Priority::Normal), batch);
            return;
        }
        if let Some((before, first)) = self.single.take() {
            self.class_mut(before).push_back(first);
        }
        self.len += batch.len();
        self.class_mut(Priority::Normal).append(batch);
    }

    /// Returns since when the task that waits longest has waited.
    pub(crate) fn oldest(&self) -> Option<Instant> {
        match &self.single {
            Some((_, single)) => Some(single.since),
            None => self
                .classes()
                .filter_map(|(_, class)| class.front())
                .map(|head| head.since)
                .min(),
        }
    }

    /// Takes the task whose turn it is.
    ///
    /// A task gains one tier each `ageing`, never above foreground. Only the three heads compete: behind a
    /// head of the same class everybody arrived later. Among equals the one that waited longest goes first.
    pub(crate) fn pop(&mut self, now: Instant, ageing: Duration) -> Option<(Waiting<T>, T)> {
        if let Some((_, mut single)) = self.single.take() {
            self.len -= 1;
            let item = single.item.take()?;
            return Some((single, item));
        }
        let priority = if self.others.is_none() {
            Priority::Normal
        } else {
            self.best(now, ageing)?
        };
        let class = self.class_mut(priority);
        let mut head = class.pop_front()?;
        let item = head.item.take()?;
        self.len -= 1;
        self.trim(priority);
        Some((head, item))
    }

    /// Takes the task whose turn it is, if only one priority ever waited here, the task has no limits of its own, and it
    /// came after this time.
    pub(crate) fn pop_usual(&mut self, after: Instant) -> Option<(u64, T)> {
        if self.single.is_some() || self.others.is_some() {
            return None;
        }
        let class = self.normal.as_mut()?;
        let head = class.front_mut()?;
        if head.limits.is_some() || head.since <= after {
            return None;
        }
        let seq = head.seq;
        let item = head.item.take()?;
        class.pop_front();
        self.len -= 1;
        while class.front().is_some_and(|head| head.item.is_none()) {
            class.pop_front();
        }
        Some((seq, item))
    }

    fn best(&self, now: Instant, ageing: Duration) -> Option<Priority> {
        let best = self
            .classes()
            .filter_map(|(class, waiting)| waiting.front().map(|head| (class, head)))
            .max_by_key(|(class, head)| {
                let waited = now.saturating_duration_since(head.since);
                (tier(*class, waited, ageing), std::cmp::Reverse(head.seq))
            })?;
        Some(match best.0 {
            0 => Priority::Background,
            1 => Priority::Normal,
            _ => Priority::Foreground,
        })
    }

    /// Takes a task out of turn.
    pub(crate) fn remove(&mut self, seq: u64) -> Option<(Instant, T)> {
        if self
            .single
            .as_ref()
            .is_some_and(|(_, single)| single.seq == seq)
        {
            self.len -= 1;
            let (_, single) = self.single.take()?;
            return Some((single.since, single.item?));
        }
        for priority in [Priority::Normal, Priority::Background, Priority::Foreground] {
            if priority != Priority::Normal && self.others.is_none() {
                continue;
            }
            let class = self.class_mut(priority);
            let Ok(at) = class.binary_search_by_key(&seq, |waiting| waiting.seq) else {
                continue;
            };
            let waiting = &mut class[at];
            let item = waiting.item.take()?;
            let since = waiting.since;
            waiting.limits = None;
            self.len -= 1;
            self.trim(priority);
            return Some((since, item));
        }
        None
    }

    /// Takes everything, in the order of submission.
    pub(crate) fn take_all(&mut self) -> Vec<T> {
        let before = std::mem::replace(self, Self::new());
        let mut all: Vec<_> = before
            .single
            .into_iter()
            .map(|(_, single)| single)
            .collect();
        all.extend(before.normal.into_iter().flat_map(|normal| *normal));
        if let Some(others) = before.others {
            all.extend(others.background);
            all.extend(others.foreground);
            all.sort_by_key(|waiting| waiting.seq);
        }
        all.into_iter().filter_map(|waiting| waiting.item).collect()
    }

    /// Gives the buffers of an empty queue back.
    pub(crate) fn shrink(&mut self) {
        if self.is_empty() {
            *self = Self::new();
        }
    }

    /// Removes empty entries from the front, and all of them once they outnumber the tasks.
    fn trim(&mut self, priority: Priority) {
        let len = self.len;
        let class = self.class_mut(priority);
        while class.front().is_some_and(|head| head.item.is_none()) {
            class.pop_front();
        }
        // `len` counts the other classes as well, which only makes this rarer.
        if class.len() > 64 && class.len() / 2 > len {
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
