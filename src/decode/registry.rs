//! The schema registry: which schema an id stands for.
//!
//! Any registry with Confluent's HTTP API will do. References are resolved here, by subject and version, because not
//! every registry resolves them on request. What the registry says for certain ([`Fetched::Unknown`]) is kept apart
//! from what it did not say ([`RegistryError`]): a registry that does not answer is an outage, and no record is given
//! up because of it.
//!
//! Answers are remembered, because a schema never changes under its id; failures never are. Nothing here retries: the
//! caller knows how long it can wait. An unknown id should be asked for a few times before it is believed, as a
//! registry may lag behind the producer that just registered it.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use schema_registry_converter::async_impl::schema_registry::{SrSettings, get_referenced_schema, get_schema_by_id};
use schema_registry_converter::error::SRCError;
use schema_registry_converter::schema_registry_common::{RawError, RegisteredReference, RegisteredSchema, SchemaType};
use thiserror::Error;

use crate::decode::schema::SchemaDocument;

/// Schemas that one schema may refer to, directly and not: an envelope refers to three.
const REFERENCES_MAX: usize = 256;

/// Where the registry is.
#[derive(Clone)]
pub struct RegistrySettings {
    /// Base address of Confluent's API, such as `http://registry:8080/apis/ccompat/v7`.
    pub url: String,
    /// Time-out of one call.
    pub timeout: Duration,
    /// User and password, where the registry asks for them.
    pub basic_auth: Option<(String, String)>,
    /// How many schemas are remembered.
    pub remembered_max: usize,
}

impl std::fmt::Debug for RegistrySettings {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("RegistrySettings")
            .field("url", &without_credentials(&self.url))
            .field("timeout", &self.timeout)
            .field("basic_auth", &self.basic_auth.as_ref().map(|_| "set"))
            .field("remembered_max", &self.remembered_max)
            .finish()
    }
}

/// What the registry said about an id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fetched {
    /// This schema.
    Found(Arc<SchemaDocument>),
    /// There is no such schema, the registry is sure.
    Unknown,
}

/// The registry did not say anything about the id. Transient: asking again may help, and no record is to blame.
#[derive(Debug, Error)]
pub enum RegistryError {
    /// The settings do not make a client. Permanent: no waiting mends it.
    #[error("could not set up the client of the schema registry at {url}")]
    Settings {
        /// Its address.
        url: String,
        /// What the client said.
        source: SRCError,
    },
    /// It did not answer, or answered that it cannot.
    #[error("the schema registry at {url} did not answer for schema {id}")]
    Unreachable {
        /// Its address.
        url: String,
        /// What was asked for.
        id: u32,
        /// What the client said.
        source: SRCError,
    },
    /// A schema refers to more than anything that a connector writes.
    #[error("schema {id} refers to more than {REFERENCES_MAX} schemas")]
    TooManyReferences {
        /// What was asked for.
        id: u32,
    },
}

/// A registry. Cheap to share; one lock, never held while waiting.
pub struct Registry {
    client: SrSettings,
    url: String,
    remembered: Mutex<Remembered>,
    remembered_max: usize,
}

#[derive(Debug, Default)]
struct Remembered {
    by_id: HashMap<u32, Arc<SchemaDocument>>,
    order: VecDeque<u32>,
}

impl std::fmt::Debug for Registry {
    /// Leaves out the client, which knows credentials.
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Registry")
            .field("url", &self.url)
            .finish_non_exhaustive()
    }
}

impl Registry {
    /// A registry that was not asked yet; does no I/O.
    ///
    /// # Errors
    /// When the settings do not make a client.
    pub fn new(settings: &RegistrySettings) -> Result<Self, RegistryError> {
        let address = settings.url.trim_end_matches('/').to_owned();
        let url = without_credentials(&address);
        let mut builder = SrSettings::new_builder(address);
        builder.set_timeout(settings.timeout);
        if let Some((user, password)) = &settings.basic_auth {
            builder.set_basic_authorization(user, Some(password));
        }
        match builder.build() {
            Ok(client) => Ok(Self {
                client,
                url,
                remembered: Mutex::default(),
                remembered_max: settings.remembered_max.max(1),
            }),
            Err(source) => Err(RegistryError::Settings { url, source }),
        }
    }

    /// The schema of an id with everything it refers to. Cancel-safe.
    ///
    /// # Errors
    /// When the registry did not answer.
    pub async fn fetch(&self, id: u32) -> Result<Fetched, RegistryError> {
        if let Some(known) = self.lock().by_id.get(&id) {
            return Ok(Fetched::Found(Arc::clone(known)));
        }
        let Some(schema) = self.answer(id, get_schema_by_id(id, &self.client).await)? else {
            return Ok(Fetched::Unknown);
        };
        let Some(references) = self.references(id, &schema).await? else {
            return Ok(Fetched::Unknown);
        };
        let document = Arc::new(SchemaDocument {
            text: text(schema),
            references,
        });
        self.remember(id, &document);
        Ok(Fetched::Found(document))
    }

    /// The texts of all that a schema refers to, each before those that refer to it.
    async fn references(&self, id: u32, schema: &RegisteredSchema) -> Result<Option<Vec<String>>, RegistryError> {
        enum Step {
            Visit(RegisteredReference),
            Emit(String),
        }
        let visits = |references: &[RegisteredReference]| {
            let copies: Vec<Step> = references.iter().rev().cloned().map(Step::Visit).collect();
            copies
        };
        let mut seen: HashSet<(String, u32)> = HashSet::new();
        let mut texts = Vec::new();
        let mut steps = visits(&schema.references);
        while let Some(step) = steps.pop() {
            match step {
                Step::Emit(found) => texts.push(found),
                Step::Visit(reference) => {
                    if !seen.insert((reference.subject.clone(), reference.version)) {
                        continue;
                    }
                    if seen.len() > REFERENCES_MAX {
                        return Err(RegistryError::TooManyReferences { id });
                    }
                    let answer = get_referenced_schema(&self.client, &reference).await;
                    let Some(found) = self.answer(id, answer)? else {
                        return Ok(None);
                    };
                    let inner = visits(&found.references);
                    steps.push(Step::Emit(text(found)));
                    steps.extend(inner);
                }
            }
        }
        Ok(Some(texts))
    }

    /// Tells "there is none" from "no answer".
    fn answer(
        &self,
        id: u32,
        answer: Result<RegisteredSchema, SRCError>,
    ) -> Result<Option<RegisteredSchema>, RegistryError> {
        match answer {
            Ok(schema) => Ok(Some(schema)),
            Err(error) if says_not_found(&error) => Ok(None),
            Err(source) => Err(RegistryError::Unreachable {
                url: self.url.clone(),
                id,
                source,
            }),
        }
    }

    fn remember(&self, id: u32, document: &Arc<SchemaDocument>) {
        let mut remembered = self.lock();
        if remembered.by_id.insert(id, Arc::clone(document)).is_none() {
            remembered.order.push_back(id);
        }
        while remembered.order.len() > self.remembered_max {
            if let Some(oldest) = remembered.order.pop_front() {
                remembered.by_id.remove(&oldest);
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Remembered> {
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An address that may be printed.
fn without_credentials(address: &str) -> String {
    match address.split_once("://") {
        Some((scheme, rest)) => {
            let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
            format!("{scheme}://{host}{path}")
        }
        None => address.to_owned(),
    }
}

/// Only the registry's own codes for a missing subject, version or schema are an answer. A bare 404 comes from a wrong
/// address or from something in between.
fn says_not_found(error: &SRCError) -> bool {
    let cause = std::error::Error::source(error).and_then(|source| source.downcast_ref::<RawError>());
    cause.is_some_and(|raw| [40401, 40402, 40403].contains(&raw.error_code))
}

/// The text of a schema. One of another language becomes the name of that language: as Avro, that is a reference to
/// something that is not there, and the decoder's reason names it.
fn text(schema: RegisteredSchema) -> String {
    match schema.schema_type {
        SchemaType::Avro => schema.schema,
        other => format!("{:?}", format!("schema of type {other:?}")),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

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
        Registry::new(&RegistrySettings {
            url: url.to_owned(),
            timeout,
            basic_auth: Some(("u".to_owned(), "p".to_owned())),
            remembered_max: 2,
        })
        .unwrap()
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
        assert_eq!(registry.fetch(7).await.unwrap(), Fetched::Unknown);
        assert_eq!(registry.fetch(7).await.unwrap(), Fetched::Unknown);
        assert_eq!(count.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn everything_else_is_an_outage() {
        let (url, _) = serve(&[
            ("/schemas/ids/1?", 404, "<html>nginx</html>"),
            ("/schemas/ids/2?", 503, r#"{"error_code":50301,"message":"later"}"#),
            ("/schemas/ids/3?", 401, r#"{"error_code":40101,"message":"who?"}"#),
            ("/schemas/ids/4?", 200, "not json"),
        ])
        .await;
        let answering = registry(&url);
        for id in 1..=5 {
            let error = answering.fetch(id).await.unwrap_err();
            assert!(matches!(error, RegistryError::Unreachable { .. }), "{id}");
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
        assert!(matches!(error, RegistryError::Unreachable { id: 1, .. }));
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
        assert!(problem.to_string().contains("Protobuf"), "{problem}");
    }

    #[test]
    fn a_fetch_may_move_between_threads() {
        fn sent<T: Send>(_: T) {}
        sent(registry("http://127.0.0.1:1").fetch(1));
    }

    #[test]
    fn settings_do_not_print_their_password() {
        let settings = RegistrySettings {
            url: "http://u:hunter2@r:80/apis".to_owned(),
            timeout: Duration::from_secs(1),
            basic_auth: Some(("u".to_owned(), "hunter2".to_owned())),
            remembered_max: 1,
        };
        let printed = format!("{settings:?}{:?}", Registry::new(&settings).unwrap());
        assert!(
            !printed.contains("hunter2") && printed.contains("http://r:80/apis"),
            "{printed}"
        );
    }
}
