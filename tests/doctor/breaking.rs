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

/// Something that is really done to the installation. `{}` stands for its name.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Do {
    /// As the owner of the database.
    Sql(&'static str),
    /// Changes settings of the connector.
    Patch(&'static str),
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
    /// The doctor is asked with other settings.
    Ask(&'static [(&'static str, &'static str)]),
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
    /// It was never broken: the doctor was asked otherwise.
    AskedAgain,
}

/// Breaks one thing, expects its code of a doctor that is asked with these words, mends it, and expects silence.
pub(crate) async fn break_and_mend(installation: &mut Installation, (code, what, mend): Line, words: &[&str]) {
    let asked: &[(&str, &str)] = match what {
        Do::Ask(settings) => settings,
        other => {
            act(installation, other).await;
            &[]
        }
    };
    let named = until(
        &format!("{code} to be named after {what:?}"),
        Duration::from_secs(40),
        async || {
            let said = installation.doctor(words, asked).await;
            said.codes().contains(&code).then_some(said)
        },
    )
    .await;
    assert_ne!(named.code, 0, "{code}: {:?}", named.codes());
    for finding in named.findings() {
        let text = finding["remedy"]["text"].as_str().unwrap();
        assert!(
            !finding["why"].as_str().unwrap().is_empty() && text.len() > 10,
            "{finding}"
        );
    }
    match mend {
        Mend::AsPrinted => as_printed(installation, code, &named).await,
        Mend::AsPrintedThen(more) => {
            as_printed(installation, code, &named).await;
            act(installation, more).await;
        }
        Mend::AsPrintedTwice(next) => {
            as_printed(installation, code, &named).await;
            let named = until(&format!("{next} to be named"), Duration::from_secs(40), async || {
                let said = installation.doctor(words, asked).await;
                said.codes().contains(&next).then_some(said)
            })
            .await;
            as_printed(installation, next, &named).await;
        }
        Mend::Followed => {
            as_printed(installation, code, &named).await;
            let mut done_at = HashMap::new();
            until(
                &format!("{code} to be followed to its end"),
                Duration::from_secs(120),
                async || {
                    let said = installation.doctor(words, asked).await;
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
        Mend::AskedAgain => {}
    }
    silence(installation, &format!("{code} to be mended"), words).await;
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
async fn as_printed(installation: &Installation, code: &str, said: &Said) {
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
        Do::Request(method, path) => {
            request(method.parse().unwrap(), &installation.connector_url(path), "").await;
        }
        Do::Twin => {
            let config = reqwest::get(installation.connector_url("/config")).await.unwrap();
            let mut config: Value = config.json().await.unwrap();
            let name = named("{}_twin");
            config["name"] = name.clone().into();
            config["topic.prefix"] = "another".into();
            let body = serde_json::json!({"name": name, "initial_state": "STOPPED", "config": config});
            let url = format!("{}/connectors", address("CONNECT_URL"));
            request(reqwest::Method::POST, &url, &body.to_string()).await;
        }
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
            request(reqwest::Method::PUT, &installation.connector_url("/stop"), "").await;
            installation.drop_slots().await;
        }
        Do::DropSlots => {
            installation.stop().await;
            installation.drop_slots().await;
        }
        Do::Ask(_) => panic!("asking breaks nothing"),
    }
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
