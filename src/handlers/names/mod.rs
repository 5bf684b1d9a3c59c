//! Names of an application that calls its tables and columns otherwise than the reference schema.
//!
//! Handlers know the reference names only. Two things make them fit: views of those names over the application's tables,
//! which the worker's sessions find first ([`views`]), and changes whose table and columns are renamed before a handler
//! sees them ([`crate::handlers::named`]). Everything between (routes, the ledger, dead letters, metrics) keeps the application's names.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::event::change::ChangeEvent;
use crate::handler::{Ordering, Route};
use crate::handlers::SCHEMA;

pub mod check;

mod reference;

pub mod views;

use self::reference::{Absent, TABLES, Table};

/// What the application calls one table of the reference schema. An empty name stands for what it does not have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TableNames {
    /// `schema.table` or `table`; `None` when it has the reference's name.
    pub name: Option<String>,
    /// Column of the reference schema → column of the application.
    pub columns: BTreeMap<String, String>,
}

/// A name that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NamesError {
    /// Nothing of the reference schema is called so.
    #[error("waitlist.tables.{0} is no table of the reference schema (infra/postgres/waitlist.sql); there are {known}", known = known_tables())]
    Table(String),
    /// Nothing of the table is called so.
    #[error("waitlist.tables.{table}.columns.{column} is no column that the worker uses; there are {known}")]
    Column {
        /// The table.
        table: String,
        /// The column.
        column: String,
        /// Those there are.
        known: String,
    },
    /// The worker cannot do without it.
    #[error("{0} is left empty, but the worker cannot do without it")]
    Needed(String),
    /// `a.b.c`, or empty parts.
    #[error("waitlist.tables.{table}.name is {name}, which is neither table nor schema.table")]
    NotAName {
        /// The table.
        table: String,
        /// What was given.
        name: String,
    },
    /// Two columns would be read from one.
    #[error("waitlist.tables.{table}: two columns are called {column} by the application")]
    Twice {
        /// The table.
        table: String,
        /// The application's column.
        column: String,
    },
}

fn known_tables() -> String {
    TABLES.iter().map(|table| table.name).collect::<Vec<_>>().join(", ")
}

/// The names of an application; empty where it has those of the reference.
#[derive(Debug, Clone, Default)]
pub struct Names {
    tables: Vec<Mapped>,
}

/// A table that is called otherwise, or whose columns are.
#[derive(Debug, Clone)]
struct Mapped {
    reference: &'static Table,
    /// `None`: the application has no such table.
    place: Option<Place>,
    /// What the application calls the reference's columns, in their order; `None` where it has none.
    columns: Vec<Option<Arc<str>>>,
}

#[derive(Debug, Clone)]
struct Place {
    schema: Arc<str>,
    table: Arc<str>,
}

impl Names {
    /// Checks names against the reference schema.
    ///
    /// # Errors
    /// The first name that cannot be used.
    pub fn new(given: &BTreeMap<String, TableNames>) -> Result<Self, NamesError> {
        let mut tables = Vec::new();
        for (name, own) in given {
            let reference = TABLES
                .iter()
                .find(|table| table.name == name)
                .ok_or_else(|| NamesError::Table(name.clone()))?;
            tables.push(Mapped::new(reference, own)?);
        }
        Ok(Self { tables })
    }

    /// Whether the application has the reference's names.
    pub fn is_empty(&self) -> bool {
        self.tables.is_empty()
    }

    /// The application's table of this reference name, as (schema, table); `None` when it has none.
    pub fn place(&self, table: &str) -> Option<(String, String)> {
        match self.tables.iter().find(|mapped| mapped.reference.name == table) {
            None => Some((SCHEMA.to_owned(), table.to_owned())),
            Some(mapped) => mapped
                .place
                .as_ref()
                .map(|place| (place.schema.to_string(), place.table.to_string())),
        }
    }

    /// Whether the worker uses this column of the application's table.
    pub fn uses(&self, schema: &str, table: &str, column: &str) -> bool {
        TABLES.iter().any(|reference| {
            let place = self.place(reference.name);
            let is_here = place.is_some_and(|(own_schema, own_table)| own_schema == schema && own_table == table);
            let mapped = self
                .tables
                .iter()
                .find(|mapped| mapped.reference.name == reference.name);
            is_here
                && match mapped {
                    Some(mapped) => mapped.columns.iter().flatten().any(|own| **own == *column),
                    None => reference.columns.iter().any(|known| known.name == column),
                }
        })
    }

    /// A route with the application's names; `None` when it has no such table.
    pub fn route(&self, route: &Route) -> Option<Route> {
        let Some(mapped) = self.tables.iter().find(|mapped| mapped.reference.name == route.table) else {
            return Some(route.clone());
        };
        let place = mapped.place.as_ref()?;
        let ordering = match &route.ordering {
            Ordering::PrimaryKey => Ordering::PrimaryKey,
            Ordering::Columns(columns) => {
                Ordering::Columns(columns.iter().map(|column| mapped.application_column(column)).collect())
            }
        };
        Some(Route {
            schema: place.schema.to_string(),
            table: place.table.to_string(),
            ordering,
            keyless: route.keyless,
        })
    }

    /// The change with the reference's names; `None` when it has them already. Its id stays, because it is that of the
    /// application's row.
    pub fn reference_event(&self, event: &ChangeEvent) -> Option<ChangeEvent> {
        let origin = event.origin();
        let mapped = self.tables.iter().find(|mapped| {
            let place = mapped.place.as_ref();
            place.is_some_and(|place| place.schema == origin.schema && place.table == origin.table)
        })?;
        Some(event.renamed(SCHEMA, mapped.reference.name, &|column| mapped.reference_column(column)))
    }
}

impl Mapped {
    fn new(reference: &'static Table, own: &TableNames) -> Result<Self, NamesError> {
        let table = reference.name;
        for column in own.columns.keys() {
            if reference.columns.iter().all(|known| known.name != column) {
                let known: Vec<&str> = reference.columns.iter().map(|known| known.name).collect();
                return Err(NamesError::Column {
                    table: table.to_owned(),
                    column: column.clone(),
                    known: known.join(", "),
                });
            }
        }
        let mut columns: Vec<Option<Arc<str>>> = Vec::with_capacity(reference.columns.len());
        for column in reference.columns {
            let name = own.columns.get(column.name).map_or(column.name, String::as_str);
            if name.is_empty() && column.absent == Absent::Never {
                return Err(NamesError::Needed(format!(
                    "waitlist.tables.{table}.columns.{}",
                    column.name
                )));
            }
            if !name.is_empty() && columns.iter().flatten().any(|known| &**known == name) {
                return Err(NamesError::Twice {
                    table: table.to_owned(),
                    column: name.to_owned(),
                });
            }
            columns.push((!name.is_empty()).then(|| name.into()));
        }
        Ok(Self {
            reference,
            place: place_of(reference, own.name.as_deref())?,
            columns,
        })
    }

    fn application_column(&self, column: &str) -> String {
        let place = self.reference.columns.iter().position(|known| known.name == column);
        let own = place.and_then(|place| self.columns[place].as_deref());
        own.unwrap_or(column).to_owned()
    }

    /// What the reference calls a column of the application. One that it does not know, but uses the name of, is hidden.
    fn reference_column(&self, column: &str) -> Arc<str> {
        let known = self.columns.iter().position(|own| own.as_deref() == Some(column));
        match known {
            Some(place) => self.reference.columns[place].name.into(),
            None if self.reference.columns.iter().any(|known| known.name == column) => {
                format!("{column} of the application").into()
            }
            None => column.into(),
        }
    }
}

fn place_of(reference: &'static Table, name: Option<&str>) -> Result<Option<Place>, NamesError> {
    let place = |schema: &str, table: &str| {
        Some(Place {
            schema: schema.into(),
            table: table.into(),
        })
    };
    let parts: Vec<&str> = name.unwrap_or(reference.name).split('.').collect();
    match parts[..] {
        [""] if reference.may_be_absent => Ok(None),
        [""] => Err(NamesError::Needed(format!("waitlist.tables.{}.name", reference.name))),
        [table] => Ok(place(SCHEMA, table)),
        [schema, table] if !schema.is_empty() && !table.is_empty() => Ok(place(schema, table)),
        _ => Err(NamesError::NotAName {
            table: reference.name.to_owned(),
            name: name.unwrap_or_default().to_owned(),
        }),
    }
}

#[cfg(test)]
#[path = "names_tests.rs"]
mod tests;
