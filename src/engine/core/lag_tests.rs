//! What is parked because of lag, and what comes back.

use super::*;
use crate::engine::core::messages::{HandlerLimits, Inheritance, JobSpec, Limits, Moment, Work};
use crate::engine::retry::{Finish, Policy};

const PARTITION: PartitionId = PartitionId(0);
const HANDLER: HandlerIndex = HandlerIndex(0);
const LIMIT: u64 = 1_000;

/// A core with one partition, whose handler does not park at dead letters.
struct Group {
    core: Core,
    requests: i64,
}

impl Group {
    fn new(letters: BTreeMap<HandlerIndex, usize>) -> (Self, Vec<Action>) {
        let core = Core::new(Limits {
            running_max: 8,
            buffered_events_max: 1_000,
            buffered_bytes_max: usize::MAX,
            lag_bytes_max: LIMIT,
            crash_deaths_max: 0,
            reserved_ahead: 1,
            handlers: vec![HandlerLimits {
                policy: Policy {
                    attempts_max: 3,
                    exhausted_alone_after: std::time::Duration::ZERO,
                    ..Policy::default()
                },
                ..HandlerLimits::default()
            }],
        });
        let mut group = Self { core, requests: 0 };
        let inherited = Inheritance {
            letters,
            ..Inheritance::default()
        };
        let actions = group.step(Input::Assigned {
            partition: PARTITION,
            epoch: 1,
            inherited,
        });
        (group, actions)
    }

    fn step(&mut self, input: Input) -> Vec<Action> {
        let mut actions = Vec::new();
        self.core.step(Moment(0), input, &mut actions);
        actions
    }

    fn deliver(&mut self, job: u64, key: u64) -> Vec<Action> {
        self.step(Input::Delivered {
            partition: PARTITION,
            epoch: 1,
            position: Position(job.cast_signed()),
            bytes: 1,
            work: jobs(job, key),
        })
    }

    fn fail(&mut self, job: u64) -> Vec<Action> {
        self.step(Input::Finished {
            job: JobId(job),
            finish: Finish::Transient(None),
        })
    }

    fn lag(&mut self, bytes: u64) -> Vec<Action> {
        self.step(Input::Lag {
            partition: PARTITION,
            epoch: 1,
            bytes,
        })
    }

    fn replay(&mut self, job: u64, key: u64, attempts: u32) -> Vec<Action> {
        self.requests += 1;
        self.step(Input::Replayed {
            partition: PARTITION,
            epoch: 1,
            request: RequestId(self.requests),
            position: Position(job.cast_signed()),
            is_head: true,
            parked: Some(ParkedJob {
                handler: HANDLER,
                attempts,
            }),
            work: jobs(job, key),
        })
    }

    fn recalled(&mut self, letters: usize, left: bool) -> Vec<Action> {
        self.step(Input::Recalled {
            partition: PARTITION,
            epoch: 1,
            handler: HANDLER,
            letters,
            left,
        })
    }
}

fn jobs(job: u64, key: u64) -> Work {
    Work::Jobs(vec![JobSpec {
        job: JobId(job),
        handler: HANDLER,
        key,
    }])
}

/// The jobs that are parked, with their attempts.
fn parked(actions: &[Action]) -> Vec<(u64, u32)> {
    let parked = actions.iter().filter_map(|action| match action {
        Action::Bury {
            job,
            class: Class::Parked,
            attempts,
            park,
        } => {
            assert!(park, "its followers are held back");
            Some((job.0, *attempts))
        }
        _ => None,
    });
    parked.collect()
}

fn asked(actions: &[Action]) -> Option<usize> {
    actions.iter().find_map(|action| match action {
        Action::Recall { letters_max, .. } => Some(*letters_max),
        _ => None,
    })
}

fn says(actions: &[Action]) -> Option<bool> {
    actions.iter().find_map(|action| match action {
        Action::Lagging { lags, .. } => Some(*lags),
        _ => None,
    })
}

#[test]
fn what_waits_is_parked_above_the_limit_until_half_of_it_and_what_runs_is_not() {
    let (mut group, _) = Group::new(BTreeMap::new());
    for (job, key) in [(1, 1), (2, 2), (3, 1), (4, 4)] {
        group.deliver(job, key);
    }
    group.fail(2);
    group.fail(1);
    let below = group.lag(LIMIT);
    assert_eq!((says(&below), parked(&below)), (None, vec![]), "at the limit");
    let above = group.lag(LIMIT + 1);
    assert_eq!((says(&above), parked(&above)), (Some(true), vec![(1, 1), (2, 1)]));
    // Still above half.
    group.fail(4);
    let still = group.lag(LIMIT / 2 + 1);
    assert_eq!((says(&still), parked(&still)), (None, vec![(4, 1)]));
    assert_eq!(says(&group.lag(LIMIT / 2)), Some(false));
    group.deliver(5, 5);
    group.fail(5);
    assert_eq!(parked(&group.lag(LIMIT)), [], "nothing more is parked");
}

#[test]
fn the_frontier_goes_on_and_followers_stay_behind_the_letter() {
    let (mut group, _) = Group::new(BTreeMap::new());
    for job in [1, 2] {
        group.deliver(job, 7);
    }
    group.fail(1);
    group.lag(LIMIT + 1);
    let buried = group.step(Input::Buried { job: JobId(1) });
    assert!(buried.contains(&Action::Park { jobs: vec![JobId(2)] }), "{buried:?}");
    let arrived = group.deliver(3, 7);
    assert!(!arrived.iter().any(|action| matches!(action, Action::Start { .. })));
    group.step(Input::Stored { job: JobId(2) });
    group.step(Input::Stored { job: JobId(3) });
    let committed = group.step(Input::CommitDue);
    let positions = vec![(PARTITION, Position(4))];
    assert!(committed.contains(&Action::Commit { positions }), "{committed:?}");
}

#[test]
fn letters_come_back_whatever_the_lag_is_and_what_was_tried_counts_on() {
    let (mut group, _) = Group::new(BTreeMap::new());
    group.deliver(1, 1);
    group.fail(1);
    group.lag(LIMIT + 1);
    let buried = group.step(Input::Buried { job: JobId(1) });
    assert_eq!(asked(&buried), Some(RECALLED_MAX));
    // Its time has not come: it is asked for again with the next commit, and not before.
    assert_eq!(asked(&group.recalled(0, true)), None);
    assert_eq!(asked(&group.lag(LIMIT + 1)), None);
    assert_eq!(asked(&group.step(Input::CommitDue)), Some(RECALLED_MAX));
    assert_eq!(asked(&group.recalled(1, false)), None);
    let replayed = group.replay(10, 1, 1);
    let attempts = |actions: &[Action]| {
        let mut attempts = actions.iter().filter_map(|action| match action {
            Action::Start { attempt, .. } => Some(*attempt),
            _ => None,
        });
        attempts.next()
    };
    assert_eq!(attempts(&replayed), Some(2));
    // Nothing waits for it, so it is not parked again.
    group.fail(10);
    assert_eq!(parked(&group.lag(LIMIT * 9)), []);
    group.step(Input::Due { job: JobId(10) });
    let last = group.fail(10);
    let dead = |action: &Action| {
        matches!(
            action,
            Action::Bury {
                class: Class::Exhausted,
                attempts: 3,
                ..
            }
        )
    };
    assert!(last.iter().any(dead), "{last:?}");
    group.step(Input::Buried { job: JobId(10) });
    assert!(group.core.recalling.is_empty(), "nothing is left to ask for");
}

#[test]
fn few_come_back_at_once_and_a_lane_that_drains_counts() {
    let (mut group, taken_over) = Group::new(BTreeMap::from([(HANDLER, 3)]));
    assert_eq!(
        asked(&taken_over),
        Some(RECALLED_MAX - 3),
        "the rest of what an earlier owner left"
    );
    assert_eq!(asked(&group.recalled(RECALLED_MAX - 3, true)), None, "no room");
    let done = |group: &mut Group, job: u64| {
        group.replay(job, job, 0);
        group.step(Input::Finished {
            job: JobId(job),
            finish: Finish::Done,
        })
    };
    for job in 1..RECALLED_MAX as u64 / 2 {
        assert_eq!(asked(&done(&mut group, job)), None, "each question is for several");
    }
    assert_eq!(asked(&done(&mut group, 100)), Some(RECALLED_MAX / 2));
}

#[test]
fn ready_lanes_of_a_suspended_handler_are_parked_and_what_comes_back_is_the_probe() {
    let (mut group, _) = Group::new(BTreeMap::new());
    // Half of twenty attempts fail.
    for job in 1..=20 {
        group.deliver(job, job);
    }
    let mut job = 1;
    while !group.core.is_suspended(HANDLER) {
        group.fail(job);
        job += 1;
    }
    group.deliver(50, 50);
    let above = group.lag(LIMIT + 1);
    assert_eq!(parked(&above).len(), 21, "{above:?}");
    let probe_due = group.step(Input::ProbeDue { handler: HANDLER });
    assert!(
        !probe_due.iter().any(|action| matches!(action, Action::Start { .. })),
        "nothing is left to start"
    );
    for parked in (1..=20).chain([50]) {
        group.step(Input::Buried { job: JobId(parked) });
    }
    group.recalled(RECALLED_MAX, true);
    let replayed = group.replay(100, 1, 0);
    assert!(
        replayed.iter().any(|action| matches!(action, Action::Start { .. })),
        "{replayed:?}"
    );
}

#[test]
fn so_many_letters_are_written_at_once_and_the_next_when_half_of_them_are() {
    let (mut group, _) = Group::new(BTreeMap::new());
    group.core.limits.running_max = 100;
    let all = 100;
    for job in 1..=all {
        group.deliver(job, job);
    }
    for job in (1..=all).rev() {
        group.fail(job);
    }
    let mut written: Vec<(u64, u32)> = parked(&group.lag(LIMIT + 1));
    let oldest: Vec<u64> = written.iter().map(|(job, _)| *job).collect();
    assert_eq!(oldest, (1..=WRITTEN_AT_ONCE_MAX as u64).collect::<Vec<_>>());
    let mut most = 0;
    let mut open = written.len();
    for next in 0.. {
        let Some((job, _)) = written.get(next).copied() else {
            break;
        };
        let more = parked(&group.step(Input::Buried { job: JobId(job) }));
        open = open - 1 + more.len();
        most = most.max(open);
        written.extend(more);
    }
    assert_eq!((written.len(), most), (100, WRITTEN_AT_ONCE_MAX));
}

#[test]
fn no_limit_parks_nothing() {
    let (mut group, _) = Group::new(BTreeMap::new());
    group.core.limits.lag_bytes_max = 0;
    group.deliver(1, 1);
    group.fail(1);
    assert_eq!(group.lag(u64::MAX), []);
}
