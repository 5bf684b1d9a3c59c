//! The rules of rewards, case by case.

use super::*;

const ACTIVE: Phase = Phase {
    grants: true,
    restores: true,
    revokes: true,
    closes: false,
};

fn offer() -> Offer {
    Offer {
        trigger: Trigger::Referrals,
        threshold: 3,
        user_limit: 2,
        open: true,
        left: None,
        delayed: false,
    }
}

fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(seconds, 0).unwrap()
}

fn placed(position: i64, referrals: i64, credited: i64) -> Earner {
    Earner {
        place: Some(Place { position, referrals }),
        ..earner(credited)
    }
}

fn by_place(trigger: Trigger) -> Offer {
    Offer { trigger, ..offer() }
}

fn earner(credited: i64) -> Earner {
    Earner {
        in_standing: true,
        blocked: false,
        credited,
        place: None,
        signed_up_at: at(100),
    }
}

fn owned(ordinal: i64, state: State) -> Owned {
    Owned {
        id: Uuid::from_u128(ordinal.unsigned_abs().into()),
        ordinal,
        state,
        promised_threshold: Some(3),
        place_referrals: None,
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
    assert!(Phase::of("completed", false, true).closes);
    assert!(!Phase::of("active", false, true).closes && !Phase::of("completed", true, true).closes);
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

#[test]
fn a_place_counts_when_it_is_reached_and_ranked_by_the_referrals_of_now() {
    let crossing = by_place(Trigger::Crossing);
    assert_eq!(plan(ACTIVE, &crossing, &placed(3, 1, 1), &[]), [grant(1)]);
    assert_eq!(plan(ACTIVE, &crossing, &placed(4, 1, 1), &[]), []);
    assert_eq!(plan(ACTIVE, &crossing, &earner(1), &[]), []);
    for credited in [0, 2] {
        assert_eq!(
            plan(ACTIVE, &crossing, &placed(3, 1, credited), &[]),
            [],
            "its ranking comes"
        );
    }
}

#[test]
fn a_place_that_counts_at_completion_counts_then_alone() {
    let completion = by_place(Trigger::Completion);
    let closing = Phase::of("completed", false, true);
    let complete = Phase::of("completed", false, false);
    assert_eq!(plan(ACTIVE, &completion, &placed(1, 0, 0), &[]), []);
    assert_eq!(plan(complete, &completion, &placed(1, 0, 0), &[]), []);
    assert_eq!(plan(closing, &completion, &placed(3, 0, 0), &[]), [grant(1)]);
    assert_eq!(plan(closing, &completion, &placed(4, 0, 0), &[]), []);
    // More referrals than the last ranking counted come too late, and fewer are a doubt that is decided later.
    assert_eq!(plan(closing, &completion, &placed(3, 1, 2), &[]), [grant(1)]);
    let held = Step::Grant {
        ordinal: 1,
        state: State::Held,
    };
    assert_eq!(plan(closing, &completion, &placed(3, 2, 1), &[]), [held]);
    let waits = Owned {
        place_referrals: Some(2),
        delay_over: true,
        ..owned(1, State::Held)
    };
    let decided = |credited| {
        plan(
            complete,
            &completion,
            &placed(3, 2, credited),
            std::slice::from_ref(&waits),
        )
    };
    assert_eq!(decided(1), [moved(1, State::Held, State::Revoked)]);
    assert_eq!(decided(2), [moved(1, State::Held, State::Earned)]);
}

#[test]
fn a_place_that_was_reached_is_kept_unless_its_referrals_are_disproved_and_it_is_lost() {
    let crossing = by_place(Trigger::Crossing);
    let has = |state| Owned {
        place_referrals: Some(2),
        ..owned(1, state)
    };
    let after = |earner: Earner, state| plan(ACTIVE, &crossing, &earner, &[has(state)]);
    assert_eq!(after(placed(90, 2, 2), State::Delivered), [], "overtaken by others");
    assert_eq!(after(placed(2, 1, 1), State::Delivered), [], "still there");
    for state in [State::Earned, State::Delivered] {
        assert_eq!(
            after(placed(90, 1, 1), state),
            [moved(1, state, State::Revoked)],
            "{state:?}"
        );
    }
    assert_eq!(
        after(placed(90, 2, 2), State::Revoked),
        [moved(1, State::Revoked, State::Earned)]
    );
    let vanished = Owned {
        vanished: 1,
        ..has(State::Delivered)
    };
    assert_eq!(plan(ACTIVE, &crossing, &placed(90, 1, 1), &[vanished]), []);
}

#[test]
fn a_milestone_rewards_whoever_was_there_and_nobody_who_came_later() {
    let milestone = |passed_at| by_place(Trigger::Milestone { passed_at });
    assert_eq!(plan(ACTIVE, &milestone(Some(at(100))), &earner(0), &[]), [grant(1)]);
    assert_eq!(plan(ACTIVE, &milestone(Some(at(99))), &earner(0), &[]), []);
    assert_eq!(plan(ACTIVE, &milestone(None), &earner(0), &[]), []);
    assert_eq!(
        plan(
            ACTIVE,
            &milestone(Some(at(100))),
            &earner(0),
            &[owned(1, State::Delivered)]
        ),
        []
    );
}

#[test]
fn what_is_held_back_is_given_also_when_the_campaign_is_complete_by_then_and_not_while_it_is_paused() {
    let delayed = Offer {
        delayed: true,
        ..offer()
    };
    let over = [owned(1, State::Held)].map(|row| Owned {
        delay_over: true,
        ..row
    });
    let in_phase = |status| plan(Phase::of(status, false, false), &delayed, &earner(3), &over);
    assert_eq!(in_phase("completed"), [moved(1, State::Held, State::Earned)]);
    assert_eq!(in_phase("paused"), []);
}

/// Every step that the rules can take, over all they may be asked.
#[test]
fn only_the_steps_of_the_states_are_taken() {
    let allowed = [
        (State::Held, State::Earned),
        (State::Held, State::Revoked),
        (State::Earned, State::Revoked),
        (State::Delivered, State::Revoked),
        (State::Revoked, State::Earned),
    ];
    let mut taken = std::collections::BTreeSet::new();
    for from in [
        State::Held,
        State::Earned,
        State::Delivered,
        State::Revoked,
        State::Other,
    ] {
        for trigger in [
            Trigger::Referrals,
            Trigger::Crossing,
            Trigger::Completion,
            Trigger::Milestone { passed_at: None },
        ] {
            for status in ["draft", "active", "paused", "completed"] {
                for bits in 0..32 {
                    let earner = Earner {
                        in_standing: bits & 1 == 0,
                        blocked: bits & 1 == 1 && bits & 2 == 2,
                        ..placed(if bits & 4 == 0 { 1 } else { 9 }, 3, if bits & 8 == 0 { 3 } else { 0 })
                    };
                    let row = Owned {
                        delay_over: bits & 16 == 0,
                        place_referrals: Some(3),
                        ..owned(1, from)
                    };
                    for step in plan(Phase::of(status, false, false), &by_place(trigger), &earner, &[row]) {
                        if let Step::Move { from, to, .. } = step {
                            assert!(allowed.contains(&(from, to)), "{from:?} to {to:?}");
                            taken.insert(format!("{from:?} {to:?}"));
                        }
                    }
                }
            }
        }
    }
    assert_eq!(taken.len(), allowed.len(), "{taken:?}");
}
