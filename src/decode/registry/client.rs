//! How the registry is reached, and telling "there is none" from "no answer".

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use schema_registry_converter::async_impl::schema_registry::{SrSettings, perform_sr_call};
use schema_registry_converter::error::SRCError;
use schema_registry_converter::schema_registry_common::{RawError, RawRegisteredSchema, RegisteredReference, SrCall};
use thiserror::Error;

use crate::causes::chain;
use crate::hindrance::{Hindered, REGISTRY};
use crate::tally::reach;

/// Where the registry is and how it is spoken to.
#[derive(Clone)]
pub struct RegistrySettings {
    /// Base address of Confluent's API, such as `http://registry:8080/apis/ccompat/v7`; user and password may be part
    /// of it.
    pub url: String,
    /// Time-out of one call.
    pub timeout: Duration,
    /// User and password, where the registry asks for them and the address does not hold them.
    pub basic_auth: Option<(String, String)>,
    /// Certificates of the authorities that may have signed the registry's, in PEM. None: those the system trusts.
    pub authorities: Option<String>,
    /// Our own certificate with its chain and its key, in PEM, where the registry asks for one.
    pub identity: Option<String>,
    /// How many schemas are remembered.
    pub remembered_max: usize,
    /// How often an id or a reference that the registry does not know is asked for; once at least.
    pub unknown_asks_max: u32,
    /// Pause between such questions.
    pub unknown_pause: Duration,
}

impl fmt::Debug for RegistrySettings {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_set = |is_set: bool| if is_set { "set" } else { "none" };
        out.debug_struct("RegistrySettings")
            .field("url", &without_credentials(&self.url))
            .field("timeout", &self.timeout)
            .field("basic_auth", &is_set(self.basic_auth.is_some()))
            .field("authorities", &is_set(self.authorities.is_some()))
            .field("identity", &is_set(self.identity.is_some()))
            .field("remembered_max", &self.remembered_max)
            .field("unknown_asks_max", &self.unknown_asks_max)
            .field("unknown_pause", &self.unknown_pause)
            .finish()
    }
}

/// The settings do not make a client. Permanent: no waiting mends it.
#[derive(Debug, Error)]
pub enum SettingsError {
    /// The address is none.
    #[error("{url} is no address of a schema registry")]
    Address {
        /// What it is.
        url: Arc<str>,
    },
    /// The authorities are no certificates.
    #[error("registry.ca_pem holds nothing that can be used as certificates")]
    Authorities(#[source] reqwest::Error),
    /// Our certificate or its key are none.
    #[error("registry.client_certificate_pem and registry.client_key_pem hold no certificate with its key")]
    Identity(#[source] reqwest::Error),
    /// The parts do not fit together, for example a key and a certificate of two pairs.
    #[error(
        "could not set up the client of the schema registry at {url} with the certificates and the key of [registry]"
    )]
    Client {
        /// Its address.
        url: Arc<str>,
        /// What the client said.
        source: Cause,
    },
}

/// The registry did not say anything about a schema: it was not reached, not trusted, or answered that it cannot or will
/// not. Transient: asking again may help, and no record is to blame.
#[derive(Debug, Clone, Error)]
#[error("the schema registry at {url} did not answer for schema {id}")]
pub struct RegistryError {
    /// Its address.
    pub url: Arc<str>,
    /// What was asked for.
    pub id: u32,
    /// What the client said.
    pub source: Cause,
}

impl RegistryError {
    /// Why, in one line, down to the cause that matters, and what to do about it where that is known.
    pub fn why(&self) -> String {
        let cause = self.source.chain();
        let hindered = Hindered::read(&cause, &self.url, &REGISTRY);
        hindered.map_or(cause, |hindered| hindered.to_string())
    }
}

/// What the client said, without its own opinion on asking again.
#[derive(Debug, Clone)]
pub struct Cause(SRCError);

impl fmt::Display for Cause {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0.error)
    }
}

impl std::error::Error for Cause {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source()
    }
}

impl Cause {
    /// The cause and all its causes in one line, down to the one that matters: a certificate that is not trusted is five
    /// steps away.
    pub fn chain(&self) -> String {
        chain(self)
    }
}

/// What the registry keeps under an id, or under a version of a subject.
#[derive(Debug, PartialEq)]
pub(super) struct Registered {
    /// The text. One of another language is the name of that language: as Avro, that is a reference to something that is
    /// not there, and the decoder's reason names it.
    pub(super) text: String,
    /// What it refers to.
    pub(super) references: Vec<RegisteredReference>,
}

/// Asks the registry, once each time. Cheap to copy.
#[derive(Clone)]
pub(super) struct Client {
    registry: SrSettings,
    http: reqwest::Client,
    base: reqwest::Url,
    basic_auth: Option<(String, String)>,
    url: Arc<str>,
}

impl Client {
    /// A client that has not asked yet; does no I/O.
    pub(super) fn new(settings: &RegistrySettings) -> Result<Self, SettingsError> {
        let address = settings.url.trim_end_matches('/').to_owned();
        let url: Arc<str> = without_credentials(&address).into();
        let base = reqwest::Url::parse(&address)
            .ok()
            .filter(|base| !base.cannot_be_a_base());
        let base = base.ok_or_else(|| SettingsError::Address { url: Arc::clone(&url) })?;
        let refused = |error: SRCError| SettingsError::Client {
            url: Arc::clone(&url),
            source: Cause(error),
        };
        let mut builder = SrSettings::new_builder(address);
        builder.set_timeout(settings.timeout);
        if let Some((user, password)) = &settings.basic_auth {
            builder.set_basic_authorization(user, Some(password));
        }
        let own = http(settings)?
            .build()
            .map_err(|error| SRCError::retryable_with_cause(error, "no client"));
        Ok(Self {
            registry: builder.build_with(http(settings)?).map_err(refused)?,
            http: own.map_err(refused)?,
            base,
            basic_auth: settings.basic_auth.clone(),
            url,
        })
    }

    /// The address, without user and password.
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// The schema of an id, also of a subject that was deleted; none when the registry is certain.
    pub(super) async fn schema(&self, id: u32) -> Result<Option<Registered>, RegistryError> {
        self.answer(id, perform_sr_call(&self.registry, SrCall::GetById(id)).await)
    }

    /// What the schema of an id refers to, also when it was deleted; none when the registry is certain.
    pub(super) async fn referenced(
        &self,
        id: u32,
        reference: &RegisteredReference,
    ) -> Result<Option<Registered>, RegistryError> {
        self.answer(id, self.version(reference).await)
    }

    /// A version of a subject, also one that was deleted: records that need it may be older. The crate does not ask for
    /// those.
    async fn version(&self, reference: &RegisteredReference) -> Result<RawRegisteredSchema, SRCError> {
        let failed =
            |error: reqwest::Error| SRCError::retryable_with_cause(error, "http call to schema registry failed");
        let mut url = self.base.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty();
            path.extend([
                "subjects",
                &reference.subject,
                "versions",
                &reference.version.to_string(),
            ]);
        }
        url.set_query(Some("deleted=true"));
        let mut request = self.http.get(url);
        if let Some((user, password)) = &self.basic_auth {
            request = request.basic_auth(user, Some(password));
        }
        let answer = request.send().await.map_err(failed)?;
        let status = answer.status();
        if status.is_success() {
            return answer.json().await.map_err(failed);
        }
        let text = format!("HTTP request to schema registry failed with status {status}");
        Err(match answer.json::<RawError>().await {
            Ok(said) => SRCError::retryable_with_cause(said, &text),
            Err(_) => SRCError::new(&text, None, true),
        })
    }

    fn answer(
        &self,
        id: u32,
        answer: Result<RawRegisteredSchema, SRCError>,
    ) -> Result<Option<Registered>, RegistryError> {
        let registered = match answer {
            Ok(raw) => registered(raw).map(Some),
            Err(error) if says_not_found(&error) => Ok(None),
            Err(error) => Err(error),
        };
        let registered = registered.map_err(|error| RegistryError {
            url: Arc::clone(&self.url),
            id,
            source: Cause(error),
        });
        match &registered {
            Ok(_) => reach::REGISTRY.answered(),
            Err(error) => reach::REGISTRY.missed(&error.why()),
        }
        registered
    }
}

/// What a registry answers to whoever asks whether it is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Look {
    /// It lists its subjects.
    Answered {
        /// Its address, without user and password.
        url: String,
        /// Its global compatibility level, where it has one.
        compatibility: Option<String>,
        /// The subjects that were asked for, with the levels of their own that they have.
        subjects: Vec<(String, Option<String>)>,
    },
    /// It answers otherwise.
    Refused {
        /// Its address.
        url: String,
        /// The status of the answer.
        status: u16,
    },
    /// It does not answer, or is not trusted.
    Silent {
        /// Its address.
        url: String,
        /// What the client said, down to the last cause.
        cause: String,
    },
    /// The settings make no client.
    Misset {
        /// Why.
        cause: String,
    },
}

/// Subjects whose levels are asked for at most.
const SUBJECTS_MAX: usize = 200;

/// Asks a registry whether it is there, once, and for the levels of the subjects whose names begin so.
pub async fn look(settings: &RegistrySettings, beginning: &str) -> Look {
    let client = match Client::new(settings) {
        Ok(client) => client,
        Err(error) => {
            return Look::Misset {
                cause: error.to_string(),
            };
        }
    };
    let url = client.url().to_owned();
    let ask = async |path: &[&str]| {
        let mut address = client.base.clone();
        if let Ok(mut segments) = address.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        let mut request = client.http.get(address);
        if let Some((user, password)) = &client.basic_auth {
            request = request.basic_auth(user, Some(password));
        }
        request.send().await
    };
    let mut names: Vec<String> = match ask(&["subjects"]).await {
        Ok(answer) if answer.status().is_success() => answer.json().await.unwrap_or_default(),
        Ok(answer) => {
            return Look::Refused {
                url,
                status: answer.status().as_u16(),
            };
        }
        Err(error) => {
            let cause = Cause(SRCError::retryable_with_cause(error.without_url(), "no answer")).chain();
            return Look::Silent { url, cause };
        }
    };
    names.retain(|name| name.starts_with(beginning));
    names.truncate(SUBJECTS_MAX);
    #[derive(serde::Deserialize)]
    struct Level {
        #[serde(alias = "compatibilityLevel")]
        compatibility: String,
    }
    let level = async |path: &[&str]| match ask(path).await {
        Ok(answer) if answer.status().is_success() => {
            answer.json::<Level>().await.ok().map(|level| level.compatibility)
        }
        _ => None,
    };
    let compatibility = level(&["config"]).await;
    let mut subjects = Vec::new();
    for name in names {
        let own = level(&["config", &name]).await;
        subjects.push((name, own));
    }
    Look::Answered {
        url,
        compatibility,
        subjects,
    }
}

/// TLS as the settings say. The same twice, because a builder cannot be copied.
fn http(settings: &RegistrySettings) -> Result<reqwest::ClientBuilder, SettingsError> {
    let mut http = reqwest::Client::builder().timeout(settings.timeout);
    if let Some(pem) = &settings.authorities {
        let certificates = reqwest::Certificate::from_pem_bundle(pem.as_bytes());
        http = http.tls_certs_only(certificates.map_err(SettingsError::Authorities)?);
    }
    if let Some(pem) = &settings.identity {
        http = http.identity(reqwest::Identity::from_pem(pem.as_bytes()).map_err(SettingsError::Identity)?);
    }
    Ok(http)
}

fn registered(raw: RawRegisteredSchema) -> Result<Registered, SRCError> {
    let text = raw
        .schema
        .ok_or_else(|| SRCError::new("the answer holds no schema", None, true))?;
    Ok(Registered {
        text: match raw.schema_type.as_deref() {
            None | Some("AVRO") => text,
            Some(other) => format!("{:?}", format!("schema of type {other}")),
        },
        references: raw.references.unwrap_or_default(),
    })
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
