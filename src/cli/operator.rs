//! Who gives a command that decides something: it is kept beside the decision.

use std::os::unix::fs::MetadataExt;

use sqlx::PgPool;

use crate::cli::Failure;

#[derive(Debug, thiserror::Error)]
#[error("postgres could not be asked as whom this command works")]
struct AskFailed(#[source] sqlx::Error);

/// Who gives the command: the user and host of the operating system, and the user of the database.
pub(super) async fn by(pool: &PgPool) -> Result<String, Failure> {
    let database_user: String = sqlx::query_scalar("SELECT session_user::text")
        .fetch_one(pool)
        .await
        .map_err(AskFailed)
        .map_err(Failure::failed)?;
    let named = ["USER", "LOGNAME"]
        .into_iter()
        .find_map(|name| std::env::var(name).ok());
    let user = named.filter(|name| !name.is_empty()).unwrap_or_else(|| {
        let process = std::fs::metadata("/proc/self");
        process.map_or_else(
            |_| "unknown user".to_owned(),
            |process| format!("user {}", process.uid()),
        )
    });
    let host = ["/proc/sys/kernel/hostname", "/etc/hostname"]
        .into_iter()
        .find_map(|file| std::fs::read_to_string(file).ok())
        .map_or_else(|| "unknown host".to_owned(), |host| host.trim().to_owned());
    Ok(format!("{user}@{host} (database user {database_user})"))
}
