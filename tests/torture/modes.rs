//! Values that JSON without schema leaves open: the settings of the source say how they are read, or they are refused.

use afterwrite::decode::options::{BinaryMode, DecimalMode, Options, TimePrecision};
use afterwrite::event::typed::{Base64, Date, Decimal, Interval, Time, Timestamp};

use crate::values::one;

#[test]
fn t56_bytes_are_read_in_every_mode() {
    for (binary, sent) in [
        (BinaryMode::Bytes, "3q2+7w=="),
        (BinaryMode::Base64, "3q2+7w=="),
        (BinaryMode::Base64UrlSafe, "3q2-7w=="),
        (BinaryMode::Hex, "deadbeef"),
    ] {
        let options = Options {
            binary,
            ..Options::default()
        };
        let expected = Base64(vec![0xde, 0xad, 0xbe, 0xef]);
        assert_eq!(one(options, &format!("\"{sent}\"")), Ok(expected), "{sent}");
    }
    let problem = one::<Base64>(Options::default(), "\"deadbee\"").unwrap_err();
    assert!(
        problem.contains("column a") && problem.contains("source.binary"),
        "{problem}"
    );
}

#[test]
fn times_in_parts_are_read_where_the_setting_says_so() {
    let structured = || Options {
        time_precision: TimePrecision::Structured,
        ..Options::default()
    };
    let day = r#"{"year":2026,"month":5,"day":6,"specialValue":null}"#;
    assert_eq!(one(structured(), day), Ok(Date::Day("2026-05-06".parse().unwrap())));
    let moment = r#"{"year":2026,"month":5,"day":6,"hour":1,"minute":2,"second":3,"nanos":0,"precision":6,
        "offsetSeconds":7200,"specialValue":null}"#;
    let expected = Timestamp::At("2026-05-05T23:02:03Z".parse().unwrap());
    assert_eq!(one(structured(), moment), Ok(expected));
    let end = r#"{"hour":24,"minute":0,"second":0,"nanos":0,"offsetSeconds":0}"#;
    assert_eq!(one(structured(), end), Ok(Time::EndOfDay));
    let parts = Interval::Parts {
        months: -12,
        days: 3,
        micros: -1,
    };
    let span = r#"{"years":-1,"months":0,"days":3,"hours":0,"minutes":0,"seconds":0,"nanos":-1000}"#;
    assert_eq!(one(structured(), span), Ok(parts));
    let problem = one::<Date>(Options::default(), day).unwrap_err();
    assert!(
        problem.contains("column a holds an object where source.time_precision"),
        "{problem}"
    );
    let problem = one::<Date>(structured(), r#"{"year":2026,"month":13,"day":6}"#).unwrap_err();
    assert!(problem.contains("out of its range"), "{problem}");
}

#[test]
fn what_a_connector_left_open_is_refused_and_names_column_and_setting() {
    let with = |time_precision, decimal| Options {
        time_precision,
        decimal,
        ..Options::default()
    };
    let adaptive = with(TimePrecision::Adaptive, DecimalMode::Precise);
    for problem in [
        one::<Timestamp>(adaptive.clone(), "1782907200500").unwrap_err(),
        one::<Time>(adaptive.clone(), "5").unwrap_err(),
        one::<Decimal>(adaptive, "\"MDk=\"").unwrap_err(),
        one::<Date>(Options::default(), "5").unwrap_err(),
        one::<Decimal>(Options::default(), "1.5").unwrap_err(),
    ] {
        assert!(problem.starts_with("table public.t: column a "), "{problem}");
        assert!(problem.contains("source."), "{problem}");
    }
}
