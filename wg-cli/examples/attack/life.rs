//! The attack on the service: `kill -9`, the removal of any file of the workspace, a full disk, and a stopwatch. It must not lose
//! a message, leave a process behind, or answer twice.

mod blow;
mod workspace;

use std::collections::BTreeSet;
use std::io;

use nix::mount::umount;

use crate::disk::Disk;
use crate::frame::Attack;

use blow::{Blow, Moment};
use workspace::Workspace;

/// How many rounds go by between two with a full disk.
const DISK_EVERY: u64 = 8;

/// Strikes one workspace after the other, each once, each file in each moment before any of them again.
pub(crate) fn attack(attack: &mut Attack) -> io::Result<()> {
    let small = attack.folder("disk")?;
    let disk = Disk::mount_on(&small);
    if let Err(error) = &disk {
        println!("  a full disk is not tried, because none could be mounted: {error}");
    }
    let mut struck = BTreeSet::new();
    let mut rounds = 0;
    while attack.goes_on() {
        rounds += 1;
        match &disk {
            Ok(disk) if rounds % DISK_EVERY == 0 => {
                let mut workspace = Workspace::make(attack, &small)?;
                full_disk(attack, &mut workspace, disk)?;
                workspace.settle(attack)?;
                workspace.remove()?;
            }
            Ok(_) | Err(_) => {
                let folder = attack.folder("life")?;
                let mut workspace = Workspace::make(attack, &folder)?;
                one_blow(attack, &mut workspace, &mut struck)?;
                workspace.settle(attack)?;
                workspace.remove()?;
            }
        }
    }
    if disk.is_ok() {
        umount(&small).map_err(io::Error::from)?;
    }
    Ok(())
}

fn one_blow(
    attack: &mut Attack,
    workspace: &mut Workspace,
    struck: &mut BTreeSet<(Blow, Moment)>,
) -> io::Result<()> {
    for text in ["one", "two", "three"] {
        workspace.send(attack, text)?;
    }
    let moment = attack.one_of(&Moment::ALL);
    workspace.wait_for(attack, moment);
    let mut possible = workspace.blows();
    possible.retain(|blow| !struck.contains(&(blow.clone(), moment)));
    if possible.is_empty() {
        struck.clear();
        possible = workspace.blows();
    }
    let at = usize::try_from(attack.dice.below(possible.len() as u64)).unwrap_or(0);
    let blow = possible.swap_remove(at);
    workspace.strike(attack, &blow)?;
    struck.insert((blow, moment));
    workspace.send(attack, "four")?;
    Ok(())
}

/// Messages before, during and after; what is accepted is answered when there is room again.
fn full_disk(attack: &mut Attack, workspace: &mut Workspace, disk: &Disk) -> io::Result<()> {
    attack.count("full disks");
    workspace.send(attack, "one")?;
    workspace.wait_for(attack, Moment::InATurn);
    disk.fill()?;
    workspace.send(attack, "two")?;
    let victim = attack.one_of(&Blow::KILLS);
    workspace.strike(attack, victim)?;
    workspace.start(attack)?;
    workspace.send(attack, "three")?;
    disk.empty();
    workspace.send(attack, "four")
}
