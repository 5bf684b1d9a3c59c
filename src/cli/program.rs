//! A worker of one's own: a binary with every command of `afterwrite`, and other handlers than the waitlist's.

use std::error::Error;
use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;

use clap::{CommandFactory, FromArgMatches};

use crate::app::{refusals, schedule, waitlist};
use crate::cli::{self, Cli, Command, Failure};
use crate::config::Config;
use crate::config::load::{Inputs, Reading, read};
use crate::config::refusal::Wrong;
use crate::config::warning;
use crate::handler::Handler;
use crate::schedule::Job;
use crate::telemetry;

type Handlers = Vec<Arc<dyn Handler>>;
type Jobs = Vec<Arc<dyn Job>>;
type Cause = Box<dyn Error + Send + Sync>;

/// What follows from the configuration.
type Made<T> = Box<dyn Fn(&Config) -> Result<T, Cause> + Send + Sync>;

/// What a binary is: its handlers and scheduled jobs, made when the configuration is known.
///
/// ```no_run
/// use std::process::ExitCode;
/// use std::sync::Arc;
///
/// use afterwrite::cli::program::Program;
/// # use afterwrite::event::change::ChangeEvent;
/// # use afterwrite::handler::{Context, Handler, HandlerError, Outcome, Route, Spec};
/// # struct Invoices;
/// # #[async_trait::async_trait]
/// # impl Handler for Invoices {
/// #     fn spec(&self) -> Spec { Spec::new("invoices", [Route::of("orders")]) }
/// #     async fn handle(&self, _: &mut Context, _: &[Arc<ChangeEvent>]) -> Result<Outcome, HandlerError> { Ok(Outcome::Done) }
/// # }
///
/// fn main() -> ExitCode {
///     Program::of(|_config| Ok(vec![Arc::new(Invoices)])).main()
/// }
/// ```
pub struct Program {
    handlers: Made<Handlers>,
    jobs: Made<Jobs>,
    silent: Option<Made<Handlers>>,
    is_waitlist: bool,
}

#[derive(Debug, thiserror::Error)]
#[error("the demo shows the waitlist worker, and this program has other handlers: run `afterwrite demo`")]
struct NoDemo;

impl Program {
    /// A program whose handlers follow from the configuration.
    pub fn of(handlers: impl Fn(&Config) -> Result<Handlers, Cause> + Send + Sync + 'static) -> Self {
        Self {
            handlers: Box::new(handlers),
            jobs: Box::new(|_| Ok(Vec::new())),
            silent: None,
            is_waitlist: false,
        }
    }

    /// With the handlers as they run under `run --shadow`: the same, with clients that accept everything and send nothing (such
    /// as [`Silent`](crate::clients::silent::Silent)). Without them the program has no shadow: nobody else could know what a
    /// handler calls. Their rows are rolled back by the shadow itself.
    #[must_use]
    pub fn with_shadow(self, handlers: impl Fn(&Config) -> Result<Handlers, Cause> + Send + Sync + 'static) -> Self {
        Self {
            silent: Some(Box::new(handlers)),
            ..self
        }
    }

    /// With scheduled jobs, which follow from the configuration too.
    #[must_use]
    pub fn with_jobs(self, jobs: impl Fn(&Config) -> Result<Jobs, Cause> + Send + Sync + 'static) -> Self {
        Self {
            jobs: Box::new(jobs),
            ..self
        }
    }

    /// `afterwrite` itself: the waitlist worker.
    pub fn waitlist() -> Self {
        Self {
            handlers: Box::new(|config| Ok(waitlist::every_handler(config)?)),
            jobs: Box::new(|config| Ok(schedule::waitlist_jobs(config)?)),
            silent: Some(Box::new(|config| Ok(waitlist::silent_handlers(config)?))),
            is_waitlist: true,
        }
    }

    /// Whether its handlers are the waitlist's.
    pub(super) fn is_waitlist(&self) -> bool {
        self.is_waitlist
    }

    /// The handlers under this configuration.
    ///
    /// # Errors
    /// What the program says against the configuration.
    pub(super) fn handlers(&self, config: &Config) -> Result<Handlers, Cause> {
        (self.handlers)(config)
    }

    /// Says what a worker lacks under this configuration that starts all the same.
    pub(super) fn warn(&self, config: &Config) {
        if self.is_waitlist {
            waitlist::warn(config);
        }
    }

    /// The handlers as they run in a shadow; `None` where the program does not say.
    ///
    /// # Errors
    /// The same.
    pub(super) fn silent_handlers(&self, config: &Config) -> Result<Option<Handlers>, Cause> {
        self.silent.as_ref().map(|silent| silent(config)).transpose()
    }

    /// The scheduled jobs under this configuration.
    ///
    /// # Errors
    /// The same.
    pub(super) fn jobs(&self, config: &Config) -> Result<Jobs, Cause> {
        (self.jobs)(config)
    }

    /// A configuration with everything that can be said of it without a network, for this program.
    pub(super) fn checked(&self, inputs: &Inputs) -> Reading {
        let mut reading = read(inputs);
        reading.refuse(self.refusals(&reading.config));
        if self.is_waitlist {
            let warnings = warning::of_waitlist(&reading);
            reading.warnings.extend(warnings);
        }
        reading
    }

    /// What this program says against a configuration beyond what is wrong with its settings themselves.
    pub(super) fn refusals(&self, config: &Config) -> Vec<Wrong> {
        // What is made here is thrown away, and what it would log is said when it is made to work.
        tracing::subscriber::with_default(tracing::subscriber::NoSubscriber::default(), || {
            let mut wrong = Vec::new();
            let mut made = None;
            if self.is_waitlist {
                wrong.extend(refusals::of_waitlist(config));
            } else {
                let parts = self
                    .handlers(config)
                    .and_then(|handlers| Ok((handlers, self.jobs(config)?)));
                match parts {
                    Ok(parts) => made = Some(parts),
                    Err(cause) => wrong.push(Wrong::new(
                        "",
                        Failure::usage(cause).chain(),
                        "the program says so itself",
                    )),
                }
            }
            // Names are the same under every configuration that has any.
            let default = Config::default();
            let made = made.or_else(|| Some((self.handlers(&default).ok()?, self.jobs(&default).ok()?)));
            let names = made.map(|(handlers, jobs)| {
                let handlers = handlers.iter().map(|handler| handler.spec().name);
                let jobs = jobs.iter().map(|job| job.name().to_owned());
                (handlers.collect::<Vec<_>>(), jobs.collect::<Vec<_>>())
            });
            let (handlers, jobs) = names
                .as_ref()
                .map(|(handlers, jobs)| (&handlers[..], &jobs[..]))
                .unzip();
            wrong.extend(refusals::of_worker(config, handlers, jobs));
            wrong
        })
    }

    /// Does what the command line asks for, and answers the exit code: 0 ok, 1 failed, 2 wrong usage or configuration, 3 something
    /// could not be reached. Call it from `main`, outside of any runtime.
    pub fn main(self) -> ExitCode {
        match self.start() {
            Ok(()) => ExitCode::SUCCESS,
            Err(failure) => {
                // Also where nobody reads (`2>&1 | head`), the exit code is the failure's and no panic's.
                drop(writeln!(io::stderr(), "{}: {}", self.name(), failure.chain()));
                ExitCode::from(failure.exit_code())
            }
        }
    }

    /// What the program is called.
    pub(super) fn name(&self) -> String {
        let called = std::env::args_os().next().map(std::path::PathBuf::from);
        let called = called.and_then(|path| Some(path.file_name()?.to_str()?.to_owned()));
        match called {
            Some(called) if !self.is_waitlist => called,
            _ => "afterwrite".to_owned(),
        }
    }

    /// Everything that can fail without the runtime fails before it exists.
    fn start(&self) -> Result<(), Failure> {
        let matches = Cli::command().get_matches();
        let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
        if matches!(cli.command, Command::Demo(_)) && !self.is_waitlist {
            return Err(Failure::usage(NoDemo));
        }
        let runtime = || {
            let mut builder = tokio::runtime::Builder::new_multi_thread();
            builder.enable_all().build().map_err(Failure::failed)
        };
        if let Command::Config(args) = &cli.command {
            // It must work where the configuration is broken, and says itself what others log.
            let runtime = runtime()?;
            let _within = runtime.enter();
            return cli::config::run(args, &cli.global, self);
        }
        let reading = cli.configuration()?;
        telemetry::start(reading.config.log.format, reading.config.log.filter.as_deref());
        runtime()?.block_on(cli::run(cli, reading, self))
    }
}
