//! Which event wakes which handler, and on which ordering key.
//!
//! Routes go by `source.schema` and `source.table`, never by a topic's name: topics may be renamed on the way.

use std::collections::HashMap;
use std::hash::Hasher;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use siphasher::sip::SipHasher13;

use crate::event::change::ChangeEvent;
use crate::event::row::{Cell, ValueRef};
use crate::handler::{Handler, Ordering};

/// The routing table of one group.
pub struct Router {
    handlers: Vec<Arc<dyn Handler>>,
    names: Vec<Arc<str>>,
    timeouts: Vec<Option<Duration>>,
    tables: HashMap<String, Vec<Target>>,
    /// Woken by every change of any table.
    everywhere: Vec<Target>,
}

struct Target {
    handler: usize,
    ordering: Ordering,
}

/// One handler that an event wakes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Woken {
    /// Index of the handler in the group.
    pub handler: usize,
    /// Hash of the ordering key. Equal keys have equal hashes in every process and at every start.
    pub key: u64,
}

impl Router {
    /// A router over these handlers; their order gives the indices.
    pub fn new(handlers: Vec<Arc<dyn Handler>>) -> Self {
        let mut tables: HashMap<String, Vec<Target>> = HashMap::new();
        let (mut names, mut timeouts) = (Vec::new(), Vec::new());
        for (handler, spec) in handlers.iter().map(|handler| handler.spec()).enumerate() {
            names.push(spec.name.into());
            timeouts.push(spec.attempt_timeout);
            for route in spec.routes {
                let target = Target {
                    handler,
                    ordering: route.ordering,
                };
                tables
                    .entry(table_key(&route.schema, &route.table))
                    .or_default()
                    .push(target);
            }
        }
        Self {
            handlers,
            names,
            timeouts,
            tables,
            everywhere: Vec::new(),
        }
    }

    /// A router that wakes one handler by every change of any table, ordered by primary key; the handler's own routes
    /// are not asked. For what looks at whole topics, such as a measurement.
    pub fn of_every_table(handler: Arc<dyn Handler>) -> Self {
        let every_table = Target {
            handler: 0,
            ordering: Ordering::PrimaryKey,
        };
        Self {
            tables: HashMap::new(),
            everywhere: vec![every_table],
            ..Self::new(vec![handler])
        }
    }

    /// Gives a handler another time-out than its own.
    #[must_use]
    pub fn with_timeout(mut self, handler: usize, timeout: Duration) -> Self {
        self.timeouts[handler] = Some(timeout);
        self
    }

    /// The handlers, by index.
    pub fn handlers(&self) -> &[Arc<dyn Handler>] {
        &self.handlers
    }

    /// The name of a handler.
    pub fn name(&self, handler: usize) -> &str {
        &self.names[handler]
    }

    /// The name of a handler, to be shared.
    pub fn shared_name(&self, handler: usize) -> Arc<str> {
        Arc::clone(&self.names[handler])
    }

    /// The time-out of one attempt of a handler, when it differs from `[engine]`.
    pub fn timeout(&self, handler: usize) -> Option<Duration> {
        self.timeouts[handler]
    }

    /// The handlers that want this event.
    pub fn route(&self, event: &ChangeEvent) -> Vec<Woken> {
        let routed = self
            .tables
            .get(&table_key(&event.origin().schema, &event.origin().table));
        let targets = routed.into_iter().flatten().chain(&self.everywhere);
        targets
            .filter(|target| is_wanted(&*self.handlers[target.handler], event))
            .map(|target| Woken {
                handler: target.handler,
                key: ordering_hash(&target.ordering, event),
            })
            .collect()
    }
}

/// Whether the handler wants the event. One that panics over it is woken, and meets the panic as a failed attempt: here
/// it would take the whole group down, and again at each start.
fn is_wanted(handler: &dyn Handler, event: &ChangeEvent) -> bool {
    catch_unwind(AssertUnwindSafe(|| handler.wants(event))).unwrap_or(true)
}

fn table_key(schema: &str, table: &str) -> String {
    format!("{schema}\u{0}{table}")
}

/// Hashes the ordering key. A row whose key is not known (no primary key, column absent) shares one lane with all such
/// rows of its table. Under another replica identity than FULL the other columns of a delete are null or made up, so a route
/// by them puts it into some lane apart from the row's earlier changes.
///
/// Parked lanes are known by this hash in Postgres, so it must stay the same over versions of this program and of the
/// compiler: what goes in is written out byte for byte.
fn ordering_hash(ordering: &Ordering, event: &ChangeEvent) -> u64 {
    let mut hasher = SipHasher13::new();
    match ordering {
        Ordering::PrimaryKey => {
            if let Some(key) = event.key() {
                key.sorted()
                    .into_iter()
                    .for_each(|(_, cell)| hash_cell(Some(cell), &mut hasher));
            }
        }
        Ordering::Columns(columns) => {
            // An old row tells the lane also where nobody knows that it is whole: if it is, this is the lane of its row.
            let row = event.after().or_else(|| event.sent_before()?.sent());
            if let Some(row) = row {
                columns
                    .iter()
                    .for_each(|column| hash_cell(row.get(column), &mut hasher));
            }
        }
    }
    hasher.finish()
}

/// Hashes a cell of a row; `None` is a column that is absent.
fn hash_cell(cell: Option<Cell<'_>>, hasher: &mut SipHasher13) {
    match cell {
        None => hasher.write(&[0]),
        Some(Cell::Null) => hasher.write(&[1]),
        Some(Cell::Unavailable(_)) => hasher.write(&[2]),
        Some(Cell::Value(value)) => hash_value(value, hasher),
    }
}

fn hash_value(value: ValueRef<'_>, hasher: &mut SipHasher13) {
    match value {
        ValueRef::Bool(bool) => hasher.write(&[3, u8::from(bool)]),
        ValueRef::Int(int) => {
            hasher.write(&[4]);
            hasher.write(&int.to_le_bytes());
        }
        ValueRef::Float(float) => {
            hasher.write(&[5]);
            hasher.write(&float.to_bits().to_le_bytes());
        }
        ValueRef::Text(text) => hash_bytes(6, text.as_bytes(), hasher),
        ValueRef::List(_) | ValueRef::Struct(_) => hash_bytes(7, format!("{value:?}").as_bytes(), hasher),
    }
}

fn hash_bytes(tag: u8, bytes: &[u8], hasher: &mut SipHasher13) {
    hasher.write(&[tag]);
    hasher.write(&(bytes.len() as u64).to_le_bytes());
    hasher.write(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::change::{Before, Change, Origin};
    use crate::event::row::{Row, Value};

    fn event(change: Change) -> ChangeEvent {
        ChangeEvent::new(Origin::of_table("users"), None, change)
    }

    fn row() -> Row {
        Row::of([("campaign_id", Some(Value::Int(7))), ("id", Some(Value::Int(1)))])
    }

    #[test]
    fn a_delete_stays_in_the_lane_of_its_row_also_where_nobody_knows_that_the_old_row_is_whole() {
        let by_campaign = Ordering::Columns(vec!["campaign_id".to_owned()]);
        let insert = event(Change::Insert {
            after: row(),
            moved_from: None,
        });
        for before in [Before::Whole(row()), Before::AsSent(row())] {
            let delete = event(Change::Delete { before, moved_to: None });
            assert_eq!(
                ordering_hash(&by_campaign, &delete),
                ordering_hash(&by_campaign, &insert)
            );
        }
    }
}
