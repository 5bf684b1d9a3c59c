//! `afterwrite run`: the worker.

use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::app;
use crate::app::{keyless, own, schedule};
use crate::cli::program::Program;
use crate::cli::shadow::{self, ShadowArgs};
use crate::cli::{Failure, Global, database, reload, stop_signal};
use crate::clients::brokers;
use crate::config::Config;
use crate::config::load::Reading;
use crate::dead_letter::topic;
use crate::handler::Handler;
use crate::hindrance::Hindered;
use crate::ledger::sources;

/// Arguments of `run`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  afterwrite run                            all groups in one process
  afterwrite run --only email,reward        these groups only; run the others elsewhere
  afterwrite run --only schedule            scheduled work only
  AFTERWRITE__ENGINE__LANES_MAX=50 afterwrite run
  afterwrite run --shadow --output json     beside an old worker: decides, prints, writes and sends nothing

Scheduled work runs in every process, each tick in one of them; schedule.enabled = false leaves it to the others.

SIGTERM and Ctrl-C stop cleanly: what runs ends, positions are committed, the groups are left.
SIGHUP reads the configuration again: log.filter is in effect at once, what else changed is named and needs a restart.")]
// What a worker prints is a log: only the shadow's lines have colours.
#[command(mut_arg("when", |arg| arg.requires("shadow").help("With --shadow: whether to use colours")))]
pub struct RunArgs {
    /// Groups to run, short (email) or full (afterwrite.email); all when absent
    #[arg(long, value_name = "GROUP", value_delimiter = ',')]
    pub only: Vec<String>,
    #[command(flatten)]
    shadow: ShadowArgs,
}

/// How long what runs may take to end, where the brokers let nobody in.
const LAST_WORK_MAX: Duration = Duration::from_secs(2);

/// Ends when brokers that are there let nobody in who comes with this configuration. A worker waits for brokers that are away; one
/// that would wait for ever says so, and whoever restarts it sees why. Once it was let in it is not asked any more.
async fn refused_by_brokers(config: &Config) -> Hindered {
    match config.source.kind.has_brokers() {
        true => brokers::refusal(app::options::broker_options(config)).await,
        false => std::future::pending().await,
    }
}

/// What stands beside the names of groups for scheduled work alone.
const SCHEDULE: &str = "schedule";

#[derive(Debug, thiserror::Error)]
#[error("--only names {unknown}, which is not a group; there are {known}")]
struct UnknownGroup {
    unknown: String,
    known: String,
}

/// Runs the program's handlers until they are told to stop.
///
/// # Errors
/// Exit code 2 when the configuration is not as it must be or the brokers let nobody in with it, 3 when Postgres cannot be reached,
/// 1 when a group fails.
pub async fn run(args: &RunArgs, reading: Reading, global: &Global, program: &Program) -> Result<(), Failure> {
    let hangups = reload::hangups()?;
    let mut reading = reading;
    let refused = program.refusals(&reading.config);
    reading.refuse(refused);
    let running = reading.accepted().map_err(Failure::usage)?;
    let config = &running.config.clone();
    program.warn(config);
    let mut handlers = match args.shadow.shadow {
        true => shadow::handlers(config, program)?,
        false => own::enabled(config, program.handlers(config).map_err(Failure::usage)?).map_err(Failure::usage)?,
    };
    let names: Vec<String> = handlers.iter().map(|handler| handler.spec().name).collect();
    let only: Vec<&str> = args.only.iter().map(|group| config.short_group_name(group)).collect();
    let is_known = |group: &str| group == SCHEDULE || names.iter().any(|name| name == group);
    if let Some(unknown) = only.iter().find(|group| !is_known(group)) {
        let unknown = (*unknown).to_owned();
        return Err(Failure::usage(UnknownGroup {
            unknown,
            known: names.join(", "),
        }));
    }
    let is_wanted = |handler: &Arc<dyn Handler>| only.is_empty() || only.contains(&handler.spec().name.as_str());
    handlers.retain(is_wanted);
    if args.shadow.shadow {
        return shadow::run(&args.shadow, config, handlers, global.output).await;
    }
    let jobs = program.jobs(config).map_err(Failure::usage)?;
    schedule::plan(config, jobs.clone()).map_err(Failure::usage)?;
    // A worker waits for a database that goes away; one that never had it says so, and whoever restarts it sees why.
    database::connect(config).await?.close().await;
    let stop = Arc::new(watch::Sender::new(false));
    let (stopping, asked_to) = (stop.subscribe(), Arc::clone(&stop));
    let signals = tokio::spawn(async move {
        let heard = stop_signal().await;
        asked_to.send_replace(true);
        heard
    });
    let mut serving = Box::pin(app::serve_with_jobs(config, handlers, jobs, stopping));
    let served = tokio::select! {
        served = &mut serving => served,
        never = reload::at_hangups(hangups, running, global, program) => match never {},
        refused = refused_by_brokers(config) => {
            // What runs already, such as scheduled work, may end.
            stop.send_replace(true);
            match timeout(LAST_WORK_MAX, serving).await {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => tracing::warn!(error = %error, "the worker ended with an error besides"),
                Err(_) => tracing::warn!("what ran has not ended in time, and is abandoned"),
            }
            return Err(Failure::usage(refused));
        }
    };
    signals.abort();
    served.map(|_| ()).map_err(|error| {
        // A topic, a table or a source contradicts what it should be, and only a person can say which of them is right.
        let contradicts = error.is::<topic::Error>()
            || matches!(error.downcast_ref(), Some(keyless::Error::NoPrimaryKey { .. }))
            || matches!(error.downcast_ref(), Some(sources::Error::Refused(_)));
        match contradicts {
            true => Failure::usage(error),
            false => Failure::failed(error),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    use crate::cli::Cli;
    use crate::config::load::{Inputs, read};

    #[test]
    fn only_the_shadow_has_colours() {
        let parses = |words: &[&str]| Cli::try_parse_from([&["afterwrite"], words].concat()).is_ok();
        assert!(!parses(&["run", "--color", "always"]));
        for words in [
            &["run"][..],
            &["run", "--shadow", "--color", "always"],
            &["run", "--shadow"],
        ] {
            assert!(parses(words), "{words:?}");
        }
    }

    #[tokio::test]
    async fn a_database_that_cannot_be_reached_is_exit_code_3_and_says_so() {
        let inputs = Inputs {
            // Nobody listens there.
            set: vec!["postgres.url=postgres://127.0.0.1:1/none".to_owned()],
            ..Inputs::default()
        };
        let global = Cli::try_parse_from(["afterwrite", "run"]).unwrap().global;
        let args = RunArgs {
            only: Vec::new(),
            shadow: ShadowArgs::default(),
        };
        let program = Program::waitlist();
        let ran = Box::pin(run(&args, read(&inputs), &global, &program)).await;
        let failure = ran.unwrap_err();
        assert_eq!(failure.exit_code(), 3);
        let said = failure.chain();
        assert!(
            said.starts_with("postgres at 127.0.0.1:1/none could not be reached"),
            "{said}"
        );
    }
}
