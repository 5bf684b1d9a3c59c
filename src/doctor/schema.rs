//! afterwrite's own tables.

use sqlx::postgres::PgPool;

use super::codes;
use super::expected::{Expected, HEARTBEAT};
use super::finding::{Finding, Remedy};
use super::quoting::table_sql;

/// What is known of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Facts {
    /// Numbers of the migrations that were applied.
    pub(super) applied: Vec<i64>,
    pub(super) has_heartbeat: bool,
    /// Whether the ledger has a partition for today, and for tomorrow (UTC).
    pub(super) days: [bool; 2],
    /// Groups that read another source than the configuration says: their names, and what they read.
    pub(super) sources: Vec<(String, String)>,
}

impl Facts {
    /// Whether the other tables of the schema can be read.
    pub(super) fn is_current(&self, expected: &Expected) -> bool {
        expected
            .migrations
            .iter()
            .all(|(version, _)| self.applied.contains(version))
    }
}

pub(super) async fn collect(pool: &PgPool) -> Result<Facts, sqlx::Error> {
    let exists: bool = sqlx::query_scalar("SELECT to_regclass('afterwrite.migrations') IS NOT NULL")
        .fetch_one(pool)
        .await?;
    let applied = match exists {
        true => {
            sqlx::query_scalar("SELECT version FROM afterwrite.migrations WHERE success ORDER BY 1")
                .fetch_all(pool)
                .await?
        }
        false => Vec::new(),
    };
    let (has_heartbeat, today, tomorrow): (bool, bool, bool) = sqlx::query_as(
        "WITH day AS (SELECT (now() AT TIME ZONE 'UTC')::date AS today)
         SELECT to_regclass('afterwrite.heartbeat') IS NOT NULL,
                EXISTS (SELECT FROM pg_inherits WHERE inhparent = to_regclass('afterwrite.ledger')
                        AND inhrelid = to_regclass('afterwrite.ledger_' || to_char(day.today, 'YYYYMMDD'))),
                EXISTS (SELECT FROM pg_inherits WHERE inhparent = to_regclass('afterwrite.ledger')
                        AND inhrelid = to_regclass('afterwrite.ledger_' || to_char(day.today + 1, 'YYYYMMDD')))
         FROM day",
    )
    .fetch_one(pool)
    .await?;
    let knows_sources: bool = sqlx::query_scalar("SELECT to_regclass('afterwrite.sources') IS NOT NULL")
        .fetch_one(pool)
        .await?;
    let sources = match knows_sources {
        true => {
            sqlx::query_as("SELECT group_name, source FROM afterwrite.sources ORDER BY 1")
                .fetch_all(pool)
                .await?
        }
        false => Vec::new(),
    };
    Ok(Facts {
        applied,
        has_heartbeat,
        days: [today, tomorrow],
        sources,
    })
}

pub(super) fn findings(facts: &Facts, expected: &Expected) -> Vec<Finding> {
    let migrate = || Remedy::shell("afterwrite migrate");
    if !facts.is_current(expected) {
        let lacking = expected
            .migrations
            .iter()
            .filter(|(version, _)| !facts.applied.contains(version));
        let lacking: Vec<String> = lacking.map(|(version, name)| format!("{version:04}_{name}")).collect();
        return vec![codes::MIGRATIONS.found(format!("not applied: {}", lacking.join(", ")), migrate())];
    }
    let mut found = Vec::new();
    let known = |version: &&i64| !expected.migrations.iter().any(|(known, _)| known == *version);
    let newer: Vec<String> = facts
        .applied
        .iter()
        .filter(known)
        .map(|version| format!("{version:04}"))
        .collect();
    if !newer.is_empty() {
        found.push(codes::MIGRATIONS_NEWER.found(
            format!(
                "migrations {} were applied by a newer afterwrite than this one",
                newer.join(", ")
            ),
            Remedy::words("update this binary to the version that ran afterwrite migrate last"),
        ));
    }
    if !facts.has_heartbeat {
        let place = table_sql(HEARTBEAT.0, HEARTBEAT.1);
        found.push(codes::HEARTBEAT_MISSING.found(
            format!("there is no table {place}"),
            // The migration that made it is done, and is not done again.
            Remedy::sql(format!(
                "CREATE TABLE {place} (id integer PRIMARY KEY, ts timestamptz NOT NULL); ALTER TABLE {place} REPLICA IDENTITY FULL; \
                 GRANT ALL ON {place} TO {}; GRANT SELECT, INSERT, UPDATE ON {place} TO {}; ALTER PUBLICATION {} ADD TABLE {place};",
                expected.roles[0], expected.roles[1], expected.publication
            )),
        ));
    }
    for (code, is_there, day) in [
        (codes::LEDGER_TODAY, facts.days[0], "today"),
        (codes::LEDGER_TOMORROW, facts.days[1], "tomorrow"),
    ] {
        if !is_there {
            found.push(code.found(format!("the ledger has no partition for {day}"), migrate()));
        }
    }
    found.extend(of_sources(facts, expected));
    found
}

fn of_sources(facts: &Facts, expected: &Expected) -> Vec<Finding> {
    let wanted = if expected.brokers.is_some() { "kafka" } else { "wal" };
    let differing = facts
        .sources
        .iter()
        .filter(|(group, source)| source != wanted && expected.groups.iter().any(|expected| expected.name == *group));
    let differing: Vec<&str> = differing.map(|(group, _)| group.as_str()).collect();
    if differing.is_empty() {
        return Vec::new();
    }
    let (is, remedy) = match wanted {
        "kafka" => (
            "wal",
            Remedy::words(
                "to move the groups to Kafka: afterwrite graduate (docs/GROWING.md); else set source.kind = \"wal\"",
            ),
        ),
        _ => (
            "kafka",
            Remedy::words("set source.kind = \"kafka\": groups that have read Kafka do not go back to the log"),
        ),
    };
    vec![codes::SOURCE_DIFFERS.found(
        format!("source.kind is {wanted}, and {} read {is}", differing.join(", ")),
        remedy,
    )]
}

#[cfg(test)]
mod tests {
    use super::super::tests::expected;
    use super::*;

    fn healthy() -> Facts {
        Facts {
            applied: vec![1, 2],
            has_heartbeat: true,
            days: [true, true],
            sources: Vec::new(),
        }
    }

    #[test]
    fn what_the_schema_lacks_is_told() {
        for (facts, codes) in [
            (healthy(), &[][..]),
            // Everything else follows from it.
            (
                Facts {
                    applied: vec![1],
                    has_heartbeat: false,
                    ..healthy()
                },
                &["migrations"],
            ),
            (
                Facts {
                    applied: vec![1, 2, 3],
                    ..healthy()
                },
                &["migrations-newer"],
            ),
            (
                Facts {
                    has_heartbeat: false,
                    ..healthy()
                },
                &["heartbeat-missing"],
            ),
            (
                Facts {
                    days: [false, false],
                    ..healthy()
                },
                &["ledger-today", "ledger-tomorrow"],
            ),
            (
                Facts {
                    sources: vec![("aw.email".to_owned(), "wal".to_owned())],
                    ..healthy()
                },
                &["source-differs"],
            ),
            (
                Facts {
                    sources: vec![("other.email".to_owned(), "wal".to_owned())],
                    ..healthy()
                },
                &[],
            ),
        ] {
            let found: Vec<&str> = findings(&facts, &expected())
                .iter()
                .map(|finding| finding.code.name)
                .collect();
            assert_eq!(found, codes, "{facts:?}");
        }
    }
}
