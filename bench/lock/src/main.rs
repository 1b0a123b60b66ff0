//! session-lock beside what people use for the same job: uncontended, hand-off, hand-off from a killed holder,
//! fairness. Without arguments everything runs, in a temporary directory; `hand-off` and `fairness` run alone.

mod contender;

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use contender::{ALL, Contender, pause};
use nix::time::{ClockId, clock_gettime};

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["waiter", name, dir] => {
            waiter(Contender::parse(name).expect("a contender"), Path::new(dir))
        }
        ["holder", name, dir] => {
            holder(Contender::parse(name).expect("a contender"), Path::new(dir))
        }
        ["fair", name, dir] => fair(Contender::parse(name).expect("a contender"), Path::new(dir)),
        ["hand-off"] => hand_offs(tempfile::tempdir().expect("a directory").path()),
        ["fairness"] => all_fair(tempfile::tempdir().expect("a directory").path()),
        _ => everything(),
    }
}

fn everything() {
    let mut places = vec![std::env::temp_dir()];
    places.extend(Some("/dev/shm".into()).filter(|memory: &std::path::PathBuf| memory.is_dir()));
    for place in places {
        let dir = tempfile::tempdir_in(&place).expect("a directory");
        println!(
            "\n## Uncontended, acquire and release, one process, in {}\n",
            place.display()
        );
        uncontended(dir.path());
    }
    let dir = tempfile::tempdir().expect("a directory");
    hand_offs(dir.path());
    all_fair(dir.path());
    println!("\nNot measured: network file systems, other kernels, more than one machine.");
}

fn hand_offs(dir: &Path) {
    println!("\n## From a holder that releases to a waiter in another process\n");
    table(
        dir,
        |it| it != Contender::ExclusiveSynced,
        // Those who ask every 10 ms show in few samples how long that takes.
        |it, dir| hand_off(it, dir, if it.waits() { 500 } else { 100 }),
    );
    println!("\n## From a holder that is killed to a waiter in another process\n");
    table(dir, Contender::survives_kill, |it, dir| {
        kill_hand_off(it, dir, 40)
    });
}

fn all_fair(dir: &Path) {
    println!("\n## Four processes that want it all the time, 0.2 ms each, 3 s\n");
    for it in ALL.into_iter().filter(|it| it.waits()) {
        fairness(it, dir);
    }
}

/// Prints the median, the 99th percentile and the number of samples.
fn row(name: &str, mut samples: Vec<Duration>, against: Option<Duration>) -> Duration {
    samples.sort();
    let at = |part: usize| samples[(samples.len() - 1) * part / 100];
    let micros = |time: Duration| time.as_nanos() as f64 / 1000.0;
    let ratio = against.map_or(String::new(), |it| {
        format!("{:8.2}", micros(at(50)) / micros(it))
    });
    println!(
        "{name:36} {:>11.1} {:>11.1} {:>9} {ratio}",
        micros(at(50)),
        micros(at(99)),
        samples.len()
    );
    at(50)
}

fn uncontended(dir: &Path) {
    const SLICES: usize = 15;
    let mut samples: Vec<Vec<Duration>> = vec![Vec::new(); ALL.len() + 2];
    session_lock::inspect(dir).expect("a directory");
    for _ in 0..SLICES {
        for (at, it) in ALL.into_iter().enumerate() {
            let cycles = if it == Contender::ExclusiveSynced {
                40
            } else {
                400
            };
            measure(cycles, &mut samples[at], || it.cycle(dir));
        }
        let file = dir.join("file");
        let flock = || {
            assert!(
                Command::new("flock")
                    .arg(&file)
                    .arg("true")
                    .status()
                    .is_ok_and(|it| it.success())
            )
        };
        measure(10, &mut samples[ALL.len()], flock);
        let held = Contender::SessionLock.try_take(dir);
        measure(400, &mut samples[ALL.len() + 1], || {
            drop(session_lock::inspect(dir))
        });
        drop(held);
    }
    println!(
        "{:36} {:>11} {:>11} {:>9} {:>8}",
        "", "median us", "p99 us", "samples", "x O_EXCL"
    );
    let mut exclusive = samples[4].clone();
    exclusive.sort();
    let against = Some(exclusive[exclusive.len() / 2]);
    let names = ALL
        .map(Contender::name)
        .into_iter()
        .chain(["flock FILE true", "session-lock inspect (held)"]);
    for (name, samples) in names.zip(samples) {
        row(name, samples, against);
    }
}

fn measure(cycles: usize, samples: &mut Vec<Duration>, mut cycle: impl FnMut()) {
    for _ in 0..cycles {
        let begin = Instant::now();
        cycle();
        samples.push(begin.elapsed());
    }
}

fn table(
    dir: &Path,
    wanted: impl Fn(Contender) -> bool,
    samples: impl Fn(Contender, &Path) -> Vec<Duration>,
) {
    println!(
        "{:36} {:>11} {:>11} {:>9}",
        "", "median us", "p99 us", "samples"
    );
    for it in ALL.into_iter().filter(|it| wanted(*it)) {
        let name = if it.waits() {
            it.name().to_owned()
        } else {
            format!("{}, asked every 10 ms", it.name())
        };
        row(&name, samples(it, dir), None);
    }
}

/// A process of this bench.
struct Player {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Player {
    fn start(role: &str, it: Contender, dir: &Path) -> Self {
        let exe = std::env::current_exe().expect("a path");
        let mut command = Command::new(exe);
        command
            .arg(role)
            .arg(format!("{it:?}"))
            .arg(dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = command.spawn().expect("a process");
        let (stdin, stdout) = (
            child.stdin.take().expect("a pipe"),
            child.stdout.take().expect("a pipe"),
        );
        Self {
            child,
            stdin,
            stdout: BufReader::new(stdout),
        }
    }

    fn tell(&mut self) {
        self.stdin.write_all(b"\n").expect("a reader");
    }

    fn hear(&mut self) -> u64 {
        let mut line = String::new();
        self.stdout.read_line(&mut line).expect("a line");
        line.trim().parse().expect("a number")
    }
}

impl Drop for Player {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn now() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("a clock");
    now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64
}

fn listen() -> bool {
    let mut line = String::new();
    std::io::stdin()
        .read_line(&mut line)
        .is_ok_and(|read| read > 0)
}

fn say(number: u64) {
    println!("{number}");
    std::io::stdout().flush().expect("a reader");
}

/// Waits for the lock each time it is told to, says when it got it, releases it, and says when that is done.
fn waiter(it: Contender, dir: &Path) {
    while listen() {
        let held = it.take(dir);
        say(now());
        drop(held);
        say(0);
    }
}

/// Takes the lock, says so, and holds it until it is killed.
fn holder(it: Contender, dir: &Path) {
    let _held = it.take(dir);
    say(now());
    listen();
}

/// Takes the lock all the time for 3 s and says how often it got it.
fn fair(it: Contender, dir: &Path) {
    listen();
    let end = Instant::now() + Duration::from_secs(3);
    let mut times = 0;
    while Instant::now() < end {
        let held = it.take(dir);
        let until = Instant::now() + Duration::from_micros(200);
        while Instant::now() < until {
            std::hint::spin_loop();
        }
        drop(held);
        times += 1;
    }
    say(times);
}

fn hand_off(it: Contender, dir: &Path, times: u64) -> Vec<Duration> {
    let mut waiter = Player::start("waiter", it, dir);
    (0..times)
        .map(|turn| {
            let held = it.take(dir);
            waiter.tell();
            // Long enough for the waiter to wait; different each time, so that nobody's polling falls into step.
            pause(Duration::from_micros(3000 + turn * 7919 % 15_000));
            let released = now();
            drop(held);
            let taken = waiter.hear();
            waiter.hear();
            Duration::from_nanos(taken - released)
        })
        .collect()
}

fn kill_hand_off(it: Contender, dir: &Path, times: u64) -> Vec<Duration> {
    let mut waiter = Player::start("waiter", it, dir);
    (0..times)
        .map(|turn| {
            let mut holder = Player::start("holder", it, dir);
            holder.hear();
            waiter.tell();
            pause(Duration::from_micros(3000 + turn * 7919 % 15_000));
            let killed = now();
            holder.child.kill().expect("a signal");
            // Reaped at once: to a lock that asks with signal 0, a zombie lives for ever.
            holder.child.wait().expect("its end");
            let taken = waiter.hear();
            waiter.hear();
            Duration::from_nanos(taken - killed)
        })
        .collect()
}

fn fairness(it: Contender, dir: &Path) {
    let mut players: Vec<_> = (0..4).map(|_| Player::start("fair", it, dir)).collect();
    players.iter_mut().for_each(Player::tell);
    let times: Vec<u64> = players.iter_mut().map(Player::hear).collect();
    let (sum, squares) = times.iter().fold((0.0, 0.0), |(sum, squares), it| {
        let it = *it as f64;
        (sum + it, squares + it * it)
    });
    let jain = sum * sum / (times.len() as f64 * squares);
    println!("{:36} Jain {jain:.3}, {times:?}", it.name());
}
