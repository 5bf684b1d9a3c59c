//! Dates and times as Debezium prints them with `time.precision.mode=isostring`, over the whole range of Postgres.
//!
//! Years outside 0000..=9999 carry a sign, fractions have as many digits as they need, UTC is `Z`. Infinite dates and
//! timestamps are the sentinels that Debezium prints; typed access knows them. Nothing here can overflow: every
//! intermediate fits in 64 bits for every 64-bit input.

use std::fmt::Write;

/// What a timestamp of `infinity` prints as.
pub const TIMESTAMP_INFINITY: &str = "+292278994-08-16T23:00:00Z";
/// What a timestamp of `-infinity` prints as.
pub const TIMESTAMP_NEGATIVE_INFINITY: &str = "-292275055-05-16T23:00:00Z";
/// What a date of `infinity` prints as.
pub const DATE_INFINITY: &str = "+5877611-06-21Z";
/// What a date of `-infinity` prints as.
pub const DATE_NEGATIVE_INFINITY: &str = "-5877611-06-22Z";

/// Milliseconds with which the Postgres driver stands for the two infinities.
const INFINITY_MS: i64 = 9_223_372_036_825_200_000;
const NEGATIVE_INFINITY_MS: i64 = -9_223_372_036_832_400_000;

/// Days with which Debezium stands for an infinite date, as seen on the wire.
const INFINITY_DAYS: i64 = 2_146_033_979;
const NEGATIVE_INFINITY_DAYS: [i64; 2] = [-2_147_472_691, -2_147_472_692];

const SECONDS_PER_DAY: i64 = 86_400;

/// The unit of an integer time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Thousandths of a second.
    Millis,
    /// Millionths of a second.
    Micros,
    /// Billionths of a second.
    Nanos,
}

impl Unit {
    fn per_second(self) -> i64 {
        match self {
            Self::Millis => 1_000,
            Self::Micros => 1_000_000,
            Self::Nanos => 1_000_000_000,
        }
    }
}

/// `2026-12-31Z`.
pub fn date(days: i64) -> String {
    if days == INFINITY_DAYS {
        return DATE_INFINITY.to_owned();
    }
    if NEGATIVE_INFINITY_DAYS.contains(&days) {
        return DATE_NEGATIVE_INFINITY.to_owned();
    }
    let mut text = String::with_capacity(16);
    push_date(&mut text, days);
    text.push('Z');
    text
}

/// `23:59:59.5Z`. The end of the day, 24:00, prints as midnight, as Debezium does.
pub fn time_of_day(value: i64, unit: Unit) -> String {
    let mut text = String::with_capacity(20);
    let per_second = unit.per_second();
    let seconds = value.div_euclid(per_second).rem_euclid(SECONDS_PER_DAY);
    push_clock(&mut text, seconds);
    let nanos = value.rem_euclid(per_second) * (Unit::Nanos.per_second() / per_second);
    push_fraction(&mut text, nanos, None);
    text.push('Z');
    text
}

/// `2026-12-31T23:59:59.5Z`.
pub fn timestamp(value: i64, unit: Unit) -> String {
    if value == i64::MAX || (value == INFINITY_MS && unit != Unit::Nanos) {
        return TIMESTAMP_INFINITY.to_owned();
    }
    if value == i64::MIN || (value == NEGATIVE_INFINITY_MS && unit != Unit::Nanos) {
        return TIMESTAMP_NEGATIVE_INFINITY.to_owned();
    }
    let per_second = unit.per_second();
    let nanos = value.rem_euclid(per_second) * (Unit::Nanos.per_second() / per_second);
    timestamp_of(value.div_euclid(per_second), nanos, None)
}

/// The same of seconds since 1970-01-01 and nanoseconds within one; with so many digits of the fraction, or with those it
/// needs.
pub(crate) fn timestamp_of(seconds: i64, nanos: i64, digits: Option<usize>) -> String {
    let mut text = String::with_capacity(32);
    push_date(&mut text, seconds.div_euclid(SECONDS_PER_DAY));
    text.push('T');
    push_clock(&mut text, seconds.rem_euclid(SECONDS_PER_DAY));
    push_fraction(&mut text, nanos, digits);
    text.push('Z');
    text
}

fn push_date(text: &mut String, days: i64) {
    let (year, month, day) = civil(days);
    let written = match year {
        0..=9999 => write!(text, "{year:04}-{month:02}-{day:02}"),
        10_000.. => write!(text, "+{year}-{month:02}-{day:02}"),
        _ => write!(text, "-{:04}-{month:02}-{day:02}", -year),
    };
    debug_assert!(written.is_ok(), "a String takes any text");
}

fn push_clock(text: &mut String, second_of_day: i64) {
    let (hour, minute, second) = (second_of_day / 3600, second_of_day / 60 % 60, second_of_day % 60);
    let written = write!(text, "{hour:02}:{minute:02}:{second:02}");
    debug_assert!(written.is_ok(), "a String takes any text");
}

fn push_fraction(text: &mut String, nanos: i64, digits: Option<usize>) {
    let all = format!(".{nanos:09}");
    let needed = all.trim_end_matches('0');
    let shown = match digits {
        Some(count) => all.get(..=count).unwrap_or(&all),
        None => needed,
    };
    if shown.len() > 1 {
        text.push_str(shown);
    }
}

/// Year, month and day of a day count from 1970-01-01 in the proleptic Gregorian calendar; year 0 is 1 BC.
///
/// Counts in eras of 400 years that begin on the first of March, so that leap days come last.
fn civil(days: i64) -> (i64, i64, i64) {
    const DAYS_PER_ERA: i64 = 146_097;
    const DAYS_TO_EPOCH: i64 = 719_468;
    // No caller reaches this bound: the widest input is i64::MAX milliseconds, 1.1e11 days.
    let shifted = days.saturating_add(DAYS_TO_EPOCH);
    let era = shifted.div_euclid(DAYS_PER_ERA);
    let day_of_era = shifted.rem_euclid(DAYS_PER_ERA);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 {
        march_month + 3
    } else {
        march_month - 9
    };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

/// Days from 1970-01-01 to a day of the proleptic Gregorian calendar; year 0 is 1 BC. The other way round of what dates print
/// by, with the same eras; exact for every year of 32 bits.
pub(crate) fn days(year: i64, month: i64, day: i64) -> i64 {
    const DAYS_PER_ERA: i64 = 146_097;
    const DAYS_TO_EPOCH: i64 = 719_468;
    let from_march = if month > 2 { year } else { year - 1 };
    let year_of_era = from_march.rem_euclid(400);
    let march_month = (month + 9) % 12;
    let day_of_year = (153 * march_month + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    from_march.div_euclid(400) * DAYS_PER_ERA + day_of_era - DAYS_TO_EPOCH
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_print_over_the_whole_range() {
        for (days, expected) in [
            (0, "1970-01-01Z"),
            (20_579, "2026-05-06Z"),
            (10_956, "1999-12-31Z"),
            (-735_160, "-0043-03-15Z"),
            (2_932_896, "9999-12-31Z"),
            (2_932_897, "+10000-01-01Z"),
            (11_016, "2000-02-29Z"),
            (INFINITY_DAYS, DATE_INFINITY),
            (-2_147_472_691, DATE_NEGATIVE_INFINITY),
        ] {
            assert_eq!(date(days), expected);
        }
    }

    #[test]
    fn days_are_counted_as_they_are_printed() {
        for count in (-3_000_000..3_000_000).step_by(61) {
            let (year, month, day) = civil(count);
            assert_eq!(days(year, month, day), count);
        }
    }

    #[test]
    fn the_sentinels_of_infinity_are_what_plain_conversion_prints() {
        let mut infinity = String::new();
        push_date(&mut infinity, INFINITY_DAYS);
        assert_eq!(infinity + "Z", DATE_INFINITY);
        let mut negative = String::new();
        push_date(&mut negative, NEGATIVE_INFINITY_DAYS[0]);
        assert_eq!(negative + "Z", DATE_NEGATIVE_INFINITY);
    }

    #[test]
    fn timestamps_print_with_the_digits_they_need() {
        for (value, unit, expected) in [
            (1_778_029_323_456_789, Unit::Micros, "2026-05-06T01:02:03.456789Z"),
            (1_778_029_323_500_000, Unit::Micros, "2026-05-06T01:02:03.5Z"),
            (1_778_029_323_000, Unit::Millis, "2026-05-06T01:02:03Z"),
            (-1, Unit::Nanos, "1969-12-31T23:59:59.999999999Z"),
            (-62_135_596_800_000_000, Unit::Micros, "0001-01-01T00:00:00Z"),
            (i64::MAX, Unit::Micros, TIMESTAMP_INFINITY),
            (i64::MIN, Unit::Micros, TIMESTAMP_NEGATIVE_INFINITY),
            (INFINITY_MS, Unit::Millis, TIMESTAMP_INFINITY),
            (INFINITY_MS, Unit::Micros, TIMESTAMP_INFINITY),
            (NEGATIVE_INFINITY_MS, Unit::Micros, TIMESTAMP_NEGATIVE_INFINITY),
        ] {
            assert_eq!(timestamp(value, unit), expected);
        }
    }

    #[test]
    fn times_of_day_print_and_the_end_of_the_day_is_midnight() {
        for (value, expected) in [
            (3_723_456_789, "01:02:03.456789Z"),
            (86_399_999_000, "23:59:59.999Z"),
            (86_400_000_000, "00:00:00Z"),
        ] {
            assert_eq!(time_of_day(value, Unit::Micros), expected);
        }
    }

    #[test]
    fn no_integer_overflows() {
        for value in [i64::MIN, i64::MIN + 1, -1, 0, 1, i64::MAX - 1, i64::MAX] {
            for unit in [Unit::Millis, Unit::Micros, Unit::Nanos] {
                assert!(timestamp(value, unit).ends_with('Z'));
                assert!(time_of_day(value, unit).ends_with('Z'));
            }
            assert!(date(value).ends_with('Z'));
        }
    }
}
