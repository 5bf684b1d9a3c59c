//! `afterwrite dlq tail`: dead letters as they are written.

use std::io::{self, Write};
use std::str::FromStr;
use std::time::Duration;

use chrono::{DateTime, Utc};
use clap::Args;
use serde::Serialize;
use tokio::sync::mpsc;

use crate::app;
use crate::cli::dlq::unreadable;
use crate::cli::following::follow;
use crate::cli::output::{Output, print_next_line};
use crate::cli::{Failure, stop_signal};
use crate::config::Config;
use crate::dead_letter::reader::{self, Reader, Stored};
use crate::dead_letter::state::short_id;
use crate::dead_letter::{headers, topic};

/// Letters that are read ahead of the terminal.
const AHEAD_MAX: usize = 64;

#[derive(Debug, Args)]
pub(super) struct TailArgs {
    /// The group whose dead letters to follow
    #[arg(long)]
    group: String,
    /// Begin with the oldest letter that is kept, not with the next one
    #[arg(long)]
    from_beginning: bool,
    /// End after this many letters
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
}

#[derive(Debug, thiserror::Error)]
#[error(
    "there is no dead-letter topic {topic}: the first `afterwrite run` of a group makes it. Is {group} meant? The groups \
     of this configuration are {known}"
)]
struct Missing {
    topic: String,
    group: String,
    known: String,
}

pub(super) async fn run(args: &TailArgs, config: &Config, output: Output) -> Result<(), Failure> {
    let options = app::options::dead_letter_topics(config);
    let group = config.group_name(&args.group);
    let name = topic::name(&group);
    let (letters, following) = mpsc::channel(AHEAD_MAX);
    let from_beginning = args.from_beginning;
    let topic = name.clone();
    let reading = tokio::task::spawn_blocking(move || {
        let reader = Reader::new(&options, &topic)?;
        reader.follow(from_beginning)?;
        while !letters.is_closed() {
            if let Some(stored) = reader.next(Duration::from_millis(200))?
                && letters.blocking_send(stored).is_err()
            {
                break;
            }
        }
        Ok(())
    });
    if output == Output::Table {
        // Whoever reads both outputs may have left (`2>&1 | head`): then nobody needs the hint.
        drop(writeln!(io::stderr(), "following {name}; Ctrl-C ends"));
    }
    follow(following, stop_signal(), args.limit, async |stored| {
        Ok(print_next_line(&line(&group, &stored, output)?)?.then_some(1))
    })
    .await?;
    reading.await.map_err(Failure::failed)?.map_err(|error| match error {
        reader::Error::Missing { topic } => Failure::failed(Missing {
            topic,
            group: args.group.clone(),
            known: known_groups(config),
        }),
        error => unreadable(error),
    })
}

fn known_groups(config: &Config) -> String {
    match app::waitlist::handlers(config) {
        Ok(handlers) => {
            let names: Vec<String> = handlers.iter().map(|handler| handler.spec().name).collect();
            names.join(", ")
        }
        Err(error) => format!("not known ({error:#})"),
    }
}

/// A letter as `dlq list` prints it, as far as its headers tell.
#[derive(Debug, Serialize)]
struct Letter<'a> {
    letter_id: Option<&'a str>,
    group: &'a str,
    handler: Option<&'a str>,
    event_id: Option<&'a str>,
    table: Option<&'a str>,
    class: Option<&'a str>,
    error: Option<&'a str>,
    attempts: Option<u32>,
    first_failed_at: Option<DateTime<Utc>>,
    failed_at: Option<DateTime<Utc>>,
    replays: Option<u32>,
    topic: Option<&'a str>,
    partition: Option<i32>,
    offset: Option<i64>,
    /// Known to the database only.
    state: Option<&'a str>,
}

impl<'a> Letter<'a> {
    fn of(group: &'a str, stored: &'a Stored) -> Self {
        let headers = &stored.record.headers;
        let ours = |name: &str| headers::text(headers, &format!("{}{name}", headers::PREFIX));
        let source = |name: &str| headers::text(headers, &format!("{}{name}", headers::CONNECT_PREFIX));
        Self {
            letter_id: ours("letter_id"),
            group,
            handler: ours("handler"),
            event_id: ours("event_id"),
            table: ours("table"),
            class: ours("class"),
            error: ours("error"),
            attempts: parsed(ours("attempts")),
            first_failed_at: parsed(ours("first_failed_at")),
            failed_at: parsed(ours("failed_at")),
            replays: parsed(ours("replays")),
            topic: source("topic"),
            partition: parsed(source("partition")),
            offset: parsed(source("offset")),
            state: None,
        }
    }

    fn in_words(&self) -> String {
        let or_dash = |text: Option<&'a str>| text.unwrap_or("-");
        let number = |number: Option<i64>| number.map_or_else(|| "-".to_owned(), |number| number.to_string());
        format!(
            "{}  {:<12}  {:<9}  {}  {:<24}  {}[{}] offset {}  {}",
            self.failed_at.map_or_else(|| "-".to_owned(), |at| at.to_rfc3339()),
            or_dash(self.class),
            or_dash(self.handler),
            short_id(or_dash(self.letter_id)),
            or_dash(self.table),
            or_dash(self.topic),
            number(self.partition.map(i64::from)),
            number(self.offset),
            or_dash(self.error)
        )
    }
}

fn parsed<T: FromStr>(text: Option<&str>) -> Option<T> {
    text?.parse().ok()
}

/// One letter in one line.
fn line(group: &str, stored: &Stored, output: Output) -> Result<String, Failure> {
    let letter = Letter::of(group, stored);
    match output {
        Output::Table => Ok(letter.in_words()),
        Output::Json => serde_json::to_string(&letter).map_err(Failure::failed),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use serde_json::{Value, json};

    use super::*;
    use crate::dead_letter::state::{LetterRow, Place};
    use crate::event::delivery::RawRecord;

    fn stored(headers: &[(&str, &str)]) -> Stored {
        let header = |(name, value): &(&str, &str)| ((*name).to_owned(), Some(Bytes::from((*value).to_owned())));
        Stored {
            place: Place {
                topic: "g.dlq".to_owned(),
                partition: 0,
                offset: 0,
            },
            record: RawRecord {
                key: None,
                value: None,
                headers: headers.iter().map(header).collect(),
                timestamp_ms: None,
            },
        }
    }

    #[test]
    fn json_has_the_shape_of_the_list() {
        let at: DateTime<Utc> = "2026-01-02T03:04:05.678Z".parse().unwrap();
        let listed = LetterRow {
            letter_id: "3f2a".to_owned(),
            group_name: "g".to_owned(),
            handler: "email".to_owned(),
            event_id: None,
            table_name: None,
            class: "undecodable".to_owned(),
            error: "no schema".to_owned(),
            attempts: 1,
            first_failed_at: at,
            failed_at: at,
            replays: 2,
            source_topic: "t".to_owned(),
            source_partition: 3,
            source_offset: 4,
            dlq_topic: String::new(),
            dlq_partition: 0,
            dlq_offset: 0,
            state: "open".to_owned(),
        };
        let mut expected = serde_json::to_value(&listed).unwrap();
        expected["state"] = Value::Null;
        let written = stored(&[
            ("afterwrite.letter_id", "3f2a"),
            ("afterwrite.handler", "email"),
            ("afterwrite.class", "undecodable"),
            ("afterwrite.error", "no schema"),
            ("afterwrite.attempts", "1"),
            ("afterwrite.first_failed_at", &at.to_rfc3339()),
            ("afterwrite.failed_at", &at.to_rfc3339()),
            ("afterwrite.replays", "2"),
            ("__connect.errors.topic", "t"),
            ("__connect.errors.partition", "3"),
            ("__connect.errors.offset", "4"),
        ]);
        let printed: Value = serde_json::from_str(&line("g", &written, Output::Json).unwrap()).unwrap();
        assert_eq!(printed, expected);
        let bare: Value = serde_json::from_str(&line("g", &stored(&[]), Output::Json).unwrap()).unwrap();
        assert_eq!((&bare["error"], &bare["offset"]), (&json!(null), &json!(null)));
        assert!(
            line("g", &stored(&[]), Output::Table)
                .unwrap()
                .contains("-[-] offset -")
        );
    }
}
