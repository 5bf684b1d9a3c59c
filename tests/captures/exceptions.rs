//! Where the events of one history differ between encodings and modes, because something was lost before it reached the
//! decoder. `docs/DEBEZIUM.md` lists the same.

use serde_json::Value as Json;

/// One way in which a cell may differ from the same cell in JSON without schema in the recommended modes.
pub(crate) struct Exception {
    /// The captures in which it occurs.
    pub(crate) captures: &'static [&'static str],
    /// `table.column` of the cells in which it occurs; `(id)` is the event's id.
    pub(crate) cells: &'static [&'static str],
    /// Whether two cells differ for this reason; `None` is a column that is not there.
    pub(crate) explains: fn(Option<&Json>, Option<&Json>) -> bool,
    /// For people: under which setting.
    pub(crate) setting: &'static str,
    /// For people: what arrives.
    pub(crate) arrives: &'static str,
    /// For people: why it cannot be mended behind it.
    pub(crate) why: &'static str,
}

impl Exception {
    /// Its line in the documentation.
    pub(crate) fn line(&self) -> String {
        format!("| {} | {} | {} |", self.setting, self.arrives, self.why)
    }
}

fn is_text(cell: Option<&Json>) -> bool {
    cell.is_some_and(Json::is_string)
}

fn is_null(cell: Option<&Json>) -> bool {
    cell == Some(&Json::Null)
}

/// The text of a number, without zeros that say nothing.
fn significant(cell: Option<&Json>) -> Option<&str> {
    Some(cell?.as_str()?.trim_end_matches('0').trim_end_matches('.'))
}

/// Whether every text in the first is the same number, moment or list of them as in the second, seen through `same`.
fn each(expected: Option<&Json>, found: Option<&Json>, same: fn(&Json, &Json) -> bool) -> bool {
    match (expected, found) {
        (Some(Json::Array(one)), Some(Json::Array(other))) => {
            one.len() == other.len()
                && one
                    .iter()
                    .zip(other)
                    .all(|(one, other)| one == other || same(one, other))
        }
        (Some(one), Some(other)) => same(one, other),
        _ => false,
    }
}

/// The captures in other modes, as they would be without their schemas.
pub(crate) const BARE: [&str; 6] = ["def bare", "atm bare", "mic bare", "nan bare", "con bare", "str bare"];

pub(crate) const EXCEPTIONS: &[Exception] = &[
    Exception {
        captures: &[
            "avd", "avr", "def", "atm", "mic", "nan", "con", "str", "def bare", "atm bare", "mic bare", "nan bare",
            "con bare", "str bare",
        ],
        cells: &[
            "campaigns.cap",
            "campaigns.note",
            "campaigns.pinged_at",
            "evolving.note",
            "evolving.theme",
            "fabricated.nullable",
            "modes.note",
            "users.tier",
        ],
        explains: |expected, found| is_null(expected) && !is_null(found) && found.is_some(),
        setting: "Avro of Apicurio; JSON with `replace.null.with.default=true`",
        arrives: "the default of a nullable column where the row has null; 1970-01-01 and the like where it is a function",
        why: "the converter puts it there; nothing tells it from a value",
    },
    Exception {
        captures: &["avd", "avr"],
        cells: &[
            "odd-Names.(id)",
            "odd-Names.the id",
            "odd-Names.dash-ed",
            "odd-Names.with space",
            "odd-Names.ünïcode",
            "odd-Names.1st",
            "disguised.before.id",
        ],
        explains: |expected, found| match (expected, found) {
            (_, None) => true,
            // Ids only: cells are compared under their adjusted names.
            (Some(Json::String(id)), Some(Json::String(other))) => id.len() == 32 && other.len() == 32,
            _ => false,
        },
        setting: "Avro, `field.name.adjustment.mode=avro`",
        arrives: "a column with `_` for what Avro does not take in a name, and another event id where it is in the key",
        why: "the name in the table is not sent",
    },
    Exception {
        captures: &[
            "def", "atm", "mic", "nan", "con", "def bare", "atm bare", "mic bare", "nan bare", "con bare",
        ],
        cells: &["modes.i"],
        explains: |expected, found| is_text(expected) && found.is_some_and(Json::is_i64),
        setting: "`interval.handling.mode=numeric`",
        arrives: "an interval as microseconds, at most i64::MAX",
        why: "months and days are added up as 30.4375 days and 24 hours",
    },
    Exception {
        captures: &[
            "def", "mic", "nan", "con", "str", "def bare", "mic bare", "nan bare", "con bare", "str bare",
        ],
        cells: &["modes.n"],
        explains: |expected, found| {
            let special = ["NAN", "POSITIVE_INFINITY", "NEGATIVE_INFINITY"];
            expected
                .and_then(Json::as_str)
                .is_some_and(|text| special.contains(&text))
                && is_null(found)
        },
        setting: "`decimal.handling.mode=precise`, `event.converting.failure.handling.mode=warn`",
        arrives: "null for NaN and infinity in a numeric column",
        why: "the connector cannot convert them, and warns in its log only",
    },
    Exception {
        captures: &["def", "mic", "nan", "con", "str"],
        cells: &["modes.n"],
        explains: |expected, found| is_text(found) && significant(expected) == significant(found),
        setting: "`decimal.handling.mode=precise`",
        arrives: "a numeric without declared scale loses the zeros at its end",
        why: "the connector strips them",
    },
    Exception {
        captures: &["atm", "atm bare"],
        cells: &["modes.n", "modes.n4", "modes.m", "modes.an", "campaigns.budget"],
        explains: |expected, found| {
            each(expected, found, |expected, found| {
                let special = [("NAN", "NaN"), ("NEGATIVE_INFINITY", "-Infinity")];
                let is_special = |(one, other): &(&str, &str)| expected == one && found == other;
                let number = expected.as_str().and_then(|text| text.parse::<f64>().ok());
                special.iter().any(is_special) || (found.is_f64() && number == found.as_f64())
            })
        },
        setting: "`decimal.handling.mode=double`",
        arrives: "a number with the digits that a double keeps, and `NaN` for `NAN`",
        why: "the digits are not sent",
    },
    Exception {
        captures: &["mic", "mic bare"],
        cells: &["modes.b"],
        explains: |expected, found| is_text(expected) && found.and_then(Json::as_str).is_some_and(is_hex),
        setting: "`binary.handling.mode=hex`",
        arrives: "hexadecimal text",
        why: "it is text without a name: only the setting `source.binary` tells",
    },
    Exception {
        captures: &["mic", "mic bare"],
        cells: &[".(id)"],
        explains: |expected, found| is_text(expected) && is_text(found),
        setting: "`binary.handling.mode=hex` or `base64-url-safe`, logical messages",
        arrives: "the content in that alphabet, and so another event id",
        why: "the content is a part of the id as it was sent",
    },
    Exception {
        captures: &["nan", "nan bare"],
        cells: &["modes.b"],
        explains: |expected, found| {
            let standard = |text: &str| text.replace('-', "+").replace('_', "/");
            expected.and_then(Json::as_str) == found.and_then(Json::as_str).map(standard).as_deref()
        },
        setting: "`binary.handling.mode=base64-url-safe`",
        arrives: "base64 of the other alphabet",
        why: "it is text without a name: only the setting `source.binary` tells",
    },
    Exception {
        captures: &["nan", "nan bare"],
        cells: &["modes.ts3", "modes.ts6"],
        explains: |expected, found| is_text(expected) && is_null(found),
        setting: "`time.precision.mode=nanoseconds`, `event.converting.failure.handling.mode=warn`",
        arrives: "null for a timestamp outside 1677-09-21 to 2262-04-11",
        why: "64 bits of nanoseconds do not reach further",
    },
    Exception {
        captures: &["con"],
        cells: &["modes.t6", "modes.ts6", "modes.ats"],
        explains: |expected, found| {
            each(expected, found, |expected, found| {
                let cut = found.as_str().map(|text| text.trim_end_matches('Z'));
                let whole = expected.as_str();
                cut.zip(whole)
                    .is_some_and(|(cut, whole)| cut.len() < whole.len() && whole.starts_with(cut))
            })
        },
        setting: "`time.precision.mode=connect`",
        arrives: "times and timestamps cut to milliseconds",
        why: "Connect's own types have no more",
    },
    Exception {
        captures: &["con", "con bare"],
        cells: &["modes.h"],
        explains: |expected, found| {
            let text = expected.and_then(Json::as_str);
            let parsed = text.map(|text| serde_json::from_str::<Json>(text).unwrap());
            parsed.as_ref() == found
        },
        setting: "`hstore.handling.mode=map`",
        arrives: "an object instead of the text of one",
        why: "JSON without schema cannot tell it from any other object",
    },
    Exception {
        captures: &["str", "str bare"],
        cells: &["modes.t0", "modes.t6"],
        explains: |expected, found| expected == Some(&Json::from("00:00:00Z")) && is_null(found),
        setting: "`time.precision.mode=structured`, `event.converting.failure.handling.mode=warn`",
        arrives: "null for the time 24:00:00",
        why: "the connector cannot convert it",
    },
    Exception {
        captures: &["str", "str bare"],
        cells: &["modes.lsn", "modes.mr", "modes.comp"],
        explains: |expected, found| expected.is_none() && found.is_some(),
        setting: "`include.unknown.datatypes=true`",
        arrives: "columns that are absent otherwise, as base64 of their text",
        why: "they carry no name",
    },
    Exception {
        captures: &["def bare", "atm bare", "mic bare", "nan bare", "con bare"],
        cells: &[
            "campaigns.opens_on",
            "modes.d",
            "modes.t0",
            "modes.t3",
            "modes.t6",
            "modes.ts0",
            "modes.ts3",
            "modes.ts6",
            "modes.ad",
            "modes.ats",
            "modes.at",
        ],
        explains: |expected, found| {
            each(expected, found, |expected, found| {
                expected.is_string() && found.is_i64()
            })
        },
        setting: "JSON without schema, any `time.precision.mode` but `isostring` and `structured`",
        arrives: "dates, times and timestamps as integers",
        why: "nothing says what they count; typed access is told by `source.time_precision`",
    },
    Exception {
        captures: &["str bare"],
        cells: &[
            "campaigns.opens_on",
            "campaigns.pinged_at",
            "campaigns.created_at",
            "modes.d",
            "modes.t0",
            "modes.t3",
            "modes.t6",
            "modes.tz",
            "modes.ts0",
            "modes.ts3",
            "modes.ts6",
            "modes.tstz",
            "modes.i",
            "modes.ad",
            "modes.ats",
            "modes.at",
        ],
        explains: |expected, found| {
            each(expected, found, |expected, found| {
                expected.is_string() && found.is_object()
            })
        },
        setting: "JSON without schema, `time.precision.mode=structured`",
        arrives: "dates, times and durations as objects",
        why: "an object without a name may be anything; typed access is told by `source.time_precision`",
    },
    Exception {
        captures: &["def bare", "mic bare", "nan bare", "con bare", "str bare"],
        cells: &["campaigns.budget", "modes.n", "modes.n4", "modes.m", "modes.an"],
        explains: |expected, found| {
            each(expected, found, |expected, found| {
                expected.is_string() && (found.is_string() || found.is_object())
            })
        },
        setting: "JSON without schema, `decimal.handling.mode=precise`",
        arrives: "decimals as base64, those without declared scale as an object",
        why: "the scale is in the schema only",
    },
];

fn is_hex(text: &str) -> bool {
    text.bytes().all(|digit| digit.is_ascii_hexdigit())
}
