//! The figures that are read for whoever watches over the application, and what is counted of what was committed.

use std::sync::Arc;
use std::time::Duration;

use afterwrite::handler::{Context, Resources};
use afterwrite::handlers::figures;
use afterwrite::handlers::position::{RANKED, RANKINGS};
use afterwrite::ledger::effects::Effects;
use afterwrite::ledger::transaction::Mode;
use afterwrite::tally::Counter;
use uuid::Uuid;

use crate::world::{World, in_world};

#[tokio::test]
async fn rewards_and_detections_are_counted_by_state_without_reading_whole_tables() {
    in_world(async |world: &mut World| {
        let (ann, reward) = (world.join("ann").await, world.reward(1, &[]).await);
        let campaign = world.campaign;
        world
            .exec(&format!(
                "INSERT INTO user_rewards (campaign_id, reward_id, user_id, ordinal, status, delivered_at)
                 SELECT '{campaign}', '{reward}', '{ann}', no, CASE WHEN no <= 30 THEN 'failed' ELSE 'delivered' END,
                        CASE WHEN no > 30 THEN now() END
                 FROM generate_series(1, 10500) AS no;
                 INSERT INTO fraud_detections (campaign_id, user_id, type, evidence_key, confidence, status, created_at)
                 SELECT '{campaign}', '{ann}', 'velocity', no::text, 0.8, CASE WHEN no <= 3 THEN 'pending' ELSE 'resolved' END,
                        '2026-03-01 00:00:00Z'::timestamptz + no * interval '1 hour'
                 FROM generate_series(1, 40) AS no;
                 ANALYZE user_rewards; ANALYZE fraud_detections"
            ))
            .await;
        let mut session = world.worker_pool().acquire().await.unwrap();
        assert!(figures::are_there(&mut session).await.unwrap());
        let read = figures::read(&mut session).await.unwrap();
        // Of each state at most so many are counted.
        for (state, count) in [("held", 0), ("failed", 30), ("delivered", 10_000)] {
            assert_eq!(read.rewards[state], count, "{state}");
        }
        assert_eq!(read.detections[&("velocity", "pending")], 3);
        assert_eq!(read.detections[&("velocity", "resolved")], 37);
        assert_eq!(read.detections[&("bot", "pending")], 0);
        assert_eq!(read.oldest_review.unwrap().to_rfc3339(), "2026-03-01T01:00:00+00:00");
    })
    .await;
}

#[tokio::test]
async fn one_process_of_all_reads_the_figures() {
    in_world(async |world: &mut World| {
        let pool = world.worker_pool();
        let mut first = pool.acquire().await.unwrap().detach();
        let mut second = pool.acquire().await.unwrap();
        assert!(figures::take(&mut first).await.unwrap());
        assert!(!figures::take(&mut second).await.unwrap());
        drop(first);
        let taken = async {
            let mut every = tokio::time::interval(Duration::from_millis(20));
            while !figures::take(&mut second).await.unwrap() {
                every.tick().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), taken).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn what_is_rolled_back_is_not_counted() {
    static TRIED: Counter = Counter::new("test_tried", "Attempts of a test", &["end"]);
    in_world(async |world: &mut World| {
        world.join("ann").await;
        let event = world.last_for("email").await;
        let email = world.handler("email");
        let events = [Arc::clone(&event)];
        for end in ["rollback", "commit"] {
            let resources = Resources {
                pool: world.worker_pool(),
                effects: Effects::new(world.worker_pool(), Uuid::new_v4(), Duration::from_secs(60)),
                redo_days: Arc::default(),
            };
            let mut context = Context::new(resources, &*email, &events, 1, Mode::Deliver);
            assert!(context.once().await.unwrap().is_some());
            context.count(&TRIED, &[end], 2);
            if end == "commit" {
                context.commit().await.unwrap();
            }
        }
        assert_eq!(TRIED.told(), [(vec!["commit".to_owned()], 2)]);
    })
    .await;
}

#[tokio::test]
async fn rankings_are_counted_with_the_places_they_changed() {
    in_world(async |world: &mut World| {
        let of = |counter: &Counter| counter.told().iter().map(|(_, count)| count).sum::<u64>();
        let before = (of(&RANKINGS), of(&RANKED));
        world.member("ann").await;
        world.member("bob").await;
        world.pump().await;
        // Other tests count at the same time.
        assert!(of(&RANKINGS) > before.0 && of(&RANKED) >= before.1 + 2);
    })
    .await;
}
