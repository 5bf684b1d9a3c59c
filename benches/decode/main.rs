//! What decoding costs: one core, no Kafka, rows of 25 columns before and after, each encoding beside the parser that
//! everybody has: `serde_json::Value` for JSON, `apache_avro` for Avro.
//!
//! ```text
//! cargo bench --bench decode            # a table
//! cargo bench --bench decode -- --json  # one JSON line an arm
//! cargo bench --bench decode -- avro    # the arms whose name has this text
//! ```
//!
//! Every arm decodes the same changes, alternately, in one process; figures are medians of the rounds. The allocator of
//! this program counts, which costs every arm about a nanosecond an allocation.

#![allow(clippy::unwrap_used, reason = "a measurement that cannot go on has failed")]

mod arms;
mod changes;

use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use crate::arms::{Arm, PARSED, arms};
use crate::changes::{CHANGES, Changes};

const ROUNDS: usize = 7;
const ROUND: Duration = Duration::from_millis(400);

fn main() {
    let is_json = std::env::args().any(|argument| argument == "--json");
    let wanted: Vec<String> = std::env::args()
        .skip(1)
        .filter(|argument| !argument.starts_with("--"))
        .collect();
    let changes = Changes::new();
    let arms = arms(&changes);
    let is_wanted = |arm: &Arm<'_>| {
        let name = format!("{}: {}", arm.encoding, arm.name);
        wanted.iter().all(|text| name.contains(text))
    };
    let mut measured: Vec<(Arm<'_>, Vec<f64>)> = arms
        .into_iter()
        .filter(is_wanted)
        .map(|arm| (arm, Vec::new()))
        .collect();
    for _ in 0..ROUNDS {
        for (arm, per_second) in &mut measured {
            per_second.push(round(arm));
        }
    }
    let medians: Vec<(Arm<'_>, f64)> = measured
        .into_iter()
        .map(|(arm, figures)| (arm, median(figures)))
        .collect();
    if !is_json {
        let titles = [
            "encoding",
            "change",
            "events/s",
            "us an event",
            "of library",
            "allocations",
        ];
        let [encoding, change, per_second, micros, ratio, allocations] = titles;
        println!("{encoding:<17} {change:<24} {per_second:>10} {micros:>11} {ratio:>11} {allocations:>12}");
    }
    for (arm, per_second) in &medians {
        let library = medians
            .iter()
            .find(|(other, _)| other.encoding == arm.encoding && other.name == PARSED);
        let ratio = library.map_or(f64::NAN, |(_, library)| per_second / library);
        let (encoding, change, micros, allocations) = (arm.encoding, arm.name, 1e6 / per_second, allocations(arm));
        if is_json {
            let figures = json!({"encoding": encoding, "change": change, "events_per_s": per_second.round(),
                "of_library": ratio, "allocations": allocations});
            println!("{figures}");
        } else {
            println!(
                "{encoding:<17} {change:<24} {per_second:>10.0} {micros:>11.2} {ratio:>10.2}x {allocations:>12.1}"
            );
        }
    }
}

/// Allocations for each change.
fn allocations(arm: &Arm<'_>) -> f64 {
    let counted = allocation_counter::measure(|| (0..CHANGES).for_each(&arm.decode));
    counted.count_total as f64 / CHANGES as f64
}

fn round(arm: &Arm<'_>) -> f64 {
    let started = Instant::now();
    let mut changes = 0;
    while started.elapsed() < ROUND {
        (0..CHANGES).for_each(&arm.decode);
        changes += CHANGES;
    }
    changes as f64 / started.elapsed().as_secs_f64()
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}
