//! The rules of rewards, case by case.

use super::*;

const ACTIVE: Phase = Phase {
    grants: true,
    restores: true,
    revokes: true,
};

fn offer() -> Offer {
    Offer {
        threshold: 3,
        user_limit: 2,
        open: true,
        left: None,
        delayed: false,
    }
}

fn earner(credited: i64) -> Earner {
    Earner {
        in_standing: true,
        blocked: false,
        credited,
    }
}

fn owned(ordinal: i64, state: State) -> Owned {
    Owned {
        id: Uuid::from_u128(ordinal.unsigned_abs().into()),
        ordinal,
        state,
        promised_threshold: Some(3),
        vanished: 0,
        revoked_by_us: true,
        delay_over: false,
    }
}

fn grant(ordinal: i64) -> Step {
    Step::Grant {
        ordinal,
        state: State::Earned,
    }
}

fn moved(ordinal: u128, from: State, to: State) -> Step {
    Step::Move {
        id: Uuid::from_u128(ordinal),
        from,
        to,
    }
}

#[test]
fn a_reward_is_due_at_each_multiple_of_the_threshold_up_to_the_limit() {
    for (credited, expected) in [
        (0, vec![]),
        (2, vec![]),
        (3, vec![grant(1)]),
        (6, vec![grant(1), grant(2)]),
        (90, vec![grant(1), grant(2)]),
    ] {
        assert_eq!(plan(ACTIVE, &offer(), &earner(credited), &[]), expected, "{credited}");
    }
}

#[test]
fn what_is_as_it_should_be_is_left_alone() {
    for state in [State::Earned, State::Delivered, State::Other] {
        assert_eq!(plan(ACTIVE, &offer(), &earner(3), &[owned(1, state)]), [], "{state:?}");
    }
}

#[test]
fn stock_is_given_to_old_promises_first_and_never_below_nothing() {
    let one_left = Offer {
        left: Some(1),
        ..offer()
    };
    assert_eq!(plan(ACTIVE, &one_left, &earner(6), &[]), [grant(1)]);
    let revoked = [owned(1, State::Revoked)];
    assert_eq!(
        plan(ACTIVE, &one_left, &earner(6), &revoked),
        [moved(1, State::Revoked, State::Earned)]
    );
    let none_left = Offer {
        left: Some(0),
        ..offer()
    };
    assert_eq!(plan(ACTIVE, &none_left, &earner(6), &revoked), []);
}

#[test]
fn a_lost_referral_takes_back_and_its_return_gives_the_same_row_again() {
    for state in [State::Held, State::Earned, State::Delivered] {
        let rows = [owned(1, state)];
        assert_eq!(
            plan(ACTIVE, &offer(), &earner(2), &rows),
            [moved(1, state, State::Revoked)],
            "{state:?}"
        );
    }
    let revoked = owned(1, State::Revoked);
    assert_eq!(
        plan(ACTIVE, &offer(), &earner(3), std::slice::from_ref(&revoked)),
        [moved(1, State::Revoked, State::Earned)]
    );
    let by_a_person = Owned {
        revoked_by_us: false,
        ..revoked
    };
    assert_eq!(plan(ACTIVE, &offer(), &earner(3), &[by_a_person]), []);
}

#[test]
fn deletion_never_takes_back_what_was_delivered() {
    let vanished = |state| Owned {
        vanished: 1,
        ..owned(1, state)
    };
    assert_eq!(plan(ACTIVE, &offer(), &earner(2), &[vanished(State::Delivered)]), []);
    assert_eq!(
        plan(ACTIVE, &offer(), &earner(1), &[vanished(State::Delivered)]),
        [moved(1, State::Delivered, State::Revoked)]
    );
    assert_eq!(
        plan(ACTIVE, &offer(), &earner(2), &[vanished(State::Earned)]),
        [moved(1, State::Earned, State::Revoked)]
    );
}

#[test]
fn who_left_keeps_what_was_delivered_and_who_was_blocked_does_not() {
    let gone = Earner {
        in_standing: false,
        ..earner(9)
    };
    let blocked = Earner { blocked: true, ..gone };
    let rows = [owned(1, State::Delivered), owned(2, State::Earned)];
    assert_eq!(
        plan(ACTIVE, &offer(), &gone, &rows),
        [moved(2, State::Earned, State::Revoked)]
    );
    let both = [
        moved(1, State::Delivered, State::Revoked),
        moved(2, State::Earned, State::Revoked),
    ];
    assert_eq!(plan(ACTIVE, &offer(), &blocked, &rows), both);
}

#[test]
fn a_harder_rule_takes_nothing_back_and_an_easier_one_gives() {
    let harder = Offer {
        threshold: 5,
        ..offer()
    };
    assert_eq!(plan(ACTIVE, &harder, &earner(3), &[owned(1, State::Earned)]), []);
    let easier = Offer {
        threshold: 1,
        ..offer()
    };
    assert_eq!(
        plan(ACTIVE, &easier, &earner(2), &[owned(1, State::Earned)]),
        [grant(2)]
    );
}

#[test]
fn a_delayed_grant_is_held_until_its_delay_is_over() {
    let delayed = Offer {
        delayed: true,
        ..offer()
    };
    let held = Step::Grant {
        ordinal: 1,
        state: State::Held,
    };
    assert_eq!(plan(ACTIVE, &delayed, &earner(3), &[]), [held]);
    assert_eq!(plan(ACTIVE, &delayed, &earner(3), &[owned(1, State::Held)]), []);
    let over = Owned {
        delay_over: true,
        ..owned(1, State::Held)
    };
    assert_eq!(
        plan(ACTIVE, &delayed, &earner(3), &[over]),
        [moved(1, State::Held, State::Earned)]
    );
}

#[test]
fn campaign_states_say_what_may_happen() {
    let flags = |status: &str, deleted, closing| {
        let phase = Phase::of(status, deleted, closing);
        (phase.grants, phase.restores, phase.revokes)
    };
    assert_eq!(flags("draft", false, false), (false, false, false));
    assert_eq!(flags("active", false, false), (true, true, true));
    assert_eq!(flags("paused", false, false), (false, false, true));
    assert_eq!(flags("completed", false, false), (false, true, true));
    assert_eq!(flags("completed", false, true), (true, true, true));
    assert_eq!(flags("active", true, false), (false, false, false));
}

#[test]
fn a_closed_reward_gives_nothing_new_and_keeps_what_was_given() {
    let closed = Offer { open: false, ..offer() };
    assert_eq!(plan(ACTIVE, &closed, &earner(6), &[owned(1, State::Earned)]), []);
}
