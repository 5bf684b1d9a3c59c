//! `afterwrite config`: what is wrong with the configuration, what is in effect, and what there is to set.
//!
//! Nothing here needs a network, and nothing prints a secret.

use clap::{Args, Subcommand};
use serde::Serialize;
use toml::Value;

use crate::cli::output::{Output, print_line, table};
use crate::cli::program::Program;
use crate::cli::{Failure, Global, InVain};
use crate::config::reference::{self, Entry};
use crate::config::refusal::{Place, Refusal};
use crate::config::shown::shown;
use crate::config::warning::Warning;

/// Arguments of `config`.
#[derive(Debug, Args)]
pub struct ConfigArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Say all that is wrong with the configuration, each with its place and what to do
    ///
    /// Everything that can be known without a network is checked. What is legal and probably not meant is a warning. Exit code
    /// 2 when something is refused.
    Check,
    /// Show what is in effect and where each setting comes from; secrets are masked
    ///
    /// A value that was fetched from a variable or a file is shown as the reference.
    Show(ShowArgs),
    /// Print every setting with what it takes, its default and its variables: a file to begin with
    Reference,
}

#[derive(Debug, Args)]
struct ShowArgs {
    /// Leave out what has its default
    #[arg(long)]
    changed: bool,
}

#[derive(Debug, thiserror::Error)]
#[error("the configuration was refused: {0} of it cannot be; see above")]
struct Refused(usize);

/// What `config check` says.
#[derive(Serialize)]
struct Report<'a> {
    ok: bool,
    file: Option<&'a str>,
    refusals: &'a [Refusal],
    warnings: &'a [Warning],
}

/// Checks, shows or describes the configuration.
///
/// # Errors
/// Exit code 2 when it is refused.
pub fn run(args: &ConfigArgs, global: &Global, program: &Program) -> Result<(), Failure> {
    match &args.action {
        Action::Check => check(global, program),
        Action::Show(args) => show(args, global, program),
        Action::Reference => reference(global),
    }
}

fn check(global: &Global, program: &Program) -> Result<(), Failure> {
    let reading = program.checked(&global.inputs());
    let report = Report {
        ok: reading.refusals.is_empty(),
        file: reading.file.as_deref(),
        refusals: &reading.refusals,
        warnings: &reading.warnings,
    };
    global.output.print(&report, in_lines)?;
    match report.refusals.len() {
        0 => Ok(()),
        refused => Err(Failure::usage(Refused(refused))),
    }
}

fn in_lines(report: &Report<'_>) -> String {
    let mut lines: Vec<String> = report.refusals.iter().map(ToString::to_string).collect();
    lines.extend(report.warnings.iter().map(|warning| format!("warning: {warning}")));
    if report.ok {
        let read = report.file.map_or("no file, the environment and flags", |file| file);
        lines.push(format!("nothing is refused (read: {read})"));
    }
    lines.join("\n")
}

fn show(args: &ShowArgs, global: &Global, program: &Program) -> Result<(), Failure> {
    let reading = program.checked(&global.inputs()).accepted().map_err(Failure::usage)?;
    let mut settings = shown(&reading);
    settings.retain(|shown| !args.changed || shown.origin != Place::Default);
    global.output.print(&settings, |settings| {
        let rows = settings.iter().map(|shown| {
            let value = shown.value.as_ref().map_or_else(|| "-".to_owned(), in_words);
            [shown.setting.clone(), value, shown.origin.to_string()]
        });
        table(["SETTING", "VALUE", "FROM"], rows)
    })
}

fn in_words(value: &Value) -> String {
    match value {
        Value::String(text) if !text.is_empty() => text.clone(),
        value => value.to_string(),
    }
}

fn reference(global: &Global) -> Result<(), Failure> {
    let variable = std::env::var_os(crate::cli::CONFIG_VARIABLE);
    if let Some(word) = global.typed_in_vain(variable.as_deref()) {
        return Err(Failure::usage(InVain(word)));
    }
    match global.output {
        Output::Table => print_line(reference::file().trim_end()),
        output @ Output::Json => output.print(&reference::entries(), |_: &Vec<Entry>| String::new()),
    }
}
