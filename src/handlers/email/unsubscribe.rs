//! Unsubscribing: the token in a link, and what whoever holds it may do.
//!
//! A token names a campaign and an address, the address only as what `suppressions` keeps of it. So a link works without a
//! login, for as long as the campaign exists, also when the user is gone; it says nothing about whom it was sent to, and
//! no answer depends on whether somebody with that address ever joined.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sqlx::postgres::PgPool;
use uuid::Uuid;

use crate::handlers::address;
use crate::handlers::email::sql;
use crate::handlers::secret::Secret;

/// The form of a token, so that another one can be told apart: the tag is over it too.
const VERSION: u8 = 1;

const PURPOSE: &str = "unsubscribe link";

/// Version, campaign, address, tag.
const TOKEN_BYTES: usize = 1 + 16 + 16 + 16;

/// What a token stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscription {
    campaign: Uuid,
    /// As in `suppressions.email`.
    address_key: String,
}

/// The token of an address in a campaign: always the same, so that every try of a mail has the same bytes.
pub fn token(secret: &Secret, campaign: Uuid, address: &str) -> String {
    let mut bytes = vec![VERSION];
    bytes.extend_from_slice(campaign.as_bytes());
    let key = hex::decode(address::suppression_key(secret, address)).expect("it is hexadecimal");
    bytes.extend_from_slice(&key);
    let tag = secret.tag(PURPOSE, &[&bytes]);
    bytes.extend_from_slice(&tag[..16]);
    URL_SAFE_NO_PAD.encode(bytes)
}

/// What a token stands for; `None` when it is none of this secret's.
fn read(secret: &Secret, token: &str) -> Option<Subscription> {
    // Before anything is decoded: whoever sends more means no good.
    if token.len() > 2 * TOKEN_BYTES {
        return None;
    }
    let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
    let (signed, tag) = bytes.split_at_checked(TOKEN_BYTES - 16)?;
    if bytes.len() != TOKEN_BYTES || !secret.confirms(PURPOSE, &[signed], tag) || signed[0] != VERSION {
        return None;
    }
    Some(Subscription {
        campaign: Uuid::from_slice(&signed[1..17]).ok()?,
        address_key: hex::encode(&signed[17..]),
    })
}

/// Ends subscriptions.
#[derive(Debug, Clone)]
pub struct Unsubscriber {
    secret: Secret,
    pool: PgPool,
}

impl Unsubscriber {
    /// One that knows the tokens of this secret and writes through this pool.
    pub fn new(secret: Secret, pool: PgPool) -> Self {
        Self { secret, pool }
    }

    /// What a token stands for. Asks nobody.
    pub fn read(&self, token: &str) -> Option<Subscription> {
        read(&self.secret, token)
    }

    /// Ends a subscription; what has ended stays so. When this returns, it is durable.
    ///
    /// # Errors
    /// Whatever Postgres answered.
    pub async fn end(&self, subscription: &Subscription) -> Result<(), sqlx::Error> {
        let mut connection = self.pool.acquire().await?;
        sql::unsubscribe(&mut connection, &subscription.address_key, subscription.campaign).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret() -> Secret {
        Secret::new("key")
    }

    #[test]
    fn a_token_is_read_back_and_the_same_for_one_mailbox() {
        let campaign = Uuid::from_u128(7);
        let token = token(&secret(), campaign, "J.Doe+x@gmail.com");
        assert_eq!(token, super::token(&secret(), campaign, "jdoe@googlemail.com"));
        assert!(token.len() == 66 && !token.to_lowercase().contains("doe"), "{token}");
        assert_eq!(
            read(&secret(), &token),
            Some(Subscription {
                campaign,
                address_key: address::suppression_key(&secret(), "jdoe@gmail.com"),
            })
        );
    }

    #[test]
    fn a_token_that_was_changed_in_any_place_is_none() {
        let token = token(&secret(), Uuid::from_u128(7), "ann@example.org");
        assert_eq!(read(&Secret::new("other"), &token), None);
        for place in 0..token.len() {
            let mut changed = token.clone().into_bytes();
            changed[place] = if changed[place] == b'A' { b'B' } else { b'A' };
            assert_eq!(read(&secret(), &String::from_utf8(changed).unwrap()), None, "{place}");
        }
        let (shorter, longer, huge) = (token[..65].to_owned(), format!("{token}A"), "A".repeat(10_000));
        for other in ["", "A", "%", "\u{e9}", &*shorter, &*longer, &*huge] {
            assert_eq!(read(&secret(), other), None);
        }
    }
}
