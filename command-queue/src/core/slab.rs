//! Numbered places. A place is found by number in constant time, however wide the lane is.
//!
//! The first place is part of the slab itself: a serial lane never needs another.

#[derive(Debug)]
pub(crate) struct Slab<V> {
    first: Option<V>,
    /// Places 1 and up.
    rest: Vec<Option<V>>,
    /// No place of `rest` before this one is free.
    search_from: u32,
    len: u32,
}

impl<V> Slab<V> {
    pub(crate) const fn new() -> Self {
        Self {
            first: None,
            rest: Vec::new(),
            search_from: 0,
            len: 0,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.len as usize
    }

    pub(crate) fn insert(&mut self, value: V) -> u32 {
        self.len += 1;
        if self.first.is_none() {
            self.first = Some(value);
            return 0;
        }
        let from = self.search_from as usize;
        let taken = self.rest[from..]
            .iter()
            .take_while(|place| place.is_some())
            .count();
        let free = from + taken;
        if free == self.rest.len() {
            self.rest.push(None);
        }
        self.rest[free] = Some(value);
        let index =
            u32::try_from(free + 1).expect("because a lane has fewer than 2^32 running tasks");
        self.search_from = index;
        index
    }

    pub(crate) fn get_mut(&mut self, index: u32) -> Option<&mut V> {
        match (index as usize).checked_sub(1) {
            None => self.first.as_mut(),
            Some(rest) => self.rest.get_mut(rest)?.as_mut(),
        }
    }

    pub(crate) fn remove(&mut self, index: u32) -> Option<V> {
        let removed = match (index as usize).checked_sub(1) {
            None => self.first.take(),
            Some(rest) => self.rest.get_mut(rest)?.take(),
        };
        if removed.is_some() {
            self.len -= 1;
            self.search_from = self.search_from.min(index.saturating_sub(1));
        }
        removed
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &V> {
        self.first.iter().chain(self.rest.iter().flatten())
    }

    /// Returns the number of places, free ones included: the end of the range of indices.
    pub(crate) fn places(&self) -> u32 {
        u32::try_from(self.rest.len() + 1)
            .expect("because a lane has fewer than 2^32 running tasks")
    }

    pub(crate) fn shrink(&mut self) {
        if self.len == 0 {
            *self = Self::new();
        }
    }
}
