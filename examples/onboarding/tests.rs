//! No step is repeated that succeeded: not by a retry, not out of a crash at any point, not when the tenant comes twice.

use std::sync::Arc;
use std::time::Duration;

use afterwrite::config::value::Secret;
use afterwrite::event::change::ChangeEvent;
use afterwrite::handler::Fault;
use afterwrite::handler::points::Point;
use afterwrite::testkit::kit::Kit;
use afterwrite::testkit::mishap::Mishap;
use afterwrite::testkit::receiver::{Answer, Receiver, Request};
use afterwrite::testkit::report::{CallEnd, Ended};
use afterwrite::testkit::table::Table;
use serde_json::json;

use crate::handler::{Onboarding, STEPS, Settings, TABLES};

const TENANT: &str = "018f3b7e-0000-7000-8000-000000000001";

/// An API that makes what it is asked for, a kit, and the event of a tenant that was requested.
async fn requested() -> (Receiver, Kit, Arc<ChangeEvent>) {
    let api = Receiver::start().await;
    let settings = Settings {
        api_url: api.url(""),
        api_key: Secret::new("key"),
    };
    let kit = Kit::new(Arc::new(Onboarding::new(settings).unwrap()), TABLES).await;
    let row = format!("INSERT INTO tenants VALUES ('{TENANT}', 'Acme', 'requested')");
    kit.database().run(&row).await;
    let event = Table::of("tenants", ["id"]).insert(json!({"id": TENANT, "name": "Acme", "status": "requested"}));
    (api, kit, event)
}

fn made(id: &str) -> Answer {
    Answer::status(201).body(json!({"id": id}).to_string())
}

/// Lets every step succeed.
fn well(api: &Receiver) {
    for step in STEPS {
        api.script(&format!("/{step}"), vec![made(step); 10]);
    }
}

async fn status(kit: &Kit) -> Option<String> {
    kit.database().text("SELECT status FROM tenants").await
}

fn paths(requests: &[Request]) -> Vec<&str> {
    requests
        .iter()
        .map(|request| request.path.trim_start_matches('/'))
        .collect()
}

#[tokio::test]
async fn a_tenant_is_active_when_every_step_was_taken_once_and_comes_twice() {
    let (api, kit, event) = requested().await;
    well(&api);
    let (first, again) = kit.deliver_twice(&event).await;
    assert_eq!((first.ended(), first.attempts()), (&Ended::Done, 1), "{first}");
    assert_eq!(again.ended(), &Ended::Before("done".to_owned()), "{again}");
    assert_eq!(paths(&api.requests()), STEPS);
    assert_eq!(status(&kit).await.as_deref(), Some("active"));
    assert_eq!(kit.database().count("tenant_resources WHERE resource = step").await, 3);
    let request = &api.requests()[1];
    assert_eq!(request.header("authorization"), Some("Bearer key"));
    assert_eq!(
        request.header("idempotency-key"),
        Some(&*format!("onboarding:{TENANT}:domains"))
    );
}

#[tokio::test]
async fn a_retry_repeats_the_step_that_failed_and_none_that_succeeded() {
    let (api, kit, event) = requested().await;
    api.script(
        "/domains",
        [
            Answer::status(503),
            Answer::status(429).header("retry-after", "7"),
            Answer::lost(),
        ],
    );
    well(&api);
    let report = kit.deliver(&event).await;
    assert_eq!((report.ended(), report.attempts()), (&Ended::Done, 4), "{report}");
    assert_eq!(
        paths(&api.requests()),
        [
            "databases",
            "domains",
            "domains",
            "domains",
            "domains",
            "billing-accounts"
        ]
    );
    let of_domains = api.requests_to("/domains");
    for request in &of_domains {
        assert_eq!(request.body, of_domains[0].body);
        assert_eq!(
            request.header("idempotency-key"),
            of_domains[0].header("idempotency-key")
        );
    }
    let asked = Fault::Transient {
        after: Some(Duration::from_secs(7)),
    };
    assert!(
        matches!(&report.calls()[1].ended, Some(CallEnd::Failed { fault, .. }) if *fault == asked),
        "{report}"
    );
}

#[tokio::test]
async fn out_of_a_crash_at_any_point_no_step_that_was_answered_is_repeated() {
    let (api, kit, event) = requested().await;
    well(&api);
    let points = kit.deliver(&event).await.points().to_vec();
    assert_eq!(points.len(), 2 * STEPS.len() + 3, "{points:?}");
    for point in points {
        let (api, kit, event) = requested().await;
        well(&api);
        kit.script([Mishap::die().at(point.clone())]);
        let (report, again) = kit.deliver_twice(&event).await;
        assert_eq!(
            (report.ended(), report.attempts()),
            (&Ended::Done, 2),
            "{point}: {report}"
        );
        assert_eq!(again.ended(), &Ended::Before("done".to_owned()), "{point}: {again}");
        assert_eq!(status(&kit).await.as_deref(), Some("active"), "{point}");
        // Between the answer and its settling only the other side can know: the same call comes again, under the same key.
        let mut expected = STEPS.to_vec();
        if let Point::Accepted(key) = &point {
            let step = STEPS.iter().position(|step| key.ends_with(step)).unwrap();
            expected.insert(step, STEPS[step]);
        }
        assert_eq!(paths(&api.requests()), expected, "{point}");
    }
}

#[tokio::test]
async fn whatever_an_attempt_meets_the_steps_before_it_stay_taken() {
    let accepted = Point::accepted(&format!("onboarding:{TENANT}:domains"));
    for mishap in [
        Mishap::panic().at(accepted.clone()),
        Mishap::time_out().at(accepted.clone()),
        Mishap::transient().at(accepted.clone()),
        Mishap::unreachable().at(accepted.clone()),
        Mishap::panic().at(Point::Opened),
        Mishap::lose_database(),
        Mishap::lose_database().at(Point::Returned),
    ] {
        let (api, kit, event) = requested().await;
        well(&api);
        kit.script([mishap.clone()]);
        let report = kit.deliver(&event).await;
        assert_eq!(
            (report.ended(), report.attempts()),
            (&Ended::Done, 2),
            "{mishap:?}: {report}"
        );
        // The process lives, so it remembers what was accepted.
        assert_eq!(paths(&api.requests()), STEPS, "{mishap:?}: {report}");
        assert_eq!(status(&kit).await.as_deref(), Some("active"));
    }
}

#[tokio::test]
async fn after_five_attempts_it_is_a_dead_letter_and_its_replay_goes_on_where_it_failed() {
    let (api, kit, event) = requested().await;
    api.script("/billing-accounts", vec![Answer::status(500); 5]);
    well(&api);
    let (report, again) = kit.deliver_twice(&event).await;
    assert_eq!(
        (report.ended(), report.attempts()),
        (&Ended::Buried("exhausted".to_owned()), 5),
        "{report}"
    );
    assert_eq!(report.letters()[0].attempts, 5);
    assert!(!report.letters()[0].error.contains("Acme"), "{report}");
    // Once more from the topic: it is in the dead letters, and nothing is called for it.
    assert_eq!(again.ended(), &Ended::Before("buried".to_owned()), "{again}");
    assert_eq!(status(&kit).await.as_deref(), Some("requested"));
    assert_eq!(api.requests_to("/billing-accounts").len(), 5);

    // Renamed since: what is tried again is what was tried before, byte for byte, because it may have arrived.
    kit.database().run("UPDATE tenants SET name = 'Renamed'").await;
    let replayed = kit.replay().await;
    assert_eq!(replayed.ended(), &Ended::Done, "{replayed}");
    assert_eq!(status(&kit).await.as_deref(), Some("active"));
    assert!(
        api.requests_to("/billing-accounts")
            .iter()
            .all(|request| request.text().contains("Acme"))
    );
    assert_eq!(paths(&api.requests())[..2], STEPS[..2]);
    assert_eq!(api.requests().len(), 2 + 5 + 1);
}

#[tokio::test]
async fn a_refusal_for_good_is_a_dead_letter_at_once_and_is_met_again_until_somebody_replays_it() {
    let (api, kit, event) = requested().await;
    api.script("/domains", [Answer::status(422)]);
    well(&api);
    let report = kit.deliver(&event).await;
    assert_eq!(
        (report.ended(), report.attempts()),
        (&Ended::Buried("permanent".to_owned()), 1),
        "{report}"
    );
    assert_eq!(
        report
            .effects()
            .iter()
            .map(|effect| effect.state.as_str())
            .collect::<Vec<_>>(),
        ["sent", "failed"]
    );
    let replayed = kit.replay().await;
    assert_eq!(replayed.ended(), &Ended::Done, "{replayed}");
    assert_eq!(
        paths(&api.requests()),
        ["databases", "domains", "domains", "billing-accounts"]
    );
}

#[tokio::test]
async fn an_api_that_is_away_costs_no_attempt() {
    let (api, kit, event) = requested().await;
    well(&api);
    kit.script(vec![Mishap::unreachable(); 7]);
    let report = kit.deliver(&event).await;
    assert_eq!((report.ended(), report.attempts()), (&Ended::Done, 8), "{report}");
    assert_eq!(report.calls()[7].attempt, 1, "{report}");
}

#[tokio::test]
async fn a_tenant_that_was_closed_meanwhile_is_not_onboarded() {
    let (api, kit, event) = requested().await;
    kit.database().run("UPDATE tenants SET status = 'closed'").await;
    let report = kit.deliver(&event).await;
    assert_eq!(report.ended(), &Ended::Skipped("not_requested"), "{report}");
    assert!(api.requests().is_empty());
}
