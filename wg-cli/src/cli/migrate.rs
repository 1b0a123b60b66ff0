//! `wg migrate`: bringing an earlier workspace up to date.

use serde::Serialize;

use super::args::MigrateCommand;
use super::context::Context;
use crate::exit_code::ExitCode;
use crate::failure::Outcome;
use crate::store::graph::Graph;
use crate::store::rename::{Dry, RenameReport};

#[derive(Debug, Serialize)]
#[expect(
    clippy::struct_field_names,
    reason = "the names are those of the earlier tool's JSON"
)]
struct Renamed<'a> {
    renamed_ids: &'a [(String, String)],
    rewritten_edges: usize,
    renamed_tags: usize,
    renamed_titles: usize,
    kept: &'a [String],
    dry_run: bool,
}

pub(super) fn run(cx: &Context<'_>, command: &MigrateCommand) -> Outcome {
    match command {
        MigrateCommand::ChatRename { dry_run } => chat_rename(cx, *dry_run),
    }
}

fn chat_rename(cx: &Context<'_>, dry_run: bool) -> Outcome {
    let workspace = cx.own_workspace()?;
    let report = if dry_run {
        cx.graph(&workspace)?.rename_legacy(Dry::Yes)?
    } else {
        Graph::edit(&workspace, |graph| graph.rename_legacy(Dry::No))?
    };
    let dto = Renamed {
        renamed_ids: &report.renamed_ids,
        rewritten_edges: report.rewritten_edges,
        renamed_tags: report.renamed_tags,
        renamed_titles: report.renamed_titles,
        kept: &report.kept,
        dry_run,
    };
    let text = || to_text(&report, dry_run);
    if dry_run {
        cx.report.answer(&dto, text)?;
    } else {
        cx.report.done(&dto, text)?;
    }
    Ok(ExitCode::Ok)
}

fn to_text(report: &RenameReport, dry_run: bool) -> String {
    if report.is_empty() {
        return "No legacy coordinator data found; the graph is already on the new schema."
            .to_owned();
    }
    let head = if dry_run {
        "Dry run, no changes written:"
    } else {
        "Migration complete:"
    };
    let mut lines = vec![
        head.to_owned(),
        format!("  {} task(s) renamed", report.renamed_ids.len()),
        format!("  {} edge(s) rewritten", report.rewritten_edges),
        format!("  {} tag(s) renamed", report.renamed_tags),
        format!("  {} title(s) renamed", report.renamed_titles),
    ];
    lines.extend(report.kept.iter().map(|kept| format!("  kept: {kept}")));
    lines.join("\n")
}
