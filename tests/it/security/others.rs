//! The schema registry, Kafka Connect and the mail server, behind doors with one thing wrong each.

use std::sync::Arc;

use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

use super::doors::Door;
use super::{Case, DOCTOR, Variables, check, codes, settings};
use crate::authority::Authority;
use crate::mail_tls::{Front, PASSWORD, Speaks, USER, acceptor};
use crate::stack;
use crate::world::World;

const LOGIN: &str = "reader:door-s3cret";

/// Authorities, and what they have signed.
struct Certificates {
    authority: Authority,
    stranger: Authority,
}

impl Certificates {
    fn new() -> Self {
        let (authority, stranger) = (Authority::new(), Authority::new());
        authority.sign("localhost");
        authority.sign("elsewhere.example");
        authority.sign_expired("old.example");
        Self { authority, stranger }
    }

    fn of(&self, name: &str) -> TlsAcceptor {
        acceptor(&self.authority, name)
    }

    /// A reference to the authority's certificate, as a setting has it.
    fn trusted(by: &Authority) -> String {
        format!("${{file:{}}}", by.path("ca.pem").display())
    }
}

/// A door that asks for a certificate of the authority.
fn asking(authority: &Authority) -> TlsAcceptor {
    let mut roots = RootCertStore::empty();
    let authorities = CertificateDer::from_pem_file(authority.path("ca.pem")).unwrap();
    roots.add(authorities).unwrap();
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
    let certificate = CertificateDer::from_pem_file(authority.path("localhost.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(authority.path("localhost.key")).unwrap();
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier.build().unwrap());
    TlsAcceptor::from(Arc::new(config.with_single_cert(vec![certificate], key).unwrap()))
}

/// What is wrong with a service that is spoken to over HTTP: its address, whose certificates are trusted, and what has to be said.
type Wrong = (&'static str, String, Option<String>, &'static str, &'static str);

/// All of it, for a service inside; the last is the end of the doctor's code.
async fn wrong(certificates: &Certificates, inside: &str, path: &str) -> Vec<Wrong> {
    let right = Certificates::trusted(&certificates.authority);
    let open = async |acceptor, login| Door::open(acceptor, inside, login).await.port;
    let localhost = open(certificates.of("localhost"), None).await;
    let elsewhere = open(certificates.of("elsewhere.example"), None).await;
    let old = open(certificates.of("old.example"), None).await;
    let locked = open(certificates.of("localhost"), Some(LOGIN)).await;
    let asking = open(asking(&certificates.authority), None).await;
    let at = |scheme: &str, login: &str, port: u16| format!("{scheme}://{login}localhost:{port}{path}");
    let inside_port = inside.rsplit_once(':').unwrap().1.parse().unwrap();
    vec![
        (
            "an authority that is not trusted",
            at("https", "", localhost),
            Some(Certificates::trusted(&certificates.stranger)),
            "no authority trusted here has signed",
            "certificate",
        ),
        (
            "another host's certificate",
            at("https", "", elsewhere),
            Some(right.clone()),
            "the certificate of another host name",
            "host-name",
        ),
        (
            "a certificate that has expired",
            at("https", "", old),
            Some(right.clone()),
            "has expired, or is not valid yet",
            "certificate",
        ),
        (
            "TLS to who speaks none",
            at("https", "", inside_port),
            Some(right.clone()),
            "speaks no TLS",
            "tls",
        ),
        (
            "clear text to who speaks TLS",
            at("http", "", localhost),
            None,
            "takes no connection without TLS",
            "tls",
        ),
        (
            "a wrong password",
            at("https", "reader:not-the-s3cret@", locked),
            Some(right.clone()),
            "refused the user or the password",
            "login",
        ),
        (
            "no certificate where one is asked for",
            at("https", "", asking),
            Some(right),
            "asks for a client certificate, and got none",
            "certificate",
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_and_a_connect_behind_a_wrong_door_are_told_apart() {
    let _stack = stack::shared().await;
    let world = World::waitlist_alone("doors").await;
    let certificates = Certificates::new();
    let registry: reqwest::Url = stack::address("SCHEMA_REGISTRY_URL").parse().unwrap();
    let connect: reqwest::Url = stack::address("CONNECT_URL").parse().unwrap();
    let inside = |url: &reqwest::Url| format!("{}:{}", url.host_str().unwrap(), url.port().unwrap());
    let mut cases = Vec::new();
    for (part, variable, url) in [
        ("registry", "SCHEMA_REGISTRY_URL", &registry),
        ("connect", "CONNECT_URL", &connect),
    ] {
        let path = url.path().trim_end_matches('/');
        for (name, address, authority, what, code) in wrong(&certificates, &inside(url), path).await {
            let mut settings = settings(&[(variable, &address), ("AFTERWRITE__SOURCE__FORMAT", "avro")]);
            let ca_pem = format!("AFTERWRITE__{}__CA_PEM", part.to_uppercase());
            settings.extend(authority.map(|authority| (ca_pem, authority)));
            let says = |more: String| vec![what.to_owned(), " at ".to_owned(), more];
            cases.push(Case {
                name,
                words: &DOCTOR,
                settings: settings.clone(),
                code: Some(if part == "connect" { 3 } else { 1 }),
                says: says(format!("\"{part}-{code}\"")),
            });
            if part == "connect" {
                cases.push(Case {
                    name,
                    words: &["connector", "status"],
                    settings,
                    code: Some(2),
                    says: says("kafka connect at".to_owned()),
                });
            }
        }
    }
    check(&world, cases).await;
    is_let_in(&world, &certificates, &registry, &connect, inside).await;
    world.remove().await;
}

/// With everything right nothing is said of either.
async fn is_let_in(
    world: &World,
    certificates: &Certificates,
    registry: &reqwest::Url,
    connect: &reqwest::Url,
    inside: impl Fn(&reqwest::Url) -> String,
) {
    let authority = Certificates::trusted(&certificates.authority);
    let door = async |url: &reqwest::Url| {
        Door::open(certificates.of("localhost"), &inside(url), Some(LOGIN))
            .await
            .port
    };
    let registry_url = format!("https://{LOGIN}@localhost:{}{}", door(registry).await, registry.path());
    let connect_url = format!("https://{LOGIN}@localhost:{}", door(connect).await);
    let right = settings(&[
        ("SCHEMA_REGISTRY_URL", &registry_url),
        ("AFTERWRITE__REGISTRY__CA_PEM", &authority),
        ("CONNECT_URL", &connect_url),
        ("AFTERWRITE__CONNECT__CA_PEM", &authority),
        ("AFTERWRITE__SOURCE__FORMAT", "avro"),
    ]);
    let found = codes(world, &right).await;
    // Only Connect can tell that there is no connector of this source, or those of other tests.
    let told_by_connect = |code: &String| code == "connector-missing" || code == "prefix-differs";
    assert!(found.iter().any(told_by_connect), "{found:?}");
    assert!(
        !found
            .iter()
            .any(|code| code.starts_with("registry-") || code.starts_with("connect-")),
        "{found:?}"
    );
}

/// A mail server, how it is spoken to, with which password, and what the doctor has to find and say; `None`: nothing.
struct MailServer {
    name: &'static str,
    speaks: Speaks,
    shows: &'static str,
    tls: &'static str,
    is_trusted: bool,
    password: &'static str,
    found: Option<(&'static str, &'static str)>,
}

const RIGHT: MailServer = MailServer {
    name: "all right",
    speaks: Speaks::AfterStartTls,
    shows: "localhost",
    tls: "starttls",
    is_trusted: true,
    password: PASSWORD,
    found: None,
};

const MAIL_SERVERS: [MailServer; 8] = [
    RIGHT,
    MailServer {
        name: "all right at once",
        speaks: Speaks::FromTheFirstByte,
        tls: "implicit",
        ..RIGHT
    },
    MailServer {
        name: "an authority that is not trusted",
        is_trusted: false,
        found: Some(("mail-server-certificate", "no authority trusted here has signed")),
        ..RIGHT
    },
    MailServer {
        name: "another host's certificate",
        shows: "elsewhere.example",
        found: Some(("mail-server-host-name", "the certificate of another host name")),
        ..RIGHT
    },
    MailServer {
        name: "a certificate that has expired",
        speaks: Speaks::FromTheFirstByte,
        shows: "old.example",
        tls: "implicit",
        found: Some(("mail-server-certificate", "has expired, or is not valid yet")),
        ..RIGHT
    },
    MailServer {
        name: "a wrong password",
        password: "not-the-s3cret",
        found: Some(("mail-server-login", "smtp.user and smtp.password")),
        ..RIGHT
    },
    MailServer {
        name: "no STARTTLS",
        speaks: Speaks::Never,
        found: Some(("mail-server-tls", "smtp.tls")),
        ..RIGHT
    },
    MailServer {
        name: "TLS to who speaks none",
        speaks: Speaks::Never,
        tls: "implicit",
        found: Some(("mail-server-tls", "speaks no TLS")),
        ..RIGHT
    },
];

/// Opens the door of a mail server; answers how it is spoken to.
async fn opened(certificates: &Certificates, server: &MailServer) -> Variables {
    let front = Front::start(server.speaks, certificates.of(server.shows), true).await;
    let by = match server.is_trusted {
        true => &certificates.authority,
        false => &certificates.stranger,
    };
    settings(&[
        ("SMTP_HOST", "localhost"),
        ("SMTP_PORT", &front.port.to_string()),
        ("SMTP_USER", USER),
        ("SMTP_PASSWORD", server.password),
        ("AFTERWRITE__SMTP__TLS", server.tls),
        ("AFTERWRITE__SMTP__CA_PEM", &Certificates::trusted(by)),
    ])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_server_that_cannot_be_made_sure_of_or_lets_nobody_in_is_told() {
    let _stack = stack::shared().await;
    let world = World::waitlist_alone("mail_doors").await;
    let certificates = Certificates::new();
    let mut cases = Vec::new();
    for server in &MAIL_SERVERS {
        let (name, settings) = (server.name, opened(&certificates, server).await);
        let Some((code, what)) = server.found else {
            let found = codes(&world, &settings).await;
            assert!(
                !found.iter().any(|code| code.starts_with("mail-server")),
                "{name}: {found:?}"
            );
            continue;
        };
        cases.push(Case {
            name,
            words: &DOCTOR,
            settings,
            // The connector is missing too.
            code: Some(1),
            says: vec![
                format!("\"{code}\""),
                what.to_owned(),
                "the mail server at localhost:".to_owned(),
            ],
        });
    }
    check(&world, cases).await;
    world.remove().await;
}
