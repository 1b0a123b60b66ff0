//! What is possible at all: the same starts and the same waits with nothing else. Neither looks for what a child left, keeps a
//! book, writes a line or can be asked anything.

use std::error::Error;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

/// The token of standard input, whose end is the stop.
const STOP: u64 = u64::MAX;
/// Such a thread does next to nothing.
const STACK: usize = 64 << 10;

fn arguments() -> Result<(usize, String), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let count = args.next().ok_or("a number of units is missing")?.parse()?;
    let child = args.next().ok_or("the path of the child is missing")?;
    Ok((count, child))
}

fn start(child: &str) -> io::Result<Child> {
    Command::new(child).stdin(Stdio::null()).spawn()
}

fn terminate(pid: u32) -> Result<(), Box<dyn Error>> {
    let pid = Pid::from_raw(i32::try_from(pid)?).ok_or("pid 0")?;
    Ok(kill_process(pid, Signal::TERM)?)
}

struct Watched {
    child: Child,
    pidfd: OwnedFd,
}

/// One thread: a pidfd for each child, one epoll.
pub(crate) fn one_thread() -> Result<(), Box<dyn Error>> {
    let (count, program) = arguments()?;
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    epoll.add(io::stdin(), EpollEvent::new(EpollFlags::EPOLLIN, STOP))?;
    let watch = |unit: usize| -> Result<Watched, Box<dyn Error>> {
        let child = start(&program)?;
        let pid = Pid::from_raw(i32::try_from(child.id())?).ok_or("pid 0")?;
        let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
        let token = u64::try_from(unit)?;
        epoll.add(pidfd.as_fd(), EpollEvent::new(EpollFlags::EPOLLIN, token))?;
        Ok(Watched { child, pidfd })
    };
    let mut units: Vec<Watched> = (0..count).map(&watch).collect::<Result<_, _>>()?;
    let mut events = vec![EpollEvent::empty(); 256];
    let mut left = count;
    let mut stopping = false;
    while left > 0 {
        let ready = epoll.wait(&mut events, EpollTimeout::NONE)?;
        for event in &events[..ready] {
            if event.data() == STOP {
                stopping = true;
                epoll.delete(io::stdin())?;
                for unit in &units {
                    terminate(unit.child.id())?;
                }
                continue;
            }
            let unit = usize::try_from(event.data())?;
            epoll.delete(units[unit].pidfd.as_fd())?;
            units[unit].child.wait()?;
            if stopping {
                left -= 1;
            } else {
                units[unit] = watch(unit)?;
            }
        }
    }
    Ok(())
}

/// What a thread and the one that stops it share.
#[derive(Default)]
struct Slot {
    pid: Option<u32>,
    stopping: bool,
}

/// A thread for each child, which waits for it.
pub(crate) fn thread_per_child() -> Result<(), Box<dyn Error>> {
    let (count, program) = arguments()?;
    let program = Arc::new(program);
    let mut threads = Vec::new();
    for _ in 0..count {
        let slot = Arc::new(Mutex::new(Slot::default()));
        let (program, mine) = (Arc::clone(&program), Arc::clone(&slot));
        let thread =
            thread::Builder::new()
                .stack_size(STACK)
                .spawn(move || -> io::Result<()> {
                    loop {
                        let mut slot = mine.lock().unwrap_or_else(PoisonError::into_inner);
                        if slot.stopping {
                            return Ok(());
                        }
                        let mut child = start(&program)?;
                        slot.pid = Some(child.id());
                        drop(slot);
                        child.wait()?;
                        mine.lock().unwrap_or_else(PoisonError::into_inner).pid = None;
                    }
                })?;
        threads.push((slot, thread));
    }
    io::stdin().read_to_end(&mut Vec::new())?;
    for (slot, _) in &threads {
        let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
        slot.stopping = true;
        if let Some(pid) = slot.pid {
            terminate(pid)?;
        }
    }
    for (_, thread) in threads {
        thread.join().map_err(|_| "a thread panicked")??;
    }
    Ok(())
}
