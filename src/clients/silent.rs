//! Clients that accept everything and send nothing, for `run --shadow`.

use async_trait::async_trait;

use crate::clients::mailer::{Envelope, Mailer, Sent};
use crate::clients::webhook::{Answer, Call, Called, Caller};

/// Takes mails and calls, and keeps them to itself.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

#[async_trait]
impl Mailer for Silent {
    async fn send_raw(&self, _: &Envelope, _: &[u8]) -> Sent {
        Sent::Accepted {
            reply: "not sent: this is a shadow".to_owned(),
        }
    }
}

#[async_trait]
impl Caller for Silent {
    async fn call(&self, _: &Call) -> Called {
        Called::Delivered(Answer {
            code: 200,
            excerpt: "not called: this is a shadow".to_owned(),
        })
    }
}
