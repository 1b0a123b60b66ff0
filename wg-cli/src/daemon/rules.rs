//! How the endings of handlers are judged: the rules of `exit-classifier`, and one that speaks of this program's own code.

use exit_classifier::{Cause, Condition, Counts, Rule, RuleSet};

use crate::exit_code::ExitCode;

/// The rules for handlers, and the one that only this program can have: its own code for "the system refused".
///
/// A full disk or too many processes are no fault of the handler, and no reason to call it one; it is charged as a crash all the same,
/// so that a machine that stays full is asked less and less often.
///
/// # Panics
///
/// Never: a rule that contradicts itself would fail every test of the daemon.
#[must_use]
pub fn handler_rules() -> RuleSet {
    let code = i32::from(ExitCode::System.code());
    let refused = Rule::new(
        "system_refused",
        vec![Condition::Unasked, Condition::Code(vec![code].into())],
        Cause::RuntimeError,
        Counts::Crash,
    )
    .expect("because a runtime error may count as a crash, and the name is plain")
    .because("the system refused what it needs, such as room on the disk or another process");
    RuleSet::handler().prefer(refused)
}
