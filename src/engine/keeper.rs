//! Bookkeeping of a group's claims that nothing waits for: marks that go, attempts that are stored.
//!
//! What cannot be written is only said: a mark that stays makes the next owner run one job alone, attempts that are not
//! stored are counted anew.

use chrono::{DateTime, Utc};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio::task::JoinHandle;

use crate::ledger::attempts::FailedAttempts;
use crate::ledger::claims::{Claims, OwnedJob};

/// Notes that are written together.
const NOTES_MAX: usize = 512;

/// Notes that wait to be written; more come only while Postgres is slower than the group's failures.
const WAITING_MAX: usize = 8_192;

/// What is to be written of a job.
#[derive(Debug)]
pub(super) enum Note {
    /// It does not run any more, and nobody has to suspect it.
    Unmark(OwnedJob),
    /// It does not run now, and is still a suspect.
    Rest(OwnedJob),
    /// It waits for long; so many attempts failed, the first of them then.
    Attempts(OwnedJob, u32, DateTime<Utc>),
    /// It is settled: its attempts are of no use.
    ForgetAttempts(OwnedJob),
}

/// Where notes go.
#[derive(Debug)]
pub(super) struct Keeper {
    notes: mpsc::Sender<Note>,
    /// Whether the last note found no room.
    is_full: bool,
    writing: JoinHandle<()>,
}

impl Keeper {
    pub(super) fn new(claims: Claims) -> Self {
        let (notes, taken) = mpsc::channel(WAITING_MAX);
        Self {
            notes,
            is_full: false,
            writing: tokio::spawn(write(claims, taken)),
        }
    }

    pub(super) fn note(&mut self, note: Note) {
        let noted = self.notes.try_send(note);
        let was_full = std::mem::replace(&mut self.is_full, matches!(noted, Err(TrySendError::Full(_))));
        if self.is_full && !was_full {
            tracing::warn!("bookkeeping is behind, and leaves notes out: a next owner may suspect some jobs in vain");
        }
        if let Err(TrySendError::Closed(_)) = noted {
            tracing::debug!("bookkeeping has already ended");
        }
    }

    /// Writes what is left.
    pub(super) async fn end(self) {
        drop(self.notes);
        if self.writing.await.is_err() {
            tracing::debug!("bookkeeping ended abnormally");
        }
    }
}

async fn write(claims: Claims, mut notes: mpsc::Receiver<Note>) {
    let mut taken = Vec::with_capacity(NOTES_MAX);
    while notes.recv_many(&mut taken, NOTES_MAX).await > 0 {
        if let Err(error) = write_all(&claims, &mut taken).await {
            tracing::warn!(error = %error, "marks and attempts of jobs could not be written: a next owner may suspect some in vain");
        }
    }
}

async fn write_all(claims: &Claims, taken: &mut Vec<Note>) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let (mut unmarked, mut resting, mut attempts, mut forgotten) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for note in taken.drain(..) {
        match note {
            Note::Unmark(job) => {
                resting.retain(|other| *other != job);
                unmarked.push(job);
            }
            Note::Rest(job) => resting.push(job),
            Note::Attempts(job, made, first_failed_at) => {
                attempts.retain(|other: &FailedAttempts| other.job != job);
                attempts.push(FailedAttempts {
                    job,
                    attempts: made,
                    first_failed_at,
                });
            }
            Note::ForgetAttempts(job) => {
                attempts.retain(|other: &FailedAttempts| other.job != job);
                forgotten.push(job);
            }
        }
    }
    if !resting.is_empty() {
        claims.rest(&resting).await?;
    }
    if !unmarked.is_empty() {
        claims.unmark(&unmarked).await?;
    }
    if !attempts.is_empty() {
        claims.note_attempts(&attempts).await?;
    }
    if !forgotten.is_empty() {
        claims.forget_attempts(&forgotten).await?;
    }
    Ok(())
}
