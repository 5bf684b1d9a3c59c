//! `afterwrite dlq import`: puts exported letters back.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;

use crate::app;
use crate::cli::dlq::LookFailed;
use crate::cli::dlq::chosen::by;
use crate::cli::output::Output;
use crate::cli::{Failure, database};
use crate::config::Config;
use crate::dead_letter::exported::{self, imported};
use crate::dead_letter::sink::KafkaLetters;
use crate::dead_letter::{state, topic};
use crate::engine::letter::BuryError;

/// Lines that cannot be read which are named; the rest is counted.
const NAMED_MAX: usize = 10;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  afterwrite dlq import email.jsonl
  afterwrite dlq export --group email --to email.jsonl && afterwrite --config other.toml dlq import email.jsonl

Letters whose id is known stay as they are. Every line is checked before anything is written; repeating an import that was
cut off puts back what is missing. A letter that was being replayed is open where it arrives.")]
pub(super) struct ImportArgs {
    /// A file that `dlq export` wrote
    file: PathBuf,
}

#[derive(Debug, Default, Serialize)]
struct Report {
    /// Letters that were put back.
    imported: u64,
    /// Letters that are known, and stayed as they are.
    known: u64,
}

#[derive(Debug, thiserror::Error)]
enum ImportFailed {
    #[error("{path} could not be read")]
    Read {
        path: String,
        #[source]
        source: io::Error,
    },
    #[error("nothing was imported, because {path} has lines that are no exported letters: {problems}")]
    Lines { path: String, problems: String },
    #[error("{path} changed while it was imported: line {line} was a letter before. Repeat the import")]
    Changed { path: String, line: usize },
    #[error("the dead-letter topic of group {group} could not be made")]
    Topic {
        group: String,
        #[source]
        source: topic::Error,
    },
    #[error("the import was cut off at line {line}, after {imported} letters; repeat it to go on")]
    CutOff {
        line: usize,
        imported: u64,
        #[source]
        source: BuryError,
    },
}

pub(super) async fn run(args: &ImportArgs, config: &Config, output: Output) -> Result<(), Failure> {
    let path = args.file.as_path();
    let groups = check(path)?;
    let pool = database::connect(config).await?;
    let options = app::options::dead_letter_topics(config);
    for group in groups {
        topic::ensure(&options, &topic::name(&group)).await.map_err(|source| {
            let is_permanent = source.is_permanent();
            let failed = ImportFailed::Topic { group, source };
            if is_permanent {
                Failure::failed(failed)
            } else {
                Failure::unreachable(failed)
            }
        })?;
    }
    let by = by(&pool).await?;
    let sink = KafkaLetters::new(options, app::options::writing(config), pool.clone()).map_err(Failure::usage)?;
    let mut report = Report::default();
    for (line, text) in lines(path)? {
        let (letter, record) = exported::parse(&text?).map_err(|_| {
            Failure::failed(ImportFailed::Changed {
                path: path.display().to_string(),
                line,
            })
        })?;
        let known = state::known(&pool, std::slice::from_ref(&letter.letter_id))
            .await
            .map_err(LookFailed)
            .map_err(Failure::failed)?;
        let is_new = match known.is_empty() {
            true => sink.put_back(imported(letter, &by), &record).await.map_err(|source| {
                Failure::failed(ImportFailed::CutOff {
                    line,
                    imported: report.imported,
                    source,
                })
            })?,
            false => false,
        };
        match is_new {
            true => report.imported += 1,
            false => report.known += 1,
        }
    }
    output.print(&report, |report| {
        format!(
            "{} letters imported; {} were known and stayed as they are",
            report.imported, report.known
        )
    })
}

/// Reads every line once; answers the groups whose letters they are.
fn check(path: &Path) -> Result<HashSet<String>, Failure> {
    let (mut groups, mut problems, mut more) = (HashSet::new(), Vec::new(), 0_u64);
    for (line, text) in lines(path)? {
        match exported::parse(&text?) {
            Ok((letter, _)) => {
                groups.insert(letter.group_name);
            }
            Err(problem) if problems.len() < NAMED_MAX => problems.push(format!("line {line}: {problem}")),
            Err(_) => more += 1,
        }
    }
    if problems.is_empty() {
        return Ok(groups);
    }
    if more > 0 {
        problems.push(format!("and {more} more"));
    }
    Err(Failure::failed(ImportFailed::Lines {
        path: path.display().to_string(),
        problems: problems.join("; "),
    }))
}

/// The lines of a file that are not blank, counted from 1.
fn lines(path: &Path) -> Result<impl Iterator<Item = (usize, Result<String, Failure>)>, Failure> {
    let name = path.display().to_string();
    let failed = move |source| {
        Failure::failed(ImportFailed::Read {
            path: name.clone(),
            source,
        })
    };
    let file = File::open(path).map_err(&failed)?;
    // A pipe would be empty the second time.
    if !file.metadata().map_err(&failed)?.is_file() {
        return Err(failed(io::Error::new(
            io::ErrorKind::InvalidInput,
            "it is no regular file",
        )));
    }
    let numbered = BufReader::new(file)
        .lines()
        .enumerate()
        .map(move |(index, text)| (index + 1, text.map_err(&failed)));
    Ok(numbered.filter(|(_, text)| !matches!(text, Ok(text) if text.trim().is_empty())))
}
