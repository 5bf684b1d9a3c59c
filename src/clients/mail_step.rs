//! What follows from the error of one step of a dialogue with the mail server.

use std::error::Error;
use std::time::Duration;

use crate::causes::chain;
use crate::hindrance::{Hindered, Hindrance, MAIL};

/// An error of one step, before it is known what it means.
pub(super) enum StepError {
    Refused { code: u16, text: String },
    Broken(Box<dyn Error + Send + Sync>),
}

/// A step that did not finish in time.
#[derive(Debug, thiserror::Error)]
#[error("the mail server did not answer within {0:?}")]
pub(super) struct Late(pub(super) Duration);

impl StepError {
    /// What lettre says of a step.
    pub(super) fn of(error: lettre::transport::smtp::Error) -> Self {
        match error.status() {
            Some(code) => Self::Refused {
                code: code.to_string().parse().unwrap_or(500),
                text: error.source().map(ToString::to_string).unwrap_or_default(),
            },
            None => Self::Broken(error.into()),
        }
    }

    /// The same error, in the words of every connection where it is a certificate or a host name.
    pub(super) fn named(self, place: &str) -> Self {
        match self {
            Self::Broken(error) => match Hindered::read(&chain(&*error), place, &MAIL) {
                Some(hindered) => Self::Broken(hindered.into()),
                None => Self::Broken(error),
            },
            refused @ Self::Refused { .. } => refused,
        }
    }

    /// What a refused login is, by its code (RFC 4954): 504 and 534 mean the way to log in, and 4xx the server itself.
    pub(super) fn of_login(self, place: &str) -> Self {
        let (code, hindrance) = match self {
            Self::Refused {
                code: code @ (504 | 534),
                ..
            } => (code, Hindrance::Mechanism),
            Self::Refused {
                code: code @ 500..=599, ..
            } => (code, Hindrance::Login),
            other => return other,
        };
        Self::Broken(Box::new(Hindered {
            hindrance,
            settings: &MAIL,
            at: place.to_owned(),
            said: format!("code {code}"),
        }))
    }

    /// Why nothing could be handed over.
    pub(super) fn unreachable(self) -> Box<dyn Error + Send + Sync> {
        match self {
            Self::Refused { code, .. } => NoWelcome(code).into(),
            Self::Broken(error) => error,
        }
    }
}

/// The server offered no STARTTLS.
#[derive(Debug, thiserror::Error)]
#[error("the mail server offers no STARTTLS, so the password was not sent; is this the right port?")]
pub(super) struct InClear;

/// A reply that refuses any conversation.
#[derive(Debug, thiserror::Error)]
#[error("the mail server refused to talk to this worker with code {0}")]
struct NoWelcome(u16);
