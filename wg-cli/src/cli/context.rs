//! What every verb is given: where the workspace is, and where words go.

use std::path::PathBuf;

use super::args::Globals;
use crate::exit_code::ExitCode;
use crate::failure::{Failure, Outcome};
use crate::report::Report;
use crate::store::graph::{ChatId, Graph};
use crate::store::resolve;
use crate::store::workspace::{Found, Workspace};

/// The surroundings of one verb.
#[derive(Debug)]
pub(super) struct Context<'a> {
    dir: Option<PathBuf>,
    /// Where words go.
    pub report: &'a Report,
}

impl<'a> Context<'a> {
    pub(super) fn new(globals: Globals, report: &'a Report) -> Self {
        Self {
            dir: globals.dir,
            report,
        }
    }

    /// The value of `--dir`.
    pub(super) fn dir(&self) -> Option<&std::path::Path> {
        self.dir.as_deref()
    }

    /// Finds the workspace and says why it is this one.
    pub(super) fn found(&self) -> Outcome<Found> {
        Workspace::discover(self.dir.as_deref())
    }

    /// Finds the workspace.
    pub(super) fn workspace(&self) -> Outcome<Workspace> {
        self.found().map(|found| found.workspace)
    }

    /// As [`Context::workspace`], for a verb that writes: what belongs to somebody else is theirs to change.
    pub(super) fn own_workspace(&self) -> Outcome<Workspace> {
        let workspace = self.workspace()?;
        workspace.check_owner()?;
        Ok(workspace)
    }

    /// Loads the graph; a line that could not be read is a warning on stderr.
    pub(super) fn graph(&self, workspace: &Workspace) -> Outcome<Graph> {
        let loaded = Graph::load(workspace)?;
        for warning in loaded.told() {
            self.report.note(&format!("warning: {warning}"));
        }
        Ok(loaded.graph)
    }

    /// Resolves any form of a chat's name.
    pub(super) fn chat(&self, workspace: &Workspace, reference: &str) -> Outcome<ChatId> {
        resolve::chat(workspace, &self.graph(workspace)?, reference)
    }

    /// Finds the workspace and a chat in it.
    pub(super) fn workspace_and_chat(&self, reference: &str) -> Outcome<(Workspace, ChatId)> {
        let workspace = self.workspace()?;
        let chat = self.chat(&workspace, reference)?;
        Ok((workspace, chat))
    }

    /// As [`Context::workspace_and_chat`], for a verb that writes.
    pub(super) fn own_workspace_and_chat(&self, reference: &str) -> Outcome<(Workspace, ChatId)> {
        let workspace = self.own_workspace()?;
        let chat = self.chat(&workspace, reference)?;
        Ok((workspace, chat))
    }
}

/// A person must confirm what cannot be undone; a script says so on the command line.
pub(super) fn confirm(question: &str, flag: &str) -> Outcome<()> {
    if !super::input::is_terminal() {
        return Err(Failure::new(
            ExitCode::Usage,
            format!("{question} needs a confirmation, and nobody is here to ask"),
        )
        .with_cure(format!("add {flag}")));
    }
    let answer = super::input::ask(&format!("{question}? [y/N] "))?;
    if matches!(answer.trim(), "y" | "Y" | "yes") {
        Ok(())
    } else {
        Err(Failure::new(ExitCode::Failed, "nothing was done"))
    }
}
