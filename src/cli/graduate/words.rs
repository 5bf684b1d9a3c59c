//! Steps in words.

use crate::cli::output::{size, span};
use crate::groups::graduation::{Behind, Graduation, Step};
use crate::ledger::slots::{OpenTransaction, printed};

/// What a dry run says would be done next.
pub(super) fn would(step: &Step, begun: Option<&Graduation>) -> String {
    let of = |what: &dyn Fn(&Graduation) -> String| begun.map(what).unwrap_or_default();
    match step {
        Step::Nothing => "no group reads the write-ahead log: there is nothing to move".to_owned(),
        Step::Begin => "all is well: make the connector's slot, write down where the groups begin in Kafka, start the connector, let \
                        the groups leave the log when they can, and wait until they are started with Kafka"
            .to_owned(),
        Step::MakeSlot => of(&|begun| format!("make slot {}", begun.slot)),
        Step::WriteBeginnings => "write down where the groups begin in Kafka".to_owned(),
        Step::StartConnector => of(&|begun| format!("start connector {}", begun.connector)),
        Step::TellToLeave => "tell the groups to leave the log".to_owned(),
        Step::LetReadOn(behind) => reads_on(behind),
        Step::AwaitCut(_) | Step::AwaitParked(_) | Step::AwaitLeft(_) | Step::AwaitRead(_) => {
            of(&|begun| format!("wait: {}", waits(step, begun)))
        }
        Step::Switch => "let the groups read Kafka, and nobody the log".to_owned(),
        Step::WriteMarker | Step::Finish(_) => {
            "wait until the groups have read in Kafka what was written before they went on there, then drop their old slots".to_owned()
        }
    }
}

/// Who is waited for, what for, and what may have to be done about it.
pub(super) fn waits(step: &Step, begun: &Graduation) -> String {
    match step {
        Step::AwaitCut(behind) => {
            let cut = printed(begun.cut.unwrap_or_default());
            let each = behind.iter().map(|behind| {
                let bytes = size(i64::try_from(behind.bytes).unwrap_or(i64::MAX));
                let remedy = match behind.is_active {
                    true => String::new(),
                    false => format!(
                        ", and no process reads its slot: start it with source.kind = \"wal\"; if it never runs again: afterwrite \
                         slot drop {}",
                        behind.slot
                    ),
                };
                format!("{} has {bytes} of log to settle before {cut}{remedy}", behind.group)
            });
            each.collect::<Vec<_>>().join("\n")
        }
        Step::AwaitParked(behind) => {
            let each = behind.iter().map(|behind| {
                format!(
                    "{} holds back what follows {} dead letters, which Kafka would deliver before them: replay or discard them \
                     (afterwrite dlq list --group {} --state open); those that are parked because of lag are released by themselves",
                    behind.group, behind.parked, behind.group
                )
            });
            each.collect::<Vec<_>>().join("\n")
        }
        Step::AwaitLeft(behind) => format!("{} to end what runs and leave the log", groups(behind)),
        Step::AwaitRead(groups) => format!(
            "{} to be started: set source.kind = \"kafka\", then afterwrite run. Until then `afterwrite graduate --back` undoes all \
             of it",
            groups.join(", ")
        ),
        other => format!("{other:?}"),
    }
}

/// That groups read on, and why.
pub(super) fn reads_on(behind: &[Behind]) -> String {
    format!(
        "{} parked followers of dead letters while leaving: all groups may read the log again. Start the processes that have ended, \
         and replay or discard those letters",
        groups(behind)
    )
}

/// For which transactions the slot waits.
pub(super) fn waits_for_transactions(slot: &str, open: &[OpenTransaction]) -> String {
    let each = open.iter().map(|open| {
        let who = open.pid.map_or_else(
            || "a prepared transaction".to_owned(),
            |pid| format!("process {pid} ({})", open.application),
        );
        let since = open.open_s.map(|seconds| format!(" since {}", span(seconds)));
        format!("{who}{}", since.unwrap_or_default())
    });
    let each: Vec<String> = each.collect();
    match each.is_empty() {
        true => format!("Postgres makes slot {slot}"),
        false => format!(
            "Postgres makes slot {slot} when these transactions have ended, which are open: {}",
            each.join(", ")
        ),
    }
}

fn groups(behind: &[Behind]) -> String {
    let groups = behind.iter().map(|behind| behind.group.as_str());
    groups.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn behind(is_active: bool) -> Behind {
        Behind {
            group: "afterwrite.email".to_owned(),
            slot: "afterwrite_email".to_owned(),
            bytes: 3 << 20,
            parked: 2,
            is_active,
        }
    }

    #[test]
    fn whoever_waits_is_told_what_to_do_about_it() {
        let begun = Graduation {
            id: 1,
            connector: "waitlist".to_owned(),
            slot: "afterwrite_waitlist".to_owned(),
            cut: Some(0x1_0000_00ff),
            has_beginnings: true,
            has_connector: true,
            marker: None,
            going_back: false,
        };
        for (step, parts) in [
            (
                Step::AwaitCut(vec![behind(false)]),
                &["3.0 MB", "1/FF", "no process reads", "slot drop afterwrite_email"][..],
            ),
            (
                Step::AwaitParked(vec![behind(true)]),
                &["2 dead letters", "dlq list --group afterwrite.email"],
            ),
            (Step::AwaitLeft(vec![behind(true)]), &["afterwrite.email to end"]),
            (
                Step::AwaitRead(vec!["a".to_owned(), "b".to_owned()]),
                &["a, b", "source.kind = \"kafka\"", "--back"],
            ),
        ] {
            let said = waits(&step, &begun);
            for part in parts {
                assert!(said.contains(part), "{part} is not in {said}");
            }
        }
        assert!(!waits(&Step::AwaitCut(vec![behind(true)]), &begun).contains("slot drop"));
    }

    #[test]
    fn open_transactions_are_named() {
        let open = |pid| OpenTransaction {
            pid,
            application: "psql".to_owned(),
            open_s: Some(61),
        };
        let said = waits_for_transactions("s", &[open(Some(7)), open(None)]);
        assert!(
            said.contains("process 7 (psql) since 1m01s, a prepared transaction"),
            "{said}"
        );
    }
}
