//! Clients whose calls are counted and timed: what `/metrics` tells of mails and calls on their way out, whoever makes them.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use crate::causes::chain;
use crate::clients::mailer::{Envelope, Mailer, Sent};
use crate::clients::webhook::{Call, Called, Caller};
use crate::tally::reach::Reach;
use crate::tally::{Counter, Timer};

/// Calls of others, by whom and how they ended.
pub static CALLS: Counter = Counter::new("calls", "Calls of others that ended, by how", &["to", "outcome"]);

/// How long these took.
pub static DURATIONS: Timer = Timer::new(
    "call_duration",
    "How long calls of others took, without what was done before and after",
    &["to"],
);

/// A call that is under way. One that is dropped, because its attempt ran out of time, is counted as abandoned.
struct UnderWay {
    to: &'static str,
    began: Instant,
    outcome: &'static str,
}

impl UnderWay {
    fn new(to: &'static str) -> Self {
        Self {
            to,
            began: Instant::now(),
            outcome: "abandoned",
        }
    }

    fn ended(mut self, outcome: &'static str) {
        self.outcome = outcome;
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        CALLS.add(&[self.to, self.outcome], 1);
        DURATIONS.observe(&[self.to], self.began.elapsed());
    }
}

/// A mailer, measured.
pub struct MeasuredMailer {
    mailer: Arc<dyn Mailer>,
    /// What it reaches; `None` where it goes nowhere.
    server: Option<&'static Reach>,
}

impl std::fmt::Debug for MeasuredMailer {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("MeasuredMailer(..)")
    }
}

impl MeasuredMailer {
    /// Measures this one, and tells whether its server answers.
    pub fn new(mailer: Arc<dyn Mailer>, server: Option<&'static Reach>) -> Self {
        Self { mailer, server }
    }
}

#[async_trait]
impl Mailer for MeasuredMailer {
    async fn turn(&self) -> Result<(), Duration> {
        self.mailer.turn().await
    }

    async fn send_raw(&self, envelope: &Envelope, message: &[u8]) -> Sent {
        let under_way = UnderWay::new("mail");
        let sent = self.mailer.send_raw(envelope, message).await;
        under_way.ended(match &sent {
            Sent::Accepted { .. } => "accepted",
            Sent::Refused(_) => "refused",
            Sent::Unreachable(_) => "unreachable",
            Sent::Unknown(_) => "unknown",
        });
        match (&sent, self.server) {
            (Sent::Accepted { .. } | Sent::Refused(_), Some(server)) => server.answered(),
            (Sent::Unreachable(error) | Sent::Unknown(error), Some(server)) => server.missed(&chain(&**error)),
            (_, None) => {}
        }
        sent
    }
}

/// A caller of webhooks, measured.
#[derive(Debug)]
pub struct MeasuredCaller<C>(pub C);

#[async_trait]
impl<C: Caller> Caller for MeasuredCaller<C> {
    async fn call(&self, call: &Call) -> Called {
        let under_way = UnderWay::new("webhook");
        let called = self.0.call(call).await;
        under_way.ended(match &called {
            Called::Delivered(_) => "accepted",
            Called::Refused { .. } => "refused",
            Called::Failed(_) => "unreachable",
            Called::Impossible(_) => "impossible",
        });
        called
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    struct Silent;

    #[async_trait]
    impl Mailer for Silent {
        async fn send_raw(&self, _: &Envelope, _: &[u8]) -> Sent {
            std::future::pending().await
        }
    }

    struct Away;

    #[async_trait]
    impl Mailer for Away {
        async fn send_raw(&self, _: &Envelope, _: &[u8]) -> Sent {
            Sent::Unreachable("connection refused".into())
        }
    }

    fn counted(outcome: &str) -> u64 {
        let of = vec!["mail".to_owned(), outcome.to_owned()];
        let told = CALLS.told();
        told.into_iter()
            .find(|(labels, _)| *labels == of)
            .map_or(0, |(_, count)| count)
    }

    #[tokio::test]
    async fn a_call_that_is_dropped_is_counted_and_one_that_reaches_nobody_says_who() {
        static SERVER: Reach = Reach::new();
        let address: lettre::Address = "a@example.com".parse().unwrap();
        let envelope = Envelope {
            from: address.clone(),
            to: address,
        };
        let silent = MeasuredMailer::new(Arc::new(Silent), Some(&SERVER));
        let before = counted("abandoned");
        assert!(silent.send_raw(&envelope, b"").now_or_never().is_none());
        assert_eq!((counted("abandoned"), SERVER.met()), (before + 1, None));
        let away = MeasuredMailer::new(Arc::new(Away), Some(&SERVER));
        drop(away.send_raw(&envelope, b"").await);
        let met = SERVER.met().unwrap();
        assert_eq!((met.is_up, met.why.as_deref()), (false, Some("connection refused")));
        assert!(counted("unreachable") > 0);
    }
}
