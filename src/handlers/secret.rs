//! The installation's secret and what is derived from it: codes, tokens, and hashes that stand for personal data.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// The installation's secret. Changing it changes reward codes not yet given, the addresses of suppressions and the keys of
/// fraud evidence; so it is chosen once.
#[derive(Clone)]
pub struct Secret(Vec<u8>);

impl fmt::Debug for Secret {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Secret(..)")
    }
}

impl Secret {
    /// A secret of these bytes.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(bytes.into())
    }

    /// HMAC-SHA-256 over a purpose and parts. Each part is preceded by its length, so that no two lists of parts
    /// are the same bytes, and a tag of one purpose is worthless for another.
    pub fn tag(&self, purpose: &str, parts: &[&[u8]]) -> [u8; 32] {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("a key of any length is taken");
        for part in std::iter::once(purpose.as_bytes()).chain(parts.iter().copied()) {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part);
        }
        mac.finalize().into_bytes().into()
    }

    /// The first half of [`Secret::tag`] in hex: for keys and evidence.
    pub fn tag_hex(&self, purpose: &str, parts: &[&[u8]]) -> String {
        hex::encode(&self.tag(purpose, parts)[..16])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_differ_by_purpose_and_by_where_a_part_ends() {
        let secret = Secret::new("key");
        let tags = [
            secret.tag("a", &[b"xy", b"z"]),
            secret.tag("a", &[b"x", b"yz"]),
            secret.tag("b", &[b"xy", b"z"]),
            Secret::new("other").tag("a", &[b"xy", b"z"]),
        ];
        for (index, tag) in tags.iter().enumerate() {
            assert!(!tags[..index].contains(tag));
        }
        assert_eq!(format!("{secret:?}"), "Secret(..)");
    }
}
