//! Which letters a command acts on: one filter for all of them, and the SQL that applies it.

use std::fmt;

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::postgres::{PgPool, Postgres};
use sqlx::query::QueryAs;
use sqlx::{FromRow, postgres::PgArguments, postgres::PgRow};

use crate::dead_letter::state::{COLUMNS, LetterRow, OPEN};

/// The condition on a row of `afterwrite.letters` whose parameters `$1` to `$8` are bound by [`Filter::bind`].
pub(super) const CONDITION: &str = "($1::text IS NULL OR group_name = $1)
    AND ($2::text[] IS NULL OR handler = ANY($2)) AND ($3::text[] IS NULL OR class = ANY($3))
    AND ($4::text[] IS NULL OR table_name = ANY($4)) AND ($5::text[] IS NULL OR afterwrite.key_terms(event_key) @> $5)
    AND ($6::timestamptz IS NULL OR failed_at >= $6) AND ($7::timestamptz IS NULL OR failed_at < $7)
    AND ($8::text[] IS NULL OR state = ANY($8))";

/// A choice of letters; what is not said does not narrow it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Of this group, by its full name.
    pub group: Option<String>,
    /// Of one of these handlers.
    pub handlers: Vec<String>,
    /// Of one of these classes.
    pub classes: Vec<String>,
    /// Of one of these tables, `schema.table`.
    pub tables: Vec<String>,
    /// Of an event whose primary key has these columns.
    pub key: Option<KeyTerms>,
    /// That failed at this moment or later.
    pub since: Option<DateTime<Utc>>,
    /// That failed before this moment.
    pub until: Option<DateTime<Utc>>,
    /// In one of these states.
    pub states: Vec<String>,
}

/// Columns of a primary key as people write them: `id=7`, `tenant=3,id=7`, or `7` for a key of one column.
///
/// Columns that are not named do not narrow the choice, so `tenant=3` stands for every row of the tenant. Values are
/// compared as texts: `7` is the number and the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyTerms(Vec<String>);

/// A key was not understood.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "not a primary key: write id=7, several columns tenant=3,id=7, or only 7 where the key has one column; values with a \
     comma or an equals sign as JSON: {{\"name\": \"a,b\"}}"
)]
pub struct NoKey;

impl KeyTerms {
    /// The columns of a text.
    ///
    /// # Errors
    /// When there is none, or one without a name beside others.
    pub fn parse(text: &str) -> Result<Self, NoKey> {
        let text = text.trim();
        if text.starts_with('{') {
            return Self::of_json(text);
        }
        if !text.contains(['=', ',']) {
            return (!text.is_empty()).then(|| Self(vec![text.to_owned()])).ok_or(NoKey);
        }
        let terms = text.split(',').map(|column| {
            let (name, value) = column.split_once('=').ok_or(NoKey)?;
            match name.trim() {
                "" => Err(NoKey),
                name => Ok(format!("{name}={}", value.trim())),
            }
        });
        terms.collect::<Result<_, _>>().map(Self)
    }

    fn of_json(text: &str) -> Result<Self, NoKey> {
        let columns: serde_json::Map<String, Value> = serde_json::from_str(text).map_err(|_| NoKey)?;
        let terms: Vec<String> = columns
            .iter()
            .map(|(name, value)| match value {
                Value::String(text) => format!("{name}={text}"),
                other => format!("{name}={other}"),
            })
            .collect();
        (!terms.is_empty()).then_some(Self(terms)).ok_or(NoKey)
    }
}

impl Filter {
    /// The same for a command that changes letters: where no state is named, the open ones.
    pub(super) fn acted_on(&self) -> Self {
        let states = match self.states.is_empty() {
            true => vec![OPEN.to_owned()],
            false => self.states.clone(),
        };
        Self { states, ..self.clone() }
    }

    /// Whether it chooses every letter there is.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Binds the parameters of [`CONDITION`].
    pub(super) fn bind<'q, O: for<'r> FromRow<'r, PgRow>>(
        &self,
        query: QueryAs<'q, Postgres, O, PgArguments>,
    ) -> QueryAs<'q, Postgres, O, PgArguments> {
        let any = |words: &[String]| (!words.is_empty()).then(|| words.to_vec());
        query
            .bind(self.group.clone())
            .bind(any(&self.handlers))
            .bind(any(&self.classes))
            .bind(any(&self.tables))
            .bind(self.key.as_ref().map(|key| key.0.clone()))
            .bind(self.since)
            .bind(self.until)
            .bind(any(&self.states))
    }
}

/// The newest of the letters that are chosen, at most `limit`.
///
/// # Errors
/// Whatever Postgres answered.
pub async fn newest(pool: &PgPool, filter: &Filter, limit: i64) -> Result<Vec<LetterRow>, sqlx::Error> {
    let sql = format!(
        "SELECT {COLUMNS} FROM afterwrite.letters WHERE {CONDITION} ORDER BY failed_at DESC, letter_id LIMIT $9"
    );
    let query = filter.bind(sqlx::query_as(sqlx::AssertSqlSafe(sql)));
    query.bind(limit).fetch_all(pool).await
}

/// The oldest of the letters that are chosen after this one, in the order in which they failed.
///
/// # Errors
/// Whatever Postgres answered.
pub async fn following(
    pool: &PgPool,
    filter: &Filter,
    after: Option<&LetterRow>,
    limit: i64,
) -> Result<Vec<LetterRow>, sqlx::Error> {
    let sql = format!(
        "SELECT {COLUMNS} FROM afterwrite.letters
         WHERE {CONDITION} AND ($9::timestamptz IS NULL OR (failed_at, letter_id) > ($9, $10))
         ORDER BY failed_at, letter_id LIMIT $11"
    );
    filter
        .bind(sqlx::query_as(sqlx::AssertSqlSafe(sql)))
        .bind(after.map(|letter| letter.failed_at))
        .bind(after.map(|letter| letter.letter_id.clone()))
        .bind(limit)
        .fetch_all(pool)
        .await
}

/// How many letters of a group have one class and handler.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, sqlx::FromRow)]
pub struct Count {
    /// The group.
    #[serde(rename = "group")]
    pub group_name: String,
    /// The handler.
    pub handler: String,
    /// The class.
    pub class: String,
    /// Letters.
    pub letters: i64,
}

impl fmt::Display for Count {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} {} of {}", self.letters, self.class, self.handler)
    }
}

/// The letters that are chosen, counted by group, handler and class.
///
/// # Errors
/// Whatever Postgres answered.
pub async fn counts(pool: &PgPool, filter: &Filter) -> Result<Vec<Count>, sqlx::Error> {
    counts_below(pool, filter, i32::MAX).await
}

/// The same without letters whose event was replayed so often or more.
///
/// # Errors
/// Whatever Postgres answered.
pub async fn counts_below(pool: &PgPool, filter: &Filter, replays_max: i32) -> Result<Vec<Count>, sqlx::Error> {
    let sql = format!(
        "SELECT group_name, handler, class, count(*) AS letters FROM afterwrite.letters
         WHERE {CONDITION} AND replays < $9 GROUP BY group_name, handler, class ORDER BY group_name, handler, class"
    );
    let query = filter.bind(sqlx::query_as(sqlx::AssertSqlSafe(sql)));
    query.bind(replays_max).fetch_all(pool).await
}

/// The chosen letters whose event was replayed so often or more.
///
/// # Errors
/// Whatever Postgres answered.
pub async fn replayed_often(pool: &PgPool, filter: &Filter, replays_max: i32) -> Result<Vec<String>, sqlx::Error> {
    let sql = format!(
        "SELECT letter_id FROM afterwrite.letters WHERE {CONDITION} AND replays >= $9 ORDER BY failed_at, letter_id"
    );
    let query = filter.bind(sqlx::query_as::<_, (String,)>(sqlx::AssertSqlSafe(sql)));
    let ids = query.bind(replays_max).fetch_all(pool).await?;
    Ok(ids.into_iter().map(|(id,)| id).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_as_people_write_it() {
        for (text, expected) in [
            ("7", Some(&["7"][..])),
            (" id = 7 ", Some(&["id=7"])),
            ("tenant=3,id=7", Some(&["tenant=3", "id=7"])),
            ("id=", Some(&["id="])),
            (
                r#"{"name": "a,b", "id": 7, "deleted": null}"#,
                Some(&["deleted=null", "id=7", "name=a,b"]),
            ),
            ("", None),
            ("{}", None),
            ("{", None),
            ("=7", None),
            ("3,7", None),
            ("id=7,8", None),
        ] {
            let mut parsed = KeyTerms::parse(text).ok().map(|key| key.0);
            if let Some(terms) = parsed.as_mut().filter(|_| text.starts_with('{')) {
                terms.sort_unstable();
            }
            let expected = expected.map(|terms| terms.iter().map(|term| (*term).to_owned()).collect::<Vec<_>>());
            assert_eq!(parsed, expected, "{text}");
        }
    }

    #[test]
    fn a_filter_that_says_anything_is_not_empty() {
        assert!(Filter::default().is_empty());
        let with_states = Filter {
            states: vec!["open".to_owned()],
            ..Filter::default()
        };
        assert!(!with_states.is_empty());
    }
}
