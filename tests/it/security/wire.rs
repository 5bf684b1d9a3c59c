//! What Kafka's own tools do and the client library's binding does not: rights and passwords, in the protocol's words
//! (<https://kafka.apache.org/protocol>). They are given over the listener where everybody may do everything.

use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;

use crate::stack::{self, until};

/// How often a password is hashed; no broker takes less.
const ITERATIONS: i32 = 4096;

const DESCRIBE_ACLS: i16 = 29;
const CREATE_ACLS: i16 = 30;
const ALTER_USER_SCRAM_CREDENTIALS: i16 = 51;

const SCRAM_SHA_256: i8 = 1;

const LITERAL: i8 = 3;
const PREFIXED: i8 = 4;
const ALLOW: i8 = 3;

/// Words for resources and operations, as kafka-acls.sh has them, and their numbers.
const RESOURCES: [(&str, i8); 3] = [("--topic", 2), ("--group", 3), ("--transactional-id", 5)];
const OPERATIONS: [(&str, i8); 7] = [
    ("Read", 3),
    ("Write", 4),
    ("Create", 5),
    ("Alter", 7),
    ("Describe", 8),
    ("DescribeConfigs", 10),
    ("AlterConfigs", 11),
];

/// What somebody may do with something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Right {
    pub(super) principal: String,
    pub(super) operations: Vec<String>,
    /// `--topic`, `--group` or `--transactional-id`.
    pub(super) resource: String,
    pub(super) name: String,
    is_prefix: bool,
}

impl Right {
    /// Everything that a worker does with topics, or a group, whose names begin so.
    pub(super) fn of_worker(principal: &str, resource: &str, begins: &str) -> Self {
        let operations: &[&str] = match resource {
            "--topic" => &["Read", "Write", "Create", "DescribeConfigs"],
            _ => &["Read"],
        };
        Self {
            principal: principal.to_owned(),
            operations: operations.iter().map(|operation| (*operation).to_owned()).collect(),
            resource: resource.to_owned(),
            name: begins.to_owned(),
            is_prefix: true,
        }
    }

    /// The same without one operation.
    pub(super) fn without(&self, operation: &str) -> Self {
        let mut less = self.clone();
        less.operations.retain(|known| known != operation);
        assert_ne!(*self, less, "{operation} was not there");
        less
    }

    /// The words of one command behind its name, taken as kafka-acls.sh takes them.
    fn of_words(words: &[&str]) -> Self {
        let brokers = stack::address("KAFKA_BROKERS");
        let rest = words.strip_prefix(&["--bootstrap-server", &*brokers, "--add"]);
        let rest = rest.unwrap_or_else(|| panic!("kafka-acls.sh cannot take {words:?}"));
        let mut right = Self {
            principal: String::new(),
            operations: Vec::new(),
            resource: String::new(),
            name: String::new(),
            is_prefix: false,
        };
        for pair in rest.chunks(2) {
            match *pair {
                ["--allow-principal", principal] if principal.starts_with("User:") => {
                    right.principal = principal.to_owned();
                }
                ["--operation", operation] => right.operations.push(operation.to_owned()),
                ["--resource-pattern-type", "prefixed"] => right.is_prefix = true,
                [resource, name] if RESOURCES.iter().any(|(known, _)| *known == resource) => {
                    assert!(right.resource.is_empty(), "{words:?} is about two things");
                    (right.resource, right.name) = (resource.to_owned(), name.to_owned());
                }
                _ => panic!("kafka-acls.sh does not know {pair:?} in {words:?}"),
            }
        }
        right
    }

    /// One for each operation, from whatever host.
    fn bindings(&self) -> Vec<Vec<u8>> {
        let number = |words: &[(&str, i8)], word: &str| {
            let found = words.iter().find(|(known, _)| *known == word);
            found.unwrap_or_else(|| panic!("kafka-acls.sh does not know {word}")).1
        };
        let operations = self.operations.iter();
        let binding = operations.map(|operation| {
            let mut bytes = number(&RESOURCES, &self.resource).to_be_bytes().to_vec();
            string(&mut bytes, &self.name);
            bytes.extend(if self.is_prefix { PREFIXED } else { LITERAL }.to_be_bytes());
            string(&mut bytes, &self.principal);
            string(&mut bytes, "*");
            bytes.extend(number(&OPERATIONS, operation).to_be_bytes());
            bytes.extend(ALLOW.to_be_bytes());
            bytes
        });
        binding.collect()
    }
}

/// What a printed text of commands would give, if a shell ran it.
pub(super) async fn rights_of(commands: &str) -> Vec<Right> {
    let script = format!("set -eu\nkafka-acls.sh() {{ printf '%s\\x1f' \"$@\"; printf '\\n'; }}\n{commands}");
    let mut shell = Command::new("bash");
    shell
        .args(["-c", &script])
        .env("KAFKA_BROKERS", stack::address("KAFKA_BROKERS"));
    let output = shell.output().await.unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && said.is_empty(), "{commands}: {said}");
    let commands = String::from_utf8(output.stdout).unwrap();
    let commands = commands.lines().map(|line| {
        let words: Vec<&str> = line.trim_end_matches('\x1f').split('\x1f').collect();
        Right::of_words(&words)
    });
    commands.collect()
}

/// Gives rights, and waits until they are in effect.
pub(super) async fn give(rights: &[Right]) {
    let bindings: Vec<Vec<u8>> = rights.iter().flat_map(Right::bindings).collect();
    let mut body = i32::try_from(bindings.len()).unwrap().to_be_bytes().to_vec();
    body.extend(bindings.concat());
    let answer = call(CREATE_ACLS, 1, &body, false).await;
    // The time for which one is to wait, how many answers, and each with a number and no text.
    let answers = answer[8..].chunks(4);
    let refused = answers.filter(|answer| answer[..2] != [0, 0]).count();
    assert_eq!(refused, 0, "{rights:?}: {answer:?}");
    until("rights to be in effect", Duration::from_secs(30), async || {
        let known = known().await;
        bindings.iter().all(|binding| known.contains(binding)).then_some(())
    })
    .await;
}

/// All that the broker goes by, as bindings.
async fn known() -> Vec<Vec<u8>> {
    // Of anything, by whatever pattern, to anybody, from anywhere.
    let any = [1, 0xff, 0xff, 1, 0xff, 0xff, 0xff, 0xff, 1, 1];
    let answer = call(DESCRIBE_ACLS, 1, &any, false).await;
    let mut rest = &answer[4..];
    assert_eq!(bytes(&mut rest, 2), [0, 0], "{answer:?}");
    assert_eq!(text(&mut rest), [0, 0], "there is nothing to say: {answer:?}");
    let mut known = Vec::new();
    for _ in 0..count(&mut rest) {
        let mut resource = bytes(&mut rest, 1);
        resource.extend(text(&mut rest));
        resource.extend(bytes(&mut rest, 1));
        for _ in 0..count(&mut rest) {
            let whom = [text(&mut rest), text(&mut rest), bytes(&mut rest, 2)].concat();
            known.push([resource.clone(), whom].concat());
        }
    }
    known
}

fn bytes(rest: &mut &[u8], count: usize) -> Vec<u8> {
    let (taken, left) = rest.split_at(count);
    *rest = left;
    taken.to_vec()
}

fn count(rest: &mut &[u8]) -> u32 {
    u32::from_be_bytes(bytes(rest, 4).try_into().unwrap())
}

/// A text, with its length before it.
fn text(rest: &mut &[u8]) -> Vec<u8> {
    let length = u16::from_be_bytes([rest[0], rest[1]]);
    bytes(rest, 2 + usize::from(length))
}

/// Gives a user a password, or another one.
pub(super) async fn set_password(user: &str, password: &str) {
    let salt = uuid::Uuid::new_v4().into_bytes();
    let mut body = vec![1, 2];
    compact(&mut body, user.as_bytes());
    body.extend(SCRAM_SHA_256.to_be_bytes());
    body.extend(ITERATIONS.to_be_bytes());
    compact(&mut body, &salt);
    compact(&mut body, &salted(password, &salt));
    body.extend([0, 0]);
    let answer = call(ALTER_USER_SCRAM_CREDENTIALS, 0, &body, true).await;
    // Behind the header's own end, the time to wait, and how many answers: the name, and a number.
    let code = 1 + 4 + 1 + 1 + user.len();
    assert_eq!(&answer[code..code + 2], &[0, 0], "{user}: {answer:?}");
}

/// `Hi` of RFC 5802.
fn salted(password: &str, salt: &[u8]) -> Vec<u8> {
    let mac = |text: &[u8]| {
        let mut mac = Hmac::<Sha256>::new_from_slice(password.as_bytes()).unwrap();
        mac.update(text);
        mac.finalize().into_bytes().to_vec()
    };
    let mut last = mac(&[salt, &[0, 0, 0, 1]].concat());
    let mut salted = last.clone();
    for _ in 1..ITERATIONS {
        last = mac(&last);
        salted.iter_mut().zip(&last).for_each(|(byte, other)| *byte ^= other);
    }
    salted
}

/// One request, on a connection of its own; answers what stands behind the number of the request.
async fn call(request: i16, version: i16, body: &[u8], is_flexible: bool) -> Vec<u8> {
    let mut message = [request.to_be_bytes(), version.to_be_bytes()].concat();
    message.extend(7_i32.to_be_bytes());
    string(&mut message, "test");
    message.extend(is_flexible.then_some(0));
    message.extend(body);
    let mut broker = TcpStream::connect(stack::address("KAFKA_BROKERS")).await.unwrap();
    broker.write_i32(i32::try_from(message.len()).unwrap()).await.unwrap();
    broker.write_all(&message).await.unwrap();
    let length = broker.read_i32().await.unwrap();
    let mut answer = vec![0; usize::try_from(length).unwrap()];
    broker.read_exact(&mut answer).await.unwrap();
    answer.split_off(4)
}

fn string(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend(i16::try_from(text.len()).unwrap().to_be_bytes());
    bytes.extend(text.as_bytes());
}

/// As the newer requests have it; nothing here is longer than 126 bytes.
fn compact(bytes: &mut Vec<u8>, text: &[u8]) {
    bytes.push(u8::try_from(text.len() + 1).unwrap());
    assert!(text.len() < 127, "a length of one byte");
    bytes.extend(text);
}
