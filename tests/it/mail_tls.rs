//! The mail server over TLS: what the mailer takes for it and what it refuses, and that a password is never sent in the clear.
//!
//! A front before the real catcher speaks TLS from the first byte or after STARTTLS, and asks for a login.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use afterwrite::clients::mailer::{Envelope, Mailer, Protection, Sent, SmtpMailer, SmtpSettings};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufStream, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::authority::Authority;
use crate::stack;

pub(crate) const USER: &str = "waitlist";
pub(crate) const PASSWORD: &str = "s3cret p\u{e4}ss";

/// When the front speaks TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Speaks {
    FromTheFirstByte,
    AfterStartTls,
    Never,
}

/// A front, and what it was told before TLS began.
pub(crate) struct Front {
    pub(crate) port: u16,
    in_clear: Arc<Mutex<String>>,
    password: watch::Sender<&'static str>,
}

impl Front {
    pub(crate) async fn start(speaks: Speaks, acceptor: TlsAcceptor, wants_login: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let in_clear = Arc::new(Mutex::new(String::new()));
        let told = Arc::clone(&in_clear);
        let (password, asked_for) = watch::channel(PASSWORD);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, told) = (acceptor.clone(), Arc::clone(&told));
                let mut asked_for = asked_for.clone();
                let login = wants_login.then(|| login(*asked_for.borrow_and_update()));
                tokio::spawn(async move {
                    // Errors end one connection: the client sees them.
                    tokio::select! {
                        ended = converse(stream, speaks, acceptor, login, told) => drop(ended),
                        Ok(()) = asked_for.changed() => {}
                    }
                });
            }
        });
        Self {
            port,
            in_clear,
            password,
        }
    }

    /// Asks for another password, also those who are connected.
    pub(crate) fn change_password(&self, password: &'static str) {
        self.password.send_replace(password);
    }
}

/// What a client says who logs in with a password.
fn login(password: &str) -> String {
    format!("AUTH PLAIN {}", BASE64.encode(format!("\0{USER}\0{password}")))
}

async fn converse(
    stream: TcpStream,
    speaks: Speaks,
    acceptor: TlsAcceptor,
    login: Option<String>,
    told: Arc<Mutex<String>>,
) -> std::io::Result<()> {
    let catcher = format!("{}:{}", stack::address("SMTP_HOST"), stack::address("SMTP_PORT"));
    let mut catcher = BufStream::new(TcpStream::connect(catcher).await?);
    let mut greeting = String::new();
    catcher.read_line(&mut greeting).await?;
    if speaks == Speaks::FromTheFirstByte {
        let mut client = BufStream::new(acceptor.accept(stream).await?);
        say(&mut client, &greeting).await?;
        return dialogue(&mut client, &mut catcher, "", login, None).await.map(|_| ());
    }
    let mut client = BufStream::new(stream);
    say(&mut client, &greeting).await?;
    let offer = match speaks {
        Speaks::AfterStartTls => "250-STARTTLS\r\n",
        _ => "",
    };
    if dialogue(&mut client, &mut catcher, offer, login.clone(), Some(&told)).await? {
        let mut client = BufStream::new(acceptor.accept(client.into_inner()).await?);
        dialogue(&mut client, &mut catcher, "", login, None).await?;
    }
    Ok(())
}

async fn say<S: AsyncRead + AsyncWrite + Unpin>(client: &mut BufStream<S>, text: &str) -> std::io::Result<()> {
    client.write_all(text.as_bytes()).await?;
    client.flush().await
}

/// Passes on what is said until TLS is to begin, which it answers, or the connection ends.
async fn dialogue<S: AsyncRead + AsyncWrite + Unpin>(
    client: &mut BufStream<S>,
    catcher: &mut BufStream<TcpStream>,
    offer: &str,
    login: Option<String>,
    told: Option<&Mutex<String>>,
) -> std::io::Result<bool> {
    let mut logged_in = login.is_none();
    loop {
        let mut line = String::new();
        if client.read_line(&mut line).await? == 0 {
            return Ok(false);
        }
        if let Some(told) = told {
            told.lock().unwrap().push_str(&line);
        }
        match line.split_whitespace().next().unwrap_or_default() {
            "STARTTLS" => {
                say(client, "220 2.0.0 go ahead\r\n").await?;
                return Ok(true);
            }
            "AUTH" => {
                logged_in = Some(line.trim_end()) == login.as_deref();
                let answer = if logged_in { "235 2.7.0 welcome" } else { "535 5.7.8 no" };
                say(client, &format!("{answer}\r\n")).await?;
            }
            "MAIL" if !logged_in => say(client, "530 5.7.0 log in first\r\n").await?,
            "MAIL" => {
                say(catcher, &line).await?;
                copy_bidirectional(client, catcher).await?;
                return Ok(false);
            }
            command => {
                say(catcher, &line).await?;
                let mut reply = String::new();
                while reply
                    .lines()
                    .last()
                    .is_none_or(|last| last.as_bytes().get(3) != Some(&b' '))
                {
                    catcher.read_line(&mut reply).await?;
                }
                if command == "EHLO" {
                    let first = reply.find('\n').unwrap() + 1;
                    // A server that offers a login in the clear is just who it must not be given to.
                    let login = if login.is_some() { "250-AUTH PLAIN\r\n" } else { "" };
                    reply.insert_str(first, &format!("{offer}{login}"));
                }
                say(client, &reply).await?;
            }
        }
    }
}

pub(crate) fn acceptor(authority: &Authority, name: &str) -> TlsAcceptor {
    let certificate = CertificateDer::from_pem_file(authority.path(&format!("{name}.pem"))).unwrap();
    let key = PrivateKeyDer::from_pem_file(authority.path(&format!("{name}.key"))).unwrap();
    // Two providers are linked, so none is the default.
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    let config = config
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth();
    TlsAcceptor::from(Arc::new(config.with_single_cert(vec![certificate], key).unwrap()))
}

/// One mail to a server at this port; answers what became of it, and whether the catcher has it.
async fn send(port: u16, protection: Protection, authority: &Authority, password: Option<&str>) -> (Sent, bool) {
    let mailer = SmtpMailer::new(SmtpSettings {
        host: "localhost".to_owned(),
        port,
        protection,
        credentials: password.map(|password| (USER.to_owned(), password.to_owned())),
        hello_name: "worker.test".to_owned(),
        step_timeout: Duration::from_secs(5),
        connections_max: 1,
        idle_max: Duration::from_secs(5),
        authorities_pem: Some(authority.text("ca.pem")),
        rate: None,
    });
    let envelope = Envelope {
        from: "a@example.org".parse().unwrap(),
        to: "b@example.org".parse().unwrap(),
    };
    let mark = uuid::Uuid::new_v4().to_string();
    let sent = mailer
        .unwrap()
        .send_raw(&envelope, format!("Subject: {mark}\r\n\r\nx\r\n").as_bytes())
        .await;
    let files = std::fs::read_dir(stack::address("MAILBOX_DIR")).unwrap();
    let kept = files
        .filter_map(|file| std::fs::read_to_string(file.unwrap().path()).ok())
        .any(|mail| mail.contains(&mark));
    (sent, kept)
}

#[tokio::test(flavor = "multi_thread")]
async fn mails_go_over_tls_to_who_shows_the_right_certificate_and_to_nobody_else() {
    use Protection::{None as Clear, Opportunistic, StartTls, Tls};
    let _stack = stack::shared().await;
    let (authority, stranger) = (Authority::new(), Authority::new());
    for name in ["localhost", "elsewhere.example"] {
        authority.sign(name);
    }
    stranger.sign("localhost");
    let right = acceptor(&authority, "localhost");
    let by_a_stranger = acceptor(&stranger, "localhost");
    let of_another = acceptor(&authority, "elsewhere.example");
    use Speaks::{AfterStartTls, FromTheFirstByte, Never};
    for (speaks, shows, protection, password, arrives) in [
        (FromTheFirstByte, &right, Tls, None, true),
        (FromTheFirstByte, &right, Tls, Some(PASSWORD), true),
        (FromTheFirstByte, &right, Tls, Some("wrong"), false),
        (FromTheFirstByte, &by_a_stranger, Tls, Some(PASSWORD), false),
        (FromTheFirstByte, &of_another, Tls, Some(PASSWORD), false),
        (AfterStartTls, &right, StartTls, None, true),
        (AfterStartTls, &right, StartTls, Some(PASSWORD), true),
        (AfterStartTls, &by_a_stranger, StartTls, Some(PASSWORD), false),
        (AfterStartTls, &of_another, StartTls, None, false),
        (Never, &right, StartTls, Some(PASSWORD), false),
        (Never, &right, StartTls, None, false),
        (AfterStartTls, &right, Opportunistic, Some(PASSWORD), true),
        (AfterStartTls, &by_a_stranger, Opportunistic, None, false),
        (Never, &right, Opportunistic, None, true),
        (Never, &right, Opportunistic, Some(PASSWORD), false),
        (Never, &right, Clear, None, true),
        // A server of TLS that is spoken to in the clear, and the other way round.
        (FromTheFirstByte, &right, StartTls, Some(PASSWORD), false),
        (Never, &right, Tls, Some(PASSWORD), false),
    ] {
        let front = Front::start(speaks, shows.clone(), password.is_some()).await;
        let (sent, kept) = send(front.port, protection, &authority, password).await;
        let case = format!("{speaks:?} {protection:?} {password:?}: {sent:?}");
        assert_eq!(kept, arrives, "{case}");
        match sent {
            Sent::Accepted { .. } => assert!(arrives, "{case}"),
            // Nothing was sent and it is nobody's fault but the server's: an outage.
            Sent::Unreachable(error) => assert!(!arrives && !error.to_string().contains("s3cret"), "{case}"),
            Sent::Refused(_) | Sent::Unknown(_) => panic!("{case}"),
        }
        let in_clear = front.in_clear.lock().unwrap().clone();
        assert!(!in_clear.contains("AUTH"), "{case}: {in_clear}");
        let may_be_clear = arrives && speaks == Never;
        assert!(may_be_clear || !in_clear.contains("MAIL"), "{case}: {in_clear}");
    }
}
