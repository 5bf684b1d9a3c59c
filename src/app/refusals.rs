//! What is wrong with a configuration beyond its settings themselves: with names of handlers and jobs, and with what clients are
//! made of. Everything that can be known without a network, all at once; texts quote no values.

use std::path::Path;
use std::time::Duration;

use super::{options, schedule, waitlist};
use crate::clients::webhook::network::Network;
use crate::config::refusal::{Wrong, nearest};
use crate::config::smtp::{MailTransport, Smtp};
use crate::config::waitlist::TableNames as Named;
use crate::config::{Config, SourceKind};
use crate::handlers::names::{Names, NamesError, TableNames};
use crate::schedule::timing::Schedule;
use crate::source::wal::connection::Connection;

/// What is wrong for any worker, whose handlers and scheduled jobs are called so; `None` where that cannot be known.
pub fn of_worker(config: &Config, handlers: Option<&[String]>, jobs: Option<&[String]>) -> Vec<Wrong> {
    let mut wrong = Vec::new();
    if let Some(handlers) = handlers {
        let of_groups = config.groups.keys();
        let of_groups = of_groups.map(|name| ("groups", config.short_group_name(name), name.as_str()));
        let of_handlers = config
            .handlers
            .keys()
            .map(|name| ("handlers", name.as_str(), name.as_str()));
        for (section, name, written) in of_groups.chain(of_handlers) {
            wrong.extend(unknown(&format!("{section}.{written}"), name, handlers));
        }
    }
    if let Some(jobs) = jobs {
        let names = config.schedule.jobs.keys();
        wrong.extend(names.filter_map(|name| unknown(&format!("schedule.jobs.{name}"), name, jobs)));
    }
    of_clock(config, &mut wrong);
    of_source(config, &mut wrong);
    wrong
}

/// What is wrong for the waitlist worker besides.
pub fn of_waitlist(config: &Config) -> Vec<Wrong> {
    let mut wrong = Vec::new();
    if config.lacks_hmac_key() {
        wrong.push(Wrong::new(
            "waitlist.secret",
            "it is not set, and Postgres is not on this machine (postgres.url): links that are signed with a key that \
             everybody knows could be forged",
            "set it to at least 16 random characters (AFTERWRITE__WAITLIST__SECRET), the same in every process and for ever",
        ));
    }
    for (table, own) in &config.waitlist.tables {
        wrong.extend(of_names(table, own));
    }
    for (index, network) in (1..).zip(&config.webhook.allowed_networks) {
        if network.parse::<Network>().is_err() {
            wrong.push(Wrong::new(
                "webhook.allowed_networks",
                format!("entry {index} is no network"),
                "write an address and the length of its prefix, such as 10.0.0.0/8",
            ));
        }
    }
    match waitlist::check_mail_time(config, "email") {
        Ok(spare) => wrong.extend(of_mailer(&config.smtp, spare)),
        Err(_) => wrong.push(Wrong::new(
            "smtp.step_timeout_ms",
            "two and a half of it are longer than an attempt of email (attempt_timeout_ms): a mail server that hangs would end \
             in failed attempts instead of an outage",
            "shorten it, or lengthen handlers.email.attempt_timeout_ms",
        )),
    }
    wrong
}

fn unknown(section: &str, name: &str, known: &[String]) -> Option<Wrong> {
    if known.iter().any(|known| known == name) {
        return None;
    }
    let remedy = match nearest(name, known) {
        Some(meant) => format!("did you mean {meant}?"),
        None => format!("there are {}", known.join(", ")),
    };
    Some(Wrong::new(
        section,
        "nothing is called so, so nobody would read this section",
        remedy,
    ))
}

fn of_clock(config: &Config, wrong: &mut Vec<Wrong>) {
    let section = ("schedule.zone".to_owned(), Some(&config.schedule.zone));
    let jobs = config.schedule.jobs.iter();
    let of_jobs = jobs.map(|(name, job)| (format!("schedule.jobs.{name}.zone"), job.zone.as_ref()));
    for (setting, zone) in std::iter::once(section).chain(of_jobs) {
        if zone.is_some_and(|zone| Schedule::cron("@daily", zone).is_err()) {
            wrong.push(Wrong::new(
                setting,
                "this is no time zone of the IANA database",
                "write it like Europe/Berlin, or UTC",
            ));
        }
    }
    for (name, job) in &config.schedule.jobs {
        if job
            .schedule
            .as_ref()
            .is_some_and(|text| schedule::parse(text, "UTC").is_err())
        {
            wrong.push(Wrong::new(
                format!("schedule.jobs.{name}.schedule"),
                "this is neither an interval of a second or more, nor five fields of cron that ever come",
                "write it like `every 15m`, `17 3 * * *` or `@daily`",
            ));
        }
    }
}

fn of_source(config: &Config, wrong: &mut Vec<Wrong>) {
    if config.source.kind == SourceKind::Wal {
        let (setting, url) = match &config.wal.url {
            Some(url) => ("wal.url", url),
            None => ("postgres.url", &config.postgres.url),
        };
        if let Err(error) = url.expose().parse::<Connection>() {
            wrong.push(Wrong::new(
                setting,
                error.to_string(),
                "correct it, or set wal.url to another address",
            ));
        }
        return;
    }
    if options::registry(config).is_err() {
        let setting = match config.registry.client_certificate_pem {
            Some(_) => "registry.client_certificate_pem",
            None => "registry.ca_pem",
        };
        wrong.push(Wrong::new(
            setting,
            "the certificates and keys of [registry] cannot be used, or not together",
            "look at the files with `openssl x509 -text` and `openssl pkey`",
        ));
    }
}

fn of_names(table: &str, own: &Named) -> Option<Wrong> {
    let names = TableNames {
        name: own.name.clone(),
        columns: own.columns.clone(),
    };
    let error = Names::new(&[(table.to_owned(), names)].into()).err()?;
    let section = format!("waitlist.tables.{table}");
    Some(match error {
        NamesError::Table(_) => Wrong::new(
            section,
            "this is no table of the reference schema",
            "look at infra/postgres/waitlist.sql for what there is",
        ),
        NamesError::Column { column, known, .. } => Wrong::new(
            format!("{section}.columns.{column}"),
            "this is no column that the worker uses",
            format!("write one of {known}"),
        ),
        NamesError::Needed(setting) => Wrong::new(
            setting,
            "it is left empty, but the worker cannot do without it",
            "write what the application calls it",
        ),
        NamesError::NotAName { .. } => Wrong::new(
            format!("{section}.name"),
            "this is neither table nor schema.table",
            "write one of both",
        ),
        NamesError::Twice { .. } => Wrong::new(
            format!("{section}.columns"),
            "two columns would be read from one of the application",
            "give each its own, or leave one empty",
        ),
    })
}

fn of_mailer(smtp: &Smtp, spare: Duration) -> Option<Wrong> {
    if smtp.transport == MailTransport::File {
        let folder = Path::new(smtp.directory.as_deref()?);
        let is_taken = folder.exists() && !folder.is_dir();
        return is_taken.then(|| Wrong::new("smtp.directory", "this is a file and no folder", "name a folder"));
    }
    let setting = match smtp.ca_pem {
        Some(_) => "smtp.ca_pem",
        None => "smtp.tls",
    };
    let error = waitlist::mailer(smtp, spare).err();
    error.map(|_| {
        Wrong::new(
            setting,
            "TLS cannot be set up with it",
            "look at the certificates with `openssl x509 -text`, or write tls = \"none\" for a server on this machine",
        )
    })
}
