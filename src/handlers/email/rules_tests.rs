//! Which change wants which mail, case by case.

use super::*;
use crate::handlers::cases::{deleted, inserted, updated, updated_blindly};

const ID: &str = "00000000-0000-0000-0000-000000000007";

fn id() -> Uuid {
    Uuid::from_u128(7)
}

fn facts() -> Facts {
    Facts {
        user_id: id(),
        campaign_id: Uuid::from_u128(8),
        email: "Ann@example.org".into(),
        first_name: None,
        last_name: None,
        email_verified: false,
        marketing_consent: false,
        verification_token: Some("t1".into()),
        referral_code: "ANN".into(),
        in_standing: false,
        holds_a_place: true,
        campaign_status: "active".into(),
        campaign_deleted: false,
        verification_required: true,
        campaign_name: "Launch".into(),
        campaign_slug: "launch".into(),
        from_name: None,
        from_address: None,
        reply_to: None,
    }
}

fn first(verified: Option<bool>) -> Option<Trigger> {
    Some(Trigger::First { user: id(), verified })
}

#[test]
fn changes_ask_for_the_mails_of_their_columns() {
    let user = [
        ("id", ID),
        ("email", "a@b.c"),
        ("email_verified", "false"),
        ("first_name", "A"),
        ("updated_at", "1"),
    ];
    let touched = [
        ("id", ID),
        ("email", "a@b.c"),
        ("email_verified", "false"),
        ("first_name", "A"),
        ("updated_at", "2"),
    ];
    let renamed = [
        ("id", ID),
        ("email", "a@b.c"),
        ("email_verified", "false"),
        ("first_name", "B"),
        ("updated_at", "2"),
    ];
    let moved = [
        ("id", ID),
        ("email", "x@b.c"),
        ("email_verified", "false"),
        ("first_name", "B"),
        ("updated_at", "2"),
    ];
    let verified = [
        ("id", ID),
        ("email", "a@b.c"),
        ("email_verified", "true"),
        ("first_name", "A"),
        ("updated_at", "2"),
    ];
    let queued = [("id", ID), ("status", "queued")];
    let sent = [("id", ID), ("status", "sent")];
    for (event, expected) in [
        (inserted("waitlist_users", &user), first(Some(false))),
        (inserted("waitlist_users", &verified), first(Some(true))),
        (
            updated("waitlist_users", &user, &user),
            Some(Trigger::Verification(id())),
        ),
        (
            updated("waitlist_users", &user, &touched),
            Some(Trigger::Verification(id())),
        ),
        (updated("waitlist_users", &user, &renamed), None),
        (
            updated("waitlist_users", &user, &moved),
            Some(Trigger::Verification(id())),
        ),
        (
            updated("waitlist_users", &user, &verified),
            Some(Trigger::Welcome(id())),
        ),
        (updated("waitlist_users", &verified, &verified), None),
        (updated_blindly("waitlist_users", &verified), first(None)),
        (deleted("waitlist_users", &user), Some(Trigger::Gone(id()))),
        (inserted("email_log", &queued), Some(Trigger::Queued(id()))),
        (updated("email_log", &queued, &sent), None),
        (inserted("email_log", &sent), None),
        (inserted("rewards", &user), None),
    ] {
        assert_eq!(trigger(&event), expected, "{event:?}");
    }
}

#[test]
fn facts_decide_between_verification_and_welcome() {
    let new = Trigger::First {
        user: id(),
        verified: Some(false),
    };
    let unknown = Trigger::First {
        user: id(),
        verified: None,
    };
    let verified = Facts {
        email_verified: true,
        ..facts()
    };
    assert_eq!(kind(new, &facts()), Some(Kind::Verification));
    assert_eq!(kind(new, &verified), Some(Kind::Verification));
    assert_eq!(kind(unknown, &facts()), Some(Kind::Verification));
    assert_eq!(kind(unknown, &verified), Some(Kind::Welcome));
    assert_eq!(
        kind(
            Trigger::First {
                user: id(),
                verified: Some(true)
            },
            &facts()
        ),
        Some(Kind::Welcome)
    );
    let free = Facts {
        verification_required: false,
        ..facts()
    };
    assert_eq!(kind(new, &free), Some(Kind::Welcome));
    assert_eq!(kind(Trigger::Welcome(id()), &facts()), Some(Kind::Welcome));
    assert_eq!(kind(Trigger::Queued(id()), &facts()), None);
}

fn check_obstacle(mail: Kind, change: impl FnOnce(&mut Facts), expected: Option<&str>) {
    let mut changed = facts();
    change(&mut changed);
    assert_eq!(obstacle(mail, &changed, true), expected, "{mail:?}");
}

#[test]
fn what_changed_since_the_event_is_a_reason_not_to_send() {
    use Kind::{RewardEarned, Verification, Welcome};
    check_obstacle(Verification, |_| {}, None);
    check_obstacle(Verification, |now| now.email_verified = true, Some("already_verified"));
    check_obstacle(Verification, |now| now.verification_token = None, Some("no_token"));
    check_obstacle(
        Verification,
        |now| now.verification_token = Some(String::new()),
        Some("no_token"),
    );
    check_obstacle(
        Verification,
        |now| now.verification_required = false,
        Some("verification_not_required"),
    );
    check_obstacle(Verification, |now| now.holds_a_place = false, Some("not_in_standing"));
    check_obstacle(Verification, |now| now.campaign_status = "paused".into(), None);
    check_obstacle(
        Verification,
        |now| now.campaign_status = "draft".into(),
        Some("campaign_draft"),
    );
    check_obstacle(Welcome, |_| {}, Some("not_in_standing"));
    check_obstacle(Welcome, |now| now.in_standing = true, None);
    check_obstacle(
        RewardEarned,
        |now| now.campaign_deleted = true,
        Some("campaign_deleted"),
    );
    let completed = |now: &mut Facts| {
        now.in_standing = true;
        now.campaign_status = "completed".into();
    };
    check_obstacle(RewardEarned, completed, None);
}

#[test]
fn marketing_needs_consent_a_campaign_that_runs_and_a_way_out() {
    let agreed = |now: &mut Facts| {
        now.in_standing = true;
        now.marketing_consent = true;
    };
    for mail in [Kind::PositionUpdate, Kind::Milestone] {
        assert!(mail.is_marketing());
        check_obstacle(mail, agreed, None);
        check_obstacle(mail, |now| now.marketing_consent = true, Some("not_in_standing"));
        check_obstacle(mail, |now| now.in_standing = true, Some("no_marketing_consent"));
        for (status, expected) in [
            ("draft", Some("campaign_draft")),
            ("paused", Some("campaign_paused")),
            ("completed", None),
        ] {
            let in_status = |now: &mut Facts| {
                agreed(now);
                now.campaign_status = status.into();
            };
            check_obstacle(mail, in_status, expected);
        }
        let mut facts = facts();
        agreed(&mut facts);
        assert_eq!(obstacle(mail, &facts, false), Some("no_public_url"));
    }
    for mail in [Kind::Welcome, Kind::RewardEarned, Kind::Custom] {
        assert!(!mail.is_marketing());
        let paused = |now: &mut Facts| {
            now.in_standing = true;
            now.campaign_status = "paused".into();
        };
        check_obstacle(mail, paused, None);
    }
    assert!(!Kind::Verification.is_marketing());
}

#[test]
fn a_place_is_told_as_it_is_and_only_when_it_is_better() {
    for (old, new, now, expected) in [
        (Some(9), 7, Some(7), Some(7)),
        // Better still: told by a change of its own.
        (Some(9), 7, Some(5), Some(7)),
        (Some(9), 7, Some(8), Some(8)),
        (Some(9), 7, Some(9), None),
        (Some(9), 7, Some(20), None),
        (Some(9), 7, None, None),
        (None, 7, Some(7), Some(7)),
    ] {
        assert_eq!(told_place(old, new, now), expected, "{old:?} {new} {now:?}");
    }
}

#[test]
fn a_milestone_is_mailed_when_it_is_the_highest_and_readers_can_unsubscribe() {
    let check = |change: fn(&mut Progress), has_way_out, expected| {
        let mut progress = Progress {
            ended: false,
            outdone: false,
            campaign_status: "active".into(),
            campaign_deleted: false,
            passed_at: DateTime::UNIX_EPOCH,
            mailed_to_at: None,
            mailed_to_id: None,
        };
        change(&mut progress);
        assert_eq!(milestone_obstacle(&progress, has_way_out), expected, "{progress:?}");
    };
    check(|_| {}, true, None);
    check(|_| {}, false, Some("no_public_url"));
    check(|now| now.campaign_status = "completed".into(), true, None);
    check(|now| now.ended = true, true, Some("all_queued"));
    check(|now| now.outdone = true, true, Some("higher_milestone"));
    check(|now| now.campaign_deleted = true, true, Some("campaign_deleted"));
    check(|now| now.campaign_status = "draft".into(), true, Some("campaign_draft"));
    check(
        |now| now.campaign_status = "paused".into(),
        true,
        Some("campaign_paused"),
    );
}

#[test]
fn places_and_milestones_ask_for_mails_once_and_page_by_page() {
    let with = |event: &mut Vec<(&'static str, &'static str)>, more: &[(&'static str, &'static str)]| {
        let mut columns = event.clone();
        columns.extend(more);
        columns
    };
    let mut change = vec![("id", "#17")];
    let improved = with(&mut change, &[("cause", "improved")]);
    assert_eq!(
        trigger(&inserted("position_changes", &improved)),
        Some(Trigger::Moved(17))
    );
    let crossed = with(&mut change, &[("cause", "threshold")]);
    assert_eq!(trigger(&inserted("position_changes", &crossed)), None);
    assert_eq!(trigger(&updated("position_changes", &crossed, &improved)), None);

    let mut row = vec![("campaign_id", ID), ("milestone", "#100")];
    let passed = with(&mut row, &[("mail_pages", "#0"), ("mails_ended_at", "")]);
    let paged = with(&mut row, &[("mail_pages", "#1"), ("mails_ended_at", "")]);
    let ended = with(
        &mut row,
        &[("mail_pages", "#2"), ("mails_ended_at", "2026-01-01T00:00:00Z")],
    );
    let due = Some(Trigger::Milestone(Milestone {
        campaign: id(),
        number: 100,
    }));
    assert_eq!(trigger(&inserted("campaign_milestones", &passed)), due);
    assert_eq!(trigger(&updated("campaign_milestones", &passed, &paged)), due);
    assert_eq!(trigger(&updated("campaign_milestones", &paged, &paged)), None);
    assert_eq!(trigger(&updated("campaign_milestones", &paged, &ended)), None);
    assert_eq!(trigger(&deleted("campaign_milestones", &ended)), None);
}

#[test]
fn a_key_changes_with_address_and_token_and_shows_neither() {
    let secret = Secret::new("k");
    let key = |facts: &Facts| user_key(Kind::Verification, facts, &secret);
    let base = key(&facts());
    assert_eq!(
        base,
        key(&Facts {
            email: "ann@EXAMPLE.org".into(),
            ..facts()
        })
    );
    assert_ne!(
        base,
        key(&Facts {
            verification_token: Some("t2".into()),
            ..facts()
        })
    );
    assert_ne!(
        base,
        key(&Facts {
            email: "bob@example.org".into(),
            ..facts()
        })
    );
    assert!(!base.contains("example") && !base.contains("t1"));
    assert_eq!(user_key(Kind::Welcome, &facts(), &secret), format!("welcome:{ID}"));
}

#[test]
fn the_key_of_a_reward_mail_names_the_reward() {
    assert_eq!(reward_of_key(&reward_key(id(), 3)), Some((id(), 3)));
    assert_eq!(reward_of_key("welcome:x"), None);
    assert_eq!(reward_of_key("reward_earned:x:1"), None);
    assert_eq!(number_of_key(&format!("milestone:{ID}:1000:{ID}")), Some(1_000));
    assert_eq!(number_of_key("milestone:x:y:z"), None);
    assert_eq!(number_of_key("welcome:x"), None);
    assert_eq!(position_key(17), "position_update:17");
}

#[test]
fn a_refusal_means_what_the_server_says_and_where() {
    use AfterRefusal::{Bounced, Failed, Outage, Retry};
    for (step, code, enhanced, expected) in [
        (Step::Recipient, 450, Some((4, 2, 1)), Retry),
        (Step::Content, 451, None, Retry),
        (Step::Recipient, 550, Some((5, 1, 1)), Bounced),
        (Step::Recipient, 550, Some((5, 1, 8)), Outage),
        (Step::Recipient, 550, None, Bounced),
        (Step::Recipient, 550, Some((5, 7, 1)), Outage),
        (Step::Recipient, 552, Some((5, 2, 2)), Failed),
        (Step::Recipient, 552, None, Failed),
        (Step::Recipient, 530, None, Outage),
        (Step::Sender, 550, Some((5, 1, 0)), Outage),
        (Step::Sender, 530, Some((5, 7, 0)), Outage),
        (Step::Sender, 552, Some((5, 3, 4)), Failed),
        (Step::Content, 554, Some((5, 7, 1)), Outage),
        (Step::Content, 554, None, Failed),
        (Step::Content, 552, Some((5, 3, 4)), Failed),
        (Step::Content, 553, Some((5, 6, 7)), Failed),
    ] {
        assert_eq!(
            after_refusal(&Refusal { step, code, enhanced }),
            expected,
            "{step:?} {code} {enhanced:?}"
        );
    }
}
