//! `wg init` and `wg which`.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::args::Init;
use super::context::Context;
use crate::exit_code::ExitCode;
use crate::failure::{Failure, Outcome};
use crate::store::discover::{ELSEWHERE, NO_CURRENT_DIRECTORY};
use crate::store::workspace::{Surroundings, Workspace};

#[derive(Debug, Serialize)]
struct Which {
    dir: PathBuf,
    reason: String,
}

pub(super) fn which(cx: &Context<'_>) -> Outcome {
    let found = cx.found()?;
    let which = Which {
        dir: found.workspace.root().to_owned(),
        reason: found.reason.to_owned(),
    };
    cx.report.answer(&which, || {
        format!("{}\n  reason: {}", which.dir.display(), which.reason)
    })?;
    Ok(ExitCode::Ok)
}

#[derive(Debug, Serialize)]
struct Initialized {
    dir: PathBuf,
    created: bool,
}

pub(super) fn init(cx: &Context<'_>, _init: &Init) -> Outcome {
    let workspace = make(cx)?;
    let done = Initialized {
        dir: workspace.root().to_owned(),
        created: true,
    };
    cx.report.done(&done, || {
        format!("Initialized WG at {}", done.dir.display())
    })?;
    Ok(ExitCode::Ok)
}

/// Makes the workspace that `--dir` names, else the one that `WG_DIR` names, else `./.wg`.
pub(super) fn make(cx: &Context<'_>) -> Outcome<Workspace> {
    let named = cx
        .dir()
        .map(Path::to_owned)
        .or_else(|| Surroundings::of_this_process().wg_dir);
    let at = match named {
        Some(dir) => dir,
        None => std::env::current_dir().map_err(|error| {
            Failure::new(ExitCode::System, NO_CURRENT_DIRECTORY)
                .caused_by(error)
                .with_cure(ELSEWHERE)
        })?,
    };
    Workspace::init(&at)
}
