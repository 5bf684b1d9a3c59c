//! The play: what the application writes, and what must follow from it.

use sqlx::postgres::PgPool;

use super::campaign::{CALL_REWARD, Campaign, MAIL_REWARD, NAME, Person};
use super::failure::DemoFailure;
use super::stage::Stage;

const ALAN: Person = stranger("alan", "alan@turing.example");
const EDSGER: Person = stranger("edsger", "edsger@dijkstra.example");
const ADA: Person = Person {
    device: Some("lovelace-laptop"),
    verified: false,
    ..stranger("ada", "ada@lovelace.example")
};
const GRACE: Person = friend("grace", "grace@hopper.example", None);
const KATHERINE: Person = friend("katherine", "katherine@johnson.example", None);
/// The device of her referrer, and an address that is thrown away.
const MALLORY: Person = friend("mallory", "mallory@mailinator.com", ADA.device);
pub(super) const LINUS: Person = Person {
    verified: false,
    ..stranger("linus", "linus@torvalds.example")
};

/// Somebody who comes alone, with an address the application trusts already.
const fn stranger(name: &'static str, email: &'static str) -> Person {
    Person {
        name,
        email,
        device: None,
        friend_of: None,
        verified: true,
    }
}

/// Somebody who comes with Ada's code.
const fn friend(name: &'static str, email: &'static str, device: Option<&'static str>) -> Person {
    Person {
        name,
        email,
        device,
        friend_of: Some(ADA.name),
        verified: false,
    }
}

/// Plays a small campaign's life.
pub(super) async fn play(stage: &mut Stage<'_>, campaign: &Campaign) -> Result<(), DemoFailure> {
    opening(stage, campaign).await?;
    founder(stage, campaign).await?;
    first_friend(stage, campaign).await?;
    fraudster(stage, campaign).await?;
    second_friend(stage, campaign).await
}

async fn opening(stage: &mut Stage<'_>, campaign: &Campaign) -> Result<(), DemoFailure> {
    for (person, place) in [(ALAN, "place alan 1"), (EDSGER, "place edsger 2")] {
        let rows = campaign.sign_up(&person).await.map_err(DemoFailure::Write)?;
        let what = format!("{} signs up, verified elsewhere", person.name);
        stage.did(&what, "INSERT waitlist_users", rows);
        stage.expect(&[&format!("mail welcome {}", person.name), place]).await?;
    }
    Ok(())
}

async fn founder(stage: &mut Stage<'_>, campaign: &Campaign) -> Result<(), DemoFailure> {
    let rows = campaign.sign_up(&ADA).await.map_err(DemoFailure::Write)?;
    stage.did("ada signs up", "INSERT waitlist_users", rows);
    stage.expect(&["mail verification ada", "place ada 3"]).await?;

    let rows = campaign.verify(&ADA).await.map_err(DemoFailure::Write)?;
    stage.did("ada follows the link in her mail", "UPDATE waitlist_users", rows);
    stage.expect(&["mail welcome ada"]).await
}

async fn first_friend(stage: &mut Stage<'_>, campaign: &Campaign) -> Result<(), DemoFailure> {
    let rows = campaign.sign_up(&GRACE).await.map_err(DemoFailure::Write)?;
    let statement = "INSERT waitlist_users, referrals";
    stage.did("grace joins through ada's link", statement, rows);
    stage.expect(&["mail verification grace", "place grace 4"]).await?;

    let rows = campaign.verify(&GRACE).await.map_err(DemoFailure::Write)?;
    stage.did(
        &format!("grace verifies: one friend, which is worth “{CALL_REWARD}” by webhook"),
        "UPDATE waitlist_users, referrals",
        rows,
    );
    stage
        .expect(&[
            "mail welcome grace",
            "place ada 2",
            "credit ada 1",
            &format!("reward ada {CALL_REWARD} earned"),
            "webhook reward.earned",
            &format!("reward ada {CALL_REWARD} delivered"),
        ])
        .await
}

async fn fraudster(stage: &mut Stage<'_>, campaign: &Campaign) -> Result<(), DemoFailure> {
    let rows = campaign.sign_up(&MALLORY).await.map_err(DemoFailure::Write)?;
    stage.did(
        "mallory joins through ada's link, on ada's own device, with a throw-away address",
        "INSERT waitlist_users, referrals",
        rows,
    );
    stage
        .expect(&[
            "mail verification mallory",
            "place mallory 5",
            "fraud mallory self_referral",
            "fraud mallory disposable_email",
        ])
        .await?;

    let rows = campaign.verify(&MALLORY).await.map_err(DemoFailure::Write)?;
    let statement = "UPDATE waitlist_users, referrals";
    stage.did("mallory verifies, which would be ada's second friend", statement, rows);
    stage.expect(&["mail welcome mallory", "ranked", "reconciled"]).await?;
    only_one_counts(stage)?;
    stage
        .screen
        .proof("held: ranked and reconciled again, and ada keeps place 2, one friend and one reward");
    Ok(())
}

/// A held referral moves nobody and earns nothing.
fn only_one_counts(stage: &Stage<'_>) -> Result<(), DemoFailure> {
    let state = stage.state();
    let ada = state.place_of(ADA.name).map(|ada| (ada.place, ada.credit));
    if ada == Some((2, 1)) && state.rewards.len() == 1 {
        return Ok(());
    }
    Err(DemoFailure::Wrong(
        "the fraudster's referral was credited although it should have been held",
    ))
}

async fn second_friend(stage: &mut Stage<'_>, campaign: &Campaign) -> Result<(), DemoFailure> {
    let rows = campaign.sign_up(&KATHERINE).await.map_err(DemoFailure::Write)?;
    let statement = "INSERT waitlist_users, referrals";
    stage.did("katherine joins through ada's link", statement, rows);
    stage
        .expect(&["mail verification katherine", "place katherine 6"])
        .await?;

    let rows = campaign.verify(&KATHERINE).await.map_err(DemoFailure::Write)?;
    stage.did(
        &format!("katherine verifies: two friends, which are worth “{MAIL_REWARD}” by mail"),
        "UPDATE waitlist_users, referrals",
        rows,
    );
    // Two and not three: whoever counted mallory meanwhile would be found out here.
    stage
        .expect(&[
            "mail welcome katherine",
            "place ada 1",
            "credit ada 2",
            &format!("reward ada {MAIL_REWARD} earned"),
            "mail reward_earned ada",
            &format!("reward ada {MAIL_REWARD} delivered"),
        ])
        .await
}

/// Opens the campaign; answers it and how many rows that took.
pub(super) async fn open(pool: &PgPool, url: &str, secret: &str) -> Result<(Campaign, u64), DemoFailure> {
    Campaign::open(pool, url, secret).await.map_err(DemoFailure::Write)
}

/// How the opening is announced.
pub(super) fn opening_words() -> String {
    format!("the campaign {NAME} opens, with two rewards")
}
