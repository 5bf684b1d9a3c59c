//! The kinds of finding about a connector's settings; [`codes`](super::codes) has all others.

use super::finding::Code;
use super::finding::Leg::Connector;

pub(super) const LINT_PLUGIN: &Code = &Code::error(
    Connector,
    "lint-plugin",
    "The default is another decoder (decoderbufs), which the server does not have.",
);
pub(super) const LINT_AUTOCREATE: &Code = &Code::warning(
    Connector,
    "lint-autocreate",
    "The connector makes or alters the publication: for all tables it makes updates of tables without a key fail, and it can take tables from other readers.",
);
pub(super) const LINT_SLOT_DROP: &Code = &Code::error(
    Connector,
    "lint-slot-drop",
    "Each stop of the connector drops its slot, also the stop by which this setting is changed: what is written until it runs again is captured by nobody.",
);
pub(super) const LINT_SNAPSHOT: &Code = &Code::warning(
    Connector,
    "lint-snapshot",
    "Rows that a snapshot reads wake nobody, and changes that are made during one can arrive as such reads.",
);
pub(super) const LINT_SKIPPED: &Code = &Code::error(
    Connector,
    "lint-skipped",
    "Changes of these kinds are left out, and nothing says so.",
);
pub(super) const LINT_TRUNCATES: &Code = &Code::warning(
    Connector,
    "lint-truncates",
    "A TRUNCATE of the application is left out (the default).",
);
pub(super) const LINT_CONVERTING: &Code = &Code::error(
    Connector,
    "lint-converting",
    "A value that cannot be converted arrives as null (the default), and only the log of Connect says so.",
);
pub(super) const LINT_PROCESSING: &Code = &Code::error(
    Connector,
    "lint-processing",
    "A change that cannot be processed is left out, and only the log of Connect says so.",
);
pub(super) const LINT_TOLERANCE: &Code = &Code::error(
    Connector,
    "lint-tolerance",
    "A record that cannot be converted or transformed is left out, and nothing says so.",
);
pub(super) const LINT_HEARTBEAT: &Code = &Code::warning(
    Connector,
    "lint-heartbeat",
    "While captured tables are idle the slot stands still, and Postgres keeps the log of all others (the default).",
);
pub(super) const LINT_HEARTBEAT_QUERY: &Code = &Code::warning(
    Connector,
    "lint-heartbeat-query",
    "While captured tables are idle no change confirms the slot, and Postgres keeps the log of all others.",
);
pub(super) const LINT_MISMATCH: &Code = &Code::warning(
    Connector,
    "lint-mismatch",
    "After its slot was made anew the connector goes on as if nothing were missing.",
);
pub(super) const LINT_ESCAPES: &Code = &Code::error(
    Connector,
    "lint-escapes",
    "Each underscore in the name of a column is written as _u005f: handlers find their columns absent.",
);
pub(super) const LINT_KEYS: &Code = &Code::error(
    Connector,
    "lint-keys",
    "Rows that are not the same share a key, and so the id of their event: one of them is taken for a repetition.",
);
pub(super) const LINT_COMPACT: &Code = &Code::error(
    Connector,
    "lint-compact",
    "Compaction removes changes that a group has not read from topics that are made so.",
);
pub(super) const LINT_ACKS: &Code = &Code::error(
    Connector,
    "lint-acks",
    "A broker that fails takes acknowledged records with it.",
);
pub(super) const LINT_NULLS: &Code = &Code::error(
    Connector,
    "lint-nulls",
    "Null in a nullable column with a default arrives as that default, and nobody can tell it from a value.",
);
pub(super) const LINT_LATEST: &Code = &Code::error(
    Connector,
    "lint-latest",
    "A record may be written with a schema that is not its own, and decodes to wrong values.",
);
pub(super) const LINT_REFERENCES: &Code = &Code::error(
    Connector,
    "lint-references",
    "After ALTER TABLE the schema of before goes on being used: values stand under the names of their neighbours.",
);
pub(super) const LINT_WIRE: &Code = &Code::error(
    Connector,
    "lint-wire",
    "The id of the schema is where the decoder does not look: every record becomes a dead letter.",
);
pub(super) const LINT_NAMES: &Code = &Code::warning(
    Connector,
    "lint-names",
    "Names that are no names in Avro stop the connector.",
);
pub(super) const LINT_TABLES: &Code = &Code::error(
    Connector,
    "lint-tables",
    "Their changes are not captured: handlers that wait for them are never woken, and nothing says so.",
);
pub(super) const LINT_COLUMNS: &Code = &Code::error(
    Connector,
    "lint-columns",
    "What should never leave the database, such as tokens and addresses, is written to Kafka.",
);
pub(super) const LINT_MODES: &Code = &Code::error(
    Connector,
    "lint-modes",
    "JSON without schema does not say what a value means: typed handlers read it as [source] says, which is otherwise.",
);
pub(super) const LINT_UNWRAPPED: &Code = &Code::error(
    Connector,
    "lint-unwrapped",
    "Rows without their envelope have no identity: every record becomes a dead letter.",
);
pub(super) const LINT_TOMBSTONES: &Code = &Code::warning(
    Connector,
    "lint-tombstones",
    "Tombstones are not routed: they land in other partitions than their deletes.",
);
pub(super) const LINT_SLOT_NAME: &Code = &Code::warning(
    Connector,
    "lint-slot-name",
    "Connectors without a name for their slot share one, debezium, and take changes from each other.",
);
pub(super) const LINT_PUBLICATION_NAME: &Code = &Code::warning(
    Connector,
    "lint-publication-name",
    "The default, dbz_publication, is not what migrate makes: the connector fails, or captures what others chose.",
);
pub(super) const LINT_FAILOVER: &Code = &Code::warning(
    Connector,
    "lint-failover",
    "The standby gets the slot only when both servers are set up for it; after a failover without it nothing says what was missed.",
);
pub(super) const LINT_SNAPSHOT_GONE: &Code = &Code::error(
    Connector,
    "lint-snapshot-gone",
    "Debezium knows the mode no more: the connector does not start.",
);
pub(super) const LINT_SNAPSHOT_ONLY: &Code = &Code::error(
    Connector,
    "lint-snapshot-only",
    "Tables are read once, and no change after that is captured.",
);
pub(super) const LINT_THREADS: &Code = &Code::warning(
    Connector,
    "lint-threads",
    "Before Debezium 3.6.2 the threads of a snapshot may read tables as of different moments.",
);
pub(super) const LINT_POOLER: &Code = &Code::warning(
    Connector,
    "lint-pooler",
    "A pooler gives a replication session to others between two statements, or refuses it: capture stops.",
);
pub(super) const LINT_STATEMENTS: &Code = &Code::warning(
    Connector,
    "lint-statements",
    "They are not run on the session that reads the log: what they are to change is not changed there.",
);
pub(super) const LINT_FLUSH: &Code = &Code::error(
    Connector,
    "lint-flush",
    "The slot is never confirmed: Postgres keeps all log until the disk is full.",
);
pub(super) const LINT_DRIVER_FLUSH: &Code = &Code::warning(
    Connector,
    "lint-driver-flush",
    "The slot is confirmed further than the connector has written down: after a restart it fails, or goes over what it has not read.",
);
pub(super) const LINT_SIZE: &Code = &Code::warning(
    Connector,
    "lint-size",
    "A change that is larger than a producer sends, or a topic takes, stops the connector; the defaults are 1 MiB.",
);
