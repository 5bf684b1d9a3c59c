//! Moving the position of a stopped group: from where to where, what that means, and the account of it. Planning is pure.
//!
//! A position only moves back by itself. Moving forward over records that nobody settled has to be asked for by name.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use sqlx::postgres::PgPool;
use sqlx::types::Json;

use crate::groups::partition::Position;
use crate::ledger::redo::{Chosen, Marked};

/// Where to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// To the oldest record that is kept, everywhere.
    Beginning,
    /// To the first record that was written at these offsets or later, one per position, in their order; nowhere forward.
    Offsets(Vec<i64>),
    /// To these places, and nowhere else.
    Places(Vec<Place>),
}

/// One partition and where to go in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The topic.
    pub topic: String,
    /// The number of the partition.
    pub partition: i32,
    /// Where to.
    pub at: At,
}

/// Where in a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum At {
    /// At the oldest record that is kept.
    Beginning,
    /// After the newest record.
    End,
    /// At this offset.
    Offset(i64),
}

/// A place could not be understood.
#[derive(Debug, thiserror::Error)]
#[error("{0} is not TOPIC:PARTITION:OFFSET, where OFFSET is a number, `beginning` or `end`")]
pub struct NoPlace(String);

impl std::str::FromStr for Place {
    type Err = NoPlace;

    fn from_str(text: &str) -> Result<Self, NoPlace> {
        let place = || {
            let (rest, at) = text.rsplit_once(':')?;
            let (topic, partition) = rest.rsplit_once(':')?;
            let at = match at {
                "beginning" => At::Beginning,
                "end" => At::End,
                number => At::Offset(number.parse().ok().filter(|offset| *offset >= 0)?),
            };
            let partition = partition.parse().ok().filter(|partition| *partition >= 0)?;
            (!topic.is_empty()).then(|| Self {
                topic: topic.to_owned(),
                partition,
                at,
            })
        };
        place().ok_or_else(|| NoPlace(text.to_owned()))
    }
}

/// One partition's move.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Move {
    /// The topic.
    pub topic: String,
    /// The number of the partition.
    pub partition: i32,
    /// Where the group stood; `None` when Kafka had lost that.
    pub from: Option<i64>,
    /// Where it stands then.
    pub to: i64,
    /// Offsets that are delivered again; where it is not known how far the group was, all that are kept from there on.
    pub again: i64,
    /// Offsets that nobody settled, and that are never delivered.
    pub passed_over: i64,
}

/// The position cannot be moved so.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The group never owned such a partition.
    #[error(
        "group {group} reads no partition {topic}[{partition}]; `afterwrite status --group {group}` lists those it reads"
    )]
    NoPartition {
        /// The group.
        group: String,
        /// The topic.
        topic: String,
        /// The number of the partition.
        partition: i32,
    },
    /// The place is outside of what the topic keeps.
    #[error("{topic}[{partition}] has no offset {offset}: it keeps {oldest} up to {end}, the end")]
    OutOfRange {
        /// The topic.
        topic: String,
        /// The number of the partition.
        partition: i32,
        /// What was asked for.
        offset: i64,
        /// The oldest record that is kept.
        oldest: i64,
        /// One past the newest.
        end: i64,
    },
    /// Records would never be delivered.
    #[error(
        "{topic}[{partition}] would move forward from {from} to {to}, over {passed_over} offsets that nobody settled and that \
         would never be delivered; --skip does it all the same"
    )]
    PassesOver {
        /// The topic.
        topic: String,
        /// The number of the partition.
        partition: i32,
        /// Where the group stands.
        from: i64,
        /// What was asked for.
        to: i64,
        /// How many.
        passed_over: i64,
    },
    /// One partition was given two places.
    #[error("{topic}[{partition}] is given twice")]
    Twice {
        /// The topic.
        topic: String,
        /// The number of the partition.
        partition: i32,
    },
}

/// What is to be moved, and how.
#[derive(Debug)]
pub struct Plan<'a> {
    /// The group.
    pub group: &'a str,
    /// Where it stands on every partition of its topics.
    pub positions: &'a [Position],
    /// Where it started on each partition it ever owned.
    pub first_offsets: &'a BTreeMap<(String, i32), Option<i64>>,
    /// Whether records that nobody settled may be passed over.
    pub skip: bool,
}

impl Plan<'_> {
    /// The moves to the target; partitions that stand there already, and those on which the group never started, are left
    /// out.
    ///
    /// # Errors
    /// When a place is not there, or would pass records over.
    pub fn moves(&self, target: &Target) -> Result<Vec<Move>, Refused> {
        let moves: Vec<Move> = match target {
            Target::Beginning => {
                let started = self.positions.iter().filter(|position| self.has_started(position));
                started.map(|position| leading(position, position.oldest)).collect()
            }
            Target::Offsets(offsets) => {
                let pairs = self.positions.iter().zip(offsets);
                let started = pairs.filter(|(position, _)| self.has_started(position));
                started
                    .map(|(position, offset)| leading(position, self.back(position, *offset)))
                    .collect()
            }
            Target::Places(places) => self.places(places)?,
        };
        let moves = moves.into_iter().filter(|leads| leads.from != Some(leads.to));
        Ok(moves.collect())
    }

    fn has_started(&self, position: &Position) -> bool {
        position.committed.is_some() || self.first_offset(position).is_some()
    }

    fn first_offset(&self, position: &Position) -> Option<i64> {
        let place = (position.topic.clone(), position.partition);
        self.first_offsets.get(&place).copied().flatten()
    }

    /// That offset, or where the group stands when that is before it. A position that is of no use is no limit.
    fn back(&self, position: &Position, offset: i64) -> i64 {
        match (position.committed, position.stopped(self.first_offset(position))) {
            (Some(committed), None) => committed.min(offset),
            _ => offset,
        }
    }

    fn places(&self, places: &[Place]) -> Result<Vec<Move>, Refused> {
        let mut seen = BTreeSet::new();
        places
            .iter()
            .map(|place| {
                let (topic, partition) = (place.topic.clone(), place.partition);
                if !seen.insert((topic.clone(), partition)) {
                    return Err(Refused::Twice { topic, partition });
                }
                self.place(place)
            })
            .collect()
    }

    fn place(&self, place: &Place) -> Result<Move, Refused> {
        let (topic, partition) = (place.topic.clone(), place.partition);
        let mut positions = self.positions.iter();
        let Some(position) = positions.find(|known| known.topic == topic && known.partition == partition) else {
            let group = self.group.to_owned();
            return Err(Refused::NoPartition {
                group,
                topic,
                partition,
            });
        };
        let to = match place.at {
            At::Beginning => position.oldest,
            At::End => position.end,
            At::Offset(offset) => offset,
        };
        if to < position.oldest || to > position.end {
            return Err(Refused::OutOfRange {
                topic,
                partition,
                offset: to,
                oldest: position.oldest,
                end: position.end,
            });
        }
        let leads = leading(position, to);
        match leads.from {
            Some(from) if leads.passed_over > 0 && !self.skip => Err(Refused::PassesOver {
                topic,
                partition,
                from,
                to,
                passed_over: leads.passed_over,
            }),
            _ => Ok(leads),
        }
    }
}

fn leading(position: &Position, to: i64) -> Move {
    // Where it is not known how far the group was, everything may have been delivered before.
    let from = position.committed.unwrap_or(position.end);
    Move {
        topic: position.topic.clone(),
        partition: position.partition,
        from: position.committed,
        to,
        again: (from.min(position.end) - to).max(0),
        passed_over: (to - from.max(position.oldest)).max(0),
    }
}

/// Who moves a group, and why.
#[derive(Debug, Clone)]
pub struct Account<'a> {
    /// The group.
    pub group: &'a str,
    /// Who does it.
    pub by: &'a str,
    /// Why, for whoever reads it later.
    pub reason: Option<&'a str>,
    /// From where to where.
    pub moves: &'a [Move],
    /// Which events are to be done again, and how many these are.
    pub redo: Option<(&'a Chosen, &'a Marked)>,
}

impl Account<'_> {
    /// Writes down that the group is about to be moved, and that it needs the whole ledger until it says otherwise; answers
    /// the number of the account.
    ///
    /// # Errors
    /// Whatever Postgres answered.
    pub async fn begin(&self, connection: &mut PgConnection) -> Result<i64, sqlx::Error> {
        let (topics, partitions): (Vec<&str>, Vec<i32>) = self
            .moves
            .iter()
            .map(|leads| (leads.topic.as_str(), leads.partition))
            .unzip();
        sqlx::query(
            "UPDATE afterwrite.claims AS claim SET frontier_day = NULL
             FROM unnest($2::text[], $3::integer[]) AS moved(topic, partition)
             WHERE claim.group_name = $1 AND claim.topic = moved.topic AND claim.partition = moved.partition",
        )
        .bind(self.group)
        .bind(&topics)
        .bind(&partitions)
        .execute(&mut *connection)
        .await?;
        let chosen = self.redo.map(|(chosen, _)| chosen);
        let marked = self.redo.map(|(_, marked)| marked.clone()).unwrap_or_default();
        sqlx::query_scalar(
            "INSERT INTO afterwrite.group_moves (group_name, moved_by, reason, positions, redo_handler, settled_from,
                 settled_until, redo_days, redo_events, redo_effects)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) RETURNING id",
        )
        .bind(self.group)
        .bind(self.by)
        .bind(self.reason)
        .bind(Json(self.moves))
        .bind(chosen.map(|chosen| &chosen.handler))
        .bind(chosen.map(|chosen| chosen.from))
        .bind(chosen.map(|chosen| chosen.until))
        .bind(&marked.days)
        .bind(marked.events)
        .bind(marked.effects)
        .fetch_one(connection)
        .await
    }
}

/// Writes down that the group was moved.
///
/// # Errors
/// Whatever Postgres answered.
pub async fn moved(pool: &PgPool, account: i64) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE afterwrite.group_moves SET state = 'moved' WHERE id = $1")
        .bind(account)
        .execute(pool)
        .await?;
    Ok(())
}

/// The moment as it is typed: RFC 3339, or a date with or without a time, which are UTC.
pub fn moment(text: &str) -> Result<DateTime<Utc>, NoMoment> {
    let date = |text: &str| {
        chrono::NaiveDate::parse_from_str(text, "%Y-%m-%d")
            .ok()?
            .and_hms_opt(0, 0, 0)
    };
    let time = |text: &str| {
        let formats = [
            "%Y-%m-%dT%H:%M:%S",
            "%Y-%m-%d %H:%M:%S",
            "%Y-%m-%dT%H:%M",
            "%Y-%m-%d %H:%M",
        ];
        let mut parsed = formats
            .iter()
            .map(|format| chrono::NaiveDateTime::parse_from_str(text, format));
        parsed.find_map(Result::ok)
    };
    match DateTime::parse_from_rfc3339(text) {
        Ok(moment) => Ok(moment.to_utc()),
        Err(_) => date(text)
            .or_else(|| time(text))
            .map(|naive| naive.and_utc())
            .ok_or_else(|| NoMoment(text.to_owned())),
    }
}

/// A moment could not be understood.
#[derive(Debug, thiserror::Error)]
#[error("{0} is no moment such as 2026-07-01T12:00:00Z, 2026-07-01 12:00 or 2026-07-01 (UTC)")]
pub struct NoMoment(String);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::groups::partition::tests::position;

    /// On a partition that keeps the offsets from 10 up to 100, as [`position`] names it.
    fn planned(committed: Option<i64>, first: Option<i64>, skip: bool, target: &Target) -> Result<Vec<Move>, Refused> {
        let positions = [position(committed, 10, 100)];
        let place = (positions[0].topic.clone(), positions[0].partition);
        let plan = Plan {
            group: "w.g",
            positions: &positions,
            first_offsets: &[(place, first)].into(),
            skip,
        };
        plan.moves(target)
    }

    fn place(at: &str) -> Target {
        Target::Places(vec![format!("w.public.t:3:{at}").parse().unwrap()])
    }

    #[test]
    fn a_position_moves_back_by_itself_and_forward_only_where_it_is_of_no_use() {
        let at = |offset| Target::Offsets(vec![offset]);
        for (committed, first, target, expected) in [
            // from, started, target: to, again, passed over
            (Some(50), Some(0), Target::Beginning, Some((10, 40, 0))),
            (Some(50), Some(0), at(30), Some((30, 20, 0))),
            (Some(50), Some(0), at(70), None),
            (Some(50), Some(0), place("50"), None),
            (Some(50), Some(0), place("beginning"), Some((10, 40, 0))),
            // Retention overtook it, the topic was made anew, the offset was lost.
            (Some(5), Some(0), Target::Beginning, Some((10, 0, 0))),
            (Some(5), Some(0), at(20), Some((20, 0, 10))),
            (Some(200), Some(0), at(20), Some((20, 80, 0))),
            (None, Some(0), at(20), Some((20, 80, 0))),
            (None, Some(0), Target::Beginning, Some((10, 90, 0))),
            // It starts by itself.
            (None, None, Target::Beginning, None),
            (None, None, at(20), None),
            (None, None, place("20"), Some((20, 80, 0))),
        ] {
            let moves = planned(committed, first, false, &target).unwrap();
            let found = moves.first().map(|leads| (leads.to, leads.again, leads.passed_over));
            assert_eq!(found, expected, "{committed:?} {first:?} {target:?}");
        }
    }

    #[test]
    fn what_is_not_there_and_what_would_lose_records_is_refused_by_name() {
        let (topic, partition) = ("w.public.t".to_owned(), 3);
        let out_of_range = |offset| Refused::OutOfRange {
            topic: topic.clone(),
            partition,
            offset,
            oldest: 10,
            end: 100,
        };
        let passes = Refused::PassesOver {
            topic: topic.clone(),
            partition,
            from: 50,
            to: 60,
            passed_over: 10,
        };
        assert_eq!(planned(Some(50), Some(0), false, &place("9")), Err(out_of_range(9)));
        assert_eq!(planned(Some(50), Some(0), false, &place("101")), Err(out_of_range(101)));
        assert_eq!(planned(Some(50), Some(0), false, &place("60")), Err(passes));
        assert_eq!(
            planned(Some(50), Some(0), true, &place("60")).unwrap()[0].passed_over,
            10
        );
        assert_eq!(planned(Some(50), Some(0), true, &place("end")).unwrap()[0].to, 100);
        let elsewhere = Target::Places(vec!["w.public.t:4:beginning".parse().unwrap()]);
        let refused = planned(Some(50), Some(0), false, &elsewhere).unwrap_err();
        assert!(refused.to_string().contains("w.public.t[4]"), "{refused}");
        let Target::Places(places) = place("20") else {
            unreachable!()
        };
        let twice = Target::Places([places.clone(), places].concat());
        assert_eq!(
            planned(Some(50), Some(0), false, &twice),
            Err(Refused::Twice { topic, partition })
        );
    }

    #[test]
    fn places_and_moments_are_read_as_they_are_typed() {
        let read: Place = "a:b:3:17".parse().unwrap();
        assert_eq!(
            (read.topic.as_str(), read.partition, read.at),
            ("a:b", 3, At::Offset(17))
        );
        for wrong in ["t:1", "t:x:1", "t:1:-1", ":1:1", "t:1:latest", "t:-1:0"] {
            assert!(wrong.parse::<Place>().is_err(), "{wrong}");
        }
        for (text, expected) in [
            ("2026-07-01T14:00:00+02:00", "2026-07-01T12:00:00Z"),
            ("2026-07-01", "2026-07-01T00:00:00Z"),
            ("2026-07-01 12:30", "2026-07-01T12:30:00Z"),
            ("2026-07-01T12:30:15", "2026-07-01T12:30:15Z"),
        ] {
            let read = moment(text).unwrap().to_rfc3339_opts(chrono::SecondsFormat::Secs, true);
            assert_eq!(read, expected);
        }
        assert!(moment("yesterday").is_err());
    }
}
