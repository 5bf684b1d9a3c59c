//! The offsets of the connector: how far it has noted down that it is, against its slot.
//!
//! The slot is asked first, then the note, then the end of the log. A connector notes down before it confirms, and nobody notes
//! down what is not written yet; so each answer may only be behind the next one, whatever happens between the questions.

use serde_json::{Map, Value};
use sqlx::postgres::PgPool;

use super::codes;
use super::connector::Deployed;
use super::exactly_once;
use super::finding::{Finding, Leg, Outcome, Remedy};
use super::slot::Slots;
use crate::causes::chain;
use crate::clients::connect::ConnectClient;
use crate::clients::connect::offsets::ConnectorOffset;

/// Places in the log that a note holds; which of them are there depends on what came last.
const PLACES: [&str; 3] = ["lsn", "lsn_proc", "lsn_commit"];

/// What is known of the connector's note.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Facts {
    /// The furthest place that it noted down; none before it did so first.
    noted: Option<i64>,
    /// It is reading whole tables.
    reads_tables: bool,
    /// The end of the log afterwards.
    written: i64,
}

/// What Connect tells of one connector when it is asked for it, against the slots that were asked before.
pub(super) async fn examine(client: &ConnectClient, pool: &PgPool, deployed: &Deployed<'_>, slots: &Slots) -> Outcome {
    let both = futures::future::join(collect(client, pool, deployed), exactly_once::collect(client, deployed));
    let (noted, objections) = both.await;
    let mut outcome = Outcome::default();
    match (noted, deployed.slot()) {
        (Ok(noted), Some(name)) => {
            let confirmed = slots.named(name).and_then(|slot| slot.confirmed);
            outcome.findings.extend(findings(&noted, confirmed, name, deployed));
        }
        (Ok(_), None) => {}
        (Err(why), _) => outcome.add(Outcome::unchecked(&[Leg::Connector], why)),
    }
    match objections {
        Ok(objections) => outcome.findings.extend(exactly_once::findings(&objections, deployed)),
        Err(error) => outcome.add(Outcome::unchecked(&[Leg::Connector], chain(&error))),
    }
    outcome
}

/// Asks Connect for the note, and Postgres for the end of the log. The slot has to have been asked before.
async fn collect(client: &ConnectClient, pool: &PgPool, deployed: &Deployed<'_>) -> Result<Facts, String> {
    let noted = client.offsets(deployed.name).await.map_err(|error| chain(&error))?;
    let written: i64 = sqlx::query_scalar(
        "SELECT ((CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END) - '0/0'::pg_lsn)::bigint",
    )
    .fetch_one(pool)
    .await
    .map_err(|error| format!("postgres could not be asked: {error}"))?;
    Ok(read(&noted, deployed.get("topic.prefix"), written))
}

/// A connector that was given another prefix has a note under each; one whose prefix only Connect knows, under some.
fn read(noted: &[ConnectorOffset], prefix: Option<&str>, written: i64) -> Facts {
    let is_ours = |noted: &&ConnectorOffset| {
        let server = noted.partition.get("server").and_then(Value::as_str);
        prefix.is_none_or(|prefix| server == Some(prefix))
    };
    let offsets: Vec<&Map<String, Value>> = noted
        .iter()
        .filter(is_ours)
        .filter_map(|noted| noted.offset.as_ref())
        .collect();
    let places = offsets
        .iter()
        .flat_map(|offset| PLACES.iter().filter_map(|place| offset.get(*place)?.as_i64()));
    let is_snapshot = |offset: &&Map<String, Value>| offset.get("snapshot").is_some_and(|value| *value != Value::Null);
    Facts {
        noted: places.max(),
        reads_tables: offsets.iter().any(is_snapshot),
        written,
    }
}

/// What does not fit together. `confirmed` is where the slot stood before.
fn findings(facts: &Facts, confirmed: Option<i64>, slot: &str, deployed: &Deployed<'_>) -> Vec<Finding> {
    let Some(noted) = facts.noted.filter(|_| !facts.reads_tables) else {
        return Vec::new();
    };
    let name = deployed.name;
    let remedy = || Remedy::shell(deployed.go_on_with_slot());
    if noted > facts.written {
        return vec![codes::OFFSET_AHEAD.found(
            format!(
                "connector {name} has noted down that it is at {}, and the log ends at {}",
                lsn(noted),
                lsn(facts.written)
            ),
            remedy(),
        )];
    }
    // There the driver confirms what it has not noted down, when nothing is captured.
    let is_confirmed_by_driver = deployed.get("lsn.flush.mode") == Some("connector_and_driver");
    match confirmed {
        Some(confirmed) if confirmed > noted && !is_confirmed_by_driver => vec![codes::OFFSET_GAP.found(
            format!(
                "connector {name} has noted down that it is at {}, and its slot {slot} begins at {}",
                lsn(noted),
                lsn(confirmed)
            ),
            remedy(),
        )],
        _ => Vec::new(),
    }
}

/// As Postgres prints it.
fn lsn(bytes: i64) -> String {
    format!("{:X}/{:X}", bytes >> 32, bytes & 0xFFFF_FFFF)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clients::connect::{Connector, ConnectorConfig};

    fn noted(server: &str, offset: Value) -> ConnectorOffset {
        serde_json::from_value(serde_json::json!({"partition": {"server": server}, "offset": offset})).unwrap()
    }

    #[test]
    fn the_furthest_place_under_the_prefix_counts() {
        let lsns = serde_json::json!({"lsn": 7, "lsn_proc": 9, "lsn_commit": 8, "txId": 1000});
        let snapshot = serde_json::json!({"lsn": 7, "snapshot": "INITIAL"});
        for (notes, prefix, place, reads_tables) in [
            (vec![], Some("aw"), None, false),
            (vec![noted("aw", lsns.clone())], Some("aw"), Some(9), false),
            (vec![noted("aw", Value::Null)], Some("aw"), None, false),
            (
                vec![noted("old", serde_json::json!({"lsn": 50})), noted("aw", lsns.clone())],
                Some("aw"),
                Some(9),
                false,
            ),
            (vec![noted("x", lsns)], None, Some(9), false),
            (vec![noted("aw", snapshot)], Some("aw"), Some(7), true),
        ] {
            let facts = read(&notes, prefix, 100);
            assert_eq!((facts.noted, facts.reads_tables), (place, reads_tables), "{notes:?}");
        }
    }

    #[test]
    fn a_note_is_never_behind_its_slot_nor_past_the_log() {
        let deployed = |flush: &str| Connector {
            config: ConnectorConfig::from([("lsn.flush.mode".to_owned(), flush.to_owned())]),
            status: None,
        };
        let (by_connector, by_driver) = (deployed("connector"), deployed("connector_and_driver"));
        let fact = |noted, written| Facts {
            noted,
            reads_tables: false,
            written,
        };
        let snapshot = Facts {
            reads_tables: true,
            ..fact(Some(5), 100)
        };
        for (connector, facts, confirmed, codes) in [
            (&by_connector, fact(Some(9), 9), Some(9), &[][..]),
            (&by_connector, fact(Some(90), 100), Some(9), &[]),
            (&by_connector, fact(None, 100), Some(9), &[]),
            (&by_connector, fact(Some(9), 100), None, &[]),
            (&by_connector, snapshot, Some(9), &[]),
            (&by_connector, fact(Some(9), 100), Some(10), &["offset-gap"]),
            (&by_driver, fact(Some(9), 100), Some(10), &[]),
            (&by_connector, fact(Some(101), 100), Some(10), &["offset-ahead"]),
            (&by_driver, fact(Some(101), 100), None, &["offset-ahead"]),
        ] {
            let deployed = Deployed {
                name: "c",
                connector,
                endpoint: "http://connect:8083",
            };
            let found = findings(&facts, confirmed, "s", &deployed);
            let names: Vec<&str> = found.iter().map(|finding| finding.code.name).collect();
            assert_eq!(names, codes, "{facts:?}");
            assert!(
                found
                    .iter()
                    .all(|finding| finding.remedy.parts().1.contains("-X DELETE"))
            );
        }
        assert_eq!(lsn(0x1_0000_00AB), "1/AB");
    }
}
