//! Rights in Kafka: what `topics plan --acls` prints is enough for each part, and a right that is missing is told.

use std::time::Duration;

use serde_json::Value;

use super::brokers::scram;
use super::connect::Connect;
use super::wire::{Right, give, rights_of, set_password};
use super::{DOCTOR, Variables, assert_silent, run};
use crate::mails::caught;
use crate::producer;
use crate::stack::{self, until};
use crate::worker::Worker;
use crate::world::World;

const WITHIN: Duration = Duration::from_secs(60);

const PASSWORD: &str = "part-s3cret";

const GROUP_PREFIX: &str = "AFTERWRITE__KAFKA__GROUP_PREFIX";

/// Who the brokers know a part as.
fn user(world: &World, part: &str) -> String {
    format!("{}-{part}", world.name)
}

/// What groups are called, other than topics of the source: neither is allowed by the name of the other.
fn prefix(world: &World) -> String {
    format!("{}-groups", world.name)
}

/// The rights that are printed, as a whole.
async fn printed(world: &World, file: &str) -> Vec<Right> {
    let [worker, operator, connect] =
        ["worker", "operator", "connect"].map(|part| format!("User:{}", user(world, part)));
    let group = user(world, "connect");
    let words = [
        ["topics", "plan", file, "--acls"],
        ["--worker", &worker, "--operator", &operator],
        ["--connect", &connect, "--connect-group", &group],
    ];
    let (code, commands, said) = world.said(&words.concat(), (GROUP_PREFIX, &prefix(world))).await;
    assert_eq!(code, Some(0), "{said}");
    rights_of(&commands).await
}

/// A world whose parts each come in by a name of their own.
struct Parts<'w> {
    world: &'w World,
    file: String,
    rights: Vec<Right>,
}

impl Parts<'_> {
    fn login(&self, part: &str) -> Variables {
        let mut variables = scram(&user(self.world, part), PASSWORD);
        variables.push((GROUP_PREFIX.to_owned(), prefix(self.world)));
        variables
    }

    fn rights(&self, part: &str) -> Vec<Right> {
        let principal = format!("User:{}", user(self.world, part));
        let own = self.rights.iter().filter(|right| right.principal == principal);
        own.cloned().collect()
    }

    /// Runs a command as the operator, which has to succeed.
    async fn operate(&self, words: &[&str], more: &[(&str, &str)]) -> String {
        let mut command = self.world.command(env!("CARGO_BIN_EXE_afterwrite"));
        let more = more.iter().copied();
        command.args(words).envs(self.login("operator")).envs(more);
        let output = command.output().await.unwrap();
        let [out, errors] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
        assert!(output.status.success(), "{words:?}: {out}{errors}");
        out
    }

    fn group(&self, end: &str) -> String {
        format!("{}.{end}", prefix(self.world))
    }
}

/// Rights that are kept back at first, one of each kind.
struct KeptBack {
    /// The group of mails.
    group: Right,
    /// A topic that it reads.
    topic: Right,
    /// Writing its topic of letters, which the operator has made: so making it is not needed either.
    letters: Right,
}

impl KeptBack {
    /// Takes them out of what a worker is given.
    fn out_of(rights: &mut Vec<Right>, parts: &Parts<'_>) -> Self {
        let mut take = |resource: &str, name: String| {
            let is_it = |right: &Right| right.resource == resource && right.name == name;
            let found = rights.iter().position(is_it);
            let found = rights.remove(found.unwrap_or_else(|| panic!("{name} is not printed")));
            // More than one group reads it.
            rights.retain(|right| !is_it(right));
            found
        };
        let kept = Self {
            group: take("--group", parts.group("email")),
            topic: take("--topic", format!("{}.public.waitlist_users", parts.world.name)),
            letters: take("--topic", parts.group("email.dlq")),
        };
        rights.push(kept.letters.without("Write").without("Create"));
        kept
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_printed_rights_are_enough_for_every_part_and_each_that_is_missing_is_told() {
    let _stack = stack::shared().await;
    let world = World::waitlist_alone("acls").await;
    let file = world.connector_file(world.of_waitlist()).display().to_string();
    let parts = Parts {
        rights: printed(&world, &file).await,
        world: &world,
        file,
    };
    for part in ["worker", "operator", "connect"] {
        set_password(&user(&world, part), PASSWORD).await;
    }
    give(&[parts.rights("operator"), parts.rights("connect")].concat()).await;
    let name = user(&world, "connect");
    let mut connect = Connect::start(&name, &name, PASSWORD);
    let apply = ["topics", "apply", &parts.file, "--replication-factor", "1"];
    parts.operate(&apply, &[]).await;

    let mut rights = parts.rights("worker");
    let kept = KeptBack::out_of(&mut rights, &parts);
    give(&rights).await;
    let worker = is_told_what_is_missing(&parts, &kept).await;
    connect.ready().await;
    let at = [("CONNECT_URL", connect.url.as_str())];
    parts.operate(&["connector", "apply", &parts.file], &at).await;
    a_full_round(&parts, &kept, &worker).await;

    parts.operate(&["connector", "delete", &world.name], &at).await;
    worker.stop().await;
    let denied = connect.said().contains("AuthorizationException");
    assert!(!denied, "{}", connect.said());
    drop(connect);
    until("the slot to be free", WITHIN, async || {
        let dropped = sqlx::query("SELECT pg_drop_replication_slot($1)").bind(&world.name);
        dropped.execute(&world.pool).await.ok().map(|_| ())
    })
    .await;
    world.remove().await;
}

/// Without a right the doctor and the worker say which, where, and what gives it; with it the worker goes on by itself.
async fn is_told_what_is_missing(parts: &Parts<'_>, kept: &KeptBack) -> Worker {
    let (world, login) = (parts.world, parts.login("worker"));
    let said = run(world, &DOCTOR, &login).await;
    let report: Value = serde_json::from_str(&said.out).unwrap_or_else(|error| panic!("{error}: {}", said.text));
    let found = |code: &str| {
        let findings = report["findings"].as_array().unwrap().iter();
        let texts: Vec<&str> = findings
            .filter(|finding| finding["code"] == code)
            .map(|finding| finding["what"].as_str().unwrap())
            .collect();
        texts.join("; ")
    };
    let (topic, group) = (&kept.topic.name, &kept.group.name);
    assert_eq!(
        found("topic-denied"),
        format!("topic {topic} may not be described"),
        "{report}"
    );
    assert_eq!(
        found("group-denied"),
        format!("group {group} may not be described"),
        "{report}"
    );
    assert!(!report.to_string().contains("topics-unread"), "{report}");

    let pairs: Vec<(&str, &str)> = login.iter().map(|(name, value)| (&**name, &**value)).collect();
    let worker = Worker::waitlist(world, "w", &pairs);
    let of_group = format!("group=\"{group}\"");
    for (line, right, command) in [
        (
            format!("kafka does not let us join or commit for group {group}: it needs Read;"),
            &kept.group,
            format!("--operation Read --group '{group}'"),
        ),
        (
            format!("kafka does not let us read topic {topic}: it needs Read, DescribeConfigs;"),
            &kept.topic,
            format!("--operation Read --operation DescribeConfigs --topic '{topic}'"),
        ),
    ] {
        until(&line, WITHIN, async || {
            let said = worker.said();
            let parts = [&line, &command, &of_group];
            let is_told = said.lines().any(|told| parts.iter().all(|part| told.contains(*part)));
            is_told.then_some(())
        })
        .await;
        give(std::slice::from_ref(right)).await;
    }
    worker
}

/// From a row to its mail, with a dead letter and its replay on the way.
async fn a_full_round(parts: &Parts<'_>, kept: &KeptBack, worker: &Worker) {
    let world = parts.world;
    world.launch().await;
    sqlx::query(
        "INSERT INTO email_templates (type, subject, html_body) VALUES ('verification', 's', '{{ frist_name }}')",
    )
    .execute(&world.pool)
    .await
    .unwrap();
    world.sign_up_five().await;
    let topic = &kept.letters.name;
    let line = format!("kafka does not let us make, write or read topic {topic}, where dead letters go");
    until(&line, WITHIN, async || {
        let said = worker.said();
        let told = said.lines().find(|told| told.contains(&line))?;
        told.contains("dead letter could not be written; its lane waits")
            .then_some(())
    })
    .await;
    assert_eq!(world.count("SELECT count(*) FROM afterwrite.letters").await, 0);
    give(&[kept.letters.without("Create")]).await;
    until("five letters", WITHIN, async || {
        (world.count("SELECT count(*) FROM afterwrite.letters").await == 5).then_some(())
    })
    .await;
    sqlx::query("UPDATE email_templates SET html_body = '{{ first_name }}'")
        .execute(&world.pool)
        .await
        .unwrap();
    let tail = ["dlq", "tail", "--group", "email", "--from-beginning", "--limit", "1"];
    parts.operate(&tail, &[]).await;
    let said = parts
        .operate(&["dlq", "replay", "--all", "--group", "email", "--wait"], &[])
        .await;
    assert!(said.contains("5 replays requested; 5 healed"), "{said}");
    assert_eq!(caught(world).len(), 5);
    let committed = || producer::reach(&kept.group.name, &kept.topic.name).unwrap();
    until("positions to be committed", WITHIN, async || {
        let reach = committed();
        let is_all = reach
            .iter()
            .all(|reach| reach.end == 0 || reach.committed == Some(reach.end));
        (is_all && reach.iter().any(|reach| reach.end > 0)).then_some(())
    })
    .await;
    parts.operate(&["status", "--output", "json"], &[]).await;
    assert_silent(&worker.said());
    println!("{}: {} rights for three parts", world.name, parts.rights.len());
}
