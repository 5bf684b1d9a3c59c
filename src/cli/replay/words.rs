//! What a replay reports.

use serde::Serialize;

use crate::cli::output;
use crate::groups::moves::Move;
use crate::ledger::redo::Marked;

/// What was done, or would be.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) group: String,
    pub(super) dry_run: bool,
    pub(super) moves: Vec<Move>,
    /// Offsets that are delivered again, over all partitions.
    pub(super) again: i64,
    pub(super) passed_over: i64,
    pub(super) redo: Option<Marked>,
    /// Partitions that keep nothing as old as what is to be done again: records of it may be gone.
    pub(super) may_lack: Vec<String>,
}

/// The report for people.
pub(super) fn in_words(report: &Report) -> String {
    let mut parts = Vec::new();
    if report.moves.is_empty() {
        parts.push(format!(
            "group {} stays where it is: nothing is to be moved",
            report.group
        ));
    } else {
        let rows = report.moves.iter().map(|leads| {
            [
                format!("{}[{}]", leads.topic, leads.partition),
                leads.from.map_or_else(|| "lost".to_owned(), |from| from.to_string()),
                leads.to.to_string(),
                leads.again.to_string(),
                leads.passed_over.to_string(),
            ]
        });
        parts.push(output::table(["partition", "from", "to", "again", "passed over"], rows));
        let left_out = match report.redo {
            None => "; the ledger leaves out what was done",
            Some(_) => "; the ledger leaves out what was done and is not marked",
        };
        parts.push(format!("{} records are delivered again{left_out}", report.again));
    }
    if let Some(marked) = &report.redo {
        parts.push(format!(
            "{} events are done again, {} more were marked earlier; {} effects are made again; {} events were dead letters \
             once and are left out",
            marked.events, marked.open_before, marked.effects, marked.were_letters
        ));
    }
    if !report.may_lack.is_empty() {
        parts.push(format!(
            "nothing as old is kept in {}: events whose records are gone stay marked and are not done again",
            report.may_lack.join(", ")
        ));
    }
    if report.dry_run {
        parts.push("a dry run: nothing was changed".to_owned());
    }
    parts.join("\n")
}
