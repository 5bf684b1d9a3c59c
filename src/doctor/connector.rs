//! Kafka Connect, and which of its connectors captures this source.

use std::collections::BTreeMap;

use super::codes;
use super::expected::Expected;
use super::finding::{Finding, Remedy};
use super::quoting::{literal, shell_word};
use crate::clients::connect::{Connector, ConnectorConfig, Plugin};

/// Debezium's connector for Postgres.
pub(super) const CLASS: &str = "io.debezium.connector.postgresql.PostgresConnector";

/// The first release that keeps all rows of one COPY after a restart (dbz#1554, dbz#76).
const SAFE_VERSION: (u32, u32) = (3, 7);

/// The state of what was told to start again, until it does.
const RESTARTING: &str = "RESTARTING";

/// What Kafka Connect has.
#[derive(Debug, Clone, Default)]
pub(super) struct Facts {
    pub(super) plugins: Vec<Plugin>,
    pub(super) connectors: BTreeMap<String, Connector>,
    /// Where it is, as it may be printed.
    pub(super) endpoint: String,
}

/// The connector that captures a source, or why there is none.
#[derive(Debug)]
pub(super) enum Chosen<'a> {
    One(Deployed<'a>),
    /// Nothing captures the source.
    None(Finding),
}

/// A connector that captures the source.
#[derive(Debug, Clone, Copy)]
pub(super) struct Deployed<'a> {
    pub(super) name: &'a str,
    pub(super) connector: &'a Connector,
    pub(super) endpoint: &'a str,
}

impl<'a> Deployed<'a> {
    /// A setting that is written out: what only Connect resolves is none.
    pub(super) fn get(&self, key: &str) -> Option<&'a str> {
        let value = self.connector.config.get(key)?.as_str();
        (!is_reference(value)).then_some(value)
    }

    pub(super) fn runs(&self) -> bool {
        self.connector.status.as_ref().is_some_and(|status| status.runs())
    }

    /// The slot that it reads; none when only Connect knows it.
    pub(super) fn slot(&self) -> Option<&'a str> {
        match self.connector.config.get("slot.name") {
            None => Some("debezium"),
            Some(_) => self.get("slot.name"),
        }
    }

    /// The table of its signals.
    pub(super) fn signals(&self) -> Option<(String, String)> {
        let (schema, table) = self.get("signal.data.collection")?.split_once('.')?;
        Some((schema.to_owned(), table.to_owned()))
    }

    /// A request that changes it, for a shell.
    pub(super) fn request(&self, method: &str, path: &str) -> String {
        let (endpoint, name) = (self.endpoint, self.name);
        format!(
            "curl --fail-with-body -sS -X {method} {}",
            shell_word(&format!("{endpoint}/connectors/{name}{path}"))
        )
    }

    /// The requests that let it forget where it stood and begin with what is written from then on.
    pub(super) fn begin_anew(&self) -> String {
        self.begin_after("")
    }

    /// The same without the slot that it has.
    pub(super) fn begin_without(&self, slot: &str) -> String {
        // None is no error: the whole line can be run again.
        let drop = format!(
            "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = {}",
            literal(slot)
        );
        self.begin_after(&format!(
            "until psql -q \"$DATABASE_URL\" -c {} >/dev/null; do sleep 1; done && ",
            shell_word(&drop)
        ))
    }

    /// The requests that let it forget where it stood and go on where its slot stands.
    pub(super) fn go_on_with_slot(&self) -> String {
        self.forget("", "it goes on where its slot stands")
    }

    fn begin_after(&self, step: &str) -> String {
        self.forget(step, "what was written meanwhile is captured by nobody")
    }

    fn forget(&self, step: &str, note: &str) -> String {
        let status = self.request("GET", "/status");
        format!(
            "{} && until {status} | grep -q '\"tasks\":\\[\\]'; do sleep 1; done && {step}{} && {} # {note}",
            self.request("PUT", "/stop"),
            self.request("DELETE", "/offsets"),
            self.request("PUT", "/resume")
        )
    }
}

/// Whether only Connect knows the value.
pub(super) fn is_reference(value: &str) -> bool {
    value.contains("${")
}

/// What is wrong with Connect itself.
pub(super) fn of_connect(facts: &Facts) -> Vec<Finding> {
    let Some(plugin) = facts.plugins.iter().find(|plugin| plugin.class == CLASS) else {
        return vec![codes::PLUGIN_MISSING.found(
            format!("kafka connect at {} has no plug-in {CLASS}", facts.endpoint),
            Remedy::words("unpack debezium-connector-postgres (3.7 or newer) into a folder of plugin.path, and restart Kafka Connect"),
        )];
    };
    match plugin.version.as_deref().and_then(version) {
        Some(found) if found < SAFE_VERSION => vec![codes::PLUGIN_OLD.found(
            format!("Debezium is {}", plugin.version.as_deref().unwrap_or_default()),
            Remedy::words("put debezium-connector-postgres 3.7 or newer into plugin.path, and restart Kafka Connect"),
        )],
        _ => Vec::new(),
    }
}

fn version(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// The connector whose `topic.prefix` is the source's name, or the one that was named.
pub(super) fn choose<'a>(facts: &'a Facts, expected: &Expected) -> Chosen<'a> {
    let deployed = |(name, connector): (&'a String, &'a Connector)| Deployed {
        name,
        connector,
        endpoint: &facts.endpoint,
    };
    if let Some(named) = &expected.connector {
        return match facts.connectors.get_key_value(named) {
            Some(found) => Chosen::One(deployed(found)),
            None => Chosen::None(codes::CONNECTOR_MISSING.found(
                format!("kafka connect has no connector {named}"),
                Remedy::shell("afterwrite connector apply"),
            )),
        };
    }
    let is_postgres = |config: &ConnectorConfig| config.get("connector.class").is_some_and(|class| class == CLASS);
    let of_postgres = || {
        facts
            .connectors
            .iter()
            .filter(|(_, connector)| is_postgres(&connector.config))
    };
    let prefix = |connector: &Connector| connector.config.get("topic.prefix").cloned().unwrap_or_default();
    let ours: Vec<_> = of_postgres()
        .filter(|(_, connector)| prefix(connector) == expected.source)
        .collect();
    if let Some(first) = ours.first() {
        return Chosen::One(deployed(*first));
    }
    // One that is called so, or the only one there is, was probably meant.
    let called = of_postgres().find(|(name, _)| **name == expected.source);
    let only = || Some(of_postgres().next()?).filter(|_| of_postgres().count() == 1);
    Chosen::None(match called.or_else(only) {
        Some((name, connector)) if !is_reference(&prefix(connector)) => codes::PREFIX_DIFFERS.found(
            format!(
                "connector {name} writes its topics under {}, and source.name is {}",
                prefix(connector),
                expected.source
            ),
            Remedy::words(format!(
                "set source.name = \"{}\" if no group has ever run; else give the connector topic.prefix = {} again: the name is part of \
                 each event's id",
                prefix(connector),
                expected.source
            )),
        ),
        _ => codes::CONNECTOR_MISSING.found(
            format!("no connector of kafka connect at {} has topic.prefix = {}", facts.endpoint, expected.source),
            Remedy::shell("afterwrite connector apply"),
        ),
    })
}

/// What is wrong with how it runs.
pub(super) fn of_state(facts: &Facts, deployed: &Deployed<'_>) -> Vec<Finding> {
    let mut found = of_twins(facts, deployed);
    let name = deployed.name;
    let Some(status) = &deployed.connector.status else {
        found.push(codes::CONNECTOR_IDLE.found(
            format!("kafka connect knows no state of connector {name}"),
            Remedy::shell(deployed.request("POST", "/restart?includeTasks=true")),
        ));
        return found;
    };
    let resume = || Remedy::shell(deployed.request("PUT", "/resume"));
    if let Some(part) = status.failed() {
        let part_of = part
            .id
            .map_or_else(|| "connector".to_owned(), |id| format!("task {id} of connector"));
        found.push(codes::CONNECTOR_FAILED.found(
            format!(
                "{part_of} {name} failed: {}",
                causes(part.trace.as_deref().unwrap_or("no trace was given"))
            ),
            Remedy::shell(format!(
                "{} # when its cause is mended",
                deployed.request("POST", "/restart?includeTasks=true&onlyFailed=true")
            )),
        ));
    } else if status.connector.is("PAUSED") || status.tasks.iter().any(|task| task.is("PAUSED")) {
        found.push(codes::CONNECTOR_PAUSED.found(format!("connector {name} is paused"), resume()));
    } else if status.connector.is("STOPPED") {
        found.push(codes::CONNECTOR_STOPPED.found(format!("connector {name} is stopped"), resume()));
    } else if !status.runs() {
        let tasks: Vec<&str> = status.tasks.iter().map(|task| task.state.as_str()).collect();
        let restart = deployed.request("POST", "/restart?includeTasks=true");
        // Who restarts it again and again never lets it start.
        let starts = [status.connector.state.as_str()]
            .iter()
            .chain(&tasks)
            .any(|state| *state == RESTARTING);
        let remedy = match starts {
            true => Remedy::words(format!(
                "wait a minute, it is being started; when it stays like this: {restart}"
            )),
            false => Remedy::shell(restart),
        };
        found.push(codes::CONNECTOR_IDLE.found(
            format!(
                "connector {name} is {}, its tasks: {}",
                status.connector.state,
                if tasks.is_empty() {
                    "none".to_owned()
                } else {
                    tasks.join(", ")
                }
            ),
            remedy,
        ));
    }
    found
}

/// Another connector that reads the same slot, or writes the same topics.
fn of_twins(facts: &Facts, deployed: &Deployed<'_>) -> Vec<Finding> {
    let others = facts.connectors.iter().filter(|(name, _)| *name != deployed.name);
    let shares = |other: &Connector, key: &str| {
        let ours = deployed.get(key);
        ours.is_some() && other.config.get(key).map(String::as_str) == ours
    };
    let same_database = |other: &Connector| {
        ["database.dbname", "database.hostname"]
            .iter()
            .all(|key| other.config.get(*key) == deployed.connector.config.get(*key))
    };
    let twins = others.filter_map(|(name, other)| {
        let what = match () {
            () if shares(other, "slot.name") && same_database(other) => "reads the same slot",
            () if shares(other, "topic.prefix") => "writes topics under the same prefix",
            () => return None,
        };
        Some(codes::CONNECTOR_TWICE.found(
            format!("connector {name} {what} as connector {}", deployed.name),
            Remedy::shell(format!(
                "afterwrite connector delete {} # if {} is the right one",
                shell_word(name),
                deployed.name
            )),
        ))
    });
    twins.collect()
}

/// Whether it captures the worker's database.
pub(super) fn of_database(deployed: &Deployed<'_>, ours: Option<&String>) -> Option<Finding> {
    let (theirs, ours) = (deployed.get("database.dbname")?, ours?);
    (theirs != ours).then(|| {
        codes::CONNECTOR_DATABASE.found(
            format!(
                "connector {} captures database {theirs}, and postgres.url names {ours}",
                deployed.name
            ),
            Remedy::words(
                "let database.dbname of the connector and postgres.url (DATABASE_URL) name the same database",
            ),
        )
    })
}

/// The lines of a Java trace that say what happened.
fn causes(trace: &str) -> String {
    let lines = trace
        .lines()
        .map(str::trim)
        .filter(|line| !line.starts_with("at ") && !line.starts_with("...") && !line.is_empty());
    let mut said: Vec<&str> = Vec::new();
    for line in lines {
        if !said.contains(&line) {
            said.push(line);
        }
    }
    said.join("; ")
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::tests::expected;
    use super::*;
    use crate::clients::connect::{ConnectorStatus, Part};

    pub(in super::super) fn status(connector: &str, tasks: &[&str]) -> ConnectorStatus {
        let part = |id, state: &str| Part {
            id,
            state: state.to_owned(),
            worker_id: String::new(),
            trace: Some("no slot\n at x".to_owned()),
        };
        ConnectorStatus {
            name: "c".to_owned(),
            connector: part(None, connector),
            tasks: tasks.iter().map(|state| part(Some(0), state)).collect(),
        }
    }

    fn connector(settings: &[(&str, &str)], status: ConnectorStatus) -> Connector {
        let mut config = ConnectorConfig::from([("connector.class".to_owned(), CLASS.to_owned())]);
        config.extend(
            settings
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned())),
        );
        Connector {
            config,
            status: Some(status),
        }
    }

    /// A name, settings, and what runs.
    type Known<'k> = (&'k str, &'k [(&'k str, &'k str)], ConnectorStatus);

    fn facts(connectors: &[Known<'_>]) -> Facts {
        let connectors = connectors
            .iter()
            .map(|(name, settings, status)| ((*name).to_owned(), connector(settings, status.clone())));
        Facts {
            connectors: connectors.collect(),
            endpoint: "http://connect:8083".to_owned(),
            ..Facts::default()
        }
    }

    #[test]
    fn the_connector_is_the_one_with_the_sources_prefix() {
        let runs = || status("RUNNING", &["RUNNING"]);
        for (connectors, chosen) in [
            (vec![("a", &[("topic.prefix", "aw")][..], runs())], "a"),
            (
                vec![
                    ("a", &[("topic.prefix", "x")], runs()),
                    ("b", &[("topic.prefix", "aw")], runs()),
                ],
                "b",
            ),
            (vec![("a", &[("topic.prefix", "x")], runs())], "prefix-differs"),
            (
                vec![
                    ("a", &[("topic.prefix", "x")], runs()),
                    ("b", &[("topic.prefix", "y")], runs()),
                ],
                "connector-missing",
            ),
            (
                vec![
                    ("a", &[("topic.prefix", "x")], runs()),
                    ("aw", &[("topic.prefix", "y")], runs()),
                ],
                "prefix-differs",
            ),
            (vec![], "connector-missing"),
        ] {
            let facts = facts(&connectors);
            let found = match choose(&facts, &expected()) {
                Chosen::One(deployed) => deployed.name.to_owned(),
                Chosen::None(finding) => finding.code.name.to_owned(),
            };
            assert_eq!(found, chosen);
        }
    }

    #[test]
    fn each_state_has_its_remedy() {
        for (state, codes) in [
            (status("RUNNING", &["RUNNING"]), &[][..]),
            (status("RUNNING", &["FAILED"]), &["connector-failed"]),
            (status("PAUSED", &["PAUSED"]), &["connector-paused"]),
            (status("STOPPED", &[]), &["connector-stopped"]),
            (status("RUNNING", &[]), &["connector-idle"]),
            (status("UNASSIGNED", &["UNASSIGNED"]), &["connector-idle"]),
        ] {
            let facts = facts(&[("a", &[("topic.prefix", "aw")], state)]);
            let Chosen::One(deployed) = choose(&facts, &expected()) else {
                panic!("it is there")
            };
            let found = of_state(&facts, &deployed);
            let names: Vec<&str> = found.iter().map(|finding| finding.code.name).collect();
            assert_eq!(names, codes);
            assert!(
                found
                    .iter()
                    .all(|finding| finding.remedy.parts().1.contains("http://connect:8083/connectors/a/"))
            );
        }
    }

    #[test]
    fn what_is_being_started_is_not_started_once_more() {
        for (state, place) in [
            (status("RUNNING", &["UNASSIGNED"]), "in a shell"),
            (status("RUNNING", &["RESTARTING"]), "by hand"),
            (status("RESTARTING", &[]), "by hand"),
        ] {
            let facts = facts(&[("a", &[("topic.prefix", "aw")], state)]);
            let Chosen::One(deployed) = choose(&facts, &expected()) else {
                panic!("it is there")
            };
            let found = of_state(&facts, &deployed);
            assert_eq!(found[0].remedy.parts().0, place);
        }
    }

    #[test]
    fn two_connectors_that_share_a_slot_or_a_prefix_are_told_and_old_versions_too() {
        let runs = || status("RUNNING", &["RUNNING"]);
        let facts = facts(&[
            ("a", &[("topic.prefix", "aw"), ("slot.name", "s")], runs()),
            ("b", &[("topic.prefix", "other"), ("slot.name", "s")], runs()),
            ("c", &[("topic.prefix", "third"), ("slot.name", "t")], runs()),
        ]);
        let Chosen::One(deployed) = choose(&facts, &expected()) else {
            panic!("it is there")
        };
        let found = of_state(&facts, &deployed);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].code.name, "connector-twice");
        for (version, codes) in [
            ("3.7.0.Final", &[][..]),
            ("4.0.0", &[]),
            ("3.6.1.Final", &["plugin-old"]),
            ("odd", &[]),
        ] {
            let plugin = Plugin {
                class: CLASS.to_owned(),
                version: Some(version.to_owned()),
            };
            let found = of_connect(&Facts {
                plugins: vec![plugin],
                ..Facts::default()
            });
            assert_eq!(found.iter().map(|finding| finding.code.name).collect::<Vec<_>>(), codes);
        }
        assert_eq!(of_connect(&Facts::default())[0].code.name, "plugin-missing");
    }
}
