//! Asks the brokers which commits they know, in a thread of its own: an answer takes longer than a record can wait.

use std::io;
use std::sync::mpsc::{Receiver, Sender, SyncSender, TryRecvError};
use std::thread::{Builder, Scope};
use std::time::Duration;

use rdkafka::consumer::Consumer;
use rdkafka::error::KafkaResult;
use tokio::time::Instant;

use crate::event::delivery::{Position, SourcePartition};
use crate::source::kafka::client::Client;
use crate::source::kafka::commits;

/// How often the brokers are asked while there is something that they are not known to know.
const ASK_EVERY: Duration = Duration::from_secs(1);

/// How often they are asked about everything: an older commit that arrives late takes the group back.
const LOOK_AGAIN_EVERY: Duration = Duration::from_secs(10);

/// Longest wait for an answer, and the pause after none came. A client that is to be closed waits for the answer.
const ANSWER_MAX: Duration = Duration::from_secs(2);
const ASK_AGAIN: Duration = Duration::from_secs(5);

/// Asks, as long as it lives.
pub(super) struct Asking {
    questions: SyncSender<Vec<SourcePartition>>,
    answers: Receiver<Answer>,
    /// The newest positions that had been sent when the question was asked that is not answered yet.
    asked: Option<Vec<(SourcePartition, Position)>>,
    ask_at: Instant,
    look_again_at: Instant,
}

struct Answer {
    known: KafkaResult<Vec<(SourcePartition, Position)>>,
    at: Instant,
}

impl Asking {
    /// Starts the thread, which ends with this value.
    ///
    /// # Errors
    /// When there can be no more threads.
    pub(super) fn start<'scope>(scope: &'scope Scope<'scope, '_>, client: &'scope Client) -> io::Result<Self> {
        let (questions, asked) = std::sync::mpsc::sync_channel(1);
        let (answering, answers) = std::sync::mpsc::channel();
        let thread = Builder::new().name(format!("commits {}", client.context().options.group));
        thread.spawn_scoped(scope, move || answer_all(client, &asked, &answering))?;
        let now = Instant::now();
        Ok(Self {
            questions,
            answers,
            asked: None,
            ask_at: now,
            look_again_at: now + LOOK_AGAIN_EVERY,
        })
    }

    /// Asks when it is time to, and sends again what the brokers do not know. After each answer it says for how long the
    /// partition that waits longest has waited for an acknowledgement.
    pub(super) fn go_on(&mut self, client: &Client) -> Option<Duration> {
        let Some(asked) = self.asked.take() else {
            self.ask(client);
            return None;
        };
        let answer = match self.answers.try_recv() {
            Ok(answer) => answer,
            Err(TryRecvError::Empty) => {
                self.asked = Some(asked);
                return None;
            }
            // Its thread has panicked, which the end of the client brings to light.
            Err(TryRecvError::Disconnected) => return Some(Duration::MAX),
        };
        let callbacks = client.context();
        match answer.known {
            Ok(known) => callbacks.answered(client, &asked, known),
            Err(error) => {
                let group = &callbacks.options.group;
                tracing::debug!(group, error = %error, "the brokers were asked in vain which commits they know");
                self.ask_at = answer.at + ASK_AGAIN;
            }
        }
        let since = callbacks.commits().waiting_since();
        Some(since.map_or(Duration::ZERO, |since| answer.at.saturating_duration_since(since)))
    }

    fn ask(&mut self, client: &Client) {
        let now = Instant::now();
        if now < self.ask_at {
            return;
        }
        self.ask_at = now + ASK_EVERY;
        let positions = if now >= self.look_again_at {
            self.look_again_at = now + LOOK_AGAIN_EVERY;
            client.context().commits().newest()
        } else {
            client.context().commits().waiting()
        };
        if positions.is_empty() {
            return;
        }
        let names = positions.iter().map(|(partition, _)| partition.clone()).collect();
        if self.questions.try_send(names).is_err() {
            tracing::debug!("the thread that asks has ended");
        }
        self.asked = Some(positions);
    }
}

fn answer_all(client: &Client, questions: &Receiver<Vec<SourcePartition>>, answers: &Sender<Answer>) {
    while let Ok(partitions) = questions.recv() {
        let known = commits::known(client, &partitions, ANSWER_MAX);
        let at = Instant::now();
        if answers.send(Answer { known, at }).is_err() {
            return;
        }
    }
}
