//! E-mail addresses compared as the person behind them, never as a way to write to them.

use crate::handlers::secret::Secret;

/// Providers that ignore dots and what follows a plus.
const DOTLESS: &[&str] = &["gmail.com", "googlemail.com"];

/// Providers that ignore what follows a plus.
const TAGGED: &[&str] = &[
    "outlook.com",
    "hotmail.com",
    "live.com",
    "fastmail.com",
    "fastmail.fm",
    "icloud.com",
    "me.com",
    "proton.me",
    "protonmail.com",
    "pm.me",
];

/// The mailbox that an address leads to: lower case, without what its provider ignores. For comparison only.
pub fn mailbox(address: &str) -> String {
    let lower = address.trim().to_lowercase();
    let Some((local, domain)) = lower.rsplit_once('@') else {
        return lower;
    };
    let untagged = local.split('+').next().unwrap_or(local);
    if DOTLESS.contains(&domain) {
        return format!("{}@gmail.com", untagged.replace('.', ""));
    }
    if TAGGED.contains(&domain) {
        return format!("{untagged}@{domain}");
    }
    lower
}

/// The domain of an address, lower case, without a final dot.
pub fn domain(address: &str) -> Option<String> {
    let (_, domain) = address.trim().rsplit_once('@')?;
    let plain = domain.trim_end_matches('.').to_lowercase();
    (!plain.is_empty()).then_some(plain)
}

/// What stands for an address in `suppressions.email`.
pub fn suppression_key(secret: &Secret, address: &str) -> String {
    secret.tag_hex("suppression", &[mailbox(address).as_bytes()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_one_mailbox_are_equal_where_the_provider_says_so() {
        for (address, expected) in [
            ("J.Doe+list@GMail.com", "jdoe@gmail.com"),
            ("jdoe@googlemail.com", "jdoe@gmail.com"),
            ("j.doe+x@outlook.com", "j.doe@outlook.com"),
            ("J.Doe+x@Company.example", "j.doe+x@company.example"),
            ("nobody", "nobody"),
        ] {
            assert_eq!(mailbox(address), expected);
        }
    }

    #[test]
    fn a_domain_is_what_follows_the_last_at() {
        assert_eq!(domain("\"a@b\"@Example.ORG."), Some("example.org".to_owned()));
        assert_eq!(domain("nobody"), None);
    }
}
