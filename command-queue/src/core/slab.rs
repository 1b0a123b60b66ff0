//! Numbered places. A place is found by number in constant time, however wide the lane is.

#[derive(Debug)]
enum Place<V> {
    Taken(V),
    Free { next: u32 },
}

const NONE: u32 = u32::MAX;

#[derive(Debug)]
pub(crate) struct Slab<V> {
    places: Vec<Place<V>>,
    free: u32,
    len: u32,
}

impl<V> Slab<V> {
    pub(crate) const fn new() -> Self {
        Self {
            places: Vec::new(),
            free: NONE,
            len: 0,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.len as usize
    }

    pub(crate) fn insert(&mut self, value: V) -> u32 {
        self.len += 1;
        if self.free == NONE {
            // Most lanes never have more than one place; doubling from four would waste three.
            if self.places.is_empty() {
                self.places.reserve_exact(1);
            }
            self.places.push(Place::Taken(value));
            return u32::try_from(self.places.len() - 1)
                .expect("because a lane has fewer than 2^32 running tasks");
        }
        let index = self.free;
        let place = &mut self.places[index as usize];
        match place {
            Place::Free { next } => self.free = *next,
            Place::Taken(_) => unreachable!("a taken place is not in the list of free ones"),
        }
        *place = Place::Taken(value);
        index
    }

    pub(crate) fn get_mut(&mut self, index: u32) -> Option<&mut V> {
        match self.places.get_mut(index as usize)? {
            Place::Taken(value) => Some(value),
            Place::Free { .. } => None,
        }
    }

    pub(crate) fn remove(&mut self, index: u32) -> Option<V> {
        let place = self.places.get_mut(index as usize)?;
        if matches!(place, Place::Free { .. }) {
            return None;
        }
        let taken = std::mem::replace(place, Place::Free { next: self.free });
        self.free = index;
        self.len -= 1;
        match taken {
            Place::Taken(value) => Some(value),
            Place::Free { .. } => None,
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &V)> {
        (0..)
            .zip(&self.places)
            .filter_map(|(index, place)| match place {
                Place::Taken(value) => Some((index, value)),
                Place::Free { .. } => None,
            })
    }

    /// Returns the number of places, free ones included: the end of the range of indices.
    pub(crate) fn places(&self) -> u32 {
        u32::try_from(self.places.len()).expect("because a lane has fewer than 2^32 running tasks")
    }

    pub(crate) fn shrink(&mut self) {
        if self.len == 0 {
            *self = Self::new();
        }
    }
}
