//! `afterwrite email preview`: a mail as its reader will see it.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use serde::Serialize;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::app;
use crate::cli::output::Output;
use crate::cli::{Failure, database};
use crate::config::Config;
use crate::handlers::email::preview::{Origin, Preview, PreviewError, Previewer, campaigns_called};
use crate::handlers::email::rules::Kind;
use crate::handlers::secret::Secret;

/// Arguments of `email preview`.
#[derive(Debug, Args)]
#[command(after_help = "\
Without --campaign and --user the built-in template is shown with samples, and no database is needed. Links of a preview
verify and unsubscribe nobody.

Examples:
  afterwrite email preview welcome
  afterwrite email preview milestone --html milestone.html       open it in a browser
  afterwrite email preview reward_earned --campaign launch       the campaign's template, or the one its mails are made from
  afterwrite email preview position_update --user ID --eml > position.eml
                                                                 open it in a mail program")]
pub struct PreviewArgs {
    /// Which mail
    #[arg(value_enum, value_name = "TYPE")]
    pub kind: MailType,
    /// Id or slug of a campaign whose template is shown
    #[arg(long, value_name = "ID|SLUG")]
    pub campaign: Option<String>,
    /// Id of a user who would get the mail
    #[arg(long, value_name = "ID")]
    pub user: Option<Uuid>,
    #[command(flatten)]
    form: Form,
}

/// What is shown of a mail; all of it in words when nothing is chosen.
#[derive(Debug, Args)]
#[group(multiple = false)]
struct Form {
    /// Write the HTML part to a file; - is standard output
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Print the text part alone
    #[arg(long)]
    text: bool,
    /// Print the whole message, as it would be sent
    #[arg(long)]
    eml: bool,
}

/// The types of mails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum MailType {
    /// Asks to confirm an address
    Verification,
    /// Greets
    Welcome,
    /// Tells of a better place
    PositionUpdate,
    /// Hands over a reward
    RewardEarned,
    /// Tells that the campaign has grown
    Milestone,
    /// Of somebody else's handler
    Custom,
}

impl MailType {
    fn kind(self) -> Kind {
        match self {
            Self::Verification => Kind::Verification,
            Self::Welcome => Kind::Welcome,
            Self::PositionUpdate => Kind::PositionUpdate,
            Self::RewardEarned => Kind::RewardEarned,
            Self::Milestone => Kind::Milestone,
            Self::Custom => Kind::Custom,
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum PreviewFailure {
    #[error("there is no campaign with the id or slug {0}")]
    NoCampaign(String),
    #[error("several campaigns have the slug {slug}; choose one by its id: {}", ids(.found))]
    Several { slug: String, found: Vec<Uuid> },
    #[error("user {user} is in campaign {of}, not in {asked}")]
    Elsewhere { user: Uuid, of: Uuid, asked: Uuid },
    #[error("campaigns could not be looked for")]
    Look(#[source] sqlx::Error),
    #[error("the HTML could not be written to {}", path.display())]
    Write { path: PathBuf, source: std::io::Error },
}

fn ids(found: &[Uuid]) -> String {
    let found: Vec<String> = found.iter().map(Uuid::to_string).collect();
    found.join(", ")
}

/// A preview, for programs.
#[derive(Debug, Serialize)]
struct Report<'a> {
    r#type: &'static str,
    template: &'static str,
    /// Why it would not be sent now.
    skipped: Option<&'static str>,
    subject: &'a str,
    html: &'a str,
    text: &'a str,
    variables: serde_json::Value,
    /// The whole message.
    message: String,
}

/// Shows a mail.
///
/// # Errors
/// When there is no such user, campaign or template, when the template is wrong, or Postgres is away.
pub(super) async fn run(args: &PreviewArgs, config: &Config, output: Output) -> Result<(), Failure> {
    let preview = preview(args, config).await?;
    let content = &preview.content;
    let html = match &args.form.html {
        Some(path) if path != Path::new("-") => {
            written(path, &content.html)?;
            Some(path)
        }
        _ => None,
    };
    let report = Report {
        r#type: preview.kind.word(),
        template: origin(preview.origin),
        skipped: preview.skipped,
        subject: &content.subject,
        html: &content.html,
        text: &content.text,
        variables: preview.variables.to_json(),
        message: String::from_utf8_lossy(&preview.message).into_owned(),
    };
    output.print(&report, |report| match (&args.form, html) {
        (Form { text: true, .. }, _) => report.text.trim_end().to_owned(),
        (Form { eml: true, .. }, _) => report.message.trim_end().to_owned(),
        (_, Some(path)) => format!("{} was written to {}", report.subject, path.display()),
        (Form { html: Some(_), .. }, None) => report.html.trim_end().to_owned(),
        _ => in_words(report),
    })
}

async fn preview(args: &PreviewArgs, config: &Config) -> Result<Preview, Failure> {
    let kind = args.kind.kind();
    let needs_secret = args.user.is_some();
    let secret = match needs_secret {
        true => config.hmac_key().map_err(Failure::usage)?.expose().as_bytes().to_vec(),
        false => Vec::new(),
    };
    let previewer = Previewer {
        settings: app::waitlist::email(config).map_err(Failure::usage)?,
        secret: Secret::new(secret),
        hold_at: app::waitlist::hold_at(config),
    };
    if args.campaign.is_none() && args.user.is_none() {
        return previewer.sample(kind).map_err(Failure::failed);
    }
    let pool = database::connect(config).await?;
    let mut connection = pool.acquire().await.map_err(Failure::unreachable)?;
    let campaign = match &args.campaign {
        Some(asked) => Some(campaign(&mut connection, asked).await.map_err(Failure::failed)?),
        None => None,
    };
    let made: Result<Preview, PreviewError> = match (args.user, campaign) {
        (None, None) => previewer.sample(kind),
        (None, Some(campaign)) => previewer.of_campaign(&mut connection, kind, campaign).await,
        (Some(user), asked) => match previewer.of_user(&mut connection, kind, user).await {
            Ok((of, _)) if asked.is_some_and(|asked| asked != of) => {
                let asked = asked.unwrap_or_default();
                return Err(Failure::failed(PreviewFailure::Elsewhere { user, of, asked }));
            }
            made => made.map(|(_, preview)| preview),
        },
    };
    made.map_err(Failure::failed)
}

async fn campaign(connection: &mut PgConnection, asked: &str) -> Result<Uuid, PreviewFailure> {
    let found = campaigns_called(connection, asked)
        .await
        .map_err(PreviewFailure::Look)?;
    match found[..] {
        [] => Err(PreviewFailure::NoCampaign(asked.to_owned())),
        [only] => Ok(only),
        _ => Err(PreviewFailure::Several {
            slug: asked.to_owned(),
            found,
        }),
    }
}

fn written(path: &Path, html: &str) -> Result<(), Failure> {
    std::fs::write(path, html).map_err(|source| {
        Failure::failed(PreviewFailure::Write {
            path: path.to_owned(),
            source,
        })
    })
}

fn origin(origin: Origin) -> &'static str {
    match origin {
        Origin::BuiltIn => "built_in",
        Origin::Default => "default",
        Origin::Campaign => "campaign",
    }
}

/// Headers that readers see, and the text.
fn in_words(report: &Report<'_>) -> String {
    let headers = report.message.split("\r\n\r\n").next().unwrap_or_default();
    let shown = |name: &str| {
        let start = format!("{name}: ");
        let line = headers.lines().find_map(|line| line.strip_prefix(&start));
        line.unwrap_or("-").to_owned()
    };
    let template = match report.template {
        "built_in" => "built in",
        "default" => "of the customer, for all campaigns",
        _ => "of the campaign",
    };
    let sent = report
        .skipped
        .map_or("yes".to_owned(), |reason| format!("no: {reason}"));
    let rows = [
        ("type", report.r#type),
        ("template", template),
        ("sent", sent.as_str()),
        ("from", &shown("From")),
        ("to", &shown("To")),
        ("subject", report.subject),
        ("unsubscribe", &shown("List-Unsubscribe")),
    ];
    let rows: String = rows
        .iter()
        .map(|(name, value)| format!("{name:<13}{value}\n"))
        .collect();
    format!("{rows}\n{}", report.text.trim_end())
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::*;

    #[test]
    fn types_are_called_as_in_the_database() {
        for mail in MailType::value_variants() {
            let word = mail.to_possible_value().expect("none is hidden");
            assert_eq!(Kind::of_word(word.get_name()), Some(mail.kind()));
        }
        assert_eq!(MailType::value_variants().len(), Kind::ALL.len());
    }
}
