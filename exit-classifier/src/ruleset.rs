//! An ordered list of rules, and the one function that applies it.

use std::fmt;

use crate::ending::write_signal;
use crate::rule::Rule;
use crate::standard;
use crate::{Ending, LockHolder, Observation, Verdict, stderr};

/// The rules for one kind of process, in their order; the first match wins.
///
/// There is a set for each answer to "whose exit is this?": a handler of ours ([`RuleSet::handler`]), an agent in a turn
/// ([`RuleSet::agent`]), any other program ([`RuleSet::command`]).
#[derive(Clone, Debug)]
pub struct RuleSet {
    preferred: Vec<Rule>,
    standard: &'static [Rule],
    otherwise: Rule,
}

impl RuleSet {
    /// Returns the rules for a handler: a supervised program that speaks the agreed exit codes.
    #[must_use]
    pub const fn handler() -> Self {
        Self::of(standard::HANDLER, standard::UNKNOWN)
    }

    /// Returns the rules for an agent that a handler runs for one turn.
    ///
    /// What goes wrong is a failed turn ([`Counts::TurnFailed`](crate::Counts::TurnFailed)), and no account is touched. Only three kinds of ending
    /// concern the handler itself, which then leaves too: `Permanent` (it cannot be started as configured), `Dependency` (it says 69) and `Crash`
    /// (the system had no room for it).
    #[must_use]
    pub const fn agent() -> Self {
        Self::of(standard::AGENT, standard::TURN_FAILED)
    }

    /// Returns the rules for a program that knows nothing of us: no code but 0 has a meaning, unless a shell wrapper says it.
    #[must_use]
    pub const fn command() -> Self {
        Self::of(standard::COMMAND, standard::UNKNOWN)
    }

    const fn of(standard: &'static [Rule], otherwise: Rule) -> Self {
        Self {
            preferred: Vec::new(),
            standard,
            otherwise,
        }
    }

    /// Puts a rule before all others, those preferred earlier among them.
    ///
    /// That includes the rules for what was asked: a rule that should leave a requested stop alone has the condition
    /// [`Condition::Unasked`](crate::Condition::Unasked).
    #[must_use]
    pub fn prefer(mut self, rule: Rule) -> Self {
        self.preferred.push(rule);
        self
    }

    /// Returns all rules in the order in which they are tried; the last one matches everything.
    pub fn rules(&self) -> impl Iterator<Item = &Rule> {
        self.preferred
            .iter()
            .rev()
            .chain(self.standard)
            .chain(std::iter::once(&self.otherwise))
    }

    /// Returns what the ending means: the verdict of the first rule that matches.
    ///
    /// There is always a verdict. An ending that no rule knows is a crash (for an agent: a failed turn).
    pub fn classify(&self, seen: &Observation<'_>) -> Verdict {
        let rule = self
            .rules()
            .find(|rule| rule.matches(seen))
            .unwrap_or(&self.otherwise);
        Verdict {
            class: rule.counts.class(),
            cause: rule.cause,
            counts: rule.counts,
            rule: rule.name.clone(),
            because: rule.because.clone(),
            ending: seen.ending,
            ran_for: seen.ran_for,
            evidence: evidence(seen),
        }
    }
}

/// Returns the facts that speak, in a fixed order.
fn evidence(seen: &Observation<'_>) -> Vec<(&'static str, String)> {
    let mut facts = vec![
        ("ending", seen.ending.to_string()),
        ("ran_ms", seen.ran_for.as_millis().to_string()),
    ];
    match seen.ending {
        Ending::Signal { core: true, .. } => facts.push(("core_dumped", "true".to_owned())),
        Ending::NeverStarted { errno } if errno != 0 => facts.push(("errno", errno.to_string())),
        Ending::Code(_)
        | Ending::Signal { core: false, .. }
        | Ending::Lost
        | Ending::NeverStarted { .. } => {}
    }
    if let Some(asked) = seen.asked {
        facts.push(("asked", asked.to_string()));
    }
    if let Some(holder) = seen.lock_holder {
        facts.push(("holder_pid", holder.pid.to_string()));
        facts.push(("holder", holder_word(holder).to_owned()));
    }
    if seen.memory_drained {
        facts.push(("memory_drained", "true".to_owned()));
    }
    if seen.oom_kills > 0 {
        facts.push(("oom_kills", seen.oom_kills.to_string()));
    }
    if seen.wrapper {
        facts.push(("wrapper", "true".to_owned()));
        if let Some(number) = seen.ending.signal_told_by_shell() {
            facts.push(("decoded", SignalName(number).to_string()));
        }
    }
    let told = stderr::printable_tail(seen.stderr_tail);
    if !told.is_empty() {
        facts.push(("stderr", told));
    }
    facts
}

const fn holder_word(holder: LockHolder) -> &'static str {
    match (holder.alive, holder.own_child) {
        (true, false) => "live_other",
        (true, true) => "live_own",
        (false, false) => "dead_other",
        (false, true) => "dead_own",
    }
}

struct SignalName(i32);

impl fmt::Display for SignalName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_signal(f, self.0)
    }
}
