//! Who is killed: the aim is taken by the canaries, so that a kill falls between an agent's start and its end.

use std::fs;
use std::time::{Duration, Instant};

use crate::dice::Dice;
use crate::ledger::{self, What};
use crate::pause;
use crate::world::World;

/// How long the aim waits for an agent to be at work.
const AIM: Duration = Duration::from_secs(3);

/// The kinds of process that are killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Victim {
    Daemon,
    Handler,
    Agent,
}

/// A kill that was carried out.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kill {
    pub(crate) victim: Victim,
    pub(crate) chat: u32,
    pub(crate) pid: u32,
    /// Whether an agent was between its start and its end when it fell.
    pub(crate) in_a_run: bool,
}

/// An agent that is at work.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Working {
    pub(crate) chat: u32,
    pub(crate) agent: u32,
}

/// Every agent that holds its canary at this moment.
pub(crate) fn working(world: &World) -> Vec<Working> {
    let at_work = |chat: u32| {
        let canary = ledger::canary(&world.ledger(), &format!("chat-{chat}"));
        let agent = ledger::holder(&canary).filter(|pid| ledger::is_agent(*pid))?;
        Some(Working { chat, agent })
    };
    (0..world.chats()).filter_map(at_work).collect()
}

/// Waits until an agent is at work and kills it, its handler or the daemon; `None` if nobody came to work or it was gone.
pub(crate) fn kill(world: &World, dice: &mut Dice, victim: Victim) -> Option<Kill> {
    let until = Instant::now() + AIM;
    let found = loop {
        let found = working(world);
        if !found.is_empty() {
            break found;
        }
        if Instant::now() >= until {
            return None;
        }
        pause(Duration::from_millis(2));
    };
    let target = found[index(dice, found.len())];
    kill_around(world, victim, target)
}

/// A place in a list of this length.
pub(crate) fn index(dice: &mut Dice, length: usize) -> usize {
    usize::try_from(dice.below(length as u64)).unwrap_or(0)
}

/// Kills an agent that is at work, its handler, or the daemon meanwhile.
pub(crate) fn kill_around(world: &World, victim: Victim, target: Working) -> Option<Kill> {
    let pid = match victim {
        Victim::Agent => target.agent,
        Victim::Handler => parent(target.agent).filter(|pid| is_handler(*pid))?,
        Victim::Daemon => world.daemon()?,
    };
    if !world.kill(pid) {
        return None;
    }
    Some(Kill {
        victim,
        chat: target.chat,
        pid,
        in_a_run: !has_ended(world, target),
    })
}

/// Whether the agent has written its end down.
fn has_ended(world: &World, target: Working) -> bool {
    ledger::read(&world.ledger(), &format!("chat-{}", target.chat))
        .iter()
        .any(|line| line.pid == target.agent && line.what == What::End)
}

/// Whether a process runs `wg nex`.
pub(crate) fn is_handler(pid: u32) -> bool {
    fs::read(format!("/proc/{pid}/cmdline"))
        .is_ok_and(|line| line.split(|byte| *byte == 0).any(|word| word == b"nex"))
}

fn parent(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may hold anything; what follows its last bracket are the state and the parent.
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(1)?.parse().ok()
}
