//! `afterwrite dlq tail`: dead letters as they are written.

use std::time::Duration;

use clap::Args;
use serde_json::json;

use crate::app;
use crate::cli::output::Output;
use crate::cli::{Failure, stop_signal};
use crate::config::Config;
use crate::dead_letter::headers;
use crate::dead_letter::reader::{Reader, Stored};
use crate::dead_letter::topic;

#[derive(Debug, Args)]
pub(super) struct TailArgs {
    /// The group whose dead letters to follow
    #[arg(long)]
    group: String,
    /// Begin with the oldest letter that is kept, not with the next one
    #[arg(long)]
    from_beginning: bool,
    /// End after this many letters
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
}

pub(super) async fn run(args: &TailArgs, config: &Config, output: Output) -> Result<(), Failure> {
    let options = app::dead_letter_topics(config);
    let name = topic::name(&config.group_name(&args.group));
    let (letters, mut following) = tokio::sync::mpsc::channel(64);
    let from_beginning = args.from_beginning;
    let topic = name.clone();
    let reading = tokio::task::spawn_blocking(move || {
        let reader = Reader::new(&options, &topic)?;
        reader.follow(from_beginning)?;
        while !letters.is_closed() {
            if let Some(stored) = reader.next(Duration::from_millis(200))?
                && letters.blocking_send(stored).is_err()
            {
                break;
            }
        }
        Ok(())
    });
    if output == Output::Table {
        eprintln!("following {name}; Ctrl-C ends");
    }
    let mut left = args.limit.unwrap_or(u64::MAX);
    while left > 0 {
        tokio::select! {
            stored = following.recv() => match stored {
                Some(stored) => {
                    print(&stored, output);
                    left -= 1;
                }
                None => break,
            },
            stopped = stop_signal() => {
                stopped?;
                break;
            }
        }
    }
    drop(following);
    reading
        .await
        .map_err(Failure::failed)?
        .map_err(|error: crate::dead_letter::reader::Error| Failure::unreachable(error))
}

/// Prints one letter in one line; JSON carries the header names without their prefix.
fn print(stored: &Stored, output: Output) {
    let header = |name: &str| headers::text(&stored.record.headers, name).unwrap_or("-").to_owned();
    let ours = |name: &str| header(&format!("{}{name}", headers::PREFIX));
    let source = |name: &str| header(&format!("{}{name}", headers::CONNECT_PREFIX));
    match output {
        Output::Table => println!(
            "{}  {:<12}  {:<9}  {}  {:<24}  {}[{}] offset {}  {}",
            ours("failed_at"),
            ours("class"),
            ours("handler"),
            &ours("letter_id").chars().take(12).collect::<String>(),
            ours("table"),
            source("topic"),
            source("partition"),
            source("offset"),
            ours("error")
        ),
        Output::Json => println!(
            "{}",
            json!({
                "letter_id": ours("letter_id"), "handler": ours("handler"), "event_id": ours("event_id"),
                "table": ours("table"), "class": ours("class"), "error": ours("error"), "attempts": ours("attempts"),
                "first_failed_at": ours("first_failed_at"), "failed_at": ours("failed_at"), "replays": ours("replays"),
                "topic": source("topic"), "partition": source("partition"), "offset": source("offset"),
            })
        ),
    }
}
