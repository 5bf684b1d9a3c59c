//! What decoding costs: one core, no Kafka, rows of 25 columns before and after, each encoding beside the parser that
//! everybody has: `serde_json::Value` for JSON, `apache_avro` for Avro.
//!
//! ```text
//! cargo bench --bench decode            # a table
//! cargo bench --bench decode -- --json  # one JSON line an arm
//! cargo bench --bench decode -- avro    # the arms whose name has this text
//! ```
//!
//! Every arm decodes the same changes in one process. The arms take turns in short rounds of the same length, so that
//! whatever else the machine does hits all of them alike: figures are medians of the rounds, and a ratio is the median of
//! the ratios within each round. The allocator of this program counts, which costs every arm about a nanosecond an
//! allocation.

#![allow(clippy::unwrap_used, reason = "a measurement that cannot go on has failed")]

mod arms;
mod changes;

use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use crate::arms::{Arm, PARSED, arms};
use crate::changes::{CHANGES, Changes};

const ROUNDS: usize = 61;
const ROUND: Duration = Duration::from_millis(40);

/// An arm and what it did in each round, in changes per second.
struct Measured<'a> {
    arm: Arm<'a>,
    per_second: Vec<f64>,
}

fn main() {
    let is_json = std::env::args().any(|argument| argument == "--json");
    let wanted: Vec<String> = std::env::args()
        .skip(1)
        .filter(|argument| !argument.starts_with("--"))
        .collect();
    let changes = Changes::new();
    let is_wanted = |arm: &Arm<'_>| {
        let name = format!("{}: {}", arm.encoding, arm.name);
        wanted.iter().all(|text| name.contains(text))
    };
    let unmeasured = |arm| Measured {
        arm,
        per_second: Vec::new(),
    };
    let mut measured: Vec<Measured<'_>> = arms(&changes).into_iter().filter(is_wanted).map(unmeasured).collect();
    for _ in 0..ROUNDS {
        for one in &mut measured {
            one.per_second.push(round(&one.arm));
        }
    }
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
    for one in &measured {
        print(one, ratio_to_library(one, &measured), is_json);
    }
}

/// How many times as fast as the library's parser of the same encoding; NaN where that is not measured.
fn ratio_to_library(one: &Measured<'_>, all: &[Measured<'_>]) -> f64 {
    let is_library = |other: &&Measured<'_>| other.arm.encoding == one.arm.encoding && other.arm.name == PARSED;
    let library = all.iter().find(is_library);
    library.map_or(f64::NAN, |library| {
        let rounds = one.per_second.iter().zip(&library.per_second);
        median(rounds.map(|(ours, library)| ours / library).collect())
    })
}

fn print(one: &Measured<'_>, ratio: f64, is_json: bool) {
    let Arm { encoding, name, .. } = one.arm;
    let per_second = median(one.per_second.clone());
    let (micros, allocations) = (1e6 / per_second, allocations(&one.arm));
    if is_json {
        let figures = json!({"encoding": encoding, "change": name, "events_per_s": per_second.round(),
            "of_library": ratio, "allocations": allocations});
        println!("{figures}");
    } else {
        println!("{encoding:<17} {name:<24} {per_second:>10.0} {micros:>11.2} {ratio:>10.2}x {allocations:>12.1}");
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
