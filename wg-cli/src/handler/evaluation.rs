//! The one line that `--eval-mode` prints.

use serde_json::json;

use super::turn::Report;

/// Returns `{"ok", "reply", "exit", "duration_ms"}`; the last two are null where no turn was run.
pub(crate) fn line(ok: bool, content: &str, report: Option<&Report>) -> String {
    json!({
        "ok": ok,
        "reply": content,
        "exit": report.map(|report| report.ending.to_string()),
        "duration_ms": report.map(|report| u64::try_from(report.ran_for.as_millis()).unwrap_or(u64::MAX)),
    })
    .to_string()
}
