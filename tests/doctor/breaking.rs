//! One thing that is broken, and how it is mended.

use std::collections::HashMap;
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use crate::brokers;
use crate::installation::{Installation, Said, address, execute};
use crate::patience::until;

/// Whoever follows remedies gives each so long to take effect.
const TAKES_EFFECT_WITHIN: Duration = Duration::from_secs(15);

/// A line of a list: the code that has to be named, what breaks it, and what mends it.
pub(crate) type Line = (&'static str, Do, Mend);

/// Several things that are broken at once, because each alone would cost the connector a restart: all of their codes have to be
/// named; then each is mended in turn, and is named no more.
pub(crate) type Together = (Do, &'static [(&'static str, Mend)]);

/// Something that is really done to the installation. `{}` stands for its name.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Do {
    /// As the owner of the database.
    Sql(&'static str),
    /// One after the other.
    Each(&'static [Do]),
    /// Changes settings of the connector.
    Patch(&'static str),
    /// Changes a setting of the connector in the topic of Connect's configurations, which asks nobody whether it may be so.
    Smuggle(&'static str, &'static str),
    /// A request about the connector with a body: method, path below it, body.
    Send(&'static str, &'static str, &'static str),
    /// Stops the connector, and waits until its task is gone.
    StopConnector,
    /// Gives a subject of the registry a compatibility level of its own.
    Level(&'static str, &'static str),
    /// Changes a captured row, and waits until the connector has noted down that it is behind it.
    Capture,
    /// Waits until no slot of the server keeps log for what ended.
    Released,
    /// Opens sessions that may read the log, until there may be no more; and closes them.
    Senders,
    NoSenders,
    /// Begins a transaction with a statement, in a session that stays.
    Open(&'static str),
    /// Restarts the own server, after this statement.
    Restart(&'static str),
    /// A request about the connector: method, path below it.
    Request(&'static str, &'static str),
    /// Makes a second connector of the same settings but for its prefix, which does not run.
    Twin,
    /// Gives a topic a setting.
    Topic(&'static str, &'static str, &'static str),
    /// Makes a topic of one partition, with the settings that it should have.
    MakeTopic(&'static str),
    DeleteTopic(&'static str),
    /// Forgets a group while nobody runs it.
    ForgetGroup(&'static str),
    /// Stops, or starts, the process that runs the groups.
    Stop,
    Start,
    /// `afterwrite connector apply`.
    Apply,
    /// Drops the slot of the connector, which is stopped for it.
    DropSlot,
    /// Drops the slots of groups, which are stopped for it.
    DropSlots,
    /// Writes a record into a topic as a converter would: with this id of a schema.
    Write(&'static str, Id),
    /// Waits until there are so many dead letters, and forgets them.
    Settled(i64),
}

/// The id of the schema that a record says it was written with.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Id {
    /// One that no registry has.
    Nobodys,
    /// That of the newest schema of this subject.
    Of(&'static str),
    /// In the headers, where the decoder does not look.
    InHeaders,
}

/// What mends it.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Mend {
    /// The remedies of this code, as they are printed.
    AsPrinted,
    /// The same, and then something that they leave to somebody.
    AsPrintedThen(Do),
    /// The same; then this code is named, and its remedy mends it.
    AsPrintedTwice(&'static str),
    /// The remedies of whatever is named, until nothing is.
    Followed,
    /// What no command does.
    By(Do),
}

/// Breaks one thing, expects its code of a doctor that is asked with these words, mends it, and expects silence.
pub(crate) async fn break_and_mend(installation: &mut Installation, (code, what, mend): Line, words: &[&str]) {
    act(installation, what).await;
    let named = naming(installation, &[code], words, &[]).await;
    mend_it(installation, code, mend, &named, words).await;
    silence(installation, &format!("{code} to be mended"), words).await;
}

/// Asks with other settings, all lines at once: nothing is broken by it.
pub(crate) async fn ask_otherwise(installation: &Installation, lines: &[(&str, &[(&str, &str)])], words: &[&str]) {
    let questions = lines.iter().map(async |(code, settings)| {
        let settings: Vec<(&str, String)> = settings
            .iter()
            .map(|(name, value)| (*name, (*value).to_owned()))
            .collect();
        naming(installation, &[*code], words, &settings).await;
    });
    futures::future::join_all(questions).await;
    silence(installation, "what is asked as it is", words).await;
}

/// Breaks several things, expects all of their codes, and mends them one by one.
pub(crate) async fn break_together(installation: &mut Installation, (what, lines): Together, words: &[&str]) {
    act(installation, what).await;
    let codes: Vec<&str> = lines.iter().map(|(code, _)| *code).collect();
    let mut named = naming(installation, &codes, words, &[]).await;
    for (code, mend) in lines {
        mend_it(installation, code, *mend, &named, words).await;
        named = until(
            &format!("{code} to be named no more"),
            Duration::from_secs(40),
            async || {
                let said = installation.doctor(words, &[]).await;
                (!said.codes().contains(code)).then_some(said)
            },
        )
        .await;
    }
    silence(installation, &format!("{codes:?} to be mended"), words).await;
}

/// Waits until all of these codes are named.
async fn naming(installation: &Installation, codes: &[&str], words: &[&str], asked: &[(&str, String)]) -> Said {
    let mut last = Vec::new();
    let deadline = Instant::now() + Duration::from_secs(40);
    let named = until(&format!("{codes:?} to be named"), Duration::from_secs(60), async || {
        let said = installation.doctor(words, asked).await;
        let is_late = Instant::now() > deadline;
        last = said.codes().into_iter().map(str::to_owned).collect();
        assert!(!is_late, "{codes:?} should be named, and these are: {last:?}");
        codes.iter().all(|code| said.codes().contains(code)).then_some(said)
    })
    .await;
    let is_note = |finding: &Value| finding["severity"] == "note";
    assert_eq!(named.code == 0, named.findings().all(is_note), "{:?}", named.codes());
    for finding in named.findings() {
        let text = finding["remedy"]["text"].as_str().unwrap();
        assert!(
            !finding["why"].as_str().unwrap().is_empty() && text.len() > 10,
            "{finding}"
        );
    }
    named
}

async fn mend_it(installation: &mut Installation, code: &str, mend: Mend, named: &Said, words: &[&str]) {
    match mend {
        Mend::AsPrinted => as_printed(installation, code, named).await,
        Mend::AsPrintedThen(more) => {
            as_printed(installation, code, named).await;
            act(installation, more).await;
        }
        Mend::AsPrintedTwice(next) => {
            as_printed(installation, code, named).await;
            let named = naming(installation, &[next], words, &[]).await;
            as_printed(installation, next, &named).await;
        }
        Mend::Followed => {
            as_printed(installation, code, named).await;
            let mut done_at = HashMap::new();
            until(
                &format!("{code} to be followed to its end"),
                Duration::from_secs(120),
                async || {
                    // Silent is only what a row goes through: a connector that tries again and again may look well for a moment.
                    let said = installation.doctor(&[], &[]).await;
                    for next in said.codes() {
                        let now = Instant::now();
                        // What was done takes a while to show.
                        let is_new = done_at.get(next).is_none_or(|at| now - *at > TAKES_EFFECT_WITHIN);
                        if is_new {
                            println!("{}: then {next}", installation.name);
                            as_printed(installation, next, &said).await;
                            done_at.insert(next.to_owned(), now);
                        }
                    }
                    said.is_silent().then_some(())
                },
            )
            .await;
        }
        Mend::By(other) => act(installation, other).await,
    }
}

/// Waits until the doctor has nothing to say.
pub(crate) async fn silence(installation: &Installation, what: &str, words: &[&str]) -> Said {
    let mut last = String::new();
    let deadline = Instant::now() + Duration::from_secs(60);
    until(what, Duration::from_secs(90), async || {
        let said = installation.doctor(words, &[]).await;
        let is_late = Instant::now() > deadline;
        last = said.report.to_string();
        assert!(!is_late, "{what}: {last}");
        said.is_silent().then_some(said)
    })
    .await
}

/// Runs every remedy of a code, once each.
pub(crate) async fn as_printed(installation: &Installation, code: &str, said: &Said) {
    let mut done: Vec<&Value> = Vec::new();
    for finding in said.findings().filter(|finding| finding["code"] == code) {
        let (kind, text) = (&finding["remedy"]["kind"], &finding["remedy"]["text"]);
        if done.contains(&text) {
            continue;
        }
        done.push(text);
        let text = text.as_str().unwrap();
        match kind.as_str().unwrap() {
            "sql" => execute(&installation.owner, text).await,
            "shell" if text.starts_with("kafka-") => {
                for command in text.lines() {
                    brokers::obey(command).await;
                }
            }
            "shell" => installation.shell(text).await,
            // Somebody has to wait, or to decide.
            "words" => {}
            other => panic!("{other} is no kind of remedy: {text}"),
        }
    }
}

async fn act(installation: &mut Installation, what: Do) {
    let named = |text: &str| text.replace("{}", &installation.name);
    match what {
        Do::Sql(sql) => execute(&installation.owner, &named(sql)).await,
        Do::Patch(body) => {
            request(
                reqwest::Method::PATCH,
                &installation.connector_url("/config"),
                &named(body),
            )
            .await
        }
        Do::Each(all) => {
            for one in all {
                Box::pin(act(installation, *one)).await;
            }
        }
        Do::Smuggle(key, value) => brokers::smuggle(installation, key, value).await,
        Do::Send(method, path, body) => {
            let url = installation.connector_url(path);
            request(method.parse().unwrap(), &url, &named(body)).await;
        }
        Do::Capture => capture(installation).await,
        Do::Released => released(installation).await,
        Do::Senders => installation.open_senders().await,
        Do::NoSenders => installation.close_senders(),
        Do::StopConnector => stop_connector(installation).await,
        Do::Level(subject, level) => {
            let url = format!("{}/config/{}", address("SCHEMA_REGISTRY_URL"), named(subject));
            let body = serde_json::json!({"compatibility": level}).to_string();
            request(reqwest::Method::PUT, &url, &body).await;
        }
        Do::Open(sql) => {
            installation.open(sql).await;
        }
        Do::Restart(sql) => installation.restart_server(sql).await,
        Do::Request(method, path) => {
            request(method.parse().unwrap(), &installation.connector_url(path), "").await;
        }
        Do::Twin => twin(installation, &named("{}_twin")).await,
        Do::Topic(topic, setting, value) => brokers::configure(&named(topic), setting, value).await,
        Do::MakeTopic(topic) => {
            let settings = [("max.message.bytes", "10485760"), ("cleanup.policy", "delete")];
            let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned()));
            brokers::make(&named(topic), 1, &settings).await;
        }
        Do::DeleteTopic(topic) => brokers::delete(&named(topic)).await,
        Do::ForgetGroup(group) => {
            let group = named(group);
            installation.stop().await;
            brokers::forget_group(&group).await;
        }
        Do::Stop => installation.stop().await,
        Do::Start => installation.start(),
        Do::Apply => installation.apply().await,
        Do::DropSlot => {
            stop_connector(installation).await;
            installation.drop_slots().await;
        }
        Do::DropSlots => {
            installation.has_slots().await;
            installation.stop().await;
            installation.drop_slots().await;
        }
        Do::Write(topic, id) => write(installation, &named(topic), id).await,
        Do::Settled(count) => settled(installation, count).await,
    }
}

/// Makes a second connector of the same slot.
async fn twin(installation: &Installation, name: &str) {
    let config = reqwest::get(installation.connector_url("/config")).await.unwrap();
    let mut config: Value = config.json().await.unwrap();
    config["name"] = name.into();
    config["topic.prefix"] = "another".into();
    let body = serde_json::json!({"name": name, "initial_state": "STOPPED", "config": config});
    let url = format!("{}/connectors", address("CONNECT_URL"));
    request(reqwest::Method::POST, &url, &body.to_string()).await;
}

async fn write(installation: &Installation, topic: &str, id: Id) {
    let id = match id {
        Id::Nobodys => Some(i32::MAX),
        Id::Of(subject) => Some(schema_of(&subject.replace("{}", &installation.name)).await),
        Id::InHeaders => None,
    };
    brokers::write(topic, id).await;
}

/// The id of the newest schema that the registry has for a subject.
async fn schema_of(subject: &str) -> i32 {
    let url = format!("{}/subjects/{subject}/versions/latest", address("SCHEMA_REGISTRY_URL"));
    let answer: Value = reqwest::get(url).await.unwrap().json().await.unwrap();
    let id = answer["id"].as_i64().unwrap_or_else(|| panic!("{subject}: {answer}"));
    id.try_into().unwrap()
}

async fn settled(installation: &Installation, count: i64) {
    until("the dead letters", Duration::from_secs(40), async || {
        let letters = "SELECT count(*) FROM afterwrite.letters";
        let letters: i64 = sqlx::query_scalar(letters)
            .fetch_one(&installation.owner)
            .await
            .unwrap();
        (letters == count).then_some(())
    })
    .await;
    execute(&installation.owner, "DELETE FROM afterwrite.letters").await;
}

/// Has the connector note down a place, by a change that it captures.
async fn capture(installation: &Installation) {
    execute(&installation.owner, "UPDATE campaigns SET name = name").await;
    until("the connector's note", Duration::from_secs(40), async || {
        let answer = reqwest::get(installation.connector_url("/offsets")).await.unwrap();
        let noted = answer.json::<Value>().await.ok()?;
        (!noted["offsets"].as_array()?.is_empty()).then_some(())
    })
    .await;
}

/// What runs is written down at each checkpoint, and a slot that is read moves on after it.
async fn released(installation: &Installation) {
    until("the log to be released", Duration::from_secs(60), async || {
        execute(&installation.owner, "CHECKPOINT").await;
        let kept = "SELECT coalesce(max(pg_current_wal_lsn() - restart_lsn), 0)::bigint FROM pg_replication_slots";
        let kept: i64 = sqlx::query_scalar(kept).fetch_one(&installation.owner).await.unwrap();
        (kept < 100_000_000).then_some(())
    })
    .await;
}

async fn stop_connector(installation: &Installation) {
    request(reqwest::Method::PUT, &installation.connector_url("/stop"), "").await;
    until("the connector to be stopped", Duration::from_secs(60), async || {
        let answer = reqwest::get(installation.connector_url("/status")).await.unwrap();
        let status: Value = answer.json().await.unwrap();
        let is_stopped = status["connector"]["state"] == "STOPPED" && status["tasks"] == serde_json::json!([]);
        is_stopped.then_some(())
    })
    .await;
}

async fn request(method: reqwest::Method, url: &str, body: &str) {
    let client = reqwest::Client::new();
    until(&format!("{method} {url}"), Duration::from_secs(30), async || {
        let request = client
            .request(method.clone(), url)
            .header("content-type", "application/json")
            .body(body.to_owned());
        let answer = request.send().await.unwrap();
        // A rebalance of Connect is under way.
        let status = answer.status();
        let said = answer.text().await.unwrap();
        assert!(
            status.is_success() || status == reqwest::StatusCode::CONFLICT,
            "{method} {url}: {status} {said}"
        );
        status.is_success().then_some(())
    })
    .await;
}
