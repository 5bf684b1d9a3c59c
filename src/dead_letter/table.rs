//! Letters that Postgres keeps as a whole, in `afterwrite.dead_letters`: bytes, headers and state in one transaction. All
//! of them where no broker is, and elsewhere those that their topic refuses as too large.

use async_trait::async_trait;
use sqlx::postgres::PgPool;

use crate::dead_letter::headers;
use crate::dead_letter::state::{self, Kept, LetterRow};
use crate::engine::letter::{BuryError, Letter, Letters};
use crate::event::delivery::RawRecord;

/// Dead letters in Postgres: as safe from the loss of a machine as the rows that the changes are of.
pub struct TableLetters {
    pool: PgPool,
    error_bytes_max: usize,
}

impl TableLetters {
    /// A sink on `pool` that cuts longer error texts.
    pub fn new(pool: PgPool, error_bytes_max: usize) -> Self {
        Self { pool, error_bytes_max }
    }

    /// Puts a letter that is not known back: its record as it is, and its state. Answers whether it was not known.
    ///
    /// # Errors
    /// When Postgres refuses; repeating it leaves one letter.
    pub async fn put_back(&self, letter: LetterRow, record: &RawRecord) -> Result<bool, BuryError> {
        put_back(&self.pool, letter, Kept::Table(record)).await
    }

    /// Gives a known letter its bytes back.
    ///
    /// # Errors
    /// When Postgres refuses; repeating it leaves one letter.
    pub async fn restore(&self, letter: &LetterRow, record: &RawRecord) -> Result<(), BuryError> {
        restore(&self.pool, letter, Kept::Table(record)).await
    }
}

#[async_trait]
impl Letters for TableLetters {
    async fn bury(&self, letter: &Letter) -> Result<(), BuryError> {
        keep(&self.pool, letter, &headers::cut(&letter.error, self.error_bytes_max)).await
    }

    async fn park(&self, letters: &[Letter]) -> Result<(), BuryError> {
        let cut = |letter: &Letter| headers::cut(&letter.error, self.error_bytes_max);
        let errors: Vec<String> = letters.iter().map(cut).collect();
        let records: Vec<RawRecord> = letters
            .iter()
            .zip(&errors)
            .map(|(letter, error)| record_of(letter, error))
            .collect();
        let rows: Vec<(&Letter, &str, Kept<'_>)> = letters
            .iter()
            .zip(&errors)
            .zip(&records)
            .map(|((letter, error), record)| (letter, error.as_str(), Kept::Table(record)))
            .collect();
        state::record_all(&self.pool, &rows).await.map_err(unrecorded)
    }
}

/// The record of a letter with all its headers.
fn record_of(letter: &Letter, error: &str) -> RawRecord {
    RawRecord {
        headers: headers::of(letter, error),
        ..letter.raw.clone()
    }
}

/// Keeps a letter with its bytes. `error` is the letter's error as far as it is kept.
pub(super) async fn keep(pool: &PgPool, letter: &Letter, error: &str) -> Result<(), BuryError> {
    let record = record_of(letter, error);
    let recorded = state::record(pool, letter, error, Kept::Table(&record)).await;
    recorded.map_err(unrecorded)
}

/// Makes a letter that is not known, as it was, with its ledger row; answers whether it was not known.
pub(super) async fn put_back(pool: &PgPool, letter: LetterRow, kept: Kept<'_>) -> Result<bool, BuryError> {
    let settled = match letter.state.as_str() {
        "replayed" => None,
        "discarded" => Some("discarded"),
        _ => Some("buried"),
    };
    let written = state::write(pool, letter, kept, settled).await;
    written.map_err(unrecorded)
}

/// Says where the bytes of a known letter are from now on.
pub(super) async fn restore(pool: &PgPool, letter: &LetterRow, kept: Kept<'_>) -> Result<(), BuryError> {
    let moved = state::moved(pool, &letter.letter_id, kept).await;
    moved.map_err(unrecorded)
}

pub(super) fn unrecorded(source: sqlx::Error) -> BuryError {
    BuryError {
        place: "afterwrite.letters".to_owned(),
        source: source.into(),
    }
}
