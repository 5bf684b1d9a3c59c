//! People decide about detections with the command; places and rewards follow from the row that changes.

use std::process::Output;
use std::time::Duration;

use afterwrite::schedule::fraud_scan::FraudScan;
use chrono::{TimeDelta, Utc};
use serde_json::Value;
use sqlx::postgres::PgConnectOptions;
use uuid::Uuid;

use crate::sweeps::Sweep;
use crate::world::{World, env, in_world, settings};

/// `afterwrite WORDS` in the world's database.
pub(crate) async fn command(world: &World, words: &[&str]) -> Output {
    let options: PgConnectOptions = env("DATABASE_URL").parse().unwrap();
    let url = sqlx::ConnectOptions::to_url_lossy(&options.database(&world.name));
    tokio::process::Command::new(env!("CARGO_BIN_EXE_afterwrite"))
        .args(words)
        .env("DATABASE_URL", url.as_str())
        .output()
        .await
        .unwrap()
}

async fn fraud(world: &World, words: &[&str]) -> Output {
    command(world, &[&["fraud"], words].concat()).await
}

async fn report(world: &World, words: &[&str]) -> Value {
    let output = fraud(world, &[words, &["--output", "json"]].concat()).await;
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Bob, who invited himself once more, and Ann; answers the detection and the referral.
async fn self_referral(world: &World) -> (String, Uuid) {
    world.member("ann").await;
    let bob = world.member("bob").await;
    let (clone, referral) = world.friend(bob, "clone").await;
    world
        .exec(&format!(
            "UPDATE waitlist_users SET device_fingerprint = 'one' WHERE id IN ('{bob}', '{clone}')"
        ))
        .await;
    world.pump().await;
    (world.text("SELECT id FROM fraud_detections").await, referral)
}

#[tokio::test]
async fn what_waits_is_listed_shown_and_decided_and_the_rest_follows() {
    in_world(async |world: &mut World| {
        let (id, referral) = self_referral(world).await;
        assert_eq!(world.ranking().await, "ann bob clone");
        let listed = report(world, &["list"]).await;
        assert_eq!(listed["detections"][0]["id"], id);
        assert_eq!(listed["detections"][0]["type"], "self_referral");
        let shown = report(world, &["show", &id]).await;
        assert_eq!(shown["referrals"][0]["referral_id"], referral.to_string());
        assert_eq!(shown["referrals"][0]["suspicion_percent"], 95);
        assert_eq!(shown["referrals"][0]["is_held"], true);

        let dismissed = report(world, &["dismiss", &id, "--note", "one family"]).await;
        assert_eq!(dismissed["changed"][0], id);
        world.pump().await;
        assert_eq!(world.ranking().await, "bob ann clone");
        assert_eq!(
            report(world, &["list"]).await["detections"].as_array().unwrap().len(),
            0
        );
        let shown = report(world, &["show", &id]).await;
        assert_eq!(shown["notes"], "one family");
        assert!(shown["reviewed_by"].as_str().unwrap().contains('@'), "{shown}");
        assert_eq!(shown["referrals"][0]["is_held"], false);

        // Said again it changes nothing; thought better of, everything follows again.
        assert_eq!(report(world, &["dismiss", &id]).await["unchanged"][0], id);
        report(world, &["confirm", &id]).await;
        world.pump().await;
        assert_eq!(world.ranking().await, "ann bob clone");
    })
    .await;
}

#[tokio::test]
async fn a_decision_about_an_unknown_detection_changes_nothing() {
    in_world(async |world: &mut World| {
        let (id, _) = self_referral(world).await;
        let unknown = Uuid::nil().to_string();
        for words in [
            &["dismiss", id.as_str(), unknown.as_str()][..],
            &["show", unknown.as_str()],
        ] {
            let refused = fraud(world, words).await;
            assert_eq!(refused.status.code(), Some(1), "{refused:?}");
            assert!(
                String::from_utf8_lossy(&refused.stderr).contains(&unknown),
                "{refused:?}"
            );
        }
        assert_eq!(world.count("fraud_detections WHERE status = 'pending'").await, 1);
    })
    .await;
}

#[tokio::test]
async fn an_address_that_is_safe_from_now_on_resolves_what_rests_on_it() {
    in_world(async |world: &mut World| {
        let bob = world.member("bob").await;
        let (clone, _) = world.friend(bob, "clone").await;
        world
            .exec(&format!(
                "UPDATE waitlist_users SET ip_address = '93.184.216.34', device_fingerprint = 'one'
                 WHERE id IN ('{bob}', '{clone}')"
            ))
            .await;
        world.pump().await;
        assert_eq!(world.count("fraud_detections WHERE status = 'pending'").await, 2);
        let interval = Duration::from_secs(900);
        let scan = Sweep::of(world, FraudScan::new(interval, settings().fraud, settings().secret));
        let scan_at = async |minutes| scan.at(Utc::now() + TimeDelta::minutes(minutes)).await["resolved"].clone();
        assert_eq!(scan_at(0).await, 0);
        world
            .exec(&format!(
                "INSERT INTO ip_safelist (campaign_id, range) VALUES ('{}', '93.184.0.0/16')",
                world.campaign
            ))
            .await;
        assert_eq!(scan_at(15).await, 1);
        assert_eq!(scan_at(30).await, 0);
        let open = "SELECT string_agg(evidence ->> 'family', ' ') FROM fraud_detections WHERE status = 'pending'";
        assert_eq!(world.text(open).await, "device");
    })
    .await;
}
