//! A right that the brokers do not give: which one, on what, and the command that gives it.

use crate::clients::kafka::{KEEPS_LETTERS, READS_TOPIC, RUNS_GROUP, Resource, allow};

/// Who the brokers take the worker for is theirs to know: a user, or the subject of a certificate.
pub(crate) const PRINCIPAL: &str = "User:…";

/// Something that the brokers do not let us do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("kafka does not let us {what}: {needs}")]
pub struct Denied {
    what: String,
    needs: String,
}

impl Denied {
    /// Reading a topic.
    pub(crate) fn reading(topic: &str) -> Self {
        let resource = Resource::Topic(topic.to_owned(), false);
        Self::of(format!("read topic {topic}"), READS_TOPIC, &resource)
    }

    /// Reading one of these topics; which, it did not say.
    pub(crate) fn reading_one_of(topics: &[String]) -> Self {
        match topics {
            [only] if !only.starts_with('^') => Self::reading(only),
            topics => Self {
                what: format!("read one of {}", topics.join(", ")),
                needs: "`afterwrite doctor` names it, and prints the command that allows it".to_owned(),
            },
        }
    }

    /// Being a member of a group, and committing.
    pub(crate) fn running(group: &str) -> Self {
        let resource = Resource::Group(group.to_owned());
        Self::of(format!("join or commit for group {group}"), RUNS_GROUP, &resource)
    }

    /// Making a topic of dead letters, and writing and reading it.
    pub(crate) fn keeping_letters(topic: &str) -> Self {
        let resource = Resource::Topic(topic.to_owned(), false);
        Self::of(
            format!("make, write or read topic {topic}, where dead letters go"),
            KEEPS_LETTERS,
            &resource,
        )
    }

    fn of(what: String, operations: &[&str], resource: &Resource) -> Self {
        Self {
            what,
            needs: format!(
                "it needs {}; as a superuser of Kafka, with the worker's principal: {}",
                operations.join(", "),
                allow(PRINCIPAL, operations, resource)
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_right_is_told_with_the_place_where_it_is_missing_and_the_command_that_gives_it() {
        for (denied, begins, ends) in [
            (
                Denied::reading("a.b"),
                "kafka does not let us read topic a.b: it needs Read, DescribeConfigs; ",
                "--operation Read --operation DescribeConfigs --topic 'a.b'",
            ),
            (
                Denied::running("g"),
                "kafka does not let us join or commit for group g: it needs Read; ",
                "--operation Read --group 'g'",
            ),
            (
                Denied::keeping_letters("g.dlq"),
                "kafka does not let us make, write or read topic g.dlq",
                "--operation Create --operation DescribeConfigs --topic 'g.dlq'",
            ),
            (
                Denied::reading_one_of(&["a".to_owned()]),
                "kafka does not let us read topic a:",
                "'a'",
            ),
            (
                Denied::reading_one_of(&["a".to_owned(), "^b.*".to_owned()]),
                "kafka does not let us read one of a, ^b.*: `afterwrite doctor`",
                "allows it",
            ),
        ] {
            let said = denied.to_string();
            assert!(said.starts_with(begins) && said.ends_with(ends), "{said}");
        }
    }
}
