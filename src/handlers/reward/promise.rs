//! What is promised with a reward: its code, and the snapshot that later edits do not change.

use chrono::{DateTime, Duration, Utc};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::handlers::reward::rules::Place;
use crate::handlers::secret::Secret;

/// Letters of a code: none that are taken for another.
const ALPHABET: &[u8; 32] = b"ABCDEFGHJKLMNPQRSTUVWXYZ23456789";

/// Length of the random part; with 32 letters, 60 bits.
const RANDOM_LETTERS: usize = 12;

/// A reward as it stands when it is promised.
#[derive(Debug, Clone, sqlx::FromRow)]
pub(super) struct Terms {
    pub(super) reward_id: Uuid,
    pub(super) name: String,
    pub(super) description: Option<String>,
    pub(super) kind: String,
    pub(super) config: Value,
    pub(super) delivery_method: String,
    pub(super) threshold: Option<i32>,
}

impl Terms {
    /// The code of the user's n-th reward: from the template, or the random letters alone; the same each time it is asked
    /// for.
    pub(super) fn code(&self, secret: &Secret, user: Uuid, ordinal: i64) -> String {
        let ordinal_bytes = ordinal.to_be_bytes();
        let tag = secret.tag(
            "reward code",
            &[self.reward_id.as_bytes(), user.as_bytes(), &ordinal_bytes],
        );
        let random: String = tag[..RANDOM_LETTERS]
            .iter()
            .map(|byte| char::from(ALPHABET[usize::from(byte % 32)]))
            .collect();
        match self.config.get("code_template").and_then(Value::as_str) {
            Some(template) => template.replace("{random}", &random),
            None => random,
        }
    }

    /// What was promised, and the referrals it was counted by.
    pub(super) fn snapshot(&self, referrals: &[Uuid]) -> Value {
        json!({
            "name": self.name,
            "description": self.description,
            "type": self.kind,
            "config": self.config,
            "delivery_method": self.delivery_method,
            "trigger_threshold": self.threshold,
            "referrals": referrals,
        })
    }

    /// As [`Terms::snapshot`], with the place it was promised for and how many referrals that was ranked by.
    pub(super) fn snapshot_of_place(&self, referrals: &[Uuid], place: Option<Place>) -> Value {
        let mut snapshot = self.snapshot(referrals);
        if let Some(place) = place {
            snapshot["position"] = place.position.into();
            snapshot["place_referrals"] = place.referrals.into();
        }
        snapshot
    }

    /// When a reward that is earned now expires.
    pub(super) fn expires_at(&self, earned_at: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let days = self
            .config
            .get("expiry_days")
            .and_then(Value::as_i64)
            .filter(|days| *days > 0)?;
        earned_at.checked_add_signed(Duration::try_days(days)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terms(config: Value) -> Terms {
        Terms {
            reward_id: Uuid::from_u128(1),
            name: "Early access".into(),
            description: None,
            kind: "early_access".into(),
            config,
            delivery_method: "email".into(),
            threshold: Some(3),
        }
    }

    #[test]
    fn a_code_is_the_same_each_time_and_another_for_another_user_or_time() {
        let secret = Secret::new("k");
        let terms = terms(json!({"code_template": "VIP-{random}"}));
        let (one, two) = (Uuid::from_u128(7), Uuid::from_u128(8));
        let code = terms.code(&secret, one, 1);
        assert_eq!(code, terms.code(&secret, one, 1));
        assert_ne!(code, terms.code(&secret, two, 1));
        assert_ne!(code, terms.code(&secret, one, 2));
        assert!(code.starts_with("VIP-") && code.len() == 4 + RANDOM_LETTERS, "{code}");
    }

    #[test]
    fn expiry_counts_days_and_nonsense_is_no_expiry() {
        let now = DateTime::from_timestamp(0, 0).unwrap();
        assert_eq!(
            terms(json!({"expiry_days": 1})).expires_at(now),
            DateTime::from_timestamp(86_400, 0)
        );
        for config in [
            json!({}),
            json!({"expiry_days": -1}),
            json!({"expiry_days": i64::MAX}),
            json!({"expiry_days": "x"}),
        ] {
            assert_eq!(terms(config).expires_at(now), None);
        }
    }
}
