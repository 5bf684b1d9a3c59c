//! One value read as a type, for the tests of the types.

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::event::modes::Modes;
use crate::event::row::{Row, Value};

/// The value of the column `a`, read by these modes.
pub(super) fn read<T: DeserializeOwned>(modes: Modes, value: Value) -> Result<T, String> {
    #[derive(Deserialize)]
    struct One<T> {
        a: T,
    }
    let row = Row::builder().read_by(modes).value("a", value).finish();
    row.to::<One<T>>().map(|one| one.a).map_err(|error| error.to_string())
}

pub(super) fn text(value: &str) -> Value {
    Value::Text(value.into())
}
