//! A mail server inside the test: the catcher that the demo and the stack use, on a port and in a folder of its own.
//!
//! Some recipients fail on demand, as `afterwrite mail-catcher --help` says: `refuse-550-5.1.1@example.com` is refused,
//! `defer-2+ann@example.com` twice deferred, and of `lost-reply-1+ann@example.com` the first answer is lost.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! use afterwrite::clients::mailer::SmtpMailer;
//! use afterwrite::testkit::mail_server::MailServer;
//!
//! let server = MailServer::start().await;
//! let mailer = SmtpMailer::new(server.settings());
//! assert!(server.mails().is_empty());
//! # drop(mailer);
//! # }
//! ```

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::clients::mailer::{Protection, SmtpSettings};
use crate::mail_catcher;

/// A running mail server; it ends, and its folder goes, when it is dropped.
#[derive(Debug)]
pub struct MailServer {
    address: SocketAddr,
    folder: PathBuf,
    serving: JoinHandle<()>,
}

impl MailServer {
    /// A server without mails.
    ///
    /// # Panics
    /// When this machine has no free port or no folder for temporary files.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a machine that runs tests has a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let folder = std::env::temp_dir().join(format!("afterwrite-mails-{}", Uuid::new_v4().simple()));
        fs::create_dir_all(&folder).expect("there is a folder for temporary files");
        let mails = folder.clone();
        let serving = tokio::spawn(async move {
            let served = mail_catcher::serve(listener, &mails, std::future::pending()).await;
            served.expect("the folder for mails can be written to");
        });
        Self {
            address,
            folder,
            serving,
        }
    }

    /// How it is reached.
    pub fn settings(&self) -> SmtpSettings {
        SmtpSettings {
            host: self.address.ip().to_string(),
            port: self.address.port(),
            protection: Protection::None,
            credentials: None,
            hello_name: "worker.test".to_owned(),
            step_timeout: Duration::from_secs(5),
            connections_max: 2,
            idle_max: Duration::from_secs(5),
            authorities_pem: None,
            rate: None,
        }
    }

    /// The mails that were taken, oldest first, as text. One that was taken twice is there twice.
    ///
    /// # Panics
    /// When its folder cannot be read.
    pub fn mails(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.folder).expect("the folder of mails can be read");
        let mut paths: Vec<PathBuf> = entries
            .map(|entry| entry.expect("the folder of mails can be read").path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "eml"))
            .collect();
        paths.sort();
        let read = |path: &PathBuf| fs::read(path).expect("a mail can be read");
        paths
            .iter()
            .map(|path| String::from_utf8_lossy(&read(path)).into_owned())
            .collect()
    }
}

impl Drop for MailServer {
    fn drop(&mut self) {
        self.serving.abort();
        if let Err(error) = fs::remove_dir_all(&self.folder) {
            tracing::debug!(%error, "the folder of a test's mails was not removed");
        }
    }
}
