//! Beginnings: where a group that never ran starts on the partitions that there are then.
//!
//! Written down once for each group, before it subscribes for the first time. Several processes may write at once: one
//! does, and all use what it wrote.

use std::collections::BTreeMap;

use sqlx::postgres::PgPool;
use sqlx::types::Json;

/// `{topic: {partition: offset}}`.
type Offsets = BTreeMap<String, BTreeMap<i32, i64>>;

/// Where the beginning of one group is kept.
#[derive(Debug, Clone)]
pub struct Beginnings {
    group: String,
    store: Store,
}

/// A group that lives and dies with its process must not need a database; see [`Claims`](super::claims::Claims).
#[derive(Debug, Clone)]
enum Store {
    Postgres(PgPool),
    Memory,
}

/// Where a group begins on the partitions that there were at its first start; on all others it begins at their beginning.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Beginning(Offsets);

impl Beginning {
    /// At the beginning everywhere.
    pub fn earliest() -> Self {
        Self::default()
    }

    /// At these offsets.
    pub fn at(offsets: impl IntoIterator<Item = (String, i32, i64)>) -> Self {
        let mut of = Offsets::new();
        for (topic, partition, offset) in offsets {
            of.entry(topic).or_default().insert(partition, offset);
        }
        Self(of)
    }

    /// The offset at which the group begins on a partition; `None` is its beginning.
    pub fn offset_of(&self, topic: &str, partition: i32) -> Option<i64> {
        self.0.get(topic)?.get(&partition).copied()
    }

    fn start(&self) -> &'static str {
        if self.0.is_empty() { "earliest" } else { "latest" }
    }
}

impl Beginnings {
    /// The beginning of `group`.
    pub fn new(pool: PgPool, group: impl Into<String>) -> Self {
        Self {
            group: group.into(),
            store: Store::Postgres(pool),
        }
    }

    /// A beginning that ends with the process: everywhere at the beginning.
    pub fn in_memory() -> Self {
        Self {
            group: String::new(),
            store: Store::Memory,
        }
    }

    /// What was written down; `None` before the first start, and for a group whose first start was by a version that wrote
    /// nothing down.
    ///
    /// # Errors
    /// Whatever Postgres answered.
    pub async fn known(&self) -> Result<Option<Beginning>, sqlx::Error> {
        let Store::Postgres(pool) = &self.store else {
            return Ok(Some(Beginning::earliest()));
        };
        let known: Option<Json<Offsets>> =
            sqlx::query_scalar("SELECT first_offsets FROM afterwrite.groups WHERE group_name = $1")
                .bind(&self.group)
                .fetch_optional(pool)
                .await?;
        Ok(known.map(|Json(offsets)| Beginning(offsets)))
    }

    /// Writes a beginning down in the place of any other one: for a group that reads no topic yet.
    ///
    /// # Errors
    /// Whatever Postgres answered.
    pub async fn replace(&self, beginning: &Beginning) -> Result<(), sqlx::Error> {
        let Store::Postgres(pool) = &self.store else {
            return Ok(());
        };
        sqlx::query(
            "INSERT INTO afterwrite.groups (group_name, start, first_offsets) VALUES ($1, $2, $3)
             ON CONFLICT (group_name) DO UPDATE SET start = excluded.start, first_offsets = excluded.first_offsets",
        )
        .bind(&self.group)
        .bind(beginning.start())
        .bind(Json(&beginning.0))
        .execute(pool)
        .await
        .map(|_| ())
    }

    /// Writes a beginning down unless another one was; answers the one that stands.
    ///
    /// # Errors
    /// Whatever Postgres answered.
    pub async fn write(&self, beginning: Beginning) -> Result<Beginning, sqlx::Error> {
        let Store::Postgres(pool) = &self.store else {
            return Ok(beginning);
        };
        sqlx::query(
            "INSERT INTO afterwrite.groups (group_name, start, first_offsets) VALUES ($1, $2, $3)
             ON CONFLICT (group_name) DO NOTHING",
        )
        .bind(&self.group)
        .bind(beginning.start())
        .bind(Json(&beginning.0))
        .execute(pool)
        .await?;
        Ok(self.known().await?.unwrap_or(beginning))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_that_was_not_there_begins_at_its_beginning() {
        let beginning = Beginning::at([("t".to_owned(), 0, 7), ("t".to_owned(), 1, 0)]);
        let of = |topic, partition| beginning.offset_of(topic, partition);
        assert_eq!(
            (of("t", 0), of("t", 1), of("t", 2), of("u", 0)),
            (Some(7), Some(0), None, None)
        );
        assert_eq!(
            (beginning.start(), Beginning::earliest().start()),
            ("latest", "earliest")
        );
    }
}
