//! Decimals and intervals of Postgres.

use std::fmt;

use bigdecimal::BigDecimal;
use serde::Deserialize;
use serde::de::{Deserializer, Unexpected, Visitor};

use crate::event::typed::reader::{DECIMAL, INTERVAL};

/// A `numeric` of Postgres, with as many digits as it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decimal {
    /// A number; its scale is the one that was sent.
    Number(BigDecimal),
    /// Not a number.
    NaN,
    /// Above every number.
    Infinity,
    /// Below every number.
    NegativeInfinity,
}

impl Decimal {
    fn of_text(text: &str) -> Option<Self> {
        Some(match text {
            "NAN" | "NaN" => Self::NaN,
            "POSITIVE_INFINITY" | "Infinity" => Self::Infinity,
            "NEGATIVE_INFINITY" | "-Infinity" => Self::NegativeInfinity,
            _ => Self::Number(text.parse().ok()?),
        })
    }
}

struct DecimalVisitor;

impl<'de> Visitor<'de> for DecimalVisitor {
    type Value = Decimal;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a decimal")
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, input: D) -> Result<Decimal, D::Error> {
        input.deserialize_any(self)
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Decimal, E> {
        Decimal::of_text(text).ok_or_else(|| E::invalid_value(Unexpected::Str(""), &self))
    }

    fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<Decimal, E> {
        Ok(Decimal::Number(number.into()))
    }

    /// The shortest digits that stand for the number, which are those that the connector printed.
    fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<Decimal, E> {
        self.visit_str(&number.to_string())
    }
}

impl<'de> Deserialize<'de> for Decimal {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        input.deserialize_newtype_struct(DECIMAL, DecimalVisitor)
    }
}

/// An `interval` of Postgres.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interval {
    /// Its three parts as Postgres keeps them: how long a month or a day is depends on where one begins.
    Parts {
        /// Months; twelve are a year.
        months: i32,
        /// Days.
        days: i32,
        /// Microseconds.
        micros: i64,
    },
    /// What a connector with `interval.handling.mode=numeric` makes of it: months and days are turned into microseconds, a
    /// month being a twelfth of 365.25 days.
    Micros(i64),
}

impl Interval {
    /// `P1Y2M3DT4H5M6.78S`; every part may be left out and has a sign of its own.
    fn of_text(text: &str) -> Option<Self> {
        let (date, time) = text.strip_prefix('P')?.split_once('T').unwrap_or((&text[1..], ""));
        let [years, months, days] = parts(date, ['Y', 'M', 'D'])?;
        let [hours, minutes, seconds] = parts(time, ['H', 'M', 'S'])?;
        let whole = |part: &str| part.parse::<i64>().ok();
        let months = whole(years)?.checked_mul(12)?.checked_add(whole(months)?)?;
        let minutes = whole(hours)?.checked_mul(60)?.checked_add(whole(minutes)?)?;
        Some(Self::Parts {
            months: months.try_into().ok()?,
            days: whole(days)?.try_into().ok()?,
            micros: minutes.checked_mul(60_000_000)?.checked_add(micros(seconds)?)?,
        })
    }
}

/// The numbers in front of these letters, in this order; `0` where a letter is not there.
fn parts(text: &str, letters: [char; 3]) -> Option<[&str; 3]> {
    let mut rest = text;
    let found = letters.map(|letter| match rest.split_once(letter) {
        Some((number, after)) => {
            rest = after;
            number
        }
        None => "0",
    });
    rest.is_empty().then_some(found)
}

/// Microseconds of seconds with up to six digits behind the point.
fn micros(seconds: &str) -> Option<i64> {
    let (whole, fraction) = seconds.split_once('.').unwrap_or((seconds, ""));
    let is_fraction = fraction.len() <= 6 && fraction.bytes().all(|byte| byte.is_ascii_digit());
    let sign = if whole.starts_with('-') { -1 } else { 1 };
    let fraction: i64 = format!("{fraction:0<6}").parse().ok()?;
    let whole = whole.parse::<i64>().ok()?.checked_mul(1_000_000)?;
    is_fraction.then_some(whole.checked_add(sign * fraction)?)
}

struct IntervalVisitor;

impl<'de> Visitor<'de> for IntervalVisitor {
    type Value = Interval;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("an interval")
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, input: D) -> Result<Interval, D::Error> {
        input.deserialize_any(self)
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Interval, E> {
        Interval::of_text(text).ok_or_else(|| E::invalid_value(Unexpected::Str(""), &self))
    }

    fn visit_i64<E: serde::de::Error>(self, micros: i64) -> Result<Interval, E> {
        Ok(Interval::Micros(micros))
    }
}

impl<'de> Deserialize<'de> for Interval {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        input.deserialize_newtype_struct(INTERVAL, IntervalVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::modes::{Decimals, Intervals, Modes};
    use crate::event::row::Value;
    use crate::event::typed::one::{read, text};

    fn number(digits: &str) -> Decimal {
        Decimal::Number(digits.parse().unwrap())
    }

    #[test]
    fn decimals_keep_every_digit_and_their_special_values() {
        let long = format!("{}.{}", "9".repeat(200), "1".repeat(200));
        for (sent, expected) in [
            (text("1.10"), number("1.10")),
            (text(&long), number(&long)),
            (text("NAN"), Decimal::NaN),
            (text("POSITIVE_INFINITY"), Decimal::Infinity),
            (text("NEGATIVE_INFINITY"), Decimal::NegativeInfinity),
            (Value::Int(-7), number("-7")),
            (Value::Float(12.3), number("12.3")),
        ] {
            assert_eq!(read(Modes::default(), sent), Ok(expected));
        }
        let Ok(Decimal::Number(kept)) = read(Modes::default(), text("1.10")) else {
            panic!("no number")
        };
        assert_eq!(kept.to_string(), "1.10");
        let problem = read::<Decimal>(Modes::default(), text("secret")).unwrap_err();
        assert_eq!(problem, "column a holds something that is not a decimal");
    }

    #[test]
    fn a_decimal_that_contradicts_the_connectors_mode_is_refused() {
        let modes = |decimals| Modes {
            decimals,
            ..Modes::default()
        };
        for (decimals, sent, expected) in [
            (Decimals::Lost, text("1234"), "whose scale is lost"),
            (Decimals::Text, Value::Float(1.5), "source.decimal=string promises text"),
        ] {
            let problem = read::<Decimal>(modes(decimals), sent).unwrap_err();
            assert!(problem.contains(expected) && problem.contains("column a"), "{problem}");
        }
        assert_eq!(
            read(modes(Decimals::Lost), Value::Int(5)),
            Ok(number("5")),
            "an integer column"
        );
    }

    #[test]
    fn intervals_keep_their_parts() {
        let parts = |months, days, micros| Ok(Interval::Parts { months, days, micros });
        for (sent, expected) in [
            ("P1Y2M3DT4H5M6.78S", parts(14, 3, 14_706_780_000)),
            ("P-1Y0M3DT0H0M-0.000001S", parts(-12, 3, -1)),
            ("P0Y0M0DT0H0M0S", parts(0, 0, 0)),
            ("P178000000Y0M0DT0H0M0.0S", parts(2_136_000_000, 0, 0)),
            ("PT1.5S", parts(0, 0, 1_500_000)),
            ("P3D", parts(0, 3, 0)),
        ] {
            assert_eq!(read(Modes::default(), text(sent)), expected, "{sent}");
        }
        for sent in [
            "",
            "P1",
            "1Y",
            "P1D2Y",
            "PT1.1234567S",
            "PT1.-5S",
            "P999999999999Y",
            "P1.5Y",
        ] {
            assert!(read::<Interval>(Modes::default(), text(sent)).is_err(), "{sent}");
        }
        assert_eq!(read(Modes::default(), Value::Int(5)), Ok(Interval::Micros(5)));
        let strict = Modes {
            intervals: Intervals::Text,
            ..Modes::default()
        };
        let problem = read::<Interval>(strict, Value::Int(5)).unwrap_err();
        assert!(problem.contains("source.interval=string promises text"), "{problem}");
    }
}
