//! What a run leaves behind for whoever looks into its failure: where the logs are, and the lines of them that tell why a
//! partition is behind. A machine of CI keeps nothing but what was printed.

use std::cell::{Cell, RefCell};
use std::fs;
use std::path::{Path, PathBuf};

use crate::chaos::plan::Plan;
use crate::world::World;

/// Partitions that are explained, and lines for each of them and for the end of each log.
const EXPLAINED_MAX: usize = 2;
const LINES_MAX: usize = 12;
const LAST_LINES: usize = 2;
const LINE_CHARS_MAX: usize = 180;

/// Lists of all partitions, which come many times a second; and what stands in every line.
const LISTS: [&str; 2] = ["DUMP_", "setting default offset"];
const NOISE: [&str; 2] = ["afterwrite::source::kafka::client: librdkafka: ", "[thrd:main]: "];

/// Dropped by a panic, it says where to look.
pub(super) struct Traces {
    seed: u64,
    logs: String,
    pub(super) journals: PathBuf,
    explanation: RefCell<Vec<String>>,
    pub(super) removed_with_the_world: Cell<bool>,
}

impl Traces {
    pub(super) fn new(plan: &Plan, world: &World) -> Self {
        let place = std::env::temp_dir();
        let journals = place.join(format!("{}-calls", world.name));
        fs::create_dir(&journals).unwrap();
        Self {
            seed: plan.seed,
            logs: place.join(&world.name).to_str().unwrap().to_owned(),
            journals,
            explanation: RefCell::default(),
            removed_with_the_world: Cell::new(false),
        }
    }

    /// The members' logs.
    fn members(&self) -> Vec<PathBuf> {
        let logs = Path::new(&self.logs);
        let prefix = format!("{}-m", logs.file_name().unwrap().to_str().unwrap());
        let entries = fs::read_dir(logs.parent().unwrap()).unwrap();
        let paths = entries.map(|entry| entry.unwrap().path());
        paths
            .filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with(&prefix))
            .collect()
    }

    /// Remembers what the members said last of partitions that are behind, and last of all: asked while they are there. Each text
    /// begins with the partition as librdkafka's log has it.
    pub(super) fn explain(&self, behind: &[String]) {
        if behind.is_empty() {
            return;
        }
        let logs: Vec<(String, String)> = self
            .members()
            .into_iter()
            .map(|path| (name(&path), fs::read_to_string(&path).unwrap_or_default()))
            .collect();
        for behind in behind.iter().take(EXPLAINED_MAX) {
            let partition = behind.split(' ').next().unwrap_or_default();
            let lines = logs.iter().flat_map(|(member, log)| {
                let about = log
                    .lines()
                    .filter(|line| line.contains(partition) && !LISTS.iter().any(|list| line.contains(list)));
                about.map(move |line| (line, member.as_str()))
            });
            self.remember(&format!("said last of {partition}"), lines.collect());
        }
        let lines = logs.iter().flat_map(|(member, log)| {
            let last = log.lines().rev().take(LAST_LINES);
            last.map(move |line| (line, member.as_str()))
        });
        self.remember("said last", lines.collect());
    }

    /// The last of some lines, with the members who said them; each line begins with its time.
    fn remember(&self, what: &str, mut lines: Vec<(&str, &str)>) {
        lines.sort_unstable();
        let mut explanation = self.explanation.borrow_mut();
        explanation.push(format!("{what}:"));
        for (line, member) in lines.iter().skip(lines.len().saturating_sub(LINES_MAX)) {
            let line = NOISE
                .iter()
                .fold((*line).to_owned(), |line, noise| line.replace(noise, ""));
            let line: String = line.chars().take(LINE_CHARS_MAX).collect();
            explanation.push(format!("  {member}: {line}"));
        }
    }
}

fn name(path: &Path) -> String {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    stem.rsplit('-').next().unwrap_or_default().to_owned()
}

impl Drop for Traces {
    fn drop(&mut self) {
        if !self.removed_with_the_world.get() {
            println!("{}", self.explanation.borrow().join("\n"));
            println!(
                "chaos failed with CHAOS_SEED={}; logs of the members: {}-*.log, their calls: {}",
                self.seed,
                self.logs,
                self.journals.display()
            );
            return;
        }
        fs::remove_dir_all(&self.journals).unwrap();
        for log in self.members() {
            fs::remove_file(log).unwrap();
        }
    }
}
