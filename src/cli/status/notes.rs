//! What somebody has to look at, each with its remedy.

use crate::cli::output::{since, size, span};
use crate::cli::status::report::{Group, Report, State};
use crate::groups::slots::{FORGOTTEN_BYTES, PARTS_LEFT};

/// What somebody has to look at.
pub(super) fn of_group(group: &Group, name: &str, report: &Report) -> Vec<String> {
    let at = report.at;
    let mut notes: Vec<String> = of_slot(group, name, report).into_iter().collect();
    for partition in group.partitions.iter().flatten() {
        let Some(stopped) = &partition.stopped else { continue };
        let (topic, number) = (&partition.position.topic, partition.position.partition);
        notes.push(format!(
            "! {name}: {topic}[{number}] is stopped, or will be at its next start: {}\n  stop the group, then: afterwrite \
             replay --group {name} --to-offset {topic}:{number}:beginning",
            stopped.in_words()
        ));
    }
    for suspended in &group.suspended {
        notes.push(format!(
            "! {name}: {} is suspended since {} ({}): it probes and goes on by itself",
            suspended.handler,
            since(at, suspended.since),
            suspended.why
        ));
    }
    for process in group.processes.iter().filter(|process| process.state == "gone") {
        notes.push(format!(
            "! {name}: process {}:{} was not heard of for {}: it died, or is cut off from postgres",
            process.host,
            process.pid,
            since(at, process.seen_at)
        ));
    }
    for silent in &group.silent {
        notes.push(format!(
            "! {name}: {}[{}] did not answer: {}",
            silent.topic, silent.partition, silent.why
        ));
    }
    if let Some(parked) = group.jobs_parked.filter(|parked| *parked > 0) {
        notes.push(format!(
            "! {name}: {parked} jobs are parked because of lag: too much log was kept while they waited
  they are released by              themselves when their handler works: afterwrite dlq list --group {name} --state parked"
        ));
    }
    if let Some(open) = group.letters_open.filter(|open| *open > 0) {
        notes.push(format!(
            "! {name}: {open} dead letters are open: afterwrite dlq list --group {name} --state open"
        ));
    }
    notes
}

/// What is wrong with the slot of a group; what is worst, when it is more than one thing.
fn of_slot(group: &Group, name: &str, report: &Report) -> Option<String> {
    let slot = group.slot.as_ref()?;
    let (named, keeps) = (&slot.slot, size(slot.kept_bytes.unwrap_or_default()));
    let find_out = format!("find out what that was, then: afterwrite slot drop {named}");
    let since = slot
        .settled_s
        .map_or_else(String::new, |seconds| format!(" {} ago", span(seconds)));
    if !slot.is_there {
        return Some(format!(
            "! {name}: slot {named} is gone: what was written since this group settled last{since} is missed, and the group does \
             not start\n  {find_out}"
        ));
    }
    if slot.is_lost() {
        return Some(format!(
            "! {name}: slot {named} is lost: the server removed log that this group had not read (max_slot_wal_keep_size), and \
             the group does not start; it settled last{since}\n  {find_out}"
        ));
    }
    let keep_bytes_max = report.slots.as_ref().and_then(|slots| slots.keep_bytes_max);
    let is_little = |left: i64| keep_bytes_max.is_some_and(|max| left < max / PARTS_LEFT);
    if slot.wal_status.as_deref() == Some("unreserved") || slot.safe_bytes.is_some_and(is_little) {
        let left = size(slot.safe_bytes.unwrap_or_default());
        let remedy = match group.state {
            State::Stopped => "start the group, or raise",
            State::Running | State::Unknown => "see why the group is behind, and raise",
        };
        return Some(format!(
            "! {name}: slot {named} is lost when another {left} of log are written: the server keeps {keeps} for it\n  {remedy} \
             max_slot_wal_keep_size: ALTER SYSTEM SET max_slot_wal_keep_size = '…'; SELECT pg_reload_conf()"
        ));
    }
    let is_forgotten = group.state == State::Stopped && slot.kept_bytes.is_some_and(|kept| kept > FORGOTTEN_BYTES);
    is_forgotten.then(|| {
        format!(
            "! {name}: the group is stopped, and the server keeps {keeps} of log for its slot {named}\n  start it; if it never \
             runs again: afterwrite slot drop {named}"
        )
    })
}

/// What concerns all slots, and those that no group has.
pub(super) fn of_slots(report: &Report) -> Vec<String> {
    let Some(slots) = &report.slots else {
        return Vec::new();
    };
    let unlimited = slots.keep_bytes_max.is_none() && report.groups.iter().any(|group| group.slot.is_some());
    let unlimited = unlimited.then(|| {
        "! max_slot_wal_keep_size is -1: a group that is stopped fills the disk of postgres without limit\n  ALTER SYSTEM SET \
         max_slot_wal_keep_size = '…'; SELECT pg_reload_conf()"
            .to_owned()
    });
    let unknown = slots.unknown.iter().map(|slot| {
        let keeps = size(slot.kept_bytes.unwrap_or_default());
        let slot = &slot.slot;
        format!(
            "! slot {slot} is unknown to afterwrite, and the server keeps {keeps} of log for it\n  if it is not a connector's \
             either: afterwrite slot drop {slot} --unknown"
        )
    });
    unlimited.into_iter().chain(unknown).collect()
}

/// That groups are on their way to Kafka: until the end of it, log is kept for their old slots.
pub(super) fn of_graduation(report: &Report) -> Option<String> {
    let begun = report.graduation.as_ref()?;
    Some(format!(
        "! a graduation with connector {} is under way since {}, and the server keeps {} of log for the groups' slots until it \
         ends\n  afterwrite graduate {}",
        begun.connector,
        since(report.at, begun.begun_at),
        size(begun.kept_bytes),
        begun.connector
    ))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use chrono::DateTime;

    use super::*;
    use crate::groups::graduation::rows::UnderWay;
    use crate::groups::known::{Known, Letters};
    use crate::groups::slots::{Slot, Slots};

    const GB: i64 = 1 << 30;

    fn slot() -> Slot {
        Slot {
            slot: "afterwrite_email".to_owned(),
            group: Some("afterwrite.email".to_owned()),
            is_there: true,
            active_pid: None,
            wal_status: Some("reserved".to_owned()),
            lag_bytes: Some(100),
            kept_bytes: Some(100),
            safe_bytes: Some(10 * GB),
            settled_s: Some(7_260),
        }
    }

    fn report(slot: Slot, keep_bytes_max: Option<i64>, is_running: bool) -> Report {
        let at = DateTime::from_timestamp(1_782_907_200, 0).unwrap();
        let known = BTreeMap::from([("afterwrite.email".to_owned(), Known::default())]);
        let slots = Slots {
            slots: vec![slot],
            keep_bytes_max,
        };
        let mut report = Report::of(
            at,
            vec!["afterwrite.email".to_owned()],
            Some(&known),
            None,
            Some(slots),
            Vec::new(),
        );
        if is_running {
            report.groups[0].state = State::Running;
        }
        report
    }

    fn said(report: &Report) -> String {
        let mut notes = of_group(&report.groups[0], "email", report);
        notes.extend(of_slots(report));
        notes.extend(of_graduation(report));
        notes.join("\n")
    }

    #[test]
    fn a_graduation_is_a_note_until_it_ends() {
        let mut report = report(slot(), Some(10 * GB), true);
        assert_eq!(said(&report), "");
        report.graduation = Some(UnderWay {
            connector: "waitlist".to_owned(),
            begun_at: report.at - chrono::TimeDelta::minutes(3),
            kept_bytes: 3 * GB,
        });
        let said = said(&report);
        assert!(said.contains("since 3m00s") && said.contains("3.0 GB"), "{said}");
        assert!(said.ends_with("afterwrite graduate waitlist"), "{said}");
    }

    #[test]
    fn a_slot_is_a_note_when_somebody_has_to_act() {
        let healthy = slot;
        let of = |status: &str, kept_bytes, safe_bytes| Slot {
            wal_status: Some(status.to_owned()),
            kept_bytes: Some(kept_bytes),
            safe_bytes: Some(safe_bytes),
            ..slot()
        };
        let gone = Slot {
            is_there: false,
            ..slot()
        };
        let drop = "afterwrite slot drop afterwrite_email";
        for (slot, is_running, parts) in [
            (healthy(), false, &[][..]),
            (gone, false, &["is gone", "2h01m ago is missed", drop]),
            (of("lost", 0, 0), false, &["is lost: the server removed", drop]),
            (
                of("unreserved", 12 * GB, -1),
                true,
                &["another 0 B", "see why the group is behind"],
            ),
            (
                of("extended", 8 * GB + 1, 2 * GB - 1),
                false,
                &["another 1.9 GB", "start the group"],
            ),
            (of("extended", 8 * GB, 2 * GB), true, &[]),
            (
                of("extended", GB + 1, 9 * GB),
                false,
                &["keeps 1.0 GB", "start it", drop],
            ),
            (of("reserved", GB, 9 * GB), false, &[]),
            (of("extended", GB + 1, 9 * GB), true, &[]),
        ] {
            let shown = format!("{slot:?} {is_running}");
            let said = said(&report(slot, Some(10 * GB), is_running));
            assert_eq!(said.is_empty(), parts.is_empty(), "{shown}: {said}");
            for part in parts {
                assert!(said.contains(part), "{part} is not said of {shown}: {said}");
            }
        }
    }

    #[test]
    fn jobs_that_were_parked_because_of_lag_are_told_apart_from_dead_letters() {
        let letters = |class: &str, state: &str, count| Letters {
            class: class.to_owned(),
            state: state.to_owned(),
            count,
        };
        let known = Known {
            letters: vec![
                letters("parked", "parked", 3),
                letters("parked", "replaying", 2),
                letters("parked", "replayed", 90),
                letters("permanent", "open", 1),
            ],
            events_parked: 40,
            ..Known::default()
        };
        let known = BTreeMap::from([("afterwrite.email".to_owned(), known)]);
        let at = DateTime::from_timestamp(1_782_907_200, 0).unwrap();
        let names = vec!["afterwrite.email".to_owned()];
        let said = said(&Report::of(at, names, Some(&known), None, None, Vec::new()));
        for part in ["45 jobs are parked because of lag", "1 dead letters are open"] {
            assert!(said.contains(part), "{part} is not said: {said}");
        }
    }

    #[test]
    fn a_server_that_keeps_log_without_limit_is_one_note() {
        let said = said(&report(slot(), None, true));
        assert!(said.starts_with("! max_slot_wal_keep_size is -1"), "{said}");
        assert!(said.contains("ALTER SYSTEM SET max_slot_wal_keep_size"), "{said}");
    }

    #[test]
    fn a_slot_that_no_group_has_is_told_and_the_group_has_none() {
        let unknown = Slot {
            group: None,
            kept_bytes: Some(3 * GB),
            ..slot()
        };
        let report = report(unknown, Some(10 * GB), false);
        assert_eq!(report.groups[0].slot, None);
        let said = said(&report);
        for part in ["unknown to afterwrite", "3.0 GB", "drop afterwrite_email --unknown"] {
            assert!(said.contains(part), "{part}: {said}");
        }
    }

    #[test]
    fn a_group_is_behind_by_what_is_open_and_when_it_is_stopped_by_what_it_has_not_read() {
        let behind = |slot, is_running| {
            let report = report(slot, None, is_running);
            report.groups[0].lag_s
        };
        assert_eq!(behind(slot(), false), Some(7_260));
        let read_all = Slot {
            lag_bytes: Some(0),
            ..slot()
        };
        assert_eq!(behind(read_all, false), Some(0));
    }
}
