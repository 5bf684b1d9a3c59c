//! A folder instead of a mail server, for development: each mail is a file that mail programs open.
//!
//! The file is called after the mail's `Message-ID`, so a repeated mail takes the place of the one before, as it does in a
//! reader that recognises it. A name ending in `.eml` never shows a half-written mail.

use std::io;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use sha2::{Digest, Sha256};
use tokio::fs;
use tokio::io::AsyncWriteExt;
use uuid::Uuid;

use crate::clients::mailer::{Envelope, Mailer, Sent};

/// Longer names are cut: file systems take 255 bytes.
const NAME_BYTES_MAX: usize = 160;

/// Writes mails into a folder.
#[derive(Debug)]
pub struct FolderMailer {
    folder: PathBuf,
}

/// The folder cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the folder for mails could not be made at {}", path.display())]
pub struct FolderError {
    path: PathBuf,
    source: io::Error,
}

impl FolderMailer {
    /// Makes the folder where it is missing.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn new(folder: &Path) -> Result<Self, FolderError> {
        std::fs::create_dir_all(folder).map_err(|source| FolderError {
            path: folder.to_owned(),
            source,
        })?;
        Ok(Self {
            folder: folder.to_owned(),
        })
    }

    async fn keep(&self, name: &str, message: &[u8]) -> io::Result<()> {
        // Of its own: two tries of one mail may run in two processes.
        let temporary = self.folder.join(format!(".{}.tmp", Uuid::new_v4().simple()));
        let written = async {
            let mut file = fs::File::create_new(&temporary).await?;
            file.write_all(message).await?;
            file.sync_all().await?;
            fs::rename(&temporary, self.folder.join(name)).await
        };
        let written = written.await;
        if written.is_err()
            && let Err(error) = fs::remove_file(&temporary).await
        {
            tracing::debug!(%error, "a half-written mail could not be removed");
        }
        written
    }
}

#[async_trait]
impl Mailer for FolderMailer {
    async fn send_raw(&self, _envelope: &Envelope, message: &[u8]) -> Sent {
        let name = file_name(message);
        match self.keep(&name, message).await {
            Ok(()) => Sent::Accepted {
                reply: format!("written to {name}"),
            },
            Err(error) => Sent::Unreachable(error.into()),
        }
    }
}

/// The name of a mail's file: its `Message-ID`, or the hash of its bytes where it has none.
fn file_name(message: &[u8]) -> String {
    let id = message_id(message).unwrap_or_default();
    let plain: String = id
        .chars()
        .map(|letter| match letter {
            'a'..='z' | 'A'..='Z' | '0'..='9' | '@' | '.' | '-' | '_' => letter,
            _ => '_',
        })
        .take(NAME_BYTES_MAX)
        .collect();
    if plain == id && !id.is_empty() && !id.starts_with('.') {
        return format!("{id}.eml");
    }
    // Another id must not come to the same name.
    let told_apart = if id.is_empty() { message } else { id.as_bytes() };
    let hash = hex::encode(&Sha256::digest(told_apart)[..16]);
    format!("{}-{hash}.eml", plain.trim_start_matches('.'))
}

/// What stands between the brackets of the header, which our own messages never fold.
fn message_id(message: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(message);
    let head = text.split("\r\n\r\n").next()?;
    let value = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("message-id").then_some(value)
    })?;
    Some(value.trim().trim_matches(['<', '>']).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn envelope() -> Envelope {
        Envelope {
            from: "a@example.org".parse().unwrap(),
            to: "b@example.org".parse().unwrap(),
        }
    }

    /// A folder that is removed at the end of the test.
    struct Folder(PathBuf);

    impl Drop for Folder {
        fn drop(&mut self) {
            drop(std::fs::remove_dir_all(&self.0));
        }
    }

    #[tokio::test]
    async fn a_repeated_mail_takes_the_place_of_the_one_before_and_nothing_else_is_left() {
        let folder = Folder(std::env::temp_dir().join(format!("afterwrite-folder-{}", Uuid::new_v4())));
        let mailer = FolderMailer::new(&folder.0.join("made")).unwrap();
        for content in ["first", "second"] {
            let message =
                format!("Subject: x\r\nMessage-ID: <1f@example.org>\r\n\r\nMessage-ID: <no>\r\n{content}\r\n");
            let sent = mailer.send_raw(&envelope(), message.as_bytes()).await;
            assert!(matches!(sent, Sent::Accepted { reply } if reply == "written to 1f@example.org.eml"));
            let kept = std::fs::read_to_string(folder.0.join("made/1f@example.org.eml")).unwrap();
            assert_eq!(kept, message);
        }
        assert_eq!(std::fs::read_dir(folder.0.join("made")).unwrap().count(), 1);
        std::fs::remove_dir_all(&folder.0).unwrap();
        let sent = mailer.send_raw(&envelope(), b"x").await;
        assert!(matches!(sent, Sent::Unreachable(_)));
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_named() {
        let error = FolderMailer::new(Path::new("/proc/no/such")).unwrap_err();
        assert!(error.to_string().contains("/proc/no/such"));
    }

    #[test]
    fn names_lead_nowhere_else_and_are_told_apart() {
        let named = |id: &str| file_name(format!("message-id: <{id}>\r\n\r\n").as_bytes());
        assert_eq!(named("a.b-c_d@x"), "a.b-c_d@x.eml");
        for id in ["../../etc/passwd", "a/b", "..", ".hidden", "a\u{e9}", &"a".repeat(300)] {
            let name = named(id);
            assert!(
                !name.contains('/') && !name.starts_with('.') && name.len() < 220,
                "{name}"
            );
        }
        assert_ne!(named("a/b"), named("a:b"));
        assert_ne!(file_name(b"x\r\n\r\n1"), file_name(b"x\r\n\r\n2"));
    }
}
