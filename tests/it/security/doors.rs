//! Doors before a real service: TLS with a certificate of one's choice, and a login where one is asked for.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

/// A door before a service that speaks HTTP.
pub(super) struct Door {
    pub(super) port: u16,
    login: watch::Sender<Option<String>>,
}

impl Door {
    /// Opens one; `login` is `user:password`.
    pub(super) async fn open(acceptor: TlsAcceptor, inside: &str, login: Option<&str>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let inside: Arc<str> = inside.into();
        let (login, asked_for) = watch::channel(login.map(|login| BASE64.encode(login)));
        tokio::spawn(async move {
            while let Ok((outside, _)) = listener.accept().await {
                let (acceptor, inside, login) = (acceptor.clone(), Arc::clone(&inside), asked_for.borrow().clone());
                tokio::spawn(async move {
                    // Errors end one connection: the client sees them.
                    if let Ok(outside) = acceptor.accept(outside).await {
                        drop(pass(outside, &inside, login.as_deref()).await);
                    }
                });
            }
        });
        Self { port, login }
    }

    /// Asks each who comes from now on for another login.
    pub(super) fn change_login(&self, login: &str) {
        self.login.send_replace(Some(BASE64.encode(login)));
    }
}

/// One connection with one request.
async fn pass(
    mut outside: impl AsyncRead + AsyncWrite + Unpin,
    inside: &str,
    login: Option<&str>,
) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(outside.read_u8().await?);
    }
    let head = String::from_utf8(head).unwrap();
    let shown = login.map(|login| format!("authorization: basic {login}\r\n").to_lowercase());
    if shown.is_none_or(|shown| head.to_lowercase().contains(&shown)) {
        let mut service = TcpStream::connect(inside).await?;
        let closing = head.replacen("\r\n", "\r\nconnection: close\r\n", 1);
        service.write_all(closing.as_bytes()).await?;
        // A request may have a body.
        tokio::io::copy_bidirectional(&mut service, &mut outside).await?;
    } else {
        let refusal = b"HTTP/1.1 401 Unauthorized\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
        outside.write_all(refusal).await?;
    }
    outside.shutdown().await
}
