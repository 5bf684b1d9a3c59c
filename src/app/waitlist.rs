//! The waitlist worker's handlers, made from the configuration.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use sqlx::postgres::{PgConnectOptions, PgPool};

use crate::app::own;
use crate::clients::mail_folder::FolderMailer;
use crate::clients::mailer::{Mailer, Protection, Rate, SmtpMailer, SmtpSettings};
use crate::clients::measured::{MeasuredCaller, MeasuredMailer};
use crate::clients::silent::Silent;
use crate::clients::webhook::network::Network;
use crate::clients::webhook::{HttpCaller, WebhookSettings};
use crate::config::Config;
use crate::config::smtp::{MailTransport, Smtp, SmtpTls};
use crate::config::waitlist::{Fraud, FraudCheck, FraudCheckSettings};
use crate::handler::Handler;
use crate::handlers::email::EmailSettings;
use crate::handlers::email::links::Links;
use crate::handlers::email::message::Sender;
use crate::handlers::email::unsubscribe::Unsubscriber;
use crate::handlers::fraud::rules::{Duplicate, FraudSettings};
use crate::handlers::named;
use crate::handlers::names::{Names, NamesError, TableNames, views};
use crate::handlers::reward::RewardSettings;
use crate::handlers::secret::Secret;
use crate::handlers::{Clients, Settings, build};
use crate::tally::reach;

/// Webhook calls of one job, where the group makes more attempts than that.
const WEBHOOK_ATTEMPTS_MAX: u32 = 4;

/// How long an unused connection to the mail server is kept.
const SMTP_IDLE_MAX: Duration = Duration::from_secs(30);

/// How long a lane waits for its turn in place; for longer it makes room for others.
const TURN_WAIT_MAX: Duration = Duration::from_secs(2);

/// The handlers that are switched on, with their clients.
///
/// # Errors
/// When a setting cannot be true.
pub fn handlers(config: &Config) -> anyhow::Result<Vec<Arc<dyn Handler>>> {
    own::enabled(config, every_handler(config)?)
}

/// The handlers with their clients, those that are switched off among them.
///
/// # Errors
/// When a setting cannot be true.
pub fn every_handler(config: &Config) -> anyhow::Result<Vec<Arc<dyn Handler>>> {
    let spare = check_mail_time(config, "email")?;
    let clients = Clients {
        mailer: mailer(&config.smtp, spare)?,
        caller: Arc::new(caller(config)?),
    };
    with_clients(config, &clients)
}

/// The handlers as they run in a shadow: their mails and calls go nowhere.
///
/// # Errors
/// When a setting cannot be true.
pub fn silent_handlers(config: &Config) -> anyhow::Result<Vec<Arc<dyn Handler>>> {
    let clients = Clients {
        mailer: Arc::new(Silent),
        caller: Arc::new(Silent),
    };
    with_clients(config, &clients)
}

fn with_clients(config: &Config, clients: &Clients) -> anyhow::Result<Vec<Arc<dyn Handler>>> {
    let attempts_of_reward = config.engine_of(&config.group_name("reward")).attempts_max;
    let settings = Settings {
        secret: Secret::new(config.hmac_key()?.expose().as_bytes()),
        email: email(config)?,
        reward: RewardSettings {
            delay: config.waitlist.reward_hold.0,
            // The last attempt is left for handing the call over to the schedule.
            webhook_attempts_max: attempts_of_reward.saturating_sub(1).clamp(1, WEBHOOK_ATTEMPTS_MAX),
        },
        fraud: fraud(&config.fraud),
    };
    Ok(named::woken_by(names(config)?, build(&settings, clients)))
}

/// Handing over a mail takes at most one and a half steps before the content and one for it. In an attempt that is shorter, a
/// mail server that hangs would end in failed attempts instead of an outage. Answers what is left of an attempt.
pub(super) fn check_mail_time(config: &Config, handler: &str) -> anyhow::Result<Duration> {
    let attempt = config.attempt_timeout_of(&config.group_name(handler), handler);
    let attempt = attempt.unwrap_or(Duration::from_millis(config.engine.attempt_timeout_ms));
    let mail = Duration::from_millis(config.smtp.step_timeout_ms) * 5 / 2;
    anyhow::ensure!(
        mail < attempt,
        "smtp.step_timeout_ms is too long for the attempts of {handler}: two and a half of it are {} ms, an attempt may take {} \
         ms; shorten it, or lengthen handlers.{handler}.attempt_timeout_ms",
        mail.as_millis(),
        attempt.as_millis()
    );
    Ok(attempt - mail)
}

pub(super) fn mailer(smtp: &Smtp, spare: Duration) -> anyhow::Result<Arc<dyn Mailer>> {
    let (mailer, server): (Arc<dyn Mailer>, _) = match (smtp.transport, &smtp.directory) {
        (MailTransport::File, Some(folder)) => {
            let mailer = FolderMailer::new(Path::new(folder)).context("smtp.directory")?;
            (Arc::new(mailer), None)
        }
        (MailTransport::File, None) => bail!("smtp.directory is missing"),
        (MailTransport::Smtp, _) => {
            let mailer = SmtpMailer::new(smtp_settings(smtp, spare)).context("[smtp] cannot be used")?;
            (Arc::new(mailer), Some(&reach::SMTP))
        }
    };
    Ok(Arc::new(MeasuredMailer::new(mailer, server)))
}

/// A section that is called after nothing would be read by nobody.
pub(super) fn check_names(config: &Config, handlers: &[Arc<dyn Handler>]) -> anyhow::Result<()> {
    let known: Vec<String> = handlers.iter().map(|handler| handler.spec().name).collect();
    let of_groups = config
        .groups
        .keys()
        .map(|name| ("groups", config.short_group_name(name)));
    let of_handlers = config.handlers.keys().map(|name| ("handlers", name.as_str()));
    match of_groups
        .chain(of_handlers)
        .find(|(_, name)| !known.iter().any(|known| known == name))
    {
        None => Ok(()),
        Some((section, name)) => bail!(
            "[{section}.{name}] is called after nothing; there are {}",
            known.join(", ")
        ),
    }
}

/// Ends subscriptions through these connections, where links lead to this process at all.
///
/// # Errors
/// When no key is set for links that everybody could forge without one.
pub(super) fn unsubscriber(config: &Config, pool: PgPool) -> anyhow::Result<Option<Unsubscriber>> {
    if config.waitlist.public_url.is_none() {
        return Ok(None);
    }
    let secret = Secret::new(config.hmac_key()?.expose().as_bytes());
    Ok(Some(Unsubscriber::new(secret, pool)))
}

/// Says what a worker lacks that starts all the same. Whoever only asks what handlers are called is not told.
pub fn warn(config: &Config) {
    if config.waitlist.secret.is_none() {
        tracing::warn!("waitlist.secret is not set: the development key is used, which everybody knows");
    }
    if config.handlers.get("email").is_none_or(|own| own.enabled) {
        warn_of_links(config);
    }
}

/// Marketing mails need a link, and the link somebody who answers.
fn warn_of_links(config: &Config) {
    if config.waitlist.public_url.is_none() {
        tracing::warn!(
            "waitlist.public_url is not set: mails about places and milestones are skipped, because nobody could unsubscribe"
        );
    } else if config.admin.listen.is_none() {
        tracing::warn!(
            "admin.listen is not set: links to unsubscribe lead to waitlist.public_url, which another process has to answer"
        );
    }
}

fn sender(smtp: &Smtp) -> Sender {
    Sender {
        name: smtp.from_name.clone().unwrap_or_default(),
        address: smtp.from_address.clone(),
        reply_to: None,
    }
}

fn links(config: &Config) -> Links {
    Links {
        verification_url: config.waitlist.verification_url.clone(),
        referral_url: config.waitlist.referral_url.clone(),
        public_url: config.waitlist.public_url.clone(),
    }
}

/// What mails are made with.
///
/// # Errors
/// When the application's names cannot be used.
pub fn email(config: &Config) -> Result<EmailSettings, NamesError> {
    Ok(EmailSettings {
        sender: sender(&config.smtp),
        links: links(config),
        users_table: users_table(&names(config)?),
    })
}

/// The application's `schema.table` of users.
pub fn users_table(names: &Names) -> String {
    let place = names.place("waitlist_users").unwrap_or_default();
    format!("{}.{}", place.0, place.1)
}

/// The mail server, for whoever only looks whether it lets us in.
pub fn mail_settings(config: &Config) -> SmtpSettings {
    SmtpSettings {
        connections_max: 1,
        rate: None,
        ..smtp_settings(&config.smtp, Duration::ZERO)
    }
}

/// `spare` is what handing over leaves of an attempt.
fn smtp_settings(smtp: &Smtp, spare: Duration) -> SmtpSettings {
    let password = smtp.password.as_ref().map(|password| password.expose().to_owned());
    SmtpSettings {
        host: smtp.effective_host().to_owned(),
        port: smtp.port,
        protection: match smtp.effective_tls() {
            SmtpTls::Implicit => Protection::Tls,
            SmtpTls::Starttls => Protection::StartTls,
            SmtpTls::Opportunistic => Protection::Opportunistic,
            SmtpTls::None | SmtpTls::Auto => Protection::None,
        },
        credentials: smtp.user.clone().zip(password),
        hello_name: smtp.hello_name.clone().unwrap_or_default(),
        step_timeout: Duration::from_millis(smtp.step_timeout_ms),
        connections_max: smtp.connections_max,
        idle_max: SMTP_IDLE_MAX,
        authorities_pem: smtp.ca_pem.as_ref().map(|pem| pem.expose().to_owned()),
        rate: smtp.mails_per_second_max.map(|per_second_max| Rate {
            per_second_max,
            // The other half is for the facts, the claim and the last transaction.
            wait_max: TURN_WAIT_MAX.min(spare / 2),
        }),
    }
}

pub(super) fn caller(config: &Config) -> anyhow::Result<MeasuredCaller<HttpCaller>> {
    let networks: Result<Vec<Network>, _> = config
        .webhook
        .allowed_networks
        .iter()
        .map(|text| text.parse())
        .collect();
    let settings = WebhookSettings {
        timeout: Duration::from_millis(config.webhook.timeout_ms),
        allowed_networks: networks.context("webhook.allowed_networks holds something that is not a network")?,
    };
    let caller = HttpCaller::new(&settings).context("the client of webhooks could not be made")?;
    Ok(MeasuredCaller(caller))
}

/// What the application calls the tables of the reference schema.
///
/// # Errors
/// The first name that cannot be used.
pub fn names(config: &Config) -> Result<Names, NamesError> {
    let tables = config.waitlist.tables.iter().map(|(table, own)| {
        let names = TableNames {
            name: own.name.clone(),
            columns: own.columns.clone(),
        };
        (table.clone(), names)
    });
    Names::new(&tables.collect())
}

/// Sessions in which the reference's names mean the application's tables.
pub fn seeing_names(config: &Config, options: PgConnectOptions) -> PgConnectOptions {
    match config.waitlist.tables.is_empty() {
        true => options,
        false => options.options([("search_path", views::SEARCH_PATH)]),
    }
}

/// From which suspicion on, in percent, the credit of a referral is held.
pub fn hold_at(config: &Config) -> u8 {
    percent(config.fraud.hold_confidence)
}

pub(super) fn fraud(settings: &Fraud) -> FraudSettings {
    let mut fraud = FraudSettings {
        hold_at: percent(settings.hold_confidence),
        ..FraudSettings::default()
    };
    for (check, own) in &settings.checks {
        apply(&mut fraud, *check, own);
    }
    fraud
}

fn apply(fraud: &mut FraudSettings, check: FraudCheck, own: &FraudCheckSettings) {
    let confidence = own.confidence.map(percent);
    match check {
        FraudCheck::SelfReferralDevice => {
            if let Some(rule) = &mut fraud.self_referral {
                rule.device = if own.enabled {
                    confidence.unwrap_or(rule.device)
                } else {
                    0
                };
            }
        }
        FraudCheck::SelfReferralIp => {
            if let Some(rule) = &mut fraud.self_referral {
                rule.ip = if own.enabled { confidence.unwrap_or(rule.ip) } else { 0 };
                rule.ip_and_mailbox = if own.enabled { rule.ip_and_mailbox } else { 0 };
            }
        }
        FraudCheck::Velocity if !own.enabled => fraud.velocity = None,
        FraudCheck::Velocity => {
            if let Some(rule) = &mut fraud.velocity {
                rule.confidence = confidence.unwrap_or(rule.confidence);
                rule.referrals_max = own.count_max.unwrap_or(rule.referrals_max);
            }
        }
        FraudCheck::DisposableEmail if !own.enabled => fraud.disposable_email = None,
        FraudCheck::DisposableEmail => {
            if let Some(rule) = &mut fraud.disposable_email {
                rule.confidence = confidence.unwrap_or(rule.confidence);
            }
        }
        FraudCheck::Bot if !own.enabled => fraud.bot = None,
        FraudCheck::Bot => {
            if let Some(rule) = &mut fraud.bot {
                rule.confidence = confidence.unwrap_or(rule.confidence);
            }
        }
        FraudCheck::DuplicateIp => apply_duplicate(&mut fraud.duplicate_ip, own),
        FraudCheck::DuplicateDevice => apply_duplicate(&mut fraud.duplicate_device, own),
    }
}

fn apply_duplicate(rule: &mut Option<Duplicate>, own: &FraudCheckSettings) {
    if !own.enabled {
        *rule = None;
    }
    if let Some(rule) = rule {
        rule.confidence = own.confidence.map_or(rule.confidence, percent);
        rule.users_max = own.count_max.unwrap_or(rule.users_max);
    }
}

/// Whole percents; the configuration was checked to be between 0 and 1.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "between 0 and 100 after the clamp"
)]
fn percent(share: f64) -> u8 {
    (share * 100.0).round().clamp(0.0, 100.0) as u8
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load::{Inputs, load};

    #[tokio::test]
    async fn a_mail_has_to_fit_into_an_attempt() {
        for (set, fits) in [
            ("smtp.step_timeout_ms=11999", true),
            ("smtp.step_timeout_ms=12000", false),
            ("handlers.email.attempt_timeout_ms=25000", false),
            ("groups.email.attempt_timeout_ms=25001", true),
        ] {
            let inputs = Inputs {
                set: vec![set.to_owned()],
                ..Inputs::default()
            };
            assert_eq!(handlers(&load(&inputs).unwrap()).is_ok(), fits, "{set}");
        }
    }

    #[tokio::test]
    async fn a_section_called_after_nothing_is_refused() {
        for (set, refusal) in [
            ("groups.email.lanes_max=3", None),
            ("handlers.email.enabled=false", None),
            ("groups.emial.lanes_max=3", Some("[groups.emial]")),
            ("handlers.emial.enabled=false", Some("[handlers.emial]")),
        ] {
            let inputs = Inputs {
                set: vec![set.to_owned()],
                ..Inputs::default()
            };
            let made = handlers(&load(&inputs).unwrap())
                .map(|_| ())
                .map_err(|error| error.to_string());
            match refusal {
                None => assert_eq!(made, Ok(()), "{set}"),
                Some(refusal) => assert!(made.unwrap_err().starts_with(refusal), "{set}"),
            }
        }
    }
}
