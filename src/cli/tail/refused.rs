//! Why a condition of `--where` was refused, and what was probably meant.

use super::condition::{BYTES_MAX, FIELDS};
use crate::config::refusal::nearest;

/// Why a condition was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refused {
    #[error("it is empty; write a condition such as op = 'update' and after.status = 'active'")]
    Empty,
    #[error("it is longer than {BYTES_MAX} bytes")]
    Long,
    #[error("it is not SQL: {0}")]
    Syntax(String),
    #[error("{0} is more than one condition; join them with and, or")]
    Rest(String),
    #[error(
        "{name} is neither a field of a change ({}) nor a column: a column is after.{name}, before.{name} or key.{name}{}",
        fields().join(", "), text_instead(name)
    )]
    Name { name: String },
    #[error("{name} is no column; write after.COLUMN, before.COLUMN or key.COLUMN")]
    Side { name: String },
    #[error(
        "{found} is not known here; there are = <> < <= > >= and or not, is [not] null, is [not] distinct from, in (…), between, \
             [i]like, -> and ->>, changed('column')"
    )]
    Unsupported { found: String },
    #[error("{found} cannot be true or false; compare it with something")]
    NoCondition { found: String },
    #[error("the number {0} is written with an exponent; write it out")]
    Exponent(String),
    #[error("op is never {found}; it is one of {}{}", OPS.join(", "), meant(found))]
    Op { found: String },
}

/// The words of [`canonical::op`](crate::decode::canonical::op).
pub(super) const OPS: [&str; 6] = ["insert", "update", "delete", "read", "truncate", "message"];

fn fields() -> [&'static str; FIELDS.len()] {
    FIELDS.map(|(name, _)| name)
}

/// In SQL double quotes are for names, and a shell takes single ones away.
fn text_instead(name: &str) -> String {
    format!("; a text stands in single quotes: '{name}'")
}

fn meant(found: &str) -> String {
    let known = OPS.map(str::to_owned);
    // What Debezium calls them.
    let letter = match found {
        "c" => Some("insert"),
        "u" => Some("update"),
        "d" => Some("delete"),
        "r" => Some("read"),
        "t" => Some("truncate"),
        "m" => Some("message"),
        _ => nearest(found, &known),
    };
    letter.map_or_else(String::new, |meant| format!("; did you mean '{meant}'?"))
}
