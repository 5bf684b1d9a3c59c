//! What a user should have of one reward, against what the user has: a pure comparison.

use std::collections::BTreeMap;

use uuid::Uuid;

/// What may be done in a campaign now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Phase {
    /// New rewards are given.
    pub grants: bool,
    /// Rewards taken back are given again.
    pub restores: bool,
    /// Rewards are taken back.
    pub revokes: bool,
}

impl Phase {
    /// The phase of a campaign in this state. `closing`: this is the work that its completion brought.
    pub fn of(status: &str, deleted: bool, closing: bool) -> Self {
        let (grants, restores, revokes) = match status {
            _ if deleted => (false, false, false),
            "active" => (true, true, true),
            "paused" => (false, false, true),
            "completed" => (closing, true, true),
            _ => (false, false, false),
        };
        Self {
            grants,
            restores,
            revokes,
        }
    }
}

/// A reward by number of referrals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offer {
    /// Referrals for each time.
    pub threshold: i64,
    /// How many times a user may earn it.
    pub user_limit: i64,
    /// Active, and now is within its dates.
    pub open: bool,
    /// How many are left; `None` is without limit.
    pub left: Option<i64>,
    /// A grant is held back for a while first.
    pub delayed: bool,
}

/// Who is to have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Earner {
    /// In good standing.
    pub in_standing: bool,
    /// Blocked by the application.
    pub blocked: bool,
    /// Referrals that count.
    pub credited: i64,
}

/// A row the user has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owned {
    /// Its id.
    pub id: Uuid,
    /// Which time.
    pub ordinal: i64,
    /// Its state.
    pub state: State,
    /// Referrals it needed when it was promised, for each time.
    pub promised_threshold: Option<i64>,
    /// Referrals it was counted by that are gone by deletion since.
    pub vanished: i64,
    /// Whether this handler took it back; a person's decision is not touched.
    pub revoked_by_us: bool,
    /// The delay of a held row is over.
    pub delay_over: bool,
}

/// States of `user_rewards` in which this comparison acts; all others are left alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Waits.
    Held,
    /// To be delivered.
    Earned,
    /// Delivered.
    Delivered,
    /// Taken back.
    Revoked,
    /// Redeemed, expired, failed.
    Other,
}

impl State {
    /// The state a word stands for.
    pub fn of(word: &str) -> Self {
        match word {
            "held" => Self::Held,
            "earned" => Self::Earned,
            "delivered" => Self::Delivered,
            "revoked" => Self::Revoked,
            _ => Self::Other,
        }
    }

    /// The word of a state, as stored.
    pub fn word(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::Earned => "earned",
            Self::Delivered => "delivered",
            Self::Revoked => "revoked",
            Self::Other => "other",
        }
    }
}

/// One difference between what is and what should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Make a new row.
    Grant {
        /// Which time.
        ordinal: i64,
        /// Held or earned.
        state: State,
    },
    /// Change the state of a row, if it is still in `from`.
    Move {
        /// The row.
        id: Uuid,
        /// The state it was read in.
        from: State,
        /// The state it should have.
        to: State,
    },
}

/// Compares. The steps are in the order in which stock is given: what was promised before new promises.
pub fn plan(phase: Phase, offer: &Offer, earner: &Earner, owned: &[Owned]) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut left = offer.left.unwrap_or(i64::MAX);
    let by_ordinal: BTreeMap<i64, &Owned> = owned.iter().map(|row| (row.ordinal, row)).collect();
    for row in by_ordinal.values() {
        if let Some(to) = next_state(phase, offer, earner, row, left > 0) {
            match (row.state, to) {
                (State::Revoked, _) => left = left.saturating_sub(1),
                (_, State::Revoked) => left = left.saturating_add(1),
                _ => {}
            }
            steps.push(Step::Move {
                id: row.id,
                from: row.state,
                to,
            });
        }
    }
    if !(phase.grants && offer.open && earner.in_standing) {
        return steps;
    }
    let due = (earner.credited / offer.threshold).min(offer.user_limit);
    let state = if offer.delayed { State::Held } else { State::Earned };
    for ordinal in (1..=due).filter(|ordinal| !by_ordinal.contains_key(ordinal)) {
        if left <= 0 {
            break;
        }
        left -= 1;
        steps.push(Step::Grant { ordinal, state });
    }
    steps
}

/// The state a row should change to, or `None` when it is right as it is.
fn next_state(phase: Phase, offer: &Offer, earner: &Earner, row: &Owned, in_stock: bool) -> Option<State> {
    // Who earned it under an easier rule keeps it under the harder one.
    let threshold = row.promised_threshold.unwrap_or(offer.threshold).min(offer.threshold);
    let needed = row.ordinal.saturating_mul(threshold);
    let due = earner.in_standing && earner.credited >= needed;
    match row.state {
        State::Held if due && row.delay_over && phase.grants => Some(State::Earned),
        State::Held | State::Earned if !due && phase.revokes => Some(State::Revoked),
        State::Delivered if phase.revokes => {
            // What only vanished by deletion never takes back what was delivered; nor does the leaving of its owner.
            let disproved = earner.in_standing && earner.credited + row.vanished < needed;
            (disproved || earner.blocked).then_some(State::Revoked)
        }
        State::Revoked if due && row.revoked_by_us && phase.restores && in_stock => Some(State::Earned),
        State::Held | State::Earned | State::Delivered | State::Revoked | State::Other => None,
    }
}

#[cfg(test)]
#[path = "rules_tests.rs"]
mod tests;
