//! Dates, times of day and timestamps of Postgres, over its whole range.

use std::fmt;

use chrono::{DateTime, NaiveDate, NaiveTime, Utc};
use serde::Deserialize;
use serde::de::{Deserializer, Unexpected, Visitor};

use crate::event::calendar::{
    self, DATE_INFINITY, DATE_NEGATIVE_INFINITY, TIMESTAMP_INFINITY, TIMESTAMP_NEGATIVE_INFINITY, Unit,
};
use crate::event::typed::reader::{DATE, TIME, TIMESTAMP};

/// A date of Postgres.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Date {
    /// A day.
    Day(NaiveDate),
    /// After every day.
    Infinity,
    /// Before every day.
    NegativeInfinity,
    /// A day further away than chrono counts, as it was printed: Postgres goes to the year 5874897.
    Far(Box<str>),
}

/// A time of day of Postgres. One with a zone is sent in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Time {
    /// A time before midnight.
    At(NaiveTime),
    /// `24:00:00`. A connector that sends text prints it as `00:00:00`.
    EndOfDay,
}

/// A timestamp of Postgres, with or without a zone; without one it is taken for UTC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Timestamp {
    /// A moment.
    At(DateTime<Utc>),
    /// After every moment.
    Infinity,
    /// Before every moment.
    NegativeInfinity,
    /// A moment further away than chrono counts, as it was printed: Postgres goes to the year 294276.
    Far(Box<str>),
}

const INFINITIES: [&str; 3] = ["infinity", TIMESTAMP_INFINITY, DATE_INFINITY];
const NEGATIVE_INFINITIES: [&str; 3] = ["-infinity", TIMESTAMP_NEGATIVE_INFINITY, DATE_NEGATIVE_INFINITY];

/// Chrono counts this many years in both directions.
const YEARS_MAX: u64 = 262_000;

const NANOS_PER_SECOND: i128 = 1_000_000_000;
const NANOS_PER_DAY: i128 = 86_400 * NANOS_PER_SECOND;

/// Reads a moment: a text by a function, or nanoseconds since its beginning where the connector sends integers. The ends of
/// their range stand for the infinities.
struct MomentOf<T> {
    expected: &'static str,
    /// The two infinities, of what has them.
    infinities: Option<[T; 2]>,
    of_text: fn(&str) -> Option<T>,
    of_nanos: fn(i128) -> Option<T>,
}

impl<'de, T> Visitor<'de> for MomentOf<T> {
    type Value = T;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.expected)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, input: D) -> Result<T, D::Error> {
        input.deserialize_str(self)
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<T, E> {
        let found = match self.infinities {
            Some([infinity, _]) if INFINITIES.contains(&text) => Some(infinity),
            Some([_, negative_infinity]) if NEGATIVE_INFINITIES.contains(&text) => Some(negative_infinity),
            _ => (self.of_text)(text),
        };
        found.ok_or_else(|| E::invalid_value(Unexpected::Str(""), &self.expected))
    }

    fn visit_i128<E: serde::de::Error>(self, nanos: i128) -> Result<T, E> {
        let found = match (self.infinities, nanos) {
            (Some([infinity, _]), i128::MAX) => Some(infinity),
            (Some([_, negative_infinity]), i128::MIN) => Some(negative_infinity),
            _ => (self.of_nanos)(nanos),
        };
        found.ok_or_else(|| E::invalid_value(Unexpected::Str(""), &self.expected))
    }
}

/// A moment this many nanoseconds after 1970-01-01.
fn at(nanos: i128) -> Option<DateTime<Utc>> {
    let seconds = i64::try_from(nanos.div_euclid(NANOS_PER_SECOND)).ok()?;
    DateTime::from_timestamp(seconds, u32::try_from(nanos.rem_euclid(NANOS_PER_SECOND)).ok()?)
}

/// The text of a day or moment so far away that chrono refused it; `None` when it refused it for another reason.
fn far(text: &str) -> Option<Box<str>> {
    let unsigned = text.trim_start_matches(['+', '-']);
    let (year, rest) = unsigned.split_once('-')?;
    let is_digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let is_far = is_digits(year) && year.parse().is_ok_and(|year: u64| year > YEARS_MAX);
    // A leap year with the same days: the rest is checked by what reads every other date.
    let nearer = format!("2000-{}", rest.trim_end_matches('Z'));
    let is_date = nearer.parse::<NaiveDate>().is_ok() || format!("{nearer}Z").parse::<DateTime<Utc>>().is_ok();
    (is_far && is_date).then(|| text.into())
}

fn day(nanos: i128) -> Option<Date> {
    match at(nanos) {
        Some(moment) => Some(Date::Day(moment.date_naive())),
        None => Some(Date::Far(
            calendar::date(i64::try_from(nanos / NANOS_PER_DAY).ok()?).into(),
        )),
    }
}

fn moment(nanos: i128) -> Option<Timestamp> {
    if let Some(moment) = at(nanos) {
        return Some(Timestamp::At(moment));
    }
    let (value, unit) = match i64::try_from(nanos / 1_000) {
        Ok(micros) => (micros, Unit::Micros),
        Err(_) => (i64::try_from(nanos / 1_000_000).ok()?, Unit::Millis),
    };
    Some(Timestamp::Far(calendar::timestamp(value, unit).into()))
}

fn time(nanos: i128) -> Option<Time> {
    if nanos == NANOS_PER_DAY {
        return Some(Time::EndOfDay);
    }
    let seconds = u32::try_from(nanos.div_euclid(NANOS_PER_SECOND)).ok()?;
    let fraction = u32::try_from(nanos.rem_euclid(NANOS_PER_SECOND)).ok()?;
    NaiveTime::from_num_seconds_from_midnight_opt(seconds, fraction).map(Time::At)
}

impl<'de> Deserialize<'de> for Date {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        let moment = MomentOf {
            expected: "a date",
            infinities: Some([Self::Infinity, Self::NegativeInfinity]),
            of_text: |text| match text.strip_suffix('Z').unwrap_or(text).parse() {
                Ok(day) => Some(Self::Day(day)),
                Err(_) => far(text).map(Self::Far),
            },
            of_nanos: day,
        };
        input.deserialize_newtype_struct(DATE, moment)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        let moment = MomentOf {
            expected: "a time of day",
            infinities: None,
            of_text: |text| match text.strip_suffix('Z').unwrap_or(text) {
                "24:00:00" => Some(Self::EndOfDay),
                plain => plain.parse().ok().map(Self::At),
            },
            of_nanos: time,
        };
        input.deserialize_newtype_struct(TIME, moment)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        let moment = MomentOf {
            expected: "a timestamp",
            infinities: Some([Self::Infinity, Self::NegativeInfinity]),
            of_text: |text| match text.parse() {
                Ok(moment) => Some(Self::At(moment)),
                Err(_) => far(text).map(Self::Far),
            },
            of_nanos: moment,
        };
        input.deserialize_newtype_struct(TIMESTAMP, moment)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::modes::{Integers, Modes};
    use crate::event::row::Value;
    use crate::event::typed::one::{read, text};

    #[test]
    fn what_chrono_cannot_hold_is_kept_as_text() {
        for (printed, expected) in [
            ("+5874897-12-31Z", Some(Date::Far("+5874897-12-31Z".into()))),
            (
                "-4713-11-24Z",
                Some(Date::Day(NaiveDate::from_ymd_opt(-4713, 11, 24).unwrap())),
            ),
            ("+5877611-06-21Z", Some(Date::Infinity)),
            ("2026-02-30Z", None),
            ("+5874897-02-30Z", None),
            ("+5874897", None),
        ] {
            assert_eq!(read(Modes::default(), text(printed)).ok(), expected, "{printed}");
        }
        for (printed, expected) in [
            (
                "+294276-12-31T23:59:59.999999Z",
                Some(Timestamp::Far("+294276-12-31T23:59:59.999999Z".into())),
            ),
            ("-infinity", Some(Timestamp::NegativeInfinity)),
            ("+294276-12-31T25:00:00Z", None),
        ] {
            assert_eq!(read(Modes::default(), text(printed)).ok(), expected, "{printed}");
        }
    }

    #[test]
    fn far_integers_print_as_text_would() {
        let modes = Modes {
            dates: Integers::Days,
            timestamps: Integers::Micros,
            ..Modes::default()
        };
        let far = |text: &str| Box::<str>::from(text);
        assert_eq!(
            read(modes, Value::Int(2_145_031_948)),
            Ok(Date::Far(far("+5874868-01-01Z")))
        );
        assert_eq!(
            read(modes, Value::Int(9_223_372_036_825_199_999)),
            Ok(Timestamp::Far(far("+294247-01-10T04:00:25.199999Z")))
        );
        let millis = Modes {
            timestamps: Integers::Millis,
            ..modes
        };
        assert_eq!(
            read(millis, Value::Int(9_224_318_015_999_999)),
            Ok(Timestamp::Far(far("+294276-12-31T23:59:59.999Z")))
        );
    }

    #[test]
    fn a_time_of_day_may_be_its_end() {
        let at = |text: &str| Ok(Time::At(text.parse().unwrap()));
        assert_eq!(read(Modes::default(), text("23:59:59.5Z")), at("23:59:59.5"));
        assert_eq!(read(Modes::default(), text("24:00:00")), Ok(Time::EndOfDay));
        for (times, end) in [
            (Integers::Millis, 86_400_000),
            (Integers::Micros, 86_400_000_000),
            (Integers::Nanos, 86_400_000_000_000),
        ] {
            let modes = Modes {
                times,
                ..Modes::default()
            };
            assert_eq!(read(modes, Value::Int(end)), Ok(Time::EndOfDay));
            assert_eq!(read(modes, Value::Int(end / 2)), at("12:00:00"));
            assert!(read::<Time>(modes, Value::Int(end + 1)).is_err());
            assert!(read::<Time>(modes, Value::Int(-1)).is_err());
        }
        let problem = read::<Time>(Modes::default(), Value::Int(5)).unwrap_err();
        assert!(problem.contains("source.time_precision"), "{problem}");
    }
}
