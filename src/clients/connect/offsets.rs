//! The offsets of connectors (KIP-875): where each has noted down that it is.

use reqwest::Method;
use serde::Deserialize;
use serde_json::Value;

use super::{ConnectClient, ConnectError, found};

/// Where a connector has noted down that it is, in one of its partitions.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct ConnectorOffset {
    /// Which partition of what it reads.
    #[serde(default)]
    pub partition: serde_json::Map<String, Value>,
    /// Where it is there; `None` once that is forgotten.
    #[serde(default)]
    pub offset: Option<serde_json::Map<String, Value>>,
}

impl ConnectClient {
    /// Where a connector has noted down that it is; nothing of one that never did, or of a Connect before 3.5 (KIP-875).
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub async fn offsets(&self, name: &str) -> Result<Vec<ConnectorOffset>, ConnectError> {
        #[derive(Deserialize)]
        struct Offsets {
            offsets: Vec<ConnectorOffset>,
        }
        let request = self.request(Method::GET, &["connectors", name, "offsets"]);
        let answer = self
            .json::<Offsets>(&format!("show the offsets of connector {name}"), request)
            .await;
        Ok(found(answer)?.map(|answer| answer.offsets).unwrap_or_default())
    }
}
