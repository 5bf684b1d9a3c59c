//! The mail server: hands over finished messages, byte for byte, and says how far it came.
//!
//! The SMTP dialogue is driven step by step over lettre's connection, because what follows from an error depends on the
//! step: before the content was sent a failure is harmless, after it the outcome is unknown; and a refusal may concern
//! the sender, the recipient or the content.

use std::error::Error;
use std::fmt;
use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use lettre::Address;
use lettre::transport::smtp::authentication::{Credentials, DEFAULT_MECHANISMS};
use lettre::transport::smtp::client::{AsyncSmtpConnection, Certificate, CertificateStore, TlsParameters};
use lettre::transport::smtp::commands::{Data, Mail, Rcpt, Rset};
use lettre::transport::smtp::extension::{ClientId, Extension, MailBodyParameter, MailParameter};
use lettre::transport::smtp::response::Response;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout};

use crate::clients::mail_step::{InClear, Late, StepError};
use crate::clients::pace::Pace;

/// Hands finished messages to a mail server.
///
/// # Contract
/// - Concurrency: may be called from many tasks at once.
/// - Repetition: every call hands the message over again; recognising copies is the effect store's work.
/// - Cancellation: a dropped call may or may not have delivered, as if the answer were [`Sent::Unknown`].
#[async_trait]
pub trait Mailer: Send + Sync + 'static {
    /// Waits until a message may be handed over, where there is a limit of how many a second. `Err`: that takes longer than
    /// an attempt can wait; ask again after this time.
    ///
    /// # Errors
    /// The time after which to ask again.
    async fn turn(&self) -> Result<(), Duration> {
        Ok(())
    }

    /// Hands over one message for one recipient.
    async fn send_raw(&self, envelope: &Envelope, message: &[u8]) -> Sent;
}

/// Who sends and who receives, as the mail server is told.
#[derive(Clone, PartialEq, Eq)]
pub struct Envelope {
    /// Return path.
    pub from: Address,
    /// The one recipient.
    pub to: Address,
}

impl fmt::Debug for Envelope {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Envelope(..)")
    }
}

/// What became of a message.
#[derive(Debug)]
pub enum Sent {
    /// The server took responsibility for it.
    Accepted {
        /// Its reply, usually with a queue id.
        reply: String,
    },
    /// The server said no.
    Refused(Refusal),
    /// The server could not be reached or let nobody in. Nothing was sent.
    Unreachable(Box<dyn Error + Send + Sync>),
    /// The content was sent and no reply came: it may or may not be delivered.
    Unknown(Box<dyn Error + Send + Sync>),
}

/// A negative reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// What was refused.
    pub step: Step,
    /// Reply code, 400 to 599.
    pub code: u16,
    /// Enhanced status code, such as 5.1.1, where the server sends one.
    pub enhanced: Option<(u16, u16, u16)>,
}

/// The steps of handing over a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// MAIL FROM.
    Sender,
    /// RCPT TO.
    Recipient,
    /// DATA, and the content itself.
    Content,
}

impl fmt::Display for Refusal {
    /// Codes only: the text of a reply often quotes the address.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let step = match self.step {
            Step::Sender => "sender",
            Step::Recipient => "recipient",
            Step::Content => "content",
        };
        match self.enhanced {
            Some((class, subject, detail)) => write!(out, "{step} {} {class}.{subject}.{detail}", self.code),
            None => write!(out, "{step} {}", self.code),
        }
    }
}

/// How the connection is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protection {
    /// Not at all: for a relay on this machine.
    None,
    /// Upgraded by STARTTLS where the server offers it, which whoever is in between can prevent. A password is sent only when
    /// it was upgraded.
    Opportunistic,
    /// Upgraded by STARTTLS, which the server must offer.
    StartTls,
    /// TLS from the first byte.
    Tls,
}

/// How to reach the mail server.
#[derive(Clone)]
pub struct SmtpSettings {
    /// Host name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Transport security.
    pub protection: Protection,
    /// User and password, where the server asks for them.
    pub credentials: Option<(String, String)>,
    /// The name this client greets with; the machine's own name when empty.
    pub hello_name: String,
    /// Limit of each step of the dialogue.
    pub step_timeout: Duration,
    /// Connections open at once; further messages wait.
    pub connections_max: usize,
    /// How long an unused connection is kept.
    pub idle_max: Duration,
    /// Certificates of the authorities that may sign the server's, in PEM; without them, those that the system trusts.
    pub authorities_pem: Option<String>,
    /// Messages a second, over all connections.
    pub rate: Option<Rate>,
}

/// A limit of messages a second.
#[derive(Debug, Clone, Copy)]
pub struct Rate {
    /// How many.
    pub per_second_max: u32,
    /// How long [`Mailer::turn`] may wait.
    pub wait_max: Duration,
}

impl fmt::Debug for SmtpSettings {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("SmtpSettings")
            .field("host", &self.host)
            .field("port", &self.port)
            .field("protection", &self.protection)
            .field("credentials", &self.credentials.as_ref().map(|_| "(secret)"))
            .finish_non_exhaustive()
    }
}

/// The real mail server.
pub struct SmtpMailer {
    settings: SmtpSettings,
    hello: ClientId,
    tls: Option<TlsParameters>,
    pace: Option<Pace>,
    open: Semaphore,
    idle: Mutex<Vec<(AsyncSmtpConnection, Instant)>>,
}

impl fmt::Debug for SmtpMailer {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("SmtpMailer")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

/// What TLS needs cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("TLS to the mail server is not possible; are the certificates of authorities right?")]
pub struct TlsUnusable(#[source] lettre::transport::smtp::Error);

impl SmtpMailer {
    /// A mailer that connects when the first message comes.
    ///
    /// # Errors
    /// When the certificates of authorities are none, or TLS is asked for and the system trusts nobody.
    pub fn new(settings: SmtpSettings) -> Result<Self, TlsUnusable> {
        let hello = if settings.hello_name.is_empty() {
            ClientId::default()
        } else {
            ClientId::Domain(settings.hello_name.clone())
        };
        let tls = match settings.protection {
            Protection::None => None,
            Protection::Opportunistic | Protection::StartTls | Protection::Tls => {
                Some(tls_parameters(&settings).map_err(TlsUnusable)?)
            }
        };
        Ok(Self {
            open: Semaphore::new(settings.connections_max.max(1)),
            pace: settings.rate.map(|rate| Pace::new(rate.per_second_max, rate.wait_max)),
            settings,
            hello,
            tls,
            idle: Mutex::default(),
        })
    }

    /// A connection that answered just now: a kept one, or a new one.
    async fn connection(&self) -> Result<AsyncSmtpConnection, StepError> {
        loop {
            let kept = self.idle.lock().expect("no panic while held").pop();
            let Some((mut connection, since)) = kept else {
                return self.connect().await;
            };
            let fresh = since.elapsed() < self.settings.idle_max;
            if fresh && self.step(connection.command(Rset)).await.is_ok() {
                return Ok(connection);
            }
        }
    }

    /// Connects and logs in, and hands over nothing.
    ///
    /// # Errors
    /// Why the server lets us not in; a [`Hindered`](crate::hindrance::Hindered) where it is there.
    pub async fn look(&self) -> Result<(), Box<dyn Error + Send + Sync>> {
        let before = before_content_max(self.settings.step_timeout);
        let connected = timeout(before, self.connect()).await;
        let mut connection = match connected {
            Ok(Ok(connection)) => connection,
            Ok(Err(error)) => return Err(error.unreachable()),
            Err(_) => return Err(Late(before).into()),
        };
        // Whoever was let in may leave without a word too.
        drop(self.step(connection.quit()).await);
        Ok(())
    }

    async fn connect(&self) -> Result<AsyncSmtpConnection, StepError> {
        let settings = &self.settings;
        let wrapped = self.tls.clone().filter(|_| settings.protection == Protection::Tls);
        let server = (settings.host.as_str(), settings.port);
        let limit = Some(settings.step_timeout);
        let mut connection = self
            .step(AsyncSmtpConnection::connect_tokio1(
                server,
                limit,
                &self.hello,
                wrapped,
                None,
            ))
            .await?;
        let upgrades = match settings.protection {
            Protection::StartTls => true,
            Protection::Opportunistic => connection.server_info().supports_feature(Extension::StartTls),
            Protection::None | Protection::Tls => false,
        };
        if let (Some(parameters), true) = (self.tls.clone(), upgrades) {
            self.step(connection.starttls(parameters, &self.hello)).await?;
        }
        if let Some((user, password)) = &settings.credentials {
            if settings.protection == Protection::Opportunistic && !upgrades {
                return Err(StepError::Broken(InClear.into()).named(&self.place()));
            }
            let credentials = Credentials::new(user.clone(), password.clone());
            let entered = self.step(connection.auth(DEFAULT_MECHANISMS, &credentials)).await;
            entered.map_err(|error| error.of_login(&self.place()))?;
        }
        Ok(connection)
    }

    async fn step<T>(
        &self,
        dialogue: impl Future<Output = Result<T, lettre::transport::smtp::Error>>,
    ) -> Result<T, StepError> {
        match timeout(self.settings.step_timeout, dialogue).await {
            Ok(result) => result.map_err(|error| StepError::of(error).named(&self.place())),
            Err(_) => Err(StepError::Broken(Late(self.settings.step_timeout).into())),
        }
    }

    fn place(&self) -> String {
        format!("{}:{}", self.settings.host, self.settings.port)
    }

    /// Everything up to the word that the content may come: a connection, the sender, the recipient.
    async fn offer(&self, envelope: &Envelope, message: &[u8]) -> Result<Offered<'_>, Sent> {
        let permit = self.open.acquire().await.expect("the semaphore is never closed");
        let mut connection = match self.connection().await {
            Ok(connection) => connection,
            Err(error) => return Err(Sent::Unreachable(error.unreachable())),
        };
        match self.announce(&mut connection, envelope, message).await {
            Ok(()) => Ok(Offered {
                connection,
                _permit: permit,
            }),
            Err(sent) => {
                self.keep(connection, &sent);
                Err(sent)
            }
        }
    }

    async fn announce(
        &self,
        connection: &mut AsyncSmtpConnection,
        envelope: &Envelope,
        message: &[u8],
    ) -> Result<(), Sent> {
        let info = connection.server_info();
        let ascii: &str = envelope.to.as_ref();
        let mut parameters = Vec::new();
        if !ascii.is_ascii() {
            if !info.supports_feature(Extension::SmtpUtfEight) {
                let enhanced = Some((5, 6, 7));
                return Err(Sent::Refused(Refusal {
                    step: Step::Content,
                    code: 553,
                    enhanced,
                }));
            }
            parameters.push(MailParameter::SmtpUtfEight);
        }
        if !message.is_ascii() && info.supports_feature(Extension::EightBitMime) {
            parameters.push(MailParameter::Body(MailBodyParameter::EightBitMime));
        }
        let sender = Mail::new(Some(envelope.from.clone()), parameters);
        let recipient = Rcpt::new(envelope.to.clone(), Vec::new());
        let sender = self.step(connection.command(sender)).await;
        sender.map_err(|error| before_content(Step::Sender, error))?;
        let recipient = self.step(connection.command(recipient)).await;
        recipient.map_err(|error| before_content(Step::Recipient, error))?;
        let data = self.step(connection.command(Data)).await;
        data.map_err(|error| before_content(Step::Content, error))?;
        Ok(())
    }

    /// Keeps a connection for the next mail. After a refusal the next user's RSET makes it clean again; a broken one is not
    /// kept.
    fn keep(&self, connection: AsyncSmtpConnection, sent: &Sent) {
        if matches!(sent, Sent::Accepted { .. } | Sent::Refused(_)) {
            let mut idle = self.idle.lock().expect("no panic while held");
            idle.push((connection, Instant::now()));
        }
    }
}

/// A connection on which the content may be sent.
struct Offered<'a> {
    connection: AsyncSmtpConnection,
    _permit: SemaphorePermit<'a>,
}

#[async_trait]
impl Mailer for SmtpMailer {
    async fn turn(&self) -> Result<(), Duration> {
        match &self.pace {
            Some(pace) => pace.turn().await,
            None => Ok(()),
        }
    }

    async fn send_raw(&self, envelope: &Envelope, message: &[u8]) -> Sent {
        // One limit for all of it, the wait for a connection included: behind a server that hangs, whoever waits would
        // outlive its attempt, and the outage would be counted.
        let before = before_content_max(self.settings.step_timeout);
        let mut offered = match timeout(before, self.offer(envelope, message)).await {
            Ok(Ok(offered)) => offered,
            Ok(Err(sent)) => return sent,
            Err(_) => return Sent::Unreachable(Late(before).into()),
        };
        let sent = match self.step(offered.connection.message(message)).await {
            Ok(response) => Sent::Accepted {
                reply: reply(&response),
            },
            Err(StepError::Refused { code, text }) => Sent::Refused(refusal(Step::Content, code, &text)),
            Err(StepError::Broken(error)) => Sent::Unknown(error),
        };
        self.keep(offered.connection, &sent);
        sent
    }
}

fn tls_parameters(settings: &SmtpSettings) -> Result<TlsParameters, lettre::transport::smtp::Error> {
    let builder = TlsParameters::builder(settings.host.clone());
    match &settings.authorities_pem {
        None => builder.build(),
        Some(pem) => {
            let authorities = Certificate::from_pem(pem.as_bytes())?;
            let alone = builder.certificate_store(CertificateStore::None);
            alone.add_root_certificate(authorities).build()
        }
    }
}

/// How long everything before the content may take. With the content that makes two and a half steps, which the
/// configuration keeps below the time-out of an attempt.
fn before_content_max(step_timeout: Duration) -> Duration {
    step_timeout * 3 / 2
}

fn before_content(step: Step, error: StepError) -> Sent {
    match error {
        StepError::Refused { code, text } => Sent::Refused(refusal(step, code, &text)),
        StepError::Broken(error) => Sent::Unreachable(error),
    }
}

fn refusal(step: Step, code: u16, text: &str) -> Refusal {
    Refusal {
        step,
        code,
        enhanced: enhanced(text),
    }
}

/// The enhanced status code at the beginning of a reply's text, as in `5.1.1 no such user`.
fn enhanced(text: &str) -> Option<(u16, u16, u16)> {
    let mut numbers = text
        .split_whitespace()
        .next()?
        .split('.')
        .map(|part| part.parse::<u16>().ok());
    let code = (numbers.next()??, numbers.next()??, numbers.next()??);
    (numbers.next().is_none() && matches!(code.0, 2 | 4 | 5)).then_some(code)
}

/// The first line of a reply, cut: enough to find the mail in the server's log.
fn reply(response: &Response) -> String {
    let line: String = response.first_line().unwrap_or_default().chars().take(200).collect();
    format!("{} {line}", response.code())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn enhanced_codes_are_read_where_they_stand_first() {
        assert_eq!(enhanced("5.1.1 no such user"), Some((5, 1, 1)));
        assert_eq!(enhanced("4.7.0"), Some((4, 7, 0)));
        assert_eq!(enhanced("mailbox 5.1.1 unknown"), None);
        assert_eq!(enhanced("10.0.0.1 is blocked"), None);
        assert_eq!(enhanced("5.1.1.1 x"), None);
        assert_eq!(enhanced(""), None);
    }

    #[test]
    fn a_refusal_prints_codes_and_no_text() {
        let shown = refusal(Step::Recipient, 550, "5.1.1 <bob@example.org> unknown").to_string();
        assert_eq!(shown, "recipient 550 5.1.1");
    }
}
