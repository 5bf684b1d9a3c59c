//! Dates, times and durations that arrive in parts (`time.precision.mode=structured`), printed as Debezium prints them with
//! `isostring`.
//!
//! Parts come from a message: each is checked against its range before anything is computed, so nothing can overflow.

use std::sync::Arc;

use crate::event::calendar::{
    self, DATE_INFINITY, DATE_NEGATIVE_INFINITY, TIMESTAMP_INFINITY, TIMESTAMP_NEGATIVE_INFINITY, Unit,
};
use crate::event::row::Value;

const INCOMPLETE: &str = "holds a date or time without one of its parts";
const OUT_OF_RANGE: &str = "holds a date or time of which a part is out of its range";

const SECONDS_PER_DAY: i64 = 86_400;
const NANOS_PER_SECOND: i64 = 1_000_000_000;
/// The years of Postgres, and some beyond.
const YEARS: std::ops::RangeInclusive<i64> = -300_000_000..=300_000_000;

/// What the parts are of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Structured {
    Date,
    Time,
    ZonedTime,
    Timestamp,
    ZonedTimestamp,
    Duration,
}

impl Structured {
    /// The same with a zone, where the parts have one.
    pub(crate) fn zoned(self, members: &[(Arc<str>, Option<Value>)]) -> Self {
        let has_zone = members.iter().any(|(name, _)| &**name == "offsetSeconds");
        match self {
            Self::Time if has_zone => Self::ZonedTime,
            Self::Timestamp if has_zone => Self::ZonedTimestamp,
            other => other,
        }
    }

    /// What a Connect schema of this name holds.
    pub(crate) fn of_name(name: &str) -> Option<Self> {
        Some(match name.strip_prefix("io.debezium.time.Structured")? {
            "Date" => Self::Date,
            "Time" => Self::Time,
            "ZonedTime" => Self::ZonedTime,
            "Timestamp" => Self::Timestamp,
            "ZonedTimestamp" => Self::ZonedTimestamp,
            "Duration" => Self::Duration,
            _ => return None,
        })
    }

    /// The text of the parts.
    pub(crate) fn print(self, members: &[(Arc<str>, Option<Value>)]) -> Result<String, &'static str> {
        let parts = Parts(members);
        if let Some(text) = parts.infinity(self) {
            return Ok(text.to_owned());
        }
        Ok(match self {
            Self::Date => calendar::date(parts.days()?),
            Self::Time => {
                let nanos = parts.second_of_day()? * NANOS_PER_SECOND + parts.nanos()?;
                calendar::time_of_day(nanos, Unit::Nanos)
            }
            Self::ZonedTime => {
                let (second, offset) = (parts.second_of_day()?, parts.offset()?);
                if second == SECONDS_PER_DAY && offset == 0 {
                    return Ok("24:00:00Z".to_owned());
                }
                let shifted = (second - offset).rem_euclid(SECONDS_PER_DAY);
                calendar::time_of_day(shifted * NANOS_PER_SECOND + parts.nanos()?, Unit::Nanos)
            }
            Self::Timestamp => calendar::timestamp_of(parts.seconds()?, parts.nanos()?, None),
            Self::ZonedTimestamp => {
                let digits = parts.within("precision", 0..=9)?;
                let seconds = parts.seconds()? - parts.offset()?;
                calendar::timestamp_of(seconds, parts.nanos()?, usize::try_from(digits).ok())
            }
            Self::Duration => parts.duration()?,
        })
    }
}

struct Parts<'a>(&'a [(Arc<str>, Option<Value>)]);

impl Parts<'_> {
    fn value(&self, name: &str) -> Option<&Value> {
        let (_, value) = self.0.iter().find(|(member, _)| &**member == name)?;
        value.as_ref()
    }

    fn part(&self, name: &str) -> Result<i64, &'static str> {
        match self.value(name) {
            Some(Value::Int(part)) => Ok(*part),
            _ => Err(INCOMPLETE),
        }
    }

    fn within(&self, name: &str, range: std::ops::RangeInclusive<i64>) -> Result<i64, &'static str> {
        let part = self.part(name)?;
        if range.contains(&part) {
            Ok(part)
        } else {
            Err(OUT_OF_RANGE)
        }
    }

    /// What stands for an infinite value, if it is one.
    fn infinity(&self, structured: Structured) -> Option<&'static str> {
        let Some(Value::Text(special)) = self.value("specialValue") else {
            return None;
        };
        match (structured, &**special) {
            (Structured::Date, "POSITIVE_INFINITY") => Some(DATE_INFINITY),
            (Structured::Date, "NEGATIVE_INFINITY") => Some(DATE_NEGATIVE_INFINITY),
            (Structured::Timestamp, "POSITIVE_INFINITY") => Some(TIMESTAMP_INFINITY),
            (Structured::Timestamp, "NEGATIVE_INFINITY") => Some(TIMESTAMP_NEGATIVE_INFINITY),
            (Structured::ZonedTimestamp, "POSITIVE_INFINITY") => Some("infinity"),
            (Structured::ZonedTimestamp, "NEGATIVE_INFINITY") => Some("-infinity"),
            _ => None,
        }
    }

    fn days(&self) -> Result<i64, &'static str> {
        let year = self.within("year", YEARS)?;
        let (month, day) = (self.within("month", 1..=12)?, self.within("day", 1..=31)?);
        Ok(calendar::days(year, month, day))
    }

    fn second_of_day(&self) -> Result<i64, &'static str> {
        let (hour, minute) = (self.within("hour", 0..=24)?, self.within("minute", 0..=59)?);
        Ok(hour * 3_600 + minute * 60 + self.within("second", 0..=59)?)
    }

    /// Since 1970-01-01.
    fn seconds(&self) -> Result<i64, &'static str> {
        Ok(self.days()? * SECONDS_PER_DAY + self.second_of_day()?)
    }

    fn nanos(&self) -> Result<i64, &'static str> {
        self.within("nanos", 0..=NANOS_PER_SECOND - 1)
    }

    /// Seconds east of UTC.
    fn offset(&self) -> Result<i64, &'static str> {
        self.within("offsetSeconds", -SECONDS_PER_DAY..=SECONDS_PER_DAY)
    }

    /// `P1Y2M3DT4H5M6.78S`: every part is written, each with a sign of its own.
    fn duration(&self) -> Result<String, &'static str> {
        let whole = i128::from(self.part("seconds")?) * i128::from(NANOS_PER_SECOND);
        let nanos = whole + i128::from(self.part("nanos")?);
        let sign = if nanos < 0 { "-" } else { "" };
        let per_second = u128::from(NANOS_PER_SECOND.unsigned_abs());
        let (seconds, fraction) = (nanos.unsigned_abs() / per_second, nanos.unsigned_abs() % per_second);
        let digits = format!(".{fraction:09}");
        Ok(format!(
            "P{}Y{}M{}DT{}H{}M{sign}{seconds}{}S",
            self.part("years")?,
            self.part("months")?,
            self.part("days")?,
            self.part("hours")?,
            self.part("minutes")?,
            digits.trim_end_matches('0').trim_end_matches('.'),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn print(name: &str, parts: &[(&str, i64)], special: Option<&str>) -> Result<String, &'static str> {
        let numbers = parts
            .iter()
            .map(|(name, part)| (Arc::from(*name), Some(Value::Int(*part))));
        let special = ("specialValue".into(), special.map(|text| Value::Text(text.into())));
        let members: Vec<_> = numbers.chain([special]).collect();
        Structured::of_name(name).unwrap().print(&members)
    }

    const DAY: [(&str, i64); 3] = [("year", -43), ("month", 3), ("day", 15)];
    const TIME: [(&str, i64); 4] = [("hour", 1), ("minute", 2), ("second", 3), ("nanos", 500_000_000)];

    #[test]
    fn parts_print_as_the_text_of_the_whole() {
        let moment = [&DAY[..], &TIME].concat();
        let zoned = [&moment[..], &[("offsetSeconds", 7_200), ("precision", 6)]].concat();
        let shifted = [&TIME[..], &[("offsetSeconds", 7_200)]].concat();
        for (name, parts, expected) in [
            ("Date", &DAY[..], "-0043-03-15Z"),
            ("Time", &TIME, "01:02:03.5Z"),
            ("ZonedTime", &shifted, "23:02:03.5Z"),
            ("Timestamp", &moment, "-0043-03-15T01:02:03.5Z"),
            ("ZonedTimestamp", &zoned, "-0043-03-14T23:02:03.500000Z"),
        ] {
            let name = format!("io.debezium.time.Structured{name}");
            assert_eq!(print(&name, parts, None).as_deref(), Ok(expected));
        }
    }

    #[test]
    fn durations_keep_the_sign_of_every_part() {
        let names = ["years", "months", "days", "hours", "minutes", "seconds", "nanos"];
        for (values, expected) in [
            ([1, 2, 3, 4, 5, 6, 780_000_000], "P1Y2M3DT4H5M6.78S"),
            ([0, -1, 0, 0, 0, 0, -1_000], "P0Y-1M0DT0H0M-0.000001S"),
            ([0, 0, 0, 0, 0, -1, 0], "P0Y0M0DT0H0M-1S"),
            ([0, 0, 0, 0, 0, i64::MIN, 0], "P0Y0M0DT0H0M-9223372036854775808S"),
        ] {
            let parts: Vec<(&str, i64)> = names.into_iter().zip(values).collect();
            let printed = print("io.debezium.time.StructuredDuration", &parts, None);
            assert_eq!(printed.as_deref(), Ok(expected));
        }
    }

    #[test]
    fn infinities_print_as_in_the_other_modes() {
        for (name, special, expected) in [
            ("Date", "POSITIVE_INFINITY", DATE_INFINITY),
            ("Timestamp", "NEGATIVE_INFINITY", TIMESTAMP_NEGATIVE_INFINITY),
            ("ZonedTimestamp", "NEGATIVE_INFINITY", "-infinity"),
        ] {
            let name = format!("io.debezium.time.Structured{name}");
            assert_eq!(print(&name, &[], Some(special)).as_deref(), Ok(expected));
        }
    }

    #[test]
    fn what_is_missing_or_absurd_is_refused() {
        let date = "io.debezium.time.StructuredDate";
        assert_eq!(print(date, &DAY[..2], None), Err(INCOMPLETE));
        for wrong in [("year", i64::MAX), ("month", 13), ("day", 0)] {
            let parts: Vec<_> = DAY
                .iter()
                .map(|part| if part.0 == wrong.0 { wrong } else { *part })
                .collect();
            assert_eq!(print(date, &parts, None), Err(OUT_OF_RANGE));
        }
    }
}
