//! What each part is told, from the configuration.

use std::sync::Arc;
use std::time::Duration;

use crate::clients::brokers::Access;
use crate::clients::connect::{ConnectClient, ConnectError};
use crate::config::engine::{Engine as EngineSettings, OnBury, OnUndecodable};
use crate::config::kafka::{Assignor, CLAIM_WAIT_MS, COMMIT_WAIT_MS, GroupProtocol, Kafka, REVOKE_MARGIN_MS};
use crate::config::value::Secret;
use crate::config::{Config, SourceKind};
use crate::dead_letter::sink::Writing;
use crate::dead_letter::topic;
use crate::decode::options::{Format, Options};
use crate::decode::registry::Registry;
use crate::decode::registry::client::{RegistrySettings, SettingsError};
use crate::decode::tables::Tables;
use crate::engine::core::messages::{HandlerLimits, Limits};
use crate::engine::driver::{self, Times};
use crate::engine::retry::Policy;
use crate::engine::suspend::SuspendPolicy;
use crate::handler::{Ordering, Route, Spec};
use crate::source::kafka;
use crate::source::kafka::Budgets;
use crate::source::kafka::protocol::{EagerAssignor, Membership, Protocol, RemoteAssignor, Session};
use crate::source::wal;
use crate::source::wal::connection::AddressError;

/// Positions that are reserved ahead: as many are suspects after a death, and each costs one more commit then.
const RESERVED_AHEAD: i64 = 1_000;

/// How dead letters are written.
pub fn writing(config: &Config) -> Writing {
    Writing {
        error_bytes_max: config.dead_letters.error_bytes_max,
        acknowledge_max: Duration::from_millis(config.dead_letters.write_timeout_ms),
    }
}

/// How the topics of letters are reached; `None` where there is no broker, and Postgres keeps all letters.
pub fn letter_topics(config: &Config) -> Option<topic::Options> {
    let has_brokers = config.source.kind.has_brokers();
    has_brokers.then(|| dead_letter_topics(config))
}

/// How dead-letter topics are made, and reached.
pub fn dead_letter_topics(config: &Config) -> topic::Options {
    let letters = &config.dead_letters;
    topic::Options {
        brokers: config.kafka.brokers.clone(),
        properties: properties(config),
        partitions: letters.partitions,
        replicas: letters.replication_factor,
        retention: Duration::from_millis(letters.retention_ms.unsigned_abs()),
        message_bytes_max: letters.message_bytes_max as usize,
    }
}

/// How a group reads the write-ahead log.
///
/// # Errors
/// When the address of the database is none that the log can be read at.
pub(super) fn wal_options(config: &Config, group: &str, spec: &Spec) -> Result<wal::Options, AddressError> {
    let log = &config.wal;
    let address = log.url.as_ref().unwrap_or(&config.postgres.url);
    Ok(wal::Options {
        connection: address.expose().parse()?,
        group: group.to_owned(),
        publication: log.publication.clone(),
        name: config.source.name.clone(),
        wanted: wanted(spec),
        excluded: log.excluded_columns.clone(),
        unavailable: decode_options(config).unavailable_placeholder,
        log_behind: Arc::default(),
        leaves: Arc::default(),
        tells_lag: log.slot_lag_bytes_max > 0,
    })
}

/// The tables that a handler is routed to.
fn wanted(spec: &Spec) -> Tables {
    Tables::named(spec.routes.iter().map(|route| (&*route.schema, &*route.table)))
}

/// The topics that a group reads: names, and patterns from `^` to `$`.
pub fn topics(config: &Config, group: &str, spec: &Spec) -> Vec<String> {
    let name = &config.source.name;
    // Heartbeat topics are not subscribed: an assignor that balances by number would give one process their partitions,
    // and another all those with work.
    let topic = |route: &Route| format!("{name}.{}.{}", route.schema, route.table);
    let mut topics: Vec<String> = match config.topics_of(group) {
        [] => spec.routes.iter().map(topic).collect(),
        chosen => chosen.to_vec(),
    };
    topics.sort_unstable();
    topics.dedup();
    topics
}

/// What a group reads, for people: topics, or tables of the write-ahead log.
pub(super) fn reads(config: &Config, group: &str, spec: &Spec) -> Vec<String> {
    let table = |route: &Route| format!("{}.{}", route.schema, route.table);
    match config.source.kind {
        SourceKind::Kafka => topics(config, group, spec),
        SourceKind::Wal => spec.routes.iter().map(table).collect(),
    }
}

/// Where a group starts that never ran; any other goes on where it was.
pub(super) fn first_start(config: &Config) -> &'static str {
    match (config.source.kind, &config.kafka.start) {
        (SourceKind::Kafka, crate::config::kafka::Start::Earliest) => "earliest",
        (SourceKind::Kafka, crate::config::kafka::Start::Latest) => "latest",
        (SourceKind::Wal, _) => "now",
    }
}

pub(super) fn source_options(config: &Config, group: &str, spec: &Spec, settings: &EngineSettings) -> kafka::Options {
    let refresh = (
        "topic.metadata.refresh.interval.ms".to_owned(),
        config.kafka.metadata_refresh_ms.to_string(),
    );
    let mut all = properties(config);
    all.insert(0, refresh);
    kafka::Options {
        brokers: config.kafka.brokers.clone(),
        group: group.to_owned(),
        wanted: wanted(spec),
        topics: topics(config, group, spec),
        start: match config.kafka.start {
            crate::config::kafka::Start::Earliest => kafka::Start::Earliest,
            crate::config::kafka::Start::Latest => kafka::Start::Latest,
        },
        properties: all,
        membership: membership(&config.kafka),
        budgets: budgets(settings),
        events_behind: Arc::default(),
    }
}

/// How the process takes part in its groups. What the protocol does not have was refused with the configuration.
pub fn membership(kafka: &Kafka) -> Membership {
    let session = Session {
        timeout: kafka.session_timeout(),
        heartbeat: kafka.heartbeat_interval(),
    };
    let protocol = match kafka.group_protocol {
        GroupProtocol::CooperativeSticky => Protocol::CooperativeSticky(session),
        GroupProtocol::Eager => Protocol::Eager(
            session,
            match kafka.assignor {
                Some(Assignor::RoundRobin) => EagerAssignor::RoundRobin,
                _ => EagerAssignor::Range,
            },
        ),
        GroupProtocol::Consumer => Protocol::Consumer(match kafka.assignor {
            Some(Assignor::Uniform) => RemoteAssignor::Uniform,
            Some(Assignor::Range) => RemoteAssignor::Range,
            _ => RemoteAssignor::BrokersChoice,
        }),
    };
    Membership {
        protocol,
        instance: kafka.instance_id.clone(),
    }
}

/// How long a rebalance may keep the source waiting.
pub fn budgets(settings: &EngineSettings) -> Budgets {
    Budgets {
        revoke: Duration::from_millis(settings.revoke_grace_ms + REVOKE_MARGIN_MS),
        commit: Duration::from_millis(COMMIT_WAIT_MS),
        claim: Duration::from_millis(CLAIM_WAIT_MS),
    }
}

/// How the source's topics are read by a command that only looks.
pub fn reading_options(config: &Config) -> kafka::Options {
    kafka::Options {
        brokers: config.kafka.brokers.clone(),
        group: "afterwrite.reader".to_owned(),
        wanted: Tables::all(),
        topics: Vec::new(),
        start: kafka::Start::Latest,
        properties: properties(config),
        membership: Membership::default(),
        budgets: Budgets::NONE,
        events_behind: Arc::default(),
    }
}

/// How the brokers are reached.
pub fn broker_options(config: &Config) -> Access {
    Access {
        brokers: config.kafka.brokers.clone(),
        properties: properties(config),
    }
}

/// Kafka Connect, as `[connect]` says.
///
/// # Errors
/// When the HTTP client cannot be made.
pub fn connect_client(config: &Config, timeout: Duration) -> Result<ConnectClient, ConnectError> {
    let connect = &config.connect;
    let authorities = connect.ca_pem.as_ref().map(Secret::expose);
    ConnectClient::trusting(connect.url.url().clone(), timeout, authorities)
}

fn properties(config: &Config) -> Vec<(String, String)> {
    let exposed = |(name, value): (&String, &Secret)| (name.clone(), value.expose().to_owned());
    config.kafka.properties.0.iter().map(exposed).collect()
}

pub(super) fn on_undecodable(settings: &EngineSettings) -> driver::OnUndecodable {
    match settings.on_undecodable {
        OnUndecodable::Bury => driver::OnUndecodable::Bury,
        OnUndecodable::Halt => driver::OnUndecodable::Halt,
    }
}

/// The limits of a group of one handler.
pub fn limits(config: &Config, group: &str, spec: &Spec) -> Limits {
    let settings = config.engine_of(group);
    let own = config.handlers.get(&spec.name);
    let coalesce_max = own.and_then(|own| own.coalesce_max).unwrap_or(spec.coalesce_max);
    let handler = handler_limits(&config.engine_of_handler(group, &spec.name));
    Limits {
        running_max: settings.lanes_max,
        crash_deaths_max: settings.crash_deaths_max,
        reserved_ahead: RESERVED_AHEAD,
        buffered_events_max: settings.buffered_events_max,
        buffered_bytes_max: settings.buffered_bytes_max,
        // Only the log of a database fills a disk because a group is behind; topics have limits of their own.
        lag_bytes_max: match config.source.kind {
            SourceKind::Wal => config.wal.slot_lag_bytes_max,
            SourceKind::Kafka => 0,
        },
        handlers: vec![HandlerLimits {
            coalesce_max: coalesce_max.max(1),
            starts_per_second_max: own.and_then(|own| own.starts_per_second_max),
            parks: own.is_some_and(|own| own.on_bury == OnBury::Park),
            ..handler
        }],
    }
}

/// The limits of a handler that takes one event a call, as often as it can.
pub fn handler_limits(settings: &EngineSettings) -> HandlerLimits {
    let milliseconds = Duration::from_millis;
    HandlerLimits {
        coalesce_max: 1,
        running_max: settings.lanes_max,
        starts_per_second_max: None,
        parks: false,
        suspend: SuspendPolicy {
            attempts_min: settings.suspend_attempts_min,
            attempts_window: milliseconds(settings.suspend_attempts_window_ms),
            silence: milliseconds(settings.suspend_silence_ms),
            jobs_min: settings.suspend_jobs_min,
            jobs_window: milliseconds(settings.suspend_jobs_window_ms),
        },
        policy: Policy {
            attempts_max: settings.attempts_max,
            first_wait: milliseconds(settings.wait_first_ms),
            factor: settings.wait_factor,
            wait_max: milliseconds(settings.wait_ms_max),
            asked_wait_max: milliseconds(settings.asked_wait_ms_max),
            outage_wait_max: milliseconds(settings.outage_wait_ms_max),
            exhausted_alone_after: milliseconds(settings.exhausted_alone_after_ms),
        },
    }
}

/// Where schemas are.
pub fn registry_settings(config: &Config) -> RegistrySettings {
    let registry = &config.registry;
    let exposed = |secret: &Secret| secret.expose().to_owned();
    RegistrySettings {
        url: registry.url.base().to_owned(),
        timeout: Duration::from_millis(registry.timeout_ms),
        basic_auth: registry.user.clone().zip(registry.password.as_ref().map(exposed)),
        authorities: registry.ca_pem.as_ref().map(exposed),
        identity: registry
            .client_certificate_pem
            .as_ref()
            .zip(registry.client_key_pem.as_ref())
            .map(|(certificate, key)| format!("{}\n{}", certificate.expose(), key.expose())),
        remembered_max: registry.schemas_max,
        unknown_asks_max: registry.unknown_asks_max,
        unknown_pause: Duration::from_millis(registry.unknown_pause_ms),
    }
}

/// The registry as events and letters are decoded with it; `None` where records come without schemas of their own.
///
/// # Errors
/// When the settings do not make a client.
pub fn registry(config: &Config) -> Result<Option<Registry>, SettingsError> {
    let has_schemas = config.source.kind.has_brokers();
    has_schemas
        .then(|| Registry::new(&registry_settings(config)))
        .transpose()
}

/// What the decoder has to be told about the source.
pub fn decode_options(config: &Config) -> Options {
    let source = &config.source;
    if source.kind == SourceKind::Wal {
        // Changes are printed in one form, whatever a connector is set to.
        return Options {
            format: Format::Json,
            signal_tables: Tables::like(&source.signal_tables),
            full_identity: Tables::like(source.full_identity.iter().flatten()),
            ..Options::default()
        };
    }
    Options {
        format: source.format,
        key_format: source.key_format,
        signal_tables: Tables::like(&source.signal_tables),
        full_identity: Tables::like(source.full_identity.iter().flatten()),
        unavailable_placeholder: source.unavailable_placeholder.clone(),
        heartbeat_prefix: source.heartbeat_prefix.clone(),
        heartbeat_topic: source.heartbeat_topic.clone(),
        decimal: source.decimal,
        time_precision: source.time_precision,
        interval: source.interval,
        binary: source.binary,
        ..Options::default()
    }
}

/// How long a group waits for what.
pub fn times(settings: &EngineSettings) -> Times {
    Times {
        attempt: Duration::from_millis(settings.attempt_timeout_ms),
        commit_interval: Duration::from_millis(settings.commit_interval_ms),
        revoke_grace: Duration::from_millis(settings.revoke_grace_ms),
        shutdown_grace: Duration::from_millis(settings.shutdown_grace_ms),
    }
}

/// The ordering keys of a handler in one line, for its registration.
pub fn ordering_text(spec: &Spec) -> String {
    let mut routes: Vec<String> = spec
        .routes
        .iter()
        .map(|route| match &route.ordering {
            Ordering::PrimaryKey => format!("{}.{}(primary key)", route.schema, route.table),
            Ordering::Columns(columns) => format!("{}.{}({})", route.schema, route.table, columns.join(",")),
        })
        .collect();
    routes.sort_unstable();
    routes.join(" ")
}
