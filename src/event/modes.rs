//! What a connector's settings say of values that do not say it themselves.
//!
//! JSON without schema carries no types: a timestamp may be an integer of any unit, and bytes may be hexadecimal text. Rows
//! of the other encodings are canonical whatever the connector's modes, and so are those of a connector with the
//! recommended ones.

/// How the values of a row are to be read where a type is asked for. The default is what holds for rows that came with
/// their types.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Modes {
    /// What an integer in a timestamp column counts.
    pub timestamps: Integers,
    /// Whether an integer in a date column counts days.
    pub dates: Integers,
    /// What an integer in a column of times of day counts.
    pub times: Integers,
    /// How bytes are written.
    pub bytes: Bytes,
    /// How decimals are written.
    pub decimals: Decimals,
    /// How intervals are written.
    pub intervals: Intervals,
}

/// What an integer counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Integers {
    /// Nothing: such columns are text (`time.precision.mode=isostring`).
    #[default]
    AreNone,
    /// Nothing: such columns are objects of their parts (`structured`), and so are intervals.
    ArePartsOfObjects,
    /// It depends on the column's precision, which nobody tells (`adaptive`).
    DependOnTheColumn,
    /// Days since 1970-01-01.
    Days,
    /// Thousandths of a second, since 1970-01-01 or midnight.
    Millis,
    /// Millionths of a second, since 1970-01-01 or midnight.
    Micros,
    /// Billionths of a second, since 1970-01-01 or midnight.
    Nanos,
}

/// How bytes are written as text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Bytes {
    /// Base64 with padding (`binary.handling.mode=base64` or `bytes`).
    #[default]
    Base64,
    /// Base64 with the alphabet for URLs.
    Base64UrlSafe,
    /// Hexadecimal digits.
    Hex,
}

/// How decimals are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Decimals {
    /// As text, or as floating point numbers where the connector has rounded them (`decimal.handling.mode=double`).
    #[default]
    TextOrNumbers,
    /// As text (`string`).
    Text,
    /// As bytes without their scale, from which nobody reads a number (`precise`).
    Lost,
}

/// How intervals are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Intervals {
    /// As text, or as microseconds where the connector has made days of months (`interval.handling.mode=numeric`).
    #[default]
    TextOrMicros,
    /// As text (`string`).
    Text,
}

impl Integers {
    /// Nanoseconds of one of what is counted.
    pub(crate) fn nanos(self) -> Option<i128> {
        match self {
            Self::AreNone | Self::ArePartsOfObjects | Self::DependOnTheColumn => None,
            Self::Days => Some(86_400_000_000_000),
            Self::Millis => Some(1_000_000),
            Self::Micros => Some(1_000),
            Self::Nanos => Some(1),
        }
    }
}
