//! `afterwrite topics`: what is missing is made, what is otherwise is changed, what would lose something is refused.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use crate::producer;
use crate::stack::{self, until};
use crate::world::World;

const NOTHING: (&str, &str) = ("LC_ALL", "C");

/// The lines of a plan, of one topic.
fn steps<'p>(plan: &'p Value, topic: &str) -> Vec<&'p Value> {
    let steps = plan["steps"].as_array().unwrap().iter();
    steps.filter(|step| step["topic"] == topic).collect()
}

/// The command over a world, and its connector's file.
struct Topics<'w> {
    world: &'w World,
    file: PathBuf,
}

impl Topics<'_> {
    /// Answers exit code, what was printed, and what was said against it.
    async fn run(&self, verb: &str, words: &[&str]) -> (i32, Value, String) {
        let file = self.file.to_str().unwrap();
        let words = [&["topics", verb, file, "--output", "json"], words].concat();
        let (code, plan, said) = self.world.said(&words, NOTHING).await;
        (code.unwrap(), serde_json::from_str(&plan).unwrap_or(Value::Null), said)
    }

    fn name(&self, end: &str) -> String {
        format!("{}.{end}", self.world.name)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_are_made_as_they_are_wanted_and_nothing_is_lost_unless_it_is_accepted() {
    let _stack = stack::shared().await;
    let world = World::waitlist_alone("topics").await;
    let topics = Topics {
        file: world.connector_file(world.of_waitlist()),
        world: &world,
    };
    makes_what_is_missing(&topics).await;
    changes_what_is_otherwise(&topics).await;
    counts_partitions(&topics).await;
    let file = topics.file.to_str().unwrap();
    let (code, acls) = world.afterwrite(&["topics", "plan", file, "--acls"]).await;
    let users = topics.name("public.waitlist_users");
    let command = format!("--operation Read --operation DescribeConfigs --topic '{users}'");
    assert!(code == 0 && acls.contains(&command), "{acls}");
    world.remove().await;
}

async fn makes_what_is_missing(topics: &Topics<'_>) {
    let one = ["--replication-factor", "1"];
    let (code, plan, said) = topics.run("plan", &one).await;
    assert_eq!(code, 0, "{said}");
    let wanted = [
        topics.name("public.waitlist_users"),
        topics.name("email.dlq"),
        format!("__debezium-heartbeat.{}", topics.world.name),
    ];
    for topic in &wanted {
        assert_eq!(steps(&plan, topic)[0]["step"], "make", "{plan}");
        assert!(!producer::exists(topic), "a plan makes nothing");
    }
    let (code, done, said) = topics.run("apply", &one).await;
    assert_eq!((code, done["result"].as_str()), (0, Some("done")), "{said}");
    until("leaders of what was made", Duration::from_secs(10), async || {
        wanted.iter().all(|topic| producer::exists(topic)).then_some(())
    })
    .await;
    let (code, plan, _) = topics.run("plan", &one).await;
    assert_eq!(
        (code, &plan["steps"]),
        (0, &json!([])),
        "what was made is as it is wanted"
    );
}

/// Somebody keeps more of one topic, and lets another take smaller records only.
async fn changes_what_is_otherwise(topics: &Topics<'_>) {
    let (users, campaigns) = (topics.name("public.waitlist_users"), topics.name("public.campaigns"));
    producer::configure(&users, &[("retention.ms", "-1")]).await;
    producer::configure(
        &campaigns,
        &[("max.message.bytes", "1000000"), ("segment.ms", "3600000")],
    )
    .await;
    let (code, plan, _) = topics.run("plan", &[]).await;
    let of_users = steps(&plan, &users);
    let retention = of_users.iter().find(|step| step["setting"] == "retention.ms").unwrap();
    assert_eq!(
        (code, retention["loss"]["accept"].as_str()),
        (1, Some("retention.ms")),
        "{plan}"
    );
    let (code, _, said) = topics.run("apply", &[]).await;
    assert!(code == 1 && said.contains("nothing was changed"), "{said}");
    assert!(said.trim().ends_with("--accept-loss retention.ms"), "{said}");
    assert_eq!(producer::setting(&campaigns, "max.message.bytes").await, "1000000");
    let (code, _, said) = topics.run("apply", &["--accept-loss", "retention.ms"]).await;
    assert_eq!(code, 0, "{said}");
    for (topic, setting, value) in [
        (&users, "retention.ms", "604800000"),
        (&campaigns, "max.message.bytes", "10485760"),
        // Nobody asked for another one.
        (&campaigns, "segment.ms", "3600000"),
    ] {
        assert_eq!(producer::setting(topic, setting).await, value, "{topic} {setting}");
    }
}

/// Fewer are wanted than there are, and more where keys choose among them.
async fn counts_partitions(topics: &Topics<'_>) {
    let mut config = topics.world.of_waitlist();
    for (number, refused) in [("7", "Kafka takes none away"), ("9", "--accept-loss partitions")] {
        config.insert("topic.creation.default.partitions".to_owned(), number.into());
        topics.world.connector_file(config.clone());
        let (code, _, said) = topics.run("apply", &[]).await;
        assert!(code == 1 && said.contains(refused), "{number}: {said}");
    }
    let (code, _, said) = topics.run("apply", &["--accept-loss", "partitions"]).await;
    assert_eq!(code, 0, "{said}");
    assert_eq!(producer::partitions(&topics.name("public.campaigns")), 9);
    let users = producer::partitions(&topics.name("public.waitlist_users"));
    assert_eq!(users, 8, "the connector chooses among 8");
}
