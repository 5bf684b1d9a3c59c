//! The plan of a world: everything that is fixed before its first step, drawn from the seed.

use std::ops::Range;
use std::time::Duration;

use afterwrite::engine::core::messages::{HandlerIndex, HandlerLimits, Limits, PartitionId};
use afterwrite::engine::retry::Policy;
use afterwrite::engine::suspend::SuspendPolicy;
use afterwrite::event::delivery::Position;

use crate::random::Random;
use crate::rebalance::Protocol;
use crate::script::Script;

pub(crate) struct Plan {
    pub(crate) seed: u64,
    /// One per member; the handlers are the same in all.
    pub(crate) limits: Vec<Limits>,
    pub(crate) log: Vec<Vec<Record>>,
    /// Every job the log asks for, whoever delivers it: a row of the ledger.
    pub(crate) rows: Vec<Row>,
    pub(crate) lanes: usize,
    pub(crate) steps_max: usize,
    /// So many records of each partition exist; fewer than were written make a failing history shorter.
    pub(crate) records_max: usize,
    /// Deaths of processes while a job runs alone that it takes to bury it; 0 is never, and then no job kills.
    pub(crate) crash_deaths_max: u32,
    /// So many jobs of a hundred kill the process.
    killers: usize,
    /// How often faults happen; 0 is never.
    pub(crate) trouble: usize,
    pub(crate) protocol: Protocol,
    /// Groups end before bytes that cannot be decoded, until somebody says that they may be buried.
    pub(crate) halts: bool,
}

pub(crate) struct Record {
    pub(crate) position: Position,
    pub(crate) bytes: usize,
    /// Empty for a watermark; one row without a handler for bytes that cannot be decoded.
    pub(crate) rows: Range<usize>,
}

pub(crate) struct Row {
    pub(crate) partition: PartitionId,
    /// Place of its record in the log.
    pub(crate) index: usize,
    pub(crate) handler: HandlerIndex,
    pub(crate) key: u64,
    pub(crate) lane: usize,
    pub(crate) script: Script,
    /// So many attempts of replays fail as the script says; then it works.
    pub(crate) heals_after: u32,
}

impl Plan {
    pub(crate) fn draw(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let partitions = random.between(1, 4);
        let handlers = (0..random.between(1, 3))
            .map(|_| handler(&mut random))
            .collect::<Vec<_>>();
        let crash_deaths_max = [0, 1, 2, 3][random.below(4)];
        let killers = if crash_deaths_max == 0 {
            0
        } else {
            [0, 0, 1, 4][random.below(4)]
        };
        let limits = (0..random.between(1, 3))
            .map(|_| limits(&mut random, &handlers, crash_deaths_max))
            .collect();
        let mut plan = Self {
            seed,
            limits,
            log: Vec::new(),
            rows: Vec::new(),
            lanes: 0,
            crash_deaths_max,
            killers,
            records_max: usize::MAX,
            steps_max: random.between(250, 1_000),
            trouble: [0, 1, 2, 3, 4, 6][random.below(6)],
            protocol: [Protocol::Eager, Protocol::Cooperative, Protocol::Consumer][random.below(3)],
            halts: false,
        };
        let keys = random.between(1, 4);
        for partition in 0..partitions {
            plan.write_log(&mut random, partition, keys, handlers.len());
        }
        plan.halts = random.chance(25);
        plan
    }

    fn write_log(&mut self, random: &mut Random, partition: usize, keys: usize, handlers: usize) {
        let id = PartitionId(u32::try_from(partition).expect("there are few partitions"));
        let lanes_before = self.lanes;
        let mut records = Vec::new();
        let mut position = 0;
        for index in 0..random.between(20, 80) {
            position += random.below(3) as i64 * random.below(4) as i64 + 1;
            let first_row = self.rows.len();
            let key = random.below(keys);
            let woken: Vec<usize> = match random.below(100) {
                0..12 => Vec::new(),
                12..16 => vec![handlers],
                _ => (0..handlers).filter(|_| random.chance(70)).collect(),
            };
            for handler in woken {
                let decoded = handler < handlers;
                let named = HandlerIndex(u16::try_from(handler).expect("there are few handlers"));
                self.rows.push(Row {
                    partition: id,
                    index,
                    handler: if decoded { named } else { HandlerIndex::NONE },
                    key: key as u64,
                    lane: lanes_before + handler * keys + key,
                    script: match decoded && random.chance(self.killers) {
                        true => Script::Kills,
                        false => Script::draw(random),
                    },
                    heals_after: u32::try_from(random.below(4)).expect("it is small"),
                });
            }
            records.push(Record {
                position: Position(position),
                bytes: random.between(1, 40),
                rows: first_row..self.rows.len(),
            });
        }
        self.lanes += (handlers + 1) * keys;
        self.log.push(records);
    }

    /// The number of a lane.
    pub(crate) fn lane(&self, id: PartitionId, handler: HandlerIndex, key: u64) -> Option<usize> {
        let named = |row: &&Row| (row.partition, row.handler, row.key) == (id, handler, key);
        self.rows.iter().find(named).map(|row| row.lane)
    }

    pub(crate) fn record(&self, id: PartitionId, index: usize) -> &Record {
        &self.log[id.0 as usize][index]
    }

    pub(crate) fn records(&self, id: PartitionId) -> usize {
        self.log[id.0 as usize].len().min(self.records_max)
    }

    /// The first record at or after a position.
    pub(crate) fn index_of(&self, id: PartitionId, position: Position) -> usize {
        self.log[id.0 as usize].partition_point(|record| record.position < position)
    }
}

fn handler(random: &mut Random) -> HandlerLimits {
    HandlerLimits {
        coalesce_max: [1, 1, 2, 3, 5][random.below(5)],
        running_max: [1, 2, 9, 9][random.below(4)],
        starts_per_second_max: [None, None, None, Some(1), Some(5)][random.below(5)],
        parks: random.chance(40),
        suspend: SuspendPolicy {
            attempts_min: [0, 4, 6, 8][random.below(4)],
            attempts_window: Duration::from_secs(30),
            silence: Duration::from_secs([0, 5, 20][random.below(3)]),
            jobs_min: [0, 4, 8][random.below(3)],
            jobs_window: Duration::from_secs(60),
        },
        policy: Policy {
            attempts_max: u32::try_from(random.between(1, 4)).expect("it is small"),
            first_wait: Duration::from_secs(1),
            factor: 2,
            wait_max: Duration::from_secs(6),
            asked_wait_max: Duration::from_secs(10),
            outage_wait_max: Duration::from_secs(3),
            exhausted_alone_after: Duration::from_secs([20, 60][random.below(2)]),
        },
    }
}

fn limits(random: &mut Random, handlers: &[HandlerLimits], crash_deaths_max: u32) -> Limits {
    Limits {
        crash_deaths_max,
        reserved_ahead: [1, 4, 12, 40][random.below(4)],
        running_max: random.between(1, 4),
        buffered_events_max: random.between(2, 40),
        buffered_bytes_max: [60, 200, 800, 3_000][random.below(4)],
        lag_bytes_max: [0, 100, 1_000][random.below(3)],
        handlers: handlers.to_vec(),
    }
}
