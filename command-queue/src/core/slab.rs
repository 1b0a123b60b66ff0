//! Numbered places. A place is found by number in constant time, however wide the lane is.
//!
//! The first place is part of the slab itself: a serial lane never needs another.

#[derive(Debug)]
pub(crate) struct Slab<V> {
    first: Option<V>,
    /// Absent in a slab that never held two.
    rest: Option<Box<Rest<V>>>,
    len: u32,
}

#[derive(Debug)]
struct Rest<V> {
    /// Places 1 and up.
    places: Vec<Option<V>>,
    /// No place before this one is free.
    search_from: usize,
}

impl<V> Slab<V> {
    pub(crate) const fn new() -> Self {
        Self {
            first: None,
            rest: None,
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
        let rest = self.rest.get_or_insert_with(|| {
            Box::new(Rest {
                places: Vec::new(),
                search_from: 0,
            })
        });
        let from = rest.search_from;
        let free = from
            + rest.places[from..]
                .iter()
                .take_while(|place| place.is_some())
                .count();
        if free == rest.places.len() {
            rest.places.push(None);
        }
        rest.places[free] = Some(value);
        rest.search_from = free + 1;
        u32::try_from(free + 1).expect("because a lane has fewer than 2^32 running tasks")
    }

    pub(crate) fn get_mut(&mut self, index: u32) -> Option<&mut V> {
        match (index as usize).checked_sub(1) {
            None => self.first.as_mut(),
            Some(at) => self.rest.as_mut()?.places.get_mut(at)?.as_mut(),
        }
    }

    pub(crate) fn remove(&mut self, index: u32) -> Option<V> {
        let removed = match (index as usize).checked_sub(1) {
            None => self.first.take(),
            Some(at) => {
                let rest = self.rest.as_mut()?;
                let removed = rest.places.get_mut(at)?.take();
                rest.search_from = rest.search_from.min(at);
                removed
            }
        };
        self.len -= u32::from(removed.is_some());
        removed
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &V> {
        let rest = self
            .rest
            .iter()
            .flat_map(|rest| rest.places.iter().flatten());
        self.first.iter().chain(rest)
    }

    /// Returns the number of places, free ones included: the end of the range of indices.
    pub(crate) fn places(&self) -> u32 {
        let rest = self.rest.as_ref().map_or(0, |rest| rest.places.len());
        u32::try_from(rest + 1).expect("because a lane has fewer than 2^32 running tasks")
    }

    pub(crate) fn shrink(&mut self) {
        if self.len == 0 {
            *self = Self::new();
        }
    }
}
