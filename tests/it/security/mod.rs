//! Every connection, with everything that can be wrong with it: certificate, host name, login, protection.
//!
//! The cases are a table of each kind of connection. A good one does real work over it; of a bad one the program itself, not
//! the library, is asked: it has to end within ten seconds, say which of them is wrong, where, and which setting mends it, and
//! no secret. Postgres has its table in [`wal_tls`](crate::wal_tls), because it can only be told to speak TLS by one at a time.

mod doors;

mod brokers;

mod others;

mod tokens;

mod wire;

mod connect;

mod acls;

mod changing;

mod locks;

mod told;

use std::time::Duration;

use futures::stream::{self, StreamExt};
use serde_json::Value;
use tokio::time::Instant;

use crate::stack::until;
use crate::worker::Worker;
use crate::world::World;

/// Within which whatever is wrong has to be told.
pub(crate) const TOLD_WITHIN: Duration = Duration::from_secs(10);

/// Programs that run at once; most of their time they wait.
const AT_ONCE: usize = 8;

/// A part of every password of these tests, and how every token begins.
const SECRETS: [&str; 2] = ["s3cret", "eyJ"];

/// What settings are made of: variables with their values.
pub(crate) type Variables = Vec<(String, String)>;

/// One run of the program that has to be told what is wrong.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) words: &'static [&'static str],
    pub(crate) settings: Variables,
    /// The exit code that follows; `None` for a worker that says it and waits.
    pub(crate) code: Option<i32>,
    /// What has to be said.
    pub(crate) says: Vec<String>,
}

/// What a run said, all of it.
pub(crate) struct Said {
    pub(crate) code: Option<i32>,
    /// On standard output.
    pub(crate) out: String,
    /// On both.
    pub(crate) text: String,
    pub(crate) took: Duration,
}

/// Runs the program once.
pub(crate) async fn run(world: &World, words: &[&str], settings: &Variables) -> Said {
    let mut command = world.command(env!("CARGO_BIN_EXE_afterwrite"));
    command.args(words).envs(settings.iter().cloned()).kill_on_drop(true);
    let began = Instant::now();
    let ran = tokio::time::timeout(TOLD_WITHIN * 2, command.output()).await;
    let output = ran
        .unwrap_or_else(|_| panic!("{words:?} with {settings:?} does not end"))
        .unwrap();
    let [out, errors] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    let said = Said {
        code: output.status.code(),
        text: format!("{out}\n{errors}"),
        out,
        took: began.elapsed(),
    };
    assert_silent(&said.text);
    said
}

/// Runs a worker until it has said what is wrong, and is still there.
async fn wait(world: &World, case: &Case) -> Said {
    let settings: Vec<(&str, &str)> = case
        .settings
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    let began = Instant::now();
    let mut worker = Worker::waitlist(world, &case.name.replace(' ', "_"), &settings);
    let text = until(case.name, TOLD_WITHIN * 2, async || {
        let said = worker.said();
        let is_told = worker.has_ended() || case.says.iter().all(|words| said.contains(words));
        is_told.then_some(said)
    })
    .await;
    assert_silent(&text);
    Said {
        code: worker.ended().and_then(|status| status.code()),
        out: String::new(),
        text,
        took: began.elapsed(),
    }
}

/// No secret was said.
pub(crate) fn assert_silent(said: &str) {
    for secret in SECRETS {
        assert!(!said.contains(secret), "a secret was said: {said}");
    }
}

/// Runs all cases, some at once; answers how long the slowest took.
pub(crate) async fn check(world: &World, cases: Vec<Case>) -> Duration {
    let (count, began) = (cases.len(), Instant::now());
    let ran = stream::iter(cases).map(async |case| {
        let said = match case.code {
            Some(_) => run(world, case.words, &case.settings).await,
            None => wait(world, &case).await,
        };
        (said, case)
    });
    let ran: Vec<(Said, Case)> = ran.buffer_unordered(AT_ONCE).collect().await;
    let mut slowest = Duration::ZERO;
    let mut wrong = Vec::new();
    for (said, case) in &ran {
        slowest = slowest.max(said.took);
        let missing: Vec<&String> = case.says.iter().filter(|words| !said.text.contains(*words)).collect();
        if said.code != case.code || !missing.is_empty() || said.took > TOLD_WITHIN {
            let Said { code, text, took, .. } = said;
            let (name, words) = (case.name, case.words);
            wrong.push(format!(
                "{name}, {words:?}: exit code {code:?} after {took:?}, {missing:?} is missing in: {text}"
            ));
        }
    }
    assert!(wrong.is_empty(), "{} of {count}:\n{}", wrong.len(), wrong.join("\n"));
    println!("{count} cases in {:?}, the slowest took {slowest:?}", began.elapsed());
    slowest
}

/// The codes of what `doctor` found.
pub(crate) async fn codes(world: &World, settings: &Variables) -> Vec<String> {
    let said = run(world, &DOCTOR, settings).await;
    let report: Value = serde_json::from_str(&said.out).unwrap_or_else(|error| panic!("{error}: {}", said.text));
    let findings = report["findings"].as_array().unwrap();
    findings
        .iter()
        .map(|finding| finding["code"].as_str().unwrap().to_owned())
        .collect()
}

/// `doctor`, as a program reads it.
pub(crate) const DOCTOR: [&str; 4] = ["doctor", "--no-probe", "--output", "json"];

pub(crate) fn settings(pairs: &[(&str, &str)]) -> Variables {
    let owned = pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    owned.collect()
}
