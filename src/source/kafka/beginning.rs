//! The first start of a group: where it begins is written down before it subscribes.
//!
//! With `latest` these are the ends of all partitions that there are at that moment. A start that is interrupted after it,
//! or made by two processes at once, and topics that are made between it and the first assignment, change nothing about
//! where the group begins.

use std::time::Duration;

use rdkafka::Offset;
use rdkafka::consumer::Consumer;
use rdkafka::error::KafkaResult;
use tokio::runtime::Handle;

use crate::clients::kafka::{QUESTION_TIMEOUT, offsets_at};
use crate::ledger::beginnings::Beginning;
use crate::source::kafka::client::Client;
use crate::source::kafka::{Kept, Options, Start};

/// Longest wait for Postgres before it is asked anew, so that a stop is heard.
const DATABASE_WITHIN: Duration = Duration::from_secs(5);

/// Where the group begins. Blocks for at most a few questions to the broker and the database.
///
/// # Errors
/// What did not answer, and what it said.
pub(super) fn ask(options: &Options, kept: &Kept, client: &Client, runtime: &Handle) -> Result<Beginning, String> {
    let postgres = |error: &dyn std::fmt::Display| format!("postgres: {error}");
    let known = within(runtime, async {
        match kept.beginnings.known().await? {
            Some(known) => Ok(Some(known)),
            // Started by a version that wrote no beginnings down.
            None if kept.claims.group_started().await? => Ok(Some(kept.beginnings.write(Beginning::earliest()).await?)),
            None => Ok(None),
        }
    });
    if let Some(known) = known.map_err(|error| postgres(&error))? {
        return Ok(known);
    }
    let beginning = match options.start {
        Start::Earliest => Beginning::earliest(),
        Start::Latest => ends(client, &options.topics).map_err(|error| format!("the broker: {error}"))?,
    };
    let written = within(runtime, async { kept.beginnings.write(beginning).await });
    written.map_err(|error| postgres(&error))
}

fn within<T>(runtime: &Handle, asked: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, String> {
    let answer = runtime.block_on(async { tokio::time::timeout(DATABASE_WITHIN, asked).await });
    match answer {
        Ok(answer) => answer.map_err(|error| error.to_string()),
        Err(_) => Err("it did not answer".to_owned()),
    }
}

/// The ends of the partitions that are subscribed.
fn ends(client: &Client, subscribed: &[String]) -> KafkaResult<Beginning> {
    let metadata = client.fetch_metadata(None, QUESTION_TIMEOUT)?;
    let topics = metadata.topics().iter();
    let wanted: Vec<(&str, i32)> = topics
        .filter(|topic| is_subscribed(subscribed, topic.name()))
        .flat_map(|topic| {
            topic
                .partitions()
                .iter()
                .map(|partition| (topic.name(), partition.id()))
        })
        .collect();
    let found = offsets_at(client, &wanted, Offset::End, QUESTION_TIMEOUT)?;
    Ok(Beginning::at(found))
}

/// Whether a topic is one of the names, or matches one of the patterns.
pub fn is_subscribed(subscribed: &[String], topic: &str) -> bool {
    subscribed.iter().any(|name| match name.starts_with('^') {
        // What is no pattern was refused with the configuration.
        true => regex_lite::Regex::new(name).is_ok_and(|pattern| pattern.is_match(topic)),
        false => name == topic,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_are_subscribed_by_their_whole_name() {
        let subscribed = ["a.b".to_owned(), r"^t_[0-9]+\.users$".to_owned()];
        for (topic, expected) in [
            ("a.b", true),
            ("a.b.c", false),
            ("axb", false),
            ("t_1.users", true),
            ("t_1.users.dlq", false),
            ("t_1xusers", false),
        ] {
            assert_eq!(is_subscribed(&subscribed, topic), expected, "{topic}");
        }
    }
}
