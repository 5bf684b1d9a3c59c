//! Refusals on demand: the recipient's local part says how the server shall fail.
//!
//! What follows a `+` is ignored, so that one test can use many addresses that behave alike.

use std::collections::HashMap;
use std::sync::Mutex;

use super::session::Reply;

/// Addresses whose tries are counted; more than any test needs, and a bound all the same.
const COUNTED_ADDRESSES_MAX: usize = 100_000;

/// What a recipient asks the server to do.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wish {
    /// Take the mail.
    Accept,
    /// Answer RCPT with this.
    Refuse(Reply),
    /// Keep the mail, then cut the connection instead of answering.
    LoseReply,
}

/// Counts the tries of addresses that fail a number of times.
#[derive(Debug, Default)]
pub(super) struct Script {
    tries: Mutex<HashMap<String, u32>>,
}

impl Script {
    /// What this recipient asks for, at this try.
    pub(super) fn wish(&self, address: &str) -> Wish {
        let address = address.to_ascii_lowercase();
        let local = address.rsplit_once('@').map_or(address.as_str(), |(local, _)| local);
        let name = local.split('+').next().unwrap_or_default();
        if name == "defer" {
            return Wish::Refuse(Reply::deferred());
        }
        if let Some(rest) = name.strip_prefix("refuse-") {
            return Wish::Refuse(refusal(rest));
        }
        if let Some(times) = times_of(name, "defer-") {
            return match self.count(&address) <= times {
                true => Wish::Refuse(Reply::deferred()),
                false => Wish::Accept,
            };
        }
        if let Some(times) = times_of(name, "lost-reply-") {
            return match self.count(&address) <= times {
                true => Wish::LoseReply,
                false => Wish::Accept,
            };
        }
        Wish::Accept
    }

    fn count(&self, address: &str) -> u32 {
        let mut tries = self.tries.lock().expect("no panic while held");
        if tries.len() >= COUNTED_ADDRESSES_MAX {
            tries.clear();
        }
        let count = tries.entry(address.to_owned()).or_insert(0);
        *count = count.saturating_add(1);
        *count
    }
}

fn times_of(name: &str, prefix: &str) -> Option<u32> {
    name.strip_prefix(prefix)?.parse().ok()
}

/// `550-5.1.1`; a script with a mistake is refused loudly rather than accepted silently.
fn refusal(script: &str) -> Reply {
    let parsed = script.split_once('-').and_then(|(code, enhanced)| {
        let code: u16 = code.parse().ok().filter(|code| (400..600).contains(code))?;
        let mut parts = enhanced.split('.');
        let class: u16 = parts.next()?.parse().ok().filter(|class| *class == code / 100)?;
        let (subject, detail): (u16, u16) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        parts
            .next()
            .is_none()
            .then_some((code, format!("{class}.{subject}.{detail}")))
    });
    match parsed {
        Some((code, enhanced)) => Reply::new(code, &enhanced, "refused because the recipient asked for it"),
        None => Reply::new(
            501,
            "5.1.3",
            "write refuse-<code>-<enhanced>, for example refuse-550-5.1.1",
        ),
    }
}
