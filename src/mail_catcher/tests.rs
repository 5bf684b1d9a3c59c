//! Raw bytes to a real server on port 0.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use uuid::Uuid;

struct Catcher {
    address: SocketAddr,
    folder: PathBuf,
    stop: Option<oneshot::Sender<()>>,
    server: Option<tokio::task::JoinHandle<()>>,
}

impl Catcher {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let folder = std::env::temp_dir().join(format!("afterwrite-mails-{}", Uuid::new_v4()));
        let (stop, stopped) = oneshot::channel();
        let kept_in = folder.clone();
        let server = tokio::spawn(async move {
            let shutdown = async { stopped.await.unwrap_or(()) };
            super::serve(listener, &kept_in, shutdown).await.unwrap();
        });
        Self {
            address,
            folder,
            stop: Some(stop),
            server: Some(server),
        }
    }

    /// Sends everything at once, as a pipelining client may, and reads until the server closes.
    async fn dialogue(&self, bytes: &[u8]) -> Vec<String> {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer.lines().map(str::to_owned).collect()
    }

    /// Ends a dialogue after the greeting of both sides.
    async fn after_ehlo(&self, rest: &str) -> Vec<String> {
        let lines = self.dialogue(format!("EHLO test\r\n{rest}QUIT\r\n").as_bytes()).await;
        lines[7..].to_vec()
    }

    fn mails(&self) -> Vec<Vec<u8>> {
        let mut paths = files(&self.folder, "eml");
        paths.sort();
        paths.iter().map(|path| std::fs::read(path).unwrap()).collect()
    }

    async fn stop(mut self) {
        self.stop.take().unwrap().send(()).unwrap();
        self.server.take().unwrap().await.unwrap();
    }
}

impl Drop for Catcher {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.folder));
    }
}

fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|found| found == extension))
        .collect()
}

fn codes(lines: &[String]) -> Vec<String> {
    lines
        .iter()
        .map(|line| line.splitn(3, ' ').take(2).collect::<Vec<_>>().join(" "))
        .collect()
}

const ENVELOPE: &str = "MAIL FROM:<a@example.com> SIZE=20 BODY=8BITMIME\r\nRCPT TO:<b@example.com>\r\nDATA\r\n";

#[tokio::test]
async fn a_pipelined_mail_is_a_file_with_exactly_its_bytes() {
    let catcher = Catcher::start().await;
    let lines = catcher
        .after_ehlo(&format!("{ENVELOPE}Subject: x\r\n\r\n..dot\r\n...\r\nh\u{e9}\r\n.\r\n"))
        .await;
    assert_eq!(
        codes(&lines),
        ["250 2.1.0", "250 2.1.5", "354 end", "250 2.0.0", "221 2.0.0"]
    );
    assert_eq!(
        catcher.mails(),
        ["Subject: x\r\n\r\n.dot\r\n..\r\nh\u{e9}\r\n".as_bytes()]
    );
    let envelope = std::fs::read_to_string(&files(&catcher.folder, "json")[0]).unwrap();
    assert_eq!(
        envelope,
        r#"{"helo":"test","from":"a@example.com","recipients":["b@example.com"],"smtputf8":false}"#
    );
}

#[tokio::test]
async fn extensions_are_announced() {
    let catcher = Catcher::start().await;
    let lines = catcher.dialogue(b"ehlo test\r\nquit\r\n").await;
    let announced = [
        "PIPELINING",
        "8BITMIME",
        "SMTPUTF8",
        "ENHANCEDSTATUSCODES",
        "SIZE 10485760",
    ];
    for (line, extension) in lines[2..].iter().zip(announced) {
        assert_eq!(&line[4..], extension);
    }
}

#[tokio::test]
async fn recipients_fail_as_their_address_says() {
    let catcher = Catcher::start().await;
    let recipients = [
        ("refuse-550-5.1.1@example.com", "550 5.1.1"),
        ("Refuse-452-4.2.2+ann@example.com", "452 4.2.2"),
        ("refuse-550-4.1.1@example.com", "501 5.1.3"),
        ("defer+bob@example.com", "451 4.3.0"),
        ("defer-1@example.com", "451 4.3.0"),
        ("defer-1@example.com", "250 2.1.5"),
        ("ok@example.com", "250 2.1.5"),
    ];
    let rcpt: String = recipients.iter().map(|(to, _)| format!("RCPT TO:<{to}>\r\n")).collect();
    let lines = catcher.after_ehlo(&format!("MAIL FROM:<>\r\n{rcpt}RSET\r\n")).await;
    let expected: Vec<&str> = recipients.iter().map(|(_, code)| *code).collect();
    assert_eq!(codes(&lines)[1..=recipients.len()], expected);
}

#[tokio::test]
async fn a_lost_reply_leaves_the_mail_and_no_answer() {
    let catcher = Catcher::start().await;
    let mail = "MAIL FROM:<>\r\nRCPT TO:<lost-reply-1@example.com>\r\nDATA\r\nx\r\n.\r\n";
    let first = catcher.after_ehlo(mail).await;
    let second = catcher.after_ehlo(mail).await;
    assert_eq!(codes(&first).last().unwrap(), "354 end");
    assert_eq!(codes(&second)[3..], ["250 2.0.0", "221 2.0.0"]);
    assert_eq!(catcher.mails().len(), 2);
}

#[tokio::test]
async fn what_is_rejected_after_its_content_is_not_kept() {
    let catcher = Catcher::start().await;
    let lines = catcher
        .after_ehlo("MAIL FROM:<>\r\nRCPT TO:<reject-554-5.7.1@example.com>\r\nDATA\r\nx\r\n.\r\n")
        .await;
    assert_eq!(codes(&lines)[2..], ["354 end", "554 5.7.1", "221 2.0.0"]);
    assert!(catcher.mails().is_empty());
}

#[tokio::test]
async fn a_flaky_recipient_fails_in_all_three_ways_and_not_always() {
    let catcher = Catcher::start().await;
    let mut ends: Vec<(String, usize)> = Vec::new();
    let mut before = 0;
    for _ in 0..200 {
        let mail = "MAIL FROM:<>\r\nRCPT TO:<flaky-30-30@example.com>\r\nDATA\r\nx\r\n.\r\n";
        let lines = codes(&catcher.after_ehlo(mail).await);
        let end = lines.iter().rfind(|line| !line.starts_with("221")).unwrap();
        let kept = catcher.mails().len();
        ends.push((end.clone(), kept - before));
        before = kept;
    }
    let share = |end: &str, kept: usize| ends.iter().filter(|known| **known == (end.to_owned(), kept)).count();
    // Refused (and DATA after it), cut before and after the mail was kept, accepted.
    let shares = [
        share("500 5.5.1", 0),
        share("354 end", 0),
        share("354 end", 1),
        share("250 2.0.0", 1),
    ];
    assert_eq!(shares.iter().sum::<usize>(), 200, "{ends:?}");
    for (share, expected) in shares.into_iter().zip([60, 30, 30, 80]) {
        assert!(share.abs_diff(expected) <= 25, "{shares:?}");
    }
}

#[tokio::test]
async fn what_breaks_the_rules_is_refused_and_not_kept() {
    let long = "x".repeat(999);
    let largest = "x".repeat(998);
    let command = format!("NOOP {}\r\n", "x".repeat(600));
    let cases = [
        (format!("{ENVELOPE}{long}\r\n.\r\n"), "554 5.6.0"),
        (format!("{ENVELOPE}bare\n.\r\nstill the mail\r\n.\r\n"), "554 5.6.0"),
        (format!("{ENVELOPE}..{largest}\r\n.\r\n"), "554 5.6.0"),
        ("MAIL FROM:<a@example.com> SIZE=99999999\r\n".to_owned(), "552 5.3.4"),
        ("MAIL FROM:<a@example.com> FOO=1\r\n".to_owned(), "555 5.5.4"),
        ("MAIL FROM:<\u{e9}@example.com>\r\n".to_owned(), "553 5.6.7"),
        ("MAIL FROM:a@example.com\r\n".to_owned(), "501 5.5.4"),
        ("RCPT TO:<a@example.com>\r\n".to_owned(), "503 5.5.1"),
        ("DATA\r\n".to_owned(), "503 5.5.1"),
        ("MAIL FROM:<>\r\nDATA\r\n".to_owned(), "554 5.5.1"),
        ("MAIL FROM:<>\r\nRCPT TO:<nobody>\r\n".to_owned(), "501 5.1.3"),
        ("WHAT\r\n".to_owned(), "500 5.5.1"),
        (command, "500 5.5.2"),
    ];
    let catcher = Catcher::start().await;
    for (dialogue, expected) in cases {
        let lines = codes(&catcher.after_ehlo(&dialogue).await);
        assert_eq!(lines[lines.len() - 2], expected, "{lines:?}");
    }
    assert!(catcher.mails().is_empty());
    let longest = format!("{ENVELOPE}.{largest}\r\n.\r\n");
    assert_eq!(codes(&catcher.after_ehlo(&longest).await)[3], "250 2.0.0");
}

#[tokio::test]
async fn one_connection_carries_many_mails() {
    let catcher = Catcher::start().await;
    let mails: String = (0..50)
        .map(|number| format!("{ENVELOPE}mail {number}\r\n.\r\n"))
        .collect();
    catcher.after_ehlo(&mails).await;
    let kept = catcher.mails();
    assert_eq!(kept.len(), 50);
    assert_eq!(kept[49], b"mail 49\r\n");
}

#[tokio::test]
async fn a_stop_says_goodbye_to_open_connections() {
    let catcher = Catcher::start().await;
    let mut stream = TcpStream::connect(catcher.address).await.unwrap();
    let mut greeting = [0; 3];
    stream.read_exact(&mut greeting).await.unwrap();
    catcher.stop().await;
    let mut rest = String::new();
    stream.read_to_string(&mut rest).await.unwrap();
    assert!(rest.ends_with("421 4.3.2 the server is stopping\r\n"), "{rest}");
}
