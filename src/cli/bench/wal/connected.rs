//! The same changes by the way through Kafka Connect and Kafka: a connector as `connectors/waitlist.json` has it, for the
//! measurement's table alone.

use std::time::Duration;

use crate::cli::Failure;
use crate::cli::bench::Cluster;
use crate::cli::bench::wal::table::Rows;
use crate::cli::connector::patience::Patience;
use crate::cli::connector::slot;
use crate::clients::connect::{ConnectClient, ConnectorConfig, ConnectorStatus};
use crate::config::Config;

/// The connector that is measured, but for its names.
const CONNECTOR: &str = include_str!("../../../../connectors/waitlist.json");

/// Settings that name the tables and columns of the waitlist.
const OF_THE_WAITLIST: [&str; 4] = ["transforms", "predicates", "column.exclude", "signal"];

/// Its topics begin so.
pub(super) const PREFIX: &str = "bench";

/// How long Kafka Connect may take for each thing it is asked for.
const PATIENCE_S: u64 = 60;

/// A connector that captures the table.
pub(super) struct Connected {
    connect: ConnectClient,
    name: String,
    pub(super) cluster: Cluster,
    pub(super) topic: String,
}

impl Connected {
    /// Starts it, and waits until what is written is captured.
    pub(super) async fn make(config: &Config, cluster: Cluster, rows: &Rows) -> Result<Self, Failure> {
        let timeout = Duration::from_millis(config.connect.timeout_ms);
        let connected = Self {
            connect: crate::app::options::connect_client(config, timeout)?,
            name: rows.name.clone(),
            cluster,
            topic: format!("{PREFIX}.public.{}", rows.name),
        };
        let connector = of_table(&rows.name).map_err(Failure::failed)?;
        let patience = Patience::new(PATIENCE_S);
        // A topic that is there from the beginning is not waited for by the worker.
        connected.cluster.make_empty(&connected.topic, 8).await?;
        let (connect, name) = (&connected.connect, &connected.name);
        patience.insist(|| connect.put_config(name, &connector)).await?;
        let runs = |status: Option<&ConnectorStatus>| status.is_some_and(ConnectorStatus::runs);
        patience.until(connect, name, "running", runs).await?;
        slot::await_active(config, &connector, &patience).await?;
        Ok(connected)
    }

    /// Takes it away, with its topic. Its slot goes with the table's others.
    pub(super) async fn remove(self, group: &str) -> Result<(), Failure> {
        let (connect, name, patience) = (&self.connect, &self.name, Patience::new(PATIENCE_S));
        patience.insist(|| connect.delete(name)).await?;
        patience.until(connect, name, "gone", |status| status.is_none()).await?;
        self.cluster.delete_group(group).await?;
        self.cluster.delete_topic(&self.topic).await
    }
}

fn of_table(table: &str) -> Result<ConnectorConfig, serde_json::Error> {
    let mut connector: ConnectorConfig = serde_json::from_str(CONNECTOR)?;
    connector.retain(|key, _| !OF_THE_WAITLIST.iter().any(|beginning| key.starts_with(beginning)));
    let named = [
        ("name", table.to_owned()),
        ("topic.prefix", PREFIX.to_owned()),
        ("slot.name", format!("{table}_connect")),
        ("publication.name", table.to_owned()),
        ("table.include.list", format!("public\\.{table}")),
    ];
    connector.extend(named.map(|(key, value)| (key.to_owned(), value)));
    Ok(connector)
}
