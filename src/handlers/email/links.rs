//! Links in mails, from templates of the configuration.

/// Where links lead. `{token}`, `{code}` and `{campaign}` are replaced by the verification token, the referral code and the
/// campaign's slug.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Links {
    /// The application's page that takes a verification token.
    pub verification_url: String,
    /// The application's page behind a referral link.
    pub referral_url: String,
    /// Where this worker's HTTP endpoints are reached from everywhere; without it there is no link to unsubscribe by, and no
    /// mail that needs one.
    pub public_url: Option<String>,
}

impl Links {
    pub(super) fn verification(&self, token: &str, campaign: &str) -> String {
        fill(&self.verification_url, &[("{token}", token), ("{campaign}", campaign)])
    }

    pub(super) fn referral(&self, code: &str, campaign: &str) -> String {
        fill(&self.referral_url, &[("{code}", code), ("{campaign}", campaign)])
    }

    /// The page where a subscription ends.
    pub(super) fn unsubscribe(&self, token: &str) -> Option<String> {
        let base = self.public_url.as_deref()?.trim_end_matches('/');
        Some(format!("{base}/unsubscribe/{}", encode(token)))
    }
}

fn fill(template: &str, values: &[(&str, &str)]) -> String {
    values.iter().fold(template.to_owned(), |url, (name, value)| {
        url.replace(name, &encode(value))
    })
}

/// Percent-encodes everything but the unreserved characters.
fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_cannot_leave_their_place_in_a_url() {
        let links = Links {
            verification_url: "https://app.example/{campaign}/verify?token={token}".into(),
            referral_url: "https://app.example/{campaign}?ref={code}".into(),
            public_url: Some("https://lists.example/w/".into()),
        };
        assert_eq!(
            links.verification("a&b=c/ü", "launch"),
            "https://app.example/launch/verify?token=a%26b%3Dc%2F%C3%BC"
        );
        assert_eq!(
            links.referral("AN N", "launch"),
            "https://app.example/launch?ref=AN%20N"
        );
        assert_eq!(
            links.unsubscribe("a/b").as_deref(),
            Some("https://lists.example/w/unsubscribe/a%2Fb")
        );
        let none = Links {
            public_url: None,
            ..links
        };
        assert_eq!(none.unsubscribe("a"), None);
    }
}
