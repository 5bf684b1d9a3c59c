//! Which topics and partitions a connector's transforms choose themselves.

use super::connector::is_reference;
use super::lints::patterns;
use crate::clients::connect::ConnectorConfig;

/// The names of a connector's transforms, in their order.
pub(crate) fn transforms(config: &ConnectorConfig) -> Vec<&str> {
    let names = config
        .get("transforms")
        .map_or("", String::as_str)
        .split(',')
        .map(str::trim);
    names.filter(|name| !name.is_empty()).collect()
}

/// Whether a transform is applied to the records of a topic.
pub(crate) fn applies(config: &ConnectorConfig, transform: &str, topic: &str) -> bool {
    let get = |key: String| config.get(&key).map(String::as_str);
    let predicate = get(format!("transforms.{transform}.predicate"));
    let pattern = predicate.and_then(|predicate| get(format!("predicates.{predicate}.pattern")));
    let Some(pattern) = pattern.filter(|pattern| !is_reference(pattern)) else {
        return true;
    };
    let is_negated = get(format!("transforms.{transform}.negate")) == Some("true");
    patterns(pattern).iter().any(|pattern| pattern.is_match(topic)) != is_negated
}

/// Over how many partitions a topic's records are spread by the connector; none where the producer chooses by their keys.
pub(crate) fn routed_partitions(config: &ConnectorConfig, topic: &str) -> Option<i32> {
    let get = |key: String| config.get(&key).filter(|value| !is_reference(value));
    let routing = transforms(config).into_iter().filter(|transform| {
        get(format!("transforms.{transform}.type")).is_some_and(|class| class.ends_with("PartitionRouting"))
    });
    routing
        .filter(|transform| applies(config, transform, topic))
        .filter_map(|transform| get(format!("transforms.{transform}.partition.topic.num"))?.parse().ok())
        .max()
}

/// The topic that records of this one end up in; none where a transform decides that of which only Connect knows how.
pub(crate) fn routed_topic(config: &ConnectorConfig, topic: &str) -> Option<String> {
    let mut topic = topic.to_owned();
    for transform in transforms(config) {
        let get = |key: &str| config.get(&format!("transforms.{transform}.{key}")).map(String::as_str);
        let class = get("type").unwrap_or_default();
        if is_reference(class) {
            return None;
        }
        if !class.ends_with("Router") || !applies(config, transform, &topic) {
            continue;
        }
        if !class.ends_with(".RegexRouter") {
            return None;
        }
        let (regex, replacement) = (get("regex")?, get("replacement")?);
        if is_reference(regex) || is_reference(replacement) {
            return None;
        }
        // As Java reads it: a pattern of the whole name, and $1 for its first part, also where a letter follows.
        let whole = regex_lite::Regex::new(&format!("^(?:{regex})$")).ok()?;
        let parts = regex_lite::Regex::new(r"\$(\d)").ok()?;
        let replacement = parts.replace_all(replacement, "$${$1}");
        topic = whole.replace(&topic, &*replacement).into_owned();
    }
    Some(topic)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_of_the_predicate_are_routed_and_no_others() {
        let config: ConnectorConfig = serde_json::from_str(include_str!("../../connectors/waitlist.json")).unwrap();
        for (topic, partitions) in [
            ("waitlist.public.referrals", Some(8)),
            ("waitlist.public.campaigns", None),
            ("other.public.referrals", None),
        ] {
            assert_eq!(routed_partitions(&config, topic), partitions, "{topic}");
        }
        let mut negated = config.clone();
        negated.insert("transforms.route.negate".to_owned(), "true".to_owned());
        assert_eq!(routed_partitions(&negated, "waitlist.public.campaigns"), Some(8));
        assert_eq!(routed_partitions(&negated, "waitlist.public.referrals"), None);
    }
}
