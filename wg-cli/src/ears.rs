//! The signals of a program that runs another one, in the form in which they can be passed on: with who sent them, and with their values.
//!
//! As in the kernel, an ordinary signal that is sent again before it was heard is heard once, and each real-time signal is one of its
//! own. The ordinary ones stand on a board, so that no flood of others can drown them. The real-time ones stand in a pipe: some 6,500 of
//! them (64 KiB) wait to be heard, and those beyond are lost without a word, where the kernel would have refused their sender.

use std::collections::VecDeque;
use std::io::{self, PipeReader, PipeWriter, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use nix::libc::{SI_KERNEL, SIGRTMAX, SIGRTMIN};
use nix::sys::signal::{SigSet, SigmaskHow};
use signal_hook::SigId;
use signal_hook::consts::{
    SIGABRT, SIGALRM, SIGHUP, SIGINT, SIGIO, SIGPROF, SIGQUIT, SIGTERM, SIGTRAP, SIGUSR1, SIGUSR2,
    SIGVTALRM, SIGWINCH, SIGXCPU,
};

use crate::process_signal;
use crate::sys;

/// What is passed on, besides the real-time signals. Most of these would end this program and leave the command alone.
const PASSED_ON: [i32; 16] = [
    SIGTERM,
    SIGINT,
    SIGQUIT,
    SIGHUP,
    SIGUSR1,
    SIGUSR2,
    SIGWINCH,
    SIGALRM,
    SIGVTALRM,
    SIGPROF,
    SIGXCPU,
    SIGIO,
    SIGABRT,
    SIGTRAP,
    nix::sys::signal::Signal::SIGPWR as i32,
    nix::sys::signal::Signal::SIGSTKFLT as i32,
];

/// A signal that was heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Heard {
    pub(crate) number: i32,
    /// Whether no process sent it: a terminal did, or what the system watches over, such as a limit.
    pub(crate) from_kernel: bool,
    /// What came along with it; see sigqueue(3).
    pub(crate) value: Option<usize>,
}

/// What is heard, one signal after the other, until nobody listens any more.
#[derive(Debug)]
pub(crate) struct Ears {
    board: Arc<Board>,
    bell: PipeReader,
    heard: VecDeque<Heard>,
}

/// While this lives, the signals do nothing but being heard.
#[derive(Debug)]
pub(crate) struct Listening {
    registered: Vec<SigId>,
}

/// Starts to listen to all that is passed on, and to `also`. What the caller of this program ignores, as `nohup` does, stays ignored, by
/// whatever is started, too; `also` is heard all the same.
pub(crate) fn listen(also: i32) -> io::Result<(Listening, Ears)> {
    let (bell, rope) = io::pipe()?;
    // A full pipe has told enough: a signal handler must never wait in write.
    rustix::io::ioctl_fionbio(rope.as_fd(), true)?;
    let board = Arc::new(Board::default());
    let rope = Arc::new(Rope {
        board: Arc::clone(&board),
        bell: rope,
    });
    let mut listening = Listening {
        registered: Vec::new(),
    };
    let ignored = process_signal::ignored();
    let heeded = PASSED_ON
        .into_iter()
        .chain(SIGRTMIN()..=SIGRTMAX())
        .filter(|number| ignored & (1 << (number - 1)) == 0);
    for number in heeded.chain([also]) {
        let id = sys::hear(number, Arc::clone(&rope))?;
        listening.registered.push(id);
    }
    let heard = VecDeque::new();
    Ok((listening, Ears { board, bell, heard }))
}

impl Ears {
    /// Returns where the signals stand before they are heard.
    pub(crate) fn board(&self) -> Arc<Board> {
        Arc::clone(&self.board)
    }

    /// Listens once, and returns what was heard: for who was told that there is something to read.
    pub(crate) fn listen(&mut self) -> Vec<Heard> {
        self.hear_more();
        self.heard.drain(..).collect()
    }

    /// Waits for a ring, and takes in what it is about; `false` if nobody can ring any more.
    fn hear_more(&mut self) -> bool {
        let mut record = [0; RECORD];
        let rung = self.bell.read_exact(&mut record).is_ok();
        if rung {
            self.heard.extend(heard_in(record));
            self.heard.extend(self.board.take());
        }
        rung
    }
}

impl AsFd for Ears {
    /// What is readable when there is something to hear.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }
}

/// Leaves all signals to the other threads. Where only the driver's thread has them, it cannot see a death without having seen the signal
/// that the terminal sent to both, and real-time signals keep their order. That thread starts the command, which inherits what is
/// blocked in it: nothing.
pub(crate) fn leave_to_others() {
    if let Err(errno) = SigSet::all().thread_block() {
        log::debug!("signals are not left to the driver: {errno}");
    }
}

/// Does this with all signals left to the other threads; a thread that is started so never has one.
pub(crate) fn apart<T>(start: impl FnOnce() -> T) -> io::Result<T> {
    let mask = SigSet::all().thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
    let started = start();
    mask.thread_set_mask()?;
    Ok(started)
}

impl Drop for Listening {
    /// The last handler that goes closes the pipe, which ends whoever reads it.
    fn drop(&mut self) {
        for id in self.registered.drain(..) {
            signal_hook::low_level::unregister(id);
        }
    }
}

impl Iterator for Ears {
    type Item = Heard;

    fn next(&mut self) -> Option<Heard> {
        while self.heard.is_empty() && self.hear_more() {}
        self.heard.pop_front()
    }
}

/// The ordinary signals that wait to be heard.
#[derive(Debug, Default)]
pub(crate) struct Board {
    /// Two bits each, so that both are set and taken at once: at its number where a process sent it, and `FROM_KERNEL` above where none did.
    waiting: AtomicU64,
    /// Whether one of those that end the command has come, heard or not.
    end: AtomicBool,
    /// How many hang-ups have come of which it is not decided yet what they mean.
    hang_ups: AtomicU32,
}

const FROM_KERNEL: i32 = 32;

impl Board {
    /// Whether this program was told to end the command, even if whoever listens has not heard of it yet.
    pub(crate) fn says_end(&self) -> bool {
        self.end.load(Ordering::SeqCst)
    }

    /// Whether there was a hang-up that may be the end.
    pub(crate) fn says_hang_up(&self) -> bool {
        self.hang_ups.load(Ordering::SeqCst) != 0
    }

    /// Decides what the hang-ups until now mean.
    pub(crate) fn weigh<T>(&self, decide: impl FnOnce() -> T) -> T {
        let weighed = self.hang_ups.load(Ordering::SeqCst);
        let decided = decide();
        self.hang_ups.fetch_sub(weighed, Ordering::SeqCst);
        decided
    }

    fn take(&self) -> impl Iterator<Item = Heard> {
        let waiting = self.waiting.swap(0, Ordering::SeqCst);
        (1..ORDINARY)
            .filter(move |number| waiting & both(*number) != 0)
            .map(move |number| Heard {
                number,
                from_kernel: waiting >> FROM_KERNEL & (1 << number) != 0,
                value: None,
            })
    }
}

fn both(number: i32) -> u64 {
    (1 << number) | (1 << (number + FROM_KERNEL))
}

/// What a signal handler pulls.
#[derive(Debug)]
pub(crate) struct Rope {
    board: Arc<Board>,
    bell: PipeWriter,
}

impl Rope {
    /// Takes note of a signal: its number, its `si_code` and the value that came with it. Does nothing but what signal-safety(7) allows.
    pub(crate) fn pull(&self, number: i32, code: i32, value: Option<usize>) {
        let mut record = [0; RECORD];
        if (1..ORDINARY).contains(&number) {
            let from_kernel = code == SI_KERNEL;
            match number {
                SIGHUP if !from_kernel => {
                    self.board.hang_ups.fetch_add(1, Ordering::SeqCst);
                }
                SIGHUP | SIGINT | SIGTERM | SIGQUIT => {
                    self.board.end.store(true, Ordering::SeqCst);
                }
                _ => {}
            }
            let bit = 1 << (number + if from_kernel { FROM_KERNEL } else { 0 });
            if self.board.waiting.fetch_or(bit, Ordering::SeqCst) & both(number) != 0 {
                // Whoever put it there has rung, or is about to.
                return;
            }
        } else {
            record[0] = u8::try_from(number).unwrap_or_default();
            record[1] = u8::from(value.is_some());
            record[VALUE..].copy_from_slice(&value.unwrap_or_default().to_ne_bytes());
        }
        // Where the pipe is full there is something to read, and the board is looked at then.
        rustix::io::write(&self.bell, &record).unwrap_or(0);
    }
}

/// The first number that is not an ordinary signal's.
const ORDINARY: i32 = 32;
/// The length of what is written for each signal, which pipe(7) keeps whole: the number of a real-time signal or 0, whether it has a value,
/// and the value.
const RECORD: usize = VALUE + size_of::<usize>();
const VALUE: usize = 2;

fn heard_in(record: [u8; RECORD]) -> Option<Heard> {
    let value = record[VALUE..].try_into().map(usize::from_ne_bytes).ok()?;
    (record[0] != 0).then_some(Heard {
        number: i32::from(record[0]),
        from_kernel: false,
        value: (record[1] != 0).then_some(value),
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use nix::sys::signal::Signal;

    use super::*;

    fn ears() -> (Arc<Rope>, Ears) {
        let (bell, rope) = io::pipe().unwrap();
        rustix::io::ioctl_fionbio(rope.as_fd(), true).unwrap();
        let board = Arc::new(Board::default());
        let heard = VecDeque::new();
        let rope = Rope {
            board: Arc::clone(&board),
            bell: rope,
        };
        (Arc::new(rope), Ears { board, bell, heard })
    }

    fn of(number: i32) -> Heard {
        Heard {
            number,
            from_kernel: false,
            value: None,
        }
    }

    #[test]
    fn each_real_time_signal_is_heard_in_its_order_and_an_ordinary_one_once() {
        let (rope, ears) = ears();
        for _ in 0..3 {
            rope.pull(SIGTERM, 0, None);
        }
        rope.pull(40, 0, None);
        rope.pull(40, -1, Some(7));
        rope.pull(SIGHUP, SI_KERNEL, None);
        drop(rope);
        let heard: Vec<Heard> = ears.collect();
        let hang_up = Heard {
            from_kernel: true,
            ..of(SIGHUP)
        };
        let valued = Heard {
            value: Some(7),
            ..of(40)
        };
        assert_eq!(heard, [hang_up, of(SIGTERM), of(40), valued]);
    }

    #[test]
    fn a_signal_of_the_terminal_that_somebody_else_sends_too_is_still_the_terminals() {
        for codes in [[SI_KERNEL, 0], [0, SI_KERNEL]] {
            let (rope, ears) = ears();
            for code in codes {
                rope.pull(SIGINT, code, None);
            }
            drop(rope);
            let of_the_terminal = Heard {
                from_kernel: true,
                ..of(SIGINT)
            };
            assert_eq!(ears.collect::<Vec<_>>(), [of_the_terminal]);
        }
    }

    #[test]
    fn a_hang_up_that_comes_while_another_is_weighed_is_weighed_itself() {
        let (rope, mut ears) = ears();
        let board = ears.board();
        rope.pull(SIGHUP, 0, None);
        assert_eq!(ears.next(), Some(of(SIGHUP)));
        board.weigh(|| {
            assert!(board.says_hang_up());
            rope.pull(SIGHUP, 0, None);
        });
        assert!(board.says_hang_up());
        assert_eq!(ears.next(), Some(of(SIGHUP)));
        board.weigh(|| ());
        assert!(!board.says_hang_up());
    }

    #[test]
    fn a_thread_that_is_started_apart_never_has_a_signal() {
        let mask = || SigSet::thread_get_mask().unwrap();
        let before = mask();
        let its_own = apart(|| std::thread::spawn(mask)).unwrap().join().unwrap();
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
            assert!(its_own.contains(signal));
        }
        assert_eq!(mask(), before);
    }

    #[test]
    fn no_flood_drowns_an_ordinary_signal() {
        let (rope, mut ears) = ears();
        while (&rope.bell).write(&[0; RECORD]).is_ok() {}
        rope.pull(SIGTERM, 0, None);
        assert_eq!(ears.next(), Some(of(SIGTERM)));
    }
}
