//! `afterwrite tail`: changes as they happen, decoded.

use std::io::{self, Write};
use std::time::Duration;

use chrono::DateTime;
use clap::Args;
use serde::Serialize;
use tokio::sync::mpsc;

use crate::app;
use crate::cli::decoded::Line;
use crate::cli::following::follow;
use crate::cli::output::{Output, print_next_line};
use crate::cli::{Failure, stop_signal};
use crate::config::Config;
use crate::decode::canonical::{self, CanonicalRow};
use crate::decode::options::Options;
use crate::decode::registry::Registry;
use crate::decode::tables::Tables;
use crate::decode::{Decoder, resolve};
use crate::event::change::{Change, ChangeEvent};
use crate::event::delivery::Content;
use crate::event::key::Moved;
use crate::event::row::Row;
use crate::source::kafka::follow::{Error, Followed, Follower, From};

/// Records that are read ahead of the terminal.
const AHEAD_MAX: usize = 256;

/// Show decoded changes as they happen, whatever encoding the connector writes. No group is joined and nothing is committed.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  afterwrite tail
  afterwrite tail --table public.waitlist_users --from-beginning --limit 10
  afterwrite tail --output json | jq .event.after")]
pub struct TailArgs {
    /// Only these tables: schema.table, * for any text; may be given several times
    #[arg(long = "table", value_name = "SCHEMA.TABLE")]
    tables: Vec<String>,
    /// Begin with the oldest change that is kept, not with the next one
    #[arg(long)]
    from_beginning: bool,
    /// Show also what wakes no handler: heartbeats, tombstones, rows read by a snapshot
    #[arg(long)]
    skipped: bool,
    /// End after this many lines
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
}

#[derive(Debug, thiserror::Error)]
#[error(
    "source.kind is wal: there are no topics to follow, and the write-ahead log is read through the slots of groups only; \
     `afterwrite status` shows how far they are, `afterwrite dlq tail` follows the dead letters"
)]
struct NoTopics;

/// Follows the topics of the source until there is a stop, the limit, or nobody who reads.
///
/// # Errors
/// When there is no broker, when its or the registry's settings are wrong, and when it cannot be reached.
pub async fn run(args: &TailArgs, config: &Config, output: Output) -> Result<(), Failure> {
    if !config.source.kind.has_brokers() {
        return Err(Failure::usage(NoTopics));
    }
    let shown = Shown {
        decoder: Decoder::new(Options {
            reads: args.skipped,
            ..app::options::decode_options(config)
        }),
        registry: Registry::new(&app::options::registry_settings(config)).map_err(Failure::usage)?,
        tables: Tables::like(&args.tables),
        of_every_table: args.tables.is_empty(),
        skipped: args.skipped,
        output,
    };
    let options = app::options::reading_options(config);
    let name = config.source.name.clone();
    let from = if args.from_beginning {
        From::Beginning
    } else {
        From::End
    };
    let (records, coming) = mpsc::channel(AHEAD_MAX);
    let reading = tokio::task::spawn_blocking(move || {
        let mut follower = Follower::start(&options, &name, from)?;
        if output == Output::Table {
            let topics = format!(
                "following {} partitions of {name}.*; Ctrl-C ends",
                follower.partitions()
            );
            // Whoever reads both outputs may have left (`2>&1 | head`): then nobody needs the hint.
            drop(writeln!(io::stderr(), "{topics}"));
        }
        while !records.is_closed() {
            if let Some(followed) = follower.next(Duration::from_millis(200))?
                && records.blocking_send(followed).is_err()
            {
                break;
            }
        }
        Ok(())
    });
    follow(coming, stop_signal(), args.limit, async |followed| {
        shown.print(followed).await
    })
    .await?;
    reading.await.map_err(Failure::failed)?.map_err(|error| match error {
        Error::Client(_) => Failure::usage(error),
        Error::Read { .. } => Failure::unreachable(error),
    })
}

/// What is shown, and how.
struct Shown {
    decoder: Decoder,
    registry: Registry,
    tables: Tables,
    of_every_table: bool,
    skipped: bool,
    output: Output,
}

impl Shown {
    /// Prints a record that is wanted; answers how many lines that were, and `None` when nobody reads any more.
    async fn print(&self, followed: Followed) -> Result<Option<u64>, Failure> {
        let topic = &*followed.partition.topic;
        let content = resolve::content(&self.decoder, Some(&self.registry), topic, &followed.raw).await;
        if !self.wants(&content) {
            return Ok(Some(0));
        }
        let line = Line::of(topic, followed.partition.partition, followed.position.0, &content);
        let text = match self.output {
            Output::Json => serde_json::to_string(&line).map_err(Failure::failed)?,
            Output::Table => match &content {
                Content::Change(event) => in_words(event),
                Content::Skip(_) | Content::Undecodable(_) => format!(
                    "{:<20}  {:<11}  {topic}[{}] offset {}  {}",
                    "-",
                    line.kind,
                    followed.partition.partition,
                    followed.position.0,
                    line.reason.unwrap_or("-")
                ),
            },
        };
        Ok(print_next_line(&text)?.then_some(1))
    }

    fn wants(&self, content: &Content) -> bool {
        match content {
            Content::Change(event) => {
                let origin = event.origin();
                self.of_every_table || self.tables.contains(&origin.schema, &origin.table)
            }
            Content::Skip(_) => self.skipped && self.of_every_table,
            Content::Undecodable(_) => true,
        }
    }
}

/// A change in one line: when, what, of which table and row, and what the row is now; of an update whose old row is known,
/// only what changed.
fn in_words(event: &ChangeEvent) -> String {
    let origin = event.origin();
    let at = origin.commit_ts_ms.and_then(DateTime::from_timestamp_millis);
    let at = at.map_or_else(|| "-".to_owned(), |at| at.format("%Y-%m-%dT%H:%M:%SZ").to_string());
    let table = match event.change() {
        Change::Message { prefix, .. } => prefix.clone(),
        _ => format!("{}.{}", origin.schema, origin.table),
    };
    let key = event
        .key()
        .map_or_else(|| "-".to_owned(), |key| json(&CanonicalRow(key.row())));
    let what = match event.change() {
        Change::Update { after, .. } if event.before().is_some() => json(&CanonicalRow(&changed(event, after))),
        Change::Message { content, .. } => content.clone(),
        _ => event
            .after()
            .map_or_else(String::new, |after| json(&CanonicalRow(after))),
    };
    let moved = match event.moved() {
        Some(Moved { key }) => {
            let other = key
                .as_ref()
                .map_or_else(|| "another key".to_owned(), |key| json(&CanonicalRow(key.row())));
            let direction = if event.after().is_some() { "from" } else { "to" };
            format!("  moved {direction} {other}")
        }
        None => String::new(),
    };
    let op = canonical::op(event.change());
    format!("{at:<20}  {op:<11}  {table}  {key}  {what}{moved}")
        .trim_end()
        .to_owned()
}

/// The columns of the new row that differ from the old one.
fn changed(event: &ChangeEvent, after: &Row) -> Row {
    let of_changed = after.columns().filter(|(name, _)| event.changed(name));
    of_changed
        .fold(Row::builder(), |row, (name, cell)| row.cell(name, cell))
        .finish()
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_else(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::change::{Before, Origin};
    use crate::event::key::Key;
    use crate::event::row::Value;

    fn event(change: Change) -> ChangeEvent {
        let origin = Origin {
            lsn: Some(1),
            commit_ts_ms: Some(1_782_907_200_500),
            ..Origin::of_table("t")
        };
        ChangeEvent::new(origin, Key::of(row(1, 1)), change)
    }

    fn row(id: i64, n: i64) -> Row {
        Row::of([("id", Some(Value::Int(id))), ("n", Some(Value::Int(n)))])
    }

    #[test]
    fn a_change_is_one_line_and_an_update_shows_what_changed() {
        let inserted = |moved_from| Change::Insert {
            after: row(1, 2),
            moved_from,
        };
        let updated = |before| Change::Update {
            before,
            after: row(1, 3),
        };
        for (change, expected) in [
            (
                inserted(None),
                r#"insert       public.t  {"id":1,"n":1}  {"id":1,"n":2}"#,
            ),
            (
                inserted(Some(Moved { key: None })),
                r#"insert       public.t  {"id":1,"n":1}  {"id":1,"n":2}  moved from another key"#,
            ),
            (
                updated(Before::Whole(row(1, 2))),
                r#"update       public.t  {"id":1,"n":1}  {"n":3}"#,
            ),
            (
                updated(Before::Unknown),
                r#"update       public.t  {"id":1,"n":1}  {"id":1,"n":3}"#,
            ),
            (Change::Truncate, "truncate     public.t  -"),
        ] {
            assert_eq!(in_words(&event(change)), format!("2026-07-01T12:00:00Z  {expected}"));
        }
    }
}
