//! Tables that are captured before an update and not after it.

use std::collections::BTreeSet;

use super::{Loss, PUBLICATION, Published, SLOT, value};
use crate::clients::connect::ConnectorConfig;
use crate::doctor::lints::captures;

/// The settings that choose tables, the most usual first.
const LISTS: [&str; 4] = [
    "table.include.list",
    "table.exclude.list",
    "schema.include.list",
    "schema.exclude.list",
];

pub(super) fn losses(before: &ConnectorConfig, after: &ConnectorConfig, published: &Published) -> Vec<Loss> {
    of_lists(before, after, published)
        .into_iter()
        .chain(of_publication(before, after, published))
        .collect()
}

fn of_lists(before: &ConnectorConfig, after: &ConnectorConfig, published: &Published) -> Option<Loss> {
    let changed = LISTS.into_iter().find(|key| before.get(*key) != after.get(*key))?;
    let lost = lost(before, after, published);
    (!lost.is_empty()).then(|| {
        Loss::new(
            changed,
            format!("changes of {} are captured by nobody from then on", lost.join(", ")),
            "accept it where no handler and nobody else waits for them",
        )
    })
}

/// The tables that lists let through before and not after, and what could not be compared.
fn lost(before: &ConnectorConfig, after: &ConnectorConfig, published: &Published) -> Vec<String> {
    let included = value(before, "table.include.list", "");
    let new = value(after, "table.include.list", "");
    let known = known(before, published);
    let mut lost: Vec<String> = known
        .iter()
        .filter(|table| captures(before, table) && !captures(after, table))
        .cloned()
        .collect();
    let is_unread = |key: &&str| after.get(*key).is_some_and(|list| list.contains("${"));
    if let Some(list) = LISTS
        .iter()
        .find(|key| before.get(**key) != after.get(**key) && is_unread(key))
    {
        lost.push(format!("tables that only Kafka Connect knows ({list} is a reference)"));
    }
    if published.before.is_some() {
        return lost;
    }
    if included.is_empty() || included.contains("${") {
        lost.push("tables that could not be compared, because postgres could not be asked".to_owned());
        return lost;
    }
    let kept: BTreeSet<&str> = new.split(',').map(str::trim).collect();
    let gone = included
        .split(',')
        .map(str::trim)
        .filter(|pattern| !kept.contains(pattern));
    let unknown = gone.filter(|pattern| plain(pattern).is_none());
    lost.extend(unknown.map(|pattern| format!("tables like {pattern}")));
    lost
}

/// The tables that a connector captured, as far as they are known by name.
pub(super) fn known(before: &ConnectorConfig, published: &Published) -> BTreeSet<String> {
    let listed = value(before, "table.include.list", "").split(',').filter_map(plain);
    let of_postgres = published.before.iter().flatten().cloned();
    let captured = of_postgres.filter(|table| captures(before, table));
    // A table that is listed and not published sends nothing.
    match published.before {
        Some(_) => captured.collect(),
        None => listed.collect(),
    }
}

/// The table that a pattern stands for, where it stands for one.
fn plain(pattern: &str) -> Option<String> {
    let name = pattern.trim().replace("\\.", ".");
    let is_plain = !name.is_empty()
        && name
            .chars()
            .all(|letter| letter.is_alphanumeric() || matches!(letter, '_' | '-' | '.' | ' '));
    is_plain.then_some(name)
}

fn of_publication(before: &ConnectorConfig, after: &ConnectorConfig, published: &Published) -> Option<Loss> {
    let key = "publication.name";
    let (old, new) = (value(before, key, PUBLICATION), value(after, key, PUBLICATION));
    if old == new {
        return None;
    }
    let compare = "compare SELECT * FROM pg_publication_tables, and accept it when nothing is missing";
    let (Some(had), Some(has)) = (&published.before, &published.after) else {
        return Some(Loss::new(
            key,
            format!("whether publication {new} has every table of {old} could not be asked of postgres"),
            compare,
        ));
    };
    let lost: Vec<&str> = had
        .difference(has)
        .filter(|table| captures(before, table))
        .map(String::as_str)
        .collect();
    if !lost.is_empty() {
        return Some(Loss::new(
            key,
            format!(
                "publication {new} has no {}: their changes are captured by nobody from then on",
                lost.join(", ")
            ),
            format!("ALTER PUBLICATION {new} ADD TABLE … for each that is wanted"),
        ));
    }
    published.is_younger.then(|| {
        Loss::new(
            key,
            format!(
                "publication {new} was made after log that slot {} still holds: Postgres cannot decode that log by it, and the \
                 connector never gets past it",
                value(before, "slot.name", SLOT)
            ),
            "wait until the connector has read what was written before the publication was made, and plan again",
        )
    })
}
