//! Every kind of finding: its name, where it is found, how bad it is, and why it matters.
//!
//! docs/DOCTOR.md lists the same, which a test sees to. A name that was released never changes.

use super::finding::Code;
use super::finding::Leg::{
    Connect, Connector, Groups, Handlers, Letters, Postgres, Probe, Publication, Registry, Roles, Schema, Slot, Tables,
    Topics,
};

pub(super) const POSTGRES_UNREACHABLE: &Code = &Code::error(
    Postgres,
    "postgres-unreachable",
    "Everything is kept in Postgres: without it nothing is captured and nothing is handled.",
);
pub(super) const STANDBY: &Code = &Code::error(
    Postgres,
    "standby",
    "A standby takes no writes: handlers cannot commit, and nothing is settled.",
);
pub(super) const WAL_LEVEL: &Code = &Code::error(
    Postgres,
    "wal-level",
    "The log holds too little to be decoded: nothing at all is captured.",
);
pub(super) const ENCODING: &Code = &Code::error(
    Postgres,
    "encoding",
    "Debezium reads databases in UTF8 only; texts of others arrive damaged or stop the connector.",
);
pub(super) const SLOTS_FULL: &Code = &Code::warning(
    Postgres,
    "slots-full",
    "No further replication slot can be made: a connector or group that begins anew cannot start.",
);
pub(super) const SENDERS_FULL: &Code = &Code::warning(
    Postgres,
    "senders-full",
    "No further session may read the log: whoever reconnects is refused.",
);
pub(super) const KEEP_UNLIMITED: &Code = &Code::warning(
    Postgres,
    "keep-unlimited",
    "A connector or group that is stopped fills the disk of Postgres; then Postgres stops.",
);
pub(super) const CLOCK_SKEW: &Code = &Code::warning(
    Postgres,
    "clock-skew",
    "Ages, limits and retention are judged by clocks that do not agree.",
);
pub(super) const TRANSACTION_OPEN: &Code = &Code::warning(
    Postgres,
    "transaction-open",
    "Log is kept from its beginning on, rows it could see are not cleaned up, and a new slot waits for it.",
);
pub(super) const HORIZON_OLD: &Code = &Code::warning(
    Postgres,
    "horizon-old",
    "Rows that died since are not cleaned up, of the system's tables at least: these grow, and in the end Postgres takes no more writes.",
);
pub(super) const TABLE_MISSING: &Code = &Code::error(Tables, "table-missing", "Its handler is never woken.");
pub(super) const NO_KEY: &Code = &Code::error(
    Tables,
    "no-key",
    "Rows that cannot be told apart have events that cannot be told apart: the worker refuses to start, for nothing could be done once.",
);
pub(super) const IDENTITY_NONE: &Code = &Code::error(
    Tables,
    "identity-none",
    "Postgres refuses every UPDATE and DELETE of the table while it is published: the application fails.",
);
pub(super) const IDENTITY_PART: &Code = &Code::error(
    Tables,
    "identity-part",
    "Old rows are not logged: handlers do not see what changed, and deletes may reach the wrong partition.",
);
pub(super) const COLUMNS_ALIKE: &Code = &Code::error(
    Tables,
    "columns-alike",
    "Debezium reads names of columns without regard to case: the connector stops.",
);
pub(super) const IDENTITY_GENERATED: &Code = &Code::error(
    Tables,
    "identity-generated",
    "Postgres 18 refuses every UPDATE and DELETE of the table: whole old rows hold a generated column that is not published.",
);
pub(super) const COLUMNS_ABSENT: &Code = &Code::note(
    Tables,
    "columns-absent",
    "No event has them: a handler that asks for them finds them absent. Their changes alone wake nobody.",
);
pub(super) const NAMES: &Code = &Code::error(
    Tables,
    "names",
    "The waitlist's handlers read tables and columns that are not as they expect: their SQL fails.",
);
pub(super) const MIGRATIONS: &Code = &Code::error(
    Schema,
    "migrations",
    "The worker's tables are older than this binary: it does not start, or fails at what it does not find.",
);
pub(super) const MIGRATIONS_NEWER: &Code = &Code::warning(
    Schema,
    "migrations-newer",
    "A binary that is older than its tables may write what newer processes do not expect.",
);
pub(super) const HEARTBEAT_MISSING: &Code = &Code::error(
    Schema,
    "heartbeat-missing",
    "The connector writes it with every heartbeat: without it the task fails, and the slot of an idle database stands still.",
);
pub(super) const LEDGER_TODAY: &Code = &Code::error(
    Schema,
    "ledger-today",
    "What is committed today has no place in the ledger: jobs wait until a worker has made one.",
);
pub(super) const LEDGER_TOMORROW: &Code = &Code::warning(
    Schema,
    "ledger-tomorrow",
    "From midnight (UTC) on jobs wait until a worker has made the day; workers make them ahead, so none has for days.",
);
pub(super) const SOURCE_DIFFERS: &Code = &Code::error(
    Schema,
    "source-differs",
    "A group reads one source at a time: with this setting its processes refuse to start.",
);
pub(super) const PUBLICATION_MISSING: &Code = &Code::error(
    Publication,
    "publication-missing",
    "No change of any table is sent. What is written meanwhile cannot be decoded later either, and stops the connector.",
);
pub(super) const PUBLICATION_YOUNG: &Code = &Code::error(
    Publication,
    "publication-young",
    "Postgres cannot decode log by a publication that was made after it, and the connector will never get past it: nothing is captured.",
);
pub(super) const PUBLICATION_TABLES: &Code = &Code::error(
    Publication,
    "publication-tables",
    "Their changes are not sent: handlers that wait for them are never woken, and nothing says so.",
);
pub(super) const PUBLICATION_OPERATIONS: &Code = &Code::error(
    Publication,
    "publication-operations",
    "Changes of these kinds are not sent, and nothing says so.",
);
pub(super) const PUBLICATION_FILTER: &Code = &Code::error(
    Publication,
    "publication-filter",
    "An update that crosses the filter arrives as a create or a delete; with whole old rows Postgres refuses the application's updates.",
);
pub(super) const PUBLICATION_ROOT: &Code = &Code::error(
    Publication,
    "publication-root",
    "Handlers are routed by the name of the table and are not woken by those of its partitions.",
);
pub(super) const READER_MISSING: &Code = &Code::error(
    Roles,
    "reader-missing",
    "Nobody can read the log under that name: nothing is captured.",
);
pub(super) const READER_ATTRIBUTES: &Code = &Code::error(
    Roles,
    "reader-attributes",
    "Postgres refuses its next replication session: nothing is captured from then on.",
);
pub(super) const CONNECTOR_GRANTS: &Code = &Code::error(
    Roles,
    "connector-grants",
    "The connector cannot read or write what it needs: its task fails, or its slot stands still.",
);
pub(super) const WORKER_GRANTS: &Code = &Code::error(
    Roles,
    "worker-grants",
    "Handlers fail at what they may not do, and their jobs become dead letters.",
);
pub(super) const LEDGER_OWNER: &Code = &Code::error(
    Roles,
    "ledger-owner",
    "Only the owner adds days to the ledger: jobs of a new day wait.",
);
pub(super) const SLOT_MISSING: &Code = &Code::error(
    Slot,
    "slot-missing",
    "Nothing holds the connector's place: what was written since it went is captured by nobody.",
);
pub(super) const SLOT_FOREIGN: &Code = &Code::error(Slot, "slot-foreign", "The connector cannot read it.");
pub(super) const SLOT_INACTIVE: &Code = &Code::error(
    Slot,
    "slot-inactive",
    "Nothing is captured, and the log is kept until the disk is full or the slot is lost.",
);
pub(super) const SLOT_LOST: &Code = &Code::error(
    Slot,
    "slot-lost",
    "Changes that were not read are gone from the log: no handler will ever see them.",
);
pub(super) const SLOT_DANGER: &Code = &Code::error(
    Slot,
    "slot-danger",
    "When the slot is lost, changes that were not read are gone.",
);
pub(super) const SLOT_LAG: &Code = &Code::warning(
    Slot,
    "slot-lag",
    "The disk of Postgres fills, and a restart of the connector takes long.",
);
pub(super) const SLOT_HOARDS: &Code = &Code::warning(
    Slot,
    "slot-hoards",
    "The disk of Postgres fills for somebody who may never come back.",
);
pub(super) const SLOT_HELD: &Code = &Code::warning(
    Slot,
    "slot-held",
    "A transaction that is open for long began to write before it: its log is kept until it ends, and the disk of Postgres fills.",
);
pub(super) const SLOT_TWO_PHASE: &Code = &Code::error(
    Slot,
    "slot-two-phase",
    "Transactions arrive when they are prepared, in messages that Debezium does not know: the first one stops the connector.",
);
pub(super) const SLOT_FAILOVER: &Code = &Code::warning(
    Slot,
    "slot-failover",
    "The standby does not get the slot: after a failover nothing says what was missed.",
);
pub(super) const GROUP_SLOT_GONE: &Code = &Code::error(
    Slot,
    "group-slot-gone",
    "The group does not start, because it would pass over what was written since.",
);
pub(super) const CONNECT_UNREACHABLE: &Code = &Code::error(
    Connect,
    "connect-unreachable",
    "Where Kafka Connect is down nothing is captured, and Postgres keeps the log.",
);
pub(super) const PLUGIN_MISSING: &Code = &Code::error(
    Connect,
    "plugin-missing",
    "Without Debezium no connector for Postgres can run.",
);
pub(super) const PLUGIN_OLD: &Code = &Code::warning(
    Connect,
    "plugin-old",
    "Before 3.7 a restart loses rows of a COPY, and with Postgres 17 the first row of a transaction (dbz#1554, dbz#76).",
);
pub(super) const CONNECTOR_MISSING: &Code =
    &Code::error(Connector, "connector-missing", "Nothing captures this source.");
pub(super) const PREFIX_DIFFERS: &Code = &Code::error(
    Connector,
    "prefix-differs",
    "The groups read topics that nobody writes.",
);
pub(super) const CONNECTOR_FAILED: &Code = &Code::error(
    Connector,
    "connector-failed",
    "Nothing is captured until it is restarted; Postgres keeps the log.",
);
pub(super) const CONNECTOR_PAUSED: &Code = &Code::error(
    Connector,
    "connector-paused",
    "Nothing is captured; Postgres keeps the log.",
);
pub(super) const CONNECTOR_STOPPED: &Code = &Code::error(
    Connector,
    "connector-stopped",
    "Nothing is captured; Postgres keeps the log.",
);
pub(super) const CONNECTOR_IDLE: &Code = &Code::error(
    Connector,
    "connector-idle",
    "No task of it runs: nothing is captured, and Postgres keeps the log.",
);
pub(super) const CONNECTOR_TWICE: &Code = &Code::error(
    Connector,
    "connector-twice",
    "Two that share a slot take changes from each other; two that share a prefix write each change twice.",
);
pub(super) const CONNECTOR_DATABASE: &Code = &Code::error(
    Connector,
    "connector-database",
    "Changes of another database than the worker's are captured.",
);
pub(super) const OFFSET_GAP: &Code = &Code::error(
    Connector,
    "offset-gap",
    "The slot was made anew, or somebody else moved it: what was written in between is captured by nobody, and the connector fails or goes over it.",
);
pub(super) const OFFSET_AHEAD: &Code = &Code::error(
    Connector,
    "offset-ahead",
    "It is a place in the log of another server, or of this one before a restore: every change is passed over until the log comes there.",
);
pub(super) const EXACTLY_ONCE_OFF: &Code = &Code::warning(
    Connector,
    "exactly-once-off",
    "What the connector asks for it does not get: after a crash of Connect changes are written twice, and who reads them without looking at ids takes them twice.",
);
pub(super) const HEARTBEAT_STALE: &Code = &Code::warning(
    Connector,
    "heartbeat-stale",
    "While the connector is silent it confirms nothing: Postgres keeps the log, and nobody can tell how far behind it is.",
);
pub(super) const HEARTBEAT_HIDDEN: &Code = &Code::note(
    Connector,
    "heartbeat-hidden",
    "A connector that runs and stands still looks like one that has nothing to do.",
);
pub(super) const COLUMNS_COLLIDE: &Code = &Code::error(
    Connector,
    "columns-collide",
    "Columns that become one name when names are adjusted cannot stand in one event: the connector stops.",
);
pub(super) const COLUMNS_RENAMED: &Code = &Code::note(
    Connector,
    "columns-renamed",
    "Events have the adjusted name: a handler that asks for the name of the table finds the column absent.",
);
pub(super) const VALUES_UNFIT: &Code = &Code::warning(
    Connector,
    "values-unfit",
    "The columns may hold values that Debezium cannot convert in these modes: the first one stops the connector, or arrives as null or as another value.",
);
pub(super) const NULLABLE_DEFAULTS: &Code = &Code::warning(
    Connector,
    "nullable-defaults",
    "Apicurio's converter writes the default where the row has null, and no setting stops it.",
);
pub(super) const KAFKA_UNREACHABLE: &Code = &Code::error(
    Topics,
    "kafka-unreachable",
    "Nothing is delivered to any group, and the connector cannot write.",
);
pub(super) const TOPICS_UNREAD: &Code = &Code::warning(
    Topics,
    "topics-unread",
    "The brokers answer, and did not tell how they keep the topics: whether these lose records is not known.",
);
pub(super) const TOPIC_DENIED: &Code = &Code::error(
    Topics,
    "topic-denied",
    "To who may not describe it a topic is not there: the group reads nothing of it, and nothing says so.",
);
pub(super) const TOPICS_HIDDEN: &Code = &Code::warning(
    Topics,
    "topics-hidden",
    "Whether they lose records cannot be checked, neither here nor by the worker.",
);
pub(super) const TOPIC_COMPACTED: &Code = &Code::error(
    Topics,
    "topic-compacted",
    "Changes are removed before a group that is behind has read them.",
);
pub(super) const TOPIC_RETENTION: &Code = &Code::warning(
    Topics,
    "topic-retention",
    "A group that is stopped or behind for longer loses what it has not read.",
);
pub(super) const TOPIC_INSYNC: &Code = &Code::error(
    Topics,
    "topic-insync",
    "No record is accepted with acks=all: the connector stands still.",
);
pub(super) const TOPIC_ALONE: &Code =
    &Code::warning(Topics, "topic-alone", "A broker that fails takes the topic with it.");
pub(super) const TOPIC_SMALL: &Code = &Code::error(Topics, "topic-small", "A larger change stops the connector.");
pub(super) const TOPIC_PARTITIONS: &Code = &Code::error(
    Topics,
    "topic-partitions",
    "The first change for a partition that is not there stops the connector.",
);
pub(super) const TOPIC_GONE: &Code = &Code::error(
    Topics,
    "topic-gone",
    "What it held and the group had not read is lost, and its positions mean nothing in a new one.",
);
pub(super) const REGISTRY_UNREACHABLE: &Code = &Code::error(
    Registry,
    "registry-unreachable",
    "Partitions with schemas that are not known yet wait; the connector stops at a new schema.",
);
pub(super) const REGISTRY_REFUSED: &Code = &Code::error(
    Registry,
    "registry-refused",
    "Schemas cannot be read: partitions with records that need them wait.",
);
pub(super) const REGISTRY_COMPATIBILITY: &Code = &Code::warning(
    Registry,
    "registry-compatibility",
    "An ALTER TABLE that it takes for incompatible stops the connector; the worker reads each record by its own schema and needs no such rule.",
);
pub(super) const SCHEMA_ID_UNREAD: &Code = &Code::error(
    Registry,
    "schema-id-unread",
    "The id of the schema is not where the decoder looks: records like this become dead letters.",
);
pub(super) const SCHEMA_UNKNOWN: &Code = &Code::error(
    Registry,
    "schema-unknown",
    "The registry has no such schema: records that were written with it become dead letters.",
);
pub(super) const SCHEMA_FOREIGN: &Code = &Code::error(
    Registry,
    "schema-foreign",
    "The registry has another schema under that id than the record was written with: such records become dead letters, or other values.",
);
pub(super) const GROUP_DENIED: &Code = &Code::error(
    Groups,
    "group-denied",
    "A worker that the brokers know by this name can neither join the group nor commit: nothing of it is handled.",
);
pub(super) const GROUP_IDLE: &Code = &Code::error(
    Groups,
    "group-idle",
    "Its changes wait, and are lost when retention or the slot's limit overtakes it.",
);
pub(super) const GROUP_POSITION: &Code = &Code::error(
    Groups,
    "group-position",
    "The partition is stopped, and only you know whether what is missing matters.",
);
pub(super) const GROUP_NEAR_RETENTION: &Code = &Code::error(
    Groups,
    "group-near-retention",
    "When the topic removes the record first, nobody will ever handle it.",
);
pub(super) const PARTITION_SILENT: &Code = &Code::warning(
    Groups,
    "partition-silent",
    "Records of these partitions are neither written nor delivered.",
);
pub(super) const PROCESS_GONE: &Code = &Code::warning(
    Groups,
    "process-gone",
    "It died or is cut off; when others do not take its partitions over, these stand still.",
);
pub(super) const HANDLER_SUSPENDED: &Code = &Code::warning(
    Handlers,
    "handler-suspended",
    "Its jobs wait for what it calls; only probes are let through.",
);
pub(super) const MAIL_UNREACHABLE: &Code = &Code::warning(
    Handlers,
    "mail-server-unreachable",
    "Mails wait until it answers; nothing is lost meanwhile.",
);
pub(super) const LETTERS_OPEN: &Code = &Code::warning(
    Letters,
    "letters-open",
    "What they were about was not done, and will not be until somebody decides.",
);
pub(super) const LETTERS_TOPIC_MISSING: &Code = &Code::error(
    Letters,
    "letters-topic-missing",
    "The next dead letter cannot be written: its lane waits, and commits stop behind it.",
);
pub(super) const LETTERS_TOPIC_UNFIT: &Code = &Code::error(
    Letters,
    "letters-topic-unfit",
    "Letters are lost or refused, and the group does not start.",
);
pub(super) const LETTERS_RETENTION: &Code = &Code::warning(
    Letters,
    "letters-retention",
    "Letters that are older cannot be replayed any more.",
);
pub(super) const PROBE_UNWRITABLE: &Code = &Code::error(Probe, "probe-unwritable", "Handlers cannot write either.");
pub(super) const PROBE_LOST: &Code = &Code::error(
    Probe,
    "probe-lost",
    "A row that was committed did not come out at the other end: neither do those of the application.",
);
pub(super) const PROBE_UNDECODABLE: &Code = &Code::error(
    Probe,
    "probe-undecodable",
    "What the connector writes cannot be read: records become dead letters.",
);
