//! Values that cannot be true, alone or together. Pure; each refusal names the setting and says why.

mod kafka;

mod registry;

mod smtp;

use sqlx::postgres::PgConnectOptions;

use super::Config;
use super::engine::Engine;
use super::kafka::Start;
use super::value::Secret;
use super::waitlist::public_url_refusal;

/// Two copies of an error leave half of the 64 KiB of a letter's headers to the original ones.
const ERROR_BYTES_MAX: usize = 16_384;

/// A letter that is not acknowledged holds back the commits of its partition; the next try must not be far.
const WRITE_TIMEOUT_MS_MAX: u64 = 600_000;

/// Each letter is read and requested by itself, so no machine sends more.
const REPLAY_RATE_MAX: u32 = 10_000;

/// Each day is a table; more of them make planning slow.
const RETENTION_DAYS_MAX: u32 = 1_000;

/// Shorter keys can be tried out one by one.
const SECRET_BYTES_MIN: usize = 16;

/// All refusals as (path, reason).
pub(super) fn check(config: &Config) -> Vec<(String, String)> {
    let mut refusals = Refusals::default();
    check_places(config, &mut refusals);
    refusals.unless(
        is_topic_part(&config.kafka.group_prefix),
        "kafka.group_prefix",
        "groups and dead-letter topics begin with it: letters, digits, dot, underscore and hyphen only",
    );
    if config.source.kind.has_brokers() {
        registry::check(&config.registry, &mut refusals);
        kafka::check(config, &mut refusals);
    } else {
        check_wal(config, &mut refusals);
    }
    let connect_timeout_ms = config.postgres.connect_timeout_ms;
    check_engine("engine", &config.engine, connect_timeout_ms, &mut refusals);
    for name in config.groups.keys() {
        let section = format!("groups.{name}");
        check_engine(&section, &config.engine_of(name), connect_timeout_ms, &mut refusals);
    }
    check_handlers(config, &mut refusals);
    refusals.unless(
        (1..=RETENTION_DAYS_MAX).contains(&config.ledger.retention_days),
        "ledger.retention_days",
        format!("it must lie between 1 and {RETENTION_DAYS_MAX}"),
    );
    check_dead_letters(config, &mut refusals);
    check_admin(config, &mut refusals);
    check_waitlist(config, &mut refusals);
    refusals.0
}

#[derive(Default)]
struct Refusals(Vec<(String, String)>);

impl Refusals {
    /// Refuses `path` unless `holds`.
    fn unless(&mut self, holds: bool, path: impl Into<String>, reason: impl Into<String>) {
        if !holds {
            self.0.push((path.into(), reason.into()));
        }
    }

    fn at_least(&mut self, value: u64, least: u64, path: impl Into<String>) {
        self.unless(value >= least, path, format!("{value} is less than {least}"));
    }
}

fn check_wal(config: &Config, refusals: &mut Refusals) {
    let url = config.wal.url.as_ref().map(Secret::expose);
    refusals.unless(
        url.is_none_or(|url| url.parse::<PgConnectOptions>().is_ok()),
        "wal.url",
        "it is not an address of a database: postgres://user:password@host:port/database",
    );
    refusals.unless(
        !config.wal.publication.is_empty(),
        "wal.publication",
        "the publication has to be named: afterwrite makes none by itself",
    );
    let is_column = |column: &String| column.split('.').count() == 3 && !column.split('.').any(str::is_empty);
    refusals.unless(
        config.wal.excluded_columns.iter().all(is_column),
        "wal.excluded_columns",
        "each is written schema.table.column",
    );
}

fn check_admin(config: &Config, refusals: &mut Refusals) {
    let is_place = |listen: &str| {
        let parts = listen.rsplit_once(':');
        parts.is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
    };
    refusals.unless(
        config.admin.listen.as_deref().is_none_or(is_place),
        "admin.listen",
        "this is not host:port such as localhost:9464, which only this machine reaches, or 0.0.0.0:9464",
    );
}

fn check_places(config: &Config, refusals: &mut Refusals) {
    let url = config.postgres.url.expose();
    let is_postgres = url.starts_with("postgres://") || url.starts_with("postgresql://");
    refusals.unless(
        is_postgres && url.parse::<PgConnectOptions>().is_ok(),
        "postgres.url",
        "this is not an address such as postgres://user:password@host:5432/database",
    );
    refusals.at_least(config.postgres.connect_timeout_ms, 1, "postgres.connect_timeout_ms");
    refusals.at_least(config.connect.timeout_ms, 1, "connect.timeout_ms");
    refusals.unless(
        is_topic_part(&config.source.name),
        "source.name",
        "topics begin with it: letters, digits, dot, underscore and hyphen only",
    );
    let whole = config.source.full_identity.as_deref().unwrap_or_default();
    let patterns = [
        ("source.signal_tables", config.source.signal_tables.as_slice()),
        ("source.full_identity", whole),
    ];
    for (setting, patterns) in patterns {
        for pattern in patterns {
            refusals.unless(
                pattern.split('.').count() == 2,
                setting,
                format!("{pattern:?} is not written schema.table"),
            );
        }
    }
    refusals.unless(
        !config.source.unavailable_placeholder.is_empty(),
        "source.unavailable_placeholder",
        "an empty text would be taken for a value that was not sent; Debezium does not take it either",
    );
}

fn check_engine(section: &str, engine: &Engine, connect_timeout_ms: u64, refusals: &mut Refusals) {
    let path = |key: &str| format!("{section}.{key}");
    refusals.at_least(engine.attempts_max.into(), 1, path("attempts_max"));
    refusals.at_least(engine.wait_first_ms, 1, path("wait_first_ms"));
    refusals.unless(
        (1..=100).contains(&engine.wait_factor),
        path("wait_factor"),
        "it must lie between 1 and 100",
    );
    refusals.unless(
        engine.wait_ms_max >= engine.wait_first_ms,
        path("wait_ms_max"),
        format!("it is shorter than the first wait of {} ms", engine.wait_first_ms),
    );
    refusals.at_least(engine.asked_wait_ms_max, 1, path("asked_wait_ms_max"));
    refusals.at_least(engine.outage_wait_ms_max, 100, path("outage_wait_ms_max"));
    refusals.at_least(engine.attempt_timeout_ms, 1, path("attempt_timeout_ms"));
    let windows = [
        ("suspend_attempts_window_ms", engine.suspend_attempts_window_ms),
        ("suspend_jobs_window_ms", engine.suspend_jobs_window_ms),
    ];
    for (key, window) in windows {
        refusals.at_least(window, 1_000, path(key));
    }
    refusals.unless(
        (1..=10_000).contains(&engine.lanes_max),
        path("lanes_max"),
        "it must lie between 1 and 10,000",
    );
    let lanes = u32::try_from(engine.lanes_max).unwrap_or(u32::MAX);
    refusals.unless(
        engine.connections() > lanes,
        path("connections_max"),
        format!("{lanes} lanes need more than {lanes} connections: one each, and one for commits and claims"),
    );
    refusals.at_least(engine.buffered_events_max as u64, 1, path("buffered_events_max"));
    refusals.at_least(engine.buffered_bytes_max as u64, 1_024, path("buffered_bytes_max"));
    refusals.unless(
        (10..=60_000).contains(&engine.commit_interval_ms),
        path("commit_interval_ms"),
        "it must lie between 10 and 60,000",
    );
    check_lease(engine.attempt_timeout_ms, engine, path("attempt_timeout_ms"), refusals);
    check_outage(
        engine.attempt_timeout_ms,
        connect_timeout_ms,
        path("attempt_timeout_ms"),
        refusals,
    );
}

fn check_outage(attempt_timeout_ms: u64, connect_timeout_ms: u64, path: String, refusals: &mut Refusals) {
    refusals.unless(
        attempt_timeout_ms > connect_timeout_ms,
        path,
        format!(
            "it is not longer than postgres.connect_timeout_ms ({connect_timeout_ms} ms): attempts would run out of time \
             before they know that the database is away, and be counted"
        ),
    );
}

fn check_lease(attempt_timeout_ms: u64, engine: &Engine, path: String, refusals: &mut Refusals) {
    refusals.unless(
        engine.effect_lease_ms > attempt_timeout_ms,
        path,
        format!(
            "it is not shorter than engine.effect_lease_ms ({} ms): another process would repeat a mail that is still \
             being sent",
            engine.effect_lease_ms
        ),
    );
}

fn check_handlers(config: &Config, refusals: &mut Refusals) {
    for (name, handler) in &config.handlers {
        let path = |key: &str| format!("handlers.{name}.{key}");
        if let Some(timeout) = handler.attempt_timeout_ms {
            refusals.at_least(timeout, 1, path("attempt_timeout_ms"));
            check_lease(timeout, &config.engine, path("attempt_timeout_ms"), refusals);
            let connect_timeout_ms = config.postgres.connect_timeout_ms;
            check_outage(timeout, connect_timeout_ms, path("attempt_timeout_ms"), refusals);
        }
        if let Some(events) = handler.coalesce_max {
            refusals.at_least(events as u64, 1, path("coalesce_max"));
        }
        if let Some(attempts) = handler.attempts_max {
            refusals.at_least(attempts.into(), 1, path("attempts_max"));
        }
        if let Some(lanes) = handler.lanes_max {
            refusals.at_least(lanes as u64, 1, path("lanes_max"));
        }
        if let Some(starts) = handler.starts_per_second_max {
            refusals.at_least(starts.into(), 1, path("starts_per_second_max"));
        }
        check_handler_waits(config, name, refusals);
        if let Some(was) = &handler.was {
            check_earlier_name(config, name, was, refusals);
        }
    }
}

fn check_earlier_name(config: &Config, name: &str, was: &str, refusals: &mut Refusals) {
    let path = format!("handlers.{name}.was");
    refusals.unless(
        !was.is_empty() && was != name,
        &path,
        "it must be the name that the handler had before",
    );
    refusals.unless(
        !config.source.kind.has_brokers() || config.kafka.start == Start::Earliest,
        &path,
        "kafka.start is latest: the group of the new name would begin at the ends of its topics and miss what the old one \
         had not done; set kafka.start to earliest for this start, the ledger knows what was done",
    );
}

/// The waits of a handler, where it has its own: together with those it takes over.
fn check_handler_waits(config: &Config, name: &str, refusals: &mut Refusals) {
    let path = |key: &str| format!("handlers.{name}.{key}");
    let engine = config.engine_of_handler(name, name);
    refusals.at_least(engine.wait_first_ms, 1, path("wait_first_ms"));
    refusals.unless(
        (1..=100).contains(&engine.wait_factor),
        path("wait_factor"),
        "it must lie between 1 and 100",
    );
    refusals.unless(
        engine.wait_ms_max >= engine.wait_first_ms,
        path("wait_ms_max"),
        format!("it is shorter than the first wait of {} ms", engine.wait_first_ms),
    );
}

fn check_dead_letters(config: &Config, refusals: &mut Refusals) {
    let letters = &config.dead_letters;
    refusals.unless(
        letters.partitions >= 1,
        "dead_letters.partitions",
        "a topic has one at least",
    );
    refusals.unless(
        letters.replication_factor.is_none_or(|factor| factor >= 1),
        "dead_letters.replication_factor",
        "a partition has one replica at least",
    );
    refusals.unless(
        letters.retention_ms >= 86_400_000,
        "dead_letters.retention_ms",
        "letters that vanish within a day cannot be replayed",
    );
    refusals.at_least(
        letters.message_bytes_max.into(),
        65_537,
        "dead_letters.message_bytes_max",
    );
    refusals.unless(
        (64..=ERROR_BYTES_MAX).contains(&letters.error_bytes_max),
        "dead_letters.error_bytes_max",
        format!("it must lie between 64 and {ERROR_BYTES_MAX}: a letter's headers hold the text twice"),
    );
    refusals.unless(
        (100..=WRITE_TIMEOUT_MS_MAX).contains(&letters.write_timeout_ms),
        "dead_letters.write_timeout_ms",
        format!("it must lie between 100 and {WRITE_TIMEOUT_MS_MAX}"),
    );
    refusals.unless(
        (1..=REPLAY_RATE_MAX).contains(&letters.replay_rate_max),
        "dead_letters.replay_rate_max",
        format!("it must lie between 1 and {REPLAY_RATE_MAX}"),
    );
    refusals.at_least(letters.replays_max.into(), 1, "dead_letters.replays_max");
}

fn check_waitlist(config: &Config, refusals: &mut Refusals) {
    let waitlist = &config.waitlist;
    if let Some(secret) = &waitlist.secret {
        refusals.unless(
            secret.expose().len() >= SECRET_BYTES_MIN,
            "waitlist.secret",
            format!("it has fewer than {SECRET_BYTES_MIN} characters and could be guessed"),
        );
    }
    for (path, url, part) in [
        ("waitlist.verification_url", &waitlist.verification_url, "{token}"),
        ("waitlist.referral_url", &waitlist.referral_url, "{code}"),
    ] {
        let is_address = url.starts_with("http://") || url.starts_with("https://");
        refusals.unless(is_address, path, "it does not begin with https:// or http://");
        refusals.unless(url.contains(part), path, format!("it does not contain {part}"));
    }
    if let Some(reason) = waitlist.public_url.as_deref().and_then(public_url_refusal) {
        refusals.unless(false, "waitlist.public_url", reason);
    }
    smtp::check(&config.smtp, config.engine.effect_lease_ms, refusals);
    refusals.unless(
        (1..config.engine.effect_lease_ms).contains(&config.webhook.timeout_ms),
        "webhook.timeout_ms",
        "it must be shorter than engine.effect_lease_ms: another process would repeat a call that is still being made",
    );
    check_fraud_and_clock(config, refusals);
}

fn check_fraud_and_clock(config: &Config, refusals: &mut Refusals) {
    let is_share = |value: f64| (0.0..=1.0).contains(&value);
    refusals.unless(
        is_share(config.fraud.hold_confidence),
        "fraud.hold_confidence",
        "it must lie between 0 and 1",
    );
    for (check, settings) in &config.fraud.checks {
        refusals.unless(
            settings.confidence.is_none_or(is_share),
            format!("fraud.checks.{}.confidence", check.name()),
            "it must lie between 0 and 1",
        );
        refusals.unless(
            settings.count_max.is_none() || check.counts(),
            format!("fraud.checks.{}.count_max", check.name()),
            "only velocity, duplicate_ip and duplicate_device count",
        );
    }
    for (path, interval) in [
        ("schedule.analytics_interval", config.schedule.analytics_interval),
        ("schedule.fraud_scan_interval", config.schedule.fraud_scan_interval),
    ] {
        refusals.unless(
            (10..=86_400).contains(&interval.0.as_secs()),
            path,
            "it must lie between 10 seconds and one day",
        );
    }
}

/// Kafka's rule for topic and group names, without the length: more is appended.
fn is_topic_part(text: &str) -> bool {
    let legal = |character: char| character.is_ascii_alphanumeric() || matches!(character, '.' | '_' | '-');
    !text.is_empty() && text.len() <= 100 && text.chars().all(legal)
}
