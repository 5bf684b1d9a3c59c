//! One examination: what can be asked at once is asked at once, and what hangs on an answer waits for it.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde::Serialize;
use tokio::time::timeout;

use super::asking::{Database, PART_MAX, Reach, Surroundings, Unasked, ask_around, ask_postgres, look_up, read_newest};
use super::connector::{Chosen, Deployed};
use super::doors::{self, Silence};
use super::expected::Expected;
use super::finding::{Finding, Leg, Outcome, Remedy, Severity, Unchecked, merged};
use super::probe::{self, Trip};
use super::{
    codes, columns, connector, groups, handlers, horizon, letters, lints, offsets, publication, records, registry,
    roles, schema, server, slot, tables, topics,
};
use crate::causes::chain;
use crate::decode::registry::client::Look;

const START_POSTGRES: &str =
    "start Postgres, or correct postgres.url (DATABASE_URL); pg_isready -d \"$DATABASE_URL\" asks it";

/// What was found.
#[derive(Debug, Serialize)]
pub struct Report {
    /// When.
    pub at: DateTime<Utc>,
    /// In the order of the way.
    pub findings: Vec<Finding>,
    /// What could not be looked at.
    pub unchecked: Vec<Unchecked>,
    /// How the probe fared, where one was sent and arrived.
    pub probe: Option<Trip>,
    /// The connector, where there is one.
    pub connector: Option<String>,
    /// Parts that are away.
    #[serde(skip)]
    pub is_away: bool,
}

impl Report {
    /// The worst finding there is.
    pub fn worst(&self) -> Option<Severity> {
        self.findings.iter().map(|finding| finding.code.severity).max()
    }
}

/// Looks at everything.
pub async fn examine(expected: &Expected, reach: Reach) -> Report {
    let (surroundings, mail) = futures::future::join(ask_around(expected, &reach), mail(expected)).await;
    let connect = surroundings.connect.as_ref().and_then(|connect| connect.as_ref().ok());
    let chosen = connect.map(|facts| (facts, connector::choose(facts, expected)));
    let deployed = match &chosen {
        Some((_, Chosen::One(deployed))) => Some(*deployed),
        _ => None,
    };
    let (database, looked, newest) = futures::future::join3(
        ask_postgres(expected, &reach, deployed),
        look_up(expected, deployed),
        read_newest(&surroundings, deployed, expected),
    )
    .await;
    let mut outcome = Outcome::default();
    if let (Some(deployed), Some(client), Ok(pool), Ok(database)) = (&deployed, &reach.connect, &reach.pool, &database)
    {
        let told = timeout(PART_MAX, offsets::examine(client, pool, deployed, &database.slots)).await;
        let late = |_| Outcome::unchecked(&[Leg::Connector], "kafka connect did not tell its offsets in time");
        outcome.add(told.unwrap_or_else(late));
    }
    outcome.add(of_database(&database, deployed, expected));
    outcome.add(of_connectors(
        &surroundings,
        chosen.as_ref(),
        database.as_ref().ok(),
        expected,
    ));
    outcome.add(of_brokers(&surroundings, database.as_ref().ok(), deployed, expected).await);
    let is_read = is_slot_read(database.as_ref().ok(), deployed);
    let is_registry_there = matches!(looked, Some(Look::Answered { .. }));
    outcome.add(records::findings(
        &newest,
        is_read,
        is_registry_there,
        deployed.as_ref(),
    ));
    outcome.findings.extend(looked.iter().flat_map(registry::findings));
    if let Some(silence) = &mail {
        let remedy = "start it, or correct smtp.host (SMTP_HOST) and smtp.port (SMTP_PORT)";
        outcome.findings.push(doors::MAIL.shut(silence, remedy));
    }
    let trip = send(&reach, expected, &database, &surroundings, deployed, &mut outcome).await;
    outcome.findings = merged(outcome.findings);
    outcome.findings.sort_by_key(|finding| finding.code.leg);
    Report {
        at: Utc::now(),
        is_away: outcome.findings.iter().any(|finding| doors::hides_much(finding.code)),
        findings: outcome.findings,
        unchecked: outcome.unchecked,
        probe: trip,
        connector: deployed.map(|deployed| deployed.name.to_owned()),
    }
}

async fn mail(expected: &Expected) -> Option<Silence> {
    handlers::mail_server(expected.mail_server.as_ref()?).await
}

fn of_database(database: &Result<Database, Unasked>, deployed: Option<Deployed<'_>>, expected: &Expected) -> Outcome {
    let without = |because: &str, finding: Finding| {
        let legs = [
            Leg::Tables,
            Leg::Schema,
            Leg::Publication,
            Leg::Roles,
            Leg::Slot,
            Leg::Letters,
        ];
        let mut outcome = Outcome::unchecked(&legs, because);
        outcome.findings.push(finding);
        outcome
    };
    let facts = match database {
        Ok(facts) => facts,
        Err(Unasked::Silent(silence)) => {
            let finding = doors::POSTGRES.shut(silence, START_POSTGRES);
            return without("postgres does not answer", finding);
        }
        Err(Unasked::Denied(why)) => {
            let remedy = Remedy::shell("afterwrite migrate # as the owner of the tables: it grants what is missing");
            let finding = codes::WORKER_GRANTS.found(format!("the role of postgres.url may not look: {why}"), remedy);
            return without("the role of postgres.url may not look", finding);
        }
    };
    let mut found = server::findings(&facts.server);
    found.extend(horizon::findings(&facts.horizon));
    found.extend(tables::findings(&facts.tables, expected));
    found.extend(columns::findings(&facts.columns, deployed.as_ref(), expected));
    found.extend(schema::findings(&facts.schema, expected));
    let signals = deployed.and_then(|deployed| deployed.signals());
    found.extend(publication::findings(
        &facts.publication,
        &facts.tables,
        expected,
        signals,
    ));
    found.extend(roles::findings(&facts.roles, expected));
    found.extend(of_slots(facts, deployed, expected));
    Outcome::of(found)
}

/// Whether somebody reads the connector's slot; where it is not known, somebody may.
fn is_slot_read(database: Option<&Database>, deployed: Option<Deployed<'_>>) -> bool {
    let known = database.and_then(|database| Some((database, deployed?.slot()?)));
    known.is_none_or(|(database, name)| database.slots.named(name).is_some_and(|slot| slot.is_active))
}

fn of_slots(facts: &Database, deployed: Option<Deployed<'_>>, expected: &Expected) -> Vec<Finding> {
    let mut found = Vec::new();
    let writer = facts.horizon.writer.as_ref();
    let mut ours: Vec<&str> = expected.groups.iter().map(|group| group.slot.as_str()).collect();
    if let Some((deployed, name)) = deployed.and_then(|deployed| Some((deployed, deployed.slot()?))) {
        let ways = slot::Ways {
            anew: deployed.begin_anew(),
            without: deployed.begin_without(name),
        };
        let is_younger = facts.publication.is_younger;
        found.extend(slot::of_connector(
            &facts.slots,
            name,
            deployed.runs(),
            is_younger,
            &ways,
        ));
        let fails_over = deployed.get("slot.failover") == Some("true");
        found.extend(slot::of_make(&facts.slots, name, fails_over, writer, &ways));
        ours.push(name);
    }
    found.extend(slot::of_others(&facts.slots, &ours));
    if expected.brokers.is_none() {
        found.extend(slot::of_groups(&facts.slots, expected, writer));
    }
    found
}

fn of_connectors(
    surroundings: &Surroundings,
    chosen: Option<&(&connector::Facts, Chosen<'_>)>,
    database: Option<&Database>,
    expected: &Expected,
) -> Outcome {
    let Some(connect) = &surroundings.connect else {
        return Outcome::default();
    };
    let facts = match connect {
        Ok(facts) => facts,
        Err(why) => {
            let mut outcome = Outcome::unchecked(&[Leg::Connector], "kafka connect does not answer");
            outcome
                .findings
                .push(doors::CONNECT.shut(why, "start Kafka Connect, or correct connect.url (CONNECT_URL)"));
            return outcome;
        }
    };
    let mut found = connector::of_connect(facts);
    match chosen {
        Some((_, Chosen::One(deployed))) => {
            found.extend(connector::of_state(facts, deployed));
            found.extend(lints::findings(
                deployed,
                database.map(|database| &database.tables),
                expected,
            ));
            found.extend(connector::of_database(
                deployed,
                database.map(|database| &database.name),
            ));
        }
        // Another plug-in is missed first.
        Some((_, Chosen::None(finding))) if found.is_empty() => found.push(finding.clone()),
        _ => {}
    }
    Outcome::of(found)
}

async fn of_brokers(
    surroundings: &Surroundings,
    database: Option<&Database>,
    deployed: Option<Deployed<'_>>,
    expected: &Expected,
) -> Outcome {
    let known = database.and_then(|database| database.known.as_ref());
    let unknown = BTreeMap::new();
    let nothing = topics::Facts::default();
    let (broker, topics) = match &surroundings.broker {
        Some(Ok((broker, topics))) => (broker, topics),
        Some(Err(why)) => {
            let mut outcome = Outcome::unchecked(&[Leg::Groups], "kafka does not answer");
            outcome.findings.push(doors::KAFKA.shut(
                why,
                "start the brokers, or correct kafka.brokers (KAFKA_BROKERS) and kafka.properties",
            ));
            outcome
                .findings
                .extend(known.iter().flat_map(|known| letters::findings(None, known, expected)));
            return outcome;
        }
        None => {
            let Some(known) = known else { return Outcome::default() };
            let mut found = groups::findings(&BTreeMap::new(), known, &nothing, expected, Utc::now());
            found.extend(letters::findings(None, known, expected));
            return Outcome::of(found);
        }
    };
    let mut outcome = Outcome::of(topics::findings(topics, deployed.as_ref(), expected));
    let (broker, wanted, there) = (Arc::clone(broker), expected.groups.clone(), topics.clone());
    let asked = timeout(
        PART_MAX,
        tokio::task::spawn_blocking(move || groups::ask(&broker, &wanted, &there)),
    )
    .await;
    match (asked, known) {
        (Ok(Ok(Ok(asked))), Some(known)) => {
            outcome
                .findings
                .extend(groups::findings(&asked, known, topics, expected, Utc::now()));
        }
        (Ok(Ok(Ok(asked))), None) => {
            // Where it began is not known, so nothing is said of positions that are not there.
            outcome
                .findings
                .extend(groups::findings(&asked, &unknown, topics, expected, Utc::now()));
        }
        (Ok(Ok(Err(error))), _) => outcome.add(Outcome::unchecked(&[Leg::Groups], chain(&error))),
        (Ok(Err(_)) | Err(_), _) => outcome.add(Outcome::unchecked(
            &[Leg::Groups],
            "their coordinator did not answer in time",
        )),
    }
    if let Some(known) = known {
        outcome
            .findings
            .extend(letters::findings(Some(topics), known, expected));
    }
    outcome
}

/// Sends the row, where the parts that it needs are there.
async fn send(
    reach: &Reach,
    expected: &Expected,
    database: &Result<Database, Unasked>,
    surroundings: &Surroundings,
    deployed: Option<Deployed<'_>>,
    outcome: &mut Outcome,
) -> Option<Trip> {
    if !reach.probes {
        return None;
    }
    let refused = |why: &str| Outcome::unchecked(&[Leg::Probe], why);
    let (Ok(pool), Ok(facts)) = (&reach.pool, database) else {
        outcome.add(refused("postgres does not answer"));
        return None;
    };
    if !facts.schema.has_heartbeat {
        outcome.add(refused("the table of its row is not there"));
        return None;
    }
    let sent = match (&reach.reading, &reach.replicating) {
        (Some(options), _) => {
            let runs = deployed.is_some_and(|deployed| deployed.runs());
            if !runs || !matches!(surroundings.broker, Some(Ok(_))) {
                outcome.add(refused("no connector runs, or kafka does not answer"));
                return None;
            }
            probe::by_kafka(pool, options.clone(), expected).await
        }
        (None, Some(Ok(replicating))) if facts.publication.found.is_some() && facts.roles.may_replicate() => {
            probe::by_log(pool, replicating, &expected.publication).await
        }
        _ => {
            outcome.add(refused("the log cannot be read"));
            return None;
        }
    };
    match sent {
        probe::Outcome::Arrived(trip) => Some(trip),
        probe::Outcome::Found(finding) => {
            outcome.findings.push(finding);
            None
        }
    }
}
