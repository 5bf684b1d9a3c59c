//! The finished message: the bytes that are sent on every try, and the envelope they travel in.
//!
//! Everything in it comes from the facts and the effect key: no clock, no randomness. Rendering it twice from the same
//! facts yields the same bytes, and a receiver that gets it twice sees one `Message-ID`.

use std::fmt;
use std::time::SystemTime;

use lettre::message::header::{ContentType, HeaderName, HeaderValue};
use lettre::message::{Mailbox, Message, MultiPart, SinglePart};
use lettre::{Address, address};
use sha2::{Digest, Sha256};

use crate::clients::mailer::Envelope;
use crate::handlers::email::templates::Rendered;

/// Who writes.
#[derive(Clone, PartialEq, Eq)]
pub struct Sender {
    /// Display name; may be empty.
    pub name: String,
    /// Address.
    pub address: String,
    /// Where answers go, when not to the address.
    pub reply_to: Option<String>,
}

impl fmt::Debug for Sender {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Sender(..)")
    }
}

/// Why a message could not be made. Quotes no address.
#[derive(Debug, thiserror::Error)]
pub enum MessageError {
    /// The recipient's address.
    #[error("the recipient's address is not one that mail can be sent to")]
    Recipient,
    /// The sender's address.
    #[error("the sender's address is not valid; correct campaigns.from_address or the configured sender")]
    Sender(#[source] address::AddressError),
    /// The reply address.
    #[error("the reply address is not valid; correct campaigns.reply_to")]
    ReplyTo(#[source] address::AddressError),
    /// The parts did not make a message.
    #[error("the message could not be put together")]
    Build(#[source] lettre::error::Error),
    /// Bytes of a claimed effect that are none of ours.
    #[error("the stored message has no envelope; discard the letter and let the mail be queued anew")]
    Stored,
}

/// A message with its envelope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finished {
    /// Sender and recipient.
    pub envelope: Envelope,
    /// As sent.
    pub message: Vec<u8>,
}

impl Finished {
    /// The form in which an effect keeps it: sender and recipient in a line each, then the message. An address that
    /// changes later does not change where the stored message goes.
    pub fn to_stored(&self) -> Vec<u8> {
        let mut stored = format!("{}\n{}\n", self.envelope.from, self.envelope.to).into_bytes();
        stored.extend_from_slice(&self.message);
        stored
    }

    /// Reads the stored form.
    ///
    /// # Errors
    /// When it is none.
    pub fn from_stored(stored: &[u8]) -> Result<Self, MessageError> {
        let mut parts = stored.splitn(3, |byte| *byte == b'\n');
        let mut address = || -> Option<Address> { std::str::from_utf8(parts.next()?).ok()?.parse().ok() };
        let (from, to) = address().zip(address()).ok_or(MessageError::Stored)?;
        let message = parts.next().ok_or(MessageError::Stored)?.to_vec();
        Ok(Self {
            envelope: Envelope { from, to },
            message,
        })
    }
}

/// The `Message-ID` of an effect.
pub fn message_id(effect_key: &str, sender_domain: &str) -> String {
    format!("<{}@{sender_domain}>", digest("message-id", effect_key))
}

/// What a message says of itself.
#[derive(Debug, Clone, Copy)]
pub struct Marks<'a> {
    /// The key that its `Message-ID` is made from.
    pub effect_key: &'a str,
    /// The time of the change that caused it.
    pub date: SystemTime,
    /// Where the reader unsubscribes, with a click and without a login (RFC 2369, RFC 8058); for marketing.
    pub unsubscribe_url: Option<&'a str>,
}

/// Puts a message together.
///
/// # Errors
/// When an address cannot be used.
pub fn build(marks: Marks<'_>, sender: &Sender, recipient: &str, content: Rendered) -> Result<Finished, MessageError> {
    let Marks {
        effect_key,
        date,
        unsubscribe_url,
    } = marks;
    let to: Address = recipient.trim().parse().map_err(|_| MessageError::Recipient)?;
    let from: Address = sender.address.trim().parse().map_err(MessageError::Sender)?;
    let name = one_line(&sender.name);
    let mailbox = Mailbox::new((!name.is_empty()).then_some(name), from.clone());
    let parts = MultiPart::alternative()
        .boundary(digest("boundary", effect_key))
        .singlepart(part(ContentType::TEXT_PLAIN, content.text))
        .singlepart(part(ContentType::TEXT_HTML, content.html));
    let mut builder = Message::builder()
        .from(mailbox)
        .to(Mailbox::new(None, to.clone()))
        .subject(one_line(&content.subject))
        .date(date)
        .message_id(Some(message_id(effect_key, from.domain())))
        .raw_header(HeaderValue::new(
            HeaderName::new_from_ascii_str("Auto-Submitted"),
            "auto-generated".to_owned(),
        ));
    if let Some(url) = unsubscribe_url {
        builder = builder
            .raw_header(verbatim("List-Unsubscribe", format!("<{url}>")))
            .raw_header(verbatim(
                "List-Unsubscribe-Post",
                "List-Unsubscribe=One-Click".to_owned(),
            ));
    }
    if let Some(reply_to) = &sender.reply_to {
        let parsed: Address = reply_to.trim().parse().map_err(MessageError::ReplyTo)?;
        builder = builder.reply_to(Mailbox::new(None, parsed));
    }
    let message = builder.multipart(parts).map_err(MessageError::Build)?;
    Ok(Finished {
        envelope: Envelope { from, to },
        message: message.formatted(),
    })
}

/// A header as it is: an address folded or encoded like words would lead nowhere.
fn verbatim(name: &'static str, value: String) -> HeaderValue {
    let value = one_line(&value);
    assert!(value.is_ascii(), "{name} is made of ASCII");
    HeaderValue::dangerous_new_pre_encoded(HeaderName::new_from_ascii_str(name), value.clone(), value)
}

fn part(content_type: ContentType, body: String) -> SinglePart {
    SinglePart::builder().header(content_type).body(body)
}

/// Header text without control characters: a line break in a name must not begin another header.
fn one_line(text: &str) -> String {
    let spaced: String = text
        .chars()
        .map(|letter| if letter.is_control() { ' ' } else { letter })
        .collect();
    spaced.split_whitespace().collect::<Vec<&str>>().join(" ")
}

fn digest(purpose: &str, effect_key: &str) -> String {
    let hash = Sha256::digest(format!("{purpose}\n{effect_key}"));
    hex::encode(&hash[..16])
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use mail_parser::MessageParser;

    use super::*;

    fn sender() -> Sender {
        Sender {
            name: "Launch\r\nBcc: evil@example.org".into(),
            address: "hello@example.org".into(),
            reply_to: Some("team@example.org".into()),
        }
    }

    fn content() -> Rendered {
        Rendered {
            subject: "Gr\u{fc}\u{df}e\r\nBcc: evil@example.org".into(),
            html: "<p>H\u{e4}</p>".into(),
            text: "H\u{e4}\n".into(),
        }
    }

    fn marks(effect_key: &str) -> Marks<'_> {
        Marks {
            effect_key,
            date: UNIX_EPOCH + Duration::from_secs(1_700_000_000),
            unsubscribe_url: None,
        }
    }

    fn built(key: &str) -> Finished {
        build(marks(key), &sender(), "ann@example.net", content()).unwrap()
    }

    #[test]
    fn marketing_says_in_its_header_how_to_unsubscribe_with_one_click() {
        let url = format!("https://lists.example.org/{}", "a".repeat(100));
        let marked = Marks {
            unsubscribe_url: Some(&url),
            ..marks("milestone:1")
        };
        let finished = build(marked, &sender(), "ann@example.net", content()).unwrap();
        let text = String::from_utf8(finished.message).unwrap();
        // In one piece: some readers take a folded or encoded one for none.
        assert!(text.contains(&format!("\r\nList-Unsubscribe: <{url}>\r\n")), "{text}");
        assert!(
            text.contains("\r\nList-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n"),
            "{text}"
        );
        let plain = String::from_utf8(built("welcome:1").message).unwrap();
        assert!(!plain.contains("List-Unsubscribe"));
    }

    #[test]
    fn the_same_facts_make_the_same_bytes_and_another_key_another_id() {
        assert_eq!(built("welcome:1"), built("welcome:1"));
        assert_ne!(message_id("welcome:1", "a"), message_id("welcome:2", "a"));
    }

    #[test]
    fn the_message_is_text_first_then_html_and_headers_hold_one_line() {
        let finished = built("welcome:1");
        let parsed = MessageParser::default().parse(&finished.message).unwrap();
        assert_eq!(parsed.body_text(0).unwrap().trim(), "H\u{e4}");
        assert_eq!(parsed.body_html(0).unwrap().trim(), "<p>H\u{e4}</p>");
        assert!(parsed.bcc().is_none());
        assert_eq!(
            parsed.header_raw("Auto-Submitted").map(str::trim),
            Some("auto-generated")
        );
        assert_eq!(parsed.subject(), Some("Gr\u{fc}\u{df}e Bcc: evil@example.org"));
        let text = String::from_utf8(finished.message.clone()).unwrap();
        assert!(text.find("text/plain").unwrap() < text.find("text/html").unwrap());
        assert!(text.contains("Date: Tue, 14 Nov 2023 22:13:20 +0000"), "{text}");
        assert!(text.contains(&message_id("welcome:1", "example.org")));
    }

    #[test]
    fn a_stored_message_comes_back_with_its_envelope() {
        let finished = built("welcome:1");
        assert_eq!(Finished::from_stored(&finished.to_stored()).unwrap(), finished);
        assert!(Finished::from_stored(b"nonsense").is_err());
    }

    #[test]
    fn addresses_that_cannot_be_used_are_refused_without_quoting_them() {
        let bad = |recipient: &str| build(marks("k"), &sender(), recipient, content()).unwrap_err();
        for recipient in ["ann", "ann@x y", "ann@example.org\r\nRCPT TO:<x@y.z>", "@example.org"] {
            assert!(matches!(bad(recipient), MessageError::Recipient), "{recipient}");
        }
    }
}
