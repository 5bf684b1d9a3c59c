//! The newest changes in topics that groups read, against the registry: whether it knows the schemas that they were written with,
//! and whether these are theirs.
//!
//! A converter writes an id of the registry before each value. One of another kind than the registry is asked for (Apicurio has
//! two), or of another registry, stands there for no schema or, worse, for somebody else's. Debezium calls each schema after its
//! topic, which tells the one from the other; no value is looked at.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use chrono::{DateTime, SecondsFormat};

use super::codes;
use super::connector::{Deployed, is_reference};
use super::expected::Expected;
use super::finding::{Code, Finding, Leg, Outcome, Remedy};
use super::quoting::shell_word;
use super::routing::transforms;
use super::topics;
use crate::causes::chain;
use crate::clients::connect::ConnectorConfig;
use crate::decode::registry::{Fetched, Registry};
use crate::decode::unknown::Unknown;
use crate::decode::written::{Owner, owner, schema_id};
use crate::source::kafka::follow::Followed;
use crate::source::kafka::newest::Newest;

/// Partitions that are looked into at most.
const PARTITIONS_MAX: usize = 400;

/// Longest pause before what the registry does not know is asked for once more.
const DOUBT_MAX: Duration = Duration::from_millis(500);

/// Transforms that leave the names of schemas and topics as they are.
const KEEP_NAMES: [&str; 4] = ["PartitionRouting", "Filter", "InsertHeader", "DropHeaders"];

/// Settings of Apicurio's converter that decide which id is written, and where.
const OF_APICURIO: [(&str, &str); 3] = [
    ("value.converter.apicurio.registry.as-confluent", "true"),
    ("value.converter.apicurio.registry.headers.enabled", "false"),
    ("value.converter.apicurio.registry.use-id", "contentId"),
];

/// What is known of the newest records.
#[derive(Debug, Default)]
pub(super) struct Facts {
    samples: Vec<Sample>,
    /// Topics whose newest records did not come.
    unread: BTreeSet<String>,
}

impl Facts {
    /// Nothing of these topics.
    pub(super) fn unread(topics: BTreeSet<String>) -> Self {
        Self {
            samples: Vec::new(),
            unread: topics,
        }
    }
}

/// The newest change of a topic.
#[derive(Debug)]
struct Sample {
    topic: String,
    /// Where it stands, and since when.
    place: String,
    written: Written,
}

/// With which schema it was written.
#[derive(Debug)]
enum Written {
    /// The id is not where the decoder looks.
    Unreadable(&'static str),
    /// The registry is certain to have no such schema.
    Unknown(Unknown),
    /// With a schema of this id that is called so.
    By(u32, Owner),
    /// The registry did not say.
    Unasked,
}

/// The partitions that are looked into.
pub(super) fn partitions(topics: &topics::Facts, expected: &Expected) -> Vec<(String, i32)> {
    let groups = &expected.groups;
    let subscribed: Vec<String> = groups.iter().flat_map(|group| group.topics.iter().cloned()).collect();
    let read = topics.read_by(&subscribed);
    read.flat_map(|(name, topic)| (0..topic.partitions).map(|partition| (name.clone(), partition)))
        .take(PARTITIONS_MAX)
        .collect()
}

/// Asks the registry for the schemas of what was read.
pub(super) async fn collect(read: BTreeMap<(String, i32), Newest>, expected: &Expected) -> Facts {
    // Settings that make no client are told of the registry itself.
    let Ok(registry) = Registry::new(&expected.registry) else {
        return Facts::default();
    };
    let mut unread: BTreeSet<String> = BTreeSet::new();
    let mut changes: BTreeMap<String, Followed> = BTreeMap::new();
    for ((topic, _), newest) in read {
        match newest {
            Newest::Record(record) if record.raw.value.is_some() => {
                let is_newer = |known: &Followed| record.raw.timestamp_ms > known.raw.timestamp_ms;
                if changes.get(&topic).is_none_or(is_newer) {
                    changes.insert(topic, record);
                }
            }
            Newest::Denied | Newest::Unread => {
                unread.insert(topic);
            }
            // A tombstone, or nothing.
            Newest::Record(_) | Newest::Nothing | Newest::Removed => {}
        }
    }
    unread.retain(|topic| !changes.contains_key(topic));
    let asked = changes
        .into_iter()
        .map(async |(topic, record)| sample(&registry, topic, &record, expected).await);
    let samples = futures::future::join_all(asked).await;
    Facts {
        samples: samples.into_iter().flatten().collect(),
        unread,
    }
}

/// None of a value in JSON.
async fn sample(registry: &Registry, topic: String, record: &Followed, expected: &Expected) -> Option<Sample> {
    let at = record.raw.timestamp_ms.and_then(DateTime::from_timestamp_millis);
    let at = at.map_or_else(String::new, |at| {
        format!(" of {}", at.to_rfc3339_opts(SecondsFormat::Secs, true))
    });
    let place = format!("{topic}[{}]@{}{at}", record.partition.partition, record.position.0);
    let written = match schema_id(&record.raw, expected.decoding.format) {
        Err(why) => Written::Unreadable(why),
        Ok(None) => return None,
        Ok(Some(id)) => ask(registry, id).await,
    };
    Some(Sample { topic, place, written })
}

async fn ask(registry: &Registry, id: u32) -> Written {
    let mut answer = registry.fetch(id).await;
    if let Ok(Fetched::Unknown(unknown)) = &answer
        && unknown.may_appear()
    {
        tokio::time::sleep(registry.patience().pause.min(DOUBT_MAX)).await;
        answer = registry.fetch(id).await;
    }
    match answer {
        Ok(Fetched::Unknown(unknown)) => Written::Unknown(unknown),
        Ok(Fetched::Found(document)) => {
            let owner = owner(&document).unwrap_or_else(|error| {
                tracing::debug!(schema = id, error = chain(&error), "a sampled schema cannot be used");
                Owner::Other("a schema that cannot be used".to_owned())
            });
            Written::By(id, owner)
        }
        Err(error) => {
            tracing::debug!(
                schema = id,
                error = chain(&error),
                "the registry did not answer for a sampled record"
            );
            Written::Unasked
        }
    }
}

/// What is wrong with them. `is_registry_there`: it answers otherwise; where it does not, that is said of it.
pub(super) fn findings(facts: &Facts, deployed: Option<&Deployed<'_>>, is_registry_there: bool) -> Outcome {
    let keeps_names = deployed.is_some_and(|deployed| keeps_names(&deployed.connector.config));
    let mut outcome = Outcome::of(
        facts
            .samples
            .iter()
            .filter_map(|sample| of_sample(sample, deployed, keeps_names))
            .collect(),
    );
    let mut unchecked = |topics: Vec<&str>, why: &str| {
        if !topics.is_empty() {
            let because = format!("{why} {}", topics.join(", "));
            outcome.add(Outcome::unchecked(&[Leg::Registry], because));
        }
    };
    unchecked(
        facts.unread.iter().map(String::as_str).collect(),
        "the newest records could not be read of",
    );
    if is_registry_there {
        let unasked = facts.samples.iter();
        let unasked = unasked.filter(|sample| matches!(sample.written, Written::Unasked));
        unchecked(
            unasked.map(|sample| sample.topic.as_str()).collect(),
            "the registry did not answer for the schemas of",
        );
    }
    outcome
}

fn of_sample(sample: &Sample, deployed: Option<&Deployed<'_>>, keeps_names: bool) -> Option<Finding> {
    let place = &sample.place;
    let found = |code: &'static Code, what: String| Some(code.found(what, remedy(deployed)));
    match &sample.written {
        Written::Unreadable(why) => found(codes::SCHEMA_ID_UNREAD, format!("the newest record, {place}: {why}")),
        Written::Unknown(unknown) => found(codes::SCHEMA_UNKNOWN, format!("the newest record, {place}: {unknown}")),
        Written::By(id, Owner::Other(name)) => found(
            codes::SCHEMA_FOREIGN,
            format!("the newest record, {place}, was written with schema {id}, and under that the registry has {name}"),
        ),
        Written::By(id, Owner::Topic(name)) if keeps_names && !is_called_after(name, &sample.topic) => found(
            codes::SCHEMA_FOREIGN,
            format!(
                "the newest record, {place}, was written with schema {id}, and under that the registry has one of {name}"
            ),
        ),
        Written::By(..) | Written::Unasked => None,
    }
}

/// What is no character of a name in Avro is an underscore in the names of schemas.
fn is_called_after(name: &str, topic: &str) -> bool {
    let same = |(ours, theirs)| ours == theirs || ours == '_';
    name.chars().count() == topic.chars().count() && name.chars().zip(topic.chars()).all(same)
}

/// Whether each schema has the name of the topic that its records are in.
fn keeps_names(config: &ConnectorConfig) -> bool {
    let is_harmless = |transform: &str| {
        let class = config.get(&format!("transforms.{transform}.type"));
        class.is_some_and(|class| KEEP_NAMES.iter().any(|name| class.ends_with(name)))
    };
    let adjusting = config.get("schema.name.adjustment.mode").map_or("none", String::as_str);
    matches!(adjusting, "none" | "avro") && transforms(config).into_iter().all(is_harmless)
}

fn remedy(deployed: Option<&Deployed<'_>>) -> Remedy {
    let by_hand = || {
        Remedy::words(
            "let registry.url (SCHEMA_REGISTRY_URL) name the registry that the connector's value.converter writes to, and see that this \
             API of it has ids of the kind that the converter writes",
        )
    };
    let Some(deployed) = deployed else { return by_hand() };
    let config = &deployed.connector.config;
    let is_apicurio = deployed
        .get("value.converter")
        .is_some_and(|converter| converter.starts_with("io.apicurio."));
    let otherwise = OF_APICURIO.into_iter().filter(|(key, wanted)| {
        let found = config.get(*key);
        found.is_none_or(|found| found != wanted && !is_reference(found))
    });
    let wanted: serde_json::Map<String, serde_json::Value> =
        otherwise.map(|(key, wanted)| (key.to_owned(), wanted.into())).collect();
    if !is_apicurio || wanted.is_empty() {
        return by_hand();
    }
    Remedy::shell(format!(
        "{} -H 'content-type: application/json' --data {} # and in its file; what is written already stays as it is",
        deployed.request("PATCH", "/config"),
        shell_word(&serde_json::Value::Object(wanted).to_string())
    ))
}

#[cfg(test)]
mod tests {
    use super::super::connector::tests::status;
    use super::*;
    use crate::clients::connect::Connector;

    const APICURIO: (&str, &str) = ("value.converter", "io.apicurio.registry.utils.converter.AvroConverter");
    const ROUTER: [(&str, &str); 2] = [
        ("transforms", "r"),
        ("transforms.r.type", "org.apache.kafka.connect.transforms.RegexRouter"),
    ];

    fn connector(settings: &[(&str, &str)]) -> Connector {
        let config = settings
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        Connector {
            config: config.collect(),
            status: Some(status("RUNNING", &["RUNNING"])),
        }
    }

    fn told(written: Written, settings: &[(&str, &str)]) -> Vec<Finding> {
        let facts = Facts {
            samples: vec![Sample {
                topic: "shop-1.public.orders".to_owned(),
                place: "shop-1.public.orders[0]@7".to_owned(),
                written,
            }],
            unread: BTreeSet::new(),
        };
        let connector = connector(settings);
        let deployed = Deployed {
            name: "c",
            connector: &connector,
            endpoint: "http://connect:8083",
        };
        findings(&facts, Some(&deployed), true).findings
    }

    #[test]
    fn a_schema_that_is_not_there_or_anothers_is_told() {
        let of = |name: &str| Written::By(7, Owner::Topic(name.to_owned()));
        let unicode = [("schema.name.adjustment.mode", "avro_unicode")];
        for (written, settings, codes) in [
            (of("shop-1.public.orders"), &[][..], &[][..]),
            (of("shop_1.public.orders"), &[], &[]),
            (of("shop-1.public.order"), &[], &["schema-foreign"]),
            (of("shop-1.public.others"), &[], &["schema-foreign"]),
            (of("shop-1.public.others"), &ROUTER, &[]),
            (of("shop-1.public.others"), &unicode, &[]),
            (Written::By(7, Owner::Markers), &[], &[]),
            (
                Written::By(7, Owner::Other("shop-1.public.orders.Key".to_owned())),
                &ROUTER,
                &["schema-foreign"],
            ),
            (Written::Unknown(Unknown::schema(7)), &[], &["schema-unknown"]),
            (Written::Unreadable("it has eight bytes"), &[], &["schema-id-unread"]),
            (Written::Unasked, &[], &[]),
        ] {
            let what = format!("{written:?} {settings:?}");
            let found = told(written, settings);
            let names: Vec<&str> = found.iter().map(|finding| finding.code.name).collect();
            assert_eq!(names, codes, "{what}");
            let says = |finding: &Finding| finding.what.contains("shop-1.public.orders[0]@7");
            assert!(found.iter().all(says), "{found:?}");
        }
    }

    #[test]
    fn the_remedy_changes_what_is_otherwise_and_nothing_else() {
        let [confluent, headers, id] = OF_APICURIO;
        let unknown = || Written::Unknown(Unknown::schema(7));
        for (settings, parts) in [
            (&[APICURIO, confluent, headers, id][..], &["registry.url"][..]),
            (&[], &["registry.url"]),
            (
                &[APICURIO, confluent, headers, (id.0, "globalId")],
                &[
                    "-X PATCH",
                    "/connectors/c/config",
                    r#"'{"value.converter.apicurio.registry.use-id":"contentId"}'"#,
                ],
            ),
            (&[APICURIO, confluent, id], &[r#"headers.enabled":"false"}"#]),
        ] {
            let found = told(unknown(), settings);
            let remedy = found[0].remedy.parts().1;
            assert!(parts.iter().all(|part| remedy.contains(part)), "{remedy}");
        }
    }

    #[test]
    fn what_could_not_be_seen_is_named() {
        let facts = Facts {
            samples: vec![Sample {
                topic: "a".to_owned(),
                place: "a[0]@7".to_owned(),
                written: Written::Unasked,
            }],
            unread: ["b".to_owned()].into(),
        };
        for (is_registry_there, ends) in [(true, &["of b", "of a"][..]), (false, &["of b"])] {
            let outcome = findings(&facts, None, is_registry_there);
            let because = outcome.unchecked.iter().map(|unchecked| unchecked.because.as_str());
            assert!(because.clone().count() == ends.len(), "{outcome:?}");
            assert!(
                because.zip(ends).all(|(because, end)| because.ends_with(end)),
                "{outcome:?}"
            );
        }
    }
}
