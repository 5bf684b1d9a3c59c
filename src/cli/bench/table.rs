//! The table of `bench compare`: medians, ratios, and what bounds each measurement.

use serde_json::Value;

use crate::cli::bench::fill;
use crate::cli::output::table;

/// A share of the time from which on something counts as the bound.
const BOUND_SHARE: f64 = 0.85;

/// One measurement.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) name: String,
    pub(super) report: Value,
}

/// All measurements over one topic.
#[derive(Debug)]
pub(super) struct Comparison {
    filled: fill::Report,
    lanes: usize,
    cores: f64,
    rows: Vec<Row>,
}

/// The median of one kind of measurement, with the spread of its rounds.
#[derive(Debug)]
struct Row {
    name: String,
    records_per_s: f64,
    slowest: f64,
    fastest: f64,
    cpu_us: f64,
    cores: f64,
    /// Cores that would have been used, had they been free.
    cores_wanted: f64,
    peak_rss_mb: f64,
    order_s: f64,
    seconds: f64,
    busiest_thread: (String, f64),
    faults: u64,
}

impl Comparison {
    pub(super) fn new(filled: fill::Report, lanes: usize, runs: Vec<Run>) -> Self {
        let mut names: Vec<&str> = Vec::new();
        for run in &runs {
            if !names.contains(&run.name.as_str()) {
                names.push(&run.name);
            }
        }
        let rows = names.into_iter().map(|name| {
            let reports: Vec<&Value> = runs
                .iter()
                .filter(|run| run.name == name)
                .map(|run| &run.report)
                .collect();
            Row::new(name, &reports, &filled)
        });
        Self {
            rows: rows.collect(),
            filled,
            lanes,
            cores: std::thread::available_parallelism().map_or(1.0, |cores| cores.get() as f64),
        }
    }

    pub(super) fn text(&self) -> String {
        let filled = &self.filled;
        let head = format!(
            "{} records of {:.0} bytes, {} keys, the busiest with {} records; {} lanes; {} cores; medians\n\n",
            filled.records, filled.value_bytes_mean, filled.keys, filled.busiest_key_records, self.lanes, self.cores
        );
        let raw = self.rate("raw");
        let parse = self.rate("raw --parse");
        let names = [
            "MEASURED",
            "RECORDS/S",
            "SPREAD",
            "OF RAW",
            "OF PARSE",
            "CPU µs",
            "CORES",
            "PEAK MB",
            "FAULTS",
            "BOUND BY",
        ];
        let rows = self.rows.iter().map(|row| {
            [
                row.name.clone(),
                format!("{:.0}", row.records_per_s),
                format!("{:.0}-{:.0}", row.slowest, row.fastest),
                format!("{:.2}", row.records_per_s / raw),
                format!("{:.2}", row.records_per_s / parse),
                format!("{:.1}", row.cpu_us),
                format!("{:.2}", row.cores),
                format!("{:.0}", row.peak_rss_mb),
                row.faults.to_string(),
                row.bound(self.cores),
            ]
        });
        head + &table(names, rows)
    }

    fn rate(&self, name: &str) -> f64 {
        let row = self.rows.iter().find(|row| row.name == name);
        row.map_or(f64::NAN, |row| row.records_per_s)
    }
}

impl Row {
    fn new(name: &str, reports: &[&Value], filled: &fill::Report) -> Self {
        let figures =
            |field: &str| -> Vec<f64> { reports.iter().filter_map(|report| report[field].as_f64()).collect() };
        let rates = figures("records_per_s");
        let seconds = median(figures("seconds"));
        let cpu_s = median(figures("cpu_s"));
        let work_s = median(figures("work_us_mean")) / 1e6;
        let faults = ["order_violations", "duplicates", "missing"].iter().map(|field| {
            let counted = reports.iter().filter_map(|report| report[*field].as_u64());
            counted.sum::<u64>()
        });
        let threads = reports.first().and_then(|report| report["cpu_s_by_thread"].as_object());
        let spent = threads.into_iter().flatten().filter(|(name, _)| *name != "workers");
        let busiest = spent.filter_map(|(name, spent)| Some((name.clone(), spent.as_f64()?)));
        Self {
            name: name.to_owned(),
            records_per_s: median(rates.clone()),
            slowest: rates.iter().copied().fold(f64::INFINITY, f64::min),
            fastest: rates.iter().copied().fold(0.0, f64::max),
            cpu_us: cpu_s * 1e6 / filled.records.max(1) as f64,
            cores: cpu_s / seconds.max(1e-6),
            cores_wanted: (cpu_s + median(figures("core_awaited_s"))) / seconds.max(1e-6),
            peak_rss_mb: median(figures("peak_rss_mb")),
            order_s: if work_s.is_finite() {
                work_s * filled.busiest_key_records as f64
            } else {
                0.0
            },
            seconds,
            busiest_thread: busiest
                .max_by(|one, other| one.1.total_cmp(&other.1))
                .unwrap_or_default(),
            faults: faults.sum(),
        }
    }

    /// What takes up the time. The busiest row's changes run one after the other, whatever else is free. A thread or a task
    /// can use one core. Where cores were wanted and not free, other programs had them.
    fn bound(&self, cores: f64) -> String {
        let (thread, spent) = &self.busiest_thread;
        if self.order_s >= BOUND_SHARE * self.seconds {
            "order: the busiest key".to_owned()
        } else if *spent >= BOUND_SHARE * self.seconds {
            format!("processor: the {thread} thread")
        } else if self.cores >= BOUND_SHARE * cores {
            "processor: all cores".to_owned()
        } else if self.cores_wanted >= BOUND_SHARE * cores {
            "processor: no free core".to_owned()
        } else if self.cores_wanted >= BOUND_SHARE {
            "processor: one task".to_owned()
        } else {
            "waiting".to_owned()
        }
    }
}

/// The median; not a number of nothing.
pub(super) fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_unstable_by(f64::total_cmp);
    match figures.len() {
        0 => f64::NAN,
        odd if odd % 2 == 1 => figures[odd / 2],
        even => f64::midpoint(figures[even / 2 - 1], figures[even / 2]),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn comparison(runs: &[(&str, f64, f64, f64)]) -> Comparison {
        let runs = runs.iter().map(|(name, rate, cpu_s, work_us)| Run {
            name: (*name).to_owned(),
            report: json!({
                "records_per_s": rate, "seconds": 1_000.0 / rate, "cpu_s": cpu_s, "work_us_mean": work_us,
                "duplicates": 1, "core_awaited_s": 0.0, "cpu_s_by_thread": {"poll": 0.1, "workers": cpu_s},
            }),
        });
        Comparison {
            cores: 2.0,
            ..Comparison::new(fill::Report::sample(), 5, runs.collect())
        }
    }

    #[test]
    fn medians_and_ratios_are_shown() {
        let text = comparison(&[
            ("raw", 1_000.0, 0.1, 0.0),
            ("raw", 2_000.0, 0.1, 0.0),
            ("raw", 4_000.0, 0.1, 0.0),
            ("raw --parse", 1_000.0, 0.1, 0.0),
            ("drain 0 µs", 500.0, 3.9, 1.0),
        ])
        .text();
        let drain = text.lines().last().unwrap();
        assert!(drain.contains("0.25") && drain.contains("0.50"), "{text}");
        assert!(drain.contains("all cores"), "{text}");
    }

    #[test]
    fn the_busiest_key_bounds_when_its_work_takes_the_time() {
        let ordered = comparison(&[("drain", 1_000.0, 0.2, 9_500.0)]);
        assert_eq!(ordered.rows[0].bound(2.0), "order: the busiest key");
        let single = comparison(&[("drain", 1_000.0, 1.0, 1.0)]);
        assert_eq!(single.rows[0].bound(2.0), "processor: one task");
        let idle = comparison(&[("drain", 1_000.0, 0.1, 1.0)]);
        assert_eq!(idle.rows[0].bound(2.0), "waiting");
        let polled = comparison(&[("raw", 9_500.0, 0.1, 0.0)]);
        assert_eq!(polled.rows[0].bound(2.0), "processor: the poll thread");
    }

    #[test]
    fn a_median_needs_no_odd_count() {
        assert!((median(vec![3.0, 1.0]) - 2.0).abs() < 1e-9);
        assert!((median(vec![3.0, 1.0, 9.0]) - 3.0).abs() < 1e-9);
        assert!(median(Vec::new()).is_nan());
    }
}
