//! The registry over TLS, behind a door that asks for a certificate and a password, and slower than the producer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use afterwrite::decode::options::Options;
use afterwrite::decode::registry::client::RegistrySettings;
use afterwrite::decode::registry::{Fetched, Registry};
use afterwrite::decode::unknown::Unknown;
use afterwrite::decode::{Decoder, resolve};
use afterwrite::event::delivery::{Content, RawRecord};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

use crate::authority::Authority;
use crate::producer;
use crate::stack::{self, until};
use crate::undecodable::{avro_change, key, register, register_as};
use crate::world::World;

#[tokio::test(flavor = "multi_thread")]
async fn schemas_are_fetched_over_tls_and_an_authority_that_is_not_trusted_buries_nothing() {
    let _stack = stack::shared().await;
    let world = World::bare("tls").await;
    producer::make_topic(&world.topic()).await;
    let id = register(&world.name).await;
    producer::write(&world.topic(), &key(1), &avro_change(id, 1)).await;
    let url = stack::address("SCHEMA_REGISTRY_TLS_URL");
    let stranger = Authority::new();
    let trusting = |file: String| {
        let reference = format!("${{file:{file}}}");
        [
            ("AFTERWRITE__REGISTRY__URL", url.clone()),
            ("AFTERWRITE__REGISTRY__CA_PEM", reference),
        ]
    };
    let settings = trusting(stranger.path("ca.pem").display().to_string());
    let worker = world.worker(
        "wrong",
        &settings.each_ref().map(|(name, value)| (*name, value.as_str())),
    );
    until(
        "the worker to refuse the certificate",
        Duration::from_secs(60),
        async || {
            let said = worker.said();
            (said.contains("registry did not answer") && said.contains("UnknownIssuer")).then_some(())
        },
    )
    .await;
    assert_eq!(world.count("SELECT count(*) FROM afterwrite.letters").await, 0);
    assert_eq!(producer::committed(&world.group(), &world.topic()), Some(0));
    worker.stop().await;

    let settings = trusting(stack::address("SCHEMA_REGISTRY_CA_FILE"));
    let worker = world.worker(
        "right",
        &settings.each_ref().map(|(name, value)| (*name, value.as_str())),
    );
    until("the effect", Duration::from_secs(60), async || {
        (world.count("SELECT count(*) FROM effects").await == 1).then_some(())
    })
    .await;
    assert_eq!(world.count("SELECT count(*) FROM afterwrite.letters").await, 0);
    println!(
        "{}: https with a private authority: 1 change done; with another one it waited, 0 buried",
        world.name
    );
    worker.stop().await;
    world.remove().await;
}

const USER: &str = "reader";
const PASSWORD: &str = "s3cret:päss";

/// TLS before the real registry: asks for a certificate of the authority and for the password.
struct Door {
    url: String,
    /// Requests that went through to the registry.
    passed: Arc<AtomicU32>,
}

impl Door {
    async fn open(authority: &Authority) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let registry: reqwest::Url = stack::address("SCHEMA_REGISTRY_URL").parse().unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(asking_for_a_certificate(authority)));
        let passed = Arc::new(AtomicU32::new(0));
        let counter = Arc::clone(&passed);
        let inside = format!("{}:{}", registry.host_str().unwrap(), registry.port().unwrap());
        tokio::spawn(async move {
            while let Ok((outside, _)) = listener.accept().await {
                tokio::spawn(pass(acceptor.clone(), outside, inside.clone(), Arc::clone(&counter)));
            }
        });
        Self {
            url: format!("https://localhost:{port}{}", registry.path()),
            passed,
        }
    }
}

fn asking_for_a_certificate(authority: &Authority) -> ServerConfig {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(authority.path("ca.pem")).unwrap())
        .unwrap();
    // Two providers are linked, so none is the default.
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
    let verifier = verifier.build().unwrap();
    let certificate = CertificateDer::from_pem_file(authority.path("localhost.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(authority.path("localhost.key")).unwrap();
    let config = ServerConfig::builder_with_provider(provider);
    let config = config
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier);
    config.with_single_cert(vec![certificate], key).unwrap()
}

/// One connection with one request. Errors end it: the client sees them.
async fn pass(
    acceptor: TlsAcceptor,
    outside: TcpStream,
    inside: String,
    passed: Arc<AtomicU32>,
) -> std::io::Result<()> {
    use base64::Engine;
    let mut outside = acceptor.accept(outside).await?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(outside.read_u8().await?);
    }
    let head = String::from_utf8(head).unwrap();
    let login = base64::engine::general_purpose::STANDARD.encode(format!("{USER}:{PASSWORD}"));
    if head
        .to_lowercase()
        .contains(&format!("authorization: basic {login}\r\n").to_lowercase())
    {
        passed.fetch_add(1, Ordering::SeqCst);
        let mut registry = TcpStream::connect(inside).await?;
        let closing = head.replacen("\r\n", "\r\nconnection: close\r\n", 1);
        registry.write_all(closing.as_bytes()).await?;
        tokio::io::copy(&mut registry, &mut outside).await?;
    } else {
        let refusal = b"HTTP/1.1 401 Unauthorized\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
        outside.write_all(refusal).await?;
    }
    outside.shutdown().await
}

/// How somebody who may enter is set up.
fn admitted(authority: &Authority, url: &str) -> RegistrySettings {
    RegistrySettings {
        url: url.to_owned(),
        timeout: Duration::from_secs(10),
        basic_auth: Some((USER.to_owned(), PASSWORD.to_owned())),
        authorities: Some(authority.text("ca.pem")),
        identity: Some(authority.text("client.pem") + &authority.text("client.key")),
        remembered_max: 16,
        unknown_asks_max: 200,
        unknown_pause: Duration::from_millis(50),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_with_a_lock_opens_to_the_right_certificate_and_password_only() {
    let _stack = stack::shared().await;
    let authority = Authority::new();
    authority.sign("localhost");
    authority.sign("client");
    let door = Door::open(&authority).await;
    let id = register("lock").await;
    let record = RawRecord {
        value: Some(avro_change(id, 1).into()),
        ..RawRecord::default()
    };
    let right = admitted(&authority, &door.url);
    let in_address = RegistrySettings {
        url: door.url.replace("https://", "https://reader:s3cret%3Ap%C3%A4ss@"),
        basic_auth: None,
        ..right.clone()
    };
    for settings in [&right, &in_address] {
        let registry = Registry::new(settings).unwrap();
        let decoder = Decoder::new(Options::default());
        let content = resolve::content(&decoder, Some(&registry), "it.public.work", &record).await;
        assert!(matches!(content, Content::Change(_)), "{content:?}");
    }

    let stranger = Authority::new();
    stranger.sign("client");
    let wrong_password = RegistrySettings {
        basic_auth: Some((USER.to_owned(), "s3cret:guess".to_owned())),
        ..right.clone()
    };
    let no_certificate = RegistrySettings {
        identity: None,
        ..right.clone()
    };
    let foreign_certificate = RegistrySettings {
        identity: Some(stranger.text("client.pem") + &stranger.text("client.key")),
        ..right.clone()
    };
    for (settings, expected) in [
        (wrong_password, "401 Unauthorized"),
        (no_certificate, "CertificateRequired"),
        (foreign_certificate, "UnknownCA"),
    ] {
        // A refusal that arrives before the request was handed to the connection ends it as "not ready": TLS 1.3 refuses a
        // client's certificate only after the client's side of the handshake is done (RFC 8446, section 4.6.2).
        let said = until(expected, Duration::from_secs(30), async || {
            let error = Registry::new(&settings).unwrap().fetch(id).await.unwrap_err();
            let said = format!("{error}: {}", error.source.chain());
            assert!(!said.contains("s3cret"), "{said}");
            said.contains(expected).then_some(said)
        })
        .await;
        println!("{said}");
    }
    let of_two_pairs = RegistrySettings {
        identity: Some(authority.text("client.pem") + &stranger.text("client.key")),
        ..right
    };
    assert!(Registry::new(&of_two_pairs).is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_that_is_registered_late_is_found() {
    // Alone: the next id is then the one after this.
    let _stack = stack::alone().await;
    let authority = Authority::new();
    authority.sign("localhost");
    authority.sign("client");
    let door = Door::open(&authority).await;
    let schema = |n: &str| json!({"type": "record", "name": format!("Late{n}"), "namespace": n, "fields": []});
    let unique = format!("n{}", uuid::Uuid::new_v4().simple());
    let next = register_as(&unique, &schema(&unique)).await + 1;
    let settings = admitted(&authority, &door.url);
    let registry = Arc::new(Registry::new(&settings).unwrap());
    assert_eq!(
        registry.fetch(next).await.unwrap(),
        Fetched::Unknown(Unknown::schema(next))
    );

    let waiting = tokio::spawn({
        let registry = Arc::clone(&registry);
        async move { resolve::schema(&registry, next).await }
    });
    until("two more questions", Duration::from_secs(10), async || {
        (door.passed.load(Ordering::SeqCst) >= 3).then_some(())
    })
    .await;
    let late = format!("{unique}late");
    assert_eq!(register_as(&late, &schema(&late)).await, next);
    let found = waiting.await.unwrap().unwrap();
    assert!(found.text.contains(&late), "{}", found.text);

    let impatient = RegistrySettings {
        unknown_asks_max: 2,
        ..settings
    };
    let before = door.passed.load(Ordering::SeqCst);
    let unknown = resolve::schema(&Registry::new(&impatient).unwrap(), next + 1_000).await;
    assert_eq!(unknown.unwrap_err(), Unknown::schema(next + 1_000));
    assert_eq!(door.passed.load(Ordering::SeqCst) - before, 2);
}
