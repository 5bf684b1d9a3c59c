//! `afterwrite dlq show`: everything about one letter.

use clap::Args;
use serde::Serialize;
use serde_json::Value;

use crate::app;
use crate::cli::dlq::{find, unreadable};
use crate::cli::output::{self, Output};
use crate::cli::{Failure, database};
use crate::config::Config;
use crate::dead_letter::reader;
use crate::dead_letter::state::LetterRow;
use crate::decode::canonical::Canonical;
use crate::decode::registry::Registry;
use crate::decode::{Decoder, resolve};
use crate::event::delivery::{Content, RawRecord};

#[derive(Debug, Args)]
pub(super) struct ShowArgs {
    /// The letter's id, or the beginning of it
    letter: String,
}

#[derive(Debug, Serialize)]
struct Shown {
    #[serde(flatten)]
    letter: LetterRow,
    key: Option<String>,
    value_bytes: Option<usize>,
    headers: Vec<(String, Option<String>)>,
    /// The event as every encoding prints it; absent when the bytes cannot be decoded.
    event: Option<Value>,
    undecodable: Option<String>,
}

pub(super) async fn run(args: &ShowArgs, config: &Config, output: Output) -> Result<(), Failure> {
    let pool = database::connect(config).await?;
    let letter = find(&pool, &args.letter).await?;
    let options = app::options::dead_letter_topics(config);
    let record = reader::read(options, letter.stored()).await.map_err(unreadable)?;
    let shown = shown(config, letter, record).await?;
    output.print(&shown, in_words)
}

async fn shown(config: &Config, letter: LetterRow, record: RawRecord) -> Result<Shown, Failure> {
    let decoder = Decoder::new(app::options::decode_options(config));
    let registry = Registry::new(&app::options::registry_settings(config)).map_err(Failure::usage)?;
    let content = resolve::content(&decoder, Some(&registry), &letter.source_topic, &record).await;
    let (event, undecodable) = match content {
        Content::Change(event) => (
            Some(serde_json::to_value(Canonical(&event)).map_err(Failure::failed)?),
            None,
        ),
        Content::Skip(reason) => (None, Some(format!("now skipped as {}", reason.as_str()))),
        Content::Undecodable(reason) => (None, Some(reason)),
    };
    let text = |bytes: &bytes::Bytes| String::from_utf8_lossy(bytes).into_owned();
    Ok(Shown {
        key: record.key.as_ref().map(text),
        value_bytes: record.value.as_ref().map(bytes::Bytes::len),
        headers: record
            .headers
            .iter()
            .map(|(name, value)| (name.clone(), value.as_ref().map(text)))
            .collect(),
        letter,
        event,
        undecodable,
    })
}

fn in_words(shown: &Shown) -> String {
    let letter = &shown.letter;
    let size = shown
        .value_bytes
        .map_or_else(|| "null".to_owned(), |bytes| format!("{bytes} bytes"));
    let rows = [
        ("letter", letter.letter_id.clone()),
        ("state", letter.state.clone()),
        ("group", letter.group_name.clone()),
        ("handler", letter.handler.clone()),
        ("class", letter.class.clone()),
        ("error", letter.error.clone()),
        ("attempts", letter.attempts.to_string()),
        ("replays", letter.replays.to_string()),
        ("first failed", letter.first_failed_at.to_rfc3339()),
        ("failed", letter.failed_at.to_rfc3339()),
        ("table", letter.table_name.clone().unwrap_or_else(|| "-".to_owned())),
        ("source", letter.source().to_string()),
        ("stored", letter.stored().to_string()),
        ("key", shown.key.clone().unwrap_or_else(|| "null".to_owned())),
        ("value", size),
    ];
    let table = output::table(["", ""], rows.map(|(name, value)| [name.to_owned(), value]));
    let event = match (&shown.event, &shown.undecodable) {
        (Some(event), _) => format!("{event:#}"),
        (None, reason) => format!("not decodable: {}", reason.as_deref().unwrap_or("no reason")),
    };
    format!("{}\n\nevent\n{event}", table.trim_start_matches([' ', '\n']))
}
