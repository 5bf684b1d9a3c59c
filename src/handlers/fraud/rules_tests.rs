//! The rules of the fraud checks, case by case.

use super::*;

fn facts() -> ReferralFacts {
    ReferralFacts {
        referral_id: Uuid::from_u128(1),
        campaign_id: Uuid::from_u128(2),
        referrer_id: Uuid::from_u128(3),
        referred_id: Uuid::from_u128(4),
        created_at: DateTime::from_timestamp(1_700_000_000, 0).unwrap(),
        friend_email: "friend@example.org".into(),
        friend_ip: Some("93.184.216.34".into()),
        friend_device: Some("phone-a".into()),
        referrer_email: "referrer@example.org".into(),
        referrer_ip: Some("8.8.8.8".into()),
        referrer_device: Some("phone-b".into()),
        ip_is_safe: false,
        earlier_in_window: 0,
    }
}

fn found(facts: &ReferralFacts) -> Vec<(&'static str, Percent)> {
    check_referral(facts, &FraudSettings::default(), &Secret::new("k"))
        .into_iter()
        .map(|detection| (detection.kind, detection.confidence))
        .collect()
}

#[test]
fn strangers_are_no_evidence() {
    assert_eq!(found(&facts()), []);
}

#[test]
fn one_device_is_one_person_and_an_empty_device_is_nobody() {
    let same = Some("phone-b".to_owned());
    assert_eq!(
        found(&ReferralFacts {
            friend_device: same,
            ..facts()
        }),
        [("self_referral", 95)]
    );
    let empty = ReferralFacts {
        friend_device: Some("  ".into()),
        referrer_device: Some(" ".into()),
        ..facts()
    };
    assert_eq!(found(&empty), []);
}

#[test]
fn one_address_is_weak_evidence_and_strong_with_one_mailbox() {
    let pair = |friend: &str, referrer: &str| ReferralFacts {
        friend_ip: Some(friend.into()),
        referrer_ip: Some(referrer.into()),
        ..facts()
    };
    assert_eq!(found(&pair("8.8.8.8", "8.8.8.8")), [("self_referral", 60)]);
    assert_eq!(
        found(&pair("2a00:1450:4001:1::1", "2a00:1450:4001:1:ffff::2")),
        [("self_referral", 60)]
    );
    assert_eq!(found(&pair("2a00:1450:4001:1::1", "2a00:1450:4001:2::1")), []);
    assert_eq!(found(&pair("::ffff:8.8.8.8", "8.8.8.8")), [("self_referral", 60)]);
    for private in ["10.0.0.1", "192.168.1.1", "100.64.1.1", "fd00::1", "127.0.0.1"] {
        assert_eq!(found(&pair(private, private)), [], "{private}");
    }
    let safe = ReferralFacts {
        ip_is_safe: true,
        ..pair("8.8.8.8", "8.8.8.8")
    };
    assert_eq!(found(&safe), []);
    let one_mailbox = ReferralFacts {
        friend_email: "j.doe+2@gmail.com".into(),
        referrer_email: "JDoe@googlemail.com".into(),
        ..pair("8.8.8.8", "8.8.8.8")
    };
    assert_eq!(found(&one_mailbox), [("self_referral", 90)]);
}

#[test]
fn ten_in_an_hour_pass_and_the_eleventh_does_not() {
    assert_eq!(
        found(&ReferralFacts {
            earlier_in_window: 9,
            ..facts()
        }),
        []
    );
    assert_eq!(
        found(&ReferralFacts {
            earlier_in_window: 10,
            ..facts()
        }),
        [("velocity", 80)]
    );
}

fn user(email: &str) -> UserFacts {
    UserFacts {
        user_id: Uuid::nil(),
        campaign_id: Uuid::nil(),
        email: email.into(),
        ip: Some("93.184.216.34".into()),
        ip_is_safe: false,
        device: Some("phone".into()),
        agent: Some("Mozilla/5.0 (Windows NT 10.0; Win64; x64) Firefox/120.0".into()),
        created_at: DateTime::from_timestamp(1_700_000_000, 0).unwrap(),
    }
}

fn found_of(facts: &UserFacts, shared: Shared, settings: &FraudSettings) -> Vec<(&'static str, Percent)> {
    let found = check_user(facts, shared, settings, &Secret::new("k"));
    found
        .into_iter()
        .map(|detection| (detection.kind, detection.confidence))
        .collect()
}

#[test]
fn a_disposable_domain_is_found_by_its_registrable_parent_and_can_be_trusted() {
    let mut settings = FraudSettings::default();
    let count = |settings: &FraudSettings, email: &str| found_of(&user(email), Shared::default(), settings).len();
    assert_eq!(count(&settings, "a@mailinator.com"), 1);
    assert_eq!(count(&settings, "a@deep.sub.Mailinator.com"), 1);
    assert_eq!(count(&settings, "a@gmail.com"), 0);
    assert_eq!(count(&settings, "a@example.org"), 0);
    let check = settings.disposable_email.as_mut().unwrap();
    check.trusted_domains.insert("mailinator.com".into());
    check.more_domains.insert("example.org".into());
    assert_eq!(count(&settings, "a@mailinator.com"), 0);
    assert_eq!(count(&settings, "a@example.org"), 1);
    settings.disposable_email = None;
    assert_eq!(count(&settings, "a@example.org"), 0);
}

#[test]
fn three_behind_an_address_and_two_with_a_device_pass() {
    let mut settings = FraudSettings::default();
    let found =
        |facts: &UserFacts, ip, device, settings: &FraudSettings| found_of(facts, Shared { ip, device }, settings);
    let ann = user("a@example.org");
    assert_eq!(found(&ann, 3, 2, &settings), []);
    assert_eq!(found(&ann, 4, 2, &settings), [("duplicate_ip", 60)]);
    assert_eq!(found(&ann, 3, 3, &settings), [("duplicate_device", 85)]);
    let safe = UserFacts {
        ip_is_safe: true,
        device: Some("  ".into()),
        ..user("a@example.org")
    };
    let private = UserFacts {
        ip: Some("192.168.0.1".into()),
        device: None,
        ..user("a@example.org")
    };
    assert_eq!(found(&safe, 9, 9, &settings), []);
    assert_eq!(found(&private, 9, 9, &settings), []);
    settings.duplicate_ip.as_mut().unwrap().users_max = 9;
    settings.duplicate_device = None;
    assert_eq!(found(&ann, 9, 9, &settings), []);
}

#[test]
fn an_agent_that_says_what_it_is_is_a_bot_unless_the_check_is_off() {
    let mut settings = FraudSettings::default();
    let script = UserFacts {
        agent: Some("python-requests/2.31".into()),
        ..user("a@example.org")
    };
    assert_eq!(found_of(&script, Shared::default(), &settings), [("bot", 90)]);
    settings.bot.as_mut().unwrap().confidence = 0;
    assert_eq!(found_of(&script, Shared::default(), &settings), []);
}

#[test]
fn evidence_names_nobody() {
    let same = ReferralFacts {
        friend_device: Some("phone-b".into()),
        friend_ip: Some("8.8.8.8".into()),
        ..facts()
    };
    for detection in check_referral(&same, &FraudSettings::default(), &Secret::new("k")) {
        let text = format!("{} {}", detection.evidence_key, detection.evidence);
        for private in ["phone-b", "8.8.8.8", "example.org"] {
            assert!(!text.contains(private), "{text}");
        }
    }
}

#[test]
fn confidence_is_the_strongest_of_a_family_combined_over_families() {
    for (detections, expected) in [
        (vec![], 0),
        (vec![("ip", 60)], 6_000),
        (vec![("ip", 60), ("ip", 60)], 6_000),
        (vec![("mail", 85)], 8_500),
        (vec![("rate", 80)], 8_000),
        (vec![("ip", 60), ("mail", 85)], 9_400),
        (vec![("ip", 60), ("agent", 90)], 7_000),
        (vec![("ip", 60), ("agent", 90), ("mail", 85)], 9_940),
        (vec![("device", 100)], 9_999),
    ] {
        assert_eq!(combine(detections.clone()), expected, "{detections:?}");
    }
}
