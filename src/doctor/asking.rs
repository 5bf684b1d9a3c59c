//! What is asked of each part, and in what time: nothing is judged here.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::PgPool;
use tokio::time::timeout;

use super::connector::Deployed;
use super::doors::Silence;
use super::expected::Expected;
use super::{
    columns, connector, horizon, lints, publication, records, registry, roles, schema, server, slot, tables, topics,
};
use crate::causes::chain;
use crate::clients::connect::{ConnectClient, ConnectError};
use crate::decode::options::Format;
use crate::decode::registry::client::Look;
use crate::groups::broker::{self, Broker};
use crate::groups::known::{self, Known};
use crate::source::kafka;

/// Longest wait for all answers of one part, which are several questions.
pub(super) const PART_MAX: Duration = Duration::from_secs(8);

/// SQLSTATE of what a role may not do.
const DENIED: &str = "42501";

/// What can be asked, or why it cannot.
pub struct Reach {
    /// Postgres, as the worker.
    pub pool: Result<PgPool, Silence>,
    /// Postgres, as the role that reads the log; only where it is read without Kafka.
    pub replicating: Option<Result<PgPool, Silence>>,
    /// Kafka Connect; none where the log is read without it.
    pub connect: Option<ConnectClient>,
    /// How the probe reads topics; none where there is none, or it is not wanted.
    pub reading: Option<kafka::Options>,
    /// Whether a row is sent all the way.
    pub probes: bool,
}

impl std::fmt::Debug for Reach {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Reach")
            .field("probes", &self.probes)
            .finish_non_exhaustive()
    }
}

/// What Kafka and its surroundings answered.
pub(super) struct Surroundings {
    pub(super) connect: Option<Result<connector::Facts, Silence>>,
    pub(super) broker: Option<Result<(Arc<Broker>, topics::Facts), Silence>>,
}

/// What Postgres answered.
pub(super) struct Database {
    pub(super) server: server::Facts,
    pub(super) horizon: horizon::Facts,
    pub(super) tables: tables::Tables,
    pub(super) columns: columns::Facts,
    pub(super) schema: schema::Facts,
    pub(super) publication: publication::Facts,
    pub(super) roles: roles::Facts,
    pub(super) slots: slot::Slots,
    /// `None` where its tables are not there.
    pub(super) known: Option<BTreeMap<String, Known>>,
    pub(super) name: String,
}

/// Kafka Connect and the brokers, at once.
pub(super) async fn ask_around(expected: &Expected, reach: &Reach) -> Surroundings {
    let connect = async {
        let client = reach.connect.as_ref()?;
        let both = futures::future::try_join(client.plugins(), client.connectors());
        let facts = timeout(PART_MAX, both).await;
        Some(match facts {
            Ok(Ok((plugins, connectors))) => Ok(connector::Facts {
                plugins,
                connectors,
                endpoint: client.endpoint(),
            }),
            Ok(Err(ConnectError::Hindered(hindered))) => Err(Silence::Hindered(hindered)),
            Ok(Err(error)) => Err(Silence::Away(chain(&error))),
            Err(_) => Err(silent(&format!("kafka connect at {}", client.endpoint()))),
        })
    };
    let broker = async {
        let options = expected.brokers.clone()?;
        let place = options.brokers.clone();
        let asked = timeout(PART_MAX, tokio::task::spawn_blocking(move || Broker::connect(options))).await;
        let broker = match asked {
            Ok(Ok(Ok(broker))) => Arc::new(broker),
            Ok(Ok(Err(broker::Error::Refused(hindered)))) => return Some(Err(Silence::Hindered(hindered))),
            Ok(Ok(Err(error))) => return Some(Err(Silence::Away(chain(&error)))),
            Ok(Err(_)) | Err(_) => {
                return Some(Err(silent(&format!("kafka at {place}"))));
            }
        };
        // It keeps its own time: brokers that tell nothing of their topics are not away.
        let topics = topics::collect(&broker, expected).await;
        Some(topics.map(|topics| (broker, topics)).map_err(Silence::Away))
    };
    let (connect, broker) = futures::future::join(connect, broker).await;
    Surroundings { connect, broker }
}

fn silent(whom: &str) -> Silence {
    Silence::Away(format!("{whom} did not answer within {} s", PART_MAX.as_secs()))
}

/// The registry, where the connector or the configuration needs one.
pub(super) async fn look_up(expected: &Expected, deployed: Option<Deployed<'_>>) -> Option<Look> {
    match comes_with_schemas(expected, deployed) && expected.brokers.is_some() {
        true => Some(registry::collect(expected).await),
        false => None,
    }
}

/// Whether records name schemas of a registry.
fn comes_with_schemas(expected: &Expected, deployed: Option<Deployed<'_>>) -> bool {
    deployed.is_some_and(|deployed| lints::is_avro(&deployed.connector.config))
        || expected.decoding.format == Format::Avro
}

/// The newest records of topics, where the brokers answer.
pub(super) async fn read_newest(
    around: &Surroundings,
    deployed: Option<Deployed<'_>>,
    expected: &Expected,
) -> records::Facts {
    match &around.broker {
        Some(Ok((broker, topics))) => {
            // Whoever takes all values for JSON is told by its own setting.
            let with_schemas = comes_with_schemas(expected, deployed)
                && matches!(expected.decoding.format, Format::Auto | Format::Avro);
            records::collect((broker, topics), with_schemas, deployed.as_ref(), expected).await
        }
        _ => records::Facts::default(),
    }
}

/// Why Postgres answered nothing of use.
pub(super) enum Unasked {
    /// It is away, or lets nobody in.
    Silent(Silence),
    /// The role may not even look.
    Denied(String),
}

pub(super) async fn ask_postgres(
    expected: &Expected,
    reach: &Reach,
    deployed: Option<Deployed<'_>>,
) -> Result<Database, Unasked> {
    let pool = reach.pool.as_ref().map_err(|why| Unasked::Silent(why.clone()))?;
    let asked = timeout(PART_MAX, read(pool, expected, reach, deployed)).await;
    match asked {
        Ok(Ok(database)) => Ok(database),
        Ok(Err(error)) => {
            let code = error.as_database_error().and_then(|database| database.code());
            match code.as_deref() {
                Some(DENIED) => Err(Unasked::Denied(error.to_string())),
                _ => Err(Unasked::Silent(Silence::Away(format!(
                    "postgres could not be asked: {error}"
                )))),
            }
        }
        Err(_) => Err(Unasked::Silent(silent("postgres"))),
    }
}

async fn read(
    pool: &PgPool,
    expected: &Expected,
    reach: &Reach,
    deployed: Option<Deployed<'_>>,
) -> Result<Database, sqlx::Error> {
    let schema = schema::collect(pool).await?;
    let is_current = schema.is_current(expected);
    let mut slots = slot::collect(pool, expected, is_current).await?;
    if let Some(name) = deployed.filter(Deployed::runs).and_then(|deployed| deployed.slot()) {
        slot::look_again(pool, &mut slots, name).await?;
    }
    let of_connector = deployed.and_then(|deployed| slots.named(deployed.slot()?)?.reader.clone());
    let reader = match (&reach.replicating, deployed) {
        (Some(Ok(replicating)), _) => Some(
            sqlx::query_scalar("SELECT current_user::text")
                .fetch_one(replicating)
                .await?,
        ),
        (_, Some(deployed)) => deployed.get("database.user").map(str::to_owned).or(of_connector),
        _ => None,
    };
    let publication = deployed
        .and_then(|deployed| deployed.get("publication.name"))
        .unwrap_or(&expected.publication);
    Ok(Database {
        server: server::collect(pool).await?,
        horizon: horizon::collect(pool).await?,
        tables: tables::collect(pool, expected).await?,
        columns: columns::collect(pool, expected, publication).await?,
        publication: publication::collect(pool, publication, deployed.and_then(|deployed| deployed.slot())).await?,
        roles: roles::collect(pool, expected, reader.as_deref()).await?,
        known: match is_current {
            true => Some(known::read(pool).await?),
            false => None,
        },
        name: sqlx::query_scalar("SELECT current_database()::text")
            .fetch_one(pool)
            .await?,
        schema,
        slots,
    })
}
