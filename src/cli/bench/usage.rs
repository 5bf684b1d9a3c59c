//! What the process has used so far, as Linux tells it in `/proc`. Elsewhere nothing is known, and nothing is claimed.

use std::collections::BTreeMap;
use std::fs;

use serde::Serialize;

/// Ticks of `/proc/…/stat` in a second: a constant of Linux's interface to user space.
const TICKS_PER_SECOND: f64 = 100.0;

/// What the threads of the process did.
#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct Threads {
    /// Processor time by what the threads are for.
    cpu_s_by_thread: BTreeMap<&'static str, f64>,
    /// How long threads were ready to run and had no core, summed: other programs, or more threads than cores.
    core_awaited_s: f64,
}

impl Threads {
    /// What was done since then. Threads that have ended meanwhile are not among it.
    pub(super) fn since(mut self, before: &Self) -> Self {
        for (purpose, spent) in &mut self.cpu_s_by_thread {
            let spent_before = before.cpu_s_by_thread.get(purpose).copied().unwrap_or_default();
            *spent = round((*spent - spent_before).max(0.0), 3);
        }
        self.core_awaited_s = round((self.core_awaited_s - before.core_awaited_s).max(0.0), 3);
        self
    }
}

/// What the process has used.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Usage {
    /// Largest resident memory so far.
    pub(super) peak_rss_mb: Option<f64>,
    /// Processor time of the whole process since its start, user and system.
    pub(super) cpu_s: Option<f64>,
}

impl Usage {
    pub(super) fn now() -> Self {
        Self {
            peak_rss_mb: peak_rss_mb(),
            cpu_s: cpu_s(),
        }
    }

    /// What was used since then; the peak is that of the whole process.
    pub(super) fn since(self, before: &Self) -> Self {
        let spent = |now: f64, before: f64| round(now - before, 3);
        Self {
            cpu_s: self.cpu_s.zip(before.cpu_s).map(|(now, before)| spent(now, before)),
            ..self
        }
    }
}

pub(super) fn peak_rss_mb() -> Option<f64> {
    memory_mb("VmHWM:")
}

/// Resident memory now.
pub(super) fn rss_mb() -> Option<f64> {
    memory_mb("VmRSS:")
}

fn memory_mb(name: &str) -> Option<f64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    let kilobytes: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(round(kilobytes / 1024.0, 1))
}

fn cpu_s() -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The second field is the name in parentheses, which may hold anything; user and system time are the 14th and 15th.
    let (_, after_name) = stat.rsplit_once(')')?;
    let ticks: Vec<f64> = after_name
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse().ok())
        .collect();
    Some(ticks.iter().sum::<f64>() / TICKS_PER_SECOND)
}

/// What the threads did that live now. Those that have ended are not among them: ask before anything is taken down.
pub(super) fn threads() -> Threads {
    let mut threads = Threads::default();
    let Ok(tasks) = fs::read_dir("/proc/self/task") else {
        return threads;
    };
    for task in tasks.flatten() {
        let name = fs::read_to_string(task.path().join("comm")).unwrap_or_default();
        // Nanoseconds on a core, then nanoseconds ready to run and waiting for one.
        let times = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
        let mut seconds = times.split_whitespace().map(|time| time.parse().unwrap_or(0.0) / 1e9);
        *threads.cpu_s_by_thread.entry(purpose(&name)).or_default() += seconds.next().unwrap_or_default();
        threads.core_awaited_s += seconds.next().unwrap_or_default();
    }
    threads.core_awaited_s = round(threads.core_awaited_s, 3);
    for spent in threads.cpu_s_by_thread.values_mut() {
        *spent = round(*spent, 3);
    }
    threads
}

fn purpose(name: &str) -> &'static str {
    match name {
        _ if name.starts_with("poll ") => "poll",
        _ if name.starts_with("rdk:") => "librdkafka",
        _ if name.starts_with("tokio") => "workers",
        _ => "other",
    }
}

/// A figure with that many decimals: more would claim a precision that no measurement has.
pub(super) fn round(figure: f64, decimals: i32) -> f64 {
    let scale = 10_f64.powi(decimals);
    (figure * scale).round() / scale
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn a_process_knows_what_it_has_used() {
        let usage = Usage::now();
        assert!(usage.peak_rss_mb.is_some_and(|megabytes| megabytes > 1.0));
        assert!(usage.cpu_s.is_some());
        assert!(threads().cpu_s_by_thread.contains_key("other"));
    }

    #[test]
    fn threads_are_known_by_their_names() {
        assert_eq!(purpose("poll afterwrite.\n"), "poll");
        assert_eq!(purpose("rdk:broker1\n"), "librdkafka");
    }
}
