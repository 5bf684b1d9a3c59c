//! `afterwrite migrate`: makes and updates everything the worker needs in Postgres.
//!
//! The SQL travels inside the binary. Which files were applied is kept in `afterwrite.migrations`, so that an application
//! that migrates its own tables in the same database is not disturbed. Several processes may migrate at once: one works,
//! the others wait and then find nothing to do.

use std::borrow::Cow;

use clap::{Args, ValueEnum};
use serde::Serialize;
use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx::postgres::{PgConnection, PgPool};
use sqlx::{Acquire, AssertSqlSafe, SqlStr};

use crate::app;
use crate::cli::output::Output;
use crate::cli::{Failure, database};
use crate::config::Config;
use crate::handlers::names::{Names, check, views};
use crate::ledger::days;

/// Every file of `infra/postgres/migrations`, in order. A file that was released is never changed again.
const MIGRATIONS: [(i64, &str, &str); 15] = [
    (
        1,
        "coordination",
        include_str!("../../infra/postgres/migrations/0001_coordination.sql"),
    ),
    (
        2,
        "waitlist_worker",
        include_str!("../../infra/postgres/migrations/0002_waitlist_worker.sql"),
    ),
    (
        3,
        "effect_failures",
        include_str!("../../infra/postgres/migrations/0003_effect_failures.sql"),
    ),
    (
        4,
        "inheritance",
        include_str!("../../infra/postgres/migrations/0004_inheritance.sql"),
    ),
    (
        5,
        "letters",
        include_str!("../../infra/postgres/migrations/0005_letters.sql"),
    ),
    (
        6,
        "groups",
        include_str!("../../infra/postgres/migrations/0006_groups.sql"),
    ),
    (
        7,
        "status",
        include_str!("../../infra/postgres/migrations/0007_status.sql"),
    ),
    (
        8,
        "slots",
        include_str!("../../infra/postgres/migrations/0008_slots.sql"),
    ),
    (
        9,
        "sources",
        include_str!("../../infra/postgres/migrations/0009_sources.sql"),
    ),
    (
        10,
        "parked_letters",
        include_str!("../../infra/postgres/migrations/0010_parked_letters.sql"),
    ),
    (
        11,
        "schedule",
        include_str!("../../infra/postgres/migrations/0011_schedule.sql"),
    ),
    (
        13,
        "milestone_mails",
        include_str!("../../infra/postgres/migrations/0013_milestone_mails.sql"),
    ),
    (
        14,
        "ranking",
        include_str!("../../infra/postgres/migrations/0014_ranking.sql"),
    ),
    (
        15,
        "erasure",
        include_str!("../../infra/postgres/migrations/0015_erasure.sql"),
    ),
    (
        16,
        "acceptances",
        include_str!("../../infra/postgres/migrations/0016_acceptances.sql"),
    ),
];

/// What leaves the database, and who may do what. Applied anew each time: it says what shall be, not what changes.
const PUBLICATION: &str = include_str!("../../infra/postgres/publication.sql");

/// Where the grants begin in it.
const GRANTS: &str = "\n-- Grants.";

/// The roles that the publication's grants name.
pub(super) const ROLES: [&str; 2] = [WORKER, "debezium"];

/// The role of a running worker.
const WORKER: &str = "afterwrite_worker";

/// Arguments of `migrate`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  afterwrite migrate                          after each update of afterwrite; repeating it changes nothing
  afterwrite migrate --publication require    in an installation script: fail when Debezium would see no tables
  afterwrite migrate --publication skip       where somebody else owns publications and grants
  afterwrite migrate --publication without-grants
                                              where the owner of the tables is the worker too: no other roles are needed")]
pub struct MigrateArgs {
    /// What to do about publication and grants, which need the application's tables
    #[arg(long, value_enum, default_value_t = PublicationChoice::Auto)]
    pub publication: PublicationChoice,
}

/// What to do about the publication and the grants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PublicationChoice {
    /// Apply them when the tables and roles exist, else say what is missing.
    Auto,
    /// Fail when a table or role is missing.
    Require,
    /// Publish, and fail when a table is missing; grant nothing, so that no roles are needed.
    WithoutGrants,
    /// Leave them alone.
    Skip,
}

/// What was done.
#[derive(Debug, Serialize)]
struct Report {
    /// Migrations that this run applied.
    applied: Vec<String>,
    /// Migrations that were there already.
    present: usize,
    /// Days of the ledger kept ready, from today on.
    ledger_days_ahead: u64,
    publication: Publication,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case", tag = "state")]
enum Publication {
    Applied,
    AppliedWithoutGrants,
    Skipped,
    Waiting { missing: Vec<String> },
}

#[derive(Debug, thiserror::Error)]
enum MigrateFailure {
    #[error("the applied migrations could not be read")]
    Applied(#[source] sqlx::Error),
    #[error("the migrations could not be applied; nothing of the failed one remains")]
    Apply(#[source] MigrateError),
    #[error("the ledger's partitions could not be made")]
    Days(#[source] sqlx::Error),
    #[error("the publication could not be looked at")]
    Look(#[source] sqlx::Error),
    #[error(
        "the publication and grants could not be applied; run migrate as the owner of the tables, or apply \
         infra/postgres/publication.sql yourself and use --publication skip"
    )]
    Publish(#[source] sqlx::Error),
    #[error("the views of the application's tables could not be made; nothing of them was changed")]
    Views(#[source] sqlx::Error),
    #[error("the application's tables are not what [waitlist.tables] says: {}", .missing.join("; "))]
    Names { missing: Vec<String> },
    #[error("the publication needs what does not exist yet: {}; {}", .missing.join(", "), REMEDY)]
    Missing { missing: Vec<String> },
}

/// Who makes what the publication needs.
const REMEDY: &str = "let the application make its tables (the reference is infra/postgres/waitlist.sql), make the \
                      roles (infra/postgres/roles.sql), then run migrate again";

/// Applies migrations, makes the ledger's days ahead, and publishes the tables.
///
/// # Errors
/// What failed; what succeeded before it stays.
pub async fn run(args: &MigrateArgs, config: &Config, output: Output) -> Result<(), Failure> {
    let pool = database::connect(config).await?;
    let names = app::waitlist::names(config).map_err(Failure::usage)?;
    let report = Box::pin(migrate(args.publication, &pool, &names))
        .await
        .map_err(Failure::failed)?;
    output.print(&report, in_words)
}

/// Makes and updates what coordinates work, and nothing of the application's: for a database that needs no more.
///
/// # Errors
/// Whatever the database answered.
pub async fn coordination(pool: &PgPool) -> Result<(), MigrateError> {
    migrator().run(pool).await?;
    days::make_ahead(pool).await?;
    Ok(())
}

async fn migrate(choice: PublicationChoice, pool: &PgPool, names: &Names) -> Result<Report, MigrateFailure> {
    let before = applied_versions(pool).await.map_err(MigrateFailure::Applied)?;
    migrator().run(pool).await.map_err(MigrateFailure::Apply)?;
    let applied: Vec<String> = MIGRATIONS
        .iter()
        .filter(|(version, ..)| !before.contains(version))
        .map(|(version, name, _)| format!("{version:04}_{name}"))
        .collect();
    days::make_ahead(pool).await.map_err(MigrateFailure::Days)?;
    let missing = make_views(pool, names).await?;
    let with_grants = || format!("{PUBLICATION}\n{}", views::grants(names, WORKER));
    let publication = match choice {
        _ if !missing.is_empty() && choice != PublicationChoice::Auto => return Err(MigrateFailure::Names { missing }),
        _ if !missing.is_empty() => Publication::Waiting { missing },
        PublicationChoice::Skip => Publication::Skipped,
        PublicationChoice::Auto => publish(pool, &with_grants(), &ROLES, names).await?,
        PublicationChoice::Require => all_there(publish(pool, &with_grants(), &ROLES, names).await?)?,
        PublicationChoice::WithoutGrants => match all_there(publish(pool, without_grants(), &[], names).await?)? {
            Publication::Applied => Publication::AppliedWithoutGrants,
            other => other,
        },
    };
    Ok(Report {
        present: MIGRATIONS.len() - applied.len(),
        applied,
        ledger_days_ahead: days::DAYS_AHEAD,
        publication,
    })
}

fn all_there(publication: Publication) -> Result<Publication, MigrateFailure> {
    match publication {
        Publication::Waiting { missing } => Err(MigrateFailure::Missing { missing }),
        done => Ok(done),
    }
}

/// The migrations of this version, by number and name.
pub(super) fn versions() -> impl Iterator<Item = (i64, &'static str)> {
    MIGRATIONS.iter().map(|(version, name, _)| (*version, *name))
}

/// What grants each role what it needs, under the application's names.
pub(super) fn grants(names: &Names) -> String {
    let grants = PUBLICATION.find(GRANTS).map_or("", |at| &PUBLICATION[at..]);
    views::rename_tables(names, &format!("{grants}\n{}", views::grants(names, WORKER)))
}

/// The publication alone.
fn without_grants() -> &'static str {
    PUBLICATION
        .split_once(GRANTS)
        .map_or(PUBLICATION, |(publication, _)| publication)
}

pub(super) fn migrator() -> Migrator {
    let migrations = MIGRATIONS.iter().map(|(version, name, sql)| {
        let sql = SqlStr::from_static(sql);
        Migration::new(*version, Cow::Borrowed(*name), MigrationType::Simple, sql, false)
    });
    let mut migrator = Migrator::with_migrations(migrations.collect());
    migrator.create_schema("afterwrite");
    // Never changed again: a release that looked elsewhere would apply everything a second time.
    migrator.dangerous_set_table_name("afterwrite.migrations");
    migrator
}

async fn applied_versions(pool: &PgPool) -> Result<Vec<i64>, sqlx::Error> {
    let exists: bool = sqlx::query_scalar("SELECT to_regclass('afterwrite.migrations') IS NOT NULL")
        .fetch_one(pool)
        .await?;
    if !exists {
        return Ok(Vec::new());
    }
    sqlx::query_scalar("SELECT version FROM afterwrite.migrations WHERE success")
        .fetch_all(pool)
        .await
}

/// Makes the views of an application with other names, or takes them away; answers what its tables lack, and then makes
/// nothing.
async fn make_views(pool: &PgPool, names: &Names) -> Result<Vec<String>, MigrateFailure> {
    let made = async {
        let mut connection = pool.acquire().await?;
        if names.is_empty() {
            let exists = sqlx::query_scalar("SELECT to_regnamespace($1) IS NOT NULL").bind(views::VIEWS);
            if !exists.fetch_one(&mut *connection).await? {
                return Ok(Vec::new());
            }
        } else {
            let findings = check::check(&mut connection, names).await?;
            if !findings.is_empty() {
                return Ok(findings.iter().map(check::Finding::to_string).collect());
            }
        }
        apply(&mut connection, &views::script(names)).await?;
        Ok(Vec::new())
    };
    made.await.map_err(MigrateFailure::Views)
}

async fn publish(pool: &PgPool, sql: &str, roles: &[&str], names: &Names) -> Result<Publication, MigrateFailure> {
    let mut connection = pool.acquire().await.map_err(MigrateFailure::Look)?;
    let sql = &views::rename_tables(names, sql);
    let missing = missing(&mut connection, sql, roles)
        .await
        .map_err(MigrateFailure::Look)?;
    if !missing.is_empty() {
        return Ok(Publication::Waiting { missing });
    }
    apply(&mut connection, sql).await.map_err(MigrateFailure::Publish)?;
    Ok(Publication::Applied)
}

/// All of it or nothing: grants without their publication would look finished.
async fn apply(connection: &mut PgConnection, sql: &str) -> Result<(), sqlx::Error> {
    let mut transaction = connection.begin().await?;
    // Two processes that alter one publication at once would fail with "tuple concurrently updated".
    sqlx::query("SELECT pg_advisory_xact_lock(hashtextextended('afterwrite.publication', 0))")
        .execute(&mut *transaction)
        .await?;
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))
        .execute(&mut *transaction)
        .await?;
    transaction.commit().await
}

/// Tables and roles that the publication names and that do not exist.
async fn missing(connection: &mut PgConnection, sql: &str, roles: &[&str]) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT name FROM unnest($1::text[]) AS name WHERE to_regclass(name) IS NULL
         UNION ALL
         SELECT 'role ' || role FROM unnest($2::text[]) AS role WHERE to_regrole(role) IS NULL",
    )
    .bind(tables_of(sql))
    .bind(roles)
    .fetch_all(connection)
    .await
}

/// Every qualified table the SQL names, once.
fn tables_of(sql: &str) -> Vec<String> {
    let code = sql.lines().map(|line| line.split("--").next().unwrap_or_default());
    let mut tables: Vec<String> = code
        .flat_map(|line| line.split(|character: char| !(character.is_ascii_alphanumeric() || "_.".contains(character))))
        .filter(|word| word.starts_with("public.") || word.starts_with("afterwrite."))
        .map(str::to_owned)
        .collect();
    tables.sort();
    tables.dedup();
    tables
}

fn in_words(report: &Report) -> String {
    let applied = match report.applied.as_slice() {
        [] => format!("up to date ({} applied earlier)", report.present),
        applied => format!("applied {}", applied.join(", ")),
    };
    let publication = match &report.publication {
        Publication::Applied => "publication afterwrite_waitlist and grants are as they should be".to_owned(),
        Publication::AppliedWithoutGrants => {
            "publication afterwrite_waitlist is as it should be; nothing is granted to anybody".to_owned()
        }
        Publication::Skipped => "left alone".to_owned(),
        Publication::Waiting { missing } => {
            format!("not applied: {} not there yet; {REMEDY}", missing.join(", "))
        }
    };
    format!(
        "migrations:  {applied}\nledger:      days ready up to {} ahead\npublication: {publication}",
        report.ledger_days_ahead
    )
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{MIGRATIONS, PUBLICATION, ROLES, tables_of, without_grants};

    #[test]
    fn every_migration_of_the_folder_is_embedded() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("infra/postgres/migrations");
        let mut files: Vec<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        files.sort();
        let embedded: Vec<String> = MIGRATIONS
            .iter()
            .map(|(version, name, _)| format!("{version:04}_{name}.sql"))
            .collect();
        assert_eq!(files, embedded);
    }

    #[test]
    fn without_grants_the_same_is_published_and_no_role_is_named() {
        let sql = without_grants();
        assert!(sql.contains("publish_via_partition_root"));
        let code: Vec<&str> = sql.lines().filter(|line| !line.starts_with("--")).collect();
        let code = code.join("\n");
        assert!(!code.contains("GRANT"), "{code}");
        assert!(ROLES.iter().all(|role| !code.contains(&format!("TO {role}"))), "{code}");
        assert!(PUBLICATION.contains("GRANT"));
    }

    #[test]
    fn the_publication_names_its_tables() {
        let tables = tables_of(PUBLICATION);
        for table in [
            "public.waitlist_users",
            "public.email_templates",
            "afterwrite.heartbeat",
        ] {
            assert!(tables.iter().any(|name| name == table), "{table}");
        }
        assert_eq!(
            tables_of("-- public.a\nGRANT x ON public.b, public.b; t.public.c"),
            ["public.b"]
        );
    }
}
