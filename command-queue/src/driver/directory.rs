//! The lanes by name: made on first use, forgotten when nobody needs them.
//!
//! A lane may go while its shard is locked for writing and the map holds the only strong reference: nobody
//! has it, and nobody can get it. A handle, a token, or a worker keeps its lane alive by that alone.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};

use super::lane::LaneCell;
use crate::config::LaneConfig;
use crate::snapshot::Totals;

const SHARDS: usize = 16;
/// Blank lane names mean this one.
const MAIN: &str = "main";
/// A shard with fewer lanes is never searched for idle ones out of turn.
const FEW: usize = 64;

struct Shard {
    lanes: HashMap<Arc<str>, Arc<LaneCell>>,
    /// With this many lanes, idle ones are looked for before another is made. Twice what the last search
    /// left, so that searching costs each new lane a constant.
    crowded: usize,
}

pub(crate) struct Directory {
    hasher: RandomState,
    shards: [RwLock<Shard>; SHARDS],
    next: AtomicU64,
    defaults: Arc<LaneConfig>,
    /// Totals of lanes that were forgotten.
    forgotten: Mutex<Totals>,
}

impl Directory {
    pub(crate) fn new(defaults: LaneConfig) -> Self {
        Self {
            hasher: RandomState::new(),
            shards: std::array::from_fn(|_| {
                RwLock::new(Shard {
                    lanes: HashMap::new(),
                    crowded: FEW,
                })
            }),
            next: AtomicU64::new(0),
            defaults: Arc::new(defaults),
            forgotten: Mutex::default(),
        }
    }

    fn shard(&self, name: &str) -> &RwLock<Shard> {
        let hash = self.hasher.hash_one(name);
        &self.shards[usize::try_from(hash % SHARDS as u64)
            .expect("because it is below the number of shards")]
    }

    pub(crate) fn find(&self, name: &str) -> Option<Arc<LaneCell>> {
        let name = canonical(name);
        self.shard(name).read().lanes.get(name).cloned()
    }

    /// Returns the lane of this name, which is made if need be.
    pub(crate) fn find_or_make(&self, name: &str) -> Arc<LaneCell> {
        let name = canonical(name);
        let shard = self.shard(name);
        if let Some(lane) = shard.read().lanes.get(name) {
            return Arc::clone(lane);
        }
        let mut shard = shard.write();
        if let Some(lane) = shard.lanes.get(name) {
            return Arc::clone(lane);
        }
        if shard.lanes.len() >= shard.crowded {
            self.sweep_shard(&mut shard, &|_| true);
            shard.crowded = (shard.lanes.len() * 2).max(FEW);
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let name: Arc<str> = name.into();
        let lane = Arc::new(LaneCell::new(
            number,
            Arc::clone(&name),
            Arc::clone(&self.defaults),
        ));
        shard.lanes.insert(name, Arc::clone(&lane));
        lane
    }

    /// Returns all lanes that exist now.
    pub(crate) fn all(&self) -> Vec<Arc<LaneCell>> {
        self.shards
            .iter()
            .flat_map(|shard| shard.read().lanes.values().cloned().collect::<Vec<_>>())
            .collect()
    }

    pub(crate) fn forgotten(&self) -> Totals {
        *self.forgotten.lock()
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
            again |= self.sweep_shard(&mut shard, &rested);
            if shard.lanes.len() * 4 < shard.lanes.capacity() {
                shard.lanes.shrink_to_fit();
            }
            shard.crowded = (shard.lanes.len() * 2).max(FEW);
        }
        again
    }

    fn sweep_shard(&self, shard: &mut Shard, rested: &dyn Fn(Option<Instant>) -> bool) -> bool {
        let mut forgotten = Totals::default();
        let mut again = false;
        shard.lanes.retain(|_, lane| {
            let mut state = lane.state.lock();
            if !state.core.is_idle() || !rested(state.core.last_dispatch()) {
                again = true;
                return true;
            }
            state.core.shrink();
            if state.configured || !state.core.is_forgettable() || Arc::strong_count(lane) > 1 {
                again |= !state.configured;
                return true;
            }
            forgotten.add(&state.core.totals());
            false
        });
        self.forgotten.lock().add(&forgotten);
        again
    }
}

/// Blank means `main`, and blanks around a name mean nothing.
fn canonical(name: &str) -> &str {
    let name = name.trim();
    if name.is_empty() { MAIN } else { name }
}
