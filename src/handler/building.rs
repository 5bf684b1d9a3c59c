//! Saying what a handler is called and what wakes it, without naming what has a default.

use std::time::Duration;

use crate::handler::{Keyless, Ordering, Route, Spec};

impl Spec {
    /// A handler of this name, woken by these tables; one event a call, and the time-out that is configured.
    ///
    /// ```
    /// use afterwrite::handler::{Route, Spec};
    ///
    /// let spec = Spec::new("invoices", [Route::of("orders"), Route::of("order_lines").by(["order_id"])]);
    /// assert_eq!((spec.routes.len(), spec.coalesce_max), (2, 1));
    /// ```
    pub fn new(name: &str, routes: impl IntoIterator<Item = Route>) -> Self {
        Self {
            name: name.to_owned(),
            routes: routes.into_iter().collect(),
            coalesce_max: 1,
            attempt_timeout: None,
        }
    }

    /// One call may take so many events of one ordering key.
    #[must_use]
    pub fn coalescing(self, events_max: usize) -> Self {
        Self {
            coalesce_max: events_max,
            ..self
        }
    }

    /// One attempt may take so long, unless the configuration says something else.
    #[must_use]
    pub fn within(self, attempt: Duration) -> Self {
        Self {
            attempt_timeout: Some(attempt),
            ..self
        }
    }
}

impl Route {
    /// A table of schema `public`, in the order of its primary key.
    pub fn of(table: &str) -> Self {
        Self {
            schema: "public".to_owned(),
            table: table.to_owned(),
            ordering: Ordering::PrimaryKey,
            keyless: Keyless::Refused,
        }
    }

    /// Of this schema.
    #[must_use]
    pub fn in_schema(self, schema: &str) -> Self {
        Self {
            schema: schema.to_owned(),
            ..self
        }
    }

    /// In the order of these columns: events that are equal in them come one after the other.
    #[must_use]
    pub fn by<C: Into<String>>(self, columns: impl IntoIterator<Item = C>) -> Self {
        Self {
            ordering: Ordering::Columns(columns.into_iter().map(Into::into).collect()),
            ..self
        }
    }

    /// Also where the table has no primary key: what comes once more is worked on once more.
    #[must_use]
    pub fn at_least_once(self) -> Self {
        Self {
            keyless: Keyless::AtLeastOnce,
            ..self
        }
    }
}
