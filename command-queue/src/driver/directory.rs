//! The lanes by name: made on first use, forgotten when nobody needs them.
//!
//! A lane may go while its shard is locked for writing and the map holds the only strong reference: nobody
//! has it, and nobody can get it. A handle, a token, or a worker keeps its lane alive by that alone.
//!
//! The counters of lanes that went are kept in the shard, under the same lock: whoever counts finds each lane once, in
//! the set or among those that went, and never in neither or both.

use std::borrow::Borrow;
use std::collections::HashSet;
use std::hash::{Hash, Hasher};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::hash::{Hashed, Seed};
use super::lane::LaneCell;
use super::shared::Shared;
use super::sync::{AtomicU64, RwLock};
use crate::config::LaneConfig;
use crate::snapshot::Totals;

const SHARDS: usize = 16;
/// Blank lane names mean this one.
const MAIN: &str = "main";
/// A shard with fewer lanes is never searched for idle ones out of turn.
const FEW: usize = 64;

/// What the set of a shard is searched by: the hash, made once, and the name, stored once.
trait Key {
    fn hash(&self) -> u64;
    fn name(&self) -> &str;
}

struct Query<'a> {
    hash: u64,
    name: &'a str,
}

impl Key for Query<'_> {
    fn hash(&self) -> u64 {
        self.hash
    }

    fn name(&self) -> &str {
        self.name
    }
}

struct Entry(Arc<LaneCell>);

impl Key for Entry {
    fn hash(&self) -> u64 {
        self.0.hash
    }

    fn name(&self) -> &str {
        &self.0.name
    }
}

impl<'a> Borrow<dyn Key + 'a> for Entry {
    fn borrow(&self) -> &(dyn Key + 'a) {
        self
    }
}

impl Hash for dyn Key + '_ {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(Key::hash(self));
    }
}

impl PartialEq for dyn Key + '_ {
    fn eq(&self, other: &Self) -> bool {
        Key::hash(self) == Key::hash(other) && self.name() == other.name()
    }
}

impl Eq for dyn Key + '_ {}

impl Hash for Entry {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0.hash);
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.0.hash == other.0.hash && self.0.name == other.0.name
    }
}

impl Eq for Entry {}

struct Shard {
    lanes: HashSet<Entry, Hashed>,
    /// With this many lanes, idle ones are looked for before another is made. Twice what the last search
    /// left, so that searching costs each new lane a constant.
    crowded: usize,
    /// Totals of lanes of this shard that were forgotten.
    forgotten: Totals,
}

/// Every lane there ever was: those that exist, and the sum of those that do not any more.
pub(crate) struct Census {
    pub(crate) lanes: Vec<Arc<LaneCell>>,
    pub(crate) forgotten: Totals,
}

pub(crate) struct Directory {
    home: Weak<Shared>,
    seed: Seed,
    shards: [RwLock<Shard>; SHARDS],
    next: AtomicU64,
    defaults: Arc<LaneConfig>,
    /// The last configuration that differed: a thousand lanes configured alike share one.
    recent: Mutex<Arc<LaneConfig>>,
}

impl Directory {
    pub(crate) fn new(home: Weak<Shared>, defaults: LaneConfig) -> Self {
        let defaults = Arc::new(defaults);
        Self {
            recent: Mutex::new(Arc::clone(&defaults)),
            shards: std::array::from_fn(|_| {
                RwLock::new(Shard {
                    lanes: HashSet::default(),
                    crowded: FEW,
                    forgotten: Totals::default(),
                })
            }),
            home,
            seed: Seed::new(),
            next: AtomicU64::new(0),
            defaults,
        }
    }

    /// Returns the configuration as a shared value.
    pub(crate) fn share(&self, config: LaneConfig) -> Arc<LaneConfig> {
        if config == *self.defaults {
            return Arc::clone(&self.defaults);
        }
        let mut recent = self.recent.lock();
        if **recent != config {
            *recent = Arc::new(config);
        }
        Arc::clone(&recent)
    }

    fn shard(&self, hash: u64) -> &RwLock<Shard> {
        // The set inside uses the lowest and the highest bits; these are in between.
        let index = (hash >> 32) % SHARDS as u64;
        &self.shards[usize::try_from(index).expect("because it is below the number of shards")]
    }

    fn query<'a>(&self, name: &'a str) -> Query<'a> {
        let name = canonical(name);
        Query {
            hash: self.seed.hash(name),
            name,
        }
    }

    pub(crate) fn find(&self, name: &str) -> Option<Arc<LaneCell>> {
        let query = self.query(name);
        let shard = self.shard(query.hash).read();
        shard
            .lanes
            .get(&query as &dyn Key)
            .map(|entry| Arc::clone(&entry.0))
    }

    /// Returns the lane of this name, which is made if need be.
    pub(crate) fn find_or_make(&self, name: &str) -> Arc<LaneCell> {
        let query = self.query(name);
        let shard = self.shard(query.hash);
        if let Some(entry) = shard.read().lanes.get(&query as &dyn Key) {
            return Arc::clone(&entry.0);
        }
        let mut shard = shard.write();
        if let Some(entry) = shard.lanes.get(&query as &dyn Key) {
            return Arc::clone(&entry.0);
        }
        if shard.lanes.len() >= shard.crowded {
            Self::sweep_shard(&mut shard, &|_| true);
            shard.crowded = (shard.lanes.len() * 2).max(FEW);
        }
        let lane = Arc::new(LaneCell::new(
            Weak::clone(&self.home),
            self.next.fetch_add(1, Ordering::Relaxed),
            query.hash,
            query.name.into(),
            Arc::clone(&self.defaults),
        ));
        shard.lanes.insert(Entry(Arc::clone(&lane)));
        lane
    }

    /// Returns all lanes that exist now.
    pub(crate) fn all(&self) -> Vec<Arc<LaneCell>> {
        self.census().lanes
    }

    /// Returns all lanes and the totals of those that were forgotten. While a lane that is returned is held, it is not
    /// forgotten, so nothing of it is counted twice, however late it is looked at.
    pub(crate) fn census(&self) -> Census {
        let mut census = Census {
            lanes: Vec::new(),
            forgotten: Totals::default(),
        };
        for shard in &self.shards {
            let shard = shard.read();
            census.forgotten.add(&shard.forgotten);
            let lanes = shard.lanes.iter().map(|entry| Arc::clone(&entry.0));
            census.lanes.extend(lanes);
        }
        census
    }

    /// Forgets lanes that nobody configured and nobody used for a while, and gives idle memory back.
    /// Returns whether another sweep would find something to do later.
    pub(crate) fn sweep(&self, now: Instant, retention: Duration) -> bool {
        let rested = |last: Option<Instant>| {
            last.is_none_or(|last| now.saturating_duration_since(last) >= retention)
        };
        let mut again = false;
        for shard in &self.shards {
            let mut shard = shard.write();
            again |= Self::sweep_shard(&mut shard, &rested);
            if shard.lanes.len() * 4 < shard.lanes.capacity() {
                shard.lanes.shrink_to_fit();
            }
            shard.crowded = (shard.lanes.len() * 2).max(FEW);
        }
        again
    }

    fn sweep_shard(shard: &mut Shard, rested: &dyn Fn(Option<Instant>) -> bool) -> bool {
        let Shard {
            lanes, forgotten, ..
        } = shard;
        let mut again = false;
        lanes.retain(|Entry(lane)| {
            let mut state = lane.lock();
            if !state.core.is_idle() || !rested(state.core.last_dispatch()) {
                again = true;
                return true;
            }
            lane.shrink(&mut state);
            if state.configured || !state.core.is_forgettable() || Arc::strong_count(lane) > 1 {
                again |= !state.configured;
                return true;
            }
            forgotten.add(&state.core.totals());
            false
        });
        again
    }
}

/// Blank means `main`, and blanks around a name mean nothing.
fn canonical(name: &str) -> &str {
    let name = name.trim();
    if name.is_empty() { MAIN } else { name }
}
