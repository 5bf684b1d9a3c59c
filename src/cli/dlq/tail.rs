//! `afterwrite dlq tail`: dead letters as they are written, wherever they are kept, each once.

use std::collections::{HashSet, VecDeque};
use std::io::{self, Write};
use std::str::FromStr;
use std::time::Duration;

use chrono::{DateTime, Utc};
use clap::Args;
use serde::Serialize;
use sqlx::PgPool;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use crate::app;
use crate::cli::colours::{Colours, Look, WhenColours, printable};
use crate::cli::dlq::{LookFailed, refuse_unknown, shortened, unreadable};
use crate::cli::following::follow;
use crate::cli::output::{Output, print_next_line};
use crate::cli::{Failure, database, stop_signal};
use crate::config::Config;
use crate::dead_letter::kept::Following;
use crate::dead_letter::reader::{self, Reader};
use crate::dead_letter::state::{CLASSES, short_id};
use crate::dead_letter::{headers, topic};
use crate::engine::retry::Class;
use crate::event::delivery::RawRecord;

/// Letters that are read ahead of the terminal.
const AHEAD_MAX: usize = 64;

/// Ids of letters that were printed and are remembered: copies that a crash left stand close to each other.
const REMEMBERED_MAX: usize = 100_000;

/// How often letters are looked for that Postgres keeps.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Longest error text in a line; `dlq show` has all of it.
const ERROR_CHARS_MAX: usize = 160;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  afterwrite dlq tail --group email
  afterwrite dlq tail --group email --from-beginning --class timeout --limit 10
  afterwrite dlq tail --group email --output json | jq .error

Parked letters, which are released by themselves, are shown with --class parked only.
It waits for a broker that is away, and prints no values of rows. With source.kind = \"wal\" it asks Postgres only.")]
pub(super) struct TailArgs {
    /// The group whose dead letters to follow
    #[arg(long)]
    group: String,
    /// Begin with the oldest letter that is kept, not with the next one
    #[arg(long)]
    from_beginning: bool,
    /// Only of this handler; * for records that could not be decoded
    #[arg(long = "handler", value_name = "HANDLER")]
    handlers: Vec<String>,
    /// Only of this class
    #[arg(long = "class", value_name = "CLASS", value_parser = CLASSES)]
    classes: Vec<String>,
    /// Only of this table
    #[arg(long = "table", value_name = "SCHEMA.TABLE", value_parser = super::chosen::table)]
    tables: Vec<String>,
    /// End after this many letters
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    #[command(flatten)]
    colours: WhenColours,
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

/// What comes from the topic and from Postgres.
type Coming = Result<RawRecord, reader::Error>;

pub(super) async fn run(args: &TailArgs, config: &Config, output: Output) -> Result<(), Failure> {
    let group = config.group_name(&args.group);
    let (letters, coming) = mpsc::channel(AHEAD_MAX);
    let readers = Readers::start(args, config, &group, letters, output).await?;
    let mut printed = Printed::default();
    let colours = args.colours.here(output);
    let followed = follow(coming, stop_signal(), args.limit, async |next| {
        let record = next.map_err(|error| failure(error, args, config))?;
        let letter = Letter::of(&group, &record);
        if !letter.is_wanted(args) || !printed.is_new(letter.letter_id) {
            return Ok(Some(0));
        }
        let line = match output {
            Output::Table => letter.in_words(colours),
            Output::Json => serde_json::to_string(&letter).map_err(Failure::failed)?,
        };
        Ok(print_next_line(&line)?.then_some(1))
    })
    .await;
    readers.table.abort();
    if let Some(reading) = readers.topic {
        reading.await.map_err(Failure::failed)?;
    }
    followed
}

/// What reads ahead of the terminal.
struct Readers {
    /// `None` where there are no brokers.
    topic: Option<JoinHandle<()>>,
    table: JoinHandle<()>,
}

impl Readers {
    async fn start(
        args: &TailArgs,
        config: &Config,
        group: &str,
        letters: mpsc::Sender<Coming>,
        output: Output,
    ) -> Result<Self, Failure> {
        let Some(options) = app::options::letter_topics(config) else {
            let (pool, following) = start(config, group, args.from_beginning).await?;
            refuse_unknown(&pool, group).await?;
            hint(output, &format!("following the letters of {group}; Ctrl-C ends"));
            return Ok(Self {
                topic: None,
                table: tokio::spawn(follow_table(pool, following, letters)),
            });
        };
        let name = topic::name(group);
        let readers = Self {
            topic: Some(read_topic(options, name.clone(), args.from_beginning, letters.clone())),
            table: tokio::spawn(look(
                config.clone(),
                group.to_owned(),
                args.from_beginning,
                letters,
                output,
            )),
        };
        hint(output, &format!("following {name}; Ctrl-C ends"));
        Ok(readers)
    }
}

/// Whoever reads both outputs may have left (`2>&1 | head`): then nobody needs the hint.
fn hint(output: Output, text: &str) {
    if output == Output::Table {
        drop(writeln!(io::stderr(), "{text}"));
    }
}

fn read_topic(
    options: topic::Options,
    topic: String,
    from_beginning: bool,
    letters: mpsc::Sender<Coming>,
) -> JoinHandle<()> {
    tokio::task::spawn_blocking(move || {
        let read = || {
            let reader = Reader::new(&options, &topic)?;
            reader.follow(from_beginning)?;
            while !letters.is_closed() {
                if let Some(stored) = reader.next(Duration::from_millis(200))?
                    && letters.blocking_send(Ok(stored.record)).is_err()
                {
                    break;
                }
            }
            Ok(())
        };
        if let Err(error) = read() {
            // Whoever followed has left already when nobody takes it.
            drop(letters.blocking_send(Err(error)));
        }
    })
}

/// Letters that only Postgres has. The topic is followed also where it cannot be asked.
async fn look(config: Config, group: String, from_beginning: bool, letters: mpsc::Sender<Coming>, output: Output) {
    match start(&config, &group, from_beginning).await {
        Ok((pool, following)) => follow_table(pool, following, letters).await,
        Err(failure) => {
            let why = failure.chain();
            hint(
                output,
                &format!("letters that are too large for the topic are not shown: {why}"),
            );
        }
    }
}

async fn start(config: &Config, group: &str, from_beginning: bool) -> Result<(PgPool, Following), Failure> {
    let pool = database::connect(config).await?;
    let following = Following::start(&pool, group, from_beginning).await;
    let following = following.map_err(LookFailed).map_err(Failure::failed)?;
    Ok((pool, following))
}

/// Hands on what the table has as fast as it is taken, and looks again a while later.
async fn follow_table(pool: PgPool, mut following: Following, letters: mpsc::Sender<Coming>) {
    let mut looks = tokio::time::interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let records = match following.next(&pool).await {
            Ok(records) => records,
            Err(error) => {
                tracing::debug!(error = %error, "following dead letters waits for postgres");
                Vec::new()
            }
        };
        if records.is_empty() {
            looks.tick().await;
        }
        for record in records {
            if letters.send(Ok(record)).await.is_err() {
                return;
            }
        }
    }
}

fn failure(error: reader::Error, args: &TailArgs, config: &Config) -> Failure {
    match error {
        reader::Error::Missing { topic } => Failure::failed(Missing {
            topic,
            group: args.group.clone(),
            known: known_groups(config),
        }),
        error => unreadable(error.into()),
    }
}

/// Which letters were printed.
#[derive(Debug, Default)]
struct Printed {
    ids: HashSet<String>,
    in_order: VecDeque<String>,
}

impl Printed {
    /// Whether a letter is printed for the first time, as far as is remembered. One without an id always is.
    fn is_new(&mut self, id: Option<&str>) -> bool {
        let Some(id) = id else { return true };
        if !self.ids.insert(id.to_owned()) {
            return false;
        }
        self.in_order.push_back(id.to_owned());
        if self.in_order.len() > REMEMBERED_MAX
            && let Some(oldest) = self.in_order.pop_front()
        {
            self.ids.remove(&oldest);
        }
        true
    }
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
    fn of(group: &'a str, record: &'a RawRecord) -> Self {
        let headers = &record.headers;
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

    fn is_wanted(&self, args: &TailArgs) -> bool {
        let fits = |wanted: &[String], found: Option<&str>| {
            wanted.is_empty() || found.is_some_and(|found| wanted.iter().any(|wanted| wanted == found))
        };
        // They are many during an outage, and nobody has to do anything about them.
        let is_released = self.class == Some(Class::Parked.as_str()) && args.classes.is_empty();
        let chosen =
            fits(&args.handlers, self.handler) && fits(&args.classes, self.class) && fits(&args.tables, self.table);
        chosen && !is_released
    }

    /// One line.
    fn in_words(&self, colours: Colours) -> String {
        let or_dash = |text: Option<&'a str>| printable(text.unwrap_or("-"));
        let at = |at: DateTime<Utc>| at.format("%Y-%m-%d %H:%M:%S").to_string();
        let attempts = self
            .attempts
            .map_or_else(|| "-".to_owned(), |attempts| format!("{attempts}x"));
        format!(
            "{}  {}  {}  {:<24}  {}  {attempts:>3}  {}",
            colours.paint(Look::Aside, &self.failed_at.map_or_else(|| "-".to_owned(), at)),
            colours.paint(Look::Id, short_id(&or_dash(self.letter_id))),
            colours.paint(Look::Name, &format!("{:<9}", or_dash(self.handler))),
            or_dash(self.table),
            colours.paint(Look::Bad, &format!("{:<11}", or_dash(self.class))),
            shortened(self.error.unwrap_or("-"), ERROR_CHARS_MAX)
        )
    }
}

fn parsed<T: FromStr>(text: Option<&str>) -> Option<T> {
    text?.parse().ok()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use clap::Parser;
    use serde_json::{Value, json};

    use super::*;
    use crate::dead_letter::state::LetterRow;

    fn record(headers: &[(&str, &str)]) -> RawRecord {
        let header = |(name, value): &(&str, &str)| ((*name).to_owned(), Some(Bytes::from((*value).to_owned())));
        RawRecord {
            headers: headers.iter().map(header).collect(),
            ..RawRecord::default()
        }
    }

    #[test]
    fn json_has_the_shape_of_the_list() {
        let at = "2026-01-02T03:04:05.678Z";
        let mut expected = json!({
            "letter_id": "3f2a", "group": "g", "handler": "email", "event_id": null, "table": null,
            "class": "undecodable", "error": "no schema", "attempts": 1, "first_failed_at": at, "failed_at": at,
            "replays": 2, "topic": "t", "partition": 3, "offset": 4, "state": "open"});
        let listed: LetterRow = serde_json::from_value(expected.clone()).unwrap();
        assert_eq!(serde_json::to_value(&listed).unwrap(), expected);
        expected["state"] = Value::Null;
        let written = record(&[
            ("afterwrite.letter_id", "3f2a"),
            ("afterwrite.handler", "email"),
            ("afterwrite.class", "undecodable"),
            ("afterwrite.error", "no schema"),
            ("afterwrite.attempts", "1"),
            ("afterwrite.first_failed_at", at),
            ("afterwrite.failed_at", at),
            ("afterwrite.replays", "2"),
            ("__connect.errors.topic", "t"),
            ("__connect.errors.partition", "3"),
            ("__connect.errors.offset", "4"),
        ]);
        assert_eq!(serde_json::to_value(Letter::of("g", &written)).unwrap(), expected);
        let bare = serde_json::to_value(Letter::of("g", &record(&[]))).unwrap();
        assert_eq!((&bare["error"], &bare["offset"]), (&json!(null), &json!(null)));
    }

    #[test]
    fn a_letter_is_one_line_in_colours_on_a_terminal_only() {
        let long = "first\nsecond ".repeat(50);
        let written = record(&[
            ("afterwrite.class", "panic"),
            ("afterwrite.table", "t\u{1b}[2J"),
            ("afterwrite.error", &long),
        ]);
        let letter = Letter::of("g", &written);
        let plain = letter.in_words(Colours(false));
        assert!(
            !plain.contains(char::is_control) && plain.contains("first second"),
            "{plain}"
        );
        assert!(plain.chars().count() < 300, "{plain}");
        assert!(letter.in_words(Colours(true)).contains("\u{1b}[31mpanic"));
    }

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: TailArgs,
    }

    #[test]
    fn filters_narrow_what_is_shown() {
        let written = record(&[
            ("afterwrite.handler", "email"),
            ("afterwrite.class", "panic"),
            ("afterwrite.table", "public.users"),
        ]);
        let letter = Letter::of("g", &written);
        for (words, expected) in [
            (&[][..], true),
            (
                &["--handler", "email", "--class", "panic", "--table", "public.users"],
                true,
            ),
            (&["--class", "timeout", "--class", "panic"], true),
            (&["--class", "timeout"], false),
            (&["--handler", "reward"], false),
            (&["--table", "public.rewards"], false),
        ] {
            let line = Line::try_parse_from([&["x", "--group", "g"], words].concat()).unwrap();
            assert_eq!(letter.is_wanted(&line.args), expected, "{words:?}");
        }
        let parked = record(&[("afterwrite.class", "parked")]);
        for (words, expected) in [(&[][..], false), (&["--class", "parked"], true)] {
            let line = Line::try_parse_from([&["x", "--group", "g"], words].concat()).unwrap();
            assert_eq!(Letter::of("g", &parked).is_wanted(&line.args), expected, "{words:?}");
        }
        let undecodable = record(&[("afterwrite.handler", "*")]);
        let line = Line::try_parse_from(["x", "--group", "g", "--table", "public.users"]).unwrap();
        assert!(!Letter::of("g", &undecodable).is_wanted(&line.args));
    }

    #[test]
    fn a_copy_of_a_letter_is_not_printed_again_as_long_as_it_is_remembered() {
        let mut printed = Printed::default();
        assert!(printed.is_new(Some("a")) && !printed.is_new(Some("a")));
        assert!(printed.is_new(None) && printed.is_new(None));
        for number in 0..REMEMBERED_MAX {
            assert!(printed.is_new(Some(&number.to_string())));
        }
        assert_eq!(printed.ids.len(), REMEMBERED_MAX);
        assert!(printed.is_new(Some("a")), "it was forgotten, and memory is bounded");
    }
}
