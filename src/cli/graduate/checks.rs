//! What has to be so before a graduation begins. Everything is looked at, so that all findings are said at once.

use super::told::{State, Told, Way, counted};
use super::{Graduate, GraduateFailed};
use crate::cli::brokers::Brokers;
use crate::cli::connector::file::Wanted;
use crate::cli::connector::patience::Patience;
use crate::cli::connector::plan::check;
use crate::cli::{Failure, database};
use crate::clients::connect::ConnectorConfig;
use crate::config::Config;
use crate::config::wal::SLOT_BYTES_MAX;
use crate::doctor::lints::{captures, patterns};
use crate::groups::graduation::rows::connector_slot;
use crate::groups::graduation::{ConnectorSlot, Graduation, Member};

/// How long Kafka Connect may take to look at the configuration.
const PATIENCE_S: u64 = 30;

impl Graduate<'_> {
    /// Looks at everything; answers the name of the connector's slot.
    ///
    /// # Errors
    /// When something has to be put right first, or cannot be reached.
    pub(super) async fn check(&self, wanted: &Wanted, members: &[Member], told: &mut Told) -> Result<String, Failure> {
        let published = self.published().await?;
        let mut objections = objections(&wanted.config, self.config, &published);
        let slot = wanted.config.get("slot.name").cloned().unwrap_or_default();
        objections.extend(self.of_slot(&slot, members).await?);
        objections.extend(self.of_role().await?);
        let there = Patience::new(PATIENCE_S)
            .insist(|| self.connect.config(&wanted.name))
            .await?;
        match there {
            Some(_) => objections.push(format!(
                "kafka connect has a connector {0} already: give the file's another name, or, if the one that is there is of no use: \
                 afterwrite connector delete {0}",
                wanted.name
            )),
            None => check(&self.connect, wanted, &Patience::new(PATIENCE_S)).await?,
        }
        let brokers = Brokers::connect(self.config).await?;
        let beginning = format!("{}.", self.config.source.name);
        let topics = brokers.ask(move |broker| Ok(broker.topics(&beginning).len())).await?;
        object(&objections, told)?;
        let text = format!(
            "{}, {} of publication {}, connector {}, {} of {} in Kafka: nothing stands in the way",
            counted(members.len(), "group"),
            counted(published.len(), "table"),
            self.config.wal.publication,
            wanted.name,
            counted(topics, "topic"),
            self.config.source.name,
        );
        told.say(Way::Check, State::Done, &text)?;
        Ok(slot)
    }

    /// Looks at the file once more before the connector is made: somebody may have edited it since.
    pub(super) async fn check_again(
        &self,
        wanted: &Wanted,
        begun: &Graduation,
        told: &mut Told,
    ) -> Result<(), Failure> {
        let mut objections = objections(&wanted.config, self.config, &self.published().await?);
        if wanted.config.get("slot.name") != Some(&begun.slot) {
            objections.push(format!(
                "slot.name has to be {}, which was made for this connector",
                begun.slot
            ));
        }
        object(&objections, told)
    }

    /// The tables whose changes the groups are sent.
    async fn published(&self) -> Result<Vec<String>, Failure> {
        sqlx::query_scalar(
            "SELECT DISTINCT schemaname || '.' || tablename FROM pg_publication_tables WHERE pubname = $1::name ORDER BY 1",
        )
        .bind(&self.config.wal.publication)
        .fetch_all(&self.pool)
        .await
        .map_err(GraduateFailed::postgres)
    }

    async fn of_slot(&self, slot: &str, members: &[Member]) -> Result<Vec<String>, Failure> {
        if let Some(member) = members.iter().find(|member| member.slot == slot) {
            return Ok(vec![format!(
                "slot.name is {slot}, the slot of group {}: choose another one",
                member.group
            )]);
        }
        let there = connector_slot(&self.pool, slot)
            .await
            .map_err(GraduateFailed::postgres)?;
        let mut objections = Vec::new();
        if there != ConnectorSlot::Absent {
            objections.push(format!(
                "there is a replication slot {slot} already, of an earlier connector or of one that runs: if it is of no use any \
                 more: afterwrite slot drop {slot} --unknown"
            ));
        }
        let free: i64 = sqlx::query_scalar(
            "SELECT current_setting('max_replication_slots')::bigint - count(*) FROM pg_replication_slots",
        )
        .fetch_one(&self.pool)
        .await
        .map_err(GraduateFailed::postgres)?;
        if free < 1 {
            objections
                .push("no replication slot is free: raise max_replication_slots, and restart Postgres".to_owned());
        }
        Ok(objections)
    }

    async fn of_role(&self) -> Result<Option<String>, Failure> {
        let replicating = database::connect_to_replicate(self.config).await?;
        let (role, may): (String, bool) = sqlx::query_as(
            "SELECT rolname::text, rolreplication OR rolsuper FROM pg_roles WHERE rolname = current_user",
        )
        .fetch_one(&replicating)
        .await
        .map_err(GraduateFailed::postgres)?;
        Ok((!may).then(|| {
            format!("role {role} needs REPLICATION to make the slot: ALTER ROLE {role} REPLICATION, or let wal.url name another role")
        }))
    }
}

fn object(objections: &[String], told: &mut Told) -> Result<(), Failure> {
    for objection in objections {
        told.say(Way::Check, State::Wrong, objection)?;
    }
    match objections.len() {
        0 => Ok(()),
        count => Err(Failure::usage(GraduateFailed::Objections(count))),
    }
}

/// What in a connector file contradicts what the groups read now.
fn objections(connector: &ConnectorConfig, config: &Config, published: &[String]) -> Vec<String> {
    let get = |key: &str| connector.get(key).map(String::as_str);
    let mut objections = Vec::new();
    if get("connector.class").and_then(|class| class.rsplit('.').next()) != Some("PostgresConnector") {
        objections.push("connector.class is not Debezium's PostgresConnector".to_owned());
        return objections;
    }
    for (key, expected, why) in [
        (
            "topic.prefix",
            config.source.name.as_str(),
            "the source's name is part of each event's id (source.name)",
        ),
        (
            "publication.name",
            config.wal.publication.as_str(),
            "the groups read it now (wal.publication)",
        ),
        ("plugin.name", "pgoutput", "the slot is made for it"),
        (
            "publication.autocreate.mode",
            "disabled",
            "a publication that a connector alters is altered for the groups too",
        ),
    ] {
        if get(key) != Some(expected) {
            let found = get(key).unwrap_or("not there");
            objections.push(format!("{key} is {found}, and has to be {expected}: {why}"));
        }
    }
    let mode = get("snapshot.mode");
    if !matches!(mode, Some("no_data" | "never")) {
        objections.push(format!(
            "snapshot.mode is {}, and has to be no_data: the connector goes on where the groups are, and what was there before was \
             read by them",
            mode.unwrap_or("not there")
        ));
    }
    let is_a_name = |slot: &str| {
        let letters = |letter: char| matches!(letter, 'a'..='z' | '0'..='9' | '_');
        !slot.is_empty() && slot.len() <= SLOT_BYTES_MAX && slot.chars().all(letters)
    };
    if !get("slot.name").is_some_and(is_a_name) {
        objections.push(
            "slot.name has to be written out: a-z, 0-9 and _, at most 63 letters; the slot is made by this command"
                .to_owned(),
        );
    }
    objections.extend(of_tables(connector, published));
    objections.extend(of_columns(connector, &config.wal.excluded_columns));
    objections
}

/// Tables that the groups read, and the connector would not.
fn of_tables(connector: &ConnectorConfig, published: &[String]) -> Option<String> {
    let missed: Vec<&str> = published
        .iter()
        .filter(|table| !captures(connector, table))
        .map(String::as_str)
        .collect();
    (!missed.is_empty()).then(|| {
        format!(
            "the connector does not capture {}, which the publication has: see table.include.list",
            missed.join(", ")
        )
    })
}

/// Columns that are kept out of events now, and that the connector would write to Kafka.
fn of_columns(connector: &ConnectorConfig, excluded: &[String]) -> Option<String> {
    let patterns = patterns(connector.get("column.exclude.list").map_or("", String::as_str));
    let written: Vec<&str> = excluded
        .iter()
        .filter(|column| !patterns.iter().any(|pattern| pattern.is_match(column)))
        .map(String::as_str)
        .collect();
    (!written.is_empty()).then(|| {
        format!(
            "the connector would write {} to Kafka, which wal.excluded_columns keeps out of events: see column.exclude.list",
            written.join(", ")
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shipped() -> ConnectorConfig {
        serde_json::from_str(include_str!("../../../connectors/waitlist.json")).unwrap()
    }

    fn published() -> Vec<String> {
        ["public.referrals", "public.waitlist_users", "afterwrite.heartbeat"]
            .map(str::to_owned)
            .to_vec()
    }

    #[test]
    fn the_connector_of_this_repository_takes_over_as_it_is() {
        assert_eq!(
            objections(&shipped(), &Config::default(), &published()),
            Vec::<String>::new()
        );
    }

    #[test]
    fn whatever_would_lose_repeat_or_leak_something_is_told() {
        for (key, value, word) in [
            ("topic.prefix", Some("other"), "topic.prefix is other"),
            ("topic.prefix", None, "topic.prefix is not there"),
            ("publication.name", Some("p"), "wal.publication"),
            ("plugin.name", Some("decoderbufs"), "pgoutput"),
            ("publication.autocreate.mode", Some("filtered"), "disabled"),
            ("snapshot.mode", Some("initial"), "no_data"),
            ("snapshot.mode", None, "no_data"),
            ("slot.name", None, "written out"),
            ("slot.name", Some("${env:SLOT}"), "written out"),
            ("connector.class", Some("io.x.MySqlConnector"), "PostgresConnector"),
            (
                "table.include.list",
                Some("public\\.referrals"),
                "public.waitlist_users",
            ),
            (
                "column.exclude.list",
                Some("public\\.email_log\\..*"),
                "verification_token",
            ),
            ("column.exclude.list", None, "public.email_log.subject"),
        ] {
            let mut connector = shipped();
            connector.remove(key);
            connector.extend(value.map(|value| (key.to_owned(), value.to_owned())));
            let told = objections(&connector, &Config::default(), &published());
            assert!(told.iter().any(|told| told.contains(word)), "{key} {value:?}: {told:?}");
        }
    }

    #[test]
    fn tables_are_captured_unless_a_list_says_otherwise() {
        let of = |key: &str, list: &str| {
            let connector = ConnectorConfig::from([(key.to_owned(), list.to_owned())]);
            of_tables(&connector, &published()).is_some()
        };
        assert!(!of("other", ""));
        assert!(!of("table.include.list", "PUBLIC\\..*, afterwrite.heartbeat"));
        assert!(of("table.include.list", "public\\.ref, public\\.waitlist_users"));
        assert!(of("table.exclude.list", "public\\.referrals"));
        assert!(!of("table.exclude.list", "public\\.ref"));
    }
}
