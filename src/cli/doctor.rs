//! `afterwrite doctor`: whether the whole way from a row to its work is whole, and what mends what is not.

use std::time::Duration;

use clap::Args;
use tokio::time::timeout;

use crate::app;
use crate::cli::output::Output;
use crate::cli::program::Program;
use crate::cli::{Failure, database, migrate, slot};
use crate::clients::mailer::SmtpSettings;
use crate::config::smtp::MailTransport;
use crate::config::wal::slot_of;
use crate::config::{Config, SourceKind};
use crate::doctor::asking::Reach;
use crate::doctor::doors::Silence;
use crate::doctor::examination::{Report, examine};
use crate::doctor::expected::{Expected, Group, Table};
use crate::doctor::finding::{Finding, Severity};
use crate::handler::{Keyless, Spec};

/// How long one question may take, whatever the settings allow a worker: all of it is to end within half a minute.
const PATIENCE: Duration = Duration::from_secs(5);

/// Arguments of `doctor`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  afterwrite doctor                       looks at everything, and sends a row all the way
  afterwrite doctor --no-probe            changes nothing at all
  afterwrite doctor --output json | jq -r '.findings[] | \"\\(.code) \\(.remedy.text)\"'

It looks at Postgres, the tables, the publication, roles and grants, the slot, Kafka Connect, the connector and its settings,
topics, registry, groups, handlers and dead letters. The probe writes the row of afterwrite.heartbeat, which wakes nobody, and
reads it back as a worker would, in no group.

Exit code 0 when nothing was found but notes, 4 when there are warnings only, 1 when there is an error, 3 when something could not be
reached; what is wrong with the rest is shown all the same. docs/DOCTOR.md explains each code.")]
pub struct DoctorArgs {
    /// Send no row: nothing is written at all
    #[arg(long)]
    no_probe: bool,
    /// The connector of this source, when it is not the one whose topic.prefix is source.name
    #[arg(long, value_name = "NAME")]
    connector: Option<String>,
}

#[derive(Debug, thiserror::Error)]
#[error("{errors} errors and {warnings} warnings were found")]
struct Found {
    errors: usize,
    warnings: usize,
}

/// Looks at everything, and prints what was found.
///
/// # Errors
/// When something was found, or could not be reached; it was printed then.
pub async fn run(args: &DoctorArgs, config: &Config, program: &Program, output: Output) -> Result<(), Failure> {
    let expected = expected(args.connector.clone(), config, program)?;
    let reach = reach(args, config).await?;
    let report = Box::pin(examine(&expected, reach)).await;
    output.print(&report, in_words)?;
    match report.is_away {
        true => Err(Failure::unreachable(Found::of(&report.findings))),
        false => verdict(&report.findings),
    }
}

impl Found {
    fn of(findings: &[Finding]) -> Self {
        let count = |severity| {
            findings
                .iter()
                .filter(|finding| finding.code.severity == severity)
                .count()
        };
        Self {
            errors: count(Severity::Error),
            warnings: count(Severity::Warning),
        }
    }
}

/// The exit code that follows from findings.
///
/// # Errors
/// 1 when there is an error among them, 4 when there are warnings and notes only; notes alone are none.
pub(super) fn verdict(findings: &[Finding]) -> Result<(), Failure> {
    let found = Found::of(findings);
    match findings.iter().map(|finding| finding.code.severity).max() {
        None | Some(Severity::Note) => Ok(()),
        Some(Severity::Error) => Err(Failure::failed(found)),
        Some(Severity::Warning) => Err(Failure::warned(found)),
    }
}

/// What should be there, by the configuration and the program's handlers.
pub(super) fn expected(connector: Option<String>, config: &Config, program: &Program) -> Result<Expected, Failure> {
    let handlers = program.handlers(config).map_err(Failure::usage)?;
    let handlers = app::own::enabled(config, handlers).map_err(Failure::usage)?;
    let specs: Vec<Spec> = handlers.iter().map(|handler| handler.spec()).collect();
    let names = app::waitlist::names(config).map_err(Failure::usage)?;
    let has_mails = program.is_waitlist() && config.smtp.transport == MailTransport::Smtp;
    let has_mails = has_mails && specs.iter().any(|spec| spec.name == "email");
    let has_brokers = config.source.kind.has_brokers();
    let mut registry = app::options::registry_settings(config);
    registry.timeout = registry.timeout.min(PATIENCE);
    Ok(Expected {
        source: config.source.name.clone(),
        brokers: has_brokers.then(|| app::options::broker_options(config)),
        groups: specs.iter().map(|spec| group(config, spec)).collect(),
        tables: tables(&specs),
        publication: config.wal.publication.clone(),
        migrations: migrate::versions()
            .map(|(version, name)| (version, name.to_owned()))
            .collect(),
        grants: migrate::grants(&names),
        roles: migrate::ROLES.map(str::to_owned),
        names: program.is_waitlist().then_some(names),
        hidden_columns: match program.is_waitlist() {
            true => config.wal.excluded_columns.clone(),
            false => Vec::new(),
        },
        letters: app::options::letter_topics(config),
        decoding: app::options::decode_options(config),
        registry,
        left_out: match has_brokers {
            // The connector's lists decide.
            true => Vec::new(),
            false => config.wal.excluded_columns.clone(),
        },
        mail_server: has_mails.then(|| SmtpSettings {
            step_timeout: PATIENCE.min(Duration::from_millis(config.smtp.step_timeout_ms)),
            ..app::waitlist::mail_settings(config)
        }),
        slots_begin: slot::beginning(config),
        connector,
        patience: PATIENCE,
    })
}

fn group(config: &Config, spec: &Spec) -> Group {
    let name = config.group_name(&spec.name);
    Group {
        short: config.short_group_name(&name).to_owned(),
        topics: app::options::topics(config, &name, spec),
        slot: slot_of(&name),
        name,
    }
}

/// The tables of all routes, each once.
fn tables(specs: &[Spec]) -> Vec<Table> {
    let mut tables: Vec<Table> = Vec::new();
    for route in specs.iter().flat_map(|spec| &spec.routes) {
        let needs_key = route.keyless == Keyless::Refused;
        match tables
            .iter_mut()
            .find(|table| (&table.schema, &table.name) == (&route.schema, &route.table))
        {
            Some(table) => table.needs_key |= needs_key,
            None => tables.push(Table {
                schema: route.schema.clone(),
                name: route.table.clone(),
                needs_key,
            }),
        }
    }
    tables
}

/// What can be asked. What does not answer is a finding, and no failure.
async fn reach(args: &DoctorArgs, config: &Config) -> Result<Reach, Failure> {
    let within = async |connecting: std::pin::Pin<Box<dyn Future<Output = Result<sqlx::PgPool, Failure>> + Send>>| {
        match timeout(PATIENCE, connecting).await {
            Ok(connected) => connected.map_err(|failure| match failure.hindered() {
                Some(hindered) => Silence::Hindered(hindered.clone()),
                None => Silence::Away(failure.chain()),
            }),
            Err(_) => Err(Silence::Away(format!(
                "postgres did not answer within {} s",
                PATIENCE.as_secs()
            ))),
        }
    };
    let (as_worker, as_reader) = (config.clone(), config.clone());
    let worker = within(Box::pin(async move { database::connect(&as_worker).await }));
    let reads_log = config.source.kind == SourceKind::Wal;
    let reader = async {
        match reads_log {
            true => Some(
                within(Box::pin(
                    async move { database::connect_to_replicate(&as_reader).await },
                ))
                .await,
            ),
            false => None,
        }
    };
    let (pool, replicating) = futures::future::join(worker, reader).await;
    let connect = match reads_log {
        true => None,
        false => {
            let patience = PATIENCE.min(Duration::from_millis(config.connect.timeout_ms));
            Some(app::options::connect_client(config, patience)?)
        }
    };
    Ok(Reach {
        pool,
        replicating,
        connect,
        reading: (!reads_log).then(|| app::options::reading_options(config)),
        probes: !args.no_probe,
    })
}

fn in_words(report: &Report) -> String {
    let mut lines: Vec<String> = report.findings.iter().map(finding_in_words).collect();
    lines.extend(report.unchecked.iter().map(ToString::to_string));
    if report.findings.is_empty() && report.unchecked.is_empty() {
        lines.push("nothing was found".to_owned());
    }
    if let Some(trip) = &report.probe {
        let legs: Vec<String> = trip
            .legs
            .iter()
            .map(|leg| format!("  {:>6} ms  {}", leg.took_ms, leg.leg))
            .collect();
        lines.push(format!(
            "a row went all the way in {} ms:\n{}",
            trip.total_ms,
            legs.join("\n")
        ));
    }
    lines.join("\n")
}

pub(super) fn finding_in_words(finding: &Finding) -> String {
    let (place, text) = finding.remedy.parts();
    let text = text.replace('\n', "\n    ");
    format!(
        "{} {} ({})\n  {}\n  why: {}\n  {place}:\n    {text}\n",
        finding.code.severity.name().to_uppercase(),
        finding.code.name,
        finding.code.leg.name(),
        finding.what,
        finding.code.why
    )
}
