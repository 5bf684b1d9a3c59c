//! One suite for every source: whether it keeps what [`crate::event::delivery`] says that a source promises.
//!
//! `source_suite!` makes a test of each check for one source, which a [`Subject`] stands for. A source that
//! has no such part says so with the reason, which the check answers.

mod process;

mod subject;

pub use self::subject::{Ended, Part, Subject, Write, records};

use std::collections::HashMap;
use std::time::Duration;

use self::process::{Came, Process, Seen, after, inserts, until, until_kept};
use crate::event::change::{Change, ChangeEvent};
use crate::event::delivery::{Content, Delivery, SourceCommand};
use crate::event::id::EventId;

/// Makes a test of each check. The first argument makes a subject of the name of the check, and may wait; the second is told why a
/// check does not apply. It is used by its bare name (`use afterwrite::source_suite`), because it uses itself by that.
#[macro_export]
macro_rules! source_suite {
    ($subject:expr, $told:expr) => {
        source_suite! {
            $subject, $told =>
            deliveries_come_in_order_under_the_epoch_of_their_assignment
            what_was_not_committed_comes_again_the_same_and_nothing_else_does
            who_leaves_has_kept_the_last_positions_and_is_told_nothing_more
            orders_of_an_earlier_epoch_change_nothing
            a_paused_partition_delivers_nothing_and_then_goes_on_where_it_was
            a_partition_that_is_let_go_moves_with_the_positions_of_the_answer
            a_partition_that_was_lost_comes_back_at_what_was_kept
            an_engine_that_takes_nothing_loses_nothing
            an_engine_that_takes_nothing_is_obeyed
            being_caught_up_is_told_when_everything_is_settled
            what_nobody_wants_holds_nothing_back
            bytes_that_cannot_be_decoded_come_in_their_place
        }
    };
    ($subject:expr, $told:expr => $($check:ident)*) => {$(
        #[tokio::test(flavor = "multi_thread")]
        async fn $check() {
            let subject = $subject(stringify!($check)).await;
            if let Some(reason) = $crate::testkit::source_suite::$check(&subject).await {
                $told(reason);
            }
            $crate::testkit::source_suite::Subject::remove(subject).await;
        }
    )*};
}

/// Why a check does not apply.
pub type Inapplicable = Option<&'static str>;

/// Deliveries that wait for the suite at most, where it matters not.
const UNHEARD_MAX: usize = 256;

/// What is written where a channel is to be full: more than any source keeps before it.
const FLOOD: i64 = 3_000;

/// What nobody wants has to be passed over also where it is much: sources may wait with telling for a megabyte.
const UNWANTED: usize = 1_500;

/// A group that has begun: one process, to which the partition was assigned.
async fn begun(subject: &dyn Subject) -> (Process, Seen) {
    begun_with(subject, UNHEARD_MAX).await
}

async fn begun_with(subject: &dyn Subject, unheard_max: usize) -> (Process, Seen) {
    let seen = Seen::default();
    let mut process = Process::start(subject, unheard_max);
    process.until_assigned(&seen).await;
    (process, seen)
}

/// What an event is told by: the row, what happened to it, and its `seq`.
fn told(event: &ChangeEvent) -> (i64, char, Option<i64>) {
    let op = match event.change() {
        Change::Insert { .. } => 'c',
        Change::Update { .. } => 'u',
        Change::Delete { .. } => 'd',
        other => panic!("nothing of the kind was written: {other:?}"),
    };
    let k = event.key().and_then(|key| key.row().int("k"));
    let seq = event.after().and_then(|row| row.int("seq"));
    (k.expect("rows of the suite have a key"), op, seq)
}

fn change_of(content: &Content) -> &ChangeEvent {
    match content {
        Content::Change(event) => event,
        other => panic!("a change was to come, not {other:?}"),
    }
}

fn id_of(delivery: &Delivery) -> Option<EventId> {
    change_of(&delivery.content).id()
}

fn keys(deliveries: &[Delivery]) -> Vec<i64> {
    deliveries
        .iter()
        .map(|delivery| told(change_of(&delivery.content)).0)
        .collect()
}

/// Asserts that these came again as they were.
fn assert_same(again: &[Delivery], before: &[Delivery]) {
    assert_eq!(keys(again), keys(before));
    for (again, before) in again.iter().zip(before) {
        assert_eq!(again.position, before.position, "the position of what came again");
        assert_eq!(id_of(again), id_of(before), "the id of what came again");
        assert_eq!(again.raw, before.raw, "the bytes of what came again");
    }
}

/// Changes of several keys, interleaved, come in the order in which they were committed; their bytes are those that were decoded.
pub async fn deliveries_come_in_order_under_the_epoch_of_their_assignment(subject: &dyn Subject) -> Inapplicable {
    let (mut process, seen) = begun(subject).await;
    let mut expected = Vec::new();
    let mut writes = Vec::new();
    for k in 0..20 {
        writes.push(Write::Insert { k });
        expected.push((k, 'c', Some(1)));
    }
    for seq in 2..5 {
        for k in 0..20 {
            writes.push(Write::Update { k, seq });
            expected.push((k, 'u', Some(seq)));
        }
    }
    for k in 0..10 {
        writes.push(Write::Delete { k });
        expected.push((k, 'd', None));
    }
    for together in writes.chunks(15) {
        subject.write(together).await;
    }
    let deliveries = process.changes(&seen, expected.len()).await;
    let came: Vec<_> = deliveries
        .iter()
        .map(|delivery| told(change_of(&delivery.content)))
        .collect();
    assert_eq!(came, expected);
    let mut ids = HashMap::new();
    for delivery in &deliveries {
        let decoded = subject.decode(delivery);
        let event = change_of(&decoded);
        assert_eq!(
            (event.id(), told(event)),
            (id_of(delivery), told(change_of(&delivery.content)))
        );
        let id = event.id().expect("rows with a key have an id");
        assert_eq!(ids.insert(id, told(event)), None, "two events have one id");
    }
    process.leave(&seen, Vec::new()).await;
    None
}

/// A process that dies after a commit: the next one is given the rest, and that is the same as before.
pub async fn what_was_not_committed_comes_again_the_same_and_nothing_else_does(subject: &dyn Subject) -> Inapplicable {
    let (mut process, seen) = begun(subject).await;
    subject.write(&inserts(0..10)).await;
    subject.write(&inserts(10..30)).await;
    let before = process.changes(&seen, 30).await;
    // In the middle of what was written together.
    process.commit(after(&before[16]));
    until_kept(subject, after(&before[16])).await;
    process.die().await;

    let mut next = Process::start(subject, UNHEARD_MAX);
    next.until_assigned(&seen).await;
    subject.write(&inserts(30..32)).await;
    let again = next.changes(&seen, 15).await;
    assert_same(&again[..13], &before[17..]);
    assert_eq!(keys(&again[13..]), [30, 31], "what was written later");
    next.leave(&seen, Vec::new()).await;
    None
}

/// The positions of a leave are kept when the source has ended, and nothing is delivered afterwards.
pub async fn who_leaves_has_kept_the_last_positions_and_is_told_nothing_more(subject: &dyn Subject) -> Inapplicable {
    let (mut process, seen) = begun(subject).await;
    subject.write(&inserts(0..10)).await;
    let before = process.changes(&seen, 10).await;
    let settled = process.settled(after(&before[6]));
    let on_the_way = process.leave(&seen, settled).await;
    assert!(
        on_the_way
            .iter()
            .all(|delivery| matches!(delivery.content, Content::Skip(_)))
    );
    assert_eq!(subject.kept().await, Some(after(&before[6])));

    let mut next = Process::start(subject, UNHEARD_MAX);
    next.until_assigned(&seen).await;
    assert_same(&next.changes(&seen, 3).await, &before[7..]);
    next.leave(&seen, Vec::new()).await;
    None
}

/// Commits, pauses and leaves that name another epoch.
pub async fn orders_of_an_earlier_epoch_change_nothing(subject: &dyn Subject) -> Inapplicable {
    let (mut process, seen) = begun(subject).await;
    subject.write(&inserts(0..10)).await;
    let before = process.changes(&seen, 10).await;
    process.commit(after(&before[2]));
    until_kept(subject, after(&before[2])).await;
    let earlier = process.owned();
    process.die().await;

    let mut next = Process::start(subject, UNHEARD_MAX);
    next.until_assigned(&seen).await;
    next.order(SourceCommand::Commit(earlier.settled(after(&before[9]))));
    next.order(SourceCommand::Pause {
        partition: earlier.partition.clone(),
        epoch: earlier.epoch,
    });
    assert_same(&next.changes(&seen, 7).await, &before[3..]);
    next.commit(after(&before[4]));
    until_kept(subject, after(&before[4])).await;
    subject.write(&inserts(10..11)).await;
    assert_eq!(
        keys(&next.changes(&seen, 1).await),
        [10],
        "a pause of another epoch was obeyed"
    );
    next.leave(&seen, earlier.settled(after(&before[9]))).await;
    assert_eq!(
        subject.kept().await,
        Some(after(&before[4])),
        "a commit of another epoch was obeyed"
    );
    None
}

/// A pause holds back what is written after it, and the resume gives it, all of it, once.
pub async fn a_paused_partition_delivers_nothing_and_then_goes_on_where_it_was(subject: &dyn Subject) -> Inapplicable {
    let (mut process, seen) = begun(subject).await;
    subject.write(&inserts(0..100)).await;
    let mut came = process.changes(&seen, 20).await;
    process.pause(true);
    // Commands are obeyed in order: what is kept was said after the pause.
    process.commit(after(&came[9]));
    until_kept(subject, after(&came[9])).await;
    came.extend(process.until_quiet(&seen).await);
    subject.write(&inserts(100..200)).await;
    let behind = process.until_quiet(&seen).await;
    assert!(behind.is_empty(), "a paused partition delivered {:?}", keys(&behind));
    process.commit(after(&came[14]));
    until_kept(subject, after(&came[14])).await;
    process.pause(false);
    let missing = 200 - came.len();
    came.extend(process.changes(&seen, missing).await);
    assert_eq!(keys(&came), Vec::from_iter(0..200));
    process.leave(&seen, Vec::new()).await;
    None
}

/// A second process joins: the first is asked, and whoever gets the partition begins at its answer.
pub async fn a_partition_that_is_let_go_moves_with_the_positions_of_the_answer(subject: &dyn Subject) -> Inapplicable {
    if let Some(reason) = subject.lacks(Part::Revoking) {
        return Some(reason);
    }
    let (mut first, seen) = begun(subject).await;
    subject.write(&inserts(0..10)).await;
    let before = first.changes(&seen, 10).await;
    let partition = first.owned().partition;
    let mut second = Process::start(subject, UNHEARD_MAX);
    subject.hand_over().await;
    let mut last_reply = None;
    let mut came = Vec::new();
    let moving = async {
        while came.len() < 4 {
            // The group may be shared out more than once until both are in it.
            let event = tokio::select! {
                event = first.any(&seen) => event,
                event = second.any(&seen) => event,
            };
            match event {
                Came::Revoking(reply) => {
                    reply
                        .send(vec![(partition.clone(), after(&before[5]))])
                        .expect("the source waits for the answer");
                    last_reply = Some(());
                    came.clear();
                }
                Came::Delivered(delivery) => came.push(delivery),
                Came::Assigned | Came::CaughtUp | Came::Lag => {}
                Came::Lost | Came::Left => panic!("the partition was to be let go in order"),
            }
        }
    };
    assert!(
        tokio::time::timeout(process::WITHIN, moving).await.is_ok(),
        "the partition did not move"
    );
    assert!(last_reply.is_some(), "nobody was asked");
    assert_same(&came, &before[6..]);
    assert_eq!(subject.kept().await, Some(after(&before[5])));
    first.die().await;
    second.die().await;
    None
}

/// An ownership that ends without a question: what was kept stands, and the epoch is another.
pub async fn a_partition_that_was_lost_comes_back_at_what_was_kept(subject: &dyn Subject) -> Inapplicable {
    if let Some(reason) = subject.lacks(Part::Lost) {
        return Some(reason);
    }
    let (mut process, seen) = begun(subject).await;
    subject.write(&inserts(0..10)).await;
    let before = process.changes(&seen, 10).await;
    process.commit(after(&before[3]));
    until_kept(subject, after(&before[3])).await;
    let earlier = process.owned();
    subject.take_away().await;
    while !matches!(process.next(&seen).await, Came::Lost) {}
    process.until_assigned(&seen).await;
    process.order(SourceCommand::Commit(earlier.settled(after(&before[9]))));
    assert_same(&process.changes(&seen, 6).await, &before[4..]);
    process.leave(&seen, Vec::new()).await;
    assert_eq!(
        subject.kept().await,
        Some(after(&before[3])),
        "a commit of another epoch was obeyed"
    );
    None
}

/// Nothing is taken for longer than a silent process keeps its partition.
pub async fn an_engine_that_takes_nothing_loses_nothing(subject: &dyn Subject) -> Inapplicable {
    let (mut process, seen) = begun_with(subject, 1).await;
    subject.write(&inserts(0..FLOOD)).await;
    let patience = subject.patience().mul_f32(1.5);
    let mut waited = tokio::time::interval_at(tokio::time::Instant::now() + patience, patience);
    waited.tick().await;
    // Any event but a delivery, such as the end of the ownership, ends this with a panic.
    let came = process.changes(&seen, usize::try_from(FLOOD).unwrap_or_default()).await;
    assert_eq!(keys(&came), Vec::from_iter(0..FLOOD));
    process.leave(&seen, Vec::new()).await;
    None
}

/// Nothing more is taken, and what was settled is kept all the same.
pub async fn an_engine_that_takes_nothing_is_obeyed(subject: &dyn Subject) -> Inapplicable {
    if let Some(reason) = subject.lacks(Part::ObeysUnheard) {
        return Some(reason);
    }
    let (mut process, seen) = begun_with(subject, 1).await;
    subject.write(&inserts(0..FLOOD)).await;
    let came = process.changes(&seen, 10).await;
    process.commit(after(&came[7]));
    until_kept(subject, after(&came[7])).await;
    process.die().await;
    None
}

/// It is not told as long as something is delivered and not settled, and is told to whoever begins where everything is.
pub async fn being_caught_up_is_told_when_everything_is_settled(subject: &dyn Subject) -> Inapplicable {
    let (mut process, seen) = begun(subject).await;
    subject.write(&inserts(0..3)).await;
    process.changes(&seen, 3).await;
    process.die().await;

    let mut next = Process::start(subject, UNHEARD_MAX);
    next.until_assigned(&seen).await;
    let came = next.changes(&seen, 3).await;
    next.is_never_caught_up(&seen, subject.patience()).await;
    next.commit(after(&came[1]));
    until_kept(subject, after(&came[1])).await;
    next.is_never_caught_up(&seen, subject.patience()).await;
    let settled = next.settled(after(&came[2]));
    next.leave(&seen, settled).await;

    let mut last = Process::start(subject, UNHEARD_MAX);
    // It is told beside the order of the other events.
    let (mut is_assigned, mut is_caught_up) = (false, false);
    while !(is_assigned && is_caught_up) {
        match last.next(&seen).await {
            Came::Assigned => is_assigned = true,
            Came::CaughtUp => is_caught_up = true,
            Came::Lag => {}
            _ => panic!("nothing was left to deliver"),
        }
    }
    last.leave(&seen, Vec::new()).await;
    None
}

/// Changes of other tables, between and behind those that are wanted.
pub async fn what_nobody_wants_holds_nothing_back(subject: &dyn Subject) -> Inapplicable {
    let (mut process, seen) = begun(subject).await;
    subject.write(&[Write::Unwanted, Write::Insert { k: 1 }]).await;
    subject.write(&vec![Write::Unwanted; UNWANTED]).await;
    subject
        .write(&[Write::Insert { k: 2 }, Write::Delete { k: 1 }, Write::Unwanted])
        .await;
    let mut came = process
        .deliveries(&seen, 3, |content| matches!(content, Content::Change(_)))
        .await;
    process.commit(after(&came[came.len() - 1]));
    subject.write(&vec![Write::Unwanted; UNWANTED]).await;
    let mut look = tokio::time::interval(Duration::from_millis(100));
    let kept = async {
        loop {
            tokio::select! {
                biased;
                event = process.any(&seen) => match event {
                    Came::Delivered(delivery) => {
                        process.commit(after(&delivery));
                        came.push(delivery);
                    }
                    Came::CaughtUp | Came::Lag => {}
                    _ => panic!("the partition was to be kept"),
                },
                _ = look.tick() => if subject.is_all_kept().await { return },
            }
        }
    };
    assert!(
        tokio::time::timeout(process::WITHIN, kept).await.is_ok(),
        "what nobody wants is held back"
    );
    came.retain(|delivery| !matches!(delivery.content, Content::Skip(_)));
    assert_eq!(keys(&came), [1, 2, 1]);
    process.leave(&seen, Vec::new()).await;
    None
}

/// Damaged bytes stand between changes, arrive as they are, and hold nothing up.
pub async fn bytes_that_cannot_be_decoded_come_in_their_place(subject: &dyn Subject) -> Inapplicable {
    if let Some(reason) = subject.lacks(Part::Damaged) {
        return Some(reason);
    }
    let (mut process, seen) = begun(subject).await;
    let damaged = b"{\"before\":null,\"after\":{\"k\":1".to_vec();
    subject
        .write(&[
            Write::Insert { k: 1 },
            Write::Damaged(damaged.clone()),
            Write::Insert { k: 2 },
        ])
        .await;
    let came = process.deliveries(&seen, 3, |_| true).await;
    assert_eq!((keys(&came[..1]), keys(&came[2..])), (vec![1], vec![2]));
    assert!(
        matches!(came[1].content, Content::Undecodable(_)),
        "{:?}",
        came[1].content
    );
    assert_eq!(came[1].raw.value.as_deref(), Some(&*damaged));
    process.commit(after(&came[2]));
    until("keeping what is settled", async || subject.is_all_kept().await).await;
    process.leave(&seen, Vec::new()).await;
    None
}
