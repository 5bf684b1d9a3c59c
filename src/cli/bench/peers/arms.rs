//! What is measured: cells, the arms in each, and the command of each arm.

use std::ffi::OsString;
use std::path::Path;

use serde::Serialize;
use serde_json::Value;
use tokio::process::Command;

use crate::cli::Failure;
use crate::cli::bench::child::{measure, report_of, words};
use crate::cli::bench::peers::pace::Pace;

/// One of so many records of a topic is drained before anything is measured.
const WARM_UP_SHARE: u64 = 10;

/// Who drains.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Arm {
    /// Polls and counts.
    Raw,
    /// Polls and parses each value into a tree.
    Parse,
    /// The worker, with a handler that only waits.
    Worker,
    /// Confluent's parallel-consumer by key, with a function that only waits and looks at no value.
    ParallelConsumer,
}

/// What is drained.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Topic {
    /// A tenth of the records on the busiest key.
    Zipf,
    /// Every key equally often.
    Uniform,
    /// Zipf, with Connect's schema in each value.
    WithSchema,
    /// Zipf, written while it is drained.
    Paced,
}

/// A topic and an amount of work, with those who are compared in it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cell {
    pub(super) name: &'static str,
    pub(super) topic: Topic,
    pub(super) work_us: u64,
    pub(super) arms: &'static [Arm],
    /// The busiest key takes minutes, and how busy the machine is changes little.
    pub(super) is_slow: bool,
}

pub(super) const ZIPF_0: &str = "zipf-0";
pub(super) const ZIPF_1: &str = "zipf-1";
pub(super) const ZIPF_10: &str = "zipf-10";
pub(super) const UNIFORM_0: &str = "uniform-0";
pub(super) const UNIFORM_1: &str = "uniform-1";
pub(super) const UNIFORM_10: &str = "uniform-10";
pub(super) const SCHEMA_0: &str = "schema-0";
pub(super) const PACED_1: &str = "paced-1";

const ALONE: &[Arm] = &[Arm::Raw, Arm::Parse, Arm::Worker];
const PEERS: &[Arm] = &[Arm::Worker, Arm::ParallelConsumer];
/// What the raw loop is late by is what broker and network cost everybody.
const PACED: &[Arm] = &[Arm::Raw, Arm::Worker, Arm::ParallelConsumer];
const ALL: &[Arm] = &[Arm::Raw, Arm::Parse, Arm::Worker, Arm::ParallelConsumer];

/// All cells; the number is the work for each record in milliseconds.
pub(super) const CELLS: [Cell; 8] = [
    cell(ZIPF_0, Topic::Zipf, 0, ALL),
    cell(ZIPF_1, Topic::Zipf, 1_000, PEERS),
    Cell {
        is_slow: true,
        ..cell(ZIPF_10, Topic::Zipf, 10_000, PEERS)
    },
    cell(UNIFORM_0, Topic::Uniform, 0, ALL),
    cell(UNIFORM_1, Topic::Uniform, 1_000, PEERS),
    cell(UNIFORM_10, Topic::Uniform, 10_000, PEERS),
    cell(SCHEMA_0, Topic::WithSchema, 0, ALONE),
    cell(PACED_1, Topic::Paced, 1_000, PACED),
];

const fn cell(name: &'static str, topic: Topic, work_us: u64, arms: &'static [Arm]) -> Cell {
    Cell {
        name,
        topic,
        work_us,
        arms,
        is_slow: false,
    }
}

impl Arm {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Parse => "raw --parse",
            Self::Worker => "worker",
            Self::ParallelConsumer => "parallel-consumer",
        }
    }
}

/// What a measurement is made of.
pub(super) struct Run<'a> {
    pub(super) brokers: &'a str,
    pub(super) settings: &'a [OsString],
    pub(super) lanes: usize,
    pub(super) java: &'a Path,
    pub(super) java_heap_mb: u32,
    pub(super) work_us: u64,
}

impl Run<'_> {
    /// Drains a topic that is full.
    pub(super) async fn drain(&self, arm: Arm, topic: &str, records: u64) -> Result<Value, Failure> {
        let warm_up = records / WARM_UP_SHARE;
        let number = records.to_string();
        let raw = ["raw", "--topic", topic, "--records", &number];
        match arm {
            Arm::Raw => measure(&words(&raw, &[]), self.brokers, self.settings).await,
            Arm::Parse => measure(&words(&raw, &["--parse"]), self.brokers, self.settings).await,
            Arm::Worker => self.worker(topic, records, &["--warm-up", &warm_up.to_string()]).await,
            Arm::ParallelConsumer => self.parallel_consumer(topic, records, ("warm_up", warm_up)).await,
        }
    }

    /// Drains a topic while it is written.
    pub(super) async fn follow(&self, arm: Arm, topic: &str, pace: &Pace) -> Result<Value, Failure> {
        match arm {
            Arm::ParallelConsumer => {
                let late = ("late_after", pace.warm_up);
                self.parallel_consumer(topic, pace.records, late).await
            }
            Arm::Raw | Arm::Parse => {
                let (records, after) = (pace.records.to_string(), pace.warm_up.to_string());
                let raw = words(
                    &["raw", "--topic", topic],
                    &["--records", &records, "--late-after", &after],
                );
                measure(&raw, self.brokers, self.settings).await
            }
            Arm::Worker => {
                let after = pace.warm_up.to_string();
                self.worker(topic, pace.records, &["--late-after", &after]).await
            }
        }
    }

    async fn worker(&self, topic: &str, records: u64, more: &[&str]) -> Result<Value, Failure> {
        let numbers = [records, self.work_us, self.lanes as u64].map(|number| number.to_string());
        let [records, work, lanes] = numbers.each_ref().map(String::as_str);
        let fixed = ["drain", "--topics", topic, "--sequence-column", "seq"];
        let sized = ["--records", records, "--work-us", work, "--lanes", lanes];
        let action = [words(&fixed, &sized), words(more, &[])].concat();
        measure(&action, self.brokers, self.settings).await
    }

    async fn parallel_consumer(&self, topic: &str, records: u64, (name, value): (&str, u64)) -> Result<Value, Failure> {
        let mut class_path = self.java.join("classes").into_os_string();
        class_path.push(":");
        class_path.push(self.java.join("dependency").join("*"));
        let mut java = Command::new("java");
        java.arg(format!("-Xmx{}m", self.java_heap_mb))
            .arg("-cp")
            .arg(class_path)
            .arg("ParallelConsumerArm")
            .arg(format!("brokers={}", self.brokers))
            .arg(format!("topic={topic}"))
            .arg(format!("records={records}"))
            .arg(format!("lanes={}", self.lanes))
            .arg(format!("work_us={}", self.work_us))
            .arg(format!("{name}={value}"));
        report_of(java, "peers (java)").await
    }
}
