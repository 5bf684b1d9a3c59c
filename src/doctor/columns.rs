//! Columns that arrive otherwise than the table has them, or not at all; and values that cannot arrive.
//!
//! What Debezium does with each type was seen in records of 3.7.0 (docs/DEBEZIUM.md). A column that the connector leaves out
//! because it was told so is nobody's surprise, and is passed over.

use sqlx::postgres::PgPool;

use super::adjusting::{Adjusting, is_plain};
use super::codes;
use super::connector::Deployed;
use super::expected::{Expected, HEARTBEAT};
use super::finding::{Finding, Remedy};
use super::lints::{captures, is_named, patterns};
use super::quoting::{identifier, shell_word, table_sql};

/// Types of the system that Debezium leaves out, beside composites, multiranges and what extensions add.
const LEFT_OUT: &[&str] = &[
    "aclitem",
    "cid",
    "jsonpath",
    "pg_lsn",
    "pg_snapshot",
    "refcursor",
    "regclass",
    "regcollation",
    "regconfig",
    "regdictionary",
    "regnamespace",
    "regoper",
    "regoperator",
    "regproc",
    "regprocedure",
    "regrole",
    "regtype",
    "tid",
    "tsquery",
    "txid_snapshot",
    "xid",
    "xid8",
];

/// Types of which it leaves arrays out, but not single values.
const LEFT_OUT_IN_ARRAYS: &[&str] = &["interval", "money", "name", "point", "varbit", "xml"];

/// Types of extensions that it knows.
const OF_EXTENSIONS: &[&str] = &[
    "citext",
    "geography",
    "geometry",
    "halfvec",
    "hstore",
    "isbn",
    "ltree",
    "sparsevec",
    "vector",
];

/// Types of which it can convert no array at all.
const UNFIT_ARRAYS: &[&str] = &["bit", "box", "circle", "line", "lseg", "path", "polygon"];

/// A column of a table that handlers wait for.
#[derive(Debug, Clone, Default, PartialEq, Eq, sqlx::FromRow)]
pub(super) struct Column {
    pub(super) schema: String,
    pub(super) table: String,
    pub(super) name: String,
    /// Its type as SQL has it.
    pub(super) sql_type: String,
    /// The type below domains, of each element of an array: its schema, its name, and what kind it is (`pg_type.typtype`).
    pub(super) type_schema: String,
    pub(super) type_name: String,
    pub(super) kind: String,
    pub(super) is_array: bool,
    /// `s` or `v` of one that Postgres computes; else empty.
    pub(super) generated: String,
    /// The table's old rows are logged whole.
    pub(super) is_full: bool,
    /// Conditions that values of the column have to meet.
    pub(super) checks: Vec<String>,
}

/// What is known of the columns.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Facts {
    pub(super) columns: Vec<Column>,
    /// The server's version, as a number.
    pub(super) version: i32,
    /// Whether the publication sends generated columns that are stored.
    pub(super) sends_generated: bool,
    /// Its name.
    pub(super) publication: String,
}

pub(super) async fn collect(pool: &PgPool, expected: &Expected, publication: &str) -> Result<Facts, sqlx::Error> {
    let (schemas, names): (Vec<String>, Vec<String>) = expected.published().into_iter().unzip();
    let columns = sqlx::query_as(
        "WITH RECURSIVE shown AS (
             SELECT n.nspname, c.relname, c.relreplident, a.*
             FROM unnest($1::text[], $2::text[]) AS routed (schema_name, table_name)
             JOIN pg_namespace n ON n.nspname = routed.schema_name
             JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = routed.table_name AND c.relkind IN ('r', 'p')
             JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
         ), based AS (
             SELECT attrelid, attnum, atttypid AS type_id FROM shown
             UNION ALL
             SELECT attrelid, attnum, typbasetype FROM based JOIN pg_type ON oid = type_id AND typtype = 'd'
         )
         SELECT shown.nspname::text AS schema, shown.relname::text AS \"table\", shown.attname::text AS name,
                format_type(shown.atttypid, shown.atttypmod) AS sql_type, typed.type_schema, typed.type_name,
                typed.kind, typed.is_array, shown.attgenerated::text AS generated, shown.relreplident = 'f' AS is_full,
                ARRAY(SELECT pg_get_constraintdef(oid) FROM pg_constraint
                      WHERE conrelid = shown.attrelid AND contype = 'c' AND shown.attnum = ANY (conkey)) AS checks
         FROM shown JOIN based USING (attrelid, attnum)
         JOIN LATERAL (
             SELECT n.nspname::text AS type_schema, coalesce(element.typname, whole.typname)::text AS type_name,
                    coalesce(element.typtype, whole.typtype)::text AS kind, element.oid IS NOT NULL AS is_array
             FROM pg_type whole
             LEFT JOIN pg_type element ON whole.typcategory = 'A' AND element.oid = whole.typelem
             JOIN pg_namespace n ON n.oid = coalesce(element.typnamespace, whole.typnamespace)
             WHERE whole.oid = based.type_id AND whole.typtype <> 'd'
         ) typed ON true
         ORDER BY 1, 2, shown.attnum",
    )
    .bind(schemas)
    .bind(names)
    .fetch_all(pool)
    .await?;
    // Its column is there from Postgres 18 on.
    let sends_generated: Option<bool> = sqlx::query_scalar(
        "SELECT coalesce(to_jsonb(p) ->> 'pubgencols' = 's', false) FROM pg_publication p WHERE pubname = $1::name",
    )
    .bind(publication)
    .fetch_optional(pool)
    .await?;
    Ok(Facts {
        columns,
        version: sqlx::query_scalar("SELECT current_setting('server_version_num')::int")
            .fetch_one(pool)
            .await?,
        sends_generated: sends_generated.unwrap_or_default(),
        publication: publication.to_owned(),
    })
}

/// What is wrong with what Postgres sends and, where a connector is in between, with what that makes of it.
pub(super) fn findings(facts: &Facts, deployed: Option<&Deployed<'_>>, expected: &Expected) -> Vec<Finding> {
    let arrives = |column: &&Column| {
        let place = column.place();
        (column.schema.as_str(), column.table.as_str()) != HEARTBEAT
            && match deployed {
                Some(deployed) => sends(deployed, column),
                None => expected.brokers.is_none() && !expected.left_out.contains(&place),
            }
    };
    let sent: Vec<&Column> = facts.columns.iter().filter(arrives).collect();
    let is_read = |column: &Column| {
        let names = expected.names.as_ref();
        names.is_none_or(|names| names.uses(&column.schema, &column.table, &column.name))
    };
    let read: Vec<&Column> = sent.iter().copied().filter(|column| is_read(column)).collect();
    let mut found = of_identity(facts);
    found.extend(of_absent(facts, &read, deployed));
    if let Some(deployed) = deployed {
        found.extend(of_names(&sent, &read, deployed));
        found.extend(of_values(&sent, deployed));
    }
    found
}

impl Column {
    fn place(&self) -> String {
        format!("{}.{}.{}", self.schema, self.table, self.name)
    }

    fn sql(&self) -> String {
        format!("{}.{}", table_sql(&self.schema, &self.table), identifier(&self.name))
    }

    fn is_of_system(&self) -> bool {
        self.type_schema == "pg_catalog"
    }

    /// Whether Debezium has nothing to write it as.
    fn is_left_out(&self) -> bool {
        match self.kind.as_str() {
            // Composites, multiranges; domains are what they are over, but in arrays.
            "c" | "m" | "d" => true,
            "r" => !self.is_of_system(),
            "b" if self.is_of_system() => {
                LEFT_OUT.contains(&&*self.type_name)
                    || (self.is_array && LEFT_OUT_IN_ARRAYS.contains(&&*self.type_name))
            }
            "b" => !OF_EXTENSIONS.contains(&&*self.type_name),
            _ => false,
        }
    }
}

/// Whether the connector's lists let the column through.
fn sends(deployed: &Deployed<'_>, column: &Column) -> bool {
    let config = &deployed.connector.config;
    let place = column.place();
    let listed = |key: &str| Some(is_named(&patterns(deployed.get(key)?), &place));
    captures(config, &format!("{}.{}", column.schema, column.table))
        && match (listed("column.include.list"), listed("column.exclude.list")) {
            (Some(is_included), _) => is_included,
            (None, excluded) => excluded != Some(true),
        }
}

/// From Postgres 18 on whole old rows have to be published whole.
fn of_identity(facts: &Facts) -> Vec<Finding> {
    let is_refused = |column: &&Column| {
        let is_sent = column.generated == "s" && facts.sends_generated;
        facts.version >= 180_000 && column.is_full && !column.generated.is_empty() && !is_sent
    };
    let found = facts.columns.iter().filter(is_refused).map(|column| {
        let remedy = match column.generated.as_str() {
            "s" => Remedy::sql(publish_generated(facts)),
            _ => Remedy::words(format!(
                "ALTER TABLE {} DROP COLUMN {}; a column that is computed when it is read cannot be published",
                table_sql(&column.schema, &column.table),
                identifier(&column.name)
            )),
        };
        codes::IDENTITY_GENERATED.found(
            format!(
                "{} is generated, not published, and a part of whole old rows",
                column.sql()
            ),
            remedy,
        )
    });
    found.collect()
}

fn publish_generated(facts: &Facts) -> String {
    format!(
        "ALTER PUBLICATION {} SET (publish_generated_columns = stored);",
        identifier(&facts.publication)
    )
}

fn of_absent(facts: &Facts, read: &[&Column], deployed: Option<&Deployed<'_>>) -> Option<Finding> {
    let writes_unknown = deployed.is_some_and(|deployed| deployed.get("include.unknown.datatypes") == Some("true"));
    let absent: Vec<(&Column, String)> = read
        .iter()
        .filter_map(|column| {
            let why = match column.generated.as_str() {
                "s" if !facts.sends_generated => "is generated".to_owned(),
                "v" => "is generated".to_owned(),
                _ if deployed.is_none() => return None,
                _ if column.is_left_out() && !writes_unknown => format!("is {}", column.sql_type),
                // It is there, and empty whatever it holds.
                _ if column.type_name == "name" && column.is_of_system() && !column.is_array => "is name".to_owned(),
                _ => return None,
            };
            Some((*column, why))
        })
        .collect();
    if absent.is_empty() {
        return None;
    }
    let told: Vec<String> = absent
        .iter()
        .map(|(column, why)| format!("{} {why}", column.sql()))
        .collect();
    let columns: Vec<&Column> = absent.iter().map(|(column, _)| *column).collect();
    let is_published_otherwise = facts.version >= 180_000 && columns.iter().all(|column| column.generated == "s");
    let remedy = match deployed {
        _ if is_published_otherwise => Remedy::sql(publish_generated(facts)),
        Some(deployed) => leave_out(
            deployed,
            &columns,
            "handlers read them in the table; this says that it is known",
        ),
        None => {
            let places: Vec<String> = columns.iter().map(|column| format!("{:?}", column.place())).collect();
            Remedy::words(format!(
                "let handlers read them in the table, and say that it is known: wal.excluded_columns = [{}, …]",
                places.join(", ")
            ))
        }
    };
    Some(codes::COLUMNS_ABSENT.found(told.join(", "), remedy))
}

/// The request that adds columns to those that the connector leaves out.
fn leave_out(deployed: &Deployed<'_>, columns: &[&Column], note: &str) -> Remedy {
    let own = deployed.connector.config.get("column.exclude.list").cloned();
    let more = columns.iter().map(|column| {
        let parts = [&column.schema, &column.table, &column.name].map(|part| regex_lite::escape(part));
        parts.join("\\.")
    });
    let list: Vec<String> = own.into_iter().chain(more).collect();
    let body = serde_json::json!({"column.exclude.list": list.join(",")}).to_string();
    Remedy::shell(format!(
        "{} -H 'content-type: application/json' --data {} # {note}",
        deployed.request("PATCH", "/config"),
        shell_word(&body)
    ))
}

fn of_names(sent: &[&Column], read: &[&Column], deployed: &Deployed<'_>) -> Vec<Finding> {
    let Some(adjusting) = deployed.get("field.name.adjustment.mode").and_then(Adjusting::of) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    let same_table = |one: &Column, other: &Column| (&one.schema, &one.table) == (&other.schema, &other.table);
    let collide = sent.iter().enumerate().filter_map(|(index, column)| {
        let becomes = adjusting.adjusted(&column.name);
        let other = sent[..index]
            .iter()
            .find(|other| same_table(other, column) && adjusting.adjusted(&other.name) == becomes)?;
        Some(codes::COLUMNS_COLLIDE.found(
            format!("{} and {} both become {becomes}", other.sql(), column.sql()),
            Remedy::words(format!(
                "ALTER TABLE {} RENAME COLUMN {} TO …; or leave it out: column.exclude.list",
                table_sql(&column.schema, &column.table),
                identifier(&column.name)
            )),
        ))
    });
    found.extend(collide);
    // An underscore that is escaped is told of all columns at once, as lint-escapes.
    let renamed: Vec<&&Column> = read.iter().filter(|column| !is_plain(&column.name)).collect();
    if !renamed.is_empty() {
        let told = renamed
            .iter()
            .map(|column| format!("{} becomes {}", column.sql(), adjusting.adjusted(&column.name)));
        found.push(codes::COLUMNS_RENAMED.found(
            told.collect::<Vec<_>>().join(", "),
            Remedy::words(
                "let handlers ask for the adjusted name, or give the column a plain one: ALTER TABLE … RENAME COLUMN … TO …",
            ),
        ));
    }
    found
}

/// A value that does not arrive: what it is, the condition that keeps it out of a column, and how that is known again.
struct Unfit {
    value: &'static str,
    check: Option<(&'static str, &'static str)>,
}

fn unfit(column: &Column, deployed: &Deployed<'_>) -> Option<Unfit> {
    let known = |value, check, sign| {
        let check = Some((check, sign));
        Some(Unfit { value, check })
    };
    let mode = |key, default| deployed.get(key).unwrap_or(default);
    let times = mode("time.precision.mode", "adaptive");
    match (column.is_array, column.type_name.as_str()) {
        (true, name) if UNFIT_ARRAYS.contains(&name) => Some(Unfit {
            value: "any value",
            check: None,
        }),
        (true, "numeric") => known("NaN", "'NaN' <> ALL ({})", "NaN"),
        (false, "numeric") if mode("decimal.handling.mode", "precise") == "precise" => {
            known("NaN and infinity", "{} NOT IN ('NaN', 'Infinity', '-Infinity')", "NaN")
        }
        (true, "date" | "timestamptz") => known(
            "infinity",
            "'infinity' <> ALL ({}) AND '-infinity' <> ALL ({})",
            "infinity",
        ),
        (false, "timestamp") if times == "nanoseconds" => known(
            "times before 1677-09-22 and after 2262-04-11",
            "{} BETWEEN '1677-09-22' AND '2262-04-11'",
            "2262",
        ),
        (false, "time") if times == "structured" => known("24:00", "{} < '24:00'", "24:00"),
        _ => None,
    }
}

fn of_values(sent: &[&Column], deployed: &Deployed<'_>) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut never: Vec<&Column> = Vec::new();
    for column in sent.iter().copied().filter(|column| column.is_of_system()) {
        let Some(unfit) = unfit(column, deployed) else { continue };
        let Some((check, sign)) = unfit.check else {
            never.push(column);
            continue;
        };
        if column.checks.iter().any(|check| check.contains(sign)) {
            continue;
        }
        found.push(codes::VALUES_UNFIT.found(
            format!("{} may hold {}", column.sql(), unfit.value),
            Remedy::sql(format!(
                "ALTER TABLE {} ADD CHECK ({});",
                table_sql(&column.schema, &column.table),
                check.replace("{}", &identifier(&column.name))
            )),
        ));
    }
    if !never.is_empty() {
        let told: Vec<String> = never
            .iter()
            .map(|column| format!("{} may hold any {}", column.sql(), column.sql_type))
            .collect();
        found.push(codes::VALUES_UNFIT.found(
            told.join(", "),
            leave_out(deployed, &never, "handlers read them in the table"),
        ));
    }
    found
}

#[cfg(test)]
#[path = "columns_tests.rs"]
mod tests;
