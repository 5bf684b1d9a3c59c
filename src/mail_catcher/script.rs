//! Refusals on demand: the recipient's local part says how the server shall fail.
//!
//! What follows a `+` is ignored, so that one test can use many addresses that behave alike.

use std::collections::HashMap;
use std::sync::Mutex;

use sha2::{Digest, Sha256};

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
    /// Take the content, then answer with this and keep nothing.
    Reject(Reply),
    /// Keep the mail, then cut the connection instead of answering.
    LoseReply,
    /// Cut the connection when the content has come, and keep nothing.
    LoseMail,
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
        if let Some(rest) = name.strip_prefix("reject-") {
            return Wish::Reject(refusal(rest));
        }
        if let Some((deferred, cut)) = name.strip_prefix("flaky-").and_then(percents) {
            let tried = self.count(&address);
            return chance(&address, tried, deferred, cut);
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

/// `10-5`: of a hundred tries so many are deferred, and so many cut.
fn percents(script: &str) -> Option<(u8, u8)> {
    let (deferred, cut) = script.split_once('-')?;
    let (deferred, cut): (u8, u8) = (deferred.parse().ok()?, cut.parse().ok()?);
    (deferred <= 100 && cut <= 100 - deferred).then_some((deferred, cut))
}

/// What becomes of this try of a recipient: by chance, and the same whenever it is asked.
fn chance(address: &str, tried: u32, deferred: u8, cut: u8) -> Wish {
    let hash = Sha256::digest(format!("{tried} {address}"));
    // 256 is no multiple of 100: two bytes make the difference too small to be seen.
    let drawn = u16::from_be_bytes([hash[0], hash[1]]) % 100;
    let (deferred, cut) = (u16::from(deferred), u16::from(cut));
    match (drawn < deferred, drawn < deferred + cut) {
        (true, _) => Wish::Refuse(Reply::deferred()),
        (false, true) if hash[2] < 128 => Wish::LoseReply,
        (false, true) => Wish::LoseMail,
        (false, false) => Wish::Accept,
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
            "write refuse-<code>-<enhanced> or reject-<code>-<enhanced>, for example refuse-550-5.1.1",
        ),
    }
}
