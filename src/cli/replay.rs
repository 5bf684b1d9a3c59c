//! `afterwrite replay`: moves the position of a stopped group, so that records are delivered again. The ledger leaves out
//! what was done, unless that is asked for.

mod words;

use std::collections::BTreeMap;

use chrono::{DateTime, Duration, Utc};
use clap::Args;
use sqlx::PgConnection;
use sqlx::postgres::PgPool;

use self::words::{Report, in_words};
use crate::cli::brokers::Brokers;
use crate::cli::output::Output;
use crate::cli::status::NoGroup;
use crate::cli::{Failure, database};
use crate::config::Config;
use crate::groups::broker::Membership;
use crate::groups::known::{self, Known};
use crate::groups::moves::{self, Account, Move, Place, Plan, Target, moment};
use crate::groups::partition::Position;
use crate::ledger::redo::{self, Chosen, Marked};

/// How much earlier than the day of commit a record is looked for: the clocks of Postgres and of whoever wrote the record
/// may differ by so much.
const CLOCKS_DIFFER_MAX: Duration = Duration::minutes(10);

/// Arguments of `replay`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  afterwrite replay --group email --from 2026-07-01T12:00:00Z --dry-run   what would be delivered again
  afterwrite replay --group email --from-beginning                        everything the topics still hold
  afterwrite replay --group email --to-offset waitlist.public.waitlist_users:3:beginning
                                                                           a stopped partition goes on
  afterwrite replay --group position --redo --handler position --from 2026-07-01 --until 2026-07-02 --reason 'bug 17'
                                                                           what was done on that day is done again

The group must be stopped: on every machine, and for as long as the command runs. Only what is not done runs: a handler
meets its own rows of the ledger. With --redo the events that the handler settled from --from up to --until (by the
clock of Postgres, when their transaction ran) are marked first, and each of them is done once more. Mails and calls
are not repeated with it, unless --repeat-effects says so; then they are rendered anew and keep their Message-ID or
webhook-id. Effects that were made before this version was installed are never repeated.

--from and --until take 2026-07-01T12:00:00Z, 2026-07-01 12:00 or 2026-07-01; without a zone they are UTC.
dlq replay sends dead letters back; this command does not. With source.kind = \"wal\" it refuses: the write-ahead log keeps
nothing that was confirmed.")]
pub struct ReplayArgs {
    /// The group, short (email) or in full (afterwrite.email)
    #[arg(long)]
    group: String,
    /// To the first records that were written at this time or later; with --redo: done from then on
    #[arg(long, value_name = "TIME", value_parser = moment)]
    from: Option<DateTime<Utc>>,
    /// To the oldest records that are kept
    #[arg(long, conflicts_with_all = ["from", "to_offset", "redo"])]
    from_beginning: bool,
    /// To this offset, `beginning` or `end`; other partitions stay; may be given several times
    #[arg(long, value_name = "TOPIC:PARTITION:OFFSET", conflicts_with_all = ["from", "redo"])]
    to_offset: Vec<Place>,
    /// Let --to-offset move forward over records that nobody settled: they are never delivered
    #[arg(long, requires = "to_offset", conflicts_with_all = ["from", "from_beginning", "redo"])]
    skip: bool,
    /// Do again what was done
    #[arg(long, requires_all = ["handler", "from", "until"])]
    redo: bool,
    /// The handler of --redo
    #[arg(long, requires = "redo")]
    handler: Option<String>,
    /// End of the time of --redo, exclusive
    #[arg(long, value_name = "TIME", value_parser = moment, requires = "redo")]
    until: Option<DateTime<Utc>>,
    /// Make mails and calls of these events again too
    #[arg(long, requires = "redo")]
    repeat_effects: bool,
    /// Why; kept with who did it and when in afterwrite.group_moves
    #[arg(long)]
    reason: Option<String>,
    /// Say what would happen, and change nothing
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, thiserror::Error)]
enum ReplayFailed {
    #[error(
        "source.kind is wal, and the write-ahead log keeps nothing that was confirmed: no group can be moved back in it, and \
         nothing be done again with --redo. Letters go back: `afterwrite dlq replay --group {0}`"
    )]
    NothingKept(String),
    #[error("say where to: --from TIME, --from-beginning or --to-offset TOPIC:PARTITION:OFFSET")]
    Nowhere,
    #[error("--until must be later than --from")]
    EmptyTime,
    #[error("handler {handler} does not belong to group {group}, which has {}", .handlers.join(", "))]
    NoHandler {
        handler: String,
        group: String,
        handlers: Vec<String>,
    },
    #[error("postgres failed while group {group} was being moved; was `afterwrite migrate` run?")]
    Postgres { group: String, source: sqlx::Error },
    #[error(
        "group {group} runs, and only a stopped group is moved: stop {}; a process that was killed counts as running for \
         another 30 s or kafka.session_timeout_ms", .who.join(", ")
    )]
    Running { group: String, who: Vec<String> },
    #[error("another replay of group {0} is under way")]
    Busy(String),
    #[error("{topic}[{partition}] did not answer, so nothing was moved: {why}")]
    Silent { topic: String, partition: i32, why: String },
    #[error(
        "{topic}[{partition}] should stand at {wanted} and does not: did somebody else move the group? Repeat the command"
    )]
    NotThere { topic: String, partition: i32, wanted: i64 },
}

/// Moves the group, or says what that would do.
///
/// # Errors
/// When the group runs, the place is not there, or Postgres or Kafka fails. What was marked for --redo stays marked then,
/// and the command can be repeated.
pub async fn run(args: &ReplayArgs, config: &Config, output: Output) -> Result<(), Failure> {
    let replay = Replay::prepare(args, config).await?;
    let report = replay.run(args).await?;
    output.print(&report, in_words)
}

/// Everything that is known before something changes.
struct Replay {
    pool: PgPool,
    group: String,
    known: Known,
    broker: Brokers,
    chosen: Option<Chosen>,
}

impl Replay {
    async fn prepare(args: &ReplayArgs, config: &Config) -> Result<Self, Failure> {
        if !config.source.kind.has_brokers() {
            return Err(Failure::usage(ReplayFailed::NothingKept(args.group.clone())));
        }
        if args.from.is_none() && !args.from_beginning && args.to_offset.is_empty() {
            return Err(Failure::usage(ReplayFailed::Nowhere));
        }
        let group = config.group_name(&args.group);
        let pool = database::connect(config).await?;
        let mut known = known::read(&pool).await.map_err(|error| failed(&group, error))?;
        let Some(of_group) = known.remove(&group) else {
            return Err(Failure::failed(NoGroup::of(&group, &known)));
        };
        let chosen = chosen(args, &group, &of_group)?;
        Ok(Self {
            pool,
            broker: Brokers::connect(config).await?,
            group,
            known: of_group,
            chosen,
        })
    }

    async fn run(&self, args: &ReplayArgs) -> Result<Report, Failure> {
        let mut connection = self.pool.acquire().await.map_err(|error| self.failed(error))?;
        self.refuse_company(&mut connection).await?;
        self.refuse_running().await?;
        let positions = self.positions().await?;
        if args.dry_run {
            let marked = match &self.chosen {
                Some(chosen) => Some(
                    redo::count(&mut connection, chosen)
                        .await
                        .map_err(|error| self.failed(error))?,
                ),
                None => None,
            };
            let (moves, may_lack) = self.plan(args, &positions, marked.as_ref()).await?;
            return Ok(self.report(true, moves, marked, may_lack));
        }
        // What is marked and the account of it are durable before the position moves: a repetition finds both.
        let mut transaction = sqlx::Connection::begin(&mut *connection)
            .await
            .map_err(|error| self.failed(error))?;
        let marked = match &self.chosen {
            Some(chosen) => Some(
                redo::mark(&mut transaction, chosen)
                    .await
                    .map_err(|error| self.failed(error))?,
            ),
            None => None,
        };
        let (moves, may_lack) = self.plan(args, &positions, marked.as_ref()).await?;
        let by = std::env::var("USER").unwrap_or_else(|_| "afterwrite replay".to_owned());
        let account = Account {
            group: &self.group,
            by: &by,
            reason: args.reason.as_deref(),
            moves: &moves,
            redo: self.chosen.as_ref().zip(marked.as_ref()),
        };
        let account = account
            .begin(&mut transaction)
            .await
            .map_err(|error| self.failed(error))?;
        transaction.commit().await.map_err(|error| self.failed(error))?;
        self.commit(&moves).await?;
        moves::moved(&self.pool, account)
            .await
            .map_err(|error| self.failed(error))?;
        Ok(self.report(false, moves, marked, may_lack))
    }

    /// Held until the command ends: the lock goes with the connection.
    async fn refuse_company(&self, connection: &mut PgConnection) -> Result<(), Failure> {
        let alone: bool =
            sqlx::query_scalar("SELECT pg_try_advisory_lock(hashtextextended('afterwrite.replay.' || $1, 0))")
                .bind(&self.group)
                .fetch_one(connection)
                .await
                .map_err(|error| self.failed(error))?;
        match alone {
            true => Ok(()),
            false => Err(Failure::failed(ReplayFailed::Busy(self.group.clone()))),
        }
    }

    async fn refuse_running(&self) -> Result<(), Failure> {
        let group = self.group.clone();
        let membership = self.broker.ask(move |broker| broker.membership(&group)).await?;
        let who = who_runs(&self.known, &membership);
        match who.is_empty() {
            true => Ok(()),
            false => Err(Failure::failed(ReplayFailed::Running {
                group: self.group.clone(),
                who,
            })),
        }
    }

    async fn positions(&self) -> Result<Vec<Position>, Failure> {
        let (group, topics) = (self.group.clone(), self.known.topics());
        let positions = self.broker.ask(move |broker| broker.positions(&group, &topics)).await?;
        match positions.silent.into_iter().next() {
            None => Ok(positions.known),
            Some((topic, partition, why)) => Err(Failure::unreachable(ReplayFailed::Silent { topic, partition, why })),
        }
    }

    /// The moves, and the partitions that may lack records of what is to be done again.
    async fn plan(
        &self,
        args: &ReplayArgs,
        positions: &[Position],
        marked: Option<&Marked>,
    ) -> Result<(Vec<Move>, Vec<String>), Failure> {
        let time = match marked {
            // The ledger knows the day of a commit, and a record is never written before its commit.
            Some(marked) => match marked.first_day.and_then(|day| day.and_hms_opt(0, 0, 0)) {
                Some(midnight) => Some(midnight.and_utc() - CLOCKS_DIFFER_MAX),
                None => return Ok((Vec::new(), Vec::new())),
            },
            None => args.from,
        };
        let mut may_lack = Vec::new();
        let target = match time {
            Some(time) => {
                let asked = positions.to_vec();
                let offsets = self.broker.ask(move |broker| broker.offsets_at(&asked, time)).await?;
                let pairs = positions.iter().zip(&offsets);
                let cut_off = pairs.filter(|(position, offset)| position.oldest > 0 && **offset <= position.oldest);
                may_lack.extend(
                    cut_off
                        .filter(|_| marked.is_some())
                        .map(|(position, _)| format!("{}[{}]", position.topic, position.partition)),
                );
                Target::Offsets(offsets)
            }
            None if args.from_beginning => Target::Beginning,
            None => Target::Places(args.to_offset.clone()),
        };
        let plan = Plan {
            group: &self.group,
            positions,
            first_offsets: &self.known.first_offsets,
            skip: args.skip,
        };
        let moves = plan.moves(&target).map_err(Failure::usage)?;
        Ok((moves, may_lack))
    }

    /// Writes the position, and looks whether it is there.
    async fn commit(&self, moves: &[Move]) -> Result<(), Failure> {
        if moves.is_empty() {
            return Ok(());
        }
        let (group, wanted) = (self.group.clone(), moves.to_vec());
        self.broker
            .ask(move |broker| {
                let offsets: Vec<(&str, i32, i64)> = wanted
                    .iter()
                    .map(|leads| (leads.topic.as_str(), leads.partition, leads.to))
                    .collect();
                broker.commit(&group, &offsets)
            })
            .await?;
        let standing: BTreeMap<(String, i32), Option<i64>> = self
            .positions()
            .await?
            .into_iter()
            .map(|position| ((position.topic, position.partition), position.committed))
            .collect();
        let is_there =
            |leads: &&Move| standing.get(&(leads.topic.clone(), leads.partition)).copied().flatten() == Some(leads.to);
        match moves.iter().find(|leads| !is_there(leads)) {
            None => Ok(()),
            Some(leads) => Err(Failure::failed(ReplayFailed::NotThere {
                topic: leads.topic.clone(),
                partition: leads.partition,
                wanted: leads.to,
            })),
        }
    }

    fn report(&self, dry_run: bool, moves: Vec<Move>, redo: Option<Marked>, may_lack: Vec<String>) -> Report {
        Report {
            group: self.group.clone(),
            dry_run,
            again: moves.iter().map(|leads| leads.again).sum(),
            passed_over: moves.iter().map(|leads| leads.passed_over).sum(),
            moves,
            redo,
            may_lack,
        }
    }

    fn failed(&self, error: sqlx::Error) -> Failure {
        failed(&self.group, error)
    }
}

fn failed(group: &str, source: sqlx::Error) -> Failure {
    let group = group.to_owned();
    Failure::failed(ReplayFailed::Postgres { group, source })
}

fn chosen(args: &ReplayArgs, group: &str, known: &Known) -> Result<Option<Chosen>, Failure> {
    let (true, Some(handler), Some(from), Some(until)) = (args.redo, &args.handler, args.from, args.until) else {
        return Ok(None);
    };
    if from >= until {
        return Err(Failure::usage(ReplayFailed::EmptyTime));
    }
    if !known.handlers.contains(handler) {
        return Err(Failure::usage(ReplayFailed::NoHandler {
            handler: handler.clone(),
            group: group.to_owned(),
            handlers: known.handlers.clone(),
        }));
    }
    Ok(Some(Chosen {
        handler: handler.clone(),
        from,
        until,
        repeat_effects: args.repeat_effects,
    }))
}

/// Processes and members that run the group, by name.
fn who_runs(known: &Known, membership: &Membership) -> Vec<String> {
    let processes = known.workers.iter().filter(|worker| worker.runs());
    let members = membership.members.iter();
    processes
        .map(|worker| format!("process {}:{}", worker.host, worker.pid))
        .chain(members.map(|member| format!("member {} at {}", member.id, member.host)))
        .collect()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: ReplayArgs,
    }

    #[test]
    fn what_would_be_ignored_is_refused() {
        let redo = ["x", "--group", "g", "--redo", "--handler", "h", "--from", "2026-07-01"];
        let redo_until = [&redo[..], &["--until", "2026-07-02"]].concat();
        for (words, accepted) in [
            (
                &["x", "--group", "g", "--from", "2026-07-01T00:00:00Z", "--dry-run"][..],
                true,
            ),
            (&["x", "--group", "g", "--from-beginning"], true),
            (
                &[
                    "x",
                    "--group",
                    "g",
                    "--to-offset",
                    "t:0:4",
                    "--to-offset",
                    "t:1:end",
                    "--skip",
                ],
                true,
            ),
            (&redo_until, true),
            (
                &[&redo_until[..], &["--repeat-effects", "--reason", "bug"]].concat(),
                true,
            ),
            (&redo, false),
            (&[&redo_until[..], &["--from-beginning"]].concat(), false),
            (&[&redo_until[..], &["--to-offset", "t:0:4"]].concat(), false),
            (&["x", "--from-beginning"], false),
            (
                &["x", "--group", "g", "--from-beginning", "--from", "2026-07-01"],
                false,
            ),
            (&["x", "--group", "g", "--from-beginning", "--skip"], false),
            (
                &["x", "--group", "g", "--from-beginning", "--until", "2026-07-02"],
                false,
            ),
            (&["x", "--group", "g", "--from-beginning", "--handler", "h"], false),
            (&["x", "--group", "g", "--from", "yesterday"], false),
            (&["x", "--group", "g", "--to-offset", "t:0"], false),
        ] {
            assert_eq!(Line::try_parse_from(words).is_ok(), accepted, "{words:?}");
        }
    }
}
