//! The table, and what ours is beside the others in it.

use std::fmt;
use std::time::Duration;

/// What was measured of one supervisor with so many units.
#[derive(Clone, Debug)]
pub(crate) struct Figures {
    pub(crate) name: &'static str,
    pub(crate) units: usize,
    /// Sorted.
    pub(crate) restarts: Vec<Duration>,
    pub(crate) start: Duration,
    pub(crate) stop: Duration,
    pub(crate) ended: Duration,
    pub(crate) burst: Option<Duration>,
    pub(crate) pss_kib: u64,
    pub(crate) wakeups: f64,
}

pub(crate) const HEAD: &str = "supervisor        units  restart p50/p99 ms (n)       start ms  stop ms  and itself ms  500 killed ms  PSS KiB  wake-ups/s";

impl Figures {
    fn restart(&self, share: f64) -> f64 {
        let index = ((self.restarts.len() - 1) as f64 * share).round() as usize;
        millis(self.restarts[index])
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let burst = self
            .burst
            .map_or_else(|| "-".to_owned(), |burst| format!("{:.0}", millis(burst)));
        write!(
            f,
            "{:16} {:6}  {:8.2} / {:8.2} ({:2})  {:13.0}  {:7.0}  {:13.0}  {burst:>13}  {:7}  {:10.1}",
            self.name,
            self.units,
            self.restart(0.5),
            self.restart(0.99),
            self.restarts.len(),
            millis(self.start),
            millis(self.stop),
            millis(self.ended),
            self.pss_kib,
            self.wakeups,
        )
    }
}

fn millis(span: Duration) -> f64 {
    span.as_secs_f64() * 1_000.0
}

/// What ours is beside each of the others with as many units: below 1 is better.
pub(crate) fn ratios(all: &[Figures]) -> Vec<String> {
    let mut lines = Vec::new();
    for ours in all.iter().filter(|figures| figures.name == "ours") {
        for other in all
            .iter()
            .filter(|other| other.units == ours.units && other.name != "ours")
        {
            let of = |ours: f64, other: f64| ours / other.max(f64::MIN_POSITIVE);
            let burst = ours.burst.zip(other.burst);
            let burst = burst.map_or_else(String::new, |(ours, other)| {
                format!(", 500 killed {:.2}", of(millis(ours), millis(other)))
            });
            lines.push(format!(
                "{:6} units, ours / {:16} restart p50 {:.2}, start {:.2}, stop {:.2}{burst}, PSS {:.2}",
                ours.units,
                other.name,
                of(ours.restart(0.5), other.restart(0.5)),
                of(millis(ours.start), millis(other.start)),
                of(millis(ours.stop), millis(other.stop)),
                of(ours.pss_kib as f64, other.pss_kib as f64),
            ));
        }
    }
    lines
}

/// What each further unit costs the supervisor, from its smallest number of units to its largest.
pub(crate) fn memory(all: &[Figures]) -> Vec<String> {
    let mut lines = Vec::new();
    for least in all {
        let same = || all.iter().filter(|figures| figures.name == least.name);
        let is_least = same().all(|other| other.units >= least.units);
        if let Some(most) = same().max_by_key(|figures| figures.units)
            && is_least
            && most.units > least.units
        {
            let kib = most.pss_kib as f64 - least.pss_kib as f64;
            lines.push(format!(
                "{:16} {:8.2} KiB for each running child (PSS, from {} to {})",
                least.name,
                kib / (most.units - least.units) as f64,
                least.units,
                most.units,
            ));
        }
    }
    lines
}
