//! What librdkafka says, and what is read of it.

use super::*;

#[test]
fn what_a_broker_does_is_told_apart() {
    for (reason, hindrance, at, said) in [
        (
            "sasl_ssl://localhost:9093/bootstrap: SASL authentication error: Authentication failed during authentication due \
             to invalid credentials with SASL mechanism SCRAM-SHA-256 (after 12ms in state AUTH_REQ)",
            Hindrance::Login,
            "localhost:9093",
            "SASL authentication error: Authentication failed during authentication due to invalid credentials with SASL \
             mechanism SCRAM-SHA-256",
        ),
        (
            "ssl://[::1]:9093/1: SSL handshake failed: Disconnected: connecting to a PLAINTEXT broker listener? (after 3ms in \
             state SSL_HANDSHAKE)",
            Hindrance::NoTls,
            "[::1]:9093",
            "SSL handshake failed: Disconnected: connecting to a PLAINTEXT broker listener?",
        ),
        (
            "Failed to acquire SASL OAUTHBEARER token: Failed to retrieve OIDC token from \"https://idp/t\": no (401)",
            Hindrance::Token,
            "",
            "Failed to acquire SASL OAUTHBEARER token: Failed to retrieve OIDC token from \"https://idp/t\": no (401)",
        ),
    ] {
        let heard = Heard {
            hindrance,
            at: at.to_owned(),
            said: said.to_owned(),
        };
        assert_eq!(read(reason), Some(heard), "{reason}");
    }
    for (reason, hindrance) in [
        (
            "GroupCoordinator: localhost:9093: SASL authentication error: {\"status\":\"invalid_token\"} (after 1ms in state REAUTH)",
            Some(Hindrance::TokenRefused),
        ),
        (
            "GroupCoordinator: localhost:9093: SASL OAUTHBEARER mechanism handshake failed: Broker: Request not valid in current \
             SASL state: broker's supported mechanisms:  (after 1ms in state AUTH_HANDSHAKE)",
            None,
        ),
        ("FindCoordinator response error: Local: Authentication failure", None),
        (
            "[thrd:localhost:9093/bootstrap]: localhost:9093/bootstrap: Disconnected: connection closed by peer: receive 0 \
             after POLLIN (after 1ms in state APIVERSION_QUERY)",
            Some(Hindrance::TlsOnly),
        ),
        (
            "localhost:9093/1: Send failed: Broken pipe (after 2ms in state UP)",
            Some(Hindrance::LoginMissing),
        ),
        (
            "localhost:9093/1: Disconnected: connection closed by peer (after 72114ms in state UP)",
            None,
        ),
        (
            "ssl://localhost:9093/1: Disconnected: connection closed by peer (after 2ms in state UP)",
            None,
        ),
    ] {
        let heard = read(reason);
        assert_eq!(heard.as_ref().map(|heard| heard.hindrance), hindrance, "{reason}");
        assert!(heard.is_none_or(|heard| heard.at == "localhost:9093"), "{reason}");
    }
    for reason in [
        "localhost:1/bootstrap: Connect to ipv4#127.0.0.1:1 failed: Connection refused (after 0ms in state CONNECT)",
        "1/1 brokers are down",
    ] {
        assert_eq!(read(reason), None, "{reason}");
    }
}

#[tokio::test]
async fn nobody_being_there_is_no_refusal() {
    let access = Access {
        brokers: "127.0.0.1:1".to_owned(),
        properties: vec![("sasl.password".to_owned(), "s3cret".to_owned())],
    };
    assert!(!format!("{access:?}").contains("s3cret"));
    let refused = tokio::time::timeout(Duration::from_secs(1), refusal(access)).await;
    assert!(refused.is_err(), "{refused:?}");
}
