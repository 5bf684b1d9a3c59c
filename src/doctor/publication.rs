//! What Postgres sends of its log: the publication.

use sqlx::postgres::PgPool;

use super::codes;
use super::expected::Expected;
use super::finding::{Finding, Remedy};
use super::quoting::{identifier, table_sql};
use super::tables::Tables;

/// What is published has to be sent whole: every kind of change, as one list for `publish`.
const OPERATIONS: &str = "insert, update, delete, truncate";

/// A publication.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Facts {
    pub(super) name: String,
    /// `None` when there is no such publication.
    pub(super) found: Option<Published>,
    pub(super) tables: Vec<(String, String)>,
    /// Tables of which a filter or a list leaves rows or columns out.
    pub(super) filtered: Vec<(String, String)>,
    /// Whether it was made after log that the connector's slot still holds.
    pub(super) is_younger: bool,
}

/// How it publishes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::FromRow)]
pub(super) struct Published {
    pub(super) inserts: bool,
    pub(super) updates: bool,
    pub(super) deletes: bool,
    pub(super) truncates: bool,
    /// Changes of partitions are sent as those of the whole table.
    pub(super) via_root: bool,
}

pub(super) async fn collect(pool: &PgPool, name: &str, slot: Option<&str>) -> Result<Facts, sqlx::Error> {
    let found = sqlx::query_as(
        "SELECT pubinsert AS inserts, pubupdate AS updates, pubdelete AS deletes, pubtruncate AS truncates, pubviaroot AS via_root
         FROM pg_publication WHERE pubname = $1::name",
    )
    .bind(name)
    .fetch_optional(pool)
    .await?;
    let tables = sqlx::query_as(
        "SELECT DISTINCT schemaname::text, tablename::text FROM pg_publication_tables WHERE pubname = $1::name ORDER BY 1, 2",
    )
    .bind(name)
    .fetch_all(pool)
    .await?;
    let filtered = sqlx::query_as(
        "SELECT n.nspname::text, c.relname::text
         FROM pg_publication p JOIN pg_publication_rel r ON r.prpubid = p.oid
         JOIN pg_class c ON c.oid = r.prrelid JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE p.pubname = $1::name AND (r.prqual IS NOT NULL OR r.prattrs IS NOT NULL) ORDER BY 1, 2",
    )
    .bind(name)
    .fetch_all(pool)
    .await?;
    let is_younger: Option<bool> = sqlx::query_scalar(
        "SELECT age(p.xmin) <= age(s.catalog_xmin) FROM pg_publication p, pg_replication_slots s
         WHERE p.pubname = $1::name AND s.slot_name = $2::name AND s.catalog_xmin IS NOT NULL",
    )
    .bind(name)
    .bind(slot.unwrap_or_default())
    .fetch_optional(pool)
    .await?;
    Ok(Facts {
        is_younger: is_younger.unwrap_or_default(),
        name: name.to_owned(),
        found,
        tables,
        filtered,
    })
}

/// `signals` is the connector's own table of signals, where it has one.
pub(super) fn findings(
    facts: &Facts,
    tables: &Tables,
    expected: &Expected,
    signals: Option<(String, String)>,
) -> Vec<Finding> {
    let name = identifier(&facts.name);
    let exists = |place: &(String, String)| {
        let known = tables
            .tables
            .iter()
            .find(|table| (&table.schema, &table.name) == (&place.0, &place.1));
        known.is_none_or(|table| table.exists)
    };
    // What is not there yet is told as that, and cannot be published.
    let wanted: Vec<(String, String)> = expected.published().into_iter().chain(signals).filter(exists).collect();
    let Some(published) = facts.found else {
        if wanted.is_empty() {
            // Nothing is there yet that could be published.
            let migrate = Remedy::shell("afterwrite migrate");
            return vec![codes::PUBLICATION_MISSING.found(format!("there is no publication {name}"), migrate)];
        }
        return vec![codes::PUBLICATION_MISSING.found(
            format!("there is no publication {name}"),
            Remedy::sql(format!(
                "CREATE PUBLICATION {name} FOR TABLE {} WITH (publish = '{OPERATIONS}', publish_via_partition_root = true);",
                listed(&wanted)
            )),
        )];
    };
    let mut found: Vec<Finding> = of_tables(facts, &name, &wanted);
    found.extend(of_operations(published, &name));
    let partitioned: Vec<&str> = tables
        .tables
        .iter()
        .filter(|table| table.is_partitioned)
        .map(|table| table.name.as_str())
        .collect();
    if !partitioned.is_empty() && !published.via_root {
        found.push(codes::PUBLICATION_ROOT.found(
            format!(
                "publication {name} sends changes of {} under the names of their partitions",
                partitioned.join(", ")
            ),
            Remedy::sql(format!(
                "ALTER PUBLICATION {name} SET (publish_via_partition_root = true);"
            )),
        ));
    }
    found
}

/// Tables that are left out, and those of which something is.
fn of_tables(facts: &Facts, name: &str, wanted: &[(String, String)]) -> Vec<Finding> {
    let mut found = Vec::new();
    let lacking: Vec<(String, String)> = wanted
        .iter()
        .filter(|place| !facts.tables.contains(place))
        .cloned()
        .collect();
    if !lacking.is_empty() {
        let lacking = listed(&lacking);
        found.push(codes::PUBLICATION_TABLES.found(
            format!("publication {name} lacks {lacking}"),
            Remedy::sql(format!("ALTER PUBLICATION {name} ADD TABLE {lacking};")),
        ));
    }
    let filtered: Vec<(String, String)> = wanted
        .iter()
        .filter(|place| facts.filtered.contains(place))
        .cloned()
        .collect();
    if !filtered.is_empty() {
        let filtered = listed(&filtered);
        found.push(codes::PUBLICATION_FILTER.found(
            format!("publication {name} has a row filter or a column list on {filtered}"),
            Remedy::sql(format!(
                "BEGIN; ALTER PUBLICATION {name} DROP TABLE {filtered}; ALTER PUBLICATION {name} ADD TABLE {filtered}; COMMIT;"
            )),
        ));
    }
    found
}

/// Kinds of changes that are left out.
fn of_operations(published: Published, name: &str) -> Option<Finding> {
    let kinds = [
        ("insert", published.inserts),
        ("update", published.updates),
        ("delete", published.deletes),
        ("truncate", published.truncates),
    ];
    let left_out: Vec<&str> = kinds
        .iter()
        .filter(|(_, is_sent)| !is_sent)
        .map(|(kind, _)| *kind)
        .collect();
    (!left_out.is_empty()).then(|| {
        codes::PUBLICATION_OPERATIONS.found(
            format!("publication {name} leaves out {}", left_out.join(", ")),
            Remedy::sql(format!("ALTER PUBLICATION {name} SET (publish = '{OPERATIONS}');")),
        )
    })
}

fn listed(tables: &[(String, String)]) -> String {
    let each: Vec<String> = tables.iter().map(|(schema, table)| table_sql(schema, table)).collect();
    each.join(", ")
}

#[cfg(test)]
mod tests {
    use super::super::tables;
    use super::super::tests::expected;
    use super::*;

    const ALL: Published = Published {
        inserts: true,
        updates: true,
        deletes: true,
        truncates: true,
        via_root: false,
    };

    fn place(schema: &str, table: &str) -> (String, String) {
        (schema.to_owned(), table.to_owned())
    }

    fn healthy() -> Facts {
        Facts {
            name: "aw".to_owned(),
            found: Some(ALL),
            tables: vec![place("afterwrite", "heartbeat"), place("public", "orders")],
            filtered: Vec::new(),
            is_younger: false,
        }
    }

    fn of(facts: &Facts, tables: &Tables) -> Vec<(&'static str, String)> {
        let found = findings(facts, tables, &expected(), None);
        found
            .into_iter()
            .map(|finding| (finding.code.name, finding.remedy.parts().1.to_owned()))
            .collect()
    }

    #[test]
    fn what_a_publication_leaves_out_is_told_with_the_statement_that_adds_it() {
        let none = Tables::default();
        assert_eq!(of(&healthy(), &none), []);
        for (facts, code, remedy) in [
            (
                Facts {
                    found: None,
                    ..healthy()
                },
                "publication-missing",
                "CREATE PUBLICATION aw FOR TABLE public.orders, afterwrite.heartbeat WITH (publish = 'insert, update, delete, truncate', \
                 publish_via_partition_root = true);",
            ),
            (
                Facts {
                    tables: vec![place("afterwrite", "heartbeat")],
                    ..healthy()
                },
                "publication-tables",
                "ALTER PUBLICATION aw ADD TABLE public.orders;",
            ),
            (
                Facts {
                    found: Some(Published { deletes: false, ..ALL }),
                    ..healthy()
                },
                "publication-operations",
                "ALTER PUBLICATION aw SET (publish = 'insert, update, delete, truncate');",
            ),
            (
                Facts {
                    filtered: vec![place("public", "orders"), place("public", "others")],
                    ..healthy()
                },
                "publication-filter",
                "BEGIN; ALTER PUBLICATION aw DROP TABLE public.orders; ALTER PUBLICATION aw ADD TABLE public.orders; COMMIT;",
            ),
        ] {
            assert_eq!(of(&facts, &none), [(code, remedy.to_owned())]);
        }
    }

    #[test]
    fn a_table_that_is_not_there_is_not_asked_of_the_publication_and_partitions_want_their_root() {
        let table = |exists, is_partitioned| Tables {
            tables: vec![tables::Facts {
                schema: "public".to_owned(),
                name: "orders".to_owned(),
                exists,
                is_partitioned,
                ..tables::Facts::default()
            }],
            lacking: Vec::new(),
        };
        let without = Facts {
            tables: vec![place("afterwrite", "heartbeat")],
            ..healthy()
        };
        assert_eq!(of(&without, &table(false, false)), []);
        assert_eq!(of(&healthy(), &table(true, true))[0].0, "publication-root");
    }
}
