//! Bytes that can never decode become dead letters; a registry that is down is waited for.

use std::time::Duration;

use serde_json::{Value, json};

use crate::producer;
use crate::stack::{self, until};
use crate::world::World;

/// An Avro record of a change of `work`, with the schema's id in front.
pub(crate) fn avro_change(id: u32, key: i32) -> Vec<u8> {
    let schema = apache_avro::Schema::parse_str(&schema().to_string()).unwrap();
    let mut record = apache_avro::types::Record::new(&schema).unwrap();
    let long = |value: i64| apache_avro::types::Value::Union(1, Box::new(apache_avro::types::Value::Long(value)));
    let after = vec![
        ("k".to_owned(), apache_avro::types::Value::Int(key)),
        ("seq".to_owned(), apache_avro::types::Value::Int(1)),
        (
            "behaviour".to_owned(),
            apache_avro::types::Value::String("ok".to_owned()),
        ),
    ];
    let text = |value: &str| apache_avro::types::Value::String(value.to_owned());
    let source = vec![
        ("name".to_owned(), text("it")),
        ("db".to_owned(), text("it")),
        ("schema".to_owned(), text("public")),
        ("table".to_owned(), text("work")),
        ("ts_ms".to_owned(), apache_avro::types::Value::Long(1_780_000_000_000)),
        ("txId".to_owned(), long(7)),
        ("lsn".to_owned(), long(4_711)),
    ];
    record.put(
        "before",
        apache_avro::types::Value::Union(0, Box::new(apache_avro::types::Value::Null)),
    );
    record.put(
        "after",
        apache_avro::types::Value::Union(1, Box::new(apache_avro::types::Value::Record(after))),
    );
    record.put("source", apache_avro::types::Value::Record(source));
    record.put("op", text("c"));
    let writer = apache_avro::writer::datum::GenericDatumWriter::builder(&schema)
        .build()
        .unwrap();
    let body = writer.write_value_to_vec(record).unwrap();
    [&[0][..], &id.to_be_bytes(), &body].concat()
}

fn schema() -> Value {
    let row = json!({"type": "record", "name": "Value", "fields": [
        {"name": "k", "type": "int"}, {"name": "seq", "type": "int"}, {"name": "behaviour", "type": "string"}]});
    let source = json!({"type": "record", "name": "Source", "namespace": "io.debezium.connector.postgresql", "fields": [
        {"name": "name", "type": "string"}, {"name": "db", "type": "string"}, {"name": "schema", "type": "string"},
        {"name": "table", "type": "string"}, {"name": "ts_ms", "type": "long"},
        {"name": "txId", "type": ["null", "long"]}, {"name": "lsn", "type": ["null", "long"]}]});
    json!({"type": "record", "name": "Envelope", "namespace": "it.public.work", "fields": [
        {"name": "before", "type": ["null", row]}, {"name": "after", "type": ["null", "Value"]},
        {"name": "source", "type": source}, {"name": "op", "type": "string"}]})
}

/// The key, as Avro would carry it in the same registry.
pub(crate) fn key(key: i32) -> Vec<u8> {
    format!("{{\"k\":{key}}}").into_bytes()
}

pub(crate) async fn register(subject: &str) -> u32 {
    register_as(subject, &schema()).await
}

/// The same under another id, as after a change of the table.
pub(crate) async fn register_anew(subject: &str) -> u32 {
    let mut schema = schema();
    schema["doc"] = json!(subject);
    register_as(subject, &schema).await
}

/// Registers a schema under a subject; answers its id.
pub(crate) async fn register_as(subject: &str, schema: &Value) -> u32 {
    let url = format!("{}/subjects/{subject}/versions", stack::address("SCHEMA_REGISTRY_URL"));
    let body = json!({"schema": schema.to_string(), "schemaType": "AVRO"});
    let answer: Value = reqwest::Client::new()
        .post(url)
        .json(&body)
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    u32::try_from(
        answer["id"]
            .as_u64()
            .unwrap_or_else(|| panic!("the registry refused the schema: {answer}")),
    )
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn undecodable_bytes_and_unknown_schemas_become_dead_letters() {
    let _stack = stack::shared().await;
    let world = World::bare("undecodable").await;
    producer::make_topic(&world.topic()).await;
    let garbage: &[u8] = b"\xff\xfe not json \x00";
    let unknown = [&[0][..], &4_000_000_u32.to_be_bytes(), b"body"].concat();
    producer::write(&world.topic(), &key(1), garbage).await;
    producer::write(&world.topic(), &key(2), &unknown).await;
    let id = register(&world.name).await;
    producer::write(&world.topic(), &key(3), &avro_change(id, 3)).await;
    let worker = world.worker("w", &[]);
    until("the good record's effect", Duration::from_secs(60), async || {
        (world.count("SELECT count(*) FROM effects").await == 1).then_some(())
    })
    .await;
    until("everything to be committed", Duration::from_secs(30), async || {
        (producer::committed(&world.group(), &world.topic()) == Some(3)).then_some(())
    })
    .await;
    let letters = producer::read_all(&format!("{}.dlq", world.group())).await;
    let mut values: Vec<&[u8]> = letters.iter().map(|letter| letter.value.as_deref().unwrap()).collect();
    values.sort_unstable();
    assert_eq!(values, [&unknown[..], garbage], "raw bytes are kept");
    for letter in &letters {
        assert_eq!(letter.header("afterwrite.class").as_deref(), Some("undecodable"));
        assert_eq!(letter.header("afterwrite.handler").as_deref(), Some("*"));
        println!(
            "{}: dead letter: {}",
            world.name,
            letter.header("afterwrite.error").unwrap()
        );
    }
    worker.stop().await;
    world.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_halts_ends_before_undecodable_bytes_and_goes_on_when_they_may_be_buried() {
    let _stack = stack::shared().await;
    let world = World::bare("halting").await;
    producer::make_topic(&world.topic()).await;
    producer::write_change(&world.topic(), 1, "ok").await;
    producer::write(&world.topic(), &key(2), b"not json").await;
    producer::write_change(&world.topic(), 3, "ok").await;
    let mut worker = world.worker("halts", &[("AFTERWRITE__ENGINE__ON_UNDECODABLE", "halt")]);
    let status = until("the worker to end", Duration::from_secs(60), async || worker.ended()).await;
    assert!(!status.success(), "an end before the end is an error");
    let remedy = format!("--to-offset {}:0:2 --skip", world.topic());
    assert!(worker.said().contains(&remedy), "{}", worker.said());
    let effects = world.count("SELECT count(*) FROM effects").await;
    let committed = producer::committed(&world.group(), &world.topic());
    assert_eq!(
        (effects, committed),
        (1, Some(1)),
        "what came before is done and committed"
    );
    let worker = world.worker("buries", &[]);
    // Its letter and the change behind it are two lanes: either may be first.
    until(
        "the effect behind it, and its letter",
        Duration::from_secs(60),
        async || {
            let effects = world.count("SELECT count(*) FROM effects").await;
            let letters = world.count("SELECT count(*) FROM afterwrite.letters").await;
            (effects == 2 && letters == 1).then_some(())
        },
    )
    .await;
    worker.stop().await;
    world.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_is_down_is_waited_for() {
    let _stack = stack::alone().await;
    let world = World::bare("registry").await;
    producer::make_topic(&world.topic()).await;
    let id = register(&world.name).await;
    stack::order("kill", "registry").await;
    let worker = world.worker("w", &[]);
    producer::write(&world.topic(), &key(1), &avro_change(id, 1)).await;
    let json_change = json!({"before": null, "after": {"k": 2, "seq": 1, "behaviour": "ok"}, "op": "c", "source": {
        "connector": "postgresql", "name": "it", "db": "it", "schema": "public", "table": "work",
        "ts_ms": 1_780_000_000_000_i64, "txId": 8, "lsn": 4_712}});
    producer::write(&world.topic(), &key(2), json_change.to_string().as_bytes()).await;
    until("the worker to notice the outage", Duration::from_secs(60), async || {
        worker.said().contains("registry did not answer").then_some(())
    })
    .await;
    assert_eq!(
        world.count("SELECT count(*) FROM effects").await,
        0,
        "the partition waits, in order"
    );
    assert_eq!(
        producer::committed(&world.group(), &world.topic()),
        Some(0),
        "nothing is committed past it"
    );
    stack::order("start", "registry").await;
    until("both effects", Duration::from_secs(60), async || {
        (world.count("SELECT count(*) FROM effects").await == 2).then_some(())
    })
    .await;
    assert_eq!(
        world.count("SELECT count(*) FROM afterwrite.letters").await,
        0,
        "nothing was buried"
    );
    println!(
        "{}: registry down, 2 records waited, 0 buried, both done after it came back",
        world.name
    );
    worker.stop().await;
    world.remove().await;
}
