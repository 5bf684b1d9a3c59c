//! Discarding letters: somebody decided that they are never to be run again, and said why.

use sqlx::postgres::PgPool;

use crate::dead_letter::filter::{CONDITION, Filter};
use crate::dead_letter::state::{OPEN, PARKED};
use crate::ledger;

/// Which letters are discarded.
#[derive(Debug, Clone)]
pub enum Chosen {
    /// These, and all of them or none.
    Ids(Vec<String>),
    /// Those that a filter chooses now, by default the open ones.
    Filter(Filter),
}

/// What was discarded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Discarded {
    /// These letters.
    All(Vec<String>),
    /// Nothing, because these of the given ones are neither open nor parked: id and state.
    NotOpen(Vec<(String, String)>),
}

/// Discards letters: they and their ledger rows become `discarded`, in one transaction, so a redelivery stays settled. A
/// letter that changes its state meanwhile is waited for and then looked at again.
///
/// # Errors
/// Whatever Postgres answered.
pub async fn discard(pool: &PgPool, chosen: &Chosen, by: &str, reason: &str) -> Result<Discarded, sqlx::Error> {
    let mut transaction = pool.begin().await?;
    let locked: Vec<(String, String)> = match chosen {
        Chosen::Ids(ids) => {
            let sql = "SELECT letter_id, state FROM afterwrite.letters WHERE letter_id = ANY($1) ORDER BY letter_id FOR UPDATE";
            sqlx::query_as(sql).bind(ids).fetch_all(&mut *transaction).await?
        }
        Chosen::Filter(filter) => {
            let sql = format!(
                "SELECT letter_id, state FROM afterwrite.letters WHERE {CONDITION} ORDER BY letter_id FOR UPDATE"
            );
            let query = filter.acted_on().bind(sqlx::query_as(sqlx::AssertSqlSafe(sql)));
            query.fetch_all(&mut *transaction).await?
        }
    };
    let (open, others): (Vec<_>, Vec<_>) = locked
        .into_iter()
        .partition(|(_, state)| [OPEN, PARKED].contains(&state.as_str()));
    if !others.is_empty() {
        return Ok(Discarded::NotOpen(others));
    }
    let ids: Vec<String> = open.into_iter().map(|(id, _)| id).collect();
    ledger::discard::discard(&mut transaction, &ids, by, reason).await?;
    transaction.commit().await?;
    Ok(Discarded::All(ids))
}
