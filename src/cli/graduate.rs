//! `afterwrite graduate`: moves all groups from the write-ahead log to Kafka, step by step; what is to be done next follows
//! from what is there (`src/groups/graduation/`).

mod back;

mod checks;

mod connector;

mod finish;

mod told;

mod words;

use std::collections::BTreeSet;
use std::time::Duration;

use clap::Args;
use sqlx::postgres::{PgConnection, PgPool};
use tokio::time::sleep;

use self::told::{State, Told, Way};
use crate::cli::brokers::Brokers;
use crate::cli::connector::file::{Wanted, read};
use crate::cli::output::Output;
use crate::cli::{Failure, database};
use crate::clients::connect::ConnectClient;
use crate::config::Config;
use crate::groups::graduation::{ConnectorSlot, Facts, Graduation, Member, Refused, Step, next, rows};
use crate::groups::slots::{Dropped, drop_on_server};
use crate::ledger::beginnings::{Beginning, Beginnings};
use crate::ledger::slots::{open_transactions, printed};
use crate::source::kafka::is_subscribed;

/// How often is looked while something is waited for.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// How long the making of a slot may take before those are named for whom it waits.
const NAMED_AFTER: Duration = Duration::from_secs(2);

/// Arguments of `graduate`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  afterwrite graduate --dry-run              check everything, and say what would be done
  afterwrite graduate                        with connectors/waitlist.json
  afterwrite graduate ./my-connector.json
  afterwrite graduate --back                 undo it, while no group has begun to read Kafka

Let the workers run while it works: they read the write-ahead log until all is settled that Kafka will not have, and end by
themselves. Then start them with source.kind = \"kafka\". What was settled meanwhile comes again from Kafka, and the ledger
knows it.

The command says each step and waits where it must; it can be ended at any time (Ctrl-C, a crash) and goes on where it was
when it is repeated. docs/GROWING.md tells all of it.")]
pub struct GraduateArgs {
    /// The connector that takes over: a file, or a name that stands for connectors/NAME.json
    #[arg(default_value = "waitlist", value_name = "FILE|NAME")]
    file: String,
    /// Check, say what would be done next, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Let the groups read the write-ahead log again, and take the connector away
    #[arg(long, conflicts_with = "dry_run")]
    back: bool,
    /// Give up when a step has waited for so long; without it waits as long as it takes
    #[arg(long, value_name = "SECONDS")]
    wait_s: Option<u64>,
}

#[derive(Debug, thiserror::Error)]
enum GraduateFailed {
    #[error(
        "postgres failed during the graduation; was `afterwrite migrate` run after the update? Repeat the command to go on"
    )]
    Postgres(#[source] sqlx::Error),
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error("another `afterwrite graduate` is under way")]
    Busy,
    #[error("{} must be put right first; nothing more was changed", told::counted(*.0, "finding"))]
    Objections(usize),
    #[error("a graduation with connector {begun} is under way, and {named} was named: repeat the command with {begun}")]
    OtherConnector { begun: String, named: String },
    #[error(
        "replication slot {0} is in the way: somebody made it meanwhile, and it is not one of pgoutput in this database, or lost. Drop \
         it, or: `afterwrite graduate --back`, and name another one"
    )]
    ForeignSlot(String),
    #[error("{topic}[{partition}] did not answer: {why}. Repeat the command to go on")]
    Silent { topic: String, partition: i32, why: String },
    #[error("{what} after {wait_s} s: repeat the command to go on waiting")]
    Impatient { what: String, wait_s: u64 },
    #[error("no graduation is under way: there is nothing to take back")]
    NothingBegun,
    #[error(
        "there is no way back any more: {} read{} Kafka since the switch, and nobody reads the log in the meantime. Go on: \
         `afterwrite graduate`", .0.join(", "), if .0.len() == 1 { "s" } else { "" }
    )]
    GoneOn(Vec<String>),
}

impl GraduateFailed {
    fn postgres(error: sqlx::Error) -> Failure {
        Failure::failed(Self::Postgres(error))
    }
}

/// Moves the groups, or takes that back, or says what would be done.
///
/// # Errors
/// Exit code 2 where something has to be put right first, 3 where something cannot be reached, 1 where a step failed. What was
/// done stays done, and the command can be repeated.
pub async fn run(args: &GraduateArgs, config: &Config, output: Output) -> Result<(), Failure> {
    let pool = database::connect(config).await?;
    let mut connection = pool.acquire().await.map_err(GraduateFailed::postgres)?;
    refuse_company(&mut connection).await?;
    let graduate = Graduate {
        config,
        connect: crate::app::options::connect_client(config, Duration::from_millis(config.connect.timeout_ms))?,
        pool,
    };
    let mut told = Told::new(output, args.wait_s);
    match (args.back, args.dry_run) {
        (true, _) => graduate.take_back(&mut told).await,
        (false, true) => graduate.dry_run(&args.file, &mut told).await,
        (false, false) => graduate.go(&args.file, &mut told).await,
    }
}

/// Held until the command ends: the lock goes with the connection.
async fn refuse_company(connection: &mut PgConnection) -> Result<(), Failure> {
    let alone: bool = sqlx::query_scalar("SELECT pg_try_advisory_lock(hashtextextended('afterwrite.graduate', 0))")
        .fetch_one(connection)
        .await
        .map_err(GraduateFailed::postgres)?;
    match alone {
        true => Ok(()),
        false => Err(Failure::failed(GraduateFailed::Busy)),
    }
}

/// What the steps work with.
struct Graduate<'a> {
    config: &'a Config,
    connect: ConnectClient,
    pool: PgPool,
}

impl Graduate<'_> {
    async fn facts(&self) -> Result<Facts, Failure> {
        rows::facts(&self.pool).await.map_err(GraduateFailed::postgres)
    }

    async fn dry_run(&self, file: &str, told: &mut Told) -> Result<(), Failure> {
        let facts = self.facts().await?;
        let step = next(&facts).map_err(refused)?;
        if step == Step::Begin {
            self.check(&wanted(file, facts.begun.as_ref())?, &facts.members, told)
                .await?;
        }
        told.say(Way::of(&step), State::Would, &words::would(&step, facts.begun.as_ref()))
    }

    /// Goes from step to step until there is no next one.
    async fn go(&self, file: &str, told: &mut Told) -> Result<(), Failure> {
        loop {
            let facts = self.facts().await?;
            let step = next(&facts).map_err(refused)?;
            let way = Way::of(&step);
            let begun = facts.begun.as_ref();
            match (&step, begun) {
                (Step::Nothing, _) => {
                    return told.say(
                        way,
                        State::Done,
                        "no group reads the write-ahead log: there is nothing to move",
                    );
                }
                (Step::Begin, _) | (_, None) => {
                    let wanted = wanted(file, None)?;
                    let slot = self.check(&wanted, &facts.members, told).await?;
                    rows::begin(&self.pool, &wanted.name, &slot)
                        .await
                        .map_err(GraduateFailed::postgres)?;
                }
                (Step::MakeSlot, Some(begun)) => self.make_slot(begun, facts.slot, told).await?,
                (Step::WriteBeginnings, Some(begun)) => self.write_beginnings(begun, &facts.members, told).await?,
                (Step::StartConnector, Some(begun)) => {
                    let wanted = wanted(file, Some(begun))?;
                    self.start_connector(begun, &wanted, told).await?;
                }
                (Step::TellToLeave, Some(begun)) => {
                    let cut = printed(begun.cut.unwrap_or_default());
                    told.say(
                        way,
                        State::Done,
                        &format!("all before {cut} is settled: the groups are told to leave"),
                    )?;
                    self.tell_to_leave(true).await?;
                }
                (Step::LetReadOn(behind), Some(_)) => {
                    told.say(way, State::Done, &words::reads_on(behind))?;
                    self.tell_to_leave(false).await?;
                }
                (Step::AwaitCut(_) | Step::AwaitParked(_) | Step::AwaitLeft(_) | Step::AwaitRead(_), Some(begun)) => {
                    told.wait(way, &words::waits(&step, begun))?;
                    sleep(LOOK_EVERY).await;
                }
                (Step::Switch, Some(_)) => self.switch(&facts.members, told).await?,
                (Step::WriteMarker, Some(begun)) => self.mark(begun).await?,
                (Step::Finish(marker), Some(begun)) => {
                    return self.finish(begun, *marker, &facts.members, told).await;
                }
            }
        }
    }

    async fn make_slot(&self, begun: &Graduation, found: ConnectorSlot, told: &mut Told) -> Result<(), Failure> {
        let slot = &begun.slot;
        match found {
            ConnectorSlot::Foreign | ConnectorSlot::Lost => {
                Err(Failure::failed(GraduateFailed::ForeignSlot(slot.clone())))
            }
            ConnectorSlot::At(lsn) => {
                rows::cut(&self.pool, begun.id, lsn)
                    .await
                    .map_err(GraduateFailed::postgres)?;
                let cut = printed(lsn);
                let text = format!("slot {slot} is made: what commits after {cut} is written to Kafka");
                told.say(Way::Slot, State::Done, &text)
            }
            // Made for a command that is gone: Postgres ends it all the same.
            ConnectorSlot::InTheMaking => {
                self.name_those_waited_for(slot, told).await?;
                sleep(LOOK_EVERY).await;
                Ok(())
            }
            ConnectorSlot::Absent => {
                told.say(Way::Slot, State::Doing, &format!("making slot {slot}"))?;
                let replicating = database::connect_to_replicate(self.config).await?;
                let making = rows::make_slot(&replicating, slot);
                tokio::pin!(making);
                loop {
                    tokio::select! {
                        made = &mut making => return made.map_err(GraduateFailed::postgres),
                        () = sleep(NAMED_AFTER) => self.name_those_waited_for(slot, told).await?,
                    }
                }
            }
        }
    }

    async fn name_those_waited_for(&self, slot: &str, told: &mut Told) -> Result<(), Failure> {
        let open = open_transactions(&self.pool).await.map_err(GraduateFailed::postgres)?;
        told.wait(Way::Slot, &words::waits_for_transactions(slot, &open))
    }

    /// Everything that the connector is going to write is after what its topics hold now.
    async fn write_beginnings(&self, begun: &Graduation, members: &[Member], told: &mut Told) -> Result<(), Failure> {
        let brokers = Brokers::connect(self.config).await?;
        let topics = brokers.ask(|broker| Ok(broker.topics(""))).await?;
        let mut found = BTreeSet::new();
        for member in members.iter().filter(|member| member.is_in_log) {
            let (group, asked) = (member.group.clone(), self.read_by(&member.group, &topics));
            found.extend(asked.iter().cloned());
            let positions = brokers.ask(move |broker| broker.positions(&group, &asked)).await?;
            if let Some((topic, partition, why)) = positions.silent.into_iter().next() {
                return Err(Failure::unreachable(GraduateFailed::Silent { topic, partition, why }));
            }
            let ends: Vec<(String, i32, i64)> = positions
                .known
                .into_iter()
                .map(|position| (position.topic, position.partition, position.end))
                .collect();
            let (group, offsets) = (member.group.clone(), ends.clone());
            brokers
                .ask(move |broker| {
                    let offsets: Vec<(&str, i32, i64)> = offsets
                        .iter()
                        .map(|(topic, partition, end)| (topic.as_str(), *partition, *end))
                        .collect();
                    match offsets.is_empty() {
                        true => Ok(()),
                        false => broker.commit(&group, &offsets),
                    }
                })
                .await?;
            Beginnings::new(self.pool.clone(), member.group.as_str())
                .replace(&Beginning::at(ends))
                .await
                .map_err(GraduateFailed::postgres)?;
        }
        rows::has_beginnings(&self.pool, begun.id)
            .await
            .map_err(GraduateFailed::postgres)?;
        let text = format!(
            "{} of {} in Kafka now: the groups begin at their ends, and at the beginning of those that the connector makes",
            told::counted(found.len(), "topic"),
            self.config.source.name
        );
        told.say(Way::Beginnings, State::Done, &text)
    }

    /// Those of the topics that a group may read: all of the source, where it was not told which.
    fn read_by(&self, group: &str, topics: &BTreeSet<String>) -> BTreeSet<String> {
        let of_source = format!("{}.", self.config.source.name);
        let chosen = self.config.topics_of(group);
        let is_read = |topic: &&String| match chosen {
            [] => topic.starts_with(&of_source),
            chosen => is_subscribed(chosen, topic),
        };
        topics.iter().filter(is_read).cloned().collect()
    }

    /// Drops a slot when nobody reads it any more; answers whether it was there.
    async fn drop_slot(&self, slot: &str, way: Way, told: &mut Told) -> Result<bool, Failure> {
        let replicating = database::connect_to_replicate(self.config).await?;
        loop {
            match drop_on_server(&replicating, slot)
                .await
                .map_err(GraduateFailed::postgres)?
            {
                Dropped::Now => return Ok(true),
                Dropped::NotThere => return Ok(false),
                Dropped::InUse => {
                    told.wait(way, &format!("whoever reads slot {slot} to be gone"))?;
                    sleep(LOOK_EVERY).await;
                }
            }
        }
    }

    async fn tell_to_leave(&self, leave: bool) -> Result<(), Failure> {
        rows::tell_to_leave(&self.pool, leave)
            .await
            .map_err(GraduateFailed::postgres)
    }

    async fn switch(&self, members: &[Member], told: &mut Told) -> Result<(), Failure> {
        let switched = rows::switch(&self.pool, &self.config.source.name)
            .await
            .map_err(GraduateFailed::postgres)?;
        if switched {
            let groups: Vec<&str> = members.iter().map(|member| member.group.as_str()).collect();
            let text = format!(
                "from now on Kafka is read, and nobody reads the log: {}",
                groups.join(", ")
            );
            told.say(Way::Switch, State::Done, &text)?;
        }
        Ok(())
    }

    async fn mark(&self, begun: &Graduation) -> Result<(), Failure> {
        rows::mark(&self.pool, begun.id).await.map_err(GraduateFailed::postgres)
    }
}

fn refused(refused: Refused) -> Failure {
    Failure::failed(GraduateFailed::from(refused))
}

/// The connector file, which has to be that of the graduation that has begun.
fn wanted(file: &str, begun: Option<&Graduation>) -> Result<Wanted, Failure> {
    let wanted = read(file)?;
    match begun {
        Some(begun) if begun.connector != wanted.name => Err(Failure::usage(GraduateFailed::OtherConnector {
            begun: begun.connector.clone(),
            named: wanted.name,
        })),
        _ => Ok(wanted),
    }
}
