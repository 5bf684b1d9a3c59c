//! What Postgres tells of the publications of a connector, where a change concerns them.

use std::collections::BTreeSet;

use sqlx::postgres::PgPool;

use super::loss;
use crate::cli::database;
use crate::clients::connect::ConnectorConfig;
use crate::config::Config;

/// Settings whose changes are judged by what is published.
const CONCERNED: [&str; 7] = [
    "publication.name",
    "schema.include.list",
    "schema.exclude.list",
    "table.include.list",
    "table.exclude.list",
    "transforms",
    "predicates",
];

/// The tables of the publications of before and after, as `schema.table`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Published {
    /// `None`: they could not be asked for.
    pub(super) before: Option<BTreeSet<String>>,
    pub(super) after: Option<BTreeSet<String>>,
    /// Whether the publication of after was made later than log that the slot still holds.
    pub(super) is_younger: bool,
}

impl Published {
    /// Asks Postgres, where what differs needs it. Where it does not answer, or is not the connector's, nothing is known.
    pub(super) async fn ask(
        config: &Config,
        before: &ConnectorConfig,
        after: &ConnectorConfig,
        differing: &[String],
    ) -> Self {
        let concerns = |key: &String| CONCERNED.iter().any(|concerned| key.starts_with(concerned));
        if !differing.iter().any(concerns) {
            return Self::default();
        }
        let Ok(pool) = database::connect(config).await else {
            return Self::default();
        };
        let asked = Self::read(&pool, before, after).await;
        asked.ok().flatten().unwrap_or_default()
    }

    async fn read(
        pool: &PgPool,
        before: &ConnectorConfig,
        after: &ConnectorConfig,
    ) -> Result<Option<Self>, sqlx::Error> {
        let database: String = sqlx::query_scalar("SELECT current_database()::text")
            .fetch_one(pool)
            .await?;
        let theirs = loss::value(before, "database.dbname", "");
        if !theirs.contains("${") && theirs != database {
            return Ok(None);
        }
        let name = |config| loss::value(config, "publication.name", loss::PUBLICATION);
        let is_younger: Option<bool> = sqlx::query_scalar(
            "SELECT age(p.xmin) <= age(s.catalog_xmin) FROM pg_publication p, pg_replication_slots s
             WHERE p.pubname = $1::name AND s.slot_name = $2::name AND s.catalog_xmin IS NOT NULL",
        )
        .bind(name(after))
        .bind(loss::value(before, "slot.name", loss::SLOT))
        .fetch_optional(pool)
        .await?;
        Ok(Some(Self {
            before: Some(tables(pool, name(before)).await?),
            after: Some(tables(pool, name(after)).await?),
            is_younger: is_younger.unwrap_or_default() && name(before) != name(after),
        }))
    }
}

async fn tables(pool: &PgPool, publication: &str) -> Result<BTreeSet<String>, sqlx::Error> {
    let names: Vec<String> = sqlx::query_scalar(
        "SELECT DISTINCT schemaname::text || '.' || tablename::text FROM pg_publication_tables WHERE pubname = $1::name",
    )
    .bind(publication)
    .fetch_all(pool)
    .await?;
    Ok(names.into_iter().collect())
}
