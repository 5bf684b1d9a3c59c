//! Servers that a test scripts: one that takes mail or does not, and one that receives webhooks.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use afterwrite::clients::mailer::{Envelope, Mailer, Sent};
use async_trait::async_trait;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

/// What the mail server does with one mail.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Smtp {
    Accept,
    /// This reply to RCPT.
    RefuseRecipient(&'static str),
    /// This reply to the content.
    RefuseContent(&'static str),
    /// The content is taken and the connection closed without a reply.
    LoseReply,
}

pub(crate) struct MailServer {
    pub(crate) address: SocketAddr,
    /// Contents that came, accepted or not.
    pub(crate) received: Arc<Mutex<Vec<String>>>,
    lost: Arc<AtomicUsize>,
}

impl MailServer {
    /// A server that follows the script, mail by mail, and then accepts.
    pub(crate) async fn start(script: &[Smtp]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let received = Arc::new(Mutex::new(Vec::new()));
        let steps = Arc::new(Mutex::new(VecDeque::from(script.to_vec())));
        let lost = Arc::new(AtomicUsize::new(0));
        let (kept, losing) = (Arc::clone(&received), Arc::clone(&lost));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (steps, kept, losing) = (Arc::clone(&steps), Arc::clone(&kept), Arc::clone(&losing));
                tokio::spawn(converse(stream, steps, kept, losing));
            }
        });
        Self {
            address,
            received,
            lost,
        }
    }

    /// Contents that were taken without a reply.
    pub(crate) fn lost(&self) -> usize {
        self.lost.load(Ordering::SeqCst)
    }

    pub(crate) fn mails(&self) -> Vec<String> {
        self.received.lock().unwrap().clone()
    }
}

/// A way to the mail server at which the next mail has to wait until the test lets it go on: it is rendered, and nobody knows of
/// it yet.
pub(crate) struct Gate {
    mailer: Arc<dyn Mailer>,
    closed: AtomicBool,
    /// A mail has come to the gate.
    pub(crate) came: Notify,
    pub(crate) opened: Notify,
}

impl Gate {
    pub(crate) fn before(mailer: Arc<dyn Mailer>) -> Arc<Self> {
        Arc::new(Self {
            mailer,
            closed: AtomicBool::new(false),
            came: Notify::new(),
            opened: Notify::new(),
        })
    }

    /// For the next mail.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
    }
}

#[async_trait]
impl Mailer for Gate {
    async fn turn(&self) -> Result<(), Duration> {
        if self.closed.swap(false, Ordering::SeqCst) {
            self.came.notify_one();
            self.opened.notified().await;
        }
        self.mailer.turn().await
    }

    async fn send_raw(&self, envelope: &Envelope, message: &[u8]) -> Sent {
        self.mailer.send_raw(envelope, message).await
    }
}

async fn converse(
    stream: TcpStream,
    steps: Arc<Mutex<VecDeque<Smtp>>>,
    kept: Arc<Mutex<Vec<String>>>,
    lost: Arc<AtomicUsize>,
) -> Option<()> {
    let mut stream = BufReader::new(stream);
    stream.write_all(b"220 test\r\n").await.ok()?;
    let mut step = Smtp::Accept;
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await.ok()? == 0 {
            return None;
        }
        let reply = match line.split_whitespace().next()?.to_ascii_uppercase().as_str() {
            "EHLO" => "250-test\r\n250 8BITMIME",
            "MAIL" => {
                step = steps.lock().unwrap().pop_front().unwrap_or(Smtp::Accept);
                "250 ok"
            }
            "RCPT" => match step {
                Smtp::RefuseRecipient(reply) => reply,
                _ => "250 ok",
            },
            "DATA" => {
                stream.write_all(b"354 go on\r\n").await.ok()?;
                let mut content = String::new();
                while !content.ends_with("\r\n.\r\n") {
                    if stream.read_line(&mut content).await.ok()? == 0 {
                        return None;
                    }
                }
                kept.lock().unwrap().push(content);
                match step {
                    Smtp::LoseReply => {
                        lost.fetch_add(1, Ordering::SeqCst);
                        return None;
                    }
                    Smtp::RefuseContent(reply) => reply,
                    Smtp::Accept | Smtp::RefuseRecipient(_) => "250 2.0.0 queued as 1",
                }
            }
            _ => "250 ok",
        };
        stream.write_all(format!("{reply}\r\n").as_bytes()).await.ok()?;
    }
}

/// One request as it came.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> String {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        let found = lines.into_iter().find(|(header, _)| header.eq_ignore_ascii_case(name));
        found.unwrap_or_else(|| panic!("no {name}")).1.to_owned()
    }
}

pub(crate) struct Receiver {
    pub(crate) url: String,
    received: Arc<Mutex<Vec<Request>>>,
}

impl Receiver {
    /// A receiver that gives these answers (status line and headers), and then 204.
    pub(crate) async fn start(answers: &[&str]) -> Self {
        Self::start_at("127.0.0.1:0", answers).await
    }

    /// One at this address.
    pub(crate) async fn start_at(address: &str, answers: &[&str]) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let url = format!("http://{}/hook?secret=url", listener.local_addr().unwrap());
        let received = Arc::new(Mutex::new(Vec::new()));
        let mut script: VecDeque<String> = answers.iter().map(ToString::to_string).collect();
        let kept = Arc::clone(&received);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let answer = script.pop_front().unwrap_or_else(|| "204 No Content".to_owned());
                exchange(stream, &answer, &kept).await;
            }
        });
        Self { url, received }
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.received.lock().unwrap().clone()
    }
}

async fn exchange(stream: TcpStream, answer: &str, kept: &Mutex<Vec<Request>>) -> Option<()> {
    let mut stream = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head).await.ok()? == 0 {
            return None;
        }
    }
    let length = head.to_ascii_lowercase();
    let length = length
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "))
        .unwrap_or("0");
    let mut body = vec![0; length.trim().parse().ok()?];
    stream.read_exact(&mut body).await.ok()?;
    let body = String::from_utf8(body).ok()?;
    kept.lock().unwrap().push(Request { head, body });
    let reply = format!("HTTP/1.1 {answer}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    stream.write_all(reply.as_bytes()).await.ok()
}
