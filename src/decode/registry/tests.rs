//! The registry against a server of fixed answers.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::decode::resolve;

/// Serves fixed answers by the beginning of the path, to callers that give the user `u` and the password `p`;
/// counts requests.
async fn serve(routes: &'static [(&'static str, u16, &'static str)]) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let count = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&count);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            counter.fetch_add(1, Ordering::SeqCst);
            let mut request = vec![0; 4096];
            let length = stream.read(&mut request).await.unwrap();
            let text = String::from_utf8_lossy(&request[..length]).into_owned();
            let path = text.split_whitespace().nth(1).unwrap_or_default().to_owned();
            let is_known = text.to_ascii_lowercase().contains("authorization: basic dtpw");
            let found = routes.iter().find(|(route, ..)| is_known && path.starts_with(route));
            let (status, body) = found.map_or((500, "{}"), |(_, status, body)| (*status, *body));
            let answer = format!(
                "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                body.len()
            );
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    (url, count)
}

fn registry(url: &str) -> Registry {
    registry_within(url, Duration::from_secs(20))
}

fn registry_within(url: &str, timeout: Duration) -> Registry {
    Registry::new(&settings(url, timeout)).unwrap()
}

fn settings(url: &str, timeout: Duration) -> RegistrySettings {
    RegistrySettings {
        url: url.to_owned(),
        timeout,
        basic_auth: Some(("u".to_owned(), "p".to_owned())),
        authorities: None,
        identity: None,
        remembered_max: 2,
        unknown_asks_max: 3,
        unknown_pause: Duration::from_millis(1),
    }
}

#[tokio::test]
async fn references_come_before_those_that_refer_to_them_and_answers_are_remembered() {
    let (url, count) = serve(&[
        ("/schemas/ids/1?", 200, r#"{"schema":"\"A\"","references":[{"name":"B","subject":"b","version":3},{"name":"C","subject":"c","version":1}]}"#),
        ("/subjects/b/versions/3", 200, r#"{"subject":"b","version":3,"id":9,"schema":"\"B\"","references":[{"name":"C","subject":"c","version":1}]}"#),
        ("/subjects/c/versions/1", 200, r#"{"subject":"c","version":1,"id":8,"schema":"\"C\""}"#),
    ])
    .await;
    let registry = registry(&url);
    let expected = Arc::new(SchemaDocument {
        text: "\"A\"".to_owned(),
        references: vec!["\"C\"".to_owned(), "\"B\"".to_owned()],
    });
    assert_eq!(registry.fetch(1).await.unwrap(), Fetched::Found(Arc::clone(&expected)));
    let asked = count.load(Ordering::SeqCst);
    assert_eq!(asked, 3);
    assert_eq!(registry.fetch(1).await.unwrap(), Fetched::Found(expected));
    assert_eq!(count.load(Ordering::SeqCst), asked);
}

#[tokio::test]
async fn an_unknown_id_is_an_answer_and_is_asked_for_again() {
    let (url, count) = serve(&[(
        "/schemas/ids/",
        404,
        r#"{"error_code":40403,"message":"Schema not found"}"#,
    )])
    .await;
    let registry = registry(&url);
    assert_eq!(registry.fetch(7).await.unwrap(), Fetched::Unknown(Unknown::schema(7)));
    assert_eq!(registry.fetch(7).await.unwrap(), Fetched::Unknown(Unknown::schema(7)));
    assert_eq!(count.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn everything_else_is_an_outage() {
    let (url, _) = serve(&[
        ("/schemas/ids/1?", 404, "<html>nginx</html>"),
        ("/schemas/ids/2?", 503, r#"{"error_code":50301,"message":"later"}"#),
        ("/schemas/ids/3?", 401, r#"{"error_code":40101,"message":"who?"}"#),
        ("/schemas/ids/4?", 200, "not json"),
        ("/schemas/ids/6?", 403, r#"{"error_code":40301,"message":"not you"}"#),
        ("/schemas/ids/7?", 429, r#"{"error_code":42901,"message":"slowly"}"#),
        ("/schemas/ids/8?", 200, r#"{"references":[]}"#),
        (
            "/schemas/ids/9?",
            200,
            r#"{"schema":"\"A\"","references":[{"name":"B","subject":"b","version":3}]}"#,
        ),
        ("/subjects/b/versions/3", 404, "<html>nginx</html>"),
    ])
    .await;
    let answering = registry(&url);
    for id in 1..=9 {
        let error = answering.fetch(id).await.unwrap_err();
        assert_eq!(error.id, id);
    }
    let silent = registry("http://127.0.0.1:1");
    assert!(silent.fetch(1).await.is_err());
}

#[tokio::test]
async fn a_registry_that_never_answers_is_an_outage_after_the_time_out() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let impatient = registry_within(&url, Duration::from_millis(100));
    let error = impatient.fetch(1).await.unwrap_err();
    assert!(error.source.chain().contains("timed out"), "{}", error.source.chain());
}

#[tokio::test]
async fn a_schema_of_another_language_is_found_and_cannot_be_used() {
    let (url, _) = serve(&[(
        "/schemas/ids/1?",
        200,
        r#"{"schemaType":"PROTOBUF","schema":"message A {}"}"#,
    )])
    .await;
    let Fetched::Found(document) = registry(&url).fetch(1).await.unwrap() else {
        panic!("not found");
    };
    let problem = crate::decode::schema::WriterSchema::parse(&document).unwrap_err();
    assert!(problem.to_string().contains("PROTOBUF"), "{problem}");
}

#[test]
fn a_fetch_may_move_between_threads() {
    fn sent<T: Send>(_: T) {}
    sent(registry("http://127.0.0.1:1").fetch(1));
}

#[tokio::test]
async fn settings_and_errors_do_not_print_the_password() {
    let within = Duration::from_secs(1);
    let with_login = RegistrySettings {
        basic_auth: Some(("u".to_owned(), "hunter2".to_owned())),
        authorities: Some("hunter2".to_owned()),
        ..settings("http://u:hunter2@127.0.0.1:1/apis", within)
    };
    let in_address = RegistrySettings {
        basic_auth: None,
        ..settings("http://u:hunter2@127.0.0.1:1/apis", within)
    };
    let registry = Registry::new(&in_address).unwrap();
    let error = registry.fetch(1).await.unwrap_err();
    let printed = format!("{with_login:?}{registry:?}{error}{error:?}{}", error.source.chain());
    assert!(
        !printed.contains("hunter2") && printed.contains("http://127.0.0.1:1/apis"),
        "{printed}"
    );
}

#[tokio::test]
async fn the_password_may_be_part_of_the_address() {
    let (url, _) = serve(&[("/schemas/ids/1?", 200, r#"{"schema":"\"A\""}"#)]).await;
    let with_login = |login: &str| {
        let within = Duration::from_secs(20);
        let address = url.replace("http://", &format!("http://{login}@"));
        Registry::new(&RegistrySettings {
            basic_auth: None,
            ..settings(&address, within)
        })
        .unwrap()
    };
    assert!(with_login("u:p").fetch(1).await.is_ok());
    assert!(with_login("u:q").fetch(1).await.is_err());
}

#[tokio::test]
async fn both_shapes_of_an_answer_are_read() {
    let (url, _) = serve(&[
        // Confluent's: no type for Avro, and since version 8 more than anybody asked for.
        (
            "/schemas/ids/1?",
            200,
            r#"{"subject":"a","version":1,"id":1,"guid":"g","schema":"\"A\"","ts":1,"deleted":false}"#,
        ),
        // Apicurio's.
        (
            "/schemas/ids/2?",
            200,
            r#"{"schema":"\"A\"","schemaType":"AVRO","references":[]}"#,
        ),
        (
            "/schemas/ids/3?",
            200,
            r#"{"schema":"\"A\"","schemaType":null,"references":null}"#,
        ),
    ])
    .await;
    let registry = registry(&url);
    for id in 1..=3 {
        let Fetched::Found(document) = registry.fetch(id).await.unwrap() else {
            panic!("schema {id} was not found");
        };
        assert_eq!((document.text.as_str(), document.references.len()), ("\"A\"", 0));
    }
}

#[tokio::test]
async fn a_missing_reference_is_named_and_asked_for_as_often_as_an_unknown_id() {
    for (code, message) in [
        (40401, "Subject 'b' not found."),
        (40402, "Version 3 not found."),
        (40403, "Schema not found"),
    ] {
        let missing = format!(r#"{{"error_code":{code},"message":"{message}"}}"#).leak();
        let answer = r#"{"schema":"\"A\"","references":[{"name":"B","subject":"b","version":3}]}"#;
        let routes = vec![
            ("/schemas/ids/1?", 200, answer),
            ("/subjects/b/versions/3", 404, missing),
        ]
        .leak();
        let (url, count) = serve(routes).await;
        let unknown = resolve::schema(&registry(&url), 1).await.unwrap_err();
        assert_eq!(
            unknown.to_string(),
            "schema 1 refers to version 3 of subject b, which the registry does not have"
        );
        assert_eq!(count.load(Ordering::SeqCst), 2 * 3, "three times, two questions each");
    }
}

#[tokio::test]
async fn a_schema_that_refers_to_itself_without_end_is_asked_for_once() {
    let routes: Vec<_> = (0..=257_u32)
        .map(|version| {
            let path: &str = match version {
                0 => "/schemas/ids/1?".to_owned().leak(),
                version => format!("/subjects/b/versions/{version}?").leak(),
            };
            let next = version + 1;
            let body =
                format!(r#"{{"id":1,"schema":"\"A\"","references":[{{"name":"B","subject":"b","version":{next}}}]}}"#);
            (path, 200, &*body.leak())
        })
        .collect();
    let (url, count) = serve(routes.leak()).await;
    let unknown = resolve::schema(&registry(&url), 1).await.unwrap_err();
    assert_eq!(unknown.to_string(), "schema 1 refers to more than 256 schemas");
    assert_eq!(count.load(Ordering::SeqCst), 257);
}

#[tokio::test]
async fn who_asks_for_the_same_id_at_once_shares_the_answer() {
    let (url, count) = serve(&[("/schemas/ids/1?", 200, r#"{"schema":"\"A\""}"#)]).await;
    let registry = registry(&url);
    let mut first = Box::pin(registry.fetch(1));
    assert!(futures::poll!(first.as_mut()).is_pending());
    let mut others = futures::future::join_all((0..8).map(|_| registry.fetch(1)));
    assert!(futures::poll!(&mut others).is_pending());
    // Whoever began the question may lose interest.
    drop(first);
    let answers = others.await;
    let found = |answer: &Result<Fetched, RegistryError>| matches!(answer, Ok(Fetched::Found(_)));
    assert!(answers.iter().all(found), "{answers:?}");
    assert_eq!(count.load(Ordering::SeqCst), 1);
}

#[test]
fn a_certificate_and_a_key_that_are_none_are_refused() {
    let within = Duration::from_secs(1);
    let garbled = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_owned();
    let authorities = RegistrySettings {
        authorities: Some(garbled.clone()),
        ..settings("https://r", within)
    };
    assert!(Registry::new(&authorities).is_err());
    let identity = RegistrySettings {
        identity: Some(garbled),
        ..settings("https://r", within)
    };
    let error = Registry::new(&identity).unwrap_err();
    assert!(error.to_string().contains("registry.client_key_pem"), "{error}");
}
