//! Kafka Connect over its REST API: what the command `connector` needs of it.
//!
//! No configuration value ever appears in an error or a log: a connector that was made without config providers answers
//! with its passwords in clear text.

use std::collections::BTreeMap;
use std::time::Duration;

use reqwest::{Method, RequestBuilder, StatusCode, Url};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::causes::chain;
use crate::hindrance::{CONNECT, Hindered};

pub mod offsets;

/// Connect's message is cut to this many characters: a failed validation can list every setting.
const MESSAGE_CHARS_MAX: usize = 2_000;

/// A connector's configuration: flat, all values are texts.
pub type ConnectorConfig = BTreeMap<String, String>;

/// The REST API of one Connect cluster.
#[derive(Debug, Clone)]
pub struct ConnectClient {
    url: Url,
    http: reqwest::Client,
}

/// Why a request brought nothing.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The HTTP client could not be made.
    #[error("the HTTP client for kafka connect could not be made")]
    Client(#[source] reqwest::Error),
    /// Nobody answered, or not in time.
    #[error("kafka connect at {endpoint} could not be reached; is it running, and is connect.url (CONNECT_URL) right?")]
    Unreachable {
        /// Where it should be, without user and password.
        endpoint: String,
        /// What the HTTP client says.
        source: reqwest::Error,
    },
    /// It is there, and is not who it should be or lets nobody in who comes like this.
    #[error(transparent)]
    Hindered(Hindered),
    /// The authorities are no certificates.
    #[error("connect.ca_pem holds nothing that can be used as certificates")]
    Authorities(#[source] reqwest::Error),
    /// The cluster is busy with itself: ask again.
    #[error("kafka connect is rebalancing or starting: {message}")]
    Busy {
        /// What Connect says.
        message: String,
    },
    /// Connect understood and said no.
    #[error("kafka connect refused to {what} (HTTP {status}): {message}")]
    Refused {
        /// What was asked.
        what: String,
        /// Its status code.
        status: u16,
        /// What Connect says.
        message: String,
    },
    /// The answer is not what Connect answers.
    #[error("the answer to \"{what}\" was not one of kafka connect; is connect.url (CONNECT_URL) right?")]
    Foreign {
        /// What was asked.
        what: String,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}

/// A connector with what runs of it.
#[derive(Debug, Clone)]
pub struct Connector {
    /// Its configuration, with references where it has them. It may hold secrets where it has none.
    pub config: ConnectorConfig,
    /// What runs of it; none right after it was made.
    pub status: Option<ConnectorStatus>,
}

/// A class that connectors can be made of.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Plugin {
    /// Its full name.
    pub class: String,
    /// Its version, where it tells one.
    #[serde(default)]
    pub version: Option<String>,
}

/// What runs of a connector.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectorStatus {
    /// Its name.
    pub name: String,
    /// The connector itself; it only plans tasks.
    pub connector: Part,
    /// Its tasks, which do the work.
    pub tasks: Vec<Part>,
}

/// The connector or one of its tasks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Number of the task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<u32>,
    /// `RUNNING`, `FAILED`, `PAUSED`, `STOPPED`, `UNASSIGNED`, `RESTARTING`.
    pub state: String,
    /// Where it runs.
    #[serde(default)]
    pub worker_id: String,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<String>,
}

impl ConnectorStatus {
    /// Whether the connector and at least one task run, and none does not.
    pub fn runs(&self) -> bool {
        self.connector.is("RUNNING") && !self.tasks.is_empty() && self.tasks.iter().all(|task| task.is("RUNNING"))
    }

    /// Whether it is stopped and the last task is gone.
    pub fn is_stopped(&self) -> bool {
        self.connector.is("STOPPED") && self.tasks.is_empty()
    }

    /// Whether it is paused with each of its tasks.
    pub fn is_paused(&self) -> bool {
        self.connector.is("PAUSED") && self.tasks.iter().all(|task| task.is("PAUSED"))
    }

    /// The connector or the task that failed, if one did.
    pub fn failed(&self) -> Option<&Part> {
        std::iter::once(&self.connector)
            .chain(&self.tasks)
            .find(|part| part.is("FAILED"))
    }
}

impl Part {
    /// Whether it is in this state.
    pub fn is(&self, state: &str) -> bool {
        self.state == state
    }
}

/// What Connect says against one setting.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Objection {
    /// The setting.
    pub key: String,
    /// Why.
    pub errors: Vec<String>,
}

impl ConnectClient {
    /// A client of the cluster at this address, which may carry user and password.
    ///
    /// # Errors
    /// When the HTTP client cannot be made.
    pub fn new(url: Url, timeout: Duration) -> Result<Self, ConnectError> {
        Self::trusting(url, timeout, None)
    }

    /// The same, where these authorities alone may have signed the cluster's certificate; in PEM. `None`: those that the system
    /// trusts.
    ///
    /// # Errors
    /// When they are no certificates, or the HTTP client cannot be made.
    pub fn trusting(url: Url, timeout: Duration, authorities: Option<&str>) -> Result<Self, ConnectError> {
        let mut http = reqwest::Client::builder().timeout(timeout);
        if let Some(pem) = authorities {
            let certificates = reqwest::Certificate::from_pem_bundle(pem.as_bytes());
            http = http.tls_certs_only(certificates.map_err(ConnectError::Authorities)?);
        }
        let http = http.build().map_err(ConnectError::Client)?;
        Ok(Self { url, http })
    }

    /// The names of all connectors.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub async fn names(&self) -> Result<Vec<String>, ConnectError> {
        let request = self.request(Method::GET, &["connectors"]);
        self.json("list the connectors", request).await
    }

    /// All connectors, with their configurations and what runs of them.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub async fn connectors(&self) -> Result<BTreeMap<String, Connector>, ConnectError> {
        let mut url = self.address(&["connectors"]);
        url.set_query(Some("expand=info&expand=status"));
        let answer: BTreeMap<String, Expanded> = self
            .json("list the connectors with their states", self.http.get(url))
            .await?;
        let connector = |expanded: Expanded| Connector {
            config: expanded.info.map(|info| info.config).unwrap_or_default(),
            status: expanded.status,
        };
        Ok(answer
            .into_iter()
            .map(|(name, expanded)| (name, connector(expanded)))
            .collect())
    }

    /// The classes that connectors can be made of.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub async fn plugins(&self) -> Result<Vec<Plugin>, ConnectError> {
        self.json("list the plug-ins", self.request(Method::GET, &["connector-plugins"]))
            .await
    }

    /// The configuration of a connector; `None` when there is no such connector.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub async fn config(&self, name: &str) -> Result<Option<ConnectorConfig>, ConnectError> {
        let request = self.request(Method::GET, &["connectors", name, "config"]);
        found(self.json(&format!("show connector {name}"), request).await)
    }

    /// What runs of a connector; `None` when nothing is known, which is also so right after it was made.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub async fn status(&self, name: &str) -> Result<Option<ConnectorStatus>, ConnectError> {
        let request = self.request(Method::GET, &["connectors", name, "status"]);
        found(
            self.json(&format!("show the status of connector {name}"), request)
                .await,
        )
    }

    /// What Connect and the connector's class object to, without changing anything.
    ///
    /// # Errors
    /// See [`ConnectError`]; an unknown class is refused.
    pub async fn validate(&self, class: &str, config: &ConnectorConfig) -> Result<Vec<Objection>, ConnectError> {
        let path = ["connector-plugins", class, "config", "validate"];
        let request = self.request(Method::PUT, &path).json(config);
        let answer: Validation = self.json("check the configuration", request).await?;
        Ok(answer
            .configs
            .into_iter()
            .filter(|checked| !checked.value.errors.is_empty())
            .map(|checked| Objection {
                key: checked.value.name,
                errors: checked.value.errors,
            })
            .collect())
    }

    /// Makes a connector or gives it this configuration. Connect answers before anything of it is in effect.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub async fn put_config(&self, name: &str, config: &ConnectorConfig) -> Result<(), ConnectError> {
        let request = self.request(Method::PUT, &["connectors", name, "config"]).json(config);
        self.tell(&format!("configure connector {name}"), request).await
    }

    /// Makes a connector that does not run until it is resumed (Connect 3.7 and later, KIP-980).
    ///
    /// # Errors
    /// See [`ConnectError`]; a connector that is there already is refused, or busy.
    pub async fn create_stopped(&self, name: &str, config: &ConnectorConfig) -> Result<(), ConnectError> {
        let body = serde_json::json!({"name": name, "config": config, "initial_state": "STOPPED"});
        let request = self.request(Method::POST, &["connectors"]).json(&body);
        self.tell(&format!("make connector {name}"), request).await
    }

    /// Forgets the offsets of a connector that is stopped (Connect 3.6 and later, KIP-875).
    ///
    /// # Errors
    /// See [`ConnectError`]; a connector that is not stopped is refused.
    pub async fn forget_offsets(&self, name: &str) -> Result<(), ConnectError> {
        let request = self.request(Method::DELETE, &["connectors", name, "offsets"]);
        self.tell(&format!("forget the offsets of connector {name}"), request)
            .await
    }

    /// Asks a connector to give up its tasks; its offsets are kept.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub async fn stop(&self, name: &str) -> Result<(), ConnectError> {
        self.put_state(name, "stop").await
    }

    /// Asks a connector and its tasks to rest where they are.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub async fn pause(&self, name: &str) -> Result<(), ConnectError> {
        self.put_state(name, "pause").await
    }

    /// Asks a stopped or paused connector to run.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub async fn resume(&self, name: &str) -> Result<(), ConnectError> {
        self.put_state(name, "resume").await
    }

    async fn put_state(&self, name: &str, verb: &str) -> Result<(), ConnectError> {
        let request = self.request(Method::PUT, &["connectors", name, verb]);
        self.tell(&format!("{verb} connector {name}"), request).await
    }

    /// Asks for a restart of whatever failed of a connector.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub async fn restart_failed(&self, name: &str) -> Result<(), ConnectError> {
        self.restart_with(name, "includeTasks=true&onlyFailed=true").await
    }

    /// Asks for a restart of a connector and all of its tasks.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub async fn restart(&self, name: &str) -> Result<(), ConnectError> {
        self.restart_with(name, "includeTasks=true&onlyFailed=false").await
    }

    /// Asks for a restart of one task of a connector.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub async fn restart_task(&self, name: &str, task: u32) -> Result<(), ConnectError> {
        let path = ["connectors", name, "tasks", &task.to_string(), "restart"];
        let request = self.request(Method::POST, &path);
        self.tell(&format!("restart task {task} of connector {name}"), request)
            .await
    }

    async fn restart_with(&self, name: &str, what: &str) -> Result<(), ConnectError> {
        let mut url = self.address(&["connectors", name, "restart"]);
        url.set_query(Some(what));
        let request = self.http.post(url);
        self.tell(&format!("restart connector {name}"), request).await
    }

    /// Deletes a connector; `false` when there was none. Its offsets and its replication slot remain.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub async fn delete(&self, name: &str) -> Result<bool, ConnectError> {
        let request = self.request(Method::DELETE, &["connectors", name]);
        let deleted = self.answer(&format!("delete connector {name}"), request).await;
        Ok(found(deleted)?.is_some())
    }

    /// The address as it may be printed.
    pub fn endpoint(&self) -> String {
        let host = self.url.host_str().unwrap_or_default();
        let port = self.url.port_or_known_default().unwrap_or_default();
        format!("{}://{host}:{port}", self.url.scheme())
    }

    fn request(&self, method: Method, path: &[&str]) -> RequestBuilder {
        self.http.request(method, self.address(path))
    }

    fn address(&self, path: &[&str]) -> Url {
        let mut url = self.url.clone();
        url.path_segments_mut()
            .expect("an http address has a path")
            .pop_if_empty()
            .extend(path);
        url
    }

    async fn json<T: DeserializeOwned>(&self, what: &str, request: RequestBuilder) -> Result<T, ConnectError> {
        let body = self.answer(what, request).await?;
        serde_json::from_slice(&body).map_err(|source| ConnectError::Foreign {
            what: what.to_owned(),
            source,
        })
    }

    async fn tell(&self, what: &str, request: RequestBuilder) -> Result<(), ConnectError> {
        self.answer(what, request).await.map(drop)
    }

    /// The body of a successful answer.
    async fn answer(&self, what: &str, request: RequestBuilder) -> Result<Vec<u8>, ConnectError> {
        let unreachable = |source: reqwest::Error| {
            // The address may hold a password.
            let source = source.without_url();
            match Hindered::read(&chain(&source), &self.endpoint(), &CONNECT) {
                Some(hindered) => ConnectError::Hindered(hindered),
                None => ConnectError::Unreachable {
                    endpoint: self.endpoint(),
                    source,
                },
            }
        };
        let response = request.send().await.map_err(unreachable)?;
        let status = response.status();
        let body = response.bytes().await.map_err(unreachable)?;
        if status.is_success() {
            return Ok(body.to_vec());
        }
        let said = format!("status {}", status.as_u16());
        if let Some(hindered) = Hindered::read(&said, &self.endpoint(), &CONNECT) {
            return Err(ConnectError::Hindered(hindered));
        }
        let message = message_of(&body);
        if is_busy(status, &message) {
            return Err(ConnectError::Busy { message });
        }
        Err(ConnectError::Refused {
            what: what.to_owned(),
            status: status.as_u16(),
            message,
        })
    }
}

/// 409: a rebalance is under way. 503: the worker has not joined yet. 500 with a time-out: it was busy with either. 500 that
/// names a rebalance: how a question about a connector is answered that meets one (a change gets 409).
fn is_busy(status: StatusCode, message: &str) -> bool {
    match status {
        StatusCode::CONFLICT | StatusCode::SERVICE_UNAVAILABLE => true,
        StatusCode::INTERNAL_SERVER_ERROR => message.contains("timed out") || message.contains("rebalance"),
        _ => false,
    }
}

fn found<T>(answer: Result<T, ConnectError>) -> Result<Option<T>, ConnectError> {
    match answer {
        Err(ConnectError::Refused { status: 404, .. }) => Ok(None),
        answer => answer.map(Some),
    }
}

/// Connect's errors are `{"error_code", "message"}`; a proxy in between may answer anything.
fn message_of(body: &[u8]) -> String {
    let text = match serde_json::from_slice::<Value>(body) {
        Ok(Value::Object(fields)) => match fields.get("message") {
            Some(Value::String(message)) => message.clone(),
            _ => "no reason was given".to_owned(),
        },
        _ => "the answer was not JSON".to_owned(),
    };
    text.chars().take(MESSAGE_CHARS_MAX).collect()
}

#[derive(Deserialize)]
struct Expanded {
    info: Option<Info>,
    status: Option<ConnectorStatus>,
}

#[derive(Deserialize)]
struct Info {
    config: ConnectorConfig,
}

#[derive(Deserialize)]
struct Validation {
    configs: Vec<Checked>,
}

#[derive(Deserialize)]
struct Checked {
    value: CheckedValue,
}

#[derive(Deserialize)]
struct CheckedValue {
    name: String,
    errors: Vec<String>,
}

#[cfg(test)]
#[path = "connect_tests.rs"]
mod tests;
