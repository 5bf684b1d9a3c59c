//! Many changes of one campaign at once: few rankings, right places, and nothing that goes on for ever. And rewards that
//! everybody gets, page by page.
//!
//! `BURST=n` takes n signups and twice as many referrals instead of a few hundred; the figures are printed.

use std::collections::BTreeMap;
use std::sync::Arc;

use afterwrite::event::change::ChangeEvent;
use afterwrite::handler::Handler;
use afterwrite::handlers::position::sql::rank;
use afterwrite::ledger::transaction::Mode;
use afterwrite::router::Router;
use tokio::time::Instant;
use uuid::Uuid;

use crate::world::{World, in_world};

/// Brings changes to one group as an engine would: lane by lane, as many at once as the handler takes. Answers how many
/// calls that were.
async fn bring(world: &World, group: &str, events: &[Arc<ChangeEvent>]) -> usize {
    let handler: Arc<dyn Handler> = world.handler(group);
    let most = handler.spec().coalesce_max;
    let router = Router::new(vec![handler]);
    let mut lanes: BTreeMap<(String, u64), Vec<Arc<ChangeEvent>>> = BTreeMap::new();
    for event in events {
        for woken in router.route(event) {
            let lane = (event.origin().table.to_string(), woken.key);
            lanes.entry(lane).or_default().push(Arc::clone(event));
        }
    }
    let mut calls = 0;
    for waiting in lanes.values() {
        for together in waiting.chunks(most) {
            world.events_to(group, together, Mode::Deliver).await.unwrap();
            calls += 1;
        }
    }
    calls
}

/// Signs users up who refer two others each, all at once: of every three users one has four friends, and one has none.
async fn burst(world: &World, users: usize) {
    let campaign = world.campaign;
    world
        .exec(&format!(
            "INSERT INTO waitlist_users (id, campaign_id, email, first_name, referral_code, status, email_verified, created_at)
             SELECT md5('burst ' || n)::uuid, '{campaign}', 'u' || n || '@burst.example', 'u' || n, 'u' || n, 'verified', true,
                    '2026-02-01'::timestamptz + n * interval '1 second'
             FROM generate_series(0, {users} - 1) AS n;
             INSERT INTO referrals (campaign_id, referrer_id, referred_id, status)
             SELECT '{campaign}', md5('burst ' || CASE n % 3 WHEN 1 THEN n - 1 ELSE n END)::uuid,
                    md5('burst ' || (n + 31 * step) % {users})::uuid, 'verified'
             FROM generate_series(0, {users} - 1) AS n CROSS JOIN generate_series(1, 2) AS step;"
        ))
        .await;
}

#[tokio::test]
async fn a_burst_is_few_rankings_and_comes_to_rest() {
    let users = std::env::var("BURST").map_or(300, |text| text.parse().unwrap());
    in_world(async |world: &mut World| {
        world.reward(2, &[("delivery_method", "'manual'")]).await;
        burst(world, users).await;
        let referrals = world.count("referrals").await;
        let events = world.recorder.drain().await.unwrap();
        let began = Instant::now();
        let rankings = bring(world, "position", &events).await;
        let took = began.elapsed();
        let mut connection = world.pool.acquire().await.unwrap();
        assert_eq!(
            rank(&mut connection, world.campaign, 80).await.unwrap(),
            0,
            "the full ranking differs"
        );
        assert!(rankings <= 2 + (users + 2 * users) / 500 + 2, "{rankings} rankings");
        println!("{users} signups, {referrals} referrals: {rankings} rankings, places right after {took:?}");
        let mut waiting = events;
        let mut own: BTreeMap<String, usize> = BTreeMap::new();
        for round in 1..=20 {
            let mut calls = Vec::new();
            for group in ["fraud", "reward", "position"] {
                calls.push(bring(world, group, &waiting).await);
            }
            waiting = world.recorder.drain().await.unwrap();
            println!(
                "round {round}: calls of fraud, reward, position {calls:?}, then {} changes of our own",
                waiting.len()
            );
            for event in &waiting {
                *own.entry(event.origin().table.to_string()).or_default() += 1;
            }
            if waiting.is_empty() {
                println!("changes of our own: {own:?}");
                return;
            }
        }
        panic!("the handlers do not come to rest: {own:?}");
    })
    .await;
}

/// More users than a page takes.
const MANY: usize = 1_203;

#[tokio::test]
async fn a_milestone_rewards_everybody_who_was_there_in_pages_that_are_jobs() {
    in_world(async |world: &mut World| {
        burst(world, MANY).await;
        bring(world, "position", &world.recorder.drain().await.unwrap()).await;
        let late = world.member("late").await;
        world
            .exec(&format!(
                "UPDATE waitlist_users SET created_at = now() + interval '1 minute' WHERE id = '{late}'"
            ))
            .await;
        let reward = world.reward(5, &[("delivery_method", "'manual'")]).await;
        world
            .exec(&format!(
                "UPDATE rewards SET trigger_type = 'milestone' WHERE id = '{reward}'"
            ))
            .await;
        let jobs = rest(world).await;
        assert_eq!(
            world
                .count("user_rewards WHERE status = 'earned' AND cause = 'milestone'")
                .await,
            i64::try_from(MANY).unwrap()
        );
        assert!(jobs >= 3, "{jobs} jobs");
        assert_eq!(world.count("reward_rounds WHERE ended_at IS NULL").await, 0);
    })
    .await;
}

#[tokio::test]
async fn what_is_limited_goes_to_the_best_places() {
    in_world(async |world: &mut World| {
        burst(world, MANY).await;
        bring(world, "position", &world.recorder.drain().await.unwrap()).await;
        world
            .reward(1, &[("delivery_method", "'manual'"), ("total_available", "700")])
            .await;
        rest(world).await;
        assert_eq!(world.count("user_rewards WHERE status = 'earned'").await, 700);
        let overtaken = world
            .count(
                "waitlist_positions p WHERE verified_referrals >= 1
                 AND NOT EXISTS (SELECT FROM user_rewards o WHERE o.user_id = p.user_id)
                 AND position < (SELECT max(best.position) FROM waitlist_positions best
                                 JOIN user_rewards o ON o.user_id = best.user_id)",
            )
            .await;
        assert_eq!(overtaken, 0);
        // What is taken back goes to who waits, and nobody else.
        world
            .exec(
                "UPDATE waitlist_users SET status = 'blocked'
                 WHERE id = (SELECT user_id FROM user_rewards ORDER BY user_id LIMIT 1)",
            )
            .await;
        rest(world).await;
        assert_eq!(world.count("user_rewards WHERE status = 'earned'").await, 700);
        assert_eq!(world.count("user_rewards WHERE status = 'revoked'").await, 1);
    })
    .await;
}

#[tokio::test]
async fn completion_rewards_the_last_places_whoever_of_the_two_comes_first() {
    for order in [["position", "reward"], ["reward", "position"]] {
        in_world(async |world: &mut World| {
            let mut ids = Vec::new();
            for name in ["ann", "bob", "cleo"] {
                ids.push(world.member(name).await);
            }
            let reward = world.reward(1, &[("delivery_method", "'manual'")]).await;
            world
                .exec(&format!(
                    "UPDATE rewards SET trigger_type = 'position' WHERE id = '{reward}'"
                ))
                .await;
            bring(world, "position", &world.recorder.drain().await.unwrap()).await;
            // The referral that makes her the first is not ranked yet when the campaign completes.
            world.friend(ids[2], "dan").await;
            world.friend(ids[2], "eve").await;
            world.exec("UPDATE campaigns SET status = 'completed'").await;
            let events = world.recorder.drain().await.unwrap();
            for group in order {
                bring(world, group, &events).await;
            }
            rest(world).await;
            let winner: Vec<Uuid> = sqlx::query_scalar("SELECT user_id FROM user_rewards WHERE status = 'earned'")
                .fetch_all(&world.pool)
                .await
                .unwrap();
            assert_eq!(winner, [ids[2]], "{order:?}");
            assert_eq!(world.count("ranked_campaigns WHERE completed_by IS NOT NULL").await, 1);
        })
        .await;
    }
}

/// Lets the groups work until nothing changes; answers how many calls `reward` got.
async fn rest(world: &World) -> usize {
    let mut calls = 0;
    for _ in 0..30 {
        let waiting = world.recorder.drain().await.unwrap();
        if waiting.is_empty() {
            return calls;
        }
        calls += bring(world, "reward", &waiting).await;
        bring(world, "position", &waiting).await;
    }
    panic!("the handlers do not come to rest");
}
