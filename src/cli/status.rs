//! `afterwrite status`: how each group is: who runs it, how far behind it is, what waits, failed or is stopped.
//!
//! Postgres and Kafka are asked at once, and each knows a part. When one of them is away the other part is shown all the same.
//! Where changes come without Kafka, Postgres alone is asked, and knows what there is to know.

mod report;

mod words;

mod notes;

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::Utc;
use clap::Args;

use self::report::{Missing, Observed, Report};
use crate::app;
use crate::cli::brokers::unanswered;
use crate::cli::output::Output;
use crate::cli::{Failure, database, slot};
use crate::config::Config;
use crate::groups::broker::{self, Broker};
use crate::groups::graduation::rows::{self, UnderWay};
use crate::groups::known::{self, Known};
use crate::groups::slots::{self, Slots};

/// Arguments of `status`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  afterwrite status                          every group in one line, and what is wrong with it
  afterwrite status --group email            its processes and partitions too
  afterwrite status --output json | jq '.groups[] | {group, lag_events, lag_s, stopped}'

Columns: procs: processes that run the group. parts: partitions. lag: offsets from the committed positions to the ends.
behind: age of the oldest record that is not settled. run/wait/retry: jobs in attempts, in line, and waiting to be
tried again. oldest job: age of the record of the oldest open job. open/parked: dead letters. progress: since something
was settled last.

With source.kind = \"wal\" no broker is asked, and parts are not shown. lag: log that was written and is not settled. behind:
age of the oldest open job; of a stopped group that has not read all, since it settled last.

Exit code 3 when Postgres or Kafka could not be asked; what the other knows is shown all the same.")]
pub struct StatusArgs {
    /// Only this group, with its processes and partitions
    #[arg(long)]
    group: Option<String>,
}

#[derive(Debug, thiserror::Error)]
enum StatusFailed {
    #[error("groups could not be read from postgres; was `afterwrite migrate` run?")]
    Known(#[source] sqlx::Error),
    #[error("asking kafka ended abnormally")]
    Asked(#[source] tokio::task::JoinError),
}

/// No group of that name ever ran.
#[derive(Debug, thiserror::Error)]
#[error("no group {group} ever ran here; {there_are}")]
pub(super) struct NoGroup {
    group: String,
    there_are: String,
}

impl NoGroup {
    pub(super) fn of(group: &str, known: &BTreeMap<String, Known>) -> Self {
        let names: Vec<&str> = known.keys().map(String::as_str).collect();
        Self {
            group: group.to_owned(),
            there_are: match names.as_slice() {
                [] => "`afterwrite run` starts the groups".to_owned(),
                names => format!("there are {}", names.join(", ")),
            },
        }
    }
}

/// Prints how the groups are.
///
/// # Errors
/// When there is no such group, or when Postgres or Kafka could not be asked; then what the other knows was printed.
pub async fn run(args: &StatusArgs, config: &Config, output: Output) -> Result<(), Failure> {
    let group = args.group.as_ref().map(|group| config.group_name(group));
    let has_brokers = config.source.kind.has_brokers();
    let connected = async {
        match has_brokers {
            true => connect(config).await.map(Some),
            false => Ok(None),
        }
    };
    let (known, broker) = futures::future::join(known(config), connected).await;
    let (known, no_postgres) = parted(known);
    let (known, slots, graduation) = match known {
        Some(InPostgres {
            known,
            slots,
            graduation,
        }) => (Some(known), slots, graduation),
        None => (None, None, None),
    };
    let (broker, no_kafka) = parted(broker);
    let broker = broker.flatten();
    let names = names(config, group.as_deref(), known.as_ref(), broker.clone()).await?;
    let (observed, no_answer) = match &broker {
        Some(broker) => observe(broker, config, &names, known.as_ref()).await,
        None => (BTreeMap::new(), None),
    };
    let no_kafka = no_kafka.or(no_answer);
    let missing = |part: &'static str, failure: &Option<Failure>| {
        let why = failure.as_ref()?.chain();
        Some(Missing { part, why })
    };
    let mut report = Report::of(
        Utc::now(),
        names,
        known.as_ref(),
        has_brokers.then_some(&observed),
        slots,
        [missing("postgres", &no_postgres), missing("kafka", &no_kafka)]
            .into_iter()
            .flatten()
            .collect(),
    );
    report.graduation = graduation;
    output.print(&report, |report| words::in_words(report, config, group.is_some()))?;
    no_postgres.or(no_kafka).map_or(Ok(()), Err)
}

/// What there is, and why there is nothing.
fn parted<T>(answer: Result<T, Failure>) -> (Option<T>, Option<Failure>) {
    match answer {
        Ok(answer) => (Some(answer), None),
        Err(failure) => (None, Some(failure)),
    }
}

/// What Postgres knows.
struct InPostgres {
    /// Of groups.
    known: BTreeMap<String, Known>,
    /// Of their slots, where they read the write-ahead log themselves.
    slots: Option<Slots>,
    /// Of their way to Kafka.
    graduation: Option<UnderWay>,
}

async fn known(config: &Config) -> Result<InPostgres, Failure> {
    let pool = database::connect(config).await?;
    let read = async {
        let mut known = known::read(&pool).await?;
        let graduation = rows::under_way(&pool).await?;
        if config.source.kind.has_brokers() {
            let slots = None;
            return Ok(InPostgres {
                known,
                slots,
                graduation,
            });
        }
        let slots = slots::read(&pool, &slot::beginning(config)).await?;
        // One that was taken out of the register is forgotten, but its slot still keeps log.
        for group in slots.slots.iter().filter_map(|slot| slot.group.as_ref()) {
            known.entry(group.clone()).or_default();
        }
        Ok(InPostgres {
            known,
            slots: Some(slots),
            graduation,
        })
    };
    read.await.map_err(StatusFailed::Known).map_err(Failure::failed)
}

async fn connect(config: &Config) -> Result<Arc<Broker>, Failure> {
    let options = app::options::broker_options(config);
    let connected = tokio::task::spawn_blocking(|| Broker::connect(options)).await;
    let connected = connected.map_err(StatusFailed::Asked).map_err(Failure::failed)?;
    connected.map(Arc::new).map_err(unanswered)
}

/// The groups to show: those Postgres knows; where it is away, those of our prefix that Kafka knows.
async fn names(
    config: &Config,
    group: Option<&str>,
    known: Option<&BTreeMap<String, Known>>,
    broker: Option<Arc<Broker>>,
) -> Result<Vec<String>, Failure> {
    match (known, group) {
        (Some(known), Some(group)) if !known.contains_key(group) => {
            return Err(Failure::failed(NoGroup::of(group, known)));
        }
        (_, Some(group)) => return Ok(vec![group.to_owned()]),
        (Some(known), None) => return Ok(known.keys().cloned().collect()),
        (None, None) => {}
    }
    let Some(broker) = broker else { return Ok(Vec::new()) };
    let beginning = config.group_name("");
    let asked = tokio::task::spawn_blocking(move || broker.groups(&beginning)).await;
    let groups = asked.map_err(StatusFailed::Asked).map_err(Failure::failed)?;
    Ok(groups.map_err(unanswered)?.into_iter().collect())
}

/// Asks Kafka about all groups at once; answers what it said, and the first reason why it said nothing.
async fn observe(
    broker: &Arc<Broker>,
    config: &Config,
    names: &[String],
    known: Option<&BTreeMap<String, Known>>,
) -> (BTreeMap<String, Observed>, Option<Failure>) {
    let beginning = format!("{}.", config.source.name);
    let asking = names.iter().map(|group| {
        let (broker, name) = (Arc::clone(broker), group.clone());
        let topics = known
            .and_then(|known| known.get(group))
            .map_or_else(|| broker.topics(&beginning), Known::topics);
        let asked = tokio::task::spawn_blocking(move || ask(&broker, &name, &topics));
        async move {
            let answer = asked.await.map_err(StatusFailed::Asked).map_err(Failure::failed);
            (group.clone(), answer.and_then(|answer| answer.map_err(unanswered)))
        }
    });
    let (mut observed, mut failure) = (BTreeMap::new(), None);
    for (group, answer) in futures::future::join_all(asking).await {
        match answer {
            Ok(seen) => {
                observed.insert(group, seen);
            }
            Err(failed) => failure = failure.or(Some(failed)),
        }
    }
    (observed, failure)
}

fn ask(broker: &Broker, group: &str, topics: &std::collections::BTreeSet<String>) -> Result<Observed, broker::Error> {
    let membership = broker.membership(group)?;
    let mut positions = broker.positions(group, topics)?;
    broker.read_waiting(&mut positions.known)?;
    Ok(Observed { membership, positions })
}
