//! `afterwrite dlq import`: puts exported letters back.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;
use sqlx::PgPool;

use crate::app;
use crate::cli::dlq::{LookFailed, unreadable};
use crate::cli::operator::by;
use crate::cli::output::{Output, counted};
use crate::cli::{Failure, database};
use crate::config::Config;
use crate::dead_letter::exported::{self, imported};
use crate::dead_letter::sink::KafkaLetters;
use crate::dead_letter::state::LetterRow;
use crate::dead_letter::table::TableLetters;
use crate::dead_letter::{kept, state, topic};
use crate::engine::letter::BuryError;
use crate::event::delivery::RawRecord;

/// Lines that cannot be read which are named; the rest is counted.
const NAMED_MAX: usize = 10;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  afterwrite dlq import email.jsonl
  afterwrite dlq import old.jsonl --restore             after the topic's retention took them, or when no broker is left
  afterwrite dlq export --group email --to email.jsonl && afterwrite --config other.toml dlq import email.jsonl

Letters whose id is known stay as they are. Every line is checked before anything is written; repeating an import that was
cut off puts back what is missing. A letter that was being replayed is open where it arrives.")]
pub(super) struct ImportArgs {
    /// A file that `dlq export` wrote
    file: PathBuf,
    /// Also give known letters their bytes back, where nothing that can be asked keeps them any more
    #[arg(long)]
    restore: bool,
}

#[derive(Debug, Default, Serialize)]
struct Report {
    /// Letters that were put back.
    imported: u64,
    /// Letters that are known, and stayed as they are.
    known: u64,
    /// Letters that are known, and got their bytes back: with --restore only.
    restored: u64,
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
    let topics = app::options::letter_topics(config);
    let import = Import {
        sink: Sink::new(config, topics.as_ref(), groups, &pool).await?,
        by: by(&pool).await?,
        restores: args.restore,
        topics,
        pool,
    };
    let mut report = Report::default();
    for (line, text) in lines(path)? {
        let (letter, record) = exported::parse(&text?).map_err(|_| {
            Failure::failed(ImportFailed::Changed {
                path: path.display().to_string(),
                line,
            })
        })?;
        let put_back = import.put_back(letter, &record, &mut report).await;
        put_back.map_err(|ended| ended.failure(line, report.imported))?;
    }
    output.print(&report, |report| {
        let mut text = format!(
            "{} imported; {} were known and stayed as they are",
            counted(report.imported, "letter"),
            report.known
        );
        if args.restore {
            text.push_str(&format!("; {} were known and got their bytes back", report.restored));
        }
        text
    })
}

/// Why an import ended early.
enum Ended {
    Look(sqlx::Error),
    Read(kept::Error),
    Write(BuryError),
}

impl Ended {
    fn failure(self, line: usize, imported: u64) -> Failure {
        match self {
            Self::Look(error) => Failure::failed(LookFailed(error)),
            Self::Read(error) => unreadable(error),
            Self::Write(source) => Failure::failed(ImportFailed::CutOff { line, imported, source }),
        }
    }
}

/// Where letters are put back.
enum Sink {
    Topics(Box<KafkaLetters>),
    Table(TableLetters),
}

impl Sink {
    /// The sink that this configuration's worker has; with brokers the topics of these groups are there then.
    async fn new(
        config: &Config,
        topics: Option<&topic::Options>,
        groups: HashSet<String>,
        pool: &PgPool,
    ) -> Result<Self, Failure> {
        let writing = app::options::writing(config);
        let Some(options) = topics else {
            return Ok(Self::Table(TableLetters::new(pool.clone(), writing.error_bytes_max)));
        };
        for group in groups {
            topic::ensure(options, &topic::name(&group)).await.map_err(|source| {
                let is_permanent = source.is_permanent();
                let failed = ImportFailed::Topic { group, source };
                match is_permanent {
                    true => Failure::failed(failed),
                    false => Failure::unreachable(failed),
                }
            })?;
        }
        let letters = KafkaLetters::new(options.clone(), writing, pool.clone()).map_err(Failure::usage)?;
        Ok(Self::Topics(Box::new(letters)))
    }

    async fn put_back(&self, letter: LetterRow, record: &RawRecord) -> Result<bool, BuryError> {
        match self {
            Self::Topics(letters) => letters.put_back(letter, record).await,
            Self::Table(letters) => letters.put_back(letter, record).await,
        }
    }

    async fn restore(&self, letter: &LetterRow, record: &RawRecord) -> Result<(), BuryError> {
        match self {
            Self::Topics(letters) => letters.restore(letter, record).await,
            Self::Table(letters) => letters.restore(letter, record).await,
        }
    }
}

/// What putting letters back needs.
struct Import {
    pool: PgPool,
    topics: Option<topic::Options>,
    sink: Sink,
    by: String,
    restores: bool,
}

impl Import {
    async fn put_back(&self, letter: LetterRow, record: &RawRecord, report: &mut Report) -> Result<(), Ended> {
        let Some(known) = state::known(&self.pool, &letter.letter_id).await.map_err(Ended::Look)? else {
            let written = self.sink.put_back(imported(letter, &self.by), record).await;
            match written.map_err(Ended::Write)? {
                true => report.imported += 1,
                false => report.known += 1,
            }
            return Ok(());
        };
        if self.restores && self.is_out_of_reach(&known).await? {
            self.sink.restore(&known, record).await.map_err(Ended::Write)?;
            report.restored += 1;
        } else {
            report.known += 1;
        }
        Ok(())
    }

    async fn is_out_of_reach(&self, letter: &LetterRow) -> Result<bool, Ended> {
        match kept::read(self.topics.clone(), &self.pool, letter).await {
            Ok(_) => Ok(false),
            Err(error) if error.is_out_of_reach() => Ok(true),
            Err(error) => Err(Ended::Read(error)),
        }
    }
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
