//! Webhooks as their receivers and as attackers see them: signatures checked by somebody else's implementation of Standard
//! Webhooks, and addresses that must not be called.
//!
//! No services: the receiver is on this machine, and names are resolved by a table.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod hostile;

mod signatures;

mod zone;

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use afterwrite::clients::webhook::{Call, HttpCaller, WebhookSettings};
use chrono::Utc;

use crate::zone::Zone;

/// A caller that may call this machine under 127.0.0.1, as an operator may allow it, and resolves names by the zone.
fn caller(zone: &Arc<Zone>, allowed: &[&str]) -> HttpCaller {
    let settings = WebhookSettings {
        timeout: Duration::from_secs(5),
        allowed_networks: allowed.iter().map(|network| network.parse().unwrap()).collect(),
    };
    // From here nothing reaches another machine, also when the guard that is tested forgets an address.
    let from = Some(Ipv4Addr::LOCALHOST.into());
    HttpCaller::with_lookup(&settings, Arc::clone(zone) as Arc<_>, from).unwrap()
}

fn call(url: &str, secret: &str) -> Call {
    Call {
        url: url.to_owned(),
        secret: secret.to_owned(),
        id: "msg_2KWPBgLlAfxdpx2AI54pPJ85f4W".to_owned(),
        at: Utc::now(),
        body: br#"{"type":"reward.earned","data":{"name":"caf\u00e9"}}"#.to_vec(),
    }
}
