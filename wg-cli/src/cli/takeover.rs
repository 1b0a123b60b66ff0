//! What is said of a takeover that came to nothing, of a session or of a directory.

use std::io;

use session_lock::{RefusedBecause, TakeoverError};

use crate::exit_code::ExitCode;
use crate::failure::Failure;

/// `look` shows who has it; `if_unproven` is the cure where only a number is known.
pub(super) fn failure(
    what: &str,
    error: TakeoverError,
    look: String,
    if_unproven: String,
) -> Failure {
    let (code, cure) = match &error {
        TakeoverError::Refused {
            because: RefusedBecause::Unproven,
            ..
        } => (ExitCode::Held, if_unproven),
        TakeoverError::Refused { .. }
        | TakeoverError::Taken { .. }
        | TakeoverError::StillHeld { .. } => (ExitCode::Held, look),
        TakeoverError::Signal { source, .. }
            if source.kind() == io::ErrorKind::PermissionDenied =>
        {
            (ExitCode::NotPermitted, "its user can end it".to_owned())
        }
        TakeoverError::Inspect(_)
        | TakeoverError::Request(_)
        | TakeoverError::Signal { .. }
        | _ => (ExitCode::System, look),
    };
    Failure::new(code, format!("{what} was not taken over"))
        .caused_by(error)
        .with_cure(cure)
}
