//! For a program of one's own: which of its handlers run, and what they are told by the configuration.

use std::sync::Arc;

use serde::de::DeserializeOwned;

use crate::app::waitlist;
use crate::clients::mailer::Mailer;
use crate::clients::webhook::Caller;
use crate::config::{Config, wording};
use crate::handler::Handler;

/// The settings of a handler cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("[handlers.{handler}.settings] cannot be used: {reason}")]
pub struct SettingsError {
    handler: String,
    reason: String,
}

/// Reads `[handlers.NAME.settings]` of the configuration, whose keys are the handler's own. A section that is not there is empty:
/// give fields without `#[serde(default)]` to what has to be said. Secrets are best read as
/// [`Secret`](crate::config::value::Secret), which never prints.
///
/// ```
/// use afterwrite::app::own;
/// use afterwrite::config::load::{Inputs, load};
///
/// #[derive(serde::Deserialize)]
/// #[serde(deny_unknown_fields)]
/// struct Settings {
///     api_url: String,
///     #[serde(default)]
///     regions: Vec<String>,
/// }
///
/// let set = vec!["handlers.onboarding.settings.api_url=https://api.example".to_owned()];
/// let config = load(&Inputs { set, ..Inputs::default() }).unwrap();
/// let settings: Settings = own::settings(&config, "onboarding").unwrap();
/// assert_eq!((settings.api_url.as_str(), settings.regions.len()), ("https://api.example", 0));
/// assert!(own::settings::<Settings>(&config, "other").is_err());
/// ```
///
/// # Errors
/// When a key is missing, unknown to `T` or of another type; the section is named, and no value.
pub fn settings<T: DeserializeOwned>(config: &Config, handler: &str) -> Result<T, SettingsError> {
    let table = match config.handlers.get(handler) {
        Some(own) => own.settings.table().clone(),
        None => toml::Table::new(),
    };
    table.try_into().map_err(|error: toml::de::Error| SettingsError {
        handler: handler.to_owned(),
        reason: wording::without_values(error.message()),
    })
}

/// What takes mails as `[smtp]` says, for a handler of this name that sends mails of its own.
///
/// # Errors
/// When a setting cannot be used, or handing over a mail may take longer than an attempt of the handler.
pub fn mailer(config: &Config, handler: &str) -> anyhow::Result<Arc<dyn Mailer>> {
    let spare = waitlist::check_mail_time(config, handler)?;
    waitlist::mailer(&config.smtp, spare)
}

/// What calls webhooks as `[webhook]` says, for handlers that call endpoints of customers.
///
/// # Errors
/// When `webhook.allowed_networks` holds something else, or this machine has no TLS.
pub fn caller(config: &Config) -> anyhow::Result<Arc<dyn Caller>> {
    Ok(Arc::new(waitlist::caller(config)?))
}

/// Those handlers that are not switched off.
///
/// # Errors
/// When `[handlers.NAME]` or `[groups.NAME]` is called after none of them: nobody would read it.
pub fn enabled(config: &Config, mut handlers: Vec<Arc<dyn Handler>>) -> anyhow::Result<Vec<Arc<dyn Handler>>> {
    waitlist::check_names(config, &handlers)?;
    handlers.retain(|handler| config.handlers.get(&handler.spec().name).is_none_or(|own| own.enabled));
    Ok(handlers)
}
