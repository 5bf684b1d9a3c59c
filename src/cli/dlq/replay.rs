//! `afterwrite dlq replay`: sends letters back to the handler that failed, and to no other.

mod report;

use std::time::Duration;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use sqlx::postgres::PgPool;
use tokio::time::{Interval, MissedTickBehavior};

use self::report::{Report, in_words};
use crate::app;
use crate::cli::dlq::chosen::{Chosen, Letters};
use crate::cli::dlq::{LookFailed, counted, unreadable};
use crate::cli::operator::by;
use crate::cli::output::Output;
use crate::cli::{Failure, database, output, stop_signal};
use crate::config::Config;
use crate::dead_letter::filter::{self, Count};
use crate::dead_letter::runs::{self, Begun, LeftOut, Run, Unfinished};
use crate::dead_letter::state::{LetterRow, OPEN};
use crate::dead_letter::{kept, reader};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  afterwrite dlq replay 3f2a… --wait
  afterwrite dlq replay --all --group email --wait
  afterwrite dlq replay --group email --class timeout --since 2h --dry-run
  afterwrite dlq replay --group email --table public.waitlist_users --key id=7
  afterwrite dlq replay --resume --group email          go on after Ctrl-C, a crash, or an outage

A run acts on the letters that are open when it begins; those that arrive later are not in it. Parked ones come back by
themselves; their ids, or --state parked, bring them back now. One run at a time works on a
group. A letter whose event was replayed dead_letters.replays_max times is left out, and counted.")]
pub(super) struct ReplayArgs {
    #[command(flatten)]
    chosen: Letters,
    /// Only say how many there are, by handler and class
    #[arg(long, conflicts_with_all = ["wait", "rate", "resume", "take_over"])]
    dry_run: bool,
    /// Send back this many letters a second; dead_letters.replay_rate_max when not given
    #[arg(long, value_name = "LETTERS", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rate: Option<u32>,
    /// Send the given letters back however often their events were replayed
    #[arg(
        long,
        conflicts_with_all = ["resume", "all", "group", "handlers", "classes", "tables", "key", "since", "until", "states"]
    )]
    force: bool,
    /// Go on with the interrupted run of a group
    #[arg(
        long,
        requires = "group",
        conflicts_with_all = ["letters", "all", "handlers", "classes", "tables", "key", "since", "until", "states"]
    )]
    resume: bool,
    /// Give up an interrupted run of the group and begin this one
    #[arg(long, conflicts_with = "resume")]
    take_over: bool,
    /// Wait until the replays have ended; fails when one of them was buried again
    #[arg(long)]
    wait: bool,
    /// How long --wait waits
    #[arg(long, default_value_t = 120, value_name = "SECONDS", requires = "wait")]
    wait_s: u64,
}

#[derive(Debug, thiserror::Error)]
enum ReplayFailed {
    #[error("the run of replays could not be begun")]
    Begun(#[source] sqlx::Error),
    #[error("the replay of a letter could not be requested; {} goes on", resume_of(.group))]
    Asked {
        group: String,
        #[source]
        source: sqlx::Error,
    },
    #[error("{open} replays had not ended after {seconds} s: does a worker run the group? They stay requested")]
    Late { open: usize, seconds: u64 },
    #[error("{0} replays were buried again: `afterwrite dlq list --state open` shows their new letters")]
    BuriedAgain(usize),
    #[error(
        "{0} letters could not be sent back, because nothing keeps their bytes any more: retention removed them, or the \
         topic was deleted or made anew. They stay open; `afterwrite dlq show ID` says what failed"
    )]
    Unreadable(usize),
    #[error("the letters are of the groups {}, and a run is of one: give one with --group", .0.join(", "))]
    Groups(Vec<String>),
    #[error(
        "group {group} is being replayed already, {}: wait for its end, or stop it there with Ctrl-C",
        .run.as_ref().map_or_else(|| "by a run that has just begun".to_owned(), told)
    )]
    GoingOn { group: String, run: Option<Unfinished> },
    #[error(
        "a run of replays of group {group} was interrupted, {}: {} goes on with it, --take-over gives it up and begins this \
         one",
        told(.run),
        resume_of(.group)
    )]
    Interrupted { group: String, run: Unfinished },
    #[error("no run of replays of group {0} was interrupted: there is nothing to go on with")]
    Nothing(String),
    #[error("stopped with {} left; {} goes on", output::counted(*.left, "letter"), resume_of(.group))]
    Stopped { group: String, left: usize },
    #[error("stopped waiting for {open} replays: they stay requested, and end without this command")]
    StoppedWaiting { open: usize },
    #[error("{} left; when this is mended, {} goes on", output::counted(*.left, "letter"), resume_of(.group))]
    CutOff {
        group: String,
        left: usize,
        #[source]
        source: kept::Error,
    },
}

fn resume_of(group: &str) -> String {
    format!("`afterwrite dlq replay --resume --group {group}`")
}

fn told(run: &Unfinished) -> String {
    format!(
        "run {} by {} since {}, {} of {} letters left",
        run.id,
        run.run_by,
        run.run_since.format("%Y-%m-%d %H:%M:%S UTC"),
        run.left,
        run.letters
    )
}

pub(super) async fn run(args: &ReplayArgs, config: &Config, output: Output) -> Result<(), Failure> {
    let pool = database::connect(config).await?;
    if args.resume {
        let group = config.group_name(args.chosen.filter.group.as_deref().unwrap_or_default());
        let begun = runs::resume(&pool, &group, args.rate, &by(&pool).await?).await;
        return work(begun_run(begun, &group)?, Vec::new(), args, config, &pool, output).await;
    }
    let replays_max = i32::try_from(config.dead_letters.replays_max).unwrap_or(i32::MAX);
    let plan = plan(args, config, &pool, replays_max).await?;
    if args.dry_run {
        return output.print(&plan.report(), |report| in_words(report, true));
    }
    let Some(group) = plan.group else {
        return output.print(&plan.report(), |report| in_words(report, false));
    };
    let rate = args.rate.unwrap_or(config.dead_letters.replay_rate_max);
    let begun = runs::begin(&pool, &group, &plan.chosen, rate, &by(&pool).await?, args.take_over).await;
    work(begun_run(begun, &group)?, plan.held_back, args, config, &pool, output).await
}

fn begun_run(begun: Result<Begun, sqlx::Error>, group: &str) -> Result<Box<Run>, Failure> {
    let group = group.to_owned();
    match begun.map_err(ReplayFailed::Begun).map_err(Failure::failed)? {
        Begun::Run(run) => Ok(run),
        Begun::GoingOn(run) => Err(Failure::failed(ReplayFailed::GoingOn { group, run })),
        Begun::Interrupted(run) => Err(Failure::failed(ReplayFailed::Interrupted { group, run })),
        Begun::Nothing => Err(Failure::failed(ReplayFailed::Nothing(group))),
    }
}

/// What a run would act on.
struct Plan {
    /// Absent when there is no letter.
    group: Option<String>,
    chosen: runs::Chosen,
    counts: Vec<Count>,
    /// What the loop guard leaves out.
    held_back: Vec<String>,
}

impl Plan {
    fn report(&self) -> Report {
        Report {
            group: self.group.clone(),
            counts: self.counts.clone(),
            held_back: self.held_back.clone(),
            ..Report::default()
        }
    }
}

async fn plan(args: &ReplayArgs, config: &Config, pool: &PgPool, replays_max: i32) -> Result<Plan, Failure> {
    let plan = match args.chosen.open(config, pool, "replayed").await? {
        Chosen::Letters(letters) => {
            let guarded = |letter: &LetterRow| !args.force && letter.state == OPEN && letter.replays >= replays_max;
            let (held_back, sent): (Vec<_>, Vec<_>) = letters.into_iter().partition(guarded);
            let ids = |letters: Vec<LetterRow>| letters.into_iter().map(|letter| letter.letter_id).collect();
            Plan {
                group: None,
                counts: counted(&sent),
                chosen: runs::Chosen::Ids(ids(sent)),
                held_back: ids(held_back),
            }
        }
        Chosen::Filter(filter) => {
            let looked = async {
                let held_back = filter::replayed_often(pool, &filter, replays_max).await?;
                Ok((filter::counts_below(pool, &filter, replays_max).await?, held_back))
            };
            let (counts, held_back) = looked.await.map_err(LookFailed).map_err(Failure::failed)?;
            Plan {
                group: filter.group.clone(),
                chosen: runs::Chosen::Filter { filter, replays_max },
                counts,
                held_back,
            }
        }
    };
    one_group(plan)
}

/// A run is of one group, because one at a time works on each.
fn one_group(plan: Plan) -> Result<Plan, Failure> {
    let mut groups: Vec<String> = plan.counts.iter().map(|count| count.group_name.clone()).collect();
    groups.sort_unstable();
    groups.dedup();
    if groups.len() > 1 {
        return Err(Failure::usage(ReplayFailed::Groups(groups)));
    }
    Ok(Plan {
        group: groups.pop(),
        ..plan
    })
}

/// Asks for the letters of a run, waits for their ends where that is wanted, and says what became of each.
async fn work(
    mut run: Box<Run>,
    held_back: Vec<String>,
    args: &ReplayArgs,
    config: &Config,
    pool: &PgPool,
    output: Output,
) -> Result<(), Failure> {
    let (id, group) = (run.id, run.group.clone());
    let bar = progress(run.letters);
    let asked = tokio::select! {
        asked = ask_all(&mut run, config, pool, &bar) => asked,
        stopped = stop_signal() => stopped.map(|()| Ended::Stopped),
    };
    let ended = match asked {
        Ok(Ended::All) => {
            run.finish()
                .await
                .map_err(ReplayFailed::Begun)
                .map_err(Failure::failed)?;
            match args.wait {
                true => wait(pool, id, args.wait_s, &bar).await?,
                false => Ended::All,
            }
        }
        // A command that did nothing yet is simply given again.
        Ok(Ended::CutOff(error)) if !args.resume && bar.position() == 0 => {
            run.give_up()
                .await
                .map_err(ReplayFailed::Begun)
                .map_err(Failure::failed)?;
            bar.finish_and_clear();
            return Err(unreadable(error));
        }
        ended => ended?,
    };
    bar.finish_and_clear();
    let fates = runs::fates(pool, id)
        .await
        .map_err(LookFailed)
        .map_err(Failure::failed)?;
    let report = Report::of(id, group.clone(), fates, held_back, args.wait);
    output.print(&report, |report| in_words(report, false))?;
    verdict(&report, ended, group)
}

/// How asking and waiting came to an end.
enum Ended {
    /// Everything that was to be done is done.
    All,
    /// Whatever keeps a letter's bytes does not answer.
    CutOff(kept::Error),
    /// By a signal, while letters were asked for.
    Stopped,
    /// By a signal, while ends were waited for.
    StoppedWaiting,
    /// There was no more time to wait, this many seconds.
    Late(u64),
}

fn verdict(report: &Report, ended: Ended, group: String) -> Result<(), Failure> {
    let left = report.left.len();
    let open = report.waiting.len();
    match ended {
        Ended::CutOff(source) => {
            let is_unreachable = source.is_unreachable();
            let failed = ReplayFailed::CutOff { group, left, source };
            Err(if is_unreachable {
                Failure::unreachable(failed)
            } else {
                Failure::failed(failed)
            })
        }
        Ended::Stopped => Err(Failure::failed(ReplayFailed::Stopped { group, left })),
        Ended::StoppedWaiting => Err(Failure::failed(ReplayFailed::StoppedWaiting { open })),
        Ended::Late(seconds) => Err(Failure::failed(ReplayFailed::Late { open, seconds })),
        Ended::All => match (report.buried_again, report.unreadable.len()) {
            (Some(again), _) if again > 0 => Err(Failure::failed(ReplayFailed::BuriedAgain(again))),
            (_, unreadable) if unreadable > 0 => Err(Failure::failed(ReplayFailed::Unreadable(unreadable))),
            _ => Ok(()),
        },
    }
}

/// Requests the replay of each letter. One whose bytes are gone holds no other back; a broker that went away does.
async fn ask_all(run: &mut Run, config: &Config, pool: &PgPool, bar: &ProgressBar) -> Result<Ended, Failure> {
    let failed = |group: &str, source| {
        Failure::failed(ReplayFailed::Asked {
            group: group.to_owned(),
            source,
        })
    };
    let mut turns = turns(run.rate);
    loop {
        let letters = run.next().await.map_err(|error| failed(&run.group, error))?;
        if letters.is_empty() {
            return Ok(Ended::All);
        }
        let topics = app::options::letter_topics(config);
        let mut records = kept::read_all(topics, pool.clone(), &letters);
        for letter in &letters {
            let noted = match records.recv().await {
                Some(Ok(record)) => {
                    turns.tick().await;
                    run.ask(letter, &record).await.map(|_| ())
                }
                Some(Err(error)) if error.is_gone() => run.leave_out(letter, LeftOut::Unreadable).await,
                Some(Err(error)) => return Ok(Ended::CutOff(error)),
                None => return Ok(Ended::CutOff(reader::Error::Abandoned.into())),
            };
            noted.map_err(|error| failed(&run.group, error))?;
            bar.inc(1);
        }
    }
}

fn turns(rate: u32) -> Interval {
    let mut turns = tokio::time::interval(Duration::from_secs(1) / rate.max(1));
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    turns
}

/// Waits until all requests of a run have ended.
async fn wait(pool: &PgPool, run: i64, seconds: u64, bar: &ProgressBar) -> Result<Ended, Failure> {
    let waiting = async {
        let mut looks = tokio::time::interval(Duration::from_millis(100));
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            let open = runs::waiting(pool, run)
                .await
                .map_err(LookFailed)
                .map_err(Failure::failed)?;
            if open == 0 {
                return Ok(Ended::All);
            }
            bar.set_message(format!("waiting for {open} ends"));
        }
    };
    tokio::select! {
        ended = waiting => ended,
        () = tokio::time::sleep(Duration::from_secs(seconds)) => Ok(Ended::Late(seconds)),
        stopped = stop_signal() => stopped.map(|()| Ended::StoppedWaiting),
    }
}

/// How far it is, on a terminal; nothing elsewhere.
fn progress(letters: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} letters, {eta} left {msg}")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(letters).with_style(style)
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
        for (words, accepted) in [
            (&["x", "3f2a"][..], true),
            (&["x", "--all", "--group", "email"], true),
            (&["x", "--group", "email", "--class", "timeout", "--since", "2h"], true),
            (&["x", "3f2a", "--wait", "--wait-s", "5"], true),
            (&["x", "3f2a", "--force"], true),
            (&["x", "--resume", "--group", "email", "--rate", "5"], true),
            (&["x", "3f2a", "--group", "email"], false),
            (&["x", "3f2a", "--since", "2h"], false),
            (&["x", "3f2a", "--wait-s", "5"], false),
            (&["x", "--all"], false),
            (&["x", "--group", "email", "--force"], false),
            (&["x", "--resume"], false),
            (&["x", "--resume", "--group", "email", "--class", "timeout"], false),
            (&["x", "--resume", "--group", "email", "--take-over"], false),
            (&["x", "--group", "email", "--rate", "0"], false),
            (&["x", "--group", "email", "--dry-run", "--wait"], false),
        ] {
            assert_eq!(Line::try_parse_from(words).is_ok(), accepted, "{words:?}");
        }
    }

    #[test]
    fn a_run_is_of_one_group() {
        let plan = |groups: &[&str]| Plan {
            group: None,
            chosen: runs::Chosen::Ids(Vec::new()),
            counts: groups
                .iter()
                .map(|group| Count {
                    group_name: (*group).to_owned(),
                    handler: "h".to_owned(),
                    class: "panic".to_owned(),
                    letters: 1,
                })
                .collect(),
            held_back: Vec::new(),
        };
        assert_eq!(one_group(plan(&[])).unwrap().group, None);
        assert_eq!(one_group(plan(&["a", "a"])).unwrap().group.as_deref(), Some("a"));
        let refused = one_group(plan(&["b", "a"])).err().unwrap();
        assert!(
            refused.exit_code() == 2 && refused.chain().contains("a, b"),
            "{}",
            refused.chain()
        );
    }
}
