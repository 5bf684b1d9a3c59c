//! One mail an invitation; where the answer is lost, the same mail.

use std::sync::Arc;

use afterwrite::clients::mailer::SmtpMailer;
use afterwrite::event::change::ChangeEvent;
use afterwrite::handler::points::Point;
use afterwrite::testkit::kit::Kit;
use afterwrite::testkit::mail_server::MailServer;
use afterwrite::testkit::mishap::Mishap;
use afterwrite::testkit::report::Ended;

use crate::handler::{Invitations, TABLES};
use crate::mail::Settings;

const ID: &str = "018f3b7e-0000-7000-8000-000000000002";

/// A mail server, a kit, and the event of an invitation of this address.
async fn invited(address: &str) -> (MailServer, Kit, Arc<ChangeEvent>) {
    let server = MailServer::start().await;
    let settings = Settings {
        from: "Teams <teams@sender.example>".parse().unwrap(),
        accept_url: "https://app.example/invitations/{token}".to_owned(),
    };
    let mailer = Arc::new(SmtpMailer::new(server.settings()).unwrap());
    let mut kit = Kit::new(Arc::new(Invitations::new(settings, mailer)), TABLES).await;
    kit.record(&["invitations"]).await;
    let sql = format!(
        "INSERT INTO teams VALUES (1, E'Rosé\\r\\nBcc: all@example.com');
         INSERT INTO invitations (id, team_id, email, token) VALUES ('{ID}', 1, '{address}', 'the-token')"
    );
    let event = kit.write(&sql).await.remove(0);
    (server, kit, event)
}

async fn invitation(kit: &Kit) -> Option<String> {
    kit.database()
        .text("SELECT status || CASE WHEN mailed_at IS NULL THEN '' ELSE ', mailed' END FROM invitations")
        .await
}

#[tokio::test]
async fn an_invitation_that_comes_twice_is_mailed_once() {
    let (server, kit, event) = invited("ann@example.org").await;
    let (first, again) = kit.deliver_twice(&event).await;
    assert_eq!((first.ended(), first.attempts()), (&Ended::Done, 1), "{first}");
    assert_eq!(again.ended(), &Ended::Before("done".to_owned()), "{again}");
    assert_eq!(invitation(&kit).await.as_deref(), Some("pending, mailed"));
    let mails = server.mails();
    assert_eq!(mails.len(), 1);
    assert!(
        mails[0].contains(&format!("Message-ID: <invitation.{ID}@sender.example>")),
        "{}",
        mails[0]
    );
    assert!(
        mails[0].contains("https://app.example/invitations/the-token"),
        "{}",
        mails[0]
    );
    let (headers, _) = mails[0].split_once("\r\n\r\n").unwrap();
    assert!(!headers.lines().any(|line| line.starts_with("Bcc")), "{headers}");
}

#[tokio::test]
async fn out_of_a_crash_at_any_point_it_is_mailed_and_what_is_repeated_is_the_same_mail() {
    let (_server, kit, event) = invited("ann@example.org").await;
    let points = kit.deliver(&event).await.points().to_vec();
    assert_eq!(points.len(), 5, "{points:?}");
    for (step, point) in points.iter().enumerate() {
        let (server, kit, event) = invited("ann@example.org").await;
        kit.script([Mishap::die().at_step(step)]);
        let (report, again) = kit.deliver_twice(&event).await;
        assert_eq!(
            (report.ended(), report.attempts()),
            (&Ended::Done, 2),
            "{point}: {report}"
        );
        assert_eq!(again.ended(), &Ended::Before("done".to_owned()), "{point}: {again}");
        let mails = server.mails();
        let is_unknown = *point >= Point::Accepted(String::new());
        assert_eq!(mails.len(), if is_unknown { 2 } else { 1 }, "{point}: {report}");
        assert!(
            mails.iter().all(|mail| *mail == mails[0]),
            "{point}: not byte for byte the same"
        );
    }
}

#[tokio::test]
async fn a_lost_reply_and_a_deferral_are_tried_again_with_the_same_bytes() {
    for (address, attempts, mails) in [
        ("lost-reply-1+ann@example.org", 2, 2),
        ("defer-3+ann@example.org", 4, 1),
    ] {
        let (server, kit, event) = invited(address).await;
        let report = kit.deliver(&event).await;
        assert_eq!(
            (report.ended(), report.attempts()),
            (&Ended::Done, attempts),
            "{address}: {report}"
        );
        let caught = server.mails();
        assert_eq!(caught.len(), mails, "{address}: {report}");
        assert!(caught.iter().all(|mail| *mail == caught[0]));
        assert!(report.letters().is_empty(), "{report}");
    }
}

#[tokio::test]
async fn what_an_attempt_meets_after_the_server_took_the_mail_sends_no_second_one() {
    for mishap in [
        Mishap::transient().at(Point::Opened),
        Mishap::panic().at(Point::Opened),
        Mishap::time_out().at(Point::Returned),
        Mishap::lose_database(),
        Mishap::lose_database().at(Point::Returned),
    ] {
        let (server, kit, event) = invited("ann@example.org").await;
        kit.script([mishap.clone()]);
        let report = kit.deliver(&event).await;
        assert_eq!(
            (report.ended(), report.attempts()),
            (&Ended::Done, 2),
            "{mishap:?}: {report}"
        );
        assert_eq!(server.mails().len(), 1, "{mishap:?}: {report}");
        assert_eq!(invitation(&kit).await.as_deref(), Some("pending, mailed"));
    }
}

#[tokio::test]
async fn an_address_that_is_refused_is_a_dead_letter_and_the_application_sees_it() {
    let (server, kit, event) = invited("refuse-550-5.1.1+ann@example.org").await;
    let (report, again) = kit.deliver_twice(&event).await;
    assert_eq!(
        (report.ended(), report.attempts()),
        (&Ended::Buried("permanent".to_owned()), 1),
        "{report}"
    );
    assert!(
        !report.letters()[0].error.contains("ann"),
        "no address in a letter: {report}"
    );
    assert_eq!(again.ended(), &Ended::Before("buried".to_owned()), "{again}");
    assert_eq!(invitation(&kit).await.as_deref(), Some("undeliverable"));
    // Corrected, it is pending again: another event, another mail.
    let corrected = kit
        .write("UPDATE invitations SET email = 'ann@example.org', status = 'pending'")
        .await;
    // The handler's own change of the status is an event too, and wakes nobody.
    let ended = kit.deliver_all(&corrected).await;
    assert_eq!(ended.all_ended(), [Ended::Unwanted, Ended::Done], "{ended}");
    assert_eq!(server.mails().len(), 1);
}

#[tokio::test]
async fn an_address_that_is_none_and_one_that_stays_deferred_end_in_letters_of_their_class() {
    for (address, class, attempts) in [("no address", "permanent", 1), ("defer@example.org", "exhausted", 5)] {
        let (server, kit, event) = invited(address).await;
        let report = kit.deliver(&event).await;
        assert_eq!(
            (report.ended(), report.attempts()),
            (&Ended::Buried(class.to_owned()), attempts),
            "{report}"
        );
        assert!(server.mails().is_empty());
    }
}

#[tokio::test]
async fn an_invitation_that_was_revoked_meanwhile_is_not_mailed() {
    let (server, kit, event) = invited("ann@example.org").await;
    kit.write("UPDATE invitations SET status = 'revoked'").await;
    let report = kit.deliver(&event).await;
    assert_eq!(report.ended(), &Ended::Skipped("not_pending"), "{report}");
    assert!(server.mails().is_empty());
}
