//! Dates, times and durations as Postgres prints them, in the form in which Debezium sends them.
//!
//! Postgres prints by the settings that the session was opened with: `DateStyle = ISO`, `TimeZone = UTC`, `IntervalStyle =
//! iso_8601`. What is printed otherwise has no other form, and is passed on as it is.

use std::fmt::Write;

use crate::event::calendar::{DATE_INFINITY, DATE_NEGATIVE_INFINITY, TIMESTAMP_INFINITY, TIMESTAMP_NEGATIVE_INFINITY};

const SECONDS_PER_DAY: i64 = 86_400;

/// A day.
pub(super) fn date(text: &str) -> Option<String> {
    match text {
        "infinity" => return Some(DATE_INFINITY.to_owned()),
        "-infinity" => return Some(DATE_NEGATIVE_INFINITY.to_owned()),
        _ => {}
    }
    let mut out = day(text)?;
    out.push('Z');
    Some(out)
}

/// A day among the elements of an array: the connector has other sentinels there.
pub(super) fn date_of_list(text: &str) -> Option<String> {
    match text {
        "infinity" => Some("+292278994-08-16Z".to_owned()),
        "-infinity" => Some("-292275055-05-16Z".to_owned()),
        _ => date(text),
    }
}

/// A moment without time zone.
pub(super) fn timestamp(text: &str) -> Option<String> {
    match text {
        "infinity" => return Some(TIMESTAMP_INFINITY.to_owned()),
        "-infinity" => return Some(TIMESTAMP_NEGATIVE_INFINITY.to_owned()),
        _ => {}
    }
    moment(text, None)
}

/// A moment, printed in UTC with so many digits of a second.
pub(super) fn timestamp_with_zone(text: &str, digits: usize) -> Option<String> {
    if matches!(text, "infinity" | "-infinity") {
        return Some(text.to_owned());
    }
    let (moment_part, era) = era(text);
    let utc = moment_part.strip_suffix("+00")?;
    moment(&format!("{utc}{era}"), Some(digits))
}

/// A moment among the elements of an array.
pub(super) fn timestamp_with_zone_of_list(text: &str, digits: usize) -> Option<String> {
    match text {
        "infinity" => Some("+292278994-08-16T23:00:00.000000Z".to_owned()),
        "-infinity" => Some("+292269055-12-02T23:00:00.000000Z".to_owned()),
        _ => timestamp_with_zone(text, digits),
    }
}

/// A time of day.
pub(super) fn time(text: &str) -> Option<String> {
    if text == "24:00:00" {
        return Some("00:00:00Z".to_owned());
    }
    is_clock(text).then(|| format!("{text}Z"))
}

/// A time of day among the elements of an array: the connector keeps its milliseconds.
pub(super) fn time_of_list(text: &str) -> Option<String> {
    let Some((whole, fraction)) = text.split_once('.') else {
        return time(text);
    };
    let millis = fraction.get(..3).unwrap_or(fraction).trim_end_matches('0');
    match millis {
        "" => time(whole),
        _ => time(&format!("{whole}.{millis}")),
    }
}

/// A time of day in a time zone, printed in UTC.
pub(super) fn time_with_zone(text: &str) -> Option<String> {
    let sign = text.rfind(['+', '-'])?;
    let (clock, zone) = text.split_at_checked(sign)?;
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, ""));
    let offset = seconds(zone.get(1..)?)?;
    let offset = if zone.starts_with('-') { -offset } else { offset };
    let local = seconds(clock)?;
    let mut out = match local {
        SECONDS_PER_DAY if offset == 0 => clock.to_owned(),
        _ => {
            let utc = (local - offset).rem_euclid(SECONDS_PER_DAY);
            format!("{:02}:{:02}:{:02}", utc / 3_600, utc / 60 % 60, utc % 60)
        }
    };
    if !fraction.is_empty() {
        write!(out, ".{fraction}").ok()?;
    }
    out.push('Z');
    Some(out)
}

/// A duration, each of its parts printed.
pub(super) fn interval(text: &str) -> Option<String> {
    let (days, clock) = text.strip_prefix('P')?.split_once('T').unwrap_or((text.get(1..)?, ""));
    let mut parts = ["0"; 6];
    let units = [(days, "YMD", 0), (clock, "HMS", 3)];
    for (mut rest, letters, first) in units {
        while let Some(end) = rest.find(|letter: char| letter.is_ascii_alphabetic()) {
            let place = letters.find(rest.get(end..=end)?)?;
            *parts.get_mut(first + place)? = rest.get(..end)?;
            rest = rest.get(end + 1..)?;
        }
        if !rest.is_empty() {
            return None;
        }
    }
    let [years, months, days, hours, minutes, seconds] = parts;
    Some(format!("P{years}Y{months}M{days}DT{hours}H{minutes}M{seconds}S"))
}

/// What stands before ` BC`, and that.
fn era(text: &str) -> (&str, &str) {
    match text.strip_suffix(" BC") {
        Some(before) => (before, " BC"),
        None => (text, ""),
    }
}

/// A day without the mark of its time zone.
fn day(text: &str) -> Option<String> {
    let (text, era) = era(text);
    let mut parts = text.split('-');
    let (year, month, day) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() || !is_number(month, 2) || !is_number(day, 2) {
        return None;
    }
    let year: i64 = year.parse().ok()?;
    let year = if era.is_empty() { year } else { 1 - year };
    Some(match year {
        0..=9_999 => format!("{year:04}-{month}-{day}"),
        10_000.. => format!("+{year}-{month}-{day}"),
        _ => format!("-{:04}-{month}-{day}", -year),
    })
}

fn moment(text: &str, digits: Option<usize>) -> Option<String> {
    let (text, era) = era(text);
    let (date, clock) = text.split_once(' ')?;
    if !is_clock(clock) {
        return None;
    }
    let mut out = day(&format!("{date}{era}"))?;
    let (whole, fraction) = clock.split_once('.').unwrap_or((clock, ""));
    write!(out, "T{whole}").ok()?;
    match digits {
        Some(0) => {}
        Some(digits) => write!(out, ".{fraction:0<digits$}").ok()?,
        None if fraction.is_empty() => {}
        None => write!(out, ".{fraction}").ok()?,
    }
    out.push('Z');
    Some(out)
}

/// Seconds of `HH`, `HH:MM` or `HH:MM:SS`.
fn seconds(clock: &str) -> Option<i64> {
    let mut sum = 0;
    let mut unit = 3_600;
    for part in clock.split(':') {
        if !is_number(part, 2) || unit == 0 {
            return None;
        }
        sum += part.parse::<i64>().ok()? * unit;
        unit /= 60;
    }
    Some(sum)
}

/// `HH:MM:SS`, with or without a fraction.
fn is_clock(text: &str) -> bool {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    whole.len() == 8 && seconds(whole).is_some() && fraction.bytes().all(|digit| digit.is_ascii_digit())
}

fn is_number(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|digit| digit.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(printed: Option<String>) -> String {
        printed.unwrap_or_default()
    }

    #[test]
    fn days_have_the_year_that_iso_counts() {
        assert_eq!(text(date("2026-05-06")), "2026-05-06Z");
        assert_eq!(text(date("0044-03-15 BC")), "-0043-03-15Z");
        assert_eq!(text(date("0001-01-01 BC")), "0000-01-01Z");
        assert_eq!(text(date("5874897-12-31")), "+5874897-12-31Z");
        assert_eq!(text(date("infinity")), DATE_INFINITY);
        assert_eq!(text(date_of_list("infinity")), "+292278994-08-16Z");
        assert_eq!(date("06.05.2026"), None);
    }

    #[test]
    fn moments_keep_the_digits_of_their_column() {
        assert_eq!(text(timestamp("2026-05-06 01:02:03.5")), "2026-05-06T01:02:03.5Z");
        assert_eq!(text(timestamp("0044-03-15 12:00:00.5 BC")), "-0043-03-15T12:00:00.5Z");
        assert_eq!(text(timestamp("-infinity")), TIMESTAMP_NEGATIVE_INFINITY);
        assert_eq!(
            text(timestamp_with_zone("2026-05-05 23:02:03.4+00", 6)),
            "2026-05-05T23:02:03.400000Z"
        );
        assert_eq!(
            text(timestamp_with_zone("4713-01-01 00:00:00+00 BC", 0)),
            "-4712-01-01T00:00:00Z"
        );
        assert_eq!(text(timestamp_with_zone("infinity", 6)), "infinity");
        assert_eq!(timestamp_with_zone("2026-05-05 23:02:03+02", 6), None);
    }

    #[test]
    fn times_of_day_are_told_in_utc() {
        assert_eq!(text(time("24:00:00")), "00:00:00Z");
        assert_eq!(text(time("01:02:03.456789")), "01:02:03.456789Z");
        assert_eq!(text(time_of_list("01:02:03.456789")), "01:02:03.456Z");
        assert_eq!(text(time_of_list("01:02:03.0004")), "01:02:03Z");
        assert_eq!(text(time_with_zone("11:51:30.123789+02")), "09:51:30.123789Z");
        assert_eq!(text(time_with_zone("23:59:59.999999-15:59")), "15:58:59.999999Z");
        assert_eq!(text(time_with_zone("24:00:00+00")), "24:00:00Z");
        assert_eq!(time_with_zone("noon"), None);
    }

    #[test]
    fn durations_name_each_part() {
        assert_eq!(text(interval("P1Y2M3DT4H5M6.78S")), "P1Y2M3DT4H5M6.78S");
        assert_eq!(text(interval("PT0S")), "P0Y0M0DT0H0M0S");
        assert_eq!(text(interval("P-1Y3DT-0.000001S")), "P-1Y0M3DT0H0M-0.000001S");
        assert_eq!(text(interval("P2D")), "P0Y0M2DT0H0M0S");
        assert_eq!(interval("1 day"), None);
        assert_eq!(interval("P1W"), None);
    }
}
