//! The command line: one enum, one match, one file per command.
//!
//! A command prints its result to standard output, as a table for people or as JSON, and answers a [`Failure`] that
//! carries the exit code. Nothing here decides anything about delivery.

pub mod bench;
mod brokers;
mod colours;
pub mod config;
pub mod connector;
pub mod decode;
mod decoded;
pub mod demo;
pub mod dlq;
pub mod doctor;
pub mod email;
pub mod erase;
pub mod fraud;
pub mod graduate;
pub mod health;
pub mod mail_catcher;
pub mod migrate;
pub mod program;
pub mod reconcile;
mod reload;
pub mod replay;
pub mod run;
pub mod schedule;
mod shadow;
pub mod shell;
pub mod slot;
pub mod status;
pub mod tail;
pub mod topics;

mod following;

mod operator;

pub mod output;

pub mod database;

use std::error::Error;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use self::output::Output;
use self::program::Program;
use crate::app;
use crate::causes::chain;
use crate::config::load::{Inputs, Reading, read};
use crate::hindrance::Hindered;

/// Your Postgres writes trigger work: a worker that reacts to the changes Debezium streams into Kafka.
#[derive(Debug, Parser)]
#[command(
    name = "afterwrite",
    version,
    max_term_width = 110,
    after_help = "Exit codes: 0 ok, 1 failed, 2 wrong usage or configuration, 3 something could not be reached, 4 warnings only (doctor)."
)]
pub struct Cli {
    /// What every command takes.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What every command takes.
#[derive(Debug, Args)]
pub struct Global {
    /// Configuration file; afterwrite.toml in the working directory when there is one
    #[arg(
        long,
        value_name = "FILE",
        global = true,
        env = CONFIG_VARIABLE,
        help_heading = "Global options"
    )]
    pub config: Option<PathBuf>,
    /// Print for people or for programs
    #[arg(long, value_enum, global = true, default_value_t = Output::Table, help_heading = "Global options")]
    pub output: Output,
    /// Override one setting, e.g. --set engine.lanes_max=20
    #[arg(
        long = "set",
        value_name = "SECTION.KEY=VALUE",
        global = true,
        help_heading = "Global options"
    )]
    pub set: Vec<String>,
}

/// The variable that stands for `--config`.
const CONFIG_VARIABLE: &str = "AFTERWRITE_CONFIG";

impl Global {
    /// Where settings come from.
    fn inputs(&self) -> Inputs {
        Inputs::of_process(self.config.as_deref(), &self.set)
    }

    /// The same settings as words of a command line, for a process that is started to work under them.
    pub fn words(&self) -> Vec<OsString> {
        let file = self.config.iter().flat_map(|file| ["--config".into(), file.into()]);
        let set = self.set.iter().flat_map(|argument| ["--set".into(), argument.into()]);
        file.chain(set).collect()
    }

    /// What of this was typed for a command that reads no configuration; the variable is no such word, because it is
    /// meant for all the others.
    fn typed_in_vain(&self, variable: Option<&OsStr>) -> Option<&'static str> {
        let is_variable = self.config.as_ref().map(|file| file.as_os_str()) == variable;
        match self {
            _ if !self.set.is_empty() => Some("--set"),
            _ if self.config.is_some() && !is_variable => Some("--config"),
            _ => None,
        }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("{0} would do nothing: this command reads no configuration, and the demo makes its own. See its --help")]
struct InVain(&'static str);

/// Every command.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Keep every mail sent to a local SMTP server as a file (for tests and the demo)
    MailCatcher(mail_catcher::MailCatcherArgs),
    /// Make and update everything the worker needs in Postgres
    Migrate(migrate::MigrateArgs),
    /// Play a small campaign's life against the real stack, from nothing and without Docker
    Demo(demo::DemoArgs),
    /// React to changes: the worker
    Run(run::RunArgs),
    /// Show how each group is: who runs it, how far behind it is, what waits, failed or is stopped
    Status(status::StatusArgs),
    /// Ask the worker of this machine whether it lives
    Health(health::HealthArgs),
    /// Look for what is wrong on the whole way from a row to its work, and say what mends it
    Doctor(doctor::DoctorArgs),
    /// Follow, list, show, replay, discard and move dead letters
    Dlq(dlq::DlqArgs),
    /// List the replication slots of groups that read the write-ahead log, and drop those nobody needs
    Slot(slot::SlotArgs),
    /// Move all groups from the write-ahead log to Kafka, without losing or repeating anything
    Graduate(graduate::GraduateArgs),
    /// Move the position of a stopped group, so that records are delivered again
    Replay(replay::ReplayArgs),
    /// Look at what the fraud checks found, and decide about it
    Fraud(fraud::FraudArgs),
    /// Forget what the worker keeps of a person
    Erase(erase::EraseArgs),
    /// List what runs by the clock, and run it now
    Schedule(schedule::ScheduleArgs),
    /// Compute positions, rewards, fraud or analytics from the facts, and write what differs
    Reconcile(reconcile::ReconcileArgs),
    /// Show decoded changes as they happen
    Tail(tail::TailArgs),
    /// Show how mails will look
    Email(email::EmailArgs),
    /// Decode captured records into canonical events, one JSON object a line
    Decode(decode::DecodeArgs),
    /// Put Debezium connectors into Kafka Connect and look after them
    Connector(connector::ConnectorArgs),
    /// Show which topics are needed and how they differ from those there are, make them, and print who has to be allowed what
    Topics(topics::TopicsArgs),
    /// Check the configuration, show what is in effect and where it comes from, and print every setting
    Config(config::ConfigArgs),
    /// Measure how fast changes are handled, and prove order, no loss and no repetition meanwhile
    Bench(bench::BenchArgs),
    /// Print what makes a shell complete commands and options
    Completions(shell::CompletionsArgs),
    /// Write manual pages, one for each command
    Man(shell::ManArgs),
}

impl Cli {
    /// The configuration, for commands that have one. The others must work where the configuration is broken.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn configuration(&self) -> Result<Reading, Failure> {
        match self.command {
            Command::MailCatcher(_) | Command::Demo(_) | Command::Completions(_) | Command::Man(_) => {
                let variable = std::env::var_os(CONFIG_VARIABLE);
                match self.global.typed_in_vain(variable.as_deref()) {
                    Some(word) => Err(Failure::usage(InVain(word))),
                    None => Ok(Reading::default()),
                }
            }
            _ => read(&self.global.inputs()).accepted().map_err(Failure::usage),
        }
    }
}

/// Runs the command that was asked for.
///
/// # Errors
/// What went wrong, with the exit code that follows from it.
pub async fn run(cli: Cli, reading: Reading, program: &Program) -> Result<(), Failure> {
    let output = cli.global.output;
    if let Command::Run(args) = &cli.command {
        return Box::pin(run::run(args, reading, &cli.global, program)).await;
    }
    let config = reading.config;
    match cli.command {
        Command::MailCatcher(args) => mail_catcher::run(&args).await,
        Command::Migrate(args) => migrate::run(&args, &config, output).await,
        Command::Demo(args) => Box::pin(demo::run(&args, output)).await,
        Command::Config(args) => config::run(&args, &cli.global, program),
        Command::Run(_) => unreachable!("it was run above"),
        Command::Status(args) => Box::pin(status::run(&args, &config, output)).await,
        Command::Health(args) => health::run(&args, &config, output).await,
        Command::Doctor(args) => Box::pin(doctor::run(&args, &config, program, output)).await,
        Command::Slot(args) => Box::pin(slot::run(&args, &config, output)).await,
        Command::Dlq(args) => Box::pin(dlq::run(&args, &config, output)).await,
        Command::Graduate(args) => Box::pin(graduate::run(&args, &config, output)).await,
        Command::Replay(args) => Box::pin(replay::run(&args, &config, output)).await,
        Command::Fraud(args) => Box::pin(fraud::run(&args, &config, output)).await,
        Command::Erase(args) => Box::pin(erase::run(&args, &config, output)).await,
        Command::Schedule(args) => Box::pin(schedule::run(&args, &config, program, output)).await,
        Command::Reconcile(args) => Box::pin(reconcile::run(&args, &config, output)).await,
        Command::Tail(args) => Box::pin(tail::run(&args, &config, output)).await,
        Command::Email(args) => Box::pin(email::run(&args, &config, output)).await,
        Command::Decode(args) => {
            let out = std::io::BufWriter::new(std::io::stdout().lock());
            decode::run(&args, app::options::decode_options(&config), out).map_err(Failure::failed)
        }
        Command::Connector(args) => Box::pin(connector::run(&args, &config, program, output)).await,
        Command::Topics(args) => Box::pin(topics::run(&args, &config, program, output)).await,
        Command::Bench(args) => Box::pin(bench::run(&args, &config, &cli.global.words(), output)).await,
        Command::Completions(args) => {
            shell::completions(&args, &program.name());
            Ok(())
        }
        Command::Man(args) => shell::man(&args),
    }
}

type Cause = Box<dyn Error + Send + Sync>;

/// Why a command failed, and with that its exit code.
#[derive(Debug)]
pub enum Failure {
    /// The command ran and did not succeed: exit code 1.
    Failed(Cause),
    /// The command line or the configuration is wrong: exit code 2.
    Usage(Cause),
    /// Something the command needs could not be reached: exit code 3.
    Unreachable(Cause),
    /// The command found something to look at that is no failure yet: exit code 4.
    Warned(Cause),
}

impl Failure {
    /// The command ran and did not succeed.
    pub fn failed(cause: impl Into<Cause>) -> Self {
        Self::Failed(cause.into())
    }

    /// The command line or the configuration is wrong.
    pub fn usage(cause: impl Into<Cause>) -> Self {
        Self::Usage(cause.into())
    }

    /// Something the command needs could not be reached.
    pub fn unreachable(cause: impl Into<Cause>) -> Self {
        Self::Unreachable(cause.into())
    }

    /// There is something to look at that is no failure yet.
    pub fn warned(cause: impl Into<Cause>) -> Self {
        Self::Warned(cause.into())
    }

    /// The certificate, host name or login that is wrong, where it is that.
    pub(crate) fn hindered(&self) -> Option<&Hindered> {
        let (Self::Failed(cause) | Self::Usage(cause) | Self::Unreachable(cause) | Self::Warned(cause)) = self;
        cause.downcast_ref()
    }

    /// The process's exit code.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Failed(_) => 1,
            Self::Usage(_) => 2,
            Self::Unreachable(_) => 3,
            Self::Warned(_) => 4,
        }
    }

    /// The error and all its causes in one line, each said once: some libraries repeat the cause in their own text.
    pub fn chain(&self) -> String {
        let (Self::Failed(cause) | Self::Usage(cause) | Self::Unreachable(cause) | Self::Warned(cause)) = self;
        chain(&**cause)
    }
}

/// Completes when the process is asked to stop, by SIGTERM or by Ctrl-C.
///
/// # Errors
/// When the system refuses the signal handlers.
pub async fn stop_signal() -> Result<(), Failure> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).map_err(Failure::failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Failure::failed)?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::Cli;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn settings_for_a_command_without_any_are_refused() {
        let refused = |words: &[&[&str]]| {
            let cli = Cli::try_parse_from(words.concat()).unwrap();
            cli.configuration()
                .map(|_| ())
                .err()
                .map(|failure| (failure.exit_code(), failure.chain()))
        };
        for command in [&["demo"][..], &["mail-catcher", "--dir", "x"]] {
            assert_eq!(refused(&[&["afterwrite"], command]), None);
            for word in [["--set", "engine.lanes_max=5"], ["--config", "mine.toml"]] {
                let (code, said) = refused(&[&["afterwrite"], &word, command]).unwrap();
                assert!(code == 2 && said.starts_with(word[0]), "{code} {said}");
            }
        }
    }

    #[test]
    fn the_variable_is_not_taken_for_a_word_that_was_typed() {
        let cli = Cli::try_parse_from(["afterwrite", "--config", "a.toml", "demo"]).unwrap();
        assert_eq!(cli.global.typed_in_vain(Some("a.toml".as_ref())), None);
        assert_eq!(cli.global.typed_in_vain(Some("b.toml".as_ref())), Some("--config"));
    }

    #[test]
    fn a_process_that_is_started_is_given_the_same_settings() {
        let given = [
            "--config",
            "a.toml",
            "--set",
            "engine.lanes_max=5",
            "--set",
            "log.format=json",
        ];
        let words = [&["afterwrite"], &given[..], &["run"]].concat();
        let cli = Cli::try_parse_from(words).unwrap();
        assert_eq!(cli.global.words(), given);
    }
}
