//! `afterwrite run --shadow`: what the worker would do, one line for each decision.

use std::sync::Arc;

use clap::Args;
use serde::Serialize;
use tokio::sync::mpsc;

use crate::app::{own, shadow};
use crate::cli::colours::{Colours, Look, WhenColours, printable};
use crate::cli::following::{follow, hint, read_topics};
use crate::cli::output::{Output, print_next_line};
use crate::cli::program::Program;
use crate::cli::{Failure, database, stop_signal};
use crate::config::Config;
use crate::decode::canonical::{self, CanonicalRow};
use crate::handler::Handler;
use crate::shadow::session::Rows;
use crate::shadow::{Told, Verdict};
use crate::source::kafka::follow::From;

/// What waits to be printed.
const TOLD_MAX: usize = 64;

/// Arguments of `run` that hold in the shadow only.
#[derive(Debug, Default, Args)]
pub(super) struct ShadowArgs {
    /// Decide beside a worker that exists: print what this one would do, write nothing, send nothing, commit nothing
    #[arg(long)]
    pub(super) shadow: bool,
    /// With --shadow: begin with the oldest change that is kept, not with the next one
    #[arg(long, requires = "shadow")]
    from_beginning: bool,
    /// With --shadow: end after this many decisions
    #[arg(long, value_name = "N", requires = "shadow")]
    limit: Option<u64>,
    #[command(flatten)]
    colours: WhenColours,
}

#[derive(Debug, thiserror::Error)]
enum NoShadow {
    #[error(
        "source.kind is wal: the write-ahead log is read through slots, and a slot of the shadow's own would keep log for it; run \
         the shadow against the topics of a connector"
    )]
    NoTopics,
    #[error(
        "this program does not say how its handlers run when nothing may be sent: give it the same handlers with clients that send \
         nothing (Program::with_shadow)"
    )]
    NotSilent,
    #[error("--only leaves no handler; scheduled work has no shadow, because all it does is write")]
    NoHandler,
}

/// The handlers that are to decide, and may send nothing.
///
/// # Errors
/// Where there can be no shadow.
pub(super) fn handlers(config: &Config, program: &Program) -> Result<Vec<Arc<dyn Handler>>, Failure> {
    if !config.source.kind.has_brokers() {
        return Err(Failure::usage(NoShadow::NoTopics));
    }
    let silent = program.silent_handlers(config).map_err(Failure::usage)?;
    let silent = silent.ok_or_else(|| Failure::usage(NoShadow::NotSilent))?;
    own::enabled(config, silent).map_err(Failure::usage)
}

/// Decides about every change that comes, until there is a stop, the limit, or nobody who reads.
///
/// # Errors
/// As those of `run`; and when the topics cannot be read.
pub(super) async fn run(
    args: &ShadowArgs,
    config: &Config,
    handlers: Vec<Arc<dyn Handler>>,
    output: Output,
) -> Result<(), Failure> {
    if handlers.is_empty() {
        return Err(Failure::usage(NoShadow::NoHandler));
    }
    database::connect(config).await?.close().await;
    let (telling, coming) = mpsc::channel(TOLD_MAX);
    let names: Vec<String> = handlers.iter().map(|handler| handler.spec().name).collect();
    let shadow = shadow::start(config, handlers, &telling)
        .await
        .map_err(Failure::failed)?;
    drop(telling);
    let from = match args.from_beginning {
        true => From::Beginning,
        false => From::End,
    };
    let (mut records, reading) = read_topics(config, from, move |partitions, topics| {
        hint(&format!(
            "in the shadow: {} decide about {partitions} partitions of {topics}; nothing is written, sent or committed, \
             scheduled work is left out; Ctrl-C ends",
            names.join(", ")
        ));
    });
    let deciding = tokio::spawn(async move {
        while let Some(followed) = records.recv().await {
            shadow.take(&followed).await;
        }
    });
    let colours = args.colours.here(output);
    let printed = follow(coming, stop_signal(), args.limit, async |told: Told| {
        let text = match output {
            Output::Json => serde_json::to_string(&line(&told)).map_err(Failure::failed)?,
            Output::Table => in_words(&told, colours),
        };
        Ok(print_next_line(&text)?.then_some(1))
    })
    .await;
    // With it end the lanes, whose attempts are rolled back, and the reading of topics.
    deciding.abort();
    printed?;
    reading.ended().await
}

/// What was told, for programs.
#[derive(Debug, Serialize)]
struct Line<'a> {
    topic: &'a str,
    partition: i32,
    offset: i64,
    event_id: Option<String>,
    schema: Option<&'a str>,
    table: Option<&'a str>,
    op: Option<&'static str>,
    key: Option<CanonicalRow<'a>>,
    /// `*` for a record that cannot be decoded, as in its dead letter.
    handler: &'a str,
    #[serde(flatten)]
    verdict: Shown<'a>,
    calls: &'a [String],
    rows: &'a [Rows],
    took_ms: u64,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Shown<'a> {
    Verdict(&'a Verdict),
    Undecodable { decision: &'static str, error: &'a str },
}

fn line(told: &Told) -> Line<'_> {
    match told {
        Told::Decided(seen, decision) => {
            let (event, origin) = (&seen.event, seen.event.origin());
            Line {
                topic: &seen.topic,
                partition: seen.partition,
                offset: seen.offset,
                event_id: event.id().map(|id| id.to_string()),
                schema: Some(&origin.schema),
                table: Some(&origin.table),
                op: Some(canonical::op(event.change())),
                key: event.key().map(|key| CanonicalRow(key.row())),
                handler: &decision.handler,
                verdict: Shown::Verdict(&decision.verdict),
                calls: &decision.calls,
                rows: &decision.rows,
                took_ms: decision.took_ms,
            }
        }
        Told::Undecodable {
            topic,
            partition,
            offset,
            reason,
        } => Line {
            topic,
            partition: *partition,
            offset: *offset,
            event_id: None,
            schema: None,
            table: None,
            op: None,
            key: None,
            handler: "*",
            verdict: Shown::Undecodable {
                decision: "undecodable",
                error: reason,
            },
            calls: &[],
            rows: &[],
            took_ms: 0,
        },
    }
}

/// The same in one line for people: handler, change, decision, and what it would have called and written.
fn in_words(told: &Told, colours: Colours) -> String {
    let (seen, decision) = match told {
        Told::Decided(seen, decision) => (seen, decision),
        Told::Undecodable {
            topic,
            partition,
            offset,
            reason,
        } => {
            return format!(
                "{}  {topic}[{partition}] offset {offset}  {}  {}",
                colours.paint(Look::Name, &format!("{:<10}", "*")),
                colours.paint(Look::Bad, "undecodable"),
                printable(reason)
            );
        }
    };
    let origin = seen.event.origin();
    let key = seen.event.key().map(|key| CanonicalRow(key.row()));
    let key = serde_json::to_string(&key).unwrap_or_else(|error| error.to_string());
    let (look, said) = match &decision.verdict {
        Verdict::Done => (Look::Good, "done".to_owned()),
        Verdict::Skipped { reason } => (Look::Aside, format!("skipped: {reason}")),
        Verdict::Later { after_ms } => (Look::Changed, format!("later: in {after_ms} ms")),
        Verdict::Failed { class, error } => (Look::Bad, format!("failed: {class}: {error}")),
    };
    let mut line = format!(
        "{}  {:<8} {}  {}  {}",
        colours.paint(Look::Name, &printable(&format!("{:<10}", decision.handler))),
        canonical::op(seen.event.change()),
        printable(&format!("{}.{}", origin.schema, origin.table)),
        printable(&key),
        colours.paint(look, &printable(&said)),
    );
    for call in &decision.calls {
        line.push_str(&format!("  calls {}", colours.paint(Look::Id, &printable(call))));
    }
    for Rows {
        table,
        inserted,
        updated,
        deleted,
    } in &decision.rows
    {
        line.push_str(&format!("  {}", printable(table)));
        for (sign, rows) in [('+', inserted), ('~', updated), ('-', deleted)] {
            if *rows > 0 {
                line.push_str(&format!(" {sign}{rows}"));
            }
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::change::{Change, ChangeEvent, Origin};
    use crate::event::key::Key;
    use crate::event::row::{Row, Value};
    use crate::shadow::{Decision, Seen};

    fn told(verdict: Verdict) -> Told {
        let row = Row::of([("id", Some(Value::Text("a\u{9b}".into())))]);
        let inserted = Change::Insert {
            after: row.clone(),
            moved_from: None,
        };
        let seen = Seen {
            event: Arc::new(ChangeEvent::new(Origin::of_table("users"), Key::of(row), inserted)),
            topic: "app.public.users".into(),
            partition: 1,
            offset: 2,
        };
        let rows = Rows {
            table: "public.email_log".to_owned(),
            inserted: 1,
            updated: 2,
            deleted: 0,
        };
        let decision = Decision {
            handler: "email".into(),
            verdict,
            calls: vec!["mail:1".to_owned()],
            rows: vec![rows],
            took_ms: 3,
        };
        Told::Decided(seen, decision)
    }

    #[test]
    fn a_decision_is_one_line_for_people_and_for_programs() {
        let done = told(Verdict::Done);
        assert_eq!(
            in_words(&done, Colours(false)),
            "email       insert   public.users  {\"id\":\"a\\u009b\"}  done  calls mail:1  public.email_log +1 ~2"
        );
        let json = serde_json::to_value(line(&done)).unwrap();
        assert_eq!(json["decision"], "done");
        assert_eq!(json["rows"][0]["inserted"], 1);
        let failed = told(Verdict::Failed {
            class: "transient",
            error: "x\ny".to_owned(),
        });
        let json = serde_json::to_value(line(&failed)).unwrap();
        assert_eq!(
            (&json["decision"], &json["class"]),
            (&"failed".into(), &"transient".into())
        );
        assert!(in_words(&failed, Colours(false)).contains("failed: transient: x\\u000ay"));
    }

    #[test]
    fn a_record_that_cannot_be_decoded_is_a_decision_too() {
        let undecodable = Told::Undecodable {
            topic: "t".into(),
            partition: 0,
            offset: 7,
            reason: "no JSON".to_owned(),
        };
        let json = serde_json::to_value(line(&undecodable)).unwrap();
        assert_eq!(
            (&json["decision"], &json["handler"]),
            (&"undecodable".into(), &"*".into())
        );
        assert!(in_words(&undecodable, Colours(false)).contains("t[0] offset 7  undecodable  no JSON"));
    }
}
