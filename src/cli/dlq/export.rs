//! `afterwrite dlq export`: letters with their records as lines of JSON.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;

use crate::app;
use crate::cli::dlq::chosen::FilterArgs;
use crate::cli::dlq::{LookFailed, unreadable};
use crate::cli::output::{Output, counted};
use crate::cli::{Failure, database};
use crate::config::Config;
use crate::dead_letter::state::short_id;
use crate::dead_letter::{exported, filter, kept, reader};

/// Letters that are looked up at once.
const LETTERS_AT_ONCE: i64 = 500;

/// Unreadable letters that are named to people; JSON names all of them.
const NAMED_MAX: usize = 10;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  afterwrite dlq export --group email --state open --to email.jsonl
  afterwrite dlq export --class undecodable | afterwrite decode -
  afterwrite dlq export --until 300d --to old.jsonl     before the topic's retention takes them

The lines hold the whole rows: keep them as you keep the database. `afterwrite dlq import` puts them back.")]
pub(super) struct ExportArgs {
    #[command(flatten)]
    filter: FilterArgs,
    /// Write to this file, which must not exist yet, and not to standard output
    #[arg(long, value_name = "FILE")]
    to: Option<PathBuf>,
}

#[derive(Debug, Default, Serialize)]
struct Report {
    exported: u64,
    /// Letters whose bytes nothing keeps any more.
    unreadable: Vec<String>,
}

#[derive(Debug, thiserror::Error)]
enum ExportFailed {
    #[error("{0} exists already: give the name of a new file")]
    Exists(String),
    #[error("{path} could not be written")]
    Write {
        path: String,
        #[source]
        source: io::Error,
    },
    #[error("{} letters could not be exported, because nothing keeps their bytes any more: {}", .0.len(), named(.0))]
    Unreadable(Vec<String>),
}

fn named(ids: &[String]) -> String {
    let mut names: Vec<&str> = ids.iter().take(NAMED_MAX).map(|id| short_id(id)).collect();
    if ids.len() > NAMED_MAX {
        names.push("…");
    }
    names.join(", ")
}

pub(super) async fn run(args: &ExportArgs, config: &Config, output: Output) -> Result<(), Failure> {
    let mut report = Report::default();
    match &args.to {
        None => {
            let mut out = BufWriter::new(io::stdout());
            let ended = export(args, config, &mut out, &mut report).await;
            match ended.and_then(|()| out.flush().map_err(Ended::Write)) {
                // A reader that has left (`| head`) has what it wanted.
                Err(Ended::Write(error)) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
                ended => ended.map_err(|ended| ended.failure("standard output"))?,
            }
        }
        Some(path) => {
            to_file(path, args, config, &mut report).await?;
            output.print(&report, |report| {
                format!("{} exported to {}", counted(report.exported, "letter"), path.display())
            })?;
        }
    }
    match report.unreadable.is_empty() {
        true => Ok(()),
        false => Err(Failure::failed(ExportFailed::Unreadable(report.unreadable))),
    }
}

/// Under another name until it is whole, so that half an export is never taken for one.
async fn to_file(path: &Path, args: &ExportArgs, config: &Config, report: &mut Report) -> Result<(), Failure> {
    let name = path.display().to_string();
    if path.exists() {
        return Err(Failure::usage(ExportFailed::Exists(name)));
    }
    let mut partial = path.as_os_str().to_owned();
    partial.push(".partial");
    let written = async {
        let mut out = BufWriter::new(File::create(&partial).map_err(Ended::Write)?);
        export(args, config, &mut out, report).await?;
        out.flush().map_err(Ended::Write)?;
        out.get_ref().sync_all().map_err(Ended::Write)?;
        // Unlike a rename, a link never takes the place of a file that appeared meanwhile.
        fs::hard_link(&partial, path).map_err(Ended::Write)
    };
    let ended = written.await.map_err(|ended| ended.failure(&name));
    if let Err(error) = fs::remove_file(&partial) {
        tracing::debug!(%error, "the partial export could not be removed");
    }
    ended
}

/// Why an export ended early.
enum Ended {
    Write(io::Error),
    Failure(Failure),
}

impl From<Failure> for Ended {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

impl Ended {
    fn failure(self, place: &str) -> Failure {
        match self {
            Self::Failure(failure) => failure,
            Self::Write(source) => Failure::failed(ExportFailed::Write {
                path: place.to_owned(),
                source,
            }),
        }
    }
}

/// Each letter once, oldest first; letters that appear meanwhile may be among them.
async fn export(args: &ExportArgs, config: &Config, out: &mut impl Write, report: &mut Report) -> Result<(), Ended> {
    let pool = database::connect(config).await?;
    let chosen = args.filter.filter(config);
    let mut last = None;
    loop {
        let letters = filter::following(&pool, &chosen, last.as_ref(), LETTERS_AT_ONCE)
            .await
            .map_err(LookFailed)
            .map_err(Failure::failed)?;
        let topics = app::options::letter_topics(config);
        let mut records = kept::read_all(topics, pool.clone(), &letters);
        for letter in &letters {
            match records.recv().await {
                Some(Ok(record)) => {
                    let line = exported::line(letter, &record).map_err(Failure::failed)?;
                    writeln!(out, "{line}").map_err(Ended::Write)?;
                    report.exported += 1;
                }
                Some(Err(error)) if error.is_gone() => report.unreadable.push(letter.letter_id.clone()),
                Some(Err(error)) => return Err(unreadable(error).into()),
                None => return Err(unreadable(kept::Error::Topic(reader::Error::Abandoned)).into()),
            }
        }
        last = match letters.into_iter().next_back() {
            Some(letter) => Some(letter),
            None => return Ok(()),
        };
    }
}
