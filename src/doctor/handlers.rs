//! What handlers call.

use super::doors::Silence;
use crate::causes::chain;
use crate::clients::mailer::{SmtpMailer, SmtpSettings};
use crate::hindrance::Hindered;

/// Whether the mail server lets us in; why not, where it does not.
pub(super) async fn mail_server(settings: &SmtpSettings) -> Option<Silence> {
    let place = format!("{}:{}", settings.host, settings.port);
    let away = |why: String| Silence::Away(format!("the mail server at {place} takes no connection: {why}"));
    let mailer = match SmtpMailer::new(settings.clone()) {
        Ok(mailer) => mailer,
        Err(error) => return Some(away(chain(&error))),
    };
    let error = mailer.look().await.err()?;
    Some(match error.downcast::<Hindered>() {
        Ok(hindered) => Silence::Hindered(*hindered),
        Err(error) => away(chain(&*error)),
    })
}
