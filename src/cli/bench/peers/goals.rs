//! What is to be reached, and what was found.

use serde::Serialize;
use serde_json::Value;

use crate::cli::bench::fill;
use crate::cli::bench::peers::arms::{
    Arm, CELLS, PACED_1, SCHEMA_0, Topic, UNIFORM_0, UNIFORM_1, UNIFORM_10, ZIPF_0, ZIPF_1, ZIPF_10,
};
use crate::cli::bench::table::median;

/// One measurement.
#[derive(Debug)]
pub(super) struct Measured {
    pub(super) cell: &'static str,
    pub(super) arm: Arm,
    pub(super) round: u8,
    pub(super) report: Value,
}

/// All measurements.
#[derive(Debug)]
pub(super) struct Figures {
    measured: Vec<Measured>,
    /// Records of each cell that go by for each one of the busiest key.
    records_per_busiest: Vec<(&'static str, f64)>,
}

/// Something to reach.
#[derive(Debug, Serialize)]
pub(super) struct Goal {
    pub(super) what: &'static str,
    bound: Bound,
    /// Nothing where it was not measured.
    pub(super) found: Option<f64>,
    is_met: Option<bool>,
}

#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
enum Bound {
    Above(f64),
    AtLeast(f64),
    AtMost(f64),
}

impl Goal {
    fn new(what: &'static str, bound: Bound, found: Option<f64>) -> Self {
        let is_met = found.map(|found| match bound {
            Bound::Above(limit) => found > limit,
            Bound::AtLeast(limit) => found >= limit,
            Bound::AtMost(limit) => found <= limit,
        });
        Self {
            what,
            bound,
            found,
            is_met,
        }
    }

    pub(super) fn wanted(&self) -> String {
        match self.bound {
            Bound::Above(limit) => format!("> {limit}"),
            Bound::AtLeast(limit) => format!(">= {limit}"),
            Bound::AtMost(limit) => format!("<= {limit}"),
        }
    }

    pub(super) fn verdict(&self) -> &'static str {
        match self.is_met {
            None => "not measured",
            Some(true) => "met",
            Some(false) => "missed",
        }
    }
}

/// All goals.
pub(super) fn all(figures: &Figures) -> Vec<Goal> {
    use Arm::{ParallelConsumer, Parse, Raw, Worker};
    let rates = |cell, other| figures.ratio(cell, Worker, other, "records_per_s");
    let most = |cells: &[&str], figure: &dyn Fn(&str) -> Option<f64>| {
        let found = cells.iter().filter_map(|cell| figure(cell));
        found.max_by(f64::total_cmp)
    };
    let idle = [ZIPF_0, UNIFORM_0];
    let plain = [ZIPF_0, ZIPF_1, ZIPF_10, UNIFORM_0, UNIFORM_1, UNIFORM_10, PACED_1];
    vec![
        Goal::new(
            "zipf, no work: times the raw loop that parses",
            Bound::Above(1.0),
            rates(ZIPF_0, Parse),
        ),
        Goal::new(
            "zipf, no work: of the raw loop",
            Bound::AtLeast(0.2),
            rates(ZIPF_0, Raw),
        ),
        Goal::new(
            "zipf, no work: times parallel-consumer",
            Bound::AtLeast(10.0),
            rates(ZIPF_0, ParallelConsumer),
        ),
        Goal::new(
            "with schema, no work: of the raw loop",
            Bound::AtLeast(0.4),
            rates(SCHEMA_0, Raw),
        ),
        Goal::new(
            "zipf, 1 ms: of what the busiest key allows",
            Bound::AtLeast(0.95),
            figures.of_ceiling(ZIPF_1, Worker),
        ),
        Goal::new(
            "zipf, 10 ms: of what the busiest key allows",
            Bound::AtLeast(0.95),
            figures.of_ceiling(ZIPF_10, Worker),
        ),
        Goal::new(
            "uniform, 10 ms: times parallel-consumer",
            Bound::AtLeast(4.0),
            rates(UNIFORM_10, ParallelConsumer),
        ),
        Goal::new(
            "no work: processor time a record, in µs",
            Bound::AtMost(12.0),
            most(&idle, &|cell| figures.cpu_us(cell, Worker)),
        ),
        Goal::new(
            "peak of resident memory, in MB",
            Bound::AtMost(80.0),
            most(&plain, &|cell| figures.median(cell, Worker, "peak_rss_mb")),
        ),
        Goal::new(
            "paced, 1 ms: p99 of parallel-consumer's",
            Bound::AtMost(0.5),
            figures.ratio(PACED_1, Worker, ParallelConsumer, "late_p99_ms"),
        ),
    ]
}

impl Figures {
    pub(super) fn new(measured: Vec<Measured>, topics: &[(Topic, fill::Report)]) -> Self {
        let of_cell = |topic: Topic| topics.iter().find(|(filled, _)| *filled == topic);
        let records_per_busiest = CELLS.iter().filter_map(|cell| {
            let (_, filled) = of_cell(cell.topic)?;
            Some((
                cell.name,
                filled.records as f64 / filled.busiest_key_records.max(1) as f64,
            ))
        });
        Self {
            records_per_busiest: records_per_busiest.collect(),
            measured,
        }
    }

    /// The median of a figure that each report of an arm has.
    pub(super) fn median(&self, cell: &str, arm: Arm, field: &str) -> Option<f64> {
        self.median_of(cell, arm, |measured| measured.report[field].as_f64())
    }

    /// Processor time for each record.
    pub(super) fn cpu_us(&self, cell: &str, arm: Arm) -> Option<f64> {
        self.median_of(cell, arm, |measured| {
            let records = measured.report["records"].as_f64()?;
            Some(measured.report["cpu_s"].as_f64()? * 1e6 / records.max(1.0))
        })
    }

    /// The share of what order allows: the changes of the busiest key run one after the other, and each takes what a call of
    /// that key took in fact.
    pub(super) fn of_ceiling(&self, cell: &str, arm: Arm) -> Option<f64> {
        let (_, per_busiest) = self.records_per_busiest.iter().find(|(name, _)| *name == cell)?;
        let work_us = CELLS.iter().find(|known| known.name == cell)?.work_us;
        self.median_of(cell, arm, |measured| {
            let worked_s = measured.report["busiest_work_us_mean"].as_f64()? / 1e6;
            let ceiling = per_busiest / worked_s;
            (work_us > 0).then_some(measured.report["records_per_s"].as_f64()? / ceiling)
        })
    }

    /// The median of the ratios of two arms in the same round.
    fn ratio(&self, cell: &str, one: Arm, other: Arm, field: &str) -> Option<f64> {
        self.median_of(cell, one, |measured| {
            let beside = self.of(cell, other).find(|beside| beside.round == measured.round)?;
            Some(measured.report[field].as_f64()? / beside.report[field].as_f64()?)
        })
    }

    fn of<'a>(&'a self, cell: &'a str, arm: Arm) -> impl Iterator<Item = &'a Measured> {
        self.measured
            .iter()
            .filter(move |measured| measured.cell == cell && measured.arm == arm)
    }

    fn median_of(&self, cell: &str, arm: Arm, figure: impl Fn(&Measured) -> Option<f64>) -> Option<f64> {
        let found: Vec<f64> = self.of(cell, arm).filter_map(figure).collect();
        (!found.is_empty()).then(|| median(found))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn figures(runs: &[(&'static str, Arm, u8, f64, f64)]) -> Figures {
        let measured = runs.iter().map(|(cell, arm, round, rate, work_us)| Measured {
            cell,
            arm: *arm,
            round: *round,
            report: json!({"records_per_s": rate, "busiest_work_us_mean": work_us, "records": 1_000, "cpu_s": 0.01}),
        });
        Figures::new(measured.collect(), &[(Topic::Zipf, fill::Report::sample())])
    }

    fn verdict(figures: &Figures, what: &str) -> &'static str {
        let goals = all(figures);
        goals.iter().find(|goal| goal.what.contains(what)).unwrap().verdict()
    }

    #[test]
    fn ratios_are_those_of_a_round() {
        // The machine was ten times slower in the first round.
        let figures = figures(&[
            (ZIPF_0, Arm::Raw, 1, 100.0, 0.0),
            (ZIPF_0, Arm::Worker, 1, 21.0, 0.0),
            (ZIPF_0, Arm::Raw, 2, 1_000.0, 0.0),
            (ZIPF_0, Arm::Worker, 2, 250.0, 0.0),
            (ZIPF_0, Arm::Raw, 3, 1_000.0, 0.0),
            (ZIPF_0, Arm::Worker, 3, 190.0, 0.0),
        ]);
        assert_eq!(verdict(&figures, "no work: of the raw loop"), "met");
        assert_eq!(verdict(&figures, "times parallel-consumer"), "not measured");
        assert_eq!(verdict(&figures, "processor time"), "met");
    }

    #[test]
    fn the_ceiling_is_what_the_busiest_key_allows() {
        // One in ten of the busiest key at 2 ms: 5,000 records a second.
        let reached = figures(&[(ZIPF_1, Arm::Worker, 1, 4_800.0, 2_000.0)]);
        assert_eq!(verdict(&reached, "1 ms: of what the busiest key allows"), "met");
        let missed = figures(&[(ZIPF_1, Arm::Worker, 1, 4_700.0, 2_000.0)]);
        assert_eq!(verdict(&missed, "1 ms: of what the busiest key allows"), "missed");
    }
}
