//! `afterwrite tail`: what is shown of a topic, and what a condition leaves out.

use serde_json::Value;

use crate::producer;
use crate::stack;
use crate::world::World;

#[tokio::test(flavor = "multi_thread")]
async fn a_condition_leaves_what_it_is_true_of() {
    let _stack = stack::shared().await;
    let world = World::bare("tail").await;
    producer::make_topic(&world.topic()).await;
    for (k, behaviour) in [(1, "ok"), (2, "slow"), (3, "ok"), (4, "ok")] {
        producer::write_change(&world.topic(), k, behaviour).await;
    }
    let with = async |condition: &str, more: &[&str]| {
        let words = ["tail", "--from-beginning", "--where", condition, "--limit", "2"];
        world.said(&[&words, more].concat(), ("TERM", "dumb")).await
    };

    let (code, lines, said) = with(
        "op = 'insert' and after.behaviour <> 'slow' and (key.k > 1 or after.note = 'x')",
        &["--output", "json"],
    )
    .await;
    assert_eq!(code, Some(0), "{said}");
    let shown: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let rows: Vec<(&Value, &Value)> = shown
        .iter()
        .map(|line| (&line["event"]["after"]["k"], &line["offset"]))
        .collect();
    assert_eq!(rows, [(&3.into(), &2.into()), (&4.into(), &3.into())]);

    let (code, lines, said) = with("after.behavior = 'ok' or after.k < 3", &["--color", "always"]).await;
    assert_eq!((code, lines.lines().count()), (Some(0), 2), "{said}");
    assert!(lines.contains("\u{1b}[32minsert"), "{lines}");
    assert_eq!(
        said.matches("a column behavior that public.work has not").count(),
        1,
        "{said}"
    );

    let (code, _, said) = with("behaviour = 'ok'", &[]).await;
    assert!(
        code == Some(2) && said.contains("a column is after.behaviour"),
        "{code:?}: {said}"
    );
    println!(
        "{}: 2 of 4 changes by a condition, a slip told, a wrong one refused",
        world.name
    );
    world.remove().await;
}
