//! `afterwrite fraud confirm` and `dismiss`: what somebody decided, who, when and why.

use clap::Args;
use serde::Serialize;
use uuid::Uuid;

use crate::cli::operator::by;
use crate::cli::output::Output;
use crate::cli::{Failure, database};
use crate::config::Config;
use crate::handlers::fraud::review::{self, Decided, Verdict};

#[derive(Debug, Args)]
#[command(after_help = "\
All of the detections are changed or, when one is unknown, none. What was decided can be decided otherwise later.
Who decided, when, and the note are kept with the detection; places and rewards follow from the change by themselves.")]
pub(super) struct DecideArgs {
    /// The detections, as `afterwrite fraud list` names them
    #[arg(required = true)]
    detections: Vec<Uuid>,
    /// Why; it is kept with the detections, in place of an earlier note
    #[arg(long, value_name = "TEXT", value_parser = note)]
    note: Option<String>,
}

fn note(text: &str) -> Result<String, &'static str> {
    match text.trim() {
        "" => Err("a note that says nothing is left out"),
        _ if text.contains('\0') => Err("a text cannot contain the character NUL"),
        note => Ok(note.to_owned()),
    }
}

#[derive(Debug, Serialize)]
struct Report {
    /// The state they are in now.
    status: &'static str,
    changed: Vec<Uuid>,
    /// Those that were in that state already.
    unchanged: Vec<Uuid>,
}

#[derive(Debug, thiserror::Error)]
enum DecideFailed {
    #[error("the decision could not be written; nothing was changed")]
    Write(#[source] sqlx::Error),
    #[error("nothing was changed, because there is no detection {}", in_words(.0))]
    Unknown(Vec<Uuid>),
}

fn in_words(ids: &[Uuid]) -> String {
    ids.iter().map(Uuid::to_string).collect::<Vec<_>>().join(", ")
}

pub(super) async fn confirm(args: &DecideArgs, config: &Config, output: Output) -> Result<(), Failure> {
    decide(args, Verdict::Confirmed, config, output).await
}

pub(super) async fn dismiss(args: &DecideArgs, config: &Config, output: Output) -> Result<(), Failure> {
    decide(args, Verdict::FalsePositive, config, output).await
}

async fn decide(args: &DecideArgs, verdict: Verdict, config: &Config, output: Output) -> Result<(), Failure> {
    let pool = database::connect(config).await?;
    let by = by(&pool).await?;
    let written = async {
        let mut connection = pool.acquire().await?;
        review::decide(&mut connection, &args.detections, verdict, &by, args.note.as_deref()).await
    };
    let changed = match written.await.map_err(DecideFailed::Write).map_err(Failure::failed)? {
        Decided::Changed(ids) => ids,
        Decided::Unknown(ids) => return Err(Failure::failed(DecideFailed::Unknown(ids))),
    };
    let mut unchanged: Vec<Uuid> = args.detections.clone();
    unchanged.retain(|id| !changed.contains(id));
    unchanged.sort_unstable();
    unchanged.dedup();
    let report = Report {
        status: verdict.state(),
        changed,
        unchanged,
    };
    output.print(&report, |report| {
        let already = match report.unchanged.len() {
            0 => String::new(),
            some => format!("; {some} were that already"),
        };
        format!("{} detections are {} now{already}", report.changed.len(), report.status)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_says_something() {
        assert_eq!(note(" one family "), Ok("one family".to_owned()));
        for text in ["", " ", "a\0"] {
            assert!(note(text).is_err(), "{text:?}");
        }
    }
}
