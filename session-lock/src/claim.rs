//! The guard's text, `.handler.guard`: who holds it, told in full, and the fencing generation.
//!
//! ```text
//! v1 held gen=42 pid=4711 start=126888 boot=<uuid> pidns=4026531836 host=box uid=1000 at=<line two> kind=chat-nex
//! ```
//!
//! The first line belongs to whoever locked the guard last; a second one, if it is there, to the owner of a
//! record that was still in place then. The text is written only under the guard's flock, so it needs no
//! atomic replacement, and the record can stay at the three lines that other tools understand. Process number
//! and line two together pair a claim with its record.

use crate::identity::ProcessIdentity;
use crate::kind::Kind;
use crate::record::{self, Record};

/// Where the state word starts in a line. It has four letters in every state, so that releasing is one short
/// write in place.
pub(crate) const STATE_AT: u64 = 3;

/// What the owner of a claim last said about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// It holds the guard, or died holding it.
    Held,
    /// It released the guard.
    Free,
    /// It let go while a child that had borrowed the guard still ran.
    Left,
}

impl State {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::Free => "free",
            Self::Left => "left",
        }
    }

    fn from_word(word: &str) -> Option<Self> {
        [Self::Held, Self::Free, Self::Left]
            .into_iter()
            .find(|state| state.word() == word)
    }
}

/// One line of the guard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) state: State,
    pub(crate) generation: u64,
    pub(crate) process: ProcessIdentity,
    pub(crate) pid_namespace: Option<u64>,
    pub(crate) host: String,
    pub(crate) uid: u32,
    pub(crate) at: String,
    pub(crate) kind: Kind,
}

impl Claim {
    /// Returns the line, with its line feed.
    pub(crate) fn format(&self) -> String {
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        format!(
            "v1 {} gen={} pid={} start={} boot={} pidns={} host={} uid={} at={} kind={}\n",
            self.state.word(),
            self.generation,
            self.process.pid,
            or_dash(self.process.start_ticks.map(|ticks| ticks.to_string())),
            or_dash(self.process.boot_id.clone()),
            or_dash(self.pid_namespace.map(|inode| inode.to_string())),
            self.host,
            self.uid,
            self.at,
            self.kind,
        )
    }

    /// Returns the claim that a line, without its line feed, makes. A line of another version makes none.
    pub(crate) fn parse(line: &str) -> Option<Self> {
        let rest = line.strip_prefix("v1 ")?;
        let (state, rest) = rest.split_once(' ')?;
        let (rest, kind) = rest.split_once(" kind=")?;
        let (rest, at) = rest.split_once(" at=")?;
        let mut fields = rest.split(' ');
        let mut field = |name: &str| fields.next()?.strip_prefix(name)?.strip_prefix('=');
        // `-` stands for what the system did not tell.
        let optional = |text: &str| (text != "-").then(|| text.to_owned());
        let claim = Self {
            state: State::from_word(state)?,
            generation: field("gen")?.parse().ok()?,
            process: ProcessIdentity {
                pid: record::parse_pid(field("pid")?)?,
                start_ticks: optional(field("start")?)
                    .map(|ticks| ticks.parse())
                    .transpose()
                    .ok()?,
                boot_id: optional(field("boot")?),
            },
            pid_namespace: optional(field("pidns")?)
                .map(|inode| inode.parse())
                .transpose()
                .ok()?,
            host: field("host")?.to_owned(),
            uid: field("uid")?.parse().ok()?,
            at: at.to_owned(),
            kind: Kind::from(kind),
        };
        (fields.next().is_none() && record::is_time(at) && claim.kind.is_writable())
            .then_some(claim)
    }

    /// Returns whether this claim and that record were written by the same acquisition.
    pub(crate) fn made(&self, record: &Record) -> bool {
        self.process.pid == record.pid && self.at == record.since
    }
}

/// Everything that a guard's text says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct GuardText {
    /// The readable claims, the latest first.
    pub(crate) claims: Vec<Claim>,
    /// The highest generation that any line names, also one of a version that is not known here.
    pub(crate) highest_generation: Option<u64>,
}

impl GuardText {
    pub(crate) fn parse(bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(bytes);
        // A last line without its line feed is a torn write: what it says may be half a number.
        let complete = text
            .rsplit_once('\n')
            .map_or("", |(complete, _torn)| complete);
        Self {
            claims: complete.lines().filter_map(Claim::parse).collect(),
            highest_generation: complete
                .lines()
                .flat_map(|line| line.split(' '))
                .filter_map(|word| word.strip_prefix("gen=")?.parse().ok())
                .max(),
        }
    }

    /// Returns the claim that was made together with `record`.
    pub(crate) fn claim_of(&self, record: &Record) -> Option<&Claim> {
        self.claims.iter().find(|claim| claim.made(record))
    }

    /// Returns the claim of whoever locked the guard last.
    pub(crate) fn latest(&self) -> Option<&Claim> {
        self.claims.first()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GOLDEN: &str = include_str!("../tests/golden/handler.guard");

    #[test]
    fn a_golden_guard_is_read_and_written_as_ever() {
        let text = GuardText::parse(GOLDEN.as_bytes());
        assert_eq!(text.claims.len(), 2);
        assert_eq!(text.highest_generation, Some(1_795_232_444_432_870));
        assert_eq!(text.claims[0].process.start_ticks, Some(126_888));
        assert_eq!(text.claims[1].process.start_ticks, None);
        assert_eq!(text.claims[1].kind.as_str(), "my own kind");
        let written: String = text.claims.iter().map(Claim::format).collect();
        assert_eq!(written, GOLDEN);
    }

    #[test]
    fn the_state_word_stands_where_it_is_overwritten() {
        for state in [State::Held, State::Free, State::Left] {
            let mut claim = GuardText::parse(GOLDEN.as_bytes()).claims.remove(0);
            claim.state = state;
            let at = usize::try_from(STATE_AT).unwrap();
            assert_eq!(claim.format().get(at..at + 4), Some(state.word()));
            assert_eq!(Claim::parse(claim.format().trim_end()), Some(claim));
        }
    }

    prop_compose! {
        fn claim()(
            state in prop::sample::select(vec![State::Held, State::Free, State::Left]),
            generation: u64, pid in 1..=i32::MAX.cast_unsigned(), start_ticks: Option<u64>,
            boot_id in prop::option::of("[0-9a-f-]{2,36}"), pid_namespace: Option<u64>,
            host in "[^\\s\\p{Cc}]{1,20}", uid: u32, kind in "[^\\n\\r\\x00]{1,60}",
        ) -> Claim {
            let process = ProcessIdentity { pid, start_ticks, boot_id };
            let at = "2026-11-21T02:45:50.123456789Z".to_owned();
            Claim { state, generation, process, pid_namespace, host, uid, at, kind: Kind::from(kind.as_str()) }
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(claim in claim()) {
            let text = GuardText::parse(claim.format().as_bytes());
            prop_assert_eq!(text.highest_generation, Some(claim.generation));
            prop_assert_eq!(text.claims, vec![claim]);
        }

        #[test]
        fn a_torn_line_claims_nothing(claim in claim(), cut in any::<prop::sample::Index>()) {
            let line = claim.format();
            let torn = &line.as_bytes()[..cut.index(line.len())];
            prop_assert_eq!(GuardText::parse(torn), GuardText::default());
        }

        #[test]
        fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let text = GuardText::parse(&bytes);
            prop_assert!(text.claims.iter().all(|claim| claim.process.pid > 0));
        }
    }
}
