//! The mail, rendered once: what is kept with the claim is everything that a later attempt needs to send the same again.

use lettre::Address;
use lettre::message::header::ContentType;
use lettre::message::{Mailbox, Message, header};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use uuid::Uuid;

/// `[handlers.invitations.settings]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Settings {
    /// Whom it is from: `Teams <teams@example.com>`.
    #[serde(deserialize_with = "mailbox")]
    pub(crate) from: Mailbox,
    /// Where an invitation is accepted; `{token}` is its token.
    pub(crate) accept_url: String,
}

fn mailbox<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Mailbox, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse()
        .map_err(|_| D::Error::custom("from is not written as: Name <name@example.com>"))
}

/// What the database says of an invitation.
#[derive(Debug, sqlx::FromRow)]
pub(crate) struct Facts {
    pub(crate) id: Uuid,
    pub(crate) email: String,
    pub(crate) team: String,
    pub(crate) token: String,
}

/// Why no mail can be made. Quotes no address.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MailError {
    #[error("the invitation's address is none")]
    Address,
    #[error("the mail could not be made")]
    Message(#[from] lettre::error::Error),
    #[error("what is kept of the mail is not what was kept")]
    Kept,
}

/// The recipient and the message, as they are kept.
pub(crate) fn render(facts: &Facts, settings: &Settings) -> Result<Vec<u8>, MailError> {
    let to: Address = facts.email.parse().map_err(|_| MailError::Address)?;
    let domain = settings.from.email.domain();
    let link = settings.accept_url.replace("{token}", &facts.token);
    let message = Message::builder()
        .from(settings.from.clone())
        .to(Mailbox::new(None, to.clone()))
        // The builder encodes it: a line break in a team's name makes no header.
        .subject(format!("Join {}", facts.team))
        .message_id(Some(format!("<invitation.{}@{domain}>", facts.id)))
        .header(header::ContentTransferEncoding::QuotedPrintable)
        .header(ContentType::TEXT_PLAIN)
        .body(format!("You are invited to join {}:\n\n{link}\n", facts.team))?;
    Ok([to.to_string().as_bytes(), b"\n", &message.formatted()].concat())
}

/// The recipient and the message of what was kept.
pub(crate) fn kept(rendered: &[u8]) -> Result<(Address, &[u8]), MailError> {
    let end = rendered.iter().position(|byte| *byte == b'\n').ok_or(MailError::Kept)?;
    let to = std::str::from_utf8(&rendered[..end]).map_err(|_| MailError::Kept)?;
    Ok((to.parse().map_err(|_| MailError::Kept)?, &rendered[end + 1..]))
}
