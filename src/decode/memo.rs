//! What a decoder remembers of a topic, so that the next record costs less: the names of columns, the names of the
//! source, and the schema texts that schema'd JSON repeats in front of every payload.
//!
//! Nothing here changes what a record decodes to. Everything is bounded.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, RwLock};

use crate::decode::connect::{self, Struct, Type};
use crate::decode::debezium::Kind;
use crate::decode::old_row;
use crate::decode::scan;
use crate::decode::source_block::Source;
use crate::decode::tables::Tables;
use crate::event::change::Origin;
use crate::event::row::Row;

/// Schema texts remembered for one side of a topic; more than this are versions in a burst of migrations.
const PREFIXES_MAX: usize = 8;
/// Longer prefixes are not remembered.
const PREFIX_BYTES_MAX: usize = 1024 * 1024;

/// All topics of a decoder.
#[derive(Debug)]
pub(crate) struct Topics {
    topics: RwLock<HashMap<Box<str>, Arc<Topic>>>,
    topics_max: usize,
}

/// One topic.
#[derive(Debug, Default)]
pub(crate) struct Topic {
    pub(crate) keys: Side,
    pub(crate) values: Side,
    origin: RwLock<Option<Origin>>,
}

/// The keys or the values of a topic.
#[derive(Debug, Default)]
pub(crate) struct Side {
    names: RwLock<Arc<[Arc<str>]>>,
    prefixes: RwLock<Vec<Prefix>>,
    text_bytes: AtomicUsize,
}

/// `{"schema":…,"payload":`, byte for byte, and what it parses to.
#[derive(Debug, Clone)]
struct Prefix {
    bytes: Arc<[u8]>,
    schema: Arc<ConnectSchema>,
}

/// A schema that came with a payload, and what was found out about it once.
#[derive(Debug)]
pub(crate) struct ConnectSchema {
    ty: Type,
    /// Whether it is of an envelope whose old and new row are read alike.
    pub(crate) rows_are_alike: bool,
    /// The kind of record that its name tells.
    pub(crate) kind: Option<Kind>,
}

impl ConnectSchema {
    pub(crate) fn new(ty: Type) -> Self {
        let mut schema = Self {
            ty,
            rows_are_alike: false,
            kind: None,
        };
        schema.rows_are_alike = schema.as_struct().is_some_and(old_row::rows_are_alike);
        let name = schema.as_struct().and_then(|named| named.name.as_deref());
        schema.kind = name.and_then(Kind::of_name);
        schema
    }

    /// The struct that it describes, as all keys and values but null are.
    pub(crate) fn as_struct(&self) -> Option<&Struct> {
        match &self.ty.kind {
            connect::Kind::Struct(inner) => Some(inner),
            _ => None,
        }
    }
}

impl Topics {
    pub(crate) fn new(topics_max: usize) -> Self {
        Self {
            topics: RwLock::default(),
            topics_max,
        }
    }

    pub(crate) fn of(&self, name: &str) -> Arc<Topic> {
        if let Some(topic) = read(&self.topics).get(name) {
            return Arc::clone(topic);
        }
        let mut topics = write(&self.topics);
        if topics.len() >= self.topics_max {
            topics.clear();
        }
        Arc::clone(topics.entry(name.into()).or_default())
    }
}

impl Topic {
    /// Whether changes of the table that the topic's last record was of are wanted; a topic holds one table, mostly.
    pub(crate) fn is_wanted(&self, wanted: &Tables) -> bool {
        let origin = read(&self.origin);
        origin
            .as_ref()
            .is_some_and(|origin| wanted.contains(&origin.schema, &origin.table))
    }

    /// The origin of a record, sharing its names with the last one of the topic.
    pub(crate) fn origin(&self, source: &Source<'_>) -> Origin {
        let moment = |known: &Origin| Origin {
            tx: source.tx,
            lsn: source.lsn,
            commit_ts_ms: source.ts_ms,
            ..known.clone()
        };
        if let Some(known) = read(&self.origin).as_ref().filter(|known| names_equal(known, source)) {
            return moment(known);
        }
        let named = Origin {
            name: Arc::from(&*source.name),
            db: Arc::from(&*source.db),
            schema: Arc::from(&*source.schema),
            table: Arc::from(&*source.table),
            tx: None,
            lsn: None,
            commit_ts_ms: None,
        };
        let origin = moment(&named);
        *write(&self.origin) = Some(named);
        origin
    }
}

fn names_equal(known: &Origin, source: &Source<'_>) -> bool {
    *known.table == *source.table
        && *known.schema == *source.schema
        && *known.db == *source.db
        && *known.name == *source.name
}

impl Side {
    /// The names of the last row.
    pub(crate) fn names(&self) -> Arc<[Arc<str>]> {
        Arc::clone(&read(&self.names))
    }

    /// About how much text the next row holds, by the last one.
    pub(crate) fn text_bytes(&self) -> usize {
        self.text_bytes.load(Ordering::Relaxed)
    }

    /// Remembers how much text a row holds.
    pub(crate) fn remember_text(&self, row: &Row) {
        self.text_bytes.store(row.text_bytes(), Ordering::Relaxed);
    }

    /// Remembers the names of a row, where they differ from `known`.
    pub(crate) fn remember_names(&self, known: &Arc<[Arc<str>]>, row: &Row) {
        if !Arc::ptr_eq(known, row.names()) && scan::are_printed_alike(row.names()) {
            *write(&self.names) = Arc::clone(row.names());
        }
    }

    /// The schema of a record that begins with a known prefix, and where its payload begins.
    pub(crate) fn known_prefix(&self, record: &[u8]) -> Option<(Arc<ConnectSchema>, usize)> {
        let prefixes = read(&self.prefixes);
        let known = prefixes.iter().find(|prefix| record.starts_with(&prefix.bytes))?;
        Some((Arc::clone(&known.schema), known.bytes.len()))
    }

    /// Remembers a prefix and its schema; the oldest gives way.
    pub(crate) fn remember_prefix(&self, bytes: &[u8], schema: &Arc<ConnectSchema>) {
        if bytes.len() > PREFIX_BYTES_MAX {
            return;
        }
        let mut prefixes = write(&self.prefixes);
        prefixes.truncate(PREFIXES_MAX - 1);
        let prefix = Prefix {
            bytes: bytes.into(),
            schema: Arc::clone(schema),
        };
        prefixes.insert(0, prefix);
    }
}

/// A lock that was held while its thread panicked still guards whole values here: each is written in one assignment.
fn read<T>(lock: &RwLock<T>) -> std::sync::RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> std::sync::RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::connect;

    #[test]
    fn prefixes_and_topics_stay_bounded() {
        let topics = Topics::new(2);
        let side = &topics.of("a").values;
        let schema = Arc::new(ConnectSchema::new(connect::parse(r#"{"type":"string"}"#).unwrap()));
        for version in 0..100 {
            side.remember_prefix(format!("{version:03}").as_bytes(), &schema);
        }
        assert_eq!(read(&side.prefixes).len(), PREFIXES_MAX);
        assert!(side.known_prefix(b"099{}").is_some());
        assert!(side.known_prefix(b"001{}").is_none());
        for name in ["b", "c", "d"] {
            topics.of(name);
        }
        assert!(read(&topics.topics).len() <= 2);
    }
}
