//! Who holds a session, as the supervisor's machine wants to know it.

use std::path::Path;

use session_lock::{InspectError, Inspection};
use supervisor::Holder;

/// Who holds the session of this directory now, and whether that process can be watched.
pub(super) fn live_holder(dir: &Path) -> Result<Option<(Holder, bool)>, InspectError> {
    let inspection = session_lock::inspect(dir)?;
    let watchable = inspection.is_watchable();
    Ok(match inspection {
        Inspection::Held(held) => match held.holder {
            Some(holder) => {
                let start = holder.identity().and_then(|identity| identity.start_ticks);
                Some((crate::wire::holder(&holder, start), watchable))
            }
            None => Some((somebody(held.reason.to_string()), false)),
        },
        Inspection::Free | Inspection::Stale { .. } | Inspection::Corrupt { .. } => tui_holder(dir),
        // A form of looking that this build does not know: held is the safe reading.
        other => Some((somebody(format!("{other:?}")), false)),
    })
}

fn somebody(label: String) -> Holder {
    Holder {
        pid: 0,
        start: None,
        label,
    }
}

/// A live screen of the earlier tool that drives the chat itself (`.tui-driven`: pid, start).
fn tui_holder(dir: &Path) -> Option<(Holder, bool)> {
    let text = std::fs::read_to_string(dir.join(".tui-driven")).ok()?;
    let pid: u32 = text
        .lines()
        .next()?
        .trim()
        .parse()
        .ok()
        .filter(|pid| *pid > 1)?;
    let identity = session_lock::ProcessIdentity::of(pid).ok().flatten()?;
    let label = "tui-driven".to_owned();
    Some((
        Holder {
            pid,
            start: identity.start_ticks,
            label,
        },
        true,
    ))
}
