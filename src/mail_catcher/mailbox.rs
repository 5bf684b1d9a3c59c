//! The folder of mails: one `.eml` file per accepted mail, with its envelope in a `.json` file of the same name.
//!
//! A name ending in `.eml` never shows a half-written mail: bytes go to a temporary name first. The envelope is there
//! before the mail is.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;
use tokio::fs;
use uuid::Uuid;

/// Who sent a mail to whom, as the SMTP dialogue said; the mail's own headers may say something else.
#[derive(Debug, Serialize)]
pub(super) struct Envelope<'a> {
    pub(super) helo: &'a str,
    pub(super) from: &'a str,
    pub(super) recipients: &'a [String],
    pub(super) smtputf8: bool,
}

/// A folder of mails.
#[derive(Debug)]
pub(super) struct Mailbox {
    folder: PathBuf,
    sequence: AtomicU64,
}

impl Mailbox {
    /// Makes the folder where it is missing.
    pub(super) async fn open(folder: &Path) -> io::Result<Self> {
        fs::create_dir_all(folder).await?;
        Ok(Self {
            folder: folder.to_owned(),
            sequence: AtomicU64::new(1),
        })
    }

    /// Keeps one mail. When this returns, the file can be read.
    pub(super) async fn keep(&self, envelope: &Envelope<'_>, mail: &[u8]) -> io::Result<()> {
        let unix_ms = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_millis());
        let sequence = self.sequence.fetch_add(1, Ordering::Relaxed);
        // Two catchers may share a folder, and a restarted one counts from 1 again.
        let random = Uuid::new_v4().simple().to_string();
        let name = format!("{unix_ms:013}-{sequence:06}-{}", &random[..8]);
        let envelope = serde_json::to_vec(envelope).map_err(io::Error::other)?;
        self.put(&format!("{name}.json"), &envelope).await?;
        self.put(&format!("{name}.eml"), mail).await
    }

    async fn put(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let temporary = self.folder.join(format!(".{name}.tmp"));
        // A folder that was emptied as a whole between two tests is made again.
        fs::create_dir_all(&self.folder).await?;
        fs::write(&temporary, bytes).await?;
        fs::rename(&temporary, self.folder.join(name)).await
    }
}
