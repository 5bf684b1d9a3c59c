//! `afterwrite slot`: the replication slots of groups that read the write-ahead log themselves.
//!
//! A slot is dropped by its name only, never in passing: whoever drops it decides that its group misses what it had not read.

use clap::{Args, Subcommand};
use serde::Serialize;
use sqlx::postgres::PgPool;

use crate::cli::output::{self, Output, size, span};
use crate::cli::{Failure, database};
use crate::config::Config;
use crate::config::wal::slot_of;
use crate::groups::slots::{self, Dropped, Slot, Slots};
use crate::groups::workers;

/// Nothing is known, or there is nothing.
const NONE: &str = "-";

/// Arguments of `slot`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  afterwrite slot list                        every slot, how far it is behind, and how much log is kept for it
  afterwrite slot list --output json | jq '.slots[] | {slot, lag_bytes, kept_bytes}'
  afterwrite slot drop afterwrite_email       of a group that never runs again, or has to begin anew")]
pub struct SlotArgs {
    #[command(subcommand)]
    command: SlotCommand,
}

#[derive(Debug, Subcommand)]
enum SlotCommand {
    /// List the slots of groups, with what the server keeps for them
    List(ListArgs),
    /// Drop the slot of a group, and forget where the group stood
    Drop(DropArgs),
}

#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  afterwrite slot list

Columns: lag: log that was written and is not settled. keeps: log that the server keeps for the slot. left: log that may be
written before the slot is lost. settled: since the group kept last how far it is.

A slot that is unknown to afterwrite is called as those of groups are, and no group ever read it: it may be one of a
connector.")]
struct ListArgs {}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  afterwrite slot drop afterwrite_email       the group begins anew when it runs again, or never runs again
  afterwrite slot drop afterwrite_old --unknown

What was written between what the group settled last and its next start is missed: nobody delivers it any more.
A slot that somebody reads is refused: stop the group first. The command can be repeated: what is gone already stays gone.")]
struct DropArgs {
    /// The slot, as `afterwrite slot list` names it
    name: String,
    /// Also a slot that no group ever read; see that it is not a connector's
    #[arg(long)]
    unknown: bool,
}

#[derive(Debug, thiserror::Error)]
enum SlotFailed {
    #[error("slots could not be read from postgres; was `afterwrite migrate` run?")]
    Read(#[source] sqlx::Error),
    #[error("slot {slot} could not be dropped; may the role replicate? wal.url names one that may")]
    Drop { slot: String, source: sqlx::Error },
    #[error("where the group stood could not be forgotten; repeat the command")]
    Forget(#[source] sqlx::Error),
    #[error(
        "slot {slot} is no group's, and {beginning}… is how those of groups begin; `afterwrite slot list` shows them"
    )]
    Foreign { slot: String, beginning: String },
    #[error("no group ever read slot {slot}: it may be one of a connector. When it is not, add --unknown")]
    Unknown { slot: String },
    #[error("slot {slot} is read by process {pid} of postgres: stop the group first")]
    InUse { slot: String, pid: i32 },
    #[error("slot {slot} is read by somebody: stop the group first")]
    InUseNow { slot: String },
    #[error(
        "slot {slot} is that of group {group}, which {} runs: stop it first; a process that was killed counts as running for \
         another 30 s", .who.join(", ")
    )]
    Running {
        slot: String,
        group: String,
        who: Vec<String>,
    },
}

/// Runs a `slot` command.
///
/// # Errors
/// When Postgres fails, or the slot is not one to drop.
pub async fn run(args: &SlotArgs, config: &Config, output: Output) -> Result<(), Failure> {
    match &args.command {
        SlotCommand::List(ListArgs {}) => list(config, output).await,
        SlotCommand::Drop(args) => drop_one(args, config, output).await,
    }
}

/// How the names of groups' slots begin.
pub(super) fn beginning(config: &Config) -> String {
    slot_of(&config.group_name(""))
}

async fn list(config: &Config, output: Output) -> Result<(), Failure> {
    let pool = database::connect(config).await?;
    let read = slots::read(&pool, &beginning(config)).await;
    let found = read.map_err(SlotFailed::Read).map_err(Failure::failed)?;
    output.print(&found, in_words)
}

fn in_words(found: &Slots) -> String {
    if found.slots.is_empty() {
        return "no group ever read the write-ahead log here".to_owned();
    }
    let names = ["slot", "group", "state", "lag", "keeps", "left", "settled"];
    let table = output::table(names, found.slots.iter().map(row));
    let limit = match found.keep_bytes_max {
        Some(bytes) => format!(
            "the server keeps {} for a slot at most (max_slot_wal_keep_size)",
            size(bytes)
        ),
        None => "the server keeps log without limit (max_slot_wal_keep_size = -1)".to_owned(),
    };
    format!("{table}\n\n{limit}")
}

fn row(slot: &Slot) -> [String; 7] {
    let sized = |bytes: Option<i64>| bytes.map_or_else(|| NONE.to_owned(), size);
    [
        slot.slot.clone(),
        slot.group.clone().unwrap_or_else(|| "unknown to afterwrite".to_owned()),
        state(slot),
        sized(slot.lag_bytes),
        sized(slot.kept_bytes),
        sized(slot.safe_bytes),
        slot.settled_s.map_or_else(|| NONE.to_owned(), span),
    ]
}

fn state(slot: &Slot) -> String {
    match (slot.is_there, slot.active_pid, slot.wal_status.as_deref()) {
        (false, ..) => "gone".to_owned(),
        (true, Some(pid), _) => format!("read by {pid}"),
        (true, None, Some("reserved") | None) => "not read".to_owned(),
        (true, None, Some(status)) => status.to_owned(),
    }
}

/// What was done to a slot.
#[derive(Debug, Serialize)]
struct Done {
    slot: String,
    group: Option<String>,
    /// Whether the server had it.
    dropped: bool,
    /// Whether it was known where the group stood.
    forgotten: bool,
    /// What the server kept for it.
    kept_bytes: Option<i64>,
    /// Since the group kept last how far it was.
    settled_s: Option<i64>,
}

async fn drop_one(args: &DropArgs, config: &Config, output: Output) -> Result<(), Failure> {
    let name = &args.name;
    let pool = database::connect(config).await?;
    let beginning = beginning(config);
    let read = slots::read(&pool, &beginning).await;
    let found = read.map_err(SlotFailed::Read).map_err(Failure::failed)?;
    let slot = found.slots.into_iter().find(|slot| slot.slot == *name);
    may_be_dropped(args, slot.as_ref(), &beginning).map_err(Failure::failed)?;
    if let Some(group) = slot.as_ref().and_then(|slot| slot.group.as_deref()) {
        refuse_running(&pool, name, group).await?;
    }
    let is_there = slot.as_ref().is_some_and(|slot| slot.is_there);
    // Nobody can use a slot of which it is known where its group stands and which is not there: a command that ends here is
    // repeated, and a group that starts here refuses to.
    let dropped = match is_there {
        true => drop_on_server(config, name).await?,
        false => false,
    };
    let forgotten = slots::forget(&pool, name).await;
    let forgotten = forgotten.map_err(SlotFailed::Forget).map_err(Failure::failed)?;
    let done = Done {
        slot: name.clone(),
        group: slot.as_ref().and_then(|slot| slot.group.clone()),
        dropped,
        forgotten,
        kept_bytes: slot.as_ref().and_then(|slot| slot.kept_bytes),
        settled_s: slot.as_ref().and_then(|slot| slot.settled_s),
    };
    output.print(&done, done_in_words)
}

fn may_be_dropped(args: &DropArgs, slot: Option<&Slot>, beginning: &str) -> Result<(), SlotFailed> {
    let name = || args.name.clone();
    match slot {
        Some(Slot {
            active_pid: Some(pid), ..
        }) => Err(SlotFailed::InUse {
            slot: name(),
            pid: *pid,
        }),
        Some(Slot { group: None, .. }) if !args.unknown => Err(SlotFailed::Unknown { slot: name() }),
        None if !args.name.starts_with(beginning) => Err(SlotFailed::Foreign {
            slot: name(),
            beginning: beginning.to_owned(),
        }),
        _ => Ok(()),
    }
}

/// A group that runs reads its slot most of the time: between two sessions of it nobody does.
async fn refuse_running(pool: &PgPool, slot: &str, group: &str) -> Result<(), Failure> {
    let workers = workers::list(pool, Some(group)).await;
    let workers = workers.map_err(SlotFailed::Read).map_err(Failure::failed)?;
    let running = workers.iter().filter(|worker| worker.runs());
    let who: Vec<String> = running
        .map(|worker| format!("{}:{}", worker.host, worker.pid))
        .collect();
    match who.is_empty() {
        true => Ok(()),
        false => Err(Failure::failed(SlotFailed::Running {
            slot: slot.to_owned(),
            group: group.to_owned(),
            who,
        })),
    }
}

async fn drop_on_server(config: &Config, name: &str) -> Result<bool, Failure> {
    let pool = database::connect_to_replicate(config).await?;
    let slot = name.to_owned();
    match slots::drop_on_server(&pool, name).await {
        Ok(Dropped::Now) => Ok(true),
        Ok(Dropped::NotThere) => Ok(false),
        Ok(Dropped::InUse) => Err(Failure::failed(SlotFailed::InUseNow { slot })),
        Err(source) => Err(Failure::failed(SlotFailed::Drop { slot, source })),
    }
}

fn done_in_words(done: &Done) -> String {
    let Done { slot, dropped, .. } = done;
    let kept = done.kept_bytes.map(|bytes| format!(", with {} of log", size(bytes)));
    let first = match (dropped, done.forgotten) {
        (true, _) => format!("slot {slot} is dropped{}", kept.unwrap_or_default()),
        (false, true) => format!("slot {slot} was gone already; where its group stood is forgotten"),
        (false, false) => format!("there is no slot {slot}, and nothing is known of it: nothing to do"),
    };
    match &done.group {
        None => first,
        Some(group) => {
            let since = done.settled_s.map(|seconds| format!(" ({} ago)", span(seconds)));
            format!(
                "{first}\nwhen group {group} runs again it begins with what is written from then on; everything since what it \
                 settled last{} is missed",
                since.unwrap_or_default()
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(group: Option<&str>) -> Slot {
        Slot {
            slot: "afterwrite_email".to_owned(),
            group: group.map(str::to_owned),
            is_there: true,
            active_pid: None,
            wal_status: Some("reserved".to_owned()),
            lag_bytes: Some(5_000),
            kept_bytes: Some(3 << 30),
            safe_bytes: None,
            settled_s: Some(7_260),
        }
    }

    #[test]
    fn only_what_is_surely_a_groups_and_read_by_nobody_is_dropped() {
        let known = slot(Some("afterwrite.email"));
        let read = Slot {
            active_pid: Some(77),
            ..known.clone()
        };
        let gone = Slot {
            is_there: false,
            ..known.clone()
        };
        for (name, slot, unknown, refusal) in [
            ("afterwrite_email", Some(known.clone()), false, None),
            ("afterwrite_email", Some(gone), false, None),
            ("afterwrite_email", Some(read.clone()), false, Some("process 77")),
            ("afterwrite_email", Some(read), true, Some("process 77")),
            ("afterwrite_email", Some(slot(None)), false, Some("--unknown")),
            ("afterwrite_email", Some(slot(None)), true, None),
            ("afterwrite_email", None, false, None),
            ("debezium", None, true, Some("is no group's")),
            ("renamed", Some(known), false, None),
        ] {
            let args = DropArgs {
                name: name.to_owned(),
                unknown,
            };
            let refused = may_be_dropped(&args, slot.as_ref(), "afterwrite_").err();
            let said = refused.map(|error| error.to_string());
            assert_eq!(said.is_some(), refusal.is_some(), "{name} {slot:?}: {said:?}");
            assert!(
                said.is_none_or(|said| said.contains(refusal.unwrap_or_default())),
                "{name} {slot:?}"
            );
        }
    }

    #[test]
    fn a_slot_is_told_with_what_it_costs() {
        let lost = Slot {
            wal_status: Some("lost".to_owned()),
            kept_bytes: None,
            ..slot(None)
        };
        let gone = Slot {
            is_there: false,
            wal_status: None,
            ..slot(Some("afterwrite.email"))
        };
        let found = Slots {
            slots: vec![slot(Some("afterwrite.email")), lost, gone],
            keep_bytes_max: None,
        };
        let said = in_words(&found);
        let lines: Vec<&str> = said.lines().collect();
        for (line, parts) in [
            (1, &["afterwrite.email", "not read", "4.8 kB", "3.0 GB", "2h01m"][..]),
            (2, &["unknown to afterwrite", "lost"]),
            (3, &["gone"]),
            (5, &["without limit"]),
        ] {
            for part in parts {
                assert!(lines[line].contains(part), "{part} is not in line {line}: {said}");
            }
        }
    }

    #[test]
    fn what_is_missed_is_said() {
        let done = |group: Option<&str>, dropped, forgotten| {
            done_in_words(&Done {
                slot: "afterwrite_email".to_owned(),
                group: group.map(str::to_owned),
                dropped,
                forgotten,
                kept_bytes: Some(3 << 30),
                settled_s: Some(7_260),
            })
        };
        let email = Some("afterwrite.email");
        for (said, parts) in [
            (
                done(email, true, true),
                &["dropped, with 3.0 GB", "written from then on", "2h01m ago) is missed"][..],
            ),
            (done(email, false, true), &["gone already", "is missed"]),
            (done(None, false, false), &["nothing to do"]),
        ] {
            for part in parts {
                assert!(said.contains(part), "{part} is not in {said}");
            }
        }
    }
}
