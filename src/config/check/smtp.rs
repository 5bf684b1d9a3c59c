//! The mail server and the folder in its place: what does not fit together, or would give a password away.

use super::Refusals;
use super::registry::{CERTIFICATE, find};
use crate::config::smtp::{MailTransport, Smtp};

pub(super) fn check(smtp: &Smtp, effect_lease_ms: u64, refusals: &mut Refusals) {
    refusals.unless(
        smtp.host.as_deref() != Some(""),
        "smtp.host",
        "it is empty",
        "name a host, or leave this out for this machine",
    );
    refusals.unless(
        smtp.from_address.parse::<lettre::Address>().is_ok(),
        "smtp.from_address",
        "this is not an e-mail address",
        "write one such as waitlist@example.com, and the name in smtp.from_name",
    );
    refusals.unless(
        smtp.user.is_some() || smtp.password.is_none(),
        "smtp.password",
        "smtp.user is missing",
        "set both, or leave both out",
    );
    refusals.unless(
        smtp.password.is_some() || smtp.user.is_none(),
        "smtp.user",
        "smtp.password is missing",
        "set both, or leave both out",
    );
    refusals.unless(
        !smtp.sends_password_in_clear(),
        "smtp.tls",
        "the password would cross the network to smtp.host in clear text",
        "write starttls, implicit or auto",
    );
    refusals.unless(
        smtp.step_timeout_ms < effect_lease_ms,
        "smtp.step_timeout_ms",
        "it is not shorter than engine.effect_lease_ms: another process would repeat a mail that is still being sent",
        "shorten it, or lengthen engine.effect_lease_ms",
    );
    if let Some(pem) = &smtp.ca_pem
        && let Err((reason, remedy)) = find(pem, CERTIFICATE)
    {
        refusals.unless(false, "smtp.ca_pem", reason, remedy);
    }
    check_transport(smtp, refusals);
}

fn check_transport(smtp: &Smtp, refusals: &mut Refusals) {
    if smtp.transport == MailTransport::Smtp {
        refusals.unless(
            smtp.directory.is_none(),
            "smtp.directory",
            "smtp.transport is smtp, so mails go to a server",
            "write smtp.transport = \"file\" to have them written there, or leave this out",
        );
        return;
    }
    refusals.unless(
        smtp.directory.as_deref().is_some_and(|folder| !folder.is_empty()),
        "smtp.transport",
        "mails are to be files, and smtp.directory, their folder, is missing",
        "set it, or write smtp.transport = \"smtp\"",
    );
    for (setting, is_set) in [
        ("smtp.host", smtp.host.is_some()),
        ("smtp.user", smtp.user.is_some()),
        ("smtp.ca_pem", smtp.ca_pem.is_some()),
        ("smtp.mails_per_second_max", smtp.mails_per_second_max.is_some()),
    ] {
        refusals.unless(
            !is_set,
            setting,
            "smtp.transport is file, so no mail server is talked to and nobody gets a mail",
            "leave one of the two out",
        );
    }
}

#[cfg(test)]
mod tests {
    use crate::config::load::{Inputs, load};

    const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";

    fn refusal(settings: &[&str], environment: &[(&str, &str)]) -> Option<String> {
        let inputs = Inputs {
            set: settings.iter().map(|setting| format!("smtp.{setting}")).collect(),
            environment: environment
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            ..Inputs::default()
        };
        load(&inputs).err().map(|error| error.to_string())
    }

    #[test]
    fn a_folder_and_a_mail_server_exclude_each_other() {
        let folder = ["transport=file", "directory=./mails"];
        assert_eq!(refusal(&folder, &[]), None);
    }

    #[test]
    fn what_cannot_work_or_gives_a_password_away_is_refused() {
        let login = ["user=u", "password=hidden"];
        for (settings, expected) in [
            (
                &["mails_per_second_max=0"][..],
                Some("smtp.mails_per_second_max: it is less than 1"),
            ),
            (&["mails_per_second_max=50"], None),
            (&["ca_pem=/etc/ca.pem"], Some("smtp.ca_pem: this is not PEM")),
            (&[&format!("ca_pem={CERTIFICATE}")], None),
            (
                &["host=mail", "tls=none", login[0], login[1]],
                Some("smtp.tls: the password would cross"),
            ),
            (&["host=localhost", "tls=none", login[0], login[1]], None),
            // Sent only when the connection was upgraded: see the mailer.
            (&["host=mail", "tls=opportunistic", login[0], login[1]], None),
            (&["host=mail", login[0], login[1]], None),
        ] {
            let said = refusal(settings, &[]);
            assert_eq!(said.is_some(), expected.is_some(), "{settings:?} {said:?}");
            let said = said.unwrap_or_default();
            assert!(
                said.contains(expected.unwrap_or_default()) && !said.contains("hidden"),
                "{said}"
            );
        }
    }
}
