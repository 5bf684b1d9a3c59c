//! What brokers hold against the group's consumer: that it is not let in, or not allowed something. librdkafka goes on trying,
//! so it is said when it begins, and now and then.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rdkafka::Statistics;
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode;
use tokio::time::Instant;

use crate::clients::brokers;
use crate::clients::denied::Denied;
use crate::hindrance::Hindered;
use crate::source::kafka::Options;
use crate::tally::reach::Reach;

/// How often the same is said.
const SAY_EVERY: Duration = Duration::from_secs(30);

/// How librdkafka names a topic that is not there for us.
const NOT_AVAILABLE: &str = "Subscribed topic not available: ";

/// What was heard.
#[derive(Debug, Default)]
pub(super) struct Objections {
    /// Until when each is not said again. There are no more of them than topics and reasons.
    quiet_until: Mutex<HashMap<String, Instant>>,
    /// Why we are not let in, as long as no broker has answered again.
    shut: Mutex<Option<String>>,
    /// Answers that had come from connected brokers when it was looked last.
    answers: AtomicU64,
}

impl Objections {
    /// Takes what librdkafka tells beside an error.
    pub(super) fn hear(&self, options: &Options, error: &KafkaError, reason: &str) {
        let (group, now) = (&options.group, Instant::now());
        if let Some(denied) = denied(options, error, reason) {
            if self.is_new(denied.to_string(), now) {
                tracing::warn!(group, error = %denied, "a right is missing; it is tried again");
            }
        } else if let Some(hindered) = hindered(options, reason) {
            *self.shut.lock().unwrap_or_else(PoisonError::into_inner) = Some(hindered.to_string());
            if self.is_new(format!("{:?}", hindered.hindrance), now) {
                tracing::warn!(group, error = %hindered, "a broker lets the group's consumer not in; it is tried again");
            }
        }
    }

    /// Why we are not let in, for whoever asks why no broker is connected.
    pub(super) fn why_shut(&self) -> Option<String> {
        self.shut.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes how many answers have come from brokers that are connected; tells whether there are new ones.
    pub(super) fn hear_answers(&self, answers: u64) -> bool {
        answers > self.answers.swap(answers, Ordering::Relaxed)
    }

    /// A broker has let us in.
    pub(super) fn let_in(&self) {
        *self.shut.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Keeps what it is about; answers whether it is to be said.
    fn is_new(&self, text: String, now: Instant) -> bool {
        let mut quiet_until = self.quiet_until.lock().unwrap_or_else(PoisonError::into_inner);
        if quiet_until.get(&text).is_some_and(|until| now < *until) {
            return false;
        }
        quiet_until.insert(text, now + SAY_EVERY);
        true
    }
}

/// Tells whether a broker answers, and if none does, why it lets us not in, where that is known. One that the client has not
/// needed yet is not connected, so one of them is enough. One that lets us not in may still have a connection of ours that is
/// idle, which it cuts off as soon as something is asked over it: such a connection proves nothing, an answer does.
pub(super) fn meet(statistics: &Statistics, brokers: &Reach, objections: &Objections) {
    let connected = statistics.brokers.values().filter(|broker| broker.state == "UP");
    let (count, answers) = connected.fold((0, 0), |(count, answers), broker| (count + 1, answers + broker.rx));
    let has_answered = objections.hear_answers(answers);
    match (count, objections.why_shut()) {
        (1.., None) => brokers.answered(),
        (1.., Some(_)) if has_answered => {
            objections.let_in();
            brokers.answered();
        }
        (_, Some(objection)) => brokers.missed(&objection),
        (_, None) => {
            let known = statistics.brokers.len();
            brokers.missed(&format!("none of {known} known brokers is connected"));
        }
    }
}

/// The right that is missing, where it is that.
fn denied(options: &Options, error: &KafkaError, reason: &str) -> Option<Denied> {
    match error.rdkafka_error_code()? {
        RDKafkaErrorCode::GroupAuthorizationFailed => Some(Denied::running(&options.group)),
        RDKafkaErrorCode::TopicAuthorizationFailed => Some(match named(reason) {
            Some(topic) => Denied::reading(topic),
            None => Denied::reading_one_of(&options.topics),
        }),
        _ => None,
    }
}

/// The topic of which librdkafka speaks.
fn named(reason: &str) -> Option<&str> {
    let (topic, _) = reason.strip_prefix(NOT_AVAILABLE)?.split_once(": ")?;
    Some(topic)
}

/// Why we are not let in. We were once, or whoever listens beside says so: only what is certain is told again.
fn hindered(options: &Options, reason: &str) -> Option<Hindered> {
    let heard = brokers::read(reason).filter(|heard| !heard.is_doubtful())?;
    let mut hindered = Hindered::from(heard);
    if hindered.at.is_empty() {
        hindered.at.clone_from(&options.brokers);
    }
    Some(hindered)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::kafka::tests::options;

    #[test]
    fn the_same_is_said_once_and_now_and_then_and_anything_else_at_once() {
        let objections = Objections::default();
        let began = Instant::now();
        let is_new = |text: &str, after| objections.is_new(text.to_owned(), began + after);
        for (text, expected) in [("a", true), ("a", false), ("b", true), ("a", false), ("b", false)] {
            assert_eq!(is_new(text, Duration::ZERO), expected, "{text}");
        }
        assert!(is_new("a", SAY_EVERY));
    }

    #[test]
    fn a_missing_right_is_told_from_the_topic_that_is_named() {
        let mut options = options("b:9092");
        options.topics = vec!["t.a".to_owned(), "t.b".to_owned()];
        let of = |code| KafkaError::Global(code);
        let group = of(RDKafkaErrorCode::GroupAuthorizationFailed);
        assert_eq!(denied(&options, &group, "x"), Some(Denied::running(&options.group)));
        let topic = of(RDKafkaErrorCode::TopicAuthorizationFailed);
        for (reason, expected) in [
            (
                "Subscribed topic not available: t.b: Broker: Topic authorization failed",
                Denied::reading("t.b"),
            ),
            (
                "Fetch from broker 1 failed: Broker: Topic authorization failed",
                Denied::reading_one_of(&options.topics),
            ),
        ] {
            assert_eq!(denied(&options, &topic, reason), Some(expected), "{reason}");
        }
        let other = of(RDKafkaErrorCode::UnknownTopicOrPartition);
        assert_eq!(denied(&options, &other, "x"), None);
    }

    #[test]
    fn why_no_broker_is_connected_is_known_until_one_is() {
        let (objections, options) = (Objections::default(), options("b:9092"));
        let hear = |code, reason| objections.hear(&options, &KafkaError::Global(code), reason);
        hear(RDKafkaErrorCode::GroupAuthorizationFailed, "x");
        assert_eq!(objections.why_shut(), None, "a right that is missing shuts nobody out");
        let refused =
            "sasl_ssl://b:9092/1: SASL authentication error: Authentication failed (after 12ms in state REAUTH)";
        hear(RDKafkaErrorCode::Authentication, refused);
        let why = objections.why_shut().unwrap();
        assert!(
            why.starts_with("kafka at b:9092 refused the user or the password"),
            "{why}"
        );
        objections.let_in();
        assert_eq!(objections.why_shut(), None);
    }

    #[test]
    fn one_connected_broker_is_enough() {
        let states = |states: &[&str]| {
            let of = |(number, state): (usize, &&str)| {
                let broker = rdkafka::statistics::Broker {
                    state: (*state).to_owned(),
                    ..Default::default()
                };
                (number.to_string(), broker)
            };
            let brokers = Reach::new();
            let statistics = Statistics {
                brokers: states.iter().enumerate().map(of).collect(),
                ..Statistics::default()
            };
            meet(&statistics, &brokers, &Objections::default());
            brokers.met().map(|met| met.is_up)
        };
        assert_eq!(states(&[]), Some(false));
        assert_eq!(states(&["INIT", "UP"]), Some(true));
        assert_eq!(states(&["INIT", "DOWN"]), Some(false));
    }

    #[test]
    fn a_connection_over_which_nothing_is_answered_is_no_sign_of_being_let_in() {
        let (objections, brokers) = (Objections::default(), Reach::new());
        let options = options("b:9092");
        let refused = "sasl_ssl://b:9092/1: SASL authentication error: {\"status\":\"invalid_token\"} (after 3ms in state AUTH_REQ)";
        let is_up = |told: &[(&str, u64)]| {
            let of = |(number, (state, rx)): (usize, &(&str, u64))| {
                let broker = rdkafka::statistics::Broker {
                    state: (*state).to_owned(),
                    rx: *rx,
                    ..Default::default()
                };
                (number.to_string(), broker)
            };
            let statistics = Statistics {
                brokers: told.iter().enumerate().map(of).collect(),
                ..Statistics::default()
            };
            meet(&statistics, &brokers, &objections);
            let met = brokers.met().unwrap();
            (met.is_up, met.why)
        };
        assert!(is_up(&[("UP", 5), ("UP", 70)]).0);
        let code = RDKafkaErrorCode::Authentication;
        objections.hear(&options, &KafkaError::Global(code), refused);
        let (is_let_in, why) = is_up(&[("UP", 5), ("AUTH_REQ", 72)]);
        assert!(!is_let_in && why.unwrap().contains("refused the token"));
        assert!(!is_up(&[("UP", 5), ("DOWN", 74)]).0);
        assert_eq!(is_up(&[("UP", 5), ("UP", 76)]), (true, None));
        assert!(is_up(&[("UP", 5), ("UP", 76)]).0, "nobody objects any more");
    }

    #[test]
    fn who_gives_no_token_is_told_with_the_brokers_that_wait_for_it() {
        let said = "Failed to acquire SASL OAUTHBEARER token: Failed to retrieve OIDC token from \"https://idp/t\": no";
        let hindered = hindered(&options("b:9092"), said).unwrap();
        assert_eq!(hindered.at, "b:9092");
        assert!(super::hindered(&options("b:9092"), "1/1 brokers are down").is_none());
    }
}
