//! A session that reads the log: how it is opened and ended, and what its errors mean.

use std::collections::VecDeque;
use std::time::Duration;

use pgwire_replication::{PgWireError, ReplicationClient};
use sqlx::Connection as _;
use sqlx::postgres::{PgConnection, PgPool};
use tokio::time::Instant;

use crate::event::delivery::{Assigned, SourceEvent};
use crate::ledger::claims::Claims;
use crate::ledger::patience::{Unanswered, ask};
use crate::ledger::slots::{Slots, Standing};
use crate::ledger::sources::Sources;
use crate::source::wal::caught_up::CaughtUp;
use crate::source::wal::connection::Connection;
use crate::source::wal::progress::Progress;
use crate::source::wal::reading::{Reading, Unreadable};
use crate::source::wal::slot::{self, Refused};

/// Times the server's own time-out that nothing may come from it, keepalives included.
const SILENT_TIMEOUTS: u32 = 2;

/// How long a session may take to end when the group leaves.
const END_WITHIN: Duration = Duration::from_secs(5);

/// How long an answer on a session may take; only the making of a slot may take longer.
pub(super) const ANSWER_MAX: Duration = Duration::from_secs(35);

/// How long a new connection may take before the server counts as gone.
const CONNECTED_WITHIN: Duration = Duration::from_secs(5);

/// The SQLSTATE of a server whose connections are all in use.
const TOO_MANY_CONNECTIONS: &str = "53300";

/// SQLSTATEs after which trying again is in vain, and what to do about each.
const FINAL_STATES: [(&str, &str); 7] = [
    (
        "42704",
        "a slot or a publication is missing, or the publication was not there yet when a change was written: then the slot \
         can only be dropped (`afterwrite slot drop`), and begins anew",
    ),
    (
        "42501",
        "the role needs REPLICATION: ALTER ROLE … REPLICATION, or let wal.url name another role",
    ),
    (
        "28000",
        "see user, database and sslmode in wal.url or postgres.url, and pg_hba.conf; a server that asks for a certificate gets \
         the one of sslcert and sslkey",
    ),
    ("28P01", "see the password in wal.url or postgres.url"),
    ("3D000", "see the database in wal.url or postgres.url"),
    (
        "55000",
        "the server is not one whose log can be decoded (wal_level, a standby), or the slot is of no use any more: \
         `afterwrite slot list` tells",
    ),
    ("0A000", "the server is too old, or cannot do what is asked of it"),
];

/// Parts of what is said of a session that was never begun, where trying again is in vain, and what to do about each.
const FINAL_WORDS: [(&str, &str); 6] = [
    (
        "server does not support TLS",
        "turn it on there (ssl = on), or where the network between is trusted say sslmode=disable in wal.url or postgres.url",
    ),
    (
        "ot valid for name",
        "the server's certificate is another host's: name the host in wal.url or postgres.url as the certificate does",
    ),
    (
        "NotValidForName",
        "the server's certificate is another host's: name the host in wal.url or postgres.url as the certificate does",
    ),
    (
        "invalid peer certificate",
        "see sslrootcert in wal.url or postgres.url, which names the file of the authority that signed the server's \
         certificate, and whether that certificate is still good",
    ),
    (
        "TLS config error",
        "see sslrootcert, sslcert and sslkey in wal.url or postgres.url, and whether the files can be read here",
    ),
    (
        "received fatal alert",
        "the server does not take our certificate: see sslcert and sslkey in wal.url or postgres.url, and the server's \
         ssl_ca_file",
    ),
];

/// The log cannot be read, and waiting does not mend it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The slot or the publication cannot be used.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The server does not let us read.
    #[error("the write-ahead log may not be read: {said}; {remedy}")]
    Forbidden {
        /// What it said.
        said: String,
        /// What to do about it.
        remedy: &'static str,
    },
    /// A message of the log cannot be read.
    #[error("the write-ahead log cannot be read on")]
    Unreadable(#[from] Unreadable),
}

/// Why a session ended, or none came about.
pub(super) enum Broken {
    /// It may succeed later.
    ForNow(String),
    /// It will not.
    ForGood(Error),
    /// The group goes on from another source.
    Leaves,
}

/// A session that reads.
pub(super) struct Session {
    pub(super) client: ReplicationClient,
    pub(super) epoch: u64,
    pub(super) progress: Progress,
    /// What is kept, and may be told.
    pub(super) kept: Standing,
    pub(super) silent_max: Option<Duration>,
    pub(super) heard_at: Instant,
    /// Since when it is not known that the server stays.
    pub(super) asked_at: Instant,
    pub(super) caught_up: CaughtUp,
    pub(super) is_paused: bool,
    /// What the engine is to hear next, in order.
    pub(super) untold: VecDeque<SourceEvent>,
}

/// Opens a session and takes the partition over.
pub(super) async fn open(
    connection: &Connection,
    publication: &str,
    group: &str,
    claims: &Claims,
    slots: &Slots,
    sources: &Sources,
    reading: &Reading,
) -> Result<(Session, Assigned), Broken> {
    slot::check_publication(&reading.pool, connection.database(), publication, &reading.wanted)
        .await
        .map_err(of_slot)?;
    let timeout = timeout(&reading.pool).await.map_err(of_postgres)?;
    let known = slots.known().await.map_err(of_postgres)?;
    let lsn = known.as_ref().map_or(0, |known| known.standing.confirmed_lsn);
    let config = connection.session(slots.name(), publication, lsn, timeout);
    let mut client = ReplicationClient::connect_gated(config)
        .await
        .map_err(|error| of_session(&error))?;
    let standing = slot::stand(&mut client, slots, group).await.map_err(of_slot)?;
    client.start().await.map_err(|error| of_session(&error))?;
    within(ANSWER_MAX, "starting to read", client.wait_started())
        .await
        .map_err(|error| of_session(&error))?;
    // Asked while nobody else can read the slot: a group that has left before is seen here, and one that leaves later waits.
    if sources.wish().await.map_err(of_postgres)?.leaves {
        return Err(Broken::Leaves);
    }
    let partition = &reading.partition;
    let claim = claims
        .take(&partition.topic, partition.partition)
        .await
        .map_err(of_postgres)?;
    // Whoever read the slot before could keep something until now.
    let kept = slots.known().await.map_err(of_postgres)?;
    if kept.is_none_or(|kept| kept.standing != standing) || (lsn != 0 && lsn != standing.confirmed_lsn) {
        return Err(Broken::ForNow(
            "the last reader of the slot has only just ended".to_owned(),
        ));
    }
    let started = claims.started(&partition.topic, partition.partition, standing.position.0);
    started.await.map_err(of_postgres)?;
    let forget = claims.forget_before(partition, claim.epoch, standing.settled_to);
    forget.await.map_err(of_postgres)?;
    tracing::info!(
        group, slot = slots.name(), lsn = %pgwire_replication::Lsn::from(standing.confirmed_lsn),
        "reading the write-ahead log"
    );
    let session = Session {
        client,
        epoch: claim.epoch,
        progress: Progress::resume(standing),
        kept: standing,
        // It sends a keepalive when half of its time-out is over.
        silent_max: timeout.map(|timeout| timeout * SILENT_TIMEOUTS),
        heard_at: Instant::now(),
        asked_at: Instant::now(),
        caught_up: CaughtUp::default(),
        is_paused: false,
        untold: VecDeque::new(),
    };
    let assigned = Assigned {
        partition: partition.clone(),
        epoch: claim.epoch,
        inherited: claim.inherited,
    };
    Ok((session, assigned))
}

/// After how long the server ends a session that is silent. `None`: it does not.
async fn timeout(pool: &PgPool) -> Result<Option<Duration>, sqlx::Error> {
    let query = sqlx::query_scalar("SELECT setting::bigint FROM pg_settings WHERE name = 'wal_sender_timeout'");
    let millis: i64 = ask(pool, "asking for a time-out", async |connection: &mut PgConnection| {
        query.fetch_one(connection).await
    })
    .await?;
    let millis = u64::try_from(millis).ok().filter(|millis| *millis > 0);
    Ok(millis.map(Duration::from_millis))
}

/// Ends the session of a server that is shutting down. That waits until all of its log is confirmed, which it never is: what is
/// confirmed is kept first, and it lets nobody write any more. It asks for replies then, as it does otherwise only when nothing
/// came from here for half of its time-out. Asked over a connection of its own: one of a pool that is in use is waited for.
pub(super) async fn stays(pool: &PgPool) -> Result<(), Broken> {
    let connected = tokio::time::timeout(CONNECTED_WITHIN, PgConnection::connect_with(&pool.connect_options())).await;
    let error = match connected {
        Ok(Ok(connection)) => {
            if let Err(error) = connection.close().await {
                tracing::debug!(%error, "a connection did not end in good order");
            }
            return Ok(());
        }
        Ok(Err(error)) => error,
        Err(_) => Unanswered {
            what: "asking whether it stays",
            limit: CONNECTED_WITHIN,
        }
        .into(),
    };
    match error.as_database_error().and_then(|error| error.code()) {
        // It has no place for another one, so it stays.
        Some(code) if code == TOO_MANY_CONNECTIONS => Ok(()),
        _ => Err(of_postgres(error)),
    }
}

/// Waits for an answer on the session, which has no limit of its own: a host that vanishes would be waited for for ever.
///
/// # Errors
/// What the session answered, or that it did not answer.
pub(super) async fn within<T>(
    limit: Duration,
    what: &str,
    answer: impl Future<Output = Result<T, PgWireError>>,
) -> Result<T, PgWireError> {
    match tokio::time::timeout(limit, answer).await {
        Ok(answer) => answer,
        Err(_) => {
            let limit = limit.as_secs_f32();
            Err(PgWireError::Task(format!("{what}: no answer within {limit} s")))
        }
    }
}

/// Ends a session.
pub(super) async fn end(mut client: ReplicationClient) {
    match tokio::time::timeout(END_WITHIN, client.shutdown()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "the replication session ended with an error"),
        Err(_) => tracing::debug!("the replication session did not end in time"),
    }
}

pub(super) fn of_postgres(error: sqlx::Error) -> Broken {
    Broken::ForNow(format!("postgres could not be asked: {error}"))
}

fn of_slot(error: slot::Error) -> Broken {
    match error {
        slot::Error::Refused(refused) => Broken::ForGood(refused.into()),
        slot::Error::Session(error) => of_session(&error),
        slot::Error::Asked(error) => of_postgres(error),
        error @ slot::Error::InUse { .. } => Broken::ForNow(error.to_string()),
    }
}

pub(super) fn of_session(error: &PgWireError) -> Broken {
    let said = error.to_string();
    let has = |state: &str| said.contains(&format!("(SQLSTATE {state})"));
    let found = FINAL_STATES.iter().find(|(state, _)| has(state));
    let remedy = match (error, found) {
        (PgWireError::Server(_) | PgWireError::Auth(_), Some((_, remedy))) => *remedy,
        (PgWireError::Auth(said), None)
            if said.contains("unsupported auth method") || said.contains("doesn't offer") =>
        {
            "the server asks for a password in a way that is not known here: let it be kept as scram-sha-256 \
             (password_encryption, ALTER ROLE … PASSWORD, pg_hba.conf)"
        }
        (PgWireError::Auth(_), None) => "see user and password in wal.url or postgres.url",
        (PgWireError::Tls(_) | PgWireError::Io(_), _) => {
            let Some((_, remedy)) = FINAL_WORDS.iter().find(|(words, _)| said.contains(words)) else {
                return Broken::ForNow(said);
            };
            *remedy
        }
        _ => return Broken::ForNow(said),
    };
    Broken::ForGood(Error::Forbidden { said, remedy })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waiting_does_not_mend_is_told_with_its_remedy() {
        let of = |said: &str| of_session(&PgWireError::Server(said.to_owned()));
        for (said, remedy) in [
            (
                "publication \"it\" does not exist (SQLSTATE 42704)",
                "afterwrite slot drop",
            ),
            ("must be superuser or replication role (SQLSTATE 42501)", "REPLICATION"),
            ("can no longer get changes (SQLSTATE 55000)", "afterwrite slot list"),
        ] {
            let Broken::ForGood(error) = of(said) else {
                panic!("{said} is waited for")
            };
            assert!(error.to_string().contains(remedy), "{error}");
        }
        for said in [
            "slot is active for PID 7 (SQLSTATE 55006)",
            "shutting down (SQLSTATE 57P01)",
        ] {
            assert!(matches!(of(said), Broken::ForNow(_)), "{said}");
        }
    }

    #[test]
    fn a_session_that_cannot_be_made_safe_is_not_tried_again() {
        let of = |said: &str| of_session(&PgWireError::Tls(said.to_owned()));
        for (said, remedy) in [
            ("server does not support TLS (SSLRequest rejected)", "ssl = on"),
            (
                "TLS handshake failed: invalid peer certificate: UnknownIssuer",
                "sslrootcert",
            ),
            (
                "TLS handshake failed: invalid peer certificate: certificate not valid for name \"b\"",
                "another host's",
            ),
            (
                "TLS config error: failed to open CA PEM '/ca.pem': No such file",
                "can be read here",
            ),
            (
                "TLS handshake failed: received fatal alert: CertificateRequired",
                "sslcert",
            ),
        ] {
            let Broken::ForGood(error) = of(said) else {
                panic!("{said} is waited for")
            };
            assert!(error.to_string().contains(remedy), "{error}");
        }
        assert!(matches!(
            of("TLS handshake failed: tls handshake eof"),
            Broken::ForNow(_)
        ));
        let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        assert!(matches!(of_session(&refused.into()), Broken::ForNow(_)));
        let asked = PgWireError::Auth("unsupported auth method code: 5".to_owned());
        let Broken::ForGood(error) = of_session(&asked) else {
            panic!("{asked} is waited for")
        };
        assert!(error.to_string().contains("scram-sha-256"), "{error}");
    }

    #[tokio::test]
    async fn a_server_that_does_not_answer_is_not_waited_for_for_ever() {
        let never = std::future::pending::<Result<(), PgWireError>>();
        let error = within(Duration::from_millis(20), "starting to read", never)
            .await
            .unwrap_err();
        assert!(
            error.to_string().contains("starting to read: no answer within 0.02 s"),
            "{error}"
        );
        assert!(matches!(of_session(&error), Broken::ForNow(_)));
    }
}
