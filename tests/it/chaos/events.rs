//! The events: changes as Debezium prints them, some rows far busier than others, written before and during the storm.

use std::time::Duration;

use afterwrite::cli::bench::envelope;
use tokio::time::Instant;

use crate::chaos::plan::Plan;
use crate::chaos::writer::Writer;

/// Columns of a row, key and sequence included.
const COLUMNS: usize = 6;

/// This share of the events is there before the first member; the others come in so many portions.
pub(super) const BEFORE_PERCENT: usize = 60;
pub(super) const PORTIONS: usize = 20;

/// The rows of all events in the order in which they are written; the n-th row comes 1/n times as often as the first.
pub(super) fn rows(plan: &Plan) -> Vec<u32> {
    let mut sum = 0.0;
    let weights = (1..=plan.rows).map(|rank| 1.0 / f64::from(rank));
    let sums: Vec<f64> = weights
        .map(|weight| {
            sum += weight;
            sum
        })
        .collect();
    let mut chance = plan.chance(1);
    let mut draw = || {
        // 53 bits are what a double holds.
        let drawn = (chance.next() >> 11) as f64 / (1_u64 << 53) as f64 * sum;
        sums.partition_point(|sum| *sum <= drawn).min(sums.len() - 1)
    };
    (0..plan.events).map(|_| u32::try_from(draw()).unwrap()).collect()
}

/// How many changes each row has.
pub(super) fn changes(plan: &Plan, rows: &[u32]) -> Vec<u32> {
    let mut changes = vec![0; plan.rows as usize];
    for row in rows {
        changes[*row as usize] += 1;
    }
    changes.extend((0..plan.large_wanted()).map(|_| 1));
    changes
}

/// Writes the events; `first_part` is told when those are there that come before the storm. Answers how many were written again,
/// which may be there twice. Blocks.
pub(super) fn write(plan: &Plan, rows: &[u32], topic: &str, first_part: tokio::sync::oneshot::Sender<()>) -> usize {
    let mut writer = Writer::of(topic);
    let mut changes = vec![0_u64; plan.rows as usize];
    let before = plan.events * BEFORE_PERCENT / 100;
    let portion = (plan.events - before).div_ceil(PORTIONS).max(1);
    let pause = plan.written_over / u32::try_from(PORTIONS).unwrap();
    let mut first_part = Some(first_part);
    for (number, row) in rows.iter().enumerate() {
        if number >= before && (number - before).is_multiple_of(portion) {
            writer.flush();
            if let Some(told) = first_part.take() {
                told.send(()).unwrap();
            }
            let go_on = Instant::now() + pause;
            while Instant::now() < go_on {
                writer.producer.poll(Duration::from_millis(50));
            }
        }
        let row = *row as usize;
        changes[row] += 1;
        let mut value = String::new();
        envelope::update(&mut value, number as u64, row, changes[row], COLUMNS).unwrap();
        writer.write(number, envelope::key(row), value);
    }
    writer.flush();
    writer.again
}
