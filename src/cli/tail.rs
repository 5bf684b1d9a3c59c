//! `afterwrite tail`: changes as they happen, decoded.

mod condition;
mod line;
mod refused;
mod truth;

use clap::Args;

use self::condition::Condition;
use self::truth::{Absent, Asked};
use crate::app;
use crate::cli::colours::{Colours, WhenColours};
use crate::cli::decoded::Line;
use crate::cli::following::{follow, hint, read_topics};
use crate::cli::output::{Output, print_next_line};
use crate::cli::{Failure, stop_signal};
use crate::config::Config;
use crate::decode::options::Options;
use crate::decode::registry::Registry;
use crate::decode::tables::Tables;
use crate::decode::{Decoder, resolve};
use crate::event::change::ChangeEvent;
use crate::event::delivery::Content;
use crate::source::kafka::follow::{Followed, From};

/// Show decoded changes as they happen, whatever encoding the connector writes. No group is joined and nothing is committed.
#[derive(Debug, Args)]
#[command(after_help = "\
--where takes a condition in SQL's words: = <> < <= > >=, and, or, not, is [not] null, is [not] distinct from, in (…),
between, [i]like, -> and ->> for members of JSON. A column is after.NAME, before.NAME or key.NAME (\"Name\" with capitals);
fields of the change are id, schema, table, op, tx, lsn, commit_ts_ms, topic, partition and offset. op is insert, update,
delete, truncate, read or message; changed('NAME') holds of an update that changed a column, as far as its old row tells.
What is null, or was not sent, makes neither a comparison nor its opposite true, as in SQL. Decimals are compared as numbers.
A record that cannot be decoded is shown whatever is asked.

Examples:
  afterwrite tail
  afterwrite tail --table public.waitlist_users --from-beginning --limit 10
  afterwrite tail --where \"op = 'update' and changed('status')\"
  afterwrite tail --where \"after.amount >= 100 and after.payload->>'kind' in ('gift', 'coupon')\"
  afterwrite tail --color always | less -R
  afterwrite tail --output json | jq .event.after")]
pub struct TailArgs {
    /// Only these tables: schema.table, * for any text; may be given several times
    #[arg(long = "table", value_name = "SCHEMA.TABLE")]
    tables: Vec<String>,
    /// Only changes of which this holds, in SQL's words
    #[arg(long = "where", value_name = "CONDITION")]
    condition: Option<Condition>,
    /// Begin with the oldest change that is kept, not with the next one
    #[arg(long)]
    from_beginning: bool,
    /// Show also what wakes no handler: heartbeats, tombstones, rows read by a snapshot
    #[arg(long)]
    skipped: bool,
    /// End after this many lines
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    #[command(flatten)]
    colours: WhenColours,
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
    let mut shown = Shown {
        decoder: Decoder::new(Options {
            reads: args.skipped,
            ..app::options::decode_options(config)
        }),
        registry: Registry::new(&app::options::registry_settings(config)).map_err(Failure::usage)?,
        tables: Tables::like(&args.tables),
        of_every_table: args.tables.is_empty(),
        condition: args.condition.clone(),
        absent: Absent::default(),
        skipped: args.skipped,
        output,
        colours: args.colours.here(output),
    };
    let from = match args.from_beginning {
        true => From::Beginning,
        false => From::End,
    };
    let (coming, reading) = read_topics(config, from, move |partitions, topics| {
        if output == Output::Table {
            hint(&format!("following {partitions} partitions of {topics}; Ctrl-C ends"));
        }
    });
    follow(coming, stop_signal(), args.limit, async |followed| {
        shown.print(followed).await
    })
    .await?;
    reading.ended().await
}

/// What is shown, and how.
struct Shown {
    decoder: Decoder,
    registry: Registry,
    tables: Tables,
    of_every_table: bool,
    condition: Option<Condition>,
    absent: Absent,
    skipped: bool,
    output: Output,
    colours: Colours,
}

impl Shown {
    /// Prints a record that is wanted; answers how many lines that were, and `None` when nobody reads any more.
    async fn print(&mut self, followed: Followed) -> Result<Option<u64>, Failure> {
        let topic = &*followed.partition.topic;
        let content = resolve::content(&self.decoder, Some(&self.registry), topic, &followed.raw).await;
        if !self.wants(&content, &followed) {
            return Ok(Some(0));
        }
        let line = Line::of(topic, followed.partition.partition, followed.position.0, &content);
        let text = match (self.output, &content) {
            (Output::Json, _) => serde_json::to_string(&line).map_err(Failure::failed)?,
            (Output::Table, Content::Change(event)) => line::of_change(event, self.colours),
            (Output::Table, Content::Skip(_) | Content::Undecodable(_)) => line::of_record(&line, self.colours),
        };
        Ok(print_next_line(&text)?.then_some(1))
    }

    fn wants(&mut self, content: &Content, followed: &Followed) -> bool {
        match content {
            Content::Change(event) => {
                let origin = event.origin();
                let is_chosen = self.of_every_table || self.tables.contains(&origin.schema, &origin.table);
                is_chosen && self.holds(event, followed)
            }
            Content::Skip(_) => self.skipped && self.of_every_table && self.condition.is_none(),
            Content::Undecodable(_) => true,
        }
    }

    fn holds(&mut self, event: &ChangeEvent, followed: &Followed) -> bool {
        let Some(condition) = &self.condition else {
            return true;
        };
        let asked = Asked {
            event,
            topic: &followed.partition.topic,
            partition: followed.partition.partition,
            offset: followed.position.0,
        };
        let holds = condition.holds(asked, &mut self.absent);
        for column in self.absent.take() {
            let origin = event.origin();
            hint(&format!(
                "--where asks for a column {column} that {}.{} has not; is the name right? A name with capitals stands in \
                 double quotes",
                origin.schema, origin.table
            ));
        }
        holds == Some(true)
    }
}
