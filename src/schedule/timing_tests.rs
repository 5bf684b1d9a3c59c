//! Ticks: by example where clocks change, and by what holds for every schedule.

use proptest::prelude::{Strategy, prop, prop_oneof, proptest};
use proptest::{prop_assert, prop_assert_eq};

use super::*;

fn at(text: &str) -> DateTime<Utc> {
    DateTime::parse_from_rfc3339(text).unwrap().to_utc()
}

fn every(seconds: u64) -> Schedule {
    Schedule::every(Duration::from_secs(seconds)).unwrap()
}

fn cron(pattern: &str, zone: &str) -> Schedule {
    Schedule::cron(pattern, zone).unwrap()
}

/// All ticks after `from`, up to and with `until`, as minutes in UTC.
fn ticks(schedule: &Schedule, from: &str, until: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut tick = schedule.after(at(from));
    while let Some(next) = tick.filter(|tick| *tick <= at(until)) {
        found.push(next.format("%dT%H:%M").to_string());
        tick = schedule.after(next);
    }
    found
}

#[test]
fn where_clocks_go_forward_a_daily_time_that_does_not_exist_comes_right_after() {
    // Berlin, 29 March 2026: after 01:59 (00:59 UTC) comes 03:00 (01:00 UTC).
    let (from, until) = ("2026-03-28T00:00:00Z", "2026-03-31T00:00:00Z");
    let daily = cron("30 2 * * *", "Europe/Berlin");
    assert_eq!(ticks(&daily, from, until), ["28T01:30", "29T01:00", "30T00:30"]);
    // A pattern with several times a day has the others.
    let hourly = cron("30 1,2,3 * * *", "Europe/Berlin");
    assert_eq!(
        ticks(&hourly, "2026-03-29T00:00:00Z", "2026-03-29T12:00:00Z"),
        ["29T00:30", "29T01:30"]
    );
}

#[test]
fn where_clocks_go_back_a_daily_time_comes_once_and_an_hour_is_counted_twice() {
    // New York, 1 November 2026: 01:30 comes at 05:30 UTC and again at 06:30 UTC.
    let (from, until) = ("2026-10-31T12:00:00Z", "2026-11-02T12:00:00Z");
    let daily = cron("30 1 * * *", "America/New_York");
    assert_eq!(ticks(&daily, from, until), ["01T05:30", "02T06:30"]);
    let half_hourly = cron("*/30 * * * *", "America/New_York");
    let (from, until) = ("2026-11-01T04:45:00Z", "2026-11-01T07:15:00Z");
    assert_eq!(
        ticks(&half_hourly, from, until),
        ["01T05:00", "01T05:30", "01T06:00", "01T06:30", "01T07:00"]
    );
}

#[test]
fn names_patterns_and_intervals_are_read() {
    for (schedule, after, expected) in [
        (cron("@hourly", "UTC"), "2026-05-01T10:00:00Z", "2026-05-01T11:00:00Z"),
        (
            cron("@daily", "Asia/Kolkata"),
            "2026-05-01T10:00:00Z",
            "2026-05-01T18:30:00Z",
        ),
        (
            cron("0 9 * * MON", "UTC"),
            "2026-05-01T10:00:00Z",
            "2026-05-04T09:00:00Z",
        ),
        (
            cron("0 0 29 2 *", "UTC"),
            "2026-05-01T10:00:00Z",
            "2028-02-29T00:00:00Z",
        ),
        (every(900), "2026-05-01T10:00:00Z", "2026-05-01T10:15:00Z"),
        (every(900), "2026-05-01T10:00:00.5Z", "2026-05-01T10:15:00Z"),
    ] {
        assert_eq!(schedule.after(at(after)), Some(at(expected)), "{schedule}");
    }
    assert_eq!(every(5_400).to_string(), "every 1h30m");
    assert_eq!(every(90).zone(), None);
    assert_eq!(cron("@daily", "Asia/Kolkata").zone(), Some("Asia/Kolkata"));
}

#[test]
fn what_is_no_schedule_is_refused_with_what_is_wrong() {
    for (pattern, zone, said) in [
        ("0 9 * *", "UTC", "is no cron pattern"),
        ("0 0 9 * * *", "UTC", "is no cron pattern"),
        ("61 * * * *", "UTC", "is no cron pattern"),
        ("@fortnightly", "UTC", "is no cron pattern"),
        ("0 0 30 2 *", "UTC", "never comes"),
        ("@daily", "Berlin", "is no time zone"),
    ] {
        let error = Schedule::cron(pattern, zone).unwrap_err().to_string();
        assert!(error.contains(said), "{pattern}: {error}");
    }
    assert!(Schedule::every(Duration::from_millis(999)).is_err());
}

#[test]
fn the_first_start_runs_once_and_missed_ticks_are_caught_up_with() {
    let hourly = every(3_600);
    let now = at("2026-05-01T10:20:00Z");
    let hours = |hours: &[u32], passed_over| Due {
        ticks: hours
            .iter()
            .map(|hour| at(&format!("2026-05-01T{hour:02}:00:00Z")))
            .collect(),
        passed_over,
    };
    let each = |max| Missed::Each { max };
    let last = |hour: u32| Some(at(&format!("2026-05-01T{hour:02}:00:00Z")));
    for (known, missed, expected) in [
        (None, each(9), hours(&[10], false)),
        (None, Missed::Last, hours(&[10], false)),
        (last(10), each(9), hours(&[], false)),
        (last(9), each(9), hours(&[10], false)),
        (last(6), each(9), hours(&[7, 8, 9, 10], false)),
        (last(6), each(4), hours(&[7, 8, 9, 10], false)),
        (last(6), each(3), hours(&[8, 9, 10], true)),
        (last(6), Missed::Last, hours(&[10], true)),
        (last(9), Missed::Last, hours(&[10], false)),
        // The clock was put back.
        (last(12), each(9), hours(&[], false)),
    ] {
        assert_eq!(due(&hourly, known, now, missed), expected, "{known:?} {missed:?}");
    }
}

#[test]
fn waits_grow_to_a_limit_and_end() {
    let seconds: Vec<u64> = (1..ATTEMPTS_MAX)
        .map(|attempt| match verdict(attempt) {
            Verdict::Again(wait) => wait.as_secs(),
            Verdict::Failed => 0,
        })
        .collect();
    assert_eq!(seconds[..4], [10, 20, 40, 80]);
    assert!(
        seconds.is_sorted() && seconds.iter().all(|wait| *wait <= 3_600),
        "{seconds:?}"
    );
    assert_eq!(verdict(ATTEMPTS_MAX), Verdict::Failed);
    assert_eq!(
        [1, 2, 3].map(|attempt| wait_after_death(attempt).as_secs()),
        [0, 10, 20]
    );
}

fn schedules() -> impl Strategy<Value = Schedule> {
    let zones = [
        "UTC",
        "Europe/Berlin",
        "America/New_York",
        "Australia/Lord_Howe",
        "Asia/Kolkata",
    ];
    let patterns = [
        "*/15 * * * *",
        "@hourly",
        "@daily",
        "30 2 * * *",
        "30 1 * * *",
        "5 1,2,3 * * *",
        "0 3 * * SUN",
    ];
    let crons = (
        prop::sample::select(patterns.to_vec()),
        prop::sample::select(zones.to_vec()),
    );
    prop_oneof![
        crons.prop_map(|(pattern, zone)| cron(pattern, zone)),
        (60_u64..200_000).prop_map(every),
    ]
}

/// Moments of two years, in seconds.
const TWO_YEARS: std::ops::Range<i64> = 1_767_225_600..1_830_297_600;

proptest! {
    #[test]
    fn however_often_one_looks_the_ticks_are_the_same(
        schedule in schedules(),
        start in TWO_YEARS,
        looks in prop::collection::vec(1_i64..100_000, 1..12),
    ) {
        let moment = |seconds| DateTime::from_timestamp(seconds, 0).unwrap();
        let first = due(&schedule, None, moment(start), Missed::Last).ticks;
        let mut now = start;
        let mut known = first.clone();
        for step in looks {
            now += step;
            let max = 10_000;
            known.extend(due(&schedule, known.last().copied(), moment(now), Missed::Each { max }).ticks);
        }
        // Walked forward, tick by tick, as nobody does it who was away.
        let mut walked = first;
        while let Some(next) = schedule.after(walked[walked.len() - 1]).filter(|next| *next <= moment(now)) {
            walked.push(next);
        }
        prop_assert_eq!(&known, &walked, "{} in {:?}", schedule, schedule.zone());
    }

    #[test]
    fn before_and_after_agree(schedule in schedules(), moment in TWO_YEARS) {
        let moment = DateTime::from_timestamp(moment, 0).unwrap();
        let (last, next) = (schedule.at_or_before(moment).unwrap(), schedule.after(moment).unwrap());
        prop_assert!(last <= moment && moment < next);
        prop_assert_eq!(schedule.after(last), Some(next));
        prop_assert_eq!(schedule.before(next), Some(last));
    }
}
