//! The installation's secret and what is derived from it: codes, tokens, and hashes that stand for personal data.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// A shorter tag could be guessed.
const TAG_BYTES_MIN: usize = 16;

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
        self.mac(purpose, parts).finalize().into_bytes().into()
    }

    /// Whether `tag` is the beginning of [`Secret::tag`], at least half of it. Takes the same time wherever they differ.
    pub fn confirms(&self, purpose: &str, parts: &[&[u8]], tag: &[u8]) -> bool {
        tag.len() >= TAG_BYTES_MIN && self.mac(purpose, parts).verify_truncated_left(tag).is_ok()
    }

    fn mac(&self, purpose: &str, parts: &[&[u8]]) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("a key of any length is taken");
        for part in std::iter::once(purpose.as_bytes()).chain(parts.iter().copied()) {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part);
        }
        mac
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

    #[test]
    fn a_tag_is_confirmed_whole_or_cut_to_half_and_not_shorter() {
        let secret = Secret::new("key");
        let mut tag = secret.tag("a", &[b"x"]);
        for (length, expected) in [(32, true), (16, true), (15, false), (0, false)] {
            assert_eq!(secret.confirms("a", &[b"x"], &tag[..length]), expected, "{length}");
        }
        assert!(!secret.confirms("b", &[b"x"], &tag));
        tag[15] ^= 1;
        assert!(!secret.confirms("a", &[b"x"], &tag[..16]));
    }
}
