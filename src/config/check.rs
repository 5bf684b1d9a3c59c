//! Values that cannot be true, alone or together. Pure; each refusal names the setting, says why and what to do.
//!
//! What only one number decides is in [`ranges`](super::ranges).

mod kafka;

mod registry;

mod smtp;

use sqlx::postgres::PgConnectOptions;
use toml::Table;

use super::engine::Engine;
use super::kafka::Start;
use super::refusal::Wrong;
use super::value::Secret;
use super::waitlist::public_url_refusal;
use super::{Config, ranges};
use crate::telemetry;

/// Shorter keys can be tried out one by one.
const SECRET_BYTES_MIN: usize = 16;

/// All refusals.
pub(super) fn check(config: &Config) -> Vec<Wrong> {
    let table = Table::try_from(config).expect("every setting came from TOML, so it can go back there");
    let has_brokers = config.source.kind.has_brokers();
    // Without brokers nothing is asked of their settings.
    let is_asked = |section: &str| has_brokers || !matches!(section, "kafka" | "registry");
    let mut refusals = Refusals(ranges::check(&table, is_asked));
    check_places(config, &mut refusals);
    refusals.unless(
        is_topic_part(&config.kafka.group_prefix),
        "kafka.group_prefix",
        "groups and dead-letter topics begin with it, and it could not be part of their names",
        "write letters, digits, dot, underscore and hyphen only, 100 at most",
    );
    if has_brokers {
        registry::check(&config.registry, &mut refusals);
        kafka::check(config, &mut refusals);
        check_connect(config, &mut refusals);
    } else {
        check_wal(config, &mut refusals);
    }
    check_engines(config, &mut refusals);
    check_handlers(config, &mut refusals);
    check_admin(config, &mut refusals);
    refusals.unless(
        config.traces.header_list().is_some(),
        "traces.headers",
        "this is no list of headers",
        "write name=value, separated by commas",
    );
    check_waitlist(config, &mut refusals);
    let filter = config.log.filter.as_deref();
    if let Some(reason) = filter.and_then(telemetry::filter_refusal) {
        refusals.unless(
            false,
            "log.filter",
            reason,
            "write levels by the names of modules, such as warn,afterwrite=debug",
        );
    }
    refusals.0
}

struct Refusals(Vec<Wrong>);

impl Refusals {
    /// Refuses `setting` unless `holds`.
    fn unless(
        &mut self,
        holds: bool,
        setting: impl Into<String>,
        reason: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        if !holds {
            self.0.push(Wrong::new(setting, reason, remedy));
        }
    }
}

const DATABASE: &str = "write one such as postgres://user:password@host:5432/database";

fn is_database(url: &str) -> bool {
    let is_postgres = url.starts_with("postgres://") || url.starts_with("postgresql://");
    is_postgres && url.parse::<PgConnectOptions>().is_ok()
}

fn check_wal(config: &Config, refusals: &mut Refusals) {
    let url = config.wal.url.as_ref().map(Secret::expose);
    refusals.unless(
        url.is_none_or(is_database),
        "wal.url",
        "this is not the address of a database",
        DATABASE,
    );
    refusals.unless(
        !config.wal.publication.is_empty(),
        "wal.publication",
        "it is empty, and afterwrite makes no publication by itself",
        "name the publication that `afterwrite migrate` made, or leave this out",
    );
    let is_column = |column: &String| column.split('.').count() == 3 && !column.split('.').any(str::is_empty);
    for (index, _) in (1..)
        .zip(&config.wal.excluded_columns)
        .filter(|(_, column)| !is_column(column))
    {
        refusals.unless(
            false,
            "wal.excluded_columns",
            format!("entry {index} is not the name of a column"),
            "write each as schema.table.column",
        );
    }
}

fn check_connect(config: &Config, refusals: &mut Refusals) {
    let connect = &config.connect;
    let Some(pem) = &connect.ca_pem else { return };
    refusals.unless(
        connect.url.url().scheme() == "https",
        "connect.ca_pem",
        "connect.url begins with http://, where nobody shows a certificate",
        "write https:// there, or leave this out",
    );
    if let Err((reason, remedy)) = registry::find(pem, registry::CERTIFICATE) {
        refusals.unless(false, "connect.ca_pem", reason, remedy);
    }
}

fn check_admin(config: &Config, refusals: &mut Refusals) {
    let is_place = |listen: &str| {
        let parts = listen.rsplit_once(':');
        parts.is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
    };
    refusals.unless(
        config.admin.listen.as_deref().is_none_or(is_place),
        "admin.listen",
        "this is not host:port",
        "write localhost:9464, which only this machine reaches, or 0.0.0.0:9464",
    );
}

fn check_places(config: &Config, refusals: &mut Refusals) {
    refusals.unless(
        is_database(config.postgres.url.expose()),
        "postgres.url",
        "this is not the address of a database",
        DATABASE,
    );
    refusals.unless(
        is_topic_part(&config.source.name),
        "source.name",
        "topics begin with it, and it could not be part of their names",
        "write letters, digits, dot, underscore and hyphen only, 100 at most",
    );
    let whole = config.source.full_identity.as_deref().unwrap_or_default();
    let patterns = [
        ("source.signal_tables", config.source.signal_tables.as_slice()),
        ("source.full_identity", whole),
    ];
    for (setting, patterns) in patterns {
        for (index, pattern) in (1..).zip(patterns) {
            refusals.unless(
                pattern.split('.').count() == 2,
                setting,
                format!("entry {index} names no table"),
                "write each as schema.table, where * stands for any text",
            );
        }
    }
    refusals.unless(
        !config.source.unavailable_placeholder.is_empty(),
        "source.unavailable_placeholder",
        "every empty text would be taken for a value that was not sent, and Debezium does not take it either",
        "write what unavailable.value.placeholder of the connector is, or leave this out",
    );
}

/// What has to fit together in `[engine]`, and in what each group has instead. A group that says nothing about any of it is not
/// blamed for what `[engine]` says.
fn check_engines(config: &Config, refusals: &mut Refusals) {
    let connect_timeout_ms = config.postgres.connect_timeout_ms;
    check_waits("engine.wait_ms_max", &config.engine, refusals);
    check_connections("engine", &config.engine, refusals);
    let timeout = config.engine.attempt_timeout_ms;
    check_attempt("engine", timeout, &config.engine, connect_timeout_ms, refusals);
    for (name, group) in &config.groups {
        let (section, engine) = (format!("groups.{name}"), config.engine_of(name));
        if group.wait_ms_max.is_some() || group.wait_first_ms.is_some() {
            check_waits(&own_wait(&section, group.wait_ms_max.is_some()), &engine, refusals);
        }
        if group.lanes_max.is_some() || group.connections_max.is_some() {
            check_connections(&section, &engine, refusals);
        }
        if let Some(timeout) = group.attempt_timeout_ms {
            check_attempt(&section, timeout, &config.engine, connect_timeout_ms, refusals);
        }
    }
}

/// The setting to blame when two waits of a section do not fit together: the one it has itself.
fn own_wait(section: &str, has_longest: bool) -> String {
    match has_longest {
        true => format!("{section}.wait_ms_max"),
        false => format!("{section}.wait_first_ms"),
    }
}

fn check_waits(setting: &str, engine: &Engine, refusals: &mut Refusals) {
    refusals.unless(
        engine.wait_ms_max >= engine.wait_first_ms,
        setting,
        format!(
            "the longest wait is shorter than the first: wait_ms_max is {} there, wait_first_ms {}",
            engine.wait_ms_max, engine.wait_first_ms
        ),
        "raise wait_ms_max, or lower wait_first_ms",
    );
}

fn check_connections(section: &str, engine: &Engine, refusals: &mut Refusals) {
    let lanes = u32::try_from(engine.lanes_max).unwrap_or(u32::MAX);
    refusals.unless(
        engine.connections() > lanes,
        format!("{section}.connections_max"),
        format!("{lanes} lanes (lanes_max) need a connection each, and one more for commits and claims"),
        "raise it, or leave it out: it follows from lanes_max then",
    );
}

fn check_attempt(section: &str, timeout_ms: u64, engine: &Engine, connect_timeout_ms: u64, refusals: &mut Refusals) {
    let setting = format!("{section}.attempt_timeout_ms");
    refusals.unless(
        engine.effect_lease_ms > timeout_ms,
        &setting,
        format!(
            "it is not shorter than engine.effect_lease_ms ({} ms): another process would repeat a mail that is still being \
             sent",
            engine.effect_lease_ms
        ),
        "shorten it, or lengthen engine.effect_lease_ms",
    );
    refusals.unless(
        timeout_ms > connect_timeout_ms,
        &setting,
        format!(
            "it is not longer than postgres.connect_timeout_ms ({connect_timeout_ms} ms): attempts would run out of time \
             before they know that the database is away, and be counted"
        ),
        "lengthen it, or shorten postgres.connect_timeout_ms",
    );
}

fn check_handlers(config: &Config, refusals: &mut Refusals) {
    for (name, handler) in &config.handlers {
        let section = format!("handlers.{name}");
        if let Some(timeout) = handler.attempt_timeout_ms {
            let connect_timeout_ms = config.postgres.connect_timeout_ms;
            check_attempt(&section, timeout, &config.engine, connect_timeout_ms, refusals);
        }
        if handler.wait_ms_max.is_some() || handler.wait_first_ms.is_some() {
            let setting = own_wait(&section, handler.wait_ms_max.is_some());
            check_waits(&setting, &config.engine_of_handler(name, name), refusals);
        }
        if let Some(was) = &handler.was {
            check_earlier_name(config, name, was, refusals);
        }
    }
}

fn check_earlier_name(config: &Config, name: &str, was: &str, refusals: &mut Refusals) {
    let setting = format!("handlers.{name}.was");
    refusals.unless(
        !was.is_empty() && was != name,
        &setting,
        "this is not another name than the handler has",
        "write the name that the handler had before, or leave this out",
    );
    refusals.unless(
        !config.source.kind.has_brokers() || config.kafka.start == Start::Earliest,
        &setting,
        "kafka.start is latest: the group of the new name would begin at the ends of its topics and miss what the old one \
         had not done",
        "set kafka.start to earliest for this start, the ledger knows what was done",
    );
}

fn check_waitlist(config: &Config, refusals: &mut Refusals) {
    let waitlist = &config.waitlist;
    let secret = waitlist.secret.as_ref().map(Secret::expose);
    refusals.unless(
        secret.is_none_or(|secret| secret.len() >= SECRET_BYTES_MIN),
        "waitlist.secret",
        format!("it has fewer than {SECRET_BYTES_MIN} characters and could be guessed"),
        "make a longer one, for example with `openssl rand -hex 32`",
    );
    for (setting, url, part) in [
        ("waitlist.verification_url", &waitlist.verification_url, "{token}"),
        ("waitlist.referral_url", &waitlist.referral_url, "{code}"),
    ] {
        refusals.unless(
            url.starts_with("http://") || url.starts_with("https://"),
            setting,
            "it does not begin with https:// or http://",
            "write the address of a page of the application",
        );
        refusals.unless(
            url.contains(part),
            setting,
            format!("it does not contain {part}"),
            format!("write {part} where the page expects it, such as https://example.com/?x={part}"),
        );
    }
    if let Some((reason, remedy)) = waitlist.public_url.as_deref().and_then(public_url_refusal) {
        refusals.unless(false, "waitlist.public_url", reason, remedy);
    }
    smtp::check(&config.smtp, config.engine.effect_lease_ms, refusals);
    refusals.unless(
        config.webhook.timeout_ms < config.engine.effect_lease_ms,
        "webhook.timeout_ms",
        "it is not shorter than engine.effect_lease_ms: another process would repeat a call that is still being made",
        "shorten it, or lengthen engine.effect_lease_ms",
    );
    check_fraud_and_clock(config, refusals);
}

fn check_fraud_and_clock(config: &Config, refusals: &mut Refusals) {
    for (check, settings) in &config.fraud.checks {
        refusals.unless(
            settings.count_max.is_none() || check.counts(),
            format!("fraud.checks.{}.count_max", check.name()),
            "this check counts nothing; only velocity, duplicate_ip and duplicate_device do",
            "leave it out",
        );
    }
    for (setting, interval) in [
        ("schedule.analytics_interval", config.schedule.analytics_interval),
        ("schedule.fraud_scan_interval", config.schedule.fraud_scan_interval),
    ] {
        refusals.unless(
            (10..=86_400).contains(&interval.0.as_secs()),
            setting,
            "it is shorter than 10 seconds or longer than a day",
            "write 10s to 1d",
        );
    }
}

/// Kafka's rule for topic and group names, without the length: more is appended.
fn is_topic_part(text: &str) -> bool {
    let legal = |character: char| character.is_ascii_alphanumeric() || matches!(character, '.' | '_' | '-');
    !text.is_empty() && text.len() <= 100 && text.chars().all(legal)
}
