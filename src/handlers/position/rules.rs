//! Where changed users belong, and what that does to everybody else: pure.
//!
//! Places are dense before and after. Whoever did not change keeps the order among all who did not, so their places move
//! in stretches: by as many as came in front of them, less those who left from there.

use std::cmp::Ordering;

use chrono::{DateTime, Utc};
use uuid::Uuid;

/// How a campaign orders its users.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ranking {
    /// By score, then by referrals.
    Score,
    /// By referrals.
    Referrals,
    /// By time of signup.
    Signup,
}

impl Ranking {
    /// The ranking a word stands for.
    pub fn of(word: &str) -> Option<Self> {
        match word {
            "score" => Some(Self::Score),
            "referrals" => Some(Self::Referrals),
            "signup" => Some(Self::Signup),
            _ => None,
        }
    }

    /// What users are ordered by, as SQL over row `p` of `waitlist_positions`; [`Key::parts`] is the same of a key.
    pub(super) fn columns(self) -> &'static str {
        match self {
            Self::Score => "p.score, -p.verified_referrals, p.signed_up_at, p.user_id",
            Self::Referrals => "0, -p.verified_referrals, p.signed_up_at, p.user_id",
            Self::Signup => "0, 0, p.signed_up_at, p.user_id",
        }
    }
}

/// The facts a user is ordered by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    /// Entry number, less what referrals are worth.
    pub score: i64,
    /// Referrals that count.
    pub referrals: i32,
    /// When.
    pub signed_up_at: DateTime<Utc>,
    /// Who.
    pub user: Uuid,
}

impl Key {
    /// What this ranking orders by, smallest first.
    pub fn parts(&self, ranking: Ranking) -> (i64, i32, DateTime<Utc>, Uuid) {
        let (score, referrals) = match ranking {
            Ranking::Score => (self.score, -self.referrals),
            Ranking::Referrals => (0, -self.referrals),
            Ranking::Signup => (0, 0),
        };
        (score, referrals, self.signed_up_at, self.user)
    }

    fn order(&self, other: &Self, ranking: Ranking) -> Ordering {
        self.parts(ranking).cmp(&other.parts(ranking))
    }
}

/// A user whose facts changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Changed {
    /// Who.
    pub user: Uuid,
    /// The place so far; `None`: had none.
    pub old: Option<i32>,
    /// The place that is due; `None`: has none any more.
    pub new: Option<Due>,
}

/// A place that is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Due {
    /// What it is due by.
    pub key: Key,
    /// The old place of the first user who belongs behind this key, by the keys everybody had so far; one more than there
    /// are places when nobody does.
    pub before: i32,
}

/// Users who did not change and whose places move by the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shift {
    /// Their first old place.
    pub first: i32,
    /// Their last old place.
    pub last: i32,
    /// By how many places; below zero is better.
    pub by: i32,
}

/// What to write.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// New places of the users who changed.
    pub places: Vec<(Uuid, Option<i32>)>,
    /// Everybody else who moves. The stretches do not overlap.
    pub shifts: Vec<Shift>,
}

/// Places changed users among `last` dense places.
pub fn plan(ranking: Ranking, last: i32, changed: &[Changed]) -> Plan {
    let mut plan = Plan::default();
    let mut left: Vec<i32> = changed.iter().filter_map(|user| user.old).collect();
    left.sort_unstable();
    let mut due: Vec<Due> = changed.iter().filter_map(|user| user.new).collect();
    due.sort_unstable_by(|one, other| one.key.order(&other.key, ranking));
    for (ahead, new) in (0..).zip(&due) {
        let left_before = count(left.partition_point(|place| *place < new.before));
        plan.places.push((new.key.user, Some(new.before - left_before + ahead)));
    }
    let gone = changed.iter().filter(|user| user.new.is_none());
    plan.places.extend(gone.map(|user| (user.user, None)));
    plan.shifts = shifts(last, &left, &due);
    plan
}

/// From which old place on how many came in front, less those who left from there.
fn shifts(last: i32, left: &[i32], due: &[Due]) -> Vec<Shift> {
    let mut steps: Vec<(i32, i32)> = left.iter().map(|place| (place + 1, -1)).collect();
    steps.extend(due.iter().map(|new| (new.before, 1)));
    steps.sort_unstable();
    let mut found = Vec::new();
    let (mut first, mut by) = (1, 0);
    let mut stretch = |mut first: i32, end: i32, by: i32| {
        if by == 0 {
            return;
        }
        // Who changed is placed apart, and stands in no stretch.
        for hole in &left[left.partition_point(|place| *place < first)..] {
            if *hole > end {
                break;
            }
            push(&mut found, first, hole - 1, by);
            first = hole + 1;
        }
        push(&mut found, first, end, by);
    };
    for (place, step) in steps {
        stretch(first, (place - 1).min(last), by);
        first = first.max(place);
        by += step;
    }
    stretch(first, last, by);
    found
}

fn push(found: &mut Vec<Shift>, first: i32, last: i32, by: i32) {
    if first <= last {
        found.push(Shift { first, last, by });
    }
}

fn count(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

#[cfg(test)]
#[path = "rules_tests.rs"]
mod tests;
