//! What a check of the workspace found: shared by `wg doctor` and `wg session check`.

use serde::Serialize;

use super::context::Context;
use crate::exit_code::ExitCode;
use crate::failure::Outcome;
use crate::report::{Paint, one_line};

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Weight {
    /// Good to know; nothing has to be done.
    Note,
    /// Something does not work as well as it could.
    Warning,
    /// Something does not work.
    Error,
}

/// One thing that was found.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Finding {
    /// Which check found it.
    check: &'static str,
    weight: Weight,
    /// What is the matter.
    text: String,
    /// What would help.
    fix: Option<String>,
    /// Whether `--fix` does that.
    fixable: bool,
    /// Whether it was done.
    fixed: bool,
}

impl Finding {
    /// A finding that only a person can do something about, or nobody has to.
    pub(super) fn new(check: &'static str, weight: Weight, text: impl Into<String>) -> Self {
        Self {
            check,
            weight,
            text: text.into(),
            fix: None,
            fixable: false,
            fixed: false,
        }
    }

    /// What is the matter.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// Says what a person can do.
    pub(super) fn with_advice(mut self, advice: impl Into<String>) -> Self {
        self.fix = Some(advice.into());
        self
    }

    /// Says what `--fix` does, and does it where `fix` says so. A fix that fails is told as part of the finding.
    pub(super) fn fixed_by(
        mut self,
        what: &str,
        fix: Fix,
        repair: impl FnOnce() -> Outcome<()>,
    ) -> Self {
        self.fix = Some(what.to_owned());
        self.fixable = true;
        if fix == Fix::Make {
            match repair() {
                Ok(()) => self.fixed = true,
                Err(failure) => self.text = format!("{}; the fix failed: {failure}", self.text),
            }
        }
        self
    }

    /// Whether it still needs somebody.
    fn is_open(&self) -> bool {
        self.weight != Weight::Note && !self.fixed
    }

    fn to_text(&self, cx: &Context<'_>) -> String {
        let (paint, word) = match self.weight {
            _ if self.fixed => (Paint::Good, "fixed"),
            Weight::Note => (Paint::Faint, "note"),
            Weight::Warning => (Paint::Waiting, "warning"),
            Weight::Error => (Paint::Bad, "error"),
        };
        let head = format!(
            "{} {}: {}",
            cx.report.paint(paint, word),
            self.check,
            one_line(&self.text)
        );
        match &self.fix {
            Some(fix) if self.fixed => format!("{head}\n    done: {}", one_line(fix)),
            Some(fix) if self.fixable => format!("{head}\n    --fix would: {}", one_line(fix)),
            Some(fix) => format!("{head}\n    you can: {}", one_line(fix)),
            None => head,
        }
    }
}

/// Whether fixes are made or only explained.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fix {
    /// Made.
    Make,
    /// Explained.
    Explain,
}

impl From<bool> for Fix {
    fn from(flag: bool) -> Self {
        if flag { Self::Make } else { Self::Explain }
    }
}

#[derive(Debug, Serialize)]
struct Findings<'a> {
    ok: bool,
    findings: &'a [Finding],
}

/// Tells what was found; the exit code says whether something is left to do.
pub(super) fn tell(cx: &Context<'_>, findings: &[Finding]) -> Outcome {
    let open = findings.iter().filter(|finding| finding.is_open()).count();
    cx.report.answer(
        &Findings {
            ok: open == 0,
            findings,
        },
        || {
            let mut lines: Vec<String> =
                findings.iter().map(|finding| finding.to_text(cx)).collect();
            lines.push(match open {
                0 => "Nothing needs to be done.".to_owned(),
                _ if findings
                    .iter()
                    .any(|finding| finding.is_open() && finding.fixable) =>
                {
                    format!("{open} finding(s) need something; --fix does what is marked so.")
                }
                _ => format!("{open} finding(s) need something."),
            });
            lines.join("\n")
        },
    )?;
    Ok(if open == 0 {
        ExitCode::Ok
    } else {
        ExitCode::Failed
    })
}
