//! Who holds a session, as the supervisor's machine wants to know it.

use std::path::Path;

use session_lock::{InspectError, Inspection};
use supervisor::Holder;

use super::reap;
use crate::store::files;

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
        Inspection::Free | Inspection::Stale { .. } | Inspection::Corrupt { .. } => {
            screen_holder(dir)
        }
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

/// The screen of the earlier tool that drives the chat itself: its number, its start, and since when.
#[derive(Debug)]
pub(super) struct Screen {
    pub(super) pid: u32,
    pub(super) start: Option<u64>,
    pub(super) since: String,
}

/// The label of such a screen.
pub(super) const SCREEN: &str = "tui-driven";

/// A live screen of the earlier tool that drives the chat itself (`.tui-driven`: its number, and when it wrote it).
///
/// The file stays behind when the screen crashes, so a process that started later than its time only has the number.
pub(super) fn screen(dir: &Path) -> Option<Screen> {
    let bytes = files::read(&dir.join(".tui-driven")).ok().flatten()?;
    let text = String::from_utf8_lossy(&bytes);
    let mut lines = text.lines().map(str::trim);
    let pid: u32 = lines.next()?.parse().ok().filter(|pid| *pid > 1)?;
    let since = lines.next().unwrap_or_default();
    let identity = session_lock::ProcessIdentity::of(pid).ok().flatten()?;
    let is_another = !since.is_empty() && !reap::started_before(identity.start_ticks, since);
    (!is_another).then(|| Screen {
        pid,
        start: identity.start_ticks,
        since: since.to_owned(),
    })
}

fn screen_holder(dir: &Path) -> Option<(Holder, bool)> {
    let screen = screen(dir)?;
    Some((
        Holder {
            pid: screen.pid,
            start: screen.start,
            label: SCREEN.to_owned(),
        },
        true,
    ))
}
