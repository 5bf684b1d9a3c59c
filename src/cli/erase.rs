//! `afterwrite erase`: forgets what the worker keeps of a person.

use clap::Args;
use serde::Serialize;
use uuid::Uuid;

use crate::app;
use crate::cli::operator::by;
use crate::cli::output::Output;
use crate::cli::{Failure, database};
use crate::config::Config;
use crate::handlers::erasure::{self, Erased};

/// Arguments of `erase`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  afterwrite erase --user 5b6f1c9e-0c55-4d7c-8a3f-1f6f2f0f7a11
  afterwrite erase --user 5b6f1c9e-0c55-4d7c-8a3f-1f6f2f0f7a11 --dry-run

A row that the application deletes is erased by itself; this is for a person whose row stays, or was deleted while no worker
looked. It can be repeated. Suppressed addresses stay as hashes, so that the person gets no mail later either.
docs/SECURITY.md says what remains, and until when.")]
pub struct EraseArgs {
    /// The user's id
    #[arg(long, value_name = "ID")]
    user: Uuid,
    /// Only say what there is
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, thiserror::Error)]
enum EraseFailed {
    #[error("the user could not be erased; nothing was changed")]
    Write(#[source] sqlx::Error),
    #[error(
        "{in_flight} mails or calls and {replaying} dead letters are being worked on at this moment, and were left: repeat the \
         command; all else is erased"
    )]
    Left { in_flight: i64, replaying: usize },
}

#[derive(Debug, Serialize)]
struct Report {
    user: Uuid,
    dry_run: bool,
    #[serde(flatten)]
    erased: Erased,
    /// Whether the application still has the row: what it causes from now on is kept again.
    row_exists: bool,
}

/// Runs `erase`.
///
/// # Errors
/// When Postgres fails, or something was left because it is being worked on.
pub async fn run(args: &EraseArgs, config: &Config, output: Output) -> Result<(), Failure> {
    let names = app::waitlist::names(config).map_err(Failure::usage)?;
    let table = app::waitlist::users_table(&names);
    let pool = database::connect(config).await?;
    let by = by(&pool).await?;
    let written = async {
        let mut transaction = pool.begin().await?;
        let erased = erasure::erase(&mut transaction, args.user, &table, &by).await?;
        let row_exists = sqlx::query_scalar("SELECT EXISTS (SELECT FROM waitlist_users WHERE id = $1)")
            .bind(args.user)
            .fetch_one(&mut *transaction)
            .await?;
        match args.dry_run {
            true => transaction.rollback().await?,
            false => transaction.commit().await?,
        }
        Ok((erased, row_exists))
    };
    let (erased, row_exists) = written.await.map_err(EraseFailed::Write).map_err(Failure::failed)?;
    let report = Report {
        user: args.user,
        dry_run: args.dry_run,
        erased,
        row_exists,
    };
    output.print(&report, in_words)?;
    match erased.is_whole() || args.dry_run {
        true => Ok(()),
        false => Err(Failure::failed(EraseFailed::Left {
            in_flight: erased.in_flight,
            replaying: erased.replaying,
        })),
    }
}

fn in_words(report: &Report) -> String {
    let Erased {
        mails,
        calls,
        effects,
        letters,
        ..
    } = report.erased;
    let verb = if report.dry_run { "would be erased" } else { "erased" };
    let exists = if report.row_exists {
        "\nthe application still has the row: what it causes from now on is kept again"
    } else {
        ""
    };
    format!(
        "{verb}: the contents of {mails} mails and {calls} calls, the bytes of {effects} that were kept, {letters} dead \
         letters{exists}"
    )
}
