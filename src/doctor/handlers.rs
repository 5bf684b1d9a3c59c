//! What handlers call.

use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;

use super::codes;
use super::finding::{Finding, Remedy};

/// Whether the mail server takes connections; why not, where it does not.
pub(super) async fn mail_server(host: &str, port: u16, patience: Duration) -> Option<String> {
    match timeout(patience, TcpStream::connect((host, port))).await {
        Ok(Ok(_)) => None,
        Ok(Err(error)) => Some(error.to_string()),
        Err(_) => Some(format!("no answer within {} s", patience.as_secs())),
    }
}

pub(super) fn of_mail_server(host: &str, port: u16, refusal: &str) -> Finding {
    codes::MAIL_UNREACHABLE.found(
        format!("the mail server at {host}:{port} takes no connection: {refusal}"),
        Remedy::words("start it, or correct smtp.host (SMTP_HOST) and smtp.port (SMTP_PORT)"),
    )
}
