//! The plan against a sort of everybody.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn key(user: u128, score: i64, referrals: i32) -> Key {
    Key {
        score,
        referrals,
        signed_up_at: DateTime::from_timestamp(i64::try_from(user).unwrap(), 0).unwrap(),
        user: Uuid::from_u128(user),
    }
}

/// Everybody in order, as the reference ranks.
fn order(keys: &BTreeMap<Uuid, Key>, ranking: Ranking) -> Vec<Uuid> {
    let mut sorted: Vec<&Key> = keys.values().collect();
    sorted.sort_by(|one, other| one.order(other, ranking));
    sorted.into_iter().map(|key| key.user).collect()
}

/// Applies a plan to places and says where everybody is then.
fn apply(places: &[Uuid], plan: &Plan) -> BTreeMap<Uuid, i32> {
    let mut found: BTreeMap<Uuid, i32> = BTreeMap::new();
    for (user, place) in places.iter().zip(1..) {
        let moved = plan
            .shifts
            .iter()
            .filter(|shift| (shift.first..=shift.last).contains(&place));
        let by: Vec<i32> = moved.map(|shift| shift.by).collect();
        assert!(by.len() <= 1, "stretches overlap");
        assert!(by.iter().all(|by| *by != 0), "a stretch that moves nobody");
        found.insert(*user, place + by.first().unwrap_or(&0));
    }
    for (user, place) in &plan.places {
        match place {
            Some(place) => drop(found.insert(*user, *place)),
            None => drop(found.remove(user)),
        }
    }
    found
}

fn changed(old: &[Uuid], before: &BTreeMap<Uuid, Key>, user: Uuid, new: Option<Key>, ranking: Ranking) -> Changed {
    let behind = |key: &Key| {
        old.iter()
            .position(|other| key.order(&before[other], ranking) == Ordering::Less)
    };
    Changed {
        user,
        old: old
            .iter()
            .position(|other| *other == user)
            .map(|index| count(index) + 1),
        new: new.map(|key| Due {
            key,
            before: count(behind(&key).unwrap_or(old.len())) + 1,
        }),
    }
}

proptest! {
    #[test]
    fn a_plan_ends_where_ranking_everybody_would(
        scores in prop::collection::vec((-5i64..20, 0i32..4), 0..40),
        changes in prop::collection::btree_map(0u128..50, prop::option::of((-8i64..25, 0i32..5)), 0..15),
        ranking in prop::sample::select(vec![Ranking::Score, Ranking::Referrals, Ranking::Signup]),
    ) {
        let before: BTreeMap<Uuid, Key> =
            (0..).zip(&scores).map(|(user, (score, referrals))| (Uuid::from_u128(user), key(user, *score, *referrals))).collect();
        let old = order(&before, ranking);
        let mut after = before.clone();
        let mut all = Vec::new();
        for (user, change) in changes {
            let id = Uuid::from_u128(user);
            let new = change.map(|(score, referrals)| key(user, score, referrals));
            all.push(changed(&old, &before, id, new, ranking));
            match new {
                Some(new) => drop(after.insert(id, new)),
                None => drop(after.remove(&id)),
            }
        }
        let plan = plan(ranking, count(old.len()), &all);
        let expected: BTreeMap<Uuid, i32> = order(&after, ranking).into_iter().zip(1..).collect();
        prop_assert_eq!(apply(&old, &plan), expected);
    }
}

#[test]
fn one_place_up_moves_one_other_and_a_newcomer_at_the_end_nobody() {
    let up = Changed {
        user: Uuid::from_u128(3),
        old: Some(3),
        new: Some(Due {
            key: key(3, 2, 1),
            before: 2,
        }),
    };
    let plan_up = plan(Ranking::Score, 9, &[up]);
    assert_eq!(plan_up.places, [(Uuid::from_u128(3), Some(2))]);
    assert_eq!(
        plan_up.shifts,
        [Shift {
            first: 2,
            last: 2,
            by: 1
        }]
    );
    let last = Changed {
        user: Uuid::from_u128(10),
        old: None,
        new: Some(Due {
            key: key(10, 10, 0),
            before: 10,
        }),
    };
    assert_eq!(plan(Ranking::Score, 9, &[last]).shifts, []);
    let gone = Changed {
        user: Uuid::from_u128(4),
        old: Some(4),
        new: None,
    };
    assert_eq!(
        plan(Ranking::Score, 9, &[gone]).shifts,
        [Shift {
            first: 5,
            last: 9,
            by: -1
        }]
    );
}
