//! The graduation: all groups of a database go from the write-ahead log to Kafka, and lose and repeat nothing.
//!
//! The connector's slot is made first. Its place in the log is the cut: transactions that commit after it are written to Kafka.
//! A group reads the log until all before the cut is settled, then it leaves and goes on from the beginning of what the
//! connector wrote. What it settled after the cut comes again with the same ids, and is met by the ledger.
//!
//! What is to be done next follows from what is there ([`next`]), and each step can be done twice. So a graduation that ended
//! anywhere goes on where it was, and whoever asks at which step it is need not remember anything.

pub mod rows;

use serde::Serialize;

/// A place in the log.
pub type Lsn = u64;

/// How far the connector's slot is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectorSlot {
    /// There is none.
    Absent,
    /// It is being made: Postgres waits for transactions that are open.
    InTheMaking,
    /// Changes after this place go to whoever reads it.
    At(Lsn),
    /// The server removed log that it had not passed on.
    Lost,
    /// It has the name, and is not one of `pgoutput` in this database.
    Foreign,
}

/// A graduation that has begun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Graduation {
    /// Its number.
    pub id: i64,
    /// The connector that takes over.
    pub connector: String,
    /// The connector's slot.
    pub slot: String,
    /// Where that was made; `None` before it was.
    pub cut: Option<Lsn>,
    /// It is written down where the groups begin in Kafka.
    pub has_beginnings: bool,
    /// The connector runs from the cut on.
    pub has_connector: bool,
    /// What the groups have to have read in Kafka before their slots are dropped.
    pub marker: Option<Lsn>,
    /// It is being taken back.
    pub going_back: bool,
}

/// A group that has a slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Member {
    /// The group.
    pub group: String,
    /// Its slot.
    pub slot: String,
    /// It reads the log, or did so last.
    pub is_in_log: bool,
    /// It was told to leave the log.
    pub leaving: bool,
    /// A process has begun to read its source.
    pub is_read: bool,
    /// Transactions that end before this are settled.
    pub settled: Lsn,
    /// Somebody reads its slot now.
    pub is_active: bool,
    /// The server has its slot, and all the log that the group needs.
    pub is_whole: bool,
    /// Lanes whose followers wait for a dead letter.
    pub parked: i64,
}

/// What is to be done next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// No group reads the log: there is nothing to move.
    Nothing,
    /// Write down that it begins.
    Begin,
    /// Make the connector's slot.
    MakeSlot,
    /// Write down where the groups begin in Kafka.
    WriteBeginnings,
    /// Start the connector.
    StartConnector,
    /// Wait until these groups have settled all before the cut.
    AwaitCut(Vec<Behind>),
    /// Wait until these groups have no followers parked, which Kafka would deliver before their heads.
    AwaitParked(Vec<Behind>),
    /// Tell all groups to leave the log.
    TellToLeave,
    /// Let these groups read the log again: they parked followers while they left.
    LetReadOn(Vec<Behind>),
    /// Wait until nobody reads these groups' slots any more.
    AwaitLeft(Vec<Behind>),
    /// Write down that the groups read Kafka from now on.
    Switch,
    /// Wait until these groups were started with Kafka: there is no way back then.
    AwaitRead(Vec<String>),
    /// Write down what has to be read in Kafka before the slots are dropped.
    WriteMarker,
    /// Wait until it was read, drop the groups' slots, and end.
    Finish(Lsn),
}

/// A group that is waited for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Behind {
    /// The group.
    pub group: String,
    /// Its slot.
    pub slot: String,
    /// Log between what it has settled and the cut.
    pub bytes: u64,
    /// Lanes that are parked.
    pub parked: i64,
    /// Somebody reads its slot.
    pub is_active: bool,
}

/// A graduation cannot go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Changes were missed already.
    #[error(
        "slot {slot} of group {group} is gone or lost, so that changes were missed: `afterwrite status` says what to do. Then repeat \
         the command"
    )]
    Missed {
        /// The group.
        group: String,
        /// Its slot.
        slot: String,
    },
    /// What the connector had not passed on is not kept for it any more.
    #[error(
        "replication slot {slot} of connector {connector} is gone or lost, and another one would begin later: `afterwrite graduate \
         --back`, while no group has begun to read Kafka"
    )]
    SlotGone {
        /// The slot.
        slot: String,
        /// The connector.
        connector: String,
    },
    /// Its connector or its slot may be gone already.
    #[error("this graduation is being taken back: `afterwrite graduate --back` ends that, then it can begin anew")]
    GoingBack,
}

/// What is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// The graduation that has begun and not ended.
    pub begun: Option<Graduation>,
    /// The groups that have a slot.
    pub members: Vec<Member>,
    /// The slot of its connector.
    pub slot: ConnectorSlot,
}

/// What is to be done next.
///
/// # Errors
/// When a group has missed changes or the connector would, which no graduation mends; and when it is being taken back.
pub fn next(facts: &Facts) -> Result<Step, Refused> {
    let members = &facts.members;
    let in_log = || members.iter().filter(|member| member.is_in_log);
    if let Some(member) = in_log().find(|member| !member.is_whole) {
        return Err(Refused::Missed {
            group: member.group.clone(),
            slot: member.slot.clone(),
        });
    }
    let Some(graduation) = &facts.begun else {
        return Ok(match in_log().next() {
            None => Step::Nothing,
            Some(_) => Step::Begin,
        });
    };
    if graduation.going_back {
        return Err(Refused::GoingBack);
    }
    let Some(cut) = graduation.cut else {
        return Ok(Step::MakeSlot);
    };
    if !matches!(facts.slot, ConnectorSlot::At(_)) {
        return Err(Refused::SlotGone {
            slot: graduation.slot.clone(),
            connector: graduation.connector.clone(),
        });
    }
    if !graduation.has_beginnings {
        return Ok(Step::WriteBeginnings);
    }
    if !graduation.has_connector {
        return Ok(Step::StartConnector);
    }
    if in_log().next().is_some() {
        return Ok(before_the_switch(cut, &in_log().collect::<Vec<_>>()));
    }
    let unread: Vec<String> = members
        .iter()
        .filter(|member| !member.is_read)
        .map(|member| member.group.clone())
        .collect();
    Ok(match graduation.marker {
        _ if !unread.is_empty() => Step::AwaitRead(unread),
        None => Step::WriteMarker,
        Some(marker) => Step::Finish(marker),
    })
}

/// What is to be done while groups are in the log.
fn before_the_switch(cut: Lsn, in_log: &[&Member]) -> Step {
    let those = |is_meant: fn(&Member, Lsn) -> bool| -> Vec<Behind> {
        let meant = in_log.iter().filter(|member| is_meant(member, cut));
        meant.map(|member| Behind::of(member, cut)).collect()
    };
    let too_early = those(|member, cut| member.settled < cut);
    let parked = those(|member, _| member.parked > 0);
    let active = those(|member, _| member.is_active);
    // A group is told to leave only when all can; one that parks while it leaves has to read on.
    match in_log.iter().all(|member| member.leaving) {
        true if !too_early.is_empty() => Step::LetReadOn(too_early),
        true if !active.is_empty() => Step::AwaitLeft(active),
        true if !parked.is_empty() => Step::LetReadOn(parked),
        true => Step::Switch,
        false if !too_early.is_empty() => Step::AwaitCut(too_early),
        false if !parked.is_empty() => Step::AwaitParked(parked),
        false => Step::TellToLeave,
    }
}

impl Behind {
    fn of(member: &Member, cut: Lsn) -> Self {
        Self {
            group: member.group.clone(),
            slot: member.slot.clone(),
            bytes: cut.saturating_sub(member.settled),
            parked: member.parked,
            is_active: member.is_active,
        }
    }
}

/// The groups that keep a graduation from being taken back: they have begun to read Kafka.
pub fn gone_on(members: &[Member]) -> Vec<&str> {
    let gone = members.iter().filter(|member| !member.is_in_log && member.is_read);
    gone.map(|member| member.group.as_str()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CUT: Lsn = 1_000;

    fn graduation() -> Graduation {
        Graduation {
            id: 1,
            connector: "waitlist".to_owned(),
            slot: "afterwrite_waitlist".to_owned(),
            cut: Some(CUT),
            has_beginnings: true,
            has_connector: true,
            marker: None,
            going_back: false,
        }
    }

    fn facts(begun: Option<&Graduation>, members: &[Member]) -> Facts {
        Facts {
            begun: begun.cloned(),
            members: members.to_vec(),
            slot: ConnectorSlot::At(CUT),
        }
    }

    fn next_of(begun: Option<&Graduation>, members: &[Member]) -> Result<Step, Refused> {
        next(&facts(begun, members))
    }

    fn member(group: &str, settled: Lsn) -> Member {
        Member {
            group: group.to_owned(),
            slot: format!("slot_{group}"),
            is_in_log: true,
            leaving: false,
            is_read: true,
            settled,
            is_active: true,
            is_whole: true,
            parked: 0,
        }
    }

    /// The groups of a step that waits.
    fn awaited(step: Result<Step, Refused>) -> (&'static str, Vec<String>) {
        let of = |behind: Vec<Behind>| behind.into_iter().map(|behind| behind.group).collect();
        match step.unwrap() {
            Step::AwaitCut(behind) => ("cut", of(behind)),
            Step::AwaitParked(behind) => ("parked", of(behind)),
            Step::LetReadOn(behind) => ("read on", of(behind)),
            Step::AwaitLeft(behind) => ("left", of(behind)),
            Step::AwaitRead(groups) => ("read", groups),
            other => panic!("{other:?} waits for nobody"),
        }
    }

    #[test]
    fn what_comes_first_is_done_first_and_nothing_is_skipped() {
        let members = [member("a", 2_000)];
        let fresh = Graduation {
            cut: None,
            has_beginnings: false,
            has_connector: false,
            ..graduation()
        };
        let has_slot = Graduation {
            cut: Some(CUT),
            ..fresh.clone()
        };
        let has_beginnings = Graduation {
            has_beginnings: true,
            ..has_slot.clone()
        };
        for (begun, expected) in [
            (None, Step::Begin),
            (Some(&fresh), Step::MakeSlot),
            (Some(&has_slot), Step::WriteBeginnings),
            (Some(&has_beginnings), Step::StartConnector),
            (Some(&graduation()), Step::TellToLeave),
        ] {
            assert_eq!(next_of(begun, &members), Ok(expected));
        }
        assert_eq!(next_of(None, &[]), Ok(Step::Nothing));
    }

    #[test]
    fn a_group_leaves_only_after_the_cut_and_all_leave_together() {
        let begun = graduation();
        let of = |members: &[Member]| awaited(next_of(Some(&begun), members));
        let (before, after) = (member("before", CUT - 1), member("after", CUT));
        assert_eq!(of(&[before.clone(), after.clone()]), ("cut", vec!["before".to_owned()]));
        let parks = Member {
            parked: 2,
            ..after.clone()
        };
        assert_eq!(
            of(&[after.clone(), parks.clone()]),
            ("parked", vec!["after".to_owned()])
        );
        // It parked a follower in its last moments, or was moved back: it reads on.
        let leaving = |member: &Member| Member {
            leaving: true,
            ..member.clone()
        };
        assert_eq!(of(&[leaving(&before)]), ("read on", vec!["before".to_owned()]));
        assert_eq!(of(&[leaving(&parks)]), ("left", vec!["after".to_owned()]));
        let left = |member: &Member| Member {
            is_active: false,
            ..leaving(member)
        };
        assert_eq!(of(&[left(&parks)]), ("read on", vec!["after".to_owned()]));
        assert_eq!(of(&[left(&after), leaving(&after)]), ("left", vec!["after".to_owned()]));
        assert_eq!(next_of(Some(&begun), &[left(&after)]), Ok(Step::Switch));
        // A group that came later was not told yet.
        assert_eq!(next_of(Some(&begun), &[left(&after), after]), Ok(Step::TellToLeave));
    }

    #[test]
    fn slots_are_dropped_when_all_groups_have_gone_on_in_kafka() {
        let switched = |is_read| Member {
            is_in_log: false,
            is_read,
            is_active: false,
            ..member("a", 2_000)
        };
        let begun = graduation();
        assert_eq!(
            awaited(next_of(Some(&begun), &[switched(true), switched(false)])),
            ("read", vec!["a".to_owned()])
        );
        assert_eq!(next_of(Some(&begun), &[switched(true)]), Ok(Step::WriteMarker));
        let marked = Graduation {
            marker: Some(7),
            ..begun.clone()
        };
        assert_eq!(next_of(Some(&marked), &[switched(true)]), Ok(Step::Finish(7)));
        // All slots were dropped, and the end was not written down.
        assert_eq!(next_of(Some(&marked), &[]), Ok(Step::Finish(7)));
        assert_eq!(gone_on(&[switched(false), member("b", 1)]), Vec::<&str>::new());
        assert_eq!(gone_on(&[switched(true), member("b", 1)]), ["a"]);
    }

    #[test]
    fn a_group_that_missed_changes_does_not_graduate() {
        let lost = Member {
            is_whole: false,
            ..member("a", 2_000)
        };
        for begun in [None, Some(&graduation())] {
            let refused = next_of(begun, std::slice::from_ref(&lost)).unwrap_err();
            assert!(refused.to_string().contains("slot_a of group a"), "{refused}");
        }
        // Once the groups are in Kafka, the old slots are of no use any more.
        let gone = Member {
            is_in_log: false,
            ..lost
        };
        assert_eq!(next_of(Some(&graduation()), &[gone]), Ok(Step::WriteMarker));
    }

    #[test]
    fn without_the_connectors_slot_no_step_is_done() {
        let (begun, members) = (graduation(), [member("a", 2_000)]);
        for slot in [
            ConnectorSlot::Absent,
            ConnectorSlot::Lost,
            ConnectorSlot::Foreign,
            ConnectorSlot::InTheMaking,
        ] {
            let missing = Facts {
                slot,
                ..facts(Some(&begun), &members)
            };
            let refused = next(&missing).unwrap_err().to_string();
            assert!(
                refused.contains("afterwrite_waitlist") && refused.contains("--back"),
                "{refused}"
            );
        }
        // Before it was made it cannot be missed.
        let fresh = Graduation { cut: None, ..begun };
        let absent = Facts {
            slot: ConnectorSlot::Absent,
            ..facts(Some(&fresh), &members)
        };
        assert_eq!(next(&absent), Ok(Step::MakeSlot));
    }

    #[test]
    fn what_is_being_taken_back_goes_nowhere_else() {
        let back = Graduation {
            going_back: true,
            ..graduation()
        };
        for members in [&[member("a", 2_000)][..], &[]] {
            assert_eq!(next_of(Some(&back), members), Err(Refused::GoingBack));
        }
    }
}
