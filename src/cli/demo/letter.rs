//! The dead letter: a mistake that no retry heals, its letter, the correction, and the way back.

use sqlx::postgres::PgPool;

use super::campaign::Campaign;
use super::failure::DemoFailure;
use super::stage::Stage;
use super::story::LINUS;
use crate::app;
use crate::config::Config;
use crate::dead_letter::filter::{self, Filter};
use crate::dead_letter::state::{LetterRow, OPEN};
use crate::dead_letter::{headers, kept, requests};
use crate::event::delivery::RawRecord;

/// Who asks for the replay.
const ASKED_BY: &str = "demo";

/// Shows a job that fails for good, and heals it.
pub(super) async fn play(
    stage: &mut Stage<'_>,
    campaign: &Campaign,
    pool: &PgPool,
    config: &Config,
) -> Result<(), DemoFailure> {
    let rows = campaign.break_template().await.map_err(DemoFailure::Write)?;
    stage.did(
        "the customer writes a template with a variable that does not exist",
        "INSERT email_templates",
        rows,
    );
    let rows = campaign.sign_up(&LINUS).await.map_err(DemoFailure::Write)?;
    stage.did("linus signs up", "INSERT waitlist_users", rows);
    stage.expect(&["letter open", "place linus 7"]).await?;

    let letter = open_letter(pool, config).await?;
    let topics = app::options::letter_topics(config);
    let record = kept::read(topics, pool, &letter).await.map_err(DemoFailure::Letter)?;
    show(stage, &letter, &record);

    let rows = campaign.mend_template().await.map_err(DemoFailure::Write)?;
    stage.did("the customer corrects the template", "UPDATE email_templates", rows);
    requests::ask(pool, &letter, &record, ASKED_BY)
        .await
        .map_err(DemoFailure::Write)?
        .ok_or(DemoFailure::Wrong(
            "the dead letter was not open when its replay was asked for",
        ))?;
    let command = format!("afterwrite dlq replay {}", letter.short_id());
    stage.did("the letter is sent back to the handler that failed", &command, 0);
    stage.expect(&["mail verification linus", "letter replayed"]).await
}

async fn open_letter(pool: &PgPool, config: &Config) -> Result<LetterRow, DemoFailure> {
    let open = Filter {
        group: Some(config.group_name("email")),
        states: vec![OPEN.to_owned()],
        ..Filter::default()
    };
    let mut letters = filter::newest(pool, &open, 1).await.map_err(DemoFailure::Watch)?;
    letters
        .pop()
        .ok_or(DemoFailure::Wrong("the dead letter is gone from the list of open ones"))
}

fn show(stage: &Stage<'_>, letter: &LetterRow, record: &RawRecord) {
    let key = record
        .key
        .as_deref()
        .map(|key| String::from_utf8_lossy(key).into_owned())
        .unwrap_or_default();
    let attempts = headers::text(&record.headers, "afterwrite.attempts").unwrap_or("?");
    let (source, stored) = (letter.source().to_string(), letter.stored_in_words());
    for (name, value) in [
        ("letter", letter.short_id()),
        ("class", &letter.class),
        ("handler", &letter.handler),
        ("table", letter.table_name.as_deref().unwrap_or("-")),
        ("error", &letter.error),
        ("attempts", attempts),
        ("key", &key),
        ("came from", &source),
        ("kept in", &stored),
    ] {
        stage.screen.line(&format!("         {name:<10} {value}"));
    }
}
