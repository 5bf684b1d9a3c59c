//! A small SMTP server that keeps every accepted mail as a file: where mails go in tests and in the demo.
//!
//! A mail is a file before it is acknowledged, so whoever has read `250` can read the file. The bytes are exactly those
//! received; nothing is added. Nothing is ever forwarded. It offers neither TLS nor authentication: it listens on the
//! local machine.

mod session;

mod command;

mod script;

mod mailbox;

#[cfg(test)]
mod tests;

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use self::mailbox::Mailbox;
use self::script::Script;

/// Connections served at once; more are told to come back.
const CONNECTIONS_MAX: usize = 1_000;

/// How long open connections may take to end after the stop.
const STOP_GRACE: Duration = Duration::from_secs(2);

/// What `--help` says beyond the arguments: files and scripted refusals.
pub const HELP: &str = "\
Each accepted mail is one file <unix_ms>-<sequence>-<random>.eml, with the bytes as received, there before the
server answers 250; the envelope is in the .json file of the same name. Mails have 10 MiB and 100 recipients at most.

Recipients that fail on demand (what follows a + in the local part is ignored):
  refuse-<code>-<enhanced>@…  refused at RCPT: refuse-550-5.1.1@example.com, refuse-452-4.2.2+ann@example.com
  reject-<code>-<enhanced>@…  the same after the content was sent: reject-554-5.7.1@example.com
  defer@…                     refused at RCPT with 451 4.3.0, always
  defer-<n>@…                 the same for the first n times, then accepted
  lost-reply-<n>@…            kept, but the connection is cut before the answer, for the first n mails
  flaky-<d>-<c>@…             of 100 tries d are refused at RCPT with 451 4.3.0, and c cut when the content has come, half
                              of these after it was kept: flaky-10-5+ann@example.com

Example:
  afterwrite mail-catcher --listen 127.0.0.1:2525 --dir ./mails";

/// Why the catcher could not start.
#[derive(Debug, thiserror::Error)]
pub enum CatcherError {
    /// The folder for the mails cannot be made.
    #[error("the mail folder {} could not be made; choose another with --dir", path.display())]
    MailFolder {
        /// The folder.
        path: PathBuf,
        /// What the system answered.
        source: std::io::Error,
    },
}

/// What every session shares.
#[derive(Debug)]
struct Shared {
    mailbox: Mailbox,
    script: Script,
}

/// Serves SMTP on `listener` and keeps the mails in `folder` until `shutdown` completes.
///
/// # Errors
/// When the folder cannot be made. What happens to one connection ends only that connection.
pub async fn serve(
    listener: TcpListener,
    folder: &Path,
    shutdown: impl Future<Output = ()>,
) -> Result<(), CatcherError> {
    let mailbox = Mailbox::open(folder).await.map_err(|source| CatcherError::MailFolder {
        path: folder.to_owned(),
        source,
    })?;
    let shared = Arc::new(Shared {
        mailbox,
        script: Script::default(),
    });
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let (stopping, stop) = watch::channel(false);
    let mut sessions = JoinSet::new();
    tokio::pin!(shutdown);
    loop {
        let stream = tokio::select! {
            () = &mut shutdown => break,
            accepted = listener.accept() => accepted,
            Some(_) = sessions.join_next(), if !sessions.is_empty() => continue,
        };
        match stream {
            Ok((stream, _)) => {
                sessions.spawn(converse(stream, Arc::clone(&shared), Arc::clone(&places), stop.clone()));
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                // Out of file descriptors: accepting again at once would only spin.
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    stopping.send_replace(true);
    let ended = async { while sessions.join_next().await.is_some() {} };
    if tokio::time::timeout(STOP_GRACE, ended).await.is_err() {
        tracing::warn!("connections were still open after the stop and were cut");
    }
    Ok(())
}

async fn converse(stream: TcpStream, shared: Arc<Shared>, places: Arc<Semaphore>, stop: watch::Receiver<bool>) {
    // Replies are single short writes; waiting to fill a segment would cost 40 ms each.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a connection was gone before it was served");
        return;
    }
    let place = places.try_acquire();
    let ended = match &place {
        Ok(_) => session::run(stream, &shared, stop).await,
        Err(_) => session::refuse_for_now(stream).await,
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection broke");
    }
}
