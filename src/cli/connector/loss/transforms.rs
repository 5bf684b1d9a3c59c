//! Transforms that bring changes elsewhere, or nowhere.

use std::collections::{BTreeMap, BTreeSet};

use super::tables::known;
use super::{Loss, Published, WHEN_CAUGHT_UP, value};
use crate::clients::connect::ConnectorConfig;
use crate::doctor::routing::{applies, transforms};

/// What a transform does to records, by the end of its class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Effect {
    /// They go to other topics.
    Moves,
    /// Some are left out.
    Drops,
    /// Rows come without their envelope.
    Unwraps,
    /// They go to other partitions.
    Spreads,
    /// Only headers and fields that nobody reads here.
    Decorates,
}

fn effect(class: &str) -> Effect {
    let name = class.split('$').next().unwrap_or_default();
    let name = name.rsplit('.').next().unwrap_or_default();
    match name {
        "PartitionRouting" => Effect::Spreads,
        "Filter" => Effect::Drops,
        "ExtractNewRecordState" | "ExtractField" | "HoistField" | "Flatten" | "ExtractChangedRecordState" => {
            Effect::Unwraps
        }
        name if name.contains("Rout") || name.starts_with("ExtractTopic") => Effect::Moves,
        _ => Effect::Decorates,
    }
}

pub(super) fn losses(before: &ConnectorConfig, after: &ConnectorConfig, published: &Published) -> Vec<Loss> {
    let names: BTreeSet<&str> = transforms(before).into_iter().chain(transforms(after)).collect();
    names
        .iter()
        .filter_map(|name| {
            let (old, new) = (settings(before, name), settings(after, name));
            if old == new {
                return None;
            }
            let class = |settings: &Option<BTreeMap<String, String>>| {
                let settings = settings.as_ref()?;
                Some(effect(settings.get(&format!("transforms.{name}.type"))?))
            };
            let effects = [class(&old), class(&new)];
            let (what, instead) = judge(&effects, before, after, published)?;
            Some(Loss::new(&format!("transforms.{name}"), what, instead))
        })
        .collect()
}

/// What is lost by another, a further or a missing transform.
fn judge(
    effects: &[Option<Effect>; 2],
    before: &ConnectorConfig,
    after: &ConnectorConfig,
    published: &Published,
) -> Option<(&'static str, &'static str)> {
    let [_, new] = effects;
    let any = |effect| effects.contains(&Some(effect));
    match () {
        () if any(Effect::Moves) => Some((
            "changes go to other topics than before, and groups go on reading those of before",
            "name the new topics in kafka.topics first, and keep the old ones until they are read to their ends",
        )),
        () if *new == Some(Effect::Drops) => Some((
            "records that do not pass the filter are left out, and nothing says so",
            "let handlers pass over what they do not want",
        )),
        () if *new == Some(Effect::Unwraps) => Some((
            "rows come without their envelope and have no identity: every record becomes a dead letter",
            "take it away",
        )),
        () if any(Effect::Spreads) && spreads_otherwise(before, after, published) => Some((
            "changes of one key go to another partition than those before them, which wait there and may be overtaken",
            WHEN_CAUGHT_UP,
        )),
        () => None,
    }
}

/// Whether some table's changes are spread over partitions otherwise than before. A table that is new has none before.
fn spreads_otherwise(before: &ConnectorConfig, after: &ConnectorConfig, published: &Published) -> bool {
    let tables = known(before, published);
    let is_unknown =
        published.before.is_none() && value(before, "table.include.list", "").contains(['*', '|', '(', '[', '$']);
    tables.is_empty() || is_unknown || tables.iter().any(|table| spread(before, table) != spread(after, table))
}

/// How a table's changes are spread: the settings of the transforms that do it, without those of their predicates.
fn spread(config: &ConnectorConfig, table: &str) -> Vec<BTreeMap<String, String>> {
    let topic = format!("{}.{table}", value(config, "topic.prefix", ""));
    transforms(config)
        .into_iter()
        .filter(|name| effect(value(config, &format!("transforms.{name}.type"), "")) == Effect::Spreads)
        .filter(|name| applies(config, name, &topic))
        .map(|name| {
            let of_predicate = [
                format!("transforms.{name}.predicate"),
                format!("transforms.{name}.negate"),
            ];
            let mut settings = under(config, &format!("transforms.{name}."));
            settings.retain(|key, _| !of_predicate.contains(key));
            settings
        })
        .collect()
}

pub(super) fn moves_topics(config: &ConnectorConfig) -> bool {
    transforms(config)
        .iter()
        .any(|name| effect(value(config, &format!("transforms.{name}.type"), "")) == Effect::Moves)
}

/// The settings of a transform with those of its predicate; none where it is not in the list.
fn settings(config: &ConnectorConfig, name: &str) -> Option<BTreeMap<String, String>> {
    if !transforms(config).contains(&name) {
        return None;
    }
    let mut settings = under(config, &format!("transforms.{name}."));
    let predicate = value(config, &format!("transforms.{name}.predicate"), "");
    if !predicate.is_empty() {
        settings.extend(under(config, &format!("predicates.{predicate}.")));
    }
    Some(settings)
}

fn under(config: &ConnectorConfig, beginning: &str) -> BTreeMap<String, String> {
    let under = config.iter().filter(|(key, _)| key.starts_with(beginning));
    under.map(|(key, value)| (key.clone(), value.clone())).collect()
}
