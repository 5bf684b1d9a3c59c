//! The application's tables: whether they are there, and what the log holds of their rows.

use sqlx::postgres::PgPool;

use super::codes;
use super::expected::{Expected, HEARTBEAT};
use super::finding::{Finding, Remedy};
use super::quoting::table_sql;
use crate::handlers::names::check::{self, About};

/// What is known of one table.
#[derive(Debug, Clone, Default, PartialEq, Eq, sqlx::FromRow)]
pub(super) struct Facts {
    pub(super) schema: String,
    pub(super) name: String,
    pub(super) exists: bool,
    /// Its rows are in partitions.
    pub(super) is_partitioned: bool,
    /// `d`, `n`, `f` or `i`; of a partitioned table the one that its partitions do not all share with `f`.
    pub(super) identity: Option<String>,
    pub(super) has_key: bool,
    /// Columns that may be null and have a default.
    pub(super) nullable_defaults: Vec<String>,
    /// Columns whose names differ by case only.
    pub(super) alike: Vec<String>,
}

/// What is known of all tables.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Tables {
    pub(super) tables: Vec<Facts>,
    /// What the waitlist's tables lack of the reference.
    pub(super) lacking: Vec<check::Finding>,
}

pub(super) async fn collect(pool: &PgPool, expected: &Expected) -> Result<Tables, sqlx::Error> {
    let wanted = expected.published();
    let (schemas, names): (Vec<String>, Vec<String>) = wanted.into_iter().unzip();
    let tables = sqlx::query_as(
        "SELECT routed.schema_name AS schema, routed.table_name AS name, c.oid IS NOT NULL AS exists,
                coalesce(c.relkind = 'p', false) AS is_partitioned,
                CASE c.relkind
                    WHEN 'p' THEN (SELECT coalesce(min(leaf.relreplident::text) FILTER (WHERE leaf.relreplident <> 'f'), 'f')
                                   FROM pg_partition_tree(c.oid) member JOIN pg_class leaf ON leaf.oid = member.relid
                                   WHERE member.isleaf)
                    ELSE c.relreplident::text END AS identity,
                EXISTS (SELECT FROM pg_index WHERE indrelid = c.oid AND indisprimary) AS has_key,
                ARRAY(SELECT attname::text FROM pg_attribute WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped
                      AND atthasdef AND NOT attnotnull AND attgenerated = '' ORDER BY attnum) AS nullable_defaults,
                ARRAY(SELECT one.attname::text FROM pg_attribute one JOIN pg_attribute other
                          ON other.attrelid = one.attrelid AND lower(other.attname) = lower(one.attname)
                          AND other.attnum <> one.attnum AND other.attnum > 0 AND NOT other.attisdropped
                      WHERE one.attrelid = c.oid AND one.attnum > 0 AND NOT one.attisdropped ORDER BY one.attnum) AS alike
         FROM unnest($1::text[], $2::text[]) AS routed (schema_name, table_name)
         LEFT JOIN (pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace AND c.relkind IN ('r', 'p'))
             ON n.nspname = routed.schema_name AND c.relname = routed.table_name",
    )
    .bind(schemas)
    .bind(names)
    .fetch_all(pool)
    .await?;
    let lacking = match &expected.names {
        Some(names) => check::check(&mut *pool.acquire().await?, names).await?,
        None => Vec::new(),
    };
    Ok(Tables { tables, lacking })
}

pub(super) fn findings(facts: &Tables, expected: &Expected) -> Vec<Finding> {
    let mut found: Vec<Finding> = facts.lacking.iter().filter_map(of_names).collect();
    let is_waitlist = expected.names.is_some();
    for table in &facts.tables {
        let is_heartbeat = (table.schema.as_str(), table.name.as_str()) == HEARTBEAT;
        let place = table_sql(&table.schema, &table.name);
        if !table.exists {
            // The one of afterwrite is found with its schema, those of the waitlist with their columns.
            if !is_waitlist && !is_heartbeat {
                found.push(codes::TABLE_MISSING.found(
                    format!("a handler is routed to {place}, and there is no such table"),
                    Remedy::words(format!(
                        "let the application make {place}, or correct the route of the handler"
                    )),
                ));
            }
            continue;
        }
        let wanted = expected
            .tables
            .iter()
            .find(|wanted| (&wanted.schema, &wanted.name) == (&table.schema, &table.name));
        if !table.has_key && !is_waitlist && wanted.is_some_and(|wanted| wanted.needs_key) {
            found.push(codes::NO_KEY.found(
                format!("{place} has no primary key"),
                Remedy::words(format!(
                    "ALTER TABLE {place} ADD PRIMARY KEY (…), or let the route say keyless: Keyless::AtLeastOnce"
                )),
            ));
        }
        if !table.alike.is_empty() {
            found.push(codes::COLUMNS_ALIKE.found(
                format!("columns of {place} differ by case only: {}", table.alike.join(", ")),
                Remedy::words(format!("rename all but one: ALTER TABLE {place} RENAME COLUMN … TO …")),
            ));
        }
        found.extend(of_identity(table, &place));
    }
    found
}

fn of_identity(table: &Facts, place: &str) -> Option<Finding> {
    let remedy = || Remedy::sql(format!("ALTER TABLE {place} REPLICA IDENTITY FULL;"));
    match table.identity.as_deref() {
        Some("f") | None => None,
        Some("n") => Some(codes::IDENTITY_NONE.found(format!("{place} has REPLICA IDENTITY NOTHING"), remedy())),
        Some("d") if !table.has_key => Some(codes::IDENTITY_NONE.found(
            format!("{place} has neither a primary key nor a replica identity"),
            remedy(),
        )),
        Some(other) => {
            let other = if other == "i" { "USING INDEX" } else { "DEFAULT" };
            Some(codes::IDENTITY_PART.found(format!("{place} has REPLICA IDENTITY {other}"), remedy()))
        }
    }
}

fn of_names(finding: &check::Finding) -> Option<Finding> {
    let remedy = match finding.about {
        // Told by what the log holds, for every table.
        About::Identity => return None,
        About::Table | About::Column => {
            "let the application make what is missing (the reference is infra/postgres/waitlist.sql), or name what it has instead in \
             [waitlist.tables]; then: afterwrite migrate"
        }
        About::Type | About::Key => {
            "change the table as the reference has it (infra/postgres/waitlist.sql); then: afterwrite migrate"
        }
    };
    Some(codes::NAMES.found(finding.to_string(), Remedy::words(remedy)))
}

#[cfg(test)]
mod tests {
    use super::super::tests::expected;
    use super::*;

    fn table() -> Facts {
        Facts {
            schema: "public".to_owned(),
            name: "orders".to_owned(),
            exists: true,
            identity: Some("f".to_owned()),
            has_key: true,
            ..Facts::default()
        }
    }

    #[test]
    fn what_the_log_lacks_of_a_table_is_told() {
        let with = |identity: &str, has_key| Facts {
            identity: Some(identity.to_owned()),
            has_key,
            ..table()
        };
        for (facts, codes) in [
            (table(), &[][..]),
            (
                Facts {
                    exists: false,
                    ..table()
                },
                &["table-missing"],
            ),
            (
                Facts {
                    alike: vec!["Status".to_owned(), "status".to_owned()],
                    ..table()
                },
                &["columns-alike"],
            ),
            (with("f", false), &["no-key"]),
            (with("d", true), &["identity-part"]),
            (with("i", true), &["identity-part"]),
            (with("n", true), &["identity-none"]),
            (with("d", false), &["no-key", "identity-none"]),
        ] {
            let tables = Tables {
                tables: vec![facts],
                lacking: Vec::new(),
            };
            let found: Vec<&str> = findings(&tables, &expected())
                .iter()
                .map(|finding| finding.code.name)
                .collect();
            assert_eq!(found, codes, "{tables:?}");
        }
    }
}
