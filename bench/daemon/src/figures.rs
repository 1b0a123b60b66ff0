//! Numbers and where they come from.

use std::error::Error;
use std::fs;
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// Samples in order.
pub(crate) struct Sorted(Vec<Duration>);

impl Sorted {
    pub(crate) fn of(mut samples: Vec<Duration>) -> Self {
        samples.sort();
        Self(samples)
    }

    /// Measures one thing so many times.
    pub(crate) fn times(
        rounds: usize,
        mut what: impl FnMut() -> Result<(), Box<dyn Error>>,
    ) -> Result<Self, Box<dyn Error>> {
        let mut samples = Vec::with_capacity(rounds);
        for _ in 0..rounds {
            let begun = Instant::now();
            what()?;
            samples.push(begun.elapsed());
        }
        Ok(Self::of(samples))
    }

    /// The sample below which this share of them lies, in milliseconds.
    pub(crate) fn at(&self, share: f64) -> String {
        let last = self.0.len().saturating_sub(1);
        let index = (last as f64 * share).round() as usize;
        self.0.get(index).copied().map(millis).unwrap_or_default()
    }

    pub(crate) fn longest(&self) -> Duration {
        self.0.last().copied().unwrap_or_default()
    }
}

pub(crate) fn millis(span: Duration) -> String {
    format!("{:.2}", span.as_secs_f64() * 1_000.0)
}

/// What a process has for itself, and its share of what it shares.
pub(crate) fn pss_kib(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    number_after(&text, "Pss:")
}

/// How often the threads of a process have given up the processor by themselves.
pub(crate) fn wakeups(pid: u32) -> u64 {
    let threads = fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten();
    threads
        .flatten()
        .map(|thread| {
            let text = fs::read_to_string(thread.path().join("status")).unwrap_or_default();
            number_after(&text, "voluntary_ctxt_switches:")
        })
        .sum()
}

fn number_after(text: &str, label: &str) -> u64 {
    text.lines()
        .find_map(|line| line.strip_prefix(label))
        .and_then(|rest| rest.split_whitespace().next()?.parse().ok())
        .unwrap_or(0)
}

/// A thousand connections and pipes need more descriptors than the usual 1,024.
pub(crate) fn raise_descriptors() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard).ok();
    }
}

pub(crate) fn rest(span: Duration) {
    let (keep, never) = mpsc::channel::<()>();
    never.recv_timeout(span).ok();
    drop(keep);
}
