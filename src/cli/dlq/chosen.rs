//! Which letters a command is about: ids or filters, the same for every command.

use chrono::{DateTime, NaiveDate, NaiveTime, Utc};
use clap::Args;
use sqlx::PgPool;

use crate::cli::Failure;
use crate::cli::dlq::find;
use crate::config::Config;
use crate::config::value::Interval;
use crate::dead_letter::filter::{Filter, KeyTerms};
use crate::dead_letter::state::{CLASSES, LetterRow, OPEN, PARKED, STATES};

/// Filters; each narrows the choice, and one that is given several times takes any of its values.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Filters")]
pub(super) struct FilterArgs {
    /// Of this group
    #[arg(long)]
    pub(super) group: Option<String>,
    /// Of this handler; * for records that could not be decoded
    #[arg(long = "handler", value_name = "HANDLER")]
    pub(super) handlers: Vec<String>,
    /// Of this class
    #[arg(long = "class", value_name = "CLASS", value_parser = CLASSES)]
    pub(super) classes: Vec<String>,
    /// Of this table
    #[arg(long = "table", value_name = "SCHEMA.TABLE", value_parser = table)]
    pub(super) tables: Vec<String>,
    /// Of the row with this primary key: id=7, several columns tenant=3,id=7, or only 7 where the key has one column
    #[arg(long, value_name = "KEY", value_parser = |text: &str| KeyTerms::parse(text))]
    pub(super) key: Option<KeyTerms>,
    /// That failed at this time or later: 2026-11-25T10:00:00Z, 2026-11-25 (UTC), or an age such as 2h
    #[arg(long, value_name = "TIME", value_parser = |text: &str| moment(text, Utc::now()))]
    pub(super) since: Option<DateTime<Utc>>,
    /// That failed before this time
    #[arg(long, value_name = "TIME", value_parser = |text: &str| moment(text, Utc::now()))]
    pub(super) until: Option<DateTime<Utc>>,
    /// In this state
    #[arg(long = "state", value_name = "STATE", value_parser = STATES)]
    pub(super) states: Vec<String>,
}

impl FilterArgs {
    pub(super) fn filter(&self, config: &Config) -> Filter {
        Filter {
            group: self.group.as_ref().map(|group| config.group_name(group)),
            handlers: self.handlers.clone(),
            classes: self.classes.clone(),
            tables: self.tables.clone(),
            key: self.key.clone(),
            since: self.since,
            until: self.until,
            states: self.states.clone(),
        }
    }
}

/// Letters by their ids, or those that filters choose.
#[derive(Debug, Clone, Args)]
pub(super) struct Letters {
    /// Ids of letters, or beginnings of them
    #[arg(conflicts_with_all = ["all", "group", "handlers", "classes", "tables", "key", "since", "until", "states"])]
    pub(super) letters: Vec<String>,
    /// All open letters of a group
    #[arg(long, requires = "group")]
    pub(super) all: bool,
    #[command(flatten)]
    pub(super) filter: FilterArgs,
}

/// The states of letters that can be replayed and discarded. Parked ones are released by themselves, so they have to be named.
const ACTED_ON: [&str; 2] = [OPEN, PARKED];

/// What was chosen for a command that acts on open letters.
#[derive(Debug)]
pub(super) enum Chosen {
    /// These letters, each once.
    Letters(Vec<LetterRow>),
    /// Whatever fits and is open, or parked where that was said.
    Filter(Filter),
}

#[derive(Debug, thiserror::Error)]
enum ChooseFailed {
    #[error("say which letters: ids, filters, or --all --group GROUP; `afterwrite dlq list` shows those there are")]
    Nothing,
    #[error("only open and parked letters can be {done}, so --state {state} would choose none")]
    State { done: &'static str, state: String },
}

impl Letters {
    pub(super) fn is_empty(&self, config: &Config) -> bool {
        self.letters.is_empty() && !self.all && self.filter.filter(config).is_empty()
    }

    /// The letters that a command acts on which are to be open; `done` says what it does to them.
    pub(super) async fn open(&self, config: &Config, pool: &PgPool, done: &'static str) -> Result<Chosen, Failure> {
        if self.is_empty(config) {
            return Err(Failure::usage(ChooseFailed::Nothing));
        }
        if let Some(state) = self
            .filter
            .states
            .iter()
            .find(|state| !ACTED_ON.contains(&state.as_str()))
        {
            return Err(Failure::usage(ChooseFailed::State {
                done,
                state: state.clone(),
            }));
        }
        if self.letters.is_empty() {
            let mut filter = self.filter.filter(config);
            if filter.states.is_empty() {
                filter.states = vec![OPEN.to_owned()];
            }
            return Ok(Chosen::Filter(filter));
        }
        let mut letters: Vec<LetterRow> = Vec::with_capacity(self.letters.len());
        for beginning in &self.letters {
            let letter = find(pool, beginning).await?;
            if !letters.iter().any(|known| known.letter_id == letter.letter_id) {
                letters.push(letter);
            }
        }
        Ok(Chosen::Letters(letters))
    }
}

pub(super) fn table(text: &str) -> Result<String, &'static str> {
    match text.split_once('.') {
        Some((schema, table)) if !schema.is_empty() && !table.is_empty() => Ok(text.to_owned()),
        _ => Err("write it schema.table"),
    }
}

fn moment(text: &str, now: DateTime<Utc>) -> Result<DateTime<Utc>, &'static str> {
    const EXPECTED: &str = "write 2026-11-25T10:00:00Z, 2026-11-25 (midnight UTC), or an age such as 2h or 3d";
    if let Ok(moment) = DateTime::parse_from_rfc3339(text) {
        return Ok(moment.to_utc());
    }
    if let Ok(day) = NaiveDate::parse_from_str(text, "%Y-%m-%d") {
        return Ok(day.and_time(NaiveTime::MIN).and_utc());
    }
    // A bare number is an interval in settings, and too easily meant as something else here.
    let age = Interval::parse(text).filter(|_| text.ends_with(|last: char| last.is_ascii_alphabetic()));
    age.and_then(|age| now.checked_sub_signed(chrono::TimeDelta::from_std(age.0).ok()?))
        .ok_or(EXPECTED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_people_write_them() {
        let now: DateTime<Utc> = "2026-11-25T12:00:00Z".parse().unwrap();
        for (text, expected) in [
            ("2026-11-25T10:00:00+02:00", Some("2026-11-25T08:00:00Z")),
            ("2026-11-24", Some("2026-11-24T00:00:00Z")),
            ("2h", Some("2026-11-25T10:00:00Z")),
            ("1d12h", Some("2026-11-24T00:00:00Z")),
            ("7", None),
            ("", None),
            ("yesterday", None),
            ("2026-13-01", None),
            ("99999999999d", None),
        ] {
            let expected: Option<DateTime<Utc>> = expected.map(|text| text.parse().unwrap());
            assert_eq!(moment(text, now).ok(), expected, "{text}");
        }
    }

    #[test]
    fn a_table_is_written_with_its_schema() {
        assert!(table("public.users").is_ok());
        for text in ["users", ".users", "public.", ""] {
            assert!(table(text).is_err(), "{text}");
        }
    }
}
