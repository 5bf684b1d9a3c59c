//! The scheduled jobs: webhooks that come back, notices that were held back, windows of rewards, clean-up.

use std::sync::Arc;
use std::time::Duration;

use afterwrite::clients::webhook::{HttpCaller, WebhookSettings};
use afterwrite::handlers::erasure;
use afterwrite::schedule::cleanup::Cleanup;
use afterwrite::schedule::position_notices::PositionNotices;
use afterwrite::schedule::reward_windows::RewardWindows;
use afterwrite::schedule::runner::{self, Ended, Options};
use afterwrite::schedule::webhook_retries::WebhookRetries;
use afterwrite::schedule::{Job, Planned, rows};
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::watch;
use uuid::Uuid;

use crate::deaths::sessions_wait;
use crate::reward::granting;
use crate::servers::Receiver;
use crate::ticks::options;
use crate::world::{World, in_world, settings};

/// One job of one process, run at times of the test's own.
pub(crate) struct Sweep {
    options: Options,
    planned: Planned,
}

impl Sweep {
    pub(crate) fn of(world: &World, job: impl Job) -> Self {
        let schedule = job.schedule().unwrap();
        let job = Arc::new(job);
        Self {
            options: options(world),
            planned: Planned { job, schedule },
        }
    }

    /// Runs the newest tick, and answers what was counted.
    pub(crate) async fn at(&self, now: DateTime<Utc>) -> Value {
        let name = self.planned.job.name();
        let tick = self.planned.schedule.at_or_before(now).unwrap();
        rows::add(&self.options.pool, name, &[tick], now).await.unwrap();
        let (_stop, stopping) = watch::channel(false);
        let ended = runner::attempt(&self.planned, &self.options, tick, now, stopping)
            .await
            .unwrap();
        let row = rows::one(&self.options.pool, name, tick).await.unwrap().unwrap();
        assert_eq!(ended, Ended::Done, "{row:?}");
        row.report.unwrap()
    }
}

fn webhook_retries() -> WebhookRetries {
    let webhooks = WebhookSettings {
        timeout: Duration::from_secs(3),
        allowed_networks: vec!["127.0.0.1/32".parse().unwrap()],
    };
    let caller = Arc::new(HttpCaller::new(&webhooks).unwrap());
    WebhookRetries::new(caller, settings().secret, Duration::from_secs(60))
}

/// Ann's reward for one friend, by way of a webhook, and the attempts of its job: all made.
async fn left_to_the_schedule(world: &World, url: &str) {
    let hook = Uuid::new_v4();
    world
        .exec(&format!(
            "INSERT INTO webhooks (id, campaign_id, url, secret)
             VALUES ('{hook}', '{}', '{url}', 'whsec_QUJDREVGR0hJSktMTU5PUA==')",
            world.campaign
        ))
        .await;
    let webhook = format!("'{hook}'");
    world
        .reward(1, &[("delivery_method", "'webhook'"), ("webhook_id", &webhook)])
        .await;
    let ann = world.member("ann").await;
    world.friend(ann, "friend").await;
    world.deliver_to("reward").await.unwrap();
    let event = world.last_for("reward").await;
    world.attempt_no("reward", &event, 4).await.unwrap();
    // The test's hours pass at once, and no lease is over by itself.
    world.exec("UPDATE afterwrite.effects SET lease_until = now()").await;
}

const DELIVERY: &str = "SELECT concat_ws(' ', status, retries, last_code) FROM webhook_deliveries";

#[tokio::test]
async fn an_endpoint_that_comes_back_hours_later_gets_the_same_id_and_bytes() {
    in_world(async |world: &mut World| {
        let receiver = Receiver::start(&["500 Oops", "503 Busy", "429 Later\r\nretry-after: 10800"]).await;
        left_to_the_schedule(world, &receiver.url).await;
        assert_eq!(world.text(DELIVERY).await, "retrying 0 500");
        let sweep = Sweep::of(world, webhook_retries());
        let now = Utc::now();
        let minutes = |minutes| now + TimeDelta::minutes(minutes);
        for (after, calls, said) in [
            (3, 1, "retrying 0 500"),
            (6, 2, "retrying 1 503"),
            (30, 2, "retrying 1 503"),
            (37, 3, "retrying 2 429"),
            // It asked for three hours, and two would have been next.
            (37 + 121, 3, "retrying 2 429"),
            (37 + 182, 4, "delivered 3 204"),
            (99_999, 4, "delivered 3 204"),
        ] {
            sweep.at(minutes(after)).await;
            assert_eq!(receiver.requests().len(), calls, "after {after} min");
            assert_eq!(world.text(DELIVERY).await, said, "after {after} min");
        }
        assert_eq!(world.text("SELECT status FROM user_rewards").await, "delivered");
        let requests = receiver.requests();
        for request in &requests {
            assert_eq!(request.header("webhook-id"), requests[0].header("webhook-id"));
            assert_eq!(request.body, requests[0].body);
        }
        assert_eq!(
            world
                .count("afterwrite.effects WHERE state = 'sent' AND calls = 4")
                .await,
            1
        );
    })
    .await;
}

#[tokio::test]
async fn an_endpoint_that_was_paused_gets_its_first_call_when_it_goes_on() {
    in_world(async |world: &mut World| {
        let receiver = Receiver::start(&[]).await;
        world
            .exec(
                "CREATE FUNCTION pause() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN NEW.status := 'paused'; RETURN NEW; END$$;
                 CREATE TRIGGER pause BEFORE INSERT ON webhooks FOR EACH ROW EXECUTE FUNCTION pause()",
            )
            .await;
        left_to_the_schedule(world, &receiver.url).await;
        let sweep = Sweep::of(world, webhook_retries());
        let now = Utc::now();
        sweep.at(now + TimeDelta::minutes(6)).await;
        assert_eq!(world.text(DELIVERY).await, "retrying 0");
        assert_eq!(receiver.requests().len(), 0);
        world.exec("UPDATE webhooks SET status = 'active'").await;
        let report = sweep.at(now + TimeDelta::minutes(12)).await;
        assert_eq!(report["delivered"], 1);
        assert!(receiver.requests()[0].body.contains("reward.earned"));
    })
    .await;
}

#[tokio::test]
async fn the_schedule_makes_no_call_from_facts_of_before_an_erasure() {
    in_world(async |world: &mut World| {
        let receiver = Receiver::start(&[]).await;
        left_to_the_schedule(world, "http://127.0.0.1:1/").await;
        world
            .exec(&format!(
                "UPDATE webhooks SET url = '{}'; DELETE FROM afterwrite.effects WHERE handler = 'reward'",
                receiver.url
            ))
            .await;
        let ann = world.text("SELECT user_id FROM user_rewards").await.parse().unwrap();
        let mut erasing = world.worker_pool().begin().await.unwrap();
        erasure::erase(&mut erasing, ann, "public.waitlist_users", "test")
            .await
            .unwrap();
        let sweep = Sweep::of(world, webhook_retries());
        let committing = async {
            sessions_wait(world, 1).await;
            erasing.commit().await.unwrap();
        };
        let both = async { tokio::join!(sweep.at(Utc::now() + TimeDelta::minutes(6)), committing) };
        let waited = tokio::time::timeout(Duration::from_secs(20), both).await;
        let (report, ()) = waited.expect("the call waits for the erasure");
        assert_eq!((&report["not_called"], receiver.requests().len()), (&Value::from(1), 0));
        assert_eq!(world.text(DELIVERY).await, "skipped 0");
        assert_eq!(world.count("afterwrite.effects WHERE handler = 'reward'").await, 0);
    })
    .await;
}

#[tokio::test]
async fn a_call_of_the_schedule_that_was_accepted_was_made_whatever_the_facts_say_since() {
    in_world(async |world: &mut World| {
        let receiver = Receiver::start(&["500 Oops"]).await;
        left_to_the_schedule(world, &receiver.url).await;
        // What a process leaves that dies before the last transaction of a call that was accepted.
        world
            .exec("UPDATE afterwrite.effects SET reply = '204', accepted_at = now(); UPDATE user_rewards SET status = 'revoked'")
            .await;
        let report = Sweep::of(world, webhook_retries()).at(Utc::now() + TimeDelta::minutes(6)).await;
        assert_eq!((&report["delivered"], receiver.requests().len()), (&Value::from(1), 1));
        assert_eq!(world.text(DELIVERY).await, "delivered 0 500");
        let reward = "SELECT status || ' ' || (delivered_at IS NOT NULL) FROM user_rewards";
        assert_eq!(world.text(reward).await, "revoked true");
    })
    .await;
}

#[tokio::test]
async fn a_delivery_that_another_process_has_waits_for_the_end_of_its_lease() {
    in_world(async |world: &mut World| {
        let receiver = Receiver::start(&["500 Oops"]).await;
        left_to_the_schedule(world, &receiver.url).await;
        world
            .exec("UPDATE afterwrite.effects SET lease_until = now() + interval '30 minutes'")
            .await;
        let sweep = Sweep::of(world, webhook_retries());
        let now = Utc::now();
        let report = sweep.at(now + TimeDelta::minutes(6)).await;
        assert_eq!(
            (&report["not_called"], &report["delivered"]),
            (&Value::from(1), &Value::from(0))
        );
        assert_eq!(sweep.at(now + TimeDelta::minutes(30)).await["not_called"], 0);
        world.exec("UPDATE afterwrite.effects SET lease_until = now()").await;
        assert_eq!(sweep.at(now + TimeDelta::minutes(37)).await["delivered"], 1);
    })
    .await;
}

#[tokio::test]
async fn an_endpoint_that_never_comes_back_is_given_up_and_one_that_is_gone_at_once() {
    in_world(async |world: &mut World| {
        left_to_the_schedule(world, "http://127.0.0.1:1/").await;
        let sweep = Sweep::of(world, webhook_retries());
        let mut now = Utc::now();
        for retries in 1..=8 {
            now += TimeDelta::hours(25);
            sweep.at(now).await;
            let status = if retries < 8 { "retrying" } else { "failed" };
            assert_eq!(world.text(DELIVERY).await, format!("{status} {retries}"));
        }
        let reward = "SELECT status || ' ' || delivery_error FROM user_rewards";
        assert_eq!(world.text(reward).await, "failed webhook_unreachable");
    })
    .await;
    in_world(async |world: &mut World| {
        let receiver = Receiver::start(&["500 Oops", "410 Gone"]).await;
        left_to_the_schedule(world, &receiver.url).await;
        Sweep::of(world, webhook_retries())
            .at(Utc::now() + TimeDelta::minutes(6))
            .await;
        assert_eq!(world.text(DELIVERY).await, "failed 1 410");
        assert_eq!(world.text("SELECT status FROM webhooks").await, "disabled");
    })
    .await;
}

/// Takes connections and answers nobody.
async fn silent() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    (listener, url)
}

#[tokio::test]
async fn many_dead_endpoints_do_not_hold_up_one_that_works() {
    in_world(async |world: &mut World| {
        let receiver = Receiver::start(&["500 Oops"]).await;
        left_to_the_schedule(world, &receiver.url).await;
        let (_listener, dead) = silent().await;
        // Forty endpoints that let their callers wait, each with twenty deliveries that were due before.
        world
            .exec(&format!(
                "WITH hook AS (INSERT INTO webhooks (campaign_id, url, secret)
                               SELECT '{campaign}', '{dead}', 'whsec_QUJDREVGR0hJSktMTU5PUA==' FROM generate_series(1, 40)
                               RETURNING id),
                      reward AS (INSERT INTO rewards (campaign_id, name, type, trigger_type, delivery_method, webhook_id, user_limit)
                                 SELECT '{campaign}', 'R', 'custom', 'manual', 'webhook', hook.id, 20 FROM hook
                                 RETURNING id, webhook_id),
                      given AS (INSERT INTO user_rewards (campaign_id, reward_id, user_id, ordinal)
                                SELECT '{campaign}', reward.id, ann.id, k
                                FROM reward, generate_series(1, 20) AS k,
                                     (SELECT id FROM waitlist_users WHERE first_name = 'ann') AS ann
                                RETURNING id, reward_id)
                 INSERT INTO webhook_deliveries (effect_key, campaign_id, webhook_id, event_type, status, next_attempt_at)
                 SELECT 'reward_webhook:' || given.id || ':0', '{campaign}', reward.webhook_id, 'reward.earned', 'retrying', now()
                 FROM given JOIN reward ON reward.id = given.reward_id",
                campaign = world.campaign
            ))
            .await;
        let began = tokio::time::Instant::now();
        let report = Sweep::of(world, webhook_retries()).at(Utc::now() + TimeDelta::minutes(6)).await;
        let took = began.elapsed();
        assert_eq!(report["delivered"], 1, "{report}");
        // Two calls of each were worth it; the rest waits for another five minutes.
        assert_eq!(report["not_accepted"], 80, "{report}");
        assert_eq!(report["put_off"], 40 * 18, "{report}");
        println!("40 dead endpoints with 800 deliveries and one that works: {took:?}");
        assert!(took < Duration::from_secs(20), "{took:?}");
    })
    .await;
}

#[tokio::test]
async fn what_the_interval_held_back_is_told_when_it_has_passed() {
    in_world(async |world: &mut World| {
        for (user, position, told, hours) in [("ann", 1, 3, 25), ("bob", 2, 4, 23), ("eve", 3, 3, 99), ("kim", 4, 2, 99)] {
            let id = world.member(user).await;
            world
                .exec(&format!(
                    "INSERT INTO waitlist_positions (campaign_id, user_id, entry_no, position, score, signed_up_at, told_position, told_at)
                     VALUES ('{}', '{id}', {position}, {position}, 1, now(), {told}, now() - {hours} * interval '1 hour')",
                    world.campaign
                ))
                .await;
        }
        let sweep = Sweep::of(world, PositionNotices);
        let now = Utc::now();
        assert_eq!(sweep.at(now).await["told"], 1);
        let changes = "SELECT string_agg(u.first_name || ' ' || old_position || '>' || new_position || ' ' || cause, ',')
                       FROM position_changes JOIN waitlist_users u ON u.id = user_id";
        assert_eq!(world.text(changes).await, "ann 3>1 improved");
        assert_eq!(sweep.at(now + TimeDelta::minutes(1)).await["told"], 0);
        // Nothing is told while the campaign is paused.
        world.exec("UPDATE waitlist_positions SET told_at = NULL; UPDATE campaigns SET status = 'paused'").await;
        assert_eq!(sweep.at(now + TimeDelta::minutes(2)).await["told"], 0);
    })
    .await;
}

#[tokio::test]
async fn a_reward_whose_time_has_come_is_given_and_one_whose_time_is_over_expires() {
    in_world(async |world: &mut World| {
        let reward = world
            .reward(
                1,
                &[("total_available", "1"), ("starts_at", "now() + interval '1 hour'")],
            )
            .await;
        let (ann, bob) = (world.member("ann").await, world.member("bob").await);
        world.friend(ann, "friend").await;
        world.friend(bob, "other").await;
        let sweep = Sweep::of(world, RewardWindows::new(granting()));
        let now = Utc::now();
        assert_eq!(sweep.at(now).await["rounds"], 0);
        world.pump().await;
        assert_eq!(world.count("user_rewards").await, 0);
        // Only the clock says it now: of this change nobody hears.
        world
            .exec(&format!("UPDATE rewards SET starts_at = now() WHERE id = '{reward}'"))
            .await;
        world.recorder.drain().await.unwrap();
        assert_eq!(sweep.at(now + TimeDelta::minutes(1)).await["rounds"], 1);
        world.pump().await;
        assert_eq!(world.count("user_rewards WHERE status <> 'expired'").await, 1);
        // It expires: what there is of it goes to whoever waits.
        world
            .exec("UPDATE user_rewards SET expires_at = now() - interval '1 second'")
            .await;
        let report = sweep.at(now + TimeDelta::minutes(2)).await;
        assert_eq!(
            (&report["expired"], &report["rounds"]),
            (&Value::from(1), &Value::from(1)),
            "{report}"
        );
        world.pump().await;
        assert_eq!(world.count("user_rewards WHERE status <> 'expired'").await, 1);
        assert_eq!(
            world
                .count("(SELECT DISTINCT user_id FROM user_rewards) AS owners")
                .await,
            2
        );
        // Windows that did not change begin no round again.
        let later = now + TimeDelta::minutes(20);
        sweep.at(later).await;
        assert_eq!(sweep.at(later + TimeDelta::minutes(1)).await["rounds"], 0);
    })
    .await;
}

#[tokio::test]
async fn a_reward_that_was_held_back_is_earned_when_the_delay_is_over() {
    in_world(async |world: &mut World| {
        world.reward(1, &[]).await;
        let ann = world.member("ann").await;
        world.friend(ann, "friend").await;
        let mut granting = granting();
        granting.delay = Duration::from_secs(3_600);
        let mut connection = world.pool.acquire().await.unwrap();
        granting.reconcile(&mut connection, &[ann], false).await.unwrap();
        assert_eq!(world.text("SELECT status FROM user_rewards").await, "held");
        let sweep = Sweep::of(world, RewardWindows::new(granting));
        let now = Utc::now();
        assert_eq!(sweep.at(now).await["released"], 0);
        world
            .exec("UPDATE user_rewards SET created_at = created_at - interval '1 hour'")
            .await;
        // Its campaign may be complete by then.
        world.exec("UPDATE campaigns SET status = 'completed'").await;
        assert_eq!(sweep.at(now + TimeDelta::minutes(1)).await["released"], 1);
        assert_eq!(world.text("SELECT status FROM user_rewards").await, "earned");
    })
    .await;
}

#[tokio::test]
async fn the_clean_up_empties_and_forgets_what_is_old_and_nothing_else() {
    in_world(async |world: &mut World| {
        world
            .exec(
                "INSERT INTO email_log (effect_key, campaign_id, type, status, recipient, subject, variables, smtp_reply, sent_at, updated_at)
                 SELECT 'm' || days || status, gen_random_uuid(), 'custom', status, 'r', 's', '{}', '250 kept for r',
                        CASE status WHEN 'sent' THEN now() - days * interval '1 day' END, now() - days * interval '1 day'
                 FROM unnest('{29,31}'::int[]) AS days, unnest('{sent,failed,queued}'::text[]) AS status;
                 INSERT INTO webhook_deliveries (effect_key, webhook_id, event_type, status, response_excerpt, updated_at, delivered_at, next_attempt_at)
                 SELECT 'w' || days || status, gen_random_uuid(), 'e', status, 'answer', now() - days * interval '1 day', now(), now() + interval '1 day'
                 FROM unnest('{29,31}'::int[]) AS days, unnest('{delivered,retrying}'::text[]) AS status;
                 INSERT INTO afterwrite.effects (effect_key, handler, state, rendered, reply, owner, lease_until, updated_at, event_id)
                 SELECT 'e' || days || state, 'email', state, 'bytes', '250 kept for r', gen_random_uuid(), now(), now() - days * interval '1 day',
                        decode(lpad(days::text || CASE state WHEN 'failed' THEN '1' ELSE '0' END, 32, '0'), 'hex')
                 FROM unnest('{29,31,399,401}'::int[]) AS days, unnest('{sent,failed,sending}'::text[]) AS state;
                 INSERT INTO email_log (effect_key, campaign_id, type, status)
                 SELECT 'g' || days || status, gen_random_uuid(), 'custom', status
                 FROM unnest('{29,31}'::int[]) AS days, unnest('{skipped,sending}'::text[]) AS status;
                 INSERT INTO afterwrite.effects (effect_key, handler, state, rendered, owner, lease_until)
                 SELECT 'g' || days || status, 'email', 'sending', 'bytes', gen_random_uuid(), now() - days * interval '1 day'
                 FROM unnest('{29,31}'::int[]) AS days, unnest('{skipped,sending}'::text[]) AS status;
                 INSERT INTO afterwrite.letters (letter_id, group_name, handler, event_id, class, error, attempts, first_failed_at,
                     failed_at, source_topic, source_partition, source_offset, dlq_topic, dlq_partition, dlq_offset, state)
                 VALUES ('l', 'g', 'email', decode(lpad('4011', 32, '0'), 'hex'), 'permanent', 'x', 1, now(), now(), 't', 0, 0, 't', 0, 0, 'open');
                 INSERT INTO afterwrite.schedule_runs (job, tick, status, next_attempt_at, finished_at)
                 SELECT 'digest', now() - days * interval '1 day', 'done', now(), now() FROM generate_series(25, 65, 10) AS days;
                 INSERT INTO afterwrite.schedule_runs (job, tick, status, next_attempt_at, finished_at)
                 VALUES ('retired', now() - interval '1 year', 'done', now(), now())",
            )
            .await;
        let sweep = Sweep::of(world, Cleanup::new("UTC", TimeDelta::days(400)));
        let report = sweep.at(Utc::now()).await;
        let counted = |name: &str| report[name].as_u64().unwrap();
        assert_eq!(
            [
                counted("effects_forgotten"),
                counted("effects_emptied"),
                counted("mails_emptied"),
                counted("excerpts_emptied"),
                counted("runs_forgotten"),
            ],
            [2, 2, 2, 1, 4],
            "{report}"
        );
        let left = |table: &str, what: &str, whose: &str| {
            format!("SELECT string_agg({what}, ' ' ORDER BY {what}) FROM {table} WHERE {whose}")
        };
        for (table, whose, expected) in [
            ("email_log", "effect_key LIKE 'm%' AND num_nonnulls(recipient, subject, variables, smtp_reply) = 0", "m31failed m31sent"),
            ("webhook_deliveries", "response_excerpt IS NULL", "w31delivered"),
            ("afterwrite.effects", "effect_key LIKE 'e%' AND rendered = '' AND reply IS NULL", "e31sent e399sent"),
            // A letter may still ask for the one, and the other's end is not known.
            ("afterwrite.effects", "updated_at < now() - interval '400 days'", "e401failed e401sending"),
            // What was given up is not tried any more after so long a time.
            ("afterwrite.effects", "effect_key LIKE 'g%'", "g29sending g29skipped g31sending"),
        ] {
            assert_eq!(world.text(&left(table, "effect_key", whose)).await, expected, "{table}");
        }
        assert_eq!(world.count("afterwrite.schedule_runs WHERE job = 'retired'").await, 1);
        assert_eq!(sweep.at(Utc::now() + TimeDelta::days(1)).await["mails_emptied"], 2);
    })
    .await;
}
