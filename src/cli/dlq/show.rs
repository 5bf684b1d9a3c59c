//! `afterwrite dlq show`: everything about one letter; what its row holds only when that is asked for.

use clap::Args;
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::app;
use crate::cli::dlq::{LookFailed, find, unreadable};
use crate::cli::output::{self, Output};
use crate::cli::{Failure, database};
use crate::config::Config;
use crate::dead_letter::state::{self, Changed, LetterRow};
use crate::dead_letter::{headers, kept};
use crate::decode::canonical::Canonical;
use crate::decode::{Decoder, resolve};
use crate::event::delivery::{Content, RawRecord};

/// Members of an event that hold a row or a part of one.
const ROWS: [&str; 6] = ["key", "before", "after", "before_as_sent", "moved_from", "moved_to"];

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  afterwrite dlq show 3f2a…
  afterwrite dlq show 3f2a… --values                    with what the row holds
  afterwrite dlq show 3f2a… --values --output json | jq .event.after

Without --values only the names of columns and headers are shown: a row may hold what not everybody may see.")]
pub(super) struct ShowArgs {
    /// The letter's id, or the beginning of it
    letter: String,
    /// Show also what the key, the row and the headers hold
    #[arg(long)]
    values: bool,
}

#[derive(Debug, Serialize)]
struct Shown {
    #[serde(flatten)]
    letter: LetterRow,
    /// Where the bytes are kept.
    stored: String,
    /// With --values only.
    key: Option<String>,
    value_bytes: Option<usize>,
    /// Without --values only our own have a value.
    headers: Vec<(String, Option<String>)>,
    /// The event as every encoding prints it; absent when the bytes cannot be decoded. Without --values the names of columns
    /// stand for rows.
    event: Option<Value>,
    undecodable: Option<String>,
    history: Vec<Changed>,
}

pub(super) async fn run(args: &ShowArgs, config: &Config, output: Output) -> Result<(), Failure> {
    let pool = database::connect(config).await?;
    let letter = find(&pool, &args.letter).await?;
    let history = state::history(&pool, &letter.letter_id)
        .await
        .map_err(LookFailed)
        .map_err(Failure::failed)?;
    let topics = app::options::letter_topics(config);
    let record = kept::read(topics, &pool, &letter).await.map_err(unreadable)?;
    let mut shown = shown(config, letter, record, history).await?;
    if !args.values {
        hide_values(&mut shown);
    }
    output.print(&shown, in_words)
}

async fn shown(config: &Config, letter: LetterRow, record: RawRecord, history: Vec<Changed>) -> Result<Shown, Failure> {
    let decoder = Decoder::new(app::options::decode_options(config));
    let registry = app::options::registry(config).map_err(Failure::usage)?;
    let content = resolve::content(&decoder, registry.as_ref(), &letter.source_topic, &record).await;
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
        stored: letter.stored_in_words(),
        letter,
        event,
        undecodable,
        history,
    })
}

fn hide_values(shown: &mut Shown) {
    shown.key = None;
    for (name, value) in &mut shown.headers {
        if !headers::is_ours(name) {
            *value = None;
        }
    }
    if let Some(Value::Object(event)) = &mut shown.event {
        for row in ROWS {
            if let Some(Value::Object(columns)) = event.get_mut(row).map(Value::take) {
                event.insert(row.to_owned(), names(&columns));
            }
        }
        // The content of a logical message is whatever its application wrote.
        event.remove("message");
    }
}

fn names(columns: &Map<String, Value>) -> Value {
    json!(columns.keys().collect::<Vec<_>>())
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
        ("stored", shown.stored.clone()),
        ("value", size),
    ];
    let key = shown.key.clone().map(|key| ("key", key));
    let rows = rows.into_iter().chain(key);
    let table = output::table(["", ""], rows.map(|(name, value)| [name.to_owned(), value]));
    let event = match (&shown.event, &shown.undecodable) {
        (Some(event), _) => format!("{event:#}"),
        (None, reason) => format!("not decodable: {}", reason.as_deref().unwrap_or("no reason")),
    };
    let history = shown.history.iter().map(|changed| {
        [
            changed.changed_at.format("%Y-%m-%d %H:%M:%S").to_string(),
            changed.to_state.clone(),
            changed.changed_by.clone(),
            changed.reason.clone().unwrap_or_default(),
        ]
    });
    let history = output::table(["history", "state", "by", "reason"], history);
    format!(
        "{}\n\n{history}\n\nevent\n{event}",
        table.trim_start_matches([' ', '\n'])
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_values_nothing_of_the_row_is_shown() {
        let at = "2026-11-25T10:00:00Z";
        let letter: LetterRow = serde_json::from_value(json!({
            "letter_id": "3f2a", "group": "g", "handler": "h", "event_id": null, "table": "public.t",
            "class": "permanent", "error": "e", "attempts": 1, "first_failed_at": at, "failed_at": at, "replays": 0,
            "topic": "t", "partition": 0, "offset": 1, "state": "open"}))
        .unwrap();
        let header = |name: &str, value: &str| (name.to_owned(), Some(value.to_owned()));
        let mut shown = Shown {
            letter,
            stored: "g.dlq[0] offset 0".to_owned(),
            key: Some("secret".to_owned()),
            value_bytes: Some(6),
            headers: vec![header("trace", "secret"), header("afterwrite.class", "permanent")],
            event: Some(json!({
                "id": "00", "op": "update", "key": {"id": "secret"}, "before": null, "after": {"id": "secret", "name": null},
                "before_as_sent": {"id": "secret"}, "moved_from": {"id": "secret"}, "unavailable": ["note"],
                "message": {"prefix": "secret", "content": "secret"}})),
            undecodable: None,
            history: Vec::new(),
        };
        hide_values(&mut shown);
        for text in [serde_json::to_string(&shown).unwrap(), in_words(&shown)] {
            assert!(
                !text.contains("secret") && text.contains("name") && text.contains("note"),
                "{text}"
            );
        }
        assert_eq!(shown.event.unwrap()["after"], json!(["id", "name"]));
        assert_eq!(shown.headers[1], header("afterwrite.class", "permanent"));
    }
}
