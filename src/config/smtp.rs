//! The mail server, or the folder that takes its place.

use serde::{Deserialize, Serialize};

use super::value::Secret;
use super::waitlist::is_local_host;

/// The mail server: a submission relay.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Smtp {
    /// What becomes of mails.
    pub transport: MailTransport,
    /// The folder of [`MailTransport::File`].
    pub directory: Option<String>,
    /// Host name or address; this machine when absent.
    pub host: Option<String>,
    /// Port.
    pub port: u16,
    /// How the connection is protected.
    pub tls: SmtpTls,
    /// Certificates of the authorities that may sign the server's, in PEM; the system's when absent.
    pub ca_pem: Option<Secret>,
    /// User name, where the relay asks for one.
    pub user: Option<String>,
    /// Password of that user.
    pub password: Option<Secret>,
    /// Sender of mails whose campaign names none.
    pub from_address: String,
    /// Name of that sender.
    pub from_name: Option<String>,
    /// The name this client greets with; the machine's own when absent.
    pub hello_name: Option<String>,
    /// How long one step of the dialogue may take.
    pub step_timeout_ms: u64,
    /// Connections kept open.
    pub connections_max: usize,
    /// Mails that this process hands over within a second; without it, as many as the server takes.
    pub mails_per_second_max: Option<u32>,
}

impl Default for Smtp {
    fn default() -> Self {
        Self {
            transport: MailTransport::Smtp,
            directory: None,
            host: None,
            port: 2525,
            tls: SmtpTls::Auto,
            ca_pem: None,
            user: None,
            password: None,
            from_address: "waitlist@localhost".to_owned(),
            from_name: None,
            hello_name: None,
            step_timeout_ms: 10_000,
            connections_max: 2,
            mails_per_second_max: None,
        }
    }
}

/// What becomes of mails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MailTransport {
    /// They are handed to a mail server.
    Smtp,
    /// Each is written to a file, and nobody gets it: for development.
    File,
}

/// How the connection to the mail server is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SmtpTls {
    /// `implicit` on port 465, `none` on this machine, `starttls` everywhere else.
    Auto,
    /// Plain text.
    None,
    /// STARTTLS where the server offers it.
    Opportunistic,
    /// STARTTLS, required.
    Starttls,
    /// TLS from the first byte.
    Implicit,
}

impl Smtp {
    /// Where the mail server is.
    pub fn effective_host(&self) -> &str {
        self.host.as_deref().unwrap_or("localhost")
    }

    /// What [`SmtpTls::Auto`] stands for here; never [`SmtpTls::Auto`] itself.
    pub fn effective_tls(&self) -> SmtpTls {
        match self.tls {
            SmtpTls::Auto if self.port == 465 => SmtpTls::Implicit,
            SmtpTls::Auto if is_local_host(self.effective_host()) => SmtpTls::None,
            SmtpTls::Auto => SmtpTls::Starttls,
            chosen => chosen,
        }
    }

    pub(super) fn sends_password_in_clear(&self) -> bool {
        self.password.is_some() && self.effective_tls() == SmtpTls::None && !is_local_host(self.effective_host())
    }
}
