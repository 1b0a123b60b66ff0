//! The world of chats, simulated: the shipped core, machine, rules and edges in a world whose time, processes, disk and people
//! come out of one seed.
//!
//! ```text
//!  faults (seeded) ──▶ world: processes, locks, disks, consumers ──▶ daemon: chat::Chat, supervisor::Machine,
//!                        ▲                                            exit_classifier rules, wire::disposition
//!                        └───────── starts, signals, replies ────────────┘
//!  after every event: invariants
//! ```
//!
//! Nothing that decides is written again here. What is simulated is what carries decisions out, and it follows `daemon/` and the
//! supervisor's driver step by step; `conduct` is the one place where a test may put a flaw in.
//!
//! Not in it: the queue of turns (so no chat is ever `queued`), the migration of earlier ids, and the directory locks of agents.

mod boot;
mod census;
mod conduct;
mod daemon;
mod dice;
mod disk;
mod faults;
mod handlers;
mod host;
mod invariants;
mod ladder;
mod process;
mod verbs;
mod world;

pub use census::{Census, Kind};
pub use conduct::{AsShipped, Conduct};
pub use disk::Disk;
pub use faults::Fault;
pub use invariants::{Breach, Invariant};

use world::{Due, World};

/// How many things are done to the world in a run of ordinary length.
pub const FAULTS: u32 = 120;

/// What happens in the world besides what is done to it.
pub const EVENTS: [&str; 29] = [
    "adopted",
    "daemon_died",
    "daemon_started",
    "daemon_stopped",
    "exited",
    "forked_when_killed",
    "handler_fell_over",
    "leftover_ended",
    "message_accepted",
    "message_refused",
    "purge_finished",
    "release_requested",
    "reply",
    "sigkill",
    "sigterm",
    "spawn_failed",
    "spawned",
    "stranger_ended",
    "system_error_reply",
    "turn: cut short",
    "turn: failed",
    "turn: failed for good",
    "turn: interrupted",
    "turn: no resources",
    "turn: replied",
    "turn: unavailable",
    "turn_interrupted",
    "turn_started",
    "verb_refused",
];

/// How long a mended world may take to come to rest, in milliseconds: longer than the longest pause and the longest turn.
const REST: u64 = 3 * 3_600_000;

/// How one run is made.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Everything that is left to chance comes from it.
    pub seed: u64,
    /// How many chats there are.
    pub chats: usize,
    /// How many things are done to the world.
    pub faults: u32,
    /// Whether everything is told.
    pub log: bool,
}

impl Plan {
    /// The ordinary run of a seed: one to three chats.
    #[must_use]
    pub fn of(seed: u64) -> Self {
        Self {
            seed,
            chats: usize::try_from(1 + seed % 3).unwrap_or(1),
            faults: FAULTS,
            log: false,
        }
    }
}

/// What came of a run.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The invariants that did not hold after one event, the first that broke any.
    pub breaches: Vec<Breach>,
    /// What occurred, and how often.
    pub census: Census,
    /// What happened, if it was to be told.
    pub log: Vec<String>,
}

/// Runs one seed, to its end or to the first event after which an invariant does not hold.
#[must_use]
pub fn run(plan: Plan, conduct: &dyn Conduct) -> Outcome {
    let mut world = World::new(plan.seed, plan.chats, conduct, plan.log);
    let mut faults = 0;
    while world.breaches.is_empty() && faults < plan.faults {
        let Some(due) = world.next(u64::MAX) else {
            break;
        };
        faults += u32::from(matches!(due, Due::Fault));
        happen(&mut world, due);
    }
    if world.breaches.is_empty() {
        world.heal();
        rest(&mut world, 120_000);
    }
    if world.breaches.is_empty() {
        world.lift_wishes();
        rest(&mut world, REST);
    }
    if world.breaches.is_empty() {
        world.check_rest();
    }
    Outcome {
        breaches: world.breaches,
        census: world.census,
        log: world.log.unwrap_or_default(),
    }
}

fn rest(world: &mut World<'_>, how_long: u64) {
    let until = world.now + how_long;
    while world.breaches.is_empty() {
        let Some(due) = world.next(until) else { break };
        happen(world, due);
    }
    world.now = until;
}

fn happen(world: &mut World<'_>, due: Due) {
    match due {
        Due::Fault => world.fault(),
        Due::Step { pid, at } => world.step(pid, at),
        Due::StrangerLeaves { pid } => world.stranger_ends(pid),
        Due::DiskHasRoom => world.disk_is_full = false,
        Due::SpawnsWork => world.spawning = world::Spawning::Works,
        Due::FilesReadable => world.files_unreadable = false,
        Due::WellAgain { chat } => world.moods[chat] = process::Mood::Well,
        Due::Boot => world.boot(),
        Due::Of { daemon, what } => {
            if world.daemon.as_ref().is_none_or(|now| now.id != daemon) {
                return;
            }
            world.of_daemon(what);
        }
    }
    world.check();
}

/// The command that repeats a seed and tells all of it.
#[must_use]
pub fn replay_command(seed: u64) -> String {
    format!("cargo run --release -p wg-cli --features sim --example sim_chats -- --seed {seed}")
}
