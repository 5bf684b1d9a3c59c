//! One SMTP connection, from greeting to goodbye.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::sync::watch;

use super::Shared;
use super::command::{self, Command, MAIL_LINE_BYTES_MAX, Sender};
use super::mailbox::Envelope;
use super::script::Wish;

/// Largest mail, announced by SIZE.
const MESSAGE_BYTES_MAX: usize = 10 * 1024 * 1024;

/// RFC 5321 4.5.3.1.6: a line of text with its line end, the dot that was stuffed not counted.
const TEXT_LINE_BYTES_MAX: usize = 1_000;

/// RFC 5321 4.5.3.1.8 asks for at least 100.
const RECIPIENTS_MAX: usize = 100;

/// RFC 5321 4.5.3.2.7: how long a server waits for the next command.
const IDLE_MAX: Duration = Duration::from_secs(300);

/// Refused commands after which the server gives up on a client.
const REFUSED_COMMANDS_MAX: u32 = 100;

/// One reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reply {
    code: u16,
    /// The enhanced status code; empty for replies that have none (greeting, EHLO, 354).
    enhanced: String,
    text: String,
}

impl Reply {
    pub(super) fn new(code: u16, enhanced: &str, text: &str) -> Self {
        Self {
            code,
            enhanced: enhanced.to_owned(),
            text: text.to_owned(),
        }
    }

    pub(super) fn deferred() -> Self {
        Self::new(451, "4.3.0", "come back later")
    }

    pub(super) fn line_too_long() -> Self {
        Self::new(500, "5.5.2", "the line was too long")
    }

    fn out_of_sequence(text: &str) -> Self {
        Self::new(503, "5.5.1", text)
    }

    fn is_refusal(&self) -> bool {
        self.code >= 400
    }

    fn to_line(&self) -> String {
        match self.enhanced.as_str() {
            "" => format!("{} {}\r\n", self.code, self.text),
            enhanced => format!("{} {enhanced} {}\r\n", self.code, self.text),
        }
    }
}

/// Tells a client that there is no place left.
pub(super) async fn refuse_for_now(mut stream: TcpStream) -> io::Result<()> {
    let reply = Reply::new(421, "4.3.2", "too many connections, come back later");
    stream.write_all(reply.to_line().as_bytes()).await?;
    stream.shutdown().await
}

/// Serves one connection until the client leaves, breaks the rules too often, or the server stops.
pub(super) async fn run(stream: TcpStream, shared: &Shared, mut stop: watch::Receiver<bool>) -> io::Result<()> {
    let mut session = Session {
        wire: Wire {
            stream: BufReader::new(stream),
            replies: Vec::new(),
        },
        shared,
        helo: None,
        mail: None,
        refused: 0,
    };
    session.wire.say(&Reply::new(220, "", "afterwrite mail-catcher ESMTP"));
    loop {
        session.wire.flush_unless_pipelined().await?;
        let line = tokio::select! {
            _ = stop.wait_for(|stopping| *stopping) => {
                session.wire.say(&Reply::new(421, "4.3.2", "the server is stopping"));
                break;
            }
            read = tokio::time::timeout(IDLE_MAX, session.wire.read_line(MAIL_LINE_BYTES_MAX)) => match read {
                Err(_) => {
                    session.wire.say(&Reply::new(421, "4.4.2", "no command came for five minutes"));
                    break;
                }
                Ok(line) => line?,
            },
        };
        if matches!(line, Line::End) || session.answer(line).await? == Next::Close {
            break;
        }
        if session.refused >= REFUSED_COMMANDS_MAX {
            session
                .wire
                .say(&Reply::new(421, "4.7.0", "too many commands were refused"));
            break;
        }
    }
    session.wire.close().await
}

/// What happens after a command.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    Continue,
    Close,
}

/// The mail being described.
#[derive(Debug)]
struct Draft {
    sender: Sender,
    recipients: Vec<String>,
    after: After,
}

/// What follows when the content has come.
#[derive(Debug)]
enum After {
    Keep,
    KeepAndLeave,
    Leave,
    Refuse(Reply),
}

struct Session<'a> {
    wire: Wire,
    shared: &'a Shared,
    helo: Option<String>,
    mail: Option<Draft>,
    refused: u32,
}

impl Session<'_> {
    async fn answer(&mut self, line: Line) -> io::Result<Next> {
        let command = match line {
            Line::Text { bytes, whole_bytes, .. } => command::parse(&bytes, whole_bytes),
            Line::TooLong { .. } | Line::End => Err(Reply::line_too_long()),
        };
        let reply = match command {
            Ok(Command::Data) => return self.data().await,
            Ok(Command::Quit) => {
                self.wire.say(&Reply::new(221, "2.0.0", "goodbye"));
                return Ok(Next::Close);
            }
            Ok(Command::Ehlo { name }) => {
                self.greet(name);
                self.wire.say_extensions();
                return Ok(Next::Continue);
            }
            Ok(command) => self.decide(command),
            Err(refusal) => refusal,
        };
        self.say(&reply);
        Ok(Next::Continue)
    }

    /// Commands that are answered by one line.
    fn decide(&mut self, command: Command) -> Reply {
        match command {
            Command::Helo { name } => {
                self.greet(name);
                Reply::new(250, "", "afterwrite")
            }
            Command::Mail(sender) => self.start_mail(sender),
            Command::Rcpt { address } => self.add_recipient(address),
            Command::Reset => {
                self.mail = None;
                Reply::new(250, "2.0.0", "forgotten")
            }
            Command::Noop => Reply::new(250, "2.0.0", "nothing was done"),
            Command::Verify => Reply::new(252, "2.5.0", "send the mail to find out"),
            Command::Help => Reply::new(214, "2.0.0", "see afterwrite mail-catcher --help"),
            Command::Ehlo { .. } | Command::Data | Command::Quit => Reply::out_of_sequence("not now"),
        }
    }

    fn greet(&mut self, name: String) {
        self.helo = Some(name);
        self.mail = None;
    }

    fn start_mail(&mut self, sender: Sender) -> Reply {
        if self.helo.is_none() {
            return Reply::out_of_sequence("say EHLO first");
        }
        if self.mail.is_some() {
            return Reply::out_of_sequence("a mail was begun already; say RSET to drop it");
        }
        if sender
            .declared_bytes
            .is_some_and(|bytes| bytes > MESSAGE_BYTES_MAX as u64)
        {
            return too_large();
        }
        if !sender.smtputf8 && !sender.address.is_ascii() {
            return needs_smtputf8();
        }
        self.mail = Some(Draft {
            sender,
            recipients: Vec::new(),
            after: After::Keep,
        });
        Reply::new(250, "2.1.0", "sender ok")
    }

    fn add_recipient(&mut self, address: String) -> Reply {
        let Some(draft) = &mut self.mail else {
            return Reply::out_of_sequence("say MAIL first");
        };
        if draft.recipients.len() >= RECIPIENTS_MAX {
            return Reply::new(452, "4.5.3", "too many recipients");
        }
        if !draft.sender.smtputf8 && !address.is_ascii() {
            return needs_smtputf8();
        }
        match self.shared.script.wish(&address) {
            Wish::Refuse(refusal) => return refusal,
            Wish::Reject(refusal) => draft.after = After::Refuse(refusal),
            Wish::LoseReply => draft.after = After::KeepAndLeave,
            Wish::LoseMail => draft.after = After::Leave,
            Wish::Accept => {}
        }
        draft.recipients.push(address);
        Reply::new(250, "2.1.5", "recipient ok")
    }

    async fn data(&mut self) -> io::Result<Next> {
        let refusal = match &self.mail {
            None => Some(Reply::out_of_sequence("say MAIL first")),
            Some(draft) if draft.recipients.is_empty() => Some(Reply::new(554, "5.5.1", "no recipient was accepted")),
            Some(_) => None,
        };
        if let Some(refusal) = refusal {
            self.say(&refusal);
            return Ok(Next::Continue);
        }
        self.wire
            .say(&Reply::new(354, "", "end the mail with a line that holds a dot alone"));
        self.wire.flush().await?;
        let Some(received) = self.wire.read_mail().await? else {
            return Ok(Next::Close);
        };
        let draft = self.mail.take().expect("checked above, and nothing ran since");
        let reply = match (received, &draft.after) {
            (Err(refusal), _) => refusal,
            (Ok(_), After::Leave) => return Ok(Next::Close),
            (Ok(_), After::Refuse(refusal)) => refusal.clone(),
            (Ok(mail), After::Keep | After::KeepAndLeave) => self.keep(&draft, &mail).await,
        };
        if matches!(draft.after, After::KeepAndLeave) && !reply.is_refusal() {
            return Ok(Next::Close);
        }
        self.say(&reply);
        Ok(Next::Continue)
    }

    async fn keep(&self, draft: &Draft, mail: &[u8]) -> Reply {
        let envelope = Envelope {
            helo: self.helo.as_deref().unwrap_or_default(),
            from: &draft.sender.address,
            recipients: &draft.recipients,
            smtputf8: draft.sender.smtputf8,
        };
        match self.shared.mailbox.keep(&envelope, mail).await {
            Ok(()) => Reply::new(250, "2.0.0", "kept"),
            Err(error) => {
                tracing::error!(%error, "a mail could not be written to the mail folder");
                Reply::new(451, "4.3.0", "the mail could not be written")
            }
        }
    }

    fn say(&mut self, reply: &Reply) {
        if reply.is_refusal() {
            self.refused += 1;
        }
        self.wire.say(reply);
    }
}

fn too_large() -> Reply {
    Reply::new(
        552,
        "5.3.4",
        &format!("mails may have {MESSAGE_BYTES_MAX} octets at most"),
    )
}

fn needs_smtputf8() -> Reply {
    Reply::new(553, "5.6.7", "an address beyond ASCII needs SMTPUTF8")
}

/// One line from the client.
#[derive(Debug)]
enum Line {
    Text {
        /// Without the line end.
        bytes: Vec<u8>,
        whole_bytes: usize,
        /// Whether it ended as the standard demands, with CR LF.
        crlf: bool,
    },
    /// Read to its end and thrown away.
    TooLong { crlf: bool },
    /// The client closed.
    End,
}

struct Wire {
    stream: BufReader<TcpStream>,
    replies: Vec<u8>,
}

impl Wire {
    fn say(&mut self, reply: &Reply) {
        self.replies.extend_from_slice(reply.to_line().as_bytes());
    }

    fn say_extensions(&mut self) {
        let lines = format!(
            "250-afterwrite\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250-ENHANCEDSTATUSCODES\r\n\
             250 SIZE {MESSAGE_BYTES_MAX}\r\n"
        );
        self.replies.extend_from_slice(lines.as_bytes());
    }

    /// While more commands of a pipelining client lie in the buffer, their replies travel together.
    async fn flush_unless_pipelined(&mut self) -> io::Result<()> {
        if self.stream.buffer().contains(&b'\n') {
            return Ok(());
        }
        self.flush().await
    }

    async fn flush(&mut self) -> io::Result<()> {
        if !self.replies.is_empty() {
            self.stream.get_mut().write_all(&self.replies).await?;
            self.replies.clear();
        }
        Ok(())
    }

    async fn close(&mut self) -> io::Result<()> {
        self.flush().await?;
        self.stream.get_mut().shutdown().await
    }

    /// Reads to the next LF, keeping at most `bytes_max`. Not cancel-safe: whoever drops it drops the connection.
    async fn read_line(&mut self, bytes_max: usize) -> io::Result<Line> {
        let mut bytes = Vec::new();
        let mut whole_bytes = 0;
        let mut last_but_one = 0;
        loop {
            let available = self.stream.fill_buf().await?;
            if available.is_empty() {
                return Ok(Line::End);
            }
            let end = available.iter().position(|byte| *byte == b'\n');
            let taken = end.map_or(available.len(), |end| end + 1);
            let chunk = &available[..taken];
            let room = bytes_max.saturating_sub(bytes.len()).min(taken);
            bytes.extend_from_slice(&chunk[..room]);
            whole_bytes += taken;
            let crlf = match taken {
                1 => last_but_one == b'\r',
                _ => chunk[taken - 2] == b'\r',
            };
            last_but_one = chunk[taken - 1];
            self.stream.consume(taken);
            if end.is_none() {
                continue;
            }
            if whole_bytes > bytes_max {
                return Ok(Line::TooLong { crlf });
            }
            bytes.truncate(whole_bytes - if crlf { 2 } else { 1 });
            return Ok(Line::Text {
                bytes,
                whole_bytes,
                crlf,
            });
        }
    }

    /// Reads the text of a mail up to the dot. `None`: the client left in the middle. The inner error is a mail that
    /// was read to its end and is refused.
    async fn read_mail(&mut self) -> io::Result<Option<Result<Vec<u8>, Reply>>> {
        let mut mail = Vec::new();
        let mut refusal: Option<Reply> = None;
        let mut after_crlf = true;
        loop {
            let read = tokio::time::timeout(IDLE_MAX, self.read_line(TEXT_LINE_BYTES_MAX + 1));
            match read.await.map_err(io::Error::other)?? {
                Line::End => return Ok(None),
                Line::TooLong { crlf } => {
                    after_crlf = crlf;
                    refusal.get_or_insert_with(|| Reply::new(554, "5.6.0", "a line had more than 998 octets"));
                }
                Line::Text { bytes, crlf, .. } => {
                    // Only CR LF dot CR LF ends a mail: taking less lets one mail smuggle in another.
                    if after_crlf && crlf && bytes == b"." {
                        return Ok(Some(refusal.map_or(Ok(mail), Err)));
                    }
                    if !crlf {
                        refusal.get_or_insert_with(|| Reply::new(554, "5.6.0", "a line did not end with CR LF"));
                    }
                    let text = match (after_crlf, bytes.strip_prefix(b".")) {
                        (true, Some(unstuffed)) => unstuffed,
                        _ => &bytes,
                    };
                    after_crlf = crlf;
                    if text.len() + 2 > TEXT_LINE_BYTES_MAX {
                        refusal.get_or_insert_with(|| Reply::new(554, "5.6.0", "a line had more than 998 octets"));
                    }
                    if mail.len() + text.len() + 2 > MESSAGE_BYTES_MAX {
                        refusal.get_or_insert_with(too_large);
                    }
                    if refusal.is_none() {
                        mail.extend_from_slice(text);
                        mail.extend_from_slice(b"\r\n");
                    }
                }
            }
        }
    }
}
