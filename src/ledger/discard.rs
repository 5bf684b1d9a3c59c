//! Letters that are never run again: they and their rows of the ledger become `discarded`.

use sqlx::PgConnection;

/// Discards these letters, which the caller has locked and found open or parked. A redelivery of their events stays settled.
///
/// # Errors
/// Whatever Postgres answered.
pub async fn discard(connection: &mut PgConnection, ids: &[String], by: &str, reason: &str) -> Result<(), sqlx::Error> {
    sqlx::query(
        "WITH discarded AS (
             UPDATE afterwrite.letters SET state = 'discarded', state_by = $2, state_at = now(), state_reason = $3
             WHERE letter_id = ANY($1) RETURNING commit_day, handler, event_id)
         UPDATE afterwrite.ledger AS ledger SET state = 'discarded', settled_at = now() FROM discarded
         WHERE ledger.commit_day = discarded.commit_day AND ledger.handler = coalesce(
             (SELECT ledger_name FROM afterwrite.handlers WHERE name = discarded.handler), discarded.handler)
           AND ledger.event_id = discarded.event_id AND ledger.state = 'buried'",
    )
    .bind(ids)
    .bind(by)
    .bind(reason)
    .execute(connection)
    .await?;
    Ok(())
}

/// What was done about the letters of one row.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OfRow {
    /// Open and parked ones that were discarded.
    pub discarded: usize,
    /// Those that are being replayed just now, and were left.
    pub replaying: usize,
    /// Those whose bytes were kept in Postgres, and are not any more.
    pub emptied: u64,
}

/// Discards the letters of the row with this primary key, of one column, and forgets the bytes that Postgres keeps of them, whatever their
/// state. `table` is `schema.table`. What is in a dead-letter topic stays there until its retention ends.
///
/// # Errors
/// Whatever Postgres answered.
pub async fn letters_of_row(
    connection: &mut PgConnection,
    table: &str,
    key: &str,
    by: &str,
    reason: &str,
) -> Result<OfRow, sqlx::Error> {
    let found: Vec<(String, String)> = sqlx::query_as(
        "SELECT letter_id, state FROM afterwrite.letters
         WHERE table_name = $1 AND afterwrite.key_terms(event_key) @> ARRAY[$2] ORDER BY letter_id FOR UPDATE",
    )
    .bind(table)
    .bind(key)
    .fetch_all(&mut *connection)
    .await?;
    let in_state = |states: &[&str]| -> Vec<String> {
        let chosen = found.iter().filter(|(_, state)| states.contains(&state.as_str()));
        chosen.map(|(id, _)| id.clone()).collect()
    };
    let (open, replaying) = (in_state(&["open", "parked"]), in_state(&["replaying"]));
    discard(connection, &open, by, reason).await?;
    let ended = in_state(&["open", "parked", "replayed", "discarded"]);
    let emptied =
        sqlx::query("UPDATE afterwrite.dead_letters SET value = NULL WHERE letter_id = ANY ($1) AND value IS NOT NULL")
            .bind(&ended)
            .execute(connection)
            .await?;
    Ok(OfRow {
        discarded: open.len(),
        replaying: replaying.len(),
        emptied: emptied.rows_affected(),
    })
}
