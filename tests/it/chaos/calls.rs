//! The calls of the handlers: what no database rolls back. A worker writes each into a file of its own, when it begins and
//! when it ends, so that neither a kill of the worker nor one of Postgres takes it back.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// The file of one worker.
pub(super) struct Journal {
    worker: String,
    file: Mutex<File>,
    calls: AtomicU64,
}

/// A call that has begun. Dropped without an end, its attempt was abandoned.
pub(super) struct Call<'a> {
    journal: &'a Journal,
    number: u64,
    ended: bool,
}

/// How a call ended, as its worker knew it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum End {
    /// The handler returned; the commit comes after that.
    Returned,
    /// Postgres did not take what follows from the call.
    Failed,
    /// The ledger said that somebody else had done the event meanwhile.
    Redundant,
    /// The attempt was dropped.
    Abandoned,
}

const WORDS: [(End, &str); 4] = [
    (End::Returned, "returned"),
    (End::Failed, "failed"),
    (End::Redundant, "redundant"),
    (End::Abandoned, "abandoned"),
];

impl Journal {
    pub(super) fn create(directory: &Path, worker: &str) -> Self {
        let file = OpenOptions::new()
            .create_new(true)
            .append(true)
            .open(directory.join(worker))
            .unwrap();
        Self {
            worker: worker.to_owned(),
            file: Mutex::new(file),
            calls: AtomicU64::new(0),
        }
    }

    /// Makes the call.
    pub(super) fn call(&self, row: u32, change: u32) -> Call<'_> {
        let number = self.calls.fetch_add(1, Ordering::Relaxed);
        self.write(&format!("call {number} {row} {change}\n"));
        Call {
            journal: self,
            number,
            ended: false,
        }
    }

    fn write(&self, line: &str) {
        self.file.lock().unwrap().write_all(line.as_bytes()).unwrap();
    }
}

impl Call<'_> {
    /// The call's name among those of all workers.
    pub(super) fn name(&self) -> String {
        format!("{}/{}", self.journal.worker, self.number)
    }

    pub(super) fn end(mut self, end: End) {
        self.finish(end);
    }

    fn finish(&mut self, end: End) {
        self.ended = true;
        let (_, word) = WORDS.iter().find(|(known, _)| *known == end).unwrap();
        self.journal.write(&format!("end {} {word}\n", self.number));
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        if !self.ended {
            self.finish(End::Abandoned);
        }
    }
}

/// A call as the journals tell it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) name: String,
    pub(super) worker: String,
    pub(super) row: u32,
    pub(super) change: u32,
    /// Absent when the worker was killed before it had ended.
    pub(super) end: Option<End>,
}

/// Every call of every worker.
pub(super) fn read(directory: &Path) -> Vec<Told> {
    let files = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap());
    files.flat_map(|file| read_journal(&file.path())).collect()
}

fn read_journal(path: &Path) -> Vec<Told> {
    let worker = path.file_name().unwrap().to_str().unwrap();
    let mut calls: Vec<Told> = Vec::new();
    let mut places: HashMap<u64, usize> = HashMap::new();
    for line in std::fs::read_to_string(path).unwrap().lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let number: u64 = words[1].parse().unwrap();
        match words[0] {
            "call" => {
                places.insert(number, calls.len());
                calls.push(Told {
                    name: format!("{worker}/{number}"),
                    worker: worker.to_owned(),
                    row: words[2].parse().unwrap(),
                    change: words[3].parse().unwrap(),
                    end: None,
                });
            }
            _ => {
                let (end, _) = WORDS.iter().find(|(_, word)| *word == words[2]).unwrap();
                calls[places[&number]].end = Some(*end);
            }
        }
    }
    calls
}
