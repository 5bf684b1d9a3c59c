//! Every group protocol against a real broker: members come, leave and are killed, topics and partitions appear, and nothing
//! is lost, done twice or out of order.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::producer;
use crate::stack::{self, until};
use crate::world::World;

const WITHIN: Duration = Duration::from_secs(60);

/// Rows and partitions of the topic that is there from the start.
const ROWS: std::ops::Range<i64> = 0..48;
const PARTITIONS: i64 = 6;

/// Rows of the topic that appears later, and of the partition that is added.
const LATER_ROWS: std::ops::Range<i64> = 1_000..1_012;
const ADDED_ROW: i64 = 2_006;

/// Guests of the worker that stays; the first one leaves as asked, the others are killed.
const VISITS: i64 = 3;

type Settings = Vec<(&'static str, &'static str)>;

fn cooperative() -> Settings {
    vec![("AFTERWRITE__KAFKA__GROUP_PROTOCOL", "cooperative-sticky")]
}

fn eager() -> Settings {
    vec![
        ("AFTERWRITE__KAFKA__GROUP_PROTOCOL", "eager"),
        ("AFTERWRITE__KAFKA__ASSIGNOR", "roundrobin"),
    ]
}

/// Sessions and heartbeats are the brokers' affair.
fn consumer() -> Settings {
    vec![
        ("AFTERWRITE__KAFKA__GROUP_PROTOCOL", "consumer"),
        ("AFTERWRITE__KAFKA__SESSION_TIMEOUT_MS", ""),
        ("AFTERWRITE__KAFKA__HEARTBEAT_INTERVAL_MS", ""),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn members_of_a_cooperative_group_share_the_work_and_lose_nothing() {
    share("cooperative", cooperative()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn members_of_an_eager_group_share_the_work_and_lose_nothing() {
    share("eager", eager()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn members_of_a_group_of_the_brokers_share_the_work_and_lose_nothing() {
    share("consumer", consumer()).await;
}

/// The topics are not called as the connector would call them: a pattern finds them.
async fn share(name: &'static str, mut settings: Settings) {
    let _stack = stack::shared().await;
    let world = World::bare(name).await;
    let began = Instant::now();
    let pattern = format!(r#"["^{}\\.tenant_[0-9]+\\.jobs$"]"#, world.name);
    settings.push(("AFTERWRITE__KAFKA__METADATA_REFRESH_MS", "1000"));
    let mut settings: Vec<(&str, &str)> = settings;
    settings.push(("AFTERWRITE__KAFKA__TOPICS", &pattern));
    let (first, later) = (
        format!("{}.tenant_1.jobs", world.name),
        format!("{}.tenant_2.jobs", world.name),
    );
    producer::make_topic_of(&first, i32::try_from(PARTITIONS).unwrap()).await;
    let staying = world.worker("staying", &settings);

    // Written for as long as guests come and go, so that each of them is in the middle of something.
    let (visited, mut over) = watch::channel(false);
    let writing = async {
        let mut pace = tokio::time::interval(Duration::from_millis(200));
        let mut rounds = 0;
        while !*over.borrow_and_update() {
            pace.tick().await;
            rounds += 1;
            producer::write_round(&first, PARTITIONS, ROWS, rounds).await;
        }
        rounds
    };
    let visiting = async {
        for visit in 0..VISITS {
            let name = format!("guest{visit}");
            let guest = world.worker(&name, &settings);
            until("the guest to work", WITHIN, async || {
                let sql = "SELECT EXISTS (SELECT FROM effects WHERE worker = $1)";
                let has_worked: bool = sqlx::query_scalar(sql)
                    .bind(&name)
                    .fetch_one(&world.pool)
                    .await
                    .unwrap();
                has_worked.then_some(())
            })
            .await;
            match visit {
                0 => guest.stop().await,
                _ => guest.kill(),
            }
        }
        visited.send_replace(true);
    };
    let growing = async {
        producer::make_topic_of(&later, 2).await;
        producer::write_round(&later, 2, LATER_ROWS, 1).await;
        producer::grow(&first, usize::try_from(PARTITIONS).unwrap() + 1).await;
        let added = i32::try_from(PARTITIONS).unwrap();
        until("the partition's leader", WITHIN, async || {
            producer::try_write_change_to(&first, added, ADDED_ROW)
                .await
                .then_some(())
        })
        .await;
    };
    let (rounds, (), ()) = tokio::join!(writing, visiting, growing);

    let rows = |range: std::ops::Range<i64>| range.end - range.start;
    check(&world, rows(ROWS) * rounds + rows(LATER_ROWS) + 1, began).await;
    let said = staying.said();
    assert!(
        !said.contains("panicked") && !said.contains("failed for good"),
        "{said}"
    );
    staying.stop().await;
    world.remove().await;
}

/// Waits until every change has its effect, then checks that none has two and each row's are in order.
async fn check(world: &World, changes: i64, began: Instant) {
    let distinct = "SELECT count(DISTINCT (k, seq)) FROM effects";
    until("every change to have its effect", WITHIN, async || {
        (world.count(distinct).await == changes).then_some(())
    })
    .await;
    let twice = world.count("SELECT count(*) FROM effects").await - changes;
    let back = "SELECT count(*) FROM
        (SELECT seq < lag(seq) OVER (PARTITION BY k ORDER BY n) AS back FROM effects) t WHERE back";
    let disordered = world.count(back).await;
    let letters = world.count("SELECT count(*) FROM afterwrite.letters").await;
    let sharers = world.count("SELECT count(DISTINCT worker) FROM effects").await;
    println!(
        "{}: {changes} changes in {:.1} s: 0 lost, {twice} twice, {disordered} out of order, {letters} dead letters, \
         {sharers} workers had a share",
        world.name,
        began.elapsed().as_secs_f64()
    );
    assert_eq!((twice, disordered, letters), (0, 0, 0));
    assert_eq!(sharers, VISITS + 1, "the one that stayed and its guests");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_comes_back_under_its_name_gets_its_partitions_without_disturbing_the_others() {
    let _stack = stack::shared().await;
    let world = World::bare("static").await;
    producer::make_topic_of(&world.topic(), 2).await;
    // Long enough for a restart of a process on a busy machine.
    let with_name = |instance: &'static str| {
        [
            ("AFTERWRITE__KAFKA__SESSION_TIMEOUT_MS", "20000"),
            ("AFTERWRITE__KAFKA__INSTANCE_ID", instance),
        ]
    };
    let staying = world.worker("staying", &with_name("one"));
    let leaving = world.worker("leaving", &with_name("two"));
    until("both to have a partition", WITHIN, async || {
        let owners = "SELECT count(DISTINCT owner) FROM afterwrite.claims";
        // A claim is there before its owner says so.
        let have_said = [&staying, &leaving]
            .iter()
            .all(|worker| worker.said().contains("partition assigned"));
        (world.count(owners).await == 2 && have_said).then_some(())
    })
    .await;
    let epochs = "SELECT sum(epoch)::bigint FROM afterwrite.claims";
    let (before, assigned) = (
        world.count(epochs).await,
        staying.said().matches("partition assigned").count(),
    );
    leaving.stop().await;
    producer::write_round(&world.topic(), 2, 0..2, 1).await;
    let back = world.worker("back", &with_name("two"));
    until("both changes to have their effects", WITHIN, async || {
        (world.count("SELECT count(*) FROM effects").await == 2).then_some(())
    })
    .await;
    assert_eq!(
        world
            .count("SELECT count(*) FROM effects WHERE worker = 'staying'")
            .await,
        1
    );
    assert_eq!(
        world.count(epochs).await,
        before + 1,
        "one partition was claimed once more"
    );
    assert_eq!(
        staying.said().matches("partition assigned").count(),
        assigned,
        "nobody else was disturbed"
    );

    // A second process of that name takes over, and the one before it ends, saying why.
    let usurper = world.worker("usurper", &with_name("two"));
    until("the older one to be thrown out", WITHIN, async || {
        back.said()
            .contains("another process has joined the group with this kafka.instance_id and taken the partitions over")
            .then_some(())
    })
    .await;
    producer::write_round(&world.topic(), 2, 0..2, 2).await;
    until("the changes after it", WITHIN, async || {
        (world.count("SELECT count(*) FROM effects").await == 4).then_some(())
    })
    .await;
    let successors = world
        .count("SELECT count(*) FROM effects WHERE worker = 'usurper'")
        .await;
    assert_eq!(successors, 1);
    usurper.stop().await;
    staying.stop().await;
    back.kill();
    world.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_group_of_the_brokers_the_second_process_of_a_name_waits_for_the_first_ones_end() {
    let _stack = stack::shared().await;
    let world = World::bare("unreleased").await;
    producer::make_topic(&world.topic()).await;
    let mut settings = consumer();
    settings.push(("AFTERWRITE__KAFKA__INSTANCE_ID", "one"));
    let first = world.worker("first", &settings);
    until("the first to own the partition", WITHIN, async || {
        first.said().contains("partition assigned").then_some(())
    })
    .await;
    let second = world.worker("second", &settings);
    until("the second to wait", WITHIN, async || {
        second
            .said()
            .contains("another member of the group has this kafka.instance_id")
            .then_some(())
    })
    .await;
    first.kill();
    producer::write_change(&world.topic(), 1, "ok").await;
    until("the second to take over", WITHIN, async || {
        let sql = "SELECT count(*) FROM effects WHERE worker = 'second'";
        (world.count(sql).await == 1).then_some(())
    })
    .await;
    second.stop().await;
    world.remove().await;
}
