//! Who holds a directory.

use std::fmt;

use crate::claim::Claim;
use crate::identity::ProcessIdentity;
use crate::judge::Claimant;
use crate::kind::Kind;
use crate::record::Record;

/// Who holds a directory, or held it last.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Holder {
    /// The process.
    pub pid: u32,
    /// Since when: line two of its record, verbatim.
    pub since: String,
    /// What sort of program it is.
    pub kind: Kind,
    /// What the guard tells beyond the record. Boxed, because most of the time a holder travels in errors.
    claim: Option<Box<Claim>>,
}

impl Holder {
    pub(crate) fn from_record(record: &Record, claim: Option<&Claim>) -> Self {
        Self {
            pid: record.pid,
            since: record.since.clone(),
            kind: record.kind.clone(),
            claim: claim.map(|claim| Box::new(claim.clone())),
        }
    }

    pub(crate) fn from_claim(claim: &Claim) -> Self {
        Self {
            pid: claim.process.pid,
            since: claim.at.clone(),
            kind: claim.kind.clone(),
            claim: Some(Box::new(claim.clone())),
        }
    }

    /// Returns which process exactly it is; `None` for the three-line record of another tool.
    #[must_use]
    pub fn identity(&self) -> Option<&ProcessIdentity> {
        self.claim.as_ref().map(|claim| &claim.process)
    }

    /// Returns the fencing token of its acquisition; `None` for another tool.
    #[must_use]
    pub fn generation(&self) -> Option<u64> {
        self.claim.as_ref().map(|claim| claim.generation)
    }

    /// Returns the name of its host, where it told.
    #[must_use]
    pub fn host(&self) -> Option<&str> {
        self.claim.as_ref().map(|claim| claim.host.as_str())
    }

    /// Returns the number of its user, where it told.
    #[must_use]
    pub fn uid(&self) -> Option<u32> {
        self.claim.as_ref().map(|claim| claim.uid)
    }

    /// Returns whether `other` is the same acquisition, not only the same process.
    #[must_use]
    pub fn is_same_acquisition(&self, other: &Self) -> bool {
        self.pid == other.pid && self.since == other.since
    }

    /// Returns what the judge needs to know.
    #[must_use]
    pub fn claimant(&self) -> Claimant {
        self.claim.as_ref().map_or_else(
            || Claimant::unproven(self.pid),
            |claim| Claimant::from(claim.as_ref()),
        )
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "process {} ({}, since {})",
            self.pid, self.kind, self.since
        )
    }
}
