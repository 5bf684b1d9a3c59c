//! Nobody is deactivated who was not warned, and nobody is warned twice.

use std::sync::Arc;

use afterwrite::clients::mailer::SmtpMailer;
use afterwrite::handler::points::Point;
use afterwrite::testkit::kit::Kit;
use afterwrite::testkit::mail_server::MailServer;
use afterwrite::testkit::mishap::Mishap;
use afterwrite::testkit::report::Ended;
use afterwrite::testkit::ticks::Ticks;
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::json;

use crate::job::{ExpiredAccounts, TABLES};
use crate::warnings::{Settings, Warnings};

/// The full hour after now: warnings are stamped with the time at which they are mailed.
fn tick() -> DateTime<Utc> {
    let hour = Utc::now().timestamp() / 3_600 + 1;
    DateTime::from_timestamp(hour * 3_600, 0).unwrap()
}

/// A mail server and a kit with an account that expires two days after the tick.
async fn expiring() -> (MailServer, Kit) {
    let server = MailServer::start().await;
    let settings = Settings {
        from: "Accounts <accounts@sender.example>".to_owned(),
        extend_url: "https://app.example/extend".to_owned(),
    };
    let mailer = Arc::new(SmtpMailer::new(server.settings()).unwrap());
    let mut kit = Kit::new(Arc::new(Warnings::new(settings, mailer)), TABLES).await;
    kit.record(&["account_warnings"]).await;
    let expires = (tick() + TimeDelta::days(2)).to_rfc3339();
    let sql = format!(
        "INSERT INTO accounts (id, email, expires_at) VALUES
             (1, 'ann@example.org', '{expires}'), (2, 'never@example.org', NULL), (3, 'later@example.org', '{expires}'::timestamptz + interval '30 days')"
    );
    kit.database().run(&sql).await;
    (server, kit)
}

async fn deactivated(kit: &Kit) -> i64 {
    kit.database().count("accounts WHERE status = 'deactivated'").await
}

#[tokio::test]
async fn an_account_is_warned_once_and_deactivated_when_the_notice_is_over() {
    let (server, kit) = expiring().await;
    let ticks = Ticks::of(Arc::new(ExpiredAccounts), kit.database());
    // A run that dies before its commit, and one that fails, leave nothing behind.
    let run = ticks.run_with(tick(), [Mishap::die(), Mishap::transient()]).await;
    assert_eq!((run.status.as_str(), run.attempts), ("done", 3), "{run:?}");
    assert_eq!(run.report, Some(json!({"warned": 1, "deactivated": 0})));
    // The next hour finds it warned; the first one is not run again.
    assert_eq!(ticks.run(tick()).await.attempts, 3);
    let next = ticks.run(tick() + TimeDelta::hours(1)).await;
    assert_eq!(next.report, Some(json!({"warned": 0, "deactivated": 0})));

    let written = kit.write("SELECT 1").await;
    assert_eq!(written.len(), 1);
    let (first, again) = kit.deliver_twice(&written[0]).await;
    assert_eq!((first.ended(), first.attempts()), (&Ended::Done, 1), "{first}");
    assert_eq!(again.ended(), &Ended::Before("done".to_owned()), "{again}");
    assert_eq!(server.mails().len(), 1);
    // The handler's own stamp is an event too, and wakes nobody.
    let stamp = kit.write("SELECT 1").await;
    assert_eq!(kit.deliver(&stamp[0]).await.ended(), &Ended::Unwanted);

    // Expired, and the notice is over.
    let due = ticks.run(tick() + TimeDelta::days(4)).await;
    assert_eq!(due.report, Some(json!({"warned": 0, "deactivated": 1})));
    assert_eq!(
        kit.database()
            .text("SELECT id FROM accounts WHERE status = 'deactivated'")
            .await
            .as_deref(),
        Some("1")
    );
}

#[tokio::test]
async fn while_its_warning_is_not_out_an_account_stays() {
    let (server, kit) = expiring().await;
    let ticks = Ticks::of(Arc::new(ExpiredAccounts), kit.database());
    ticks.run(tick()).await;
    let warning = kit.write("SELECT 1").await.remove(0);
    // Nothing was mailed, and the account has expired for long.
    ticks.run(tick() + TimeDelta::days(20)).await;
    assert_eq!(deactivated(&kit).await, 0);
    // Mailed at last, and long enough before the next tick.
    kit.script([Mishap::unreachable(), Mishap::transient()]);
    let report = kit.deliver(&warning).await;
    assert_eq!((report.ended(), report.attempts()), (&Ended::Done, 3), "{report}");
    assert_eq!(server.mails().len(), 1);
    ticks.run(tick() + TimeDelta::days(20) + TimeDelta::hours(1)).await;
    assert_eq!(deactivated(&kit).await, 1);
}

#[tokio::test]
async fn out_of_a_crash_at_any_point_the_warning_is_out_and_the_same() {
    let (_server, kit) = expiring().await;
    Ticks::of(Arc::new(ExpiredAccounts), kit.database()).run(tick()).await;
    let points = kit.deliver(&kit.write("SELECT 1").await[0]).await.points().to_vec();
    assert_eq!(points.len(), 5);
    for (step, point) in points.iter().enumerate() {
        let (server, kit) = expiring().await;
        Ticks::of(Arc::new(ExpiredAccounts), kit.database()).run(tick()).await;
        let warning = kit.write("SELECT 1").await.remove(0);
        kit.script([Mishap::die().at_step(step)]);
        let (report, again) = kit.deliver_twice(&warning).await;
        assert_eq!(
            (report.ended(), report.attempts()),
            (&Ended::Done, 2),
            "{point}: {report}"
        );
        assert_eq!(again.ended(), &Ended::Before("done".to_owned()), "{point}: {again}");
        let mails = server.mails();
        let is_unknown = *point >= Point::Accepted(String::new());
        assert_eq!(mails.len(), if is_unknown { 2 } else { 1 }, "{point}: {report}");
        assert!(mails.iter().all(|mail| *mail == mails[0]), "{point}");
        assert_eq!(
            kit.database()
                .count("account_warnings WHERE mailed_at IS NOT NULL")
                .await,
            1,
            "{point}"
        );
    }
}

#[tokio::test]
async fn an_account_that_was_extended_is_neither_mailed_nor_deactivated() {
    let (server, kit) = expiring().await;
    let ticks = Ticks::of(Arc::new(ExpiredAccounts), kit.database());
    ticks.run(tick()).await;
    let warning = kit
        .write("UPDATE accounts SET expires_at = expires_at + interval '1 year' WHERE id = 1")
        .await
        .remove(0);
    let report = kit.deliver(&warning).await;
    assert_eq!(report.ended(), &Ended::Skipped("extended"), "{report}");
    assert!(server.mails().is_empty());
    ticks.run(tick() + TimeDelta::days(10)).await;
    assert_eq!(deactivated(&kit).await, 0);
}

#[tokio::test]
async fn a_run_that_never_succeeds_is_given_up_and_has_written_nothing() {
    let (_server, kit) = expiring().await;
    let ticks = Ticks::of(Arc::new(ExpiredAccounts), kit.database());
    let run = ticks.run_with(tick(), vec![Mishap::transient(); 50]).await;
    assert_eq!(run.status, "failed", "{run:?}");
    assert_eq!(kit.database().count("account_warnings").await, 0);
    assert!(
        run.error
            .is_some_and(|error| error.contains("the test wants a failure"))
    );
}
