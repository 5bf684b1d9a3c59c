//! The connectors that watch the scenario: this repository's own settings, in each encoding and in other modes.

use afterwrite::clients::connect::ConnectorConfig;

use crate::world::connector_config;

/// `topic.prefix` of every connector. It is the name of the source and so a part of each event's id: the same, so that ids
/// can be compared; the topics are told apart by a prefix that is put before it.
pub(crate) const SOURCE: &str = "capture";

/// One connector, known by the name of its capture.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Connector {
    pub(crate) name: &'static str,
    /// Its file in `connectors/`.
    file: &'static str,
    /// The tables it captures, as a pattern.
    tables: &'static str,
    /// Whether JSON carries its schema.
    has_schema: bool,
    /// What differs from its file.
    settings: &'static [(&'static str, &'static str)],
}

/// All tables but the one that stops a connector that is told to fail rather than to lose.
const EVERYTHING: &str = r"public\.(?!lossy).*";
/// Apicurio's converter looks a schema up by its text alone, and the text of an envelope with references says nothing of its
/// row: after a table has changed it writes values under the names of other columns, or stops.
const UNCHANGING: &str = r"public\.(?!lossy|evolving|generated).*";
/// Few tables, because each record in these captures brings its schema along.
const MODES: &str = r"public\.(modes|campaigns|lossy|finished)";

/// The four encodings, in the recommended modes.
pub(crate) const ENCODINGS: [Connector; 4] = [
    of_encoding("jsn", "waitlist", &[("provide.transaction.metadata", "true")]),
    Connector {
        has_schema: true,
        ..of_encoding("jss", "waitlist", &[("provide.transaction.metadata", "true")])
    },
    of_encoding("avd", "waitlist-avro", &[("provide.transaction.metadata", "true")]),
    Connector {
        tables: UNCHANGING,
        ..of_encoding(
            "avr",
            "waitlist-avro",
            &[
                ("key.converter.apicurio.registry.dereference-schema", "false"),
                ("value.converter.apicurio.registry.dereference-schema", "false"),
                ("provide.transaction.metadata", "true"),
            ],
        )
    },
];

const fn of_encoding(
    name: &'static str,
    file: &'static str,
    settings: &'static [(&'static str, &'static str)],
) -> Connector {
    Connector {
        name,
        file,
        tables: EVERYTHING,
        has_schema: false,
        settings,
    }
}

/// Settings of a connector's file that Debezium's defaults do without.
const RECOMMENDED: [&str; 8] = [
    "decimal.handling.mode",
    "time.precision.mode",
    "interval.handling.mode",
    "binary.handling.mode",
    "hstore.handling.mode",
    "event.converting.failure.handling.mode",
    "key.converter.replace.null.with.default",
    "value.converter.replace.null.with.default",
];

/// Other modes, in JSON with schema: Debezium's defaults, and each of the others once.
pub(crate) const OTHERS: [Connector; 6] = [
    of_modes("def", &[]),
    of_modes(
        "atm",
        &[
            ("time.precision.mode", "adaptive_time_microseconds"),
            ("decimal.handling.mode", "double"),
        ],
    ),
    of_modes(
        "mic",
        &[("time.precision.mode", "microseconds"), ("binary.handling.mode", "hex")],
    ),
    of_modes(
        "nan",
        &[
            ("time.precision.mode", "nanoseconds"),
            ("binary.handling.mode", "base64-url-safe"),
        ],
    ),
    of_modes(
        "con",
        &[
            ("time.precision.mode", "connect"),
            ("hstore.handling.mode", "map"),
            ("binary.handling.mode", "base64"),
        ],
    ),
    of_modes(
        "str",
        &[
            ("time.precision.mode", "structured"),
            ("include.unknown.datatypes", "true"),
        ],
    ),
];

const fn of_modes(name: &'static str, settings: &'static [(&'static str, &'static str)]) -> Connector {
    Connector {
        name,
        file: "waitlist",
        tables: MODES,
        has_schema: true,
        settings,
    }
}

impl Connector {
    /// Its configuration for a database; `topics` is what its topics begin with.
    pub(crate) fn config(&self, database: &str, user: &str, topics: &str) -> ConnectorConfig {
        let name = self.name;
        let mut config: ConnectorConfig = connector_config(self.file)
            .into_iter()
            .map(|(key, value)| (key, value.as_str().unwrap().to_owned()))
            .collect();
        config.retain(|key, _| !key.starts_with("column.exclude"));
        if self.tables == MODES {
            config.retain(|key, _| !RECOMMENDED.contains(&key.as_str()));
        }
        let pattern = format!(r"{SOURCE}\.public\.(users|referrals)");
        for (key, value) in [
            ("topic.prefix", SOURCE),
            ("database.dbname", database),
            ("database.user", user),
            ("slot.name", &slot(database, name)),
            ("publication.name", "capture"),
            ("snapshot.mode", "initial"),
            ("table.include.list", &format!(r"{},dbz\.heartbeat_{name}", self.tables)),
            ("signal.data.collection", &format!("dbz.signal_{name}")),
            ("tombstones.on.delete", "true"),
            ("heartbeat.interval.ms", "250"),
            ("heartbeat.action.query", &heartbeat(name)),
            ("status.update.interval.ms", "250"),
            ("notification.enabled.channels", "sink"),
            ("notification.sink.topic.name", "notifications"),
            ("topic.creation.default.partitions", "3"),
            // Metrics are named after the source, which is the same for all.
            ("custom.metric.tags", &format!("capture={name}")),
            ("transforms", "route,rename"),
            ("transforms.route.partition.topic.num", "3"),
            ("predicates.ofACampaign.pattern", &pattern),
            (
                "transforms.rename.type",
                "org.apache.kafka.connect.transforms.RegexRouter",
            ),
            ("transforms.rename.regex", "(.*)"),
            ("transforms.rename.replacement", &format!("{topics}.$1")),
        ] {
            config.insert(key.to_owned(), value.to_owned());
        }
        if self.has_schema {
            for key in ["key.converter.schemas.enable", "value.converter.schemas.enable"] {
                config.insert(key.to_owned(), "true".to_owned());
            }
        }
        let own = self.settings.iter();
        config.extend(own.map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
        config
    }

    /// The tables that it has for itself: signals to it, and its heartbeat.
    pub(crate) fn tables(&self) -> String {
        let name = self.name;
        format!(
            "CREATE TABLE dbz.signal_{name} (id text PRIMARY KEY, type text NOT NULL, data text);
             CREATE TABLE dbz.heartbeat_{name} (id int PRIMARY KEY, at timestamptz NOT NULL);"
        )
    }
}

/// The replication slot of a connector.
pub(crate) fn slot(database: &str, connector: &str) -> String {
    format!("{database}_{connector}")
}

fn heartbeat(name: &str) -> String {
    format!("INSERT INTO dbz.heartbeat_{name} VALUES (1, now()) ON CONFLICT (id) DO UPDATE SET at = excluded.at")
}
