//! Who may do what in Postgres: what the script of grants gives, against what the roles have.

use std::collections::BTreeMap;

use sqlx::postgres::PgPool;

use super::codes;
use super::expected::Expected;
use super::finding::{Finding, Remedy};
use super::quoting::{identifier, literal};

/// What `ALL` of a table is for whoever only reads and writes rows.
const ALL_OF_TABLE: [&str; 4] = ["SELECT", "INSERT", "UPDATE", "DELETE"];

/// A right that a role should have.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Right {
    pub(super) role: String,
    pub(super) privilege: String,
    pub(super) object: Object,
    /// The columns, where it is not about all of them.
    pub(super) columns: Vec<String>,
}

/// What a right is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Object {
    Schema(String),
    Table(String),
    /// Every table of a schema.
    TablesOf(String),
}

/// What is known of the roles.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Facts {
    /// The role that the worker has.
    pub(super) worker: String,
    /// The role of the connector, or the one that reads the log.
    pub(super) reader: Option<Reader>,
    /// Rights that a role lacks.
    pub(super) lacking: Vec<Right>,
    /// Whether the worker may make partitions of the ledger; unknown where there is none.
    pub(super) owns_ledger: Option<bool>,
}

impl Facts {
    /// Whether the role that reads the log may do so, as far as it is known.
    pub(super) fn may_replicate(&self) -> bool {
        self.reader.as_ref().is_none_or(|reader| reader.may_replicate)
    }
}

/// Whoever reads the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reader {
    pub(super) role: String,
    pub(super) exists: bool,
    pub(super) may_login: bool,
    pub(super) may_replicate: bool,
}

/// The rights that a script gives, for the roles that it names. Statements that give nothing to a role are passed over.
pub(super) fn rights(script: &str) -> Vec<Right> {
    let code: Vec<&str> = script
        .lines()
        .map(|line| line.split("--").next().unwrap_or_default())
        .collect();
    let statements = code.join(" ");
    let words = |statement: &str| statement.split_whitespace().collect::<Vec<_>>().join(" ");
    statements
        .split(';')
        .map(words)
        .filter_map(|statement| granted(&statement))
        .flatten()
        .collect()
}

fn granted(statement: &str) -> Option<Vec<Right>> {
    let rest = statement.strip_prefix("GRANT ")?;
    let (privileges, rest) = rest.split_once(" ON ")?;
    let (objects, role) = rest.split_once(" TO ")?;
    let (privileges, columns) = match privileges.split_once('(') {
        Some((privilege, columns)) => (privilege, names(columns.trim_end_matches(')'))),
        None => (privileges, Vec::new()),
    };
    let objects: Vec<Object> = if let Some(schemas) = objects.strip_prefix("SCHEMA ") {
        names(schemas).into_iter().map(Object::Schema).collect()
    } else if let Some(schemas) = objects.strip_prefix("ALL TABLES IN SCHEMA ") {
        names(schemas).into_iter().map(Object::TablesOf).collect()
    } else if objects.starts_with("ALL ") {
        return None;
    } else {
        names(objects).into_iter().map(Object::Table).collect()
    };
    let privileges = match privileges {
        "ALL" => ALL_OF_TABLE.map(str::to_owned).to_vec(),
        some => names(some),
    };
    let right = |object: &Object, privilege: &String| Right {
        role: role.to_owned(),
        privilege: privilege.clone(),
        object: object.clone(),
        columns: columns.clone(),
    };
    Some(
        objects
            .iter()
            .flat_map(|object| privileges.iter().map(move |privilege| right(object, privilege)))
            .collect(),
    )
}

fn names(list: &str) -> Vec<String> {
    list.split(',')
        .map(|name| name.trim().to_owned())
        .filter(|name| !name.is_empty())
        .collect()
}

/// `reader` is the role that reads the log, where it is known.
pub(super) async fn collect(pool: &PgPool, expected: &Expected, reader: Option<&str>) -> Result<Facts, sqlx::Error> {
    let worker: String = sqlx::query_scalar("SELECT current_user::text").fetch_one(pool).await?;
    let reader = match reader {
        Some(role) => Some(attributes(pool, role).await?),
        None => None,
    };
    let connector = reader
        .as_ref()
        .filter(|reader| reader.exists && expected.brokers.is_some());
    let role_of = |named: &str| match named {
        named if named == expected.roles[0] => Some(worker.clone()),
        named if named == expected.roles[1] => connector.map(|reader| reader.role.clone()),
        _ => None,
    };
    let of_program = |right: &Right| expected.names.is_some() || is_of_afterwrite(&right.object);
    let wanted = rights(&expected.grants)
        .into_iter()
        .filter(of_program)
        .filter_map(|right| {
            let role = role_of(&right.role)?;
            Some(Right { role, ..right })
        });
    let lacking = lacking(pool, wanted.collect()).await?;
    let owns_ledger = sqlx::query_scalar(
        "SELECT pg_has_role(relowner, 'USAGE') FROM pg_class WHERE oid = to_regclass('afterwrite.ledger')",
    )
    .fetch_optional(pool)
    .await?;
    Ok(Facts {
        worker,
        reader,
        lacking,
        owns_ledger,
    })
}

fn is_of_afterwrite(object: &Object) -> bool {
    match object {
        Object::Schema(name) | Object::TablesOf(name) => name == "afterwrite",
        Object::Table(name) => name.starts_with("afterwrite."),
    }
}

async fn attributes(pool: &PgPool, role: &str) -> Result<Reader, sqlx::Error> {
    let found: Option<(bool, bool)> = sqlx::query_as(
        "SELECT rolcanlogin,
                rolreplication OR rolsuper OR EXISTS (SELECT FROM pg_roles managed
                    WHERE managed.rolname IN ('rds_replication', 'azure_pg_admin', 'cloudsqlreplica')
                      AND pg_has_role(role.oid, managed.oid, 'MEMBER'))
         FROM pg_roles role WHERE rolname = $1::name",
    )
    .bind(role)
    .fetch_optional(pool)
    .await?;
    let (may_login, may_replicate) = found.unwrap_or_default();
    Ok(Reader {
        role: role.to_owned(),
        exists: found.is_some(),
        may_login,
        may_replicate,
    })
}

/// Those of the rights that their role does not have, on things that exist.
async fn lacking(pool: &PgPool, wanted: Vec<Right>) -> Result<Vec<Right>, sqlx::Error> {
    let (mut kinds, mut objects) = (Vec::new(), Vec::new());
    for right in &wanted {
        let (kind, object) = match &right.object {
            Object::Schema(name) => ("schema", name),
            Object::Table(name) => ("table", name),
            Object::TablesOf(name) => ("tables", name),
        };
        kinds.push(kind);
        objects.push(object.clone());
    }
    let roles: Vec<&str> = wanted.iter().map(|right| right.role.as_str()).collect();
    let privileges: Vec<&str> = wanted.iter().map(|right| right.privilege.as_str()).collect();
    let columns: Vec<String> = wanted.iter().map(|right| right.columns.join(",")).collect();
    // Partitions are reached through their table, and need no rights of their own.
    let held: Vec<(i64, Option<bool>)> = sqlx::query_as(
        "SELECT number, CASE kind
             WHEN 'schema' THEN (SELECT has_schema_privilege(role, oid, privilege) FROM pg_namespace WHERE nspname = object)
             WHEN 'tables' THEN (SELECT bool_and(has_table_privilege(role, c.oid, privilege))
                                 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                                 WHERE n.nspname = object AND c.relkind IN ('r', 'p') AND NOT c.relispartition)
             WHEN 'table' THEN CASE columns WHEN '' THEN has_table_privilege(role, to_regclass(object), privilege)
                 ELSE (SELECT bool_and(has_column_privilege(role, attrelid, attname, privilege)) FROM pg_attribute
                       WHERE attrelid = to_regclass(object) AND attname::text = ANY (string_to_array(columns, ','))) END
             END
         FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[]) WITH ORDINALITY
             AS wanted (role, kind, object, privilege, columns, number)",
    )
    .bind(roles)
    .bind(kinds)
    .bind(objects)
    .bind(privileges)
    .bind(columns)
    .fetch_all(pool)
    .await?;
    let lacks = |number: usize| {
        held.iter()
            .any(|(asked, held)| *asked == number as i64 + 1 && *held == Some(false))
    };
    Ok(wanted
        .into_iter()
        .enumerate()
        .filter(|(number, _)| lacks(*number))
        .map(|(_, right)| right)
        .collect())
}

pub(super) fn findings(facts: &Facts, expected: &Expected) -> Vec<Finding> {
    let mut found = Vec::new();
    let of = |role: &str| {
        facts
            .lacking
            .iter()
            .filter(|right| right.role == role)
            .collect::<Vec<_>>()
    };
    if let Some(reader) = &facts.reader {
        found.extend(of_reader(reader, expected));
        let lacking = of(&reader.role);
        if !lacking.is_empty() && reader.role != facts.worker {
            found.push(granting(codes::CONNECTOR_GRANTS, &reader.role, &lacking));
        }
    }
    let lacking = of(&facts.worker);
    if !lacking.is_empty() {
        found.push(granting(codes::WORKER_GRANTS, &facts.worker, &lacking));
    }
    if facts.owns_ledger == Some(false) {
        found.push(codes::LEDGER_OWNER.found(
            format!("role {} does not own afterwrite.ledger", facts.worker),
            Remedy::sql(format!(
                "DO $$ DECLARE part regclass; BEGIN FOR part IN SELECT relid FROM pg_partition_tree('afterwrite.ledger') LOOP EXECUTE \
                 format('ALTER TABLE %s OWNER TO %I', part, {}); END LOOP; END $$;",
                literal(&facts.worker)
            )),
        ));
    }
    found
}

fn of_reader(reader: &Reader, expected: &Expected) -> Option<Finding> {
    let role = identifier(&reader.role);
    let whose = match expected.brokers {
        Some(_) => "the connector's role (database.user)",
        None => "the role of wal.url, or of postgres.url,",
    };
    if !reader.exists {
        return Some(codes::READER_MISSING.found(
            format!("{whose} {role} does not exist"),
            Remedy::sql(format!(
                "CREATE ROLE {role} LOGIN REPLICATION; -- and its password; then: afterwrite migrate, for its grants"
            )),
        ));
    }
    let lacking: Vec<&str> = [("LOGIN", reader.may_login), ("REPLICATION", reader.may_replicate)]
        .into_iter()
        .filter_map(|(attribute, has)| (!has).then_some(attribute))
        .collect();
    (!lacking.is_empty()).then(|| {
        let lacking = lacking.join(" ");
        codes::READER_ATTRIBUTES.found(
            format!("{whose} {role} lacks {lacking}"),
            Remedy::sql(format!("ALTER ROLE {role} {lacking};")),
        )
    })
}

/// One finding for all that a role lacks, with one statement for each kind of right.
fn granting(code: &'static super::finding::Code, role: &str, lacking: &[&Right]) -> Finding {
    let mut by_object: BTreeMap<(String, String), Vec<&str>> = BTreeMap::new();
    for right in lacking {
        let object = match &right.object {
            Object::Schema(name) => format!("SCHEMA {name}"),
            Object::Table(name) => name.clone(),
            Object::TablesOf(name) => format!("ALL TABLES IN SCHEMA {name}"),
        };
        let columns = match right.columns.as_slice() {
            [] => String::new(),
            columns => format!(" ({})", columns.join(", ")),
        };
        by_object.entry((object, columns)).or_default().push(&right.privilege);
    }
    let mut by_rights: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for ((object, columns), privileges) in by_object {
        by_rights
            .entry(format!("{}{columns}", privileges.join(", ")))
            .or_default()
            .push(object);
    }
    let (mut what, mut sql) = (Vec::new(), Vec::new());
    for (rights, objects) in by_rights {
        let is_plain = |object: &&String| !object.contains(' ');
        let plain: Vec<String> = objects.iter().filter(is_plain).cloned().collect();
        let others = objects.iter().filter(|object| object.contains(' ')).cloned();
        let lists = (!plain.is_empty()).then(|| plain.join(", ")).into_iter().chain(others);
        for list in lists {
            what.push(format!("{rights} on {list}"));
            sql.push(format!("GRANT {rights} ON {list} TO {};", identifier(role)));
        }
    }
    code.found(
        format!("role {} lacks {}", identifier(role), what.join("; ")),
        Remedy::sql(sql.join(" ")),
    )
}

#[cfg(test)]
mod tests {
    use super::super::tests::expected;
    use super::*;

    const SCRIPT: &str = "
        DO $$ BEGIN IF true THEN CREATE PUBLICATION p; END IF; END $$;
        -- GRANT SELECT ON public.hidden TO worker;
        GRANT USAGE ON SCHEMA public, afterwrite TO reader;
        GRANT SELECT, INSERT ON
            public.a, public.b -- both
        TO worker;
        GRANT UPDATE (x, y) ON public.c TO worker;
        GRANT ALL ON ALL TABLES IN SCHEMA afterwrite TO worker;
        GRANT ALL ON ALL SEQUENCES IN SCHEMA afterwrite TO worker;
        ALTER DEFAULT PRIVILEGES IN SCHEMA afterwrite GRANT ALL ON TABLES TO worker;";

    #[test]
    fn rights_are_read_from_the_script_that_gives_them() {
        let all = rights(SCRIPT);
        assert_eq!(all.len(), 2 + 4 + 1 + 4, "{all:?}");
        assert!(all.contains(&Right {
            role: "worker".to_owned(),
            privilege: "UPDATE".to_owned(),
            object: Object::Table("public.c".to_owned()),
            columns: vec!["x".to_owned(), "y".to_owned()],
        }));
        assert!(
            !all.iter()
                .any(|right| right.object == Object::Table("public.hidden".to_owned()))
        );
    }

    #[test]
    fn what_a_role_lacks_is_one_finding_with_the_statements_that_give_it() {
        let lacking: Vec<Right> = rights(SCRIPT)
            .into_iter()
            .filter(|right| right.role == "worker")
            .collect();
        let facts = Facts {
            worker: "worker".to_owned(),
            lacking,
            owns_ledger: Some(true),
            ..Facts::default()
        };
        let found = findings(&facts, &expected());
        assert_eq!(found.len(), 1);
        let sql = "GRANT SELECT, INSERT ON public.a, public.b TO worker; GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA \
                   afterwrite TO worker; GRANT UPDATE (x, y) ON public.c TO worker;";
        assert_eq!(found[0].remedy, Remedy::sql(sql));
    }

    #[test]
    fn a_role_that_may_not_read_the_log_is_told() {
        let reader = |exists, may_login, may_replicate| Facts {
            reader: Some(Reader {
                role: "debezium".to_owned(),
                exists,
                may_login,
                may_replicate,
            }),
            owns_ledger: Some(true),
            ..Facts::default()
        };
        for (facts, codes) in [
            (reader(true, true, true), &[][..]),
            (reader(false, false, false), &["reader-missing"]),
            (reader(true, true, false), &["reader-attributes"]),
            (
                Facts {
                    owns_ledger: Some(false),
                    ..Facts::default()
                },
                &["ledger-owner"],
            ),
        ] {
            let found: Vec<&str> = findings(&facts, &expected())
                .iter()
                .map(|finding| finding.code.name)
                .collect();
            assert_eq!(found, codes);
        }
    }
}
