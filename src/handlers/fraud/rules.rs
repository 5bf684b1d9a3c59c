//! What counts as evidence, and how much: pure functions of facts about one referral or one user.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::IpAddr;
use std::sync::LazyLock;

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::clients::webhook::network;
use crate::handlers::address;
use crate::handlers::fraud::agents;
use crate::handlers::secret::Secret;

/// Confidence in whole percent.
pub type Percent = u8;

/// The settings of all checks. A check that is `None` is switched off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FraudSettings {
    /// From this combined confidence on, a referral is not credited.
    pub hold_at: Percent,
    /// The friend is the referrer.
    pub self_referral: Option<SelfReferral>,
    /// Too many in too short a time.
    pub velocity: Option<Velocity>,
    /// An address that is thrown away.
    pub disposable_email: Option<DisposableEmail>,
    /// A crawler or a script, by what it says it is.
    pub bot: Option<Bot>,
    /// Many users behind one network address.
    pub duplicate_ip: Option<Duplicate>,
    /// Many users of one device.
    pub duplicate_device: Option<Duplicate>,
}

/// The friend is the referrer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SelfReferral {
    /// Same device.
    pub device: Percent,
    /// Same network address.
    pub ip: Percent,
    /// Same network address and the same mailbox behind both e-mail addresses.
    pub ip_and_mailbox: Percent,
}

/// Too many in too short a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Velocity {
    /// How many referrals of one referrer pass.
    pub referrals_max: u32,
    /// In which time.
    pub window_secs: u32,
    /// Confidence in each referral beyond.
    pub confidence: Percent,
}

/// An address that is thrown away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DisposableEmail {
    /// Confidence.
    pub confidence: Percent,
    /// Domains that count as disposable beside the list.
    pub more_domains: BTreeSet<String>,
    /// Domains that do not, whatever the list says.
    pub trusted_domains: BTreeSet<String>,
}

/// A crawler or a script, by what it says it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bot {
    /// Confidence.
    pub confidence: Percent,
}

/// Many users of one campaign share what few should.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Duplicate {
    /// How many users pass.
    pub users_max: u32,
    /// Confidence in each user beyond.
    pub confidence: Percent,
}

impl Default for FraudSettings {
    fn default() -> Self {
        Self {
            hold_at: 80,
            self_referral: Some(SelfReferral {
                device: 95,
                ip: 60,
                ip_and_mailbox: 90,
            }),
            velocity: Some(Velocity {
                referrals_max: 10,
                window_secs: 3600,
                confidence: 80,
            }),
            disposable_email: Some(DisposableEmail {
                confidence: 85,
                more_domains: BTreeSet::new(),
                trusted_domains: BTreeSet::new(),
            }),
            bot: Some(Bot { confidence: 90 }),
            duplicate_ip: Some(Duplicate {
                users_max: 3,
                confidence: 60,
            }),
            duplicate_device: Some(Duplicate {
                users_max: 2,
                confidence: 85,
            }),
        }
    }
}

/// What is known about one referral when it is checked.
#[derive(Clone, sqlx::FromRow)]
pub struct ReferralFacts {
    pub(super) referral_id: Uuid,
    pub(super) campaign_id: Uuid,
    pub(super) referrer_id: Uuid,
    pub(super) referred_id: Uuid,
    pub(super) created_at: DateTime<Utc>,
    pub(super) friend_email: String,
    pub(super) friend_ip: Option<String>,
    pub(super) friend_device: Option<String>,
    pub(super) referrer_email: String,
    pub(super) referrer_ip: Option<String>,
    pub(super) referrer_device: Option<String>,
    pub(super) ip_is_safe: bool,
    /// Referrals of the referrer inside the window, before this one.
    pub(super) earlier_in_window: i64,
}

/// What is known about one user when it is checked.
#[derive(Clone, sqlx::FromRow)]
pub struct UserFacts {
    pub(super) user_id: Uuid,
    pub(super) campaign_id: Uuid,
    pub(super) email: String,
    pub(super) ip: Option<String>,
    pub(super) ip_is_safe: bool,
    pub(super) device: Option<String>,
    pub(super) agent: Option<String>,
    pub(super) created_at: DateTime<Utc>,
}

/// How many users of the campaign share something with a user: itself and those who signed up before it. Counting stops
/// as soon as it is too many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Shared {
    /// The network address, or the network that one house gets.
    pub(super) ip: u32,
    /// The device.
    pub(super) device: u32,
}

/// One row of `fraud_detections` that ought to exist. Holds hashes, numbers and words, and nobody's data.
#[derive(Debug, Clone, PartialEq)]
pub struct Detection {
    /// Campaign.
    pub campaign_id: Uuid,
    /// The user it is about: of a referral, the friend.
    pub user_id: Uuid,
    /// The referral it is about, where it is about one.
    pub referral_id: Option<Uuid>,
    /// Type.
    pub kind: &'static str,
    /// Makes it the same row on every scan.
    pub evidence_key: String,
    /// Confidence.
    pub confidence: Percent,
    /// For people, with the family by which confidence is combined.
    pub evidence: Value,
}

/// Checks one referral.
pub fn check_referral(facts: &ReferralFacts, settings: &FraudSettings, secret: &Secret) -> Vec<Detection> {
    let mut found = Vec::new();
    if let Some(check) = &settings.self_referral {
        found.extend(same_device(facts, check, secret));
        found.extend(same_ip(facts, check, secret));
    }
    if let Some(check) = &settings.velocity {
        found.extend(too_fast(facts, check));
    }
    // A rule that is switched off has no confidence, and a row without any would bar it when it is switched on again.
    found.retain(|detection| detection.confidence > 0);
    found
}

/// Checks one user.
pub fn check_user(facts: &UserFacts, shared: Shared, settings: &FraudSettings, secret: &Secret) -> Vec<Detection> {
    let checks = [
        settings
            .disposable_email
            .as_ref()
            .and_then(|check| thrown_away(facts, check)),
        settings.bot.as_ref().and_then(|check| automatic(facts, check)),
        settings
            .duplicate_ip
            .as_ref()
            .and_then(|check| crowded_ip(facts, shared, check, secret)),
        settings
            .duplicate_device
            .as_ref()
            .and_then(|check| crowded_device(facts, shared, check, secret)),
    ];
    let mut found: Vec<Detection> = checks.into_iter().flatten().collect();
    found.retain(|detection| detection.confidence > 0);
    found
}

fn about_user(facts: &UserFacts, kind: &'static str, key: String, confidence: Percent, evidence: Value) -> Detection {
    Detection {
        campaign_id: facts.campaign_id,
        user_id: facts.user_id,
        referral_id: None,
        kind,
        evidence_key: key,
        confidence,
        evidence,
    }
}

fn thrown_away(facts: &UserFacts, check: &DisposableEmail) -> Option<Detection> {
    let domain = address::domain(&facts.email)?;
    is_disposable(&domain, check).then(|| {
        let evidence = json!({"family": "mail", "domain": domain});
        about_user(facts, "disposable_email", domain, check.confidence, evidence)
    })
}

fn automatic(facts: &UserFacts, check: &Bot) -> Option<Detection> {
    let name = agents::automatic(facts.agent.as_deref()?)?;
    let evidence = json!({"family": "agent", "agent": name});
    Some(about_user(facts, "bot", name.to_owned(), check.confidence, evidence))
}

fn crowded_ip(facts: &UserFacts, shared: Shared, check: &Duplicate, secret: &Secret) -> Option<Detection> {
    let house = house_of(facts)?;
    (shared.ip > check.users_max).then(|| {
        let hash = secret.tag_hex("ip", &[house.to_string().as_bytes()]);
        let evidence = json!({"family": "ip", "ip": hash, "users_more_than": check.users_max});
        about_user(facts, "duplicate_ip", hash, check.confidence, evidence)
    })
}

fn crowded_device(facts: &UserFacts, shared: Shared, check: &Duplicate, secret: &Secret) -> Option<Detection> {
    let device = device_of(facts)?;
    (shared.device > check.users_max).then(|| {
        let hash = secret.tag_hex("device", &[device.as_bytes()]);
        let evidence = json!({"family": "device", "device": hash, "users_more_than": check.users_max});
        about_user(facts, "duplicate_device", hash, check.confidence, evidence)
    })
}

/// The device that a user may share with others; `None` where it says nothing.
pub(super) fn device_of(facts: &UserFacts) -> Option<&str> {
    facts
        .device
        .as_deref()
        .map(str::trim)
        .filter(|device| !device.is_empty())
}

/// The house that a user may share with others; `None` where its address says nothing: absent, private, or safe-listed.
pub(super) fn house_of(facts: &UserFacts) -> Option<IpAddr> {
    if facts.ip_is_safe {
        return None;
    }
    facts.ip.as_deref().and_then(household)
}

/// The addresses of a house as pairs of first and last: of IPv4 also as IPv6 writes it, of IPv6 the /64.
pub(super) fn addresses_of(house: IpAddr) -> Vec<(IpAddr, IpAddr)> {
    match house {
        IpAddr::V4(v4) => {
            let mapped = IpAddr::V6(v4.to_ipv6_mapped());
            vec![(house, house), (mapped, mapped)]
        }
        IpAddr::V6(v6) => vec![(house, IpAddr::V6((v6.to_bits() | u128::from(u64::MAX)).into()))],
    }
}

fn about_referral(
    facts: &ReferralFacts,
    kind: &'static str,
    key: String,
    confidence: Percent,
    evidence: Value,
) -> Detection {
    Detection {
        campaign_id: facts.campaign_id,
        user_id: facts.referred_id,
        referral_id: Some(facts.referral_id),
        kind,
        evidence_key: key,
        confidence,
        evidence,
    }
}

fn same_device(facts: &ReferralFacts, check: &SelfReferral, secret: &Secret) -> Option<Detection> {
    let device = facts
        .friend_device
        .as_deref()
        .map(str::trim)
        .filter(|device| !device.is_empty())?;
    let same = facts.referrer_device.as_deref().map(str::trim) == Some(device);
    same.then(|| {
        let hash = secret.tag_hex("device", &[device.as_bytes()]);
        let evidence = json!({"family": "device", "device": hash});
        about_referral(
            facts,
            "self_referral",
            format!("{}:device", facts.referral_id),
            check.device,
            evidence,
        )
    })
}

fn same_ip(facts: &ReferralFacts, check: &SelfReferral, secret: &Secret) -> Option<Detection> {
    let friend = facts.friend_ip.as_deref().and_then(household)?;
    let same = facts.referrer_ip.as_deref().and_then(household) == Some(friend);
    if !same || facts.ip_is_safe {
        return None;
    }
    let same_mailbox = address::mailbox(&facts.friend_email) == address::mailbox(&facts.referrer_email);
    let confidence = if same_mailbox { check.ip_and_mailbox } else { check.ip };
    let hash = secret.tag_hex("ip", &[friend.to_string().as_bytes()]);
    let evidence = json!({"family": "ip", "ip": hash, "same_mailbox": same_mailbox});
    Some(about_referral(
        facts,
        "self_referral",
        format!("{}:ip", facts.referral_id),
        confidence,
        evidence,
    ))
}

fn too_fast(facts: &ReferralFacts, check: &Velocity) -> Option<Detection> {
    if facts.earlier_in_window < i64::from(check.referrals_max) {
        return None;
    }
    let key = format!("{}:{}", facts.referrer_id, facts.created_at.date_naive());
    let evidence = json!({
        "family": "rate",
        "earlier_in_window": facts.earlier_in_window,
        "window_secs": check.window_secs,
    });
    Some(about_referral(facts, "velocity", key, check.confidence, evidence))
}

/// What an address says about who is behind it: itself, of IPv6 the /64 that one house gets; nothing when it is private.
fn household(text: &str) -> Option<IpAddr> {
    let address = text.parse::<IpAddr>().ok()?.to_canonical();
    if !network::is_public(address) {
        return None;
    }
    Some(match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() & !u128::from(u64::MAX)).into()),
    })
}

static DISPOSABLE: LazyLock<HashSet<&'static str>> = LazyLock::new(|| mailchecker::blacklist().into_iter().collect());

fn is_disposable(domain: &str, check: &DisposableEmail) -> bool {
    let registrable = psl::domain_str(domain).unwrap_or(domain);
    let names = [domain, registrable];
    let trusted = names.iter().any(|name| check.trusted_domains.contains(*name));
    !trusted
        && names
            .iter()
            .any(|name| DISPOSABLE.contains(name) || check.more_domains.contains(*name))
}

/// Combines detections about one referral, as (family, percent), to a confidence in hundredths of a percent: the
/// strongest of each family, noisy-or over families; an address with an agent alone never says more than 70 %.
///
/// `credit::SUSPICION` is the same in SQL, where it decides.
pub fn combine<'a>(detections: impl IntoIterator<Item = (&'a str, Percent)>) -> u32 {
    let mut strongest: BTreeMap<&str, f64> = BTreeMap::new();
    for (family, percent) in detections {
        let confidence = (f64::from(percent) / 100.0).min(0.9999);
        let known = strongest.entry(family).or_insert(0.0);
        *known = known.max(confidence);
    }
    let genuine: f64 = strongest.values().map(|confidence| 1.0 - confidence).product();
    let combined = ((1.0 - genuine) * 10_000.0).round();
    let families: Vec<&str> = strongest.into_keys().collect();
    let limit = if families == ["agent", "ip"] { 7_000.0 } else { 10_000.0 };
    // Between 0 and 10,000 by construction.
    combined.min(limit) as u32
}

#[cfg(test)]
#[path = "rules_tests.rs"]
mod tests;
