//! Histories that once broke the core, as the simulation shrank them.

use afterwrite::engine::core::Core;
use afterwrite::engine::core::messages::{
    Action, HandlerIndex, HandlerLimits, Inheritance, Input, JobId, JobSpec, Limits, Mark, Moment, PartitionId,
    RequestId, Work,
};
use afterwrite::engine::retry::{Finish, Policy};
use afterwrite::event::delivery::Position;

const P0: PartitionId = PartitionId(0);

/// A core that owns partition 0, with one job in each of `lanes` lanes.
fn core(running_max: usize, lanes: u64) -> Core {
    let mut core = Core::new(Limits {
        running_max,
        crash_deaths_max: 0,
        reserved_ahead: 1,
        buffered_events_max: 100,
        buffered_bytes_max: 100,
        lag_bytes_max: 0,
        handlers: vec![HandlerLimits {
            coalesce_max: 2,
            policy: Policy {
                attempts_max: 2,
                ..Policy::default()
            },
            ..HandlerLimits::default()
        }],
    });
    step(
        &mut core,
        Input::Assigned {
            partition: P0,
            epoch: 1,
            inherited: Inheritance::default(),
        },
    );
    for key in 0..lanes {
        step(&mut core, deliver(P0, 1, key, key));
    }
    core
}

/// A record with one job; its position follows from the job's number.
fn deliver(partition: PartitionId, epoch: u64, job: u64, key: u64) -> Input {
    Input::Delivered {
        partition,
        epoch,
        position: Position(i64::try_from(job).expect("there are few jobs")),
        bytes: 1,
        work: Work::Jobs(vec![JobSpec {
            job: JobId(job),
            handler: HandlerIndex(0),
            key,
        }]),
    }
}

fn finished(job: u64, finish: Finish) -> Input {
    Input::Finished {
        job: JobId(job),
        finish,
    }
}

fn step(core: &mut Core, input: Input) -> Vec<Action> {
    let mut actions = Vec::new();
    core.step(Moment::default(), input, &mut actions);
    actions
}

#[test]
fn a_late_budget_of_an_earlier_revocation_gives_nothing_up() {
    let mut core = core(1, 1);
    assert_eq!(step(&mut core, Input::RevokeExpired { partition: P0 }), []);
    assert_eq!((core.partitions_owned(), core.attempts_running()), (1, 1));
}

#[test]
fn what_failed_during_a_release_is_over_and_not_counted_again_when_the_budget_is_spent() {
    let mut core = core(2, 2);
    assert_eq!(step(&mut core, Input::Revoking { partition: P0 }), []);
    let failed = finished(0, Finish::Transient(None));
    assert_eq!(step(&mut core, failed), [Action::Forget { job: JobId(0) }]);
    let given_up = [
        Action::Abandon { job: JobId(1) },
        Action::Forget { job: JobId(1) },
        Action::Released {
            partition: P0,
            position: Some(Position(0)),
        },
    ];
    assert_eq!(step(&mut core, Input::RevokeExpired { partition: P0 }), given_up);
    assert_eq!(core.attempts_running(), 0);
}

#[test]
fn a_lane_of_an_assignment_that_is_over_keeps_no_place_for_the_next_one() {
    // GIVEN a lane of partition 0 that waited for room when the partition went, and one of partition 1 that waits.
    let mut core = core(1, 1);
    let p1 = PartitionId(1);
    let p2 = PartitionId(2);
    step(
        &mut core,
        Input::Assigned {
            partition: p1,
            epoch: 1,
            inherited: Inheritance::default(),
        },
    );
    step(&mut core, deliver(p1, 1, 10, 1));
    step(&mut core, Input::Lost { partition: p1 });
    step(
        &mut core,
        Input::Assigned {
            partition: p2,
            epoch: 1,
            inherited: Inheritance::default(),
        },
    );
    step(&mut core, deliver(p2, 1, 20, 1));
    // WHEN the first partition comes back with the same lane, and room appears.
    step(
        &mut core,
        Input::Assigned {
            partition: p1,
            epoch: 2,
            inherited: Inheritance::default(),
        },
    );
    step(&mut core, deliver(p1, 2, 11, 1));
    let actions = step(&mut core, finished(0, Finish::Done));
    // THEN the lane that has waited longer starts.
    let next = Action::Start {
        handler: HandlerIndex(0),
        attempt: 1,
        members: vec![JobId(20)],
        mark: Mark::None,
    };
    assert!(actions.contains(&next), "{actions:?}");
}

#[test]
fn a_partition_that_is_assigned_during_the_stop_is_let_go_at_once() {
    let mut core = core(1, 1);
    assert_eq!(step(&mut core, Input::Stopping), []);
    let p1 = PartitionId(1);
    let let_go = Action::Released {
        partition: p1,
        position: None,
    };
    let assigned = Input::Assigned {
        partition: p1,
        epoch: 1,
        inherited: Inheritance::default(),
    };
    assert_eq!(step(&mut core, assigned), [let_go]);
}

#[test]
fn the_call_that_parts_a_company_is_nobodys_attempt() {
    // GIVEN two jobs of one lane that run together, behind one that is done.
    let mut core = core(1, 1);
    for job in [1, 2] {
        step(&mut core, deliver(P0, 1, job, 0));
    }
    step(&mut core, finished(0, Finish::Done));
    // WHEN the company fails for good because of one of them, and the other fails once by itself.
    let alone = Action::Start {
        handler: HandlerIndex(0),
        attempt: 1,
        members: vec![JobId(1)],
        mark: Mark::None,
    };
    assert_eq!(step(&mut core, finished(1, Finish::Permanent)), [alone]);
    let actions = step(&mut core, finished(1, Finish::Transient(None)));
    // THEN it still has its second attempt.
    assert!(
        matches!(actions[..], [Action::Wait { job: JobId(1), .. }]),
        "{actions:?}"
    );
}

/// A core that owns partition 0, of which lane 0 is parked.
fn core_with_a_parked_lane() -> Core {
    let mut core = Core::new(Limits {
        running_max: 1,
        crash_deaths_max: 0,
        reserved_ahead: 1,
        buffered_events_max: 100,
        buffered_bytes_max: 100,
        lag_bytes_max: 0,
        handlers: vec![HandlerLimits {
            parks: true,
            ..HandlerLimits::default()
        }],
    });
    let mut inherited = Inheritance::default();
    inherited.parked.insert((HandlerIndex(0), 0), false);
    let assigned = Input::Assigned {
        partition: P0,
        epoch: 1,
        inherited,
    };
    assert_eq!(step(&mut core, assigned), []);
    core
}

fn replayed_head() -> Input {
    Input::Replayed {
        parked: None,
        partition: P0,
        epoch: 1,
        request: RequestId(0),
        position: Position(0),
        is_head: true,
        work: Work::Jobs(vec![JobSpec {
            job: JobId(0),
            handler: HandlerIndex(0),
            key: 0,
        }]),
    }
}

fn replay_starts() -> Action {
    Action::Start {
        handler: HandlerIndex(0),
        attempt: 1,
        members: vec![JobId(0)],
        mark: Mark::None,
    }
}

const HEAD_ENDED: Input = Input::Drain {
    partition: P0,
    epoch: 1,
    handler: HandlerIndex(0),
    key: 0,
};

const WHAT_IS_NEXT: Action = Action::Unpark {
    partition: P0,
    handler: HandlerIndex(0),
    key: 0,
    done: Vec::new(),
};

#[test]
fn a_replay_waits_while_it_is_asked_what_comes_next_of_its_lane() {
    // GIVEN a lane whose head was given up.
    let mut core = core_with_a_parked_lane();
    assert_eq!(step(&mut core, HEAD_ENDED), [WHAT_IS_NEXT]);
    // WHEN its head is replayed before there is an answer.
    let actions = step(&mut core, replayed_head());
    // THEN it waits for that: buried again, it would park a lane anew that the answer says is live.
    assert_eq!(actions, []);
    let live = Input::Unparked {
        partition: P0,
        epoch: 1,
        handler: HandlerIndex(0),
        key: 0,
        jobs: Vec::new(),
    };
    assert_eq!(step(&mut core, live), [replay_starts()]);
}

#[test]
fn nobody_asks_what_comes_next_of_a_lane_while_a_replay_of_it_runs() {
    let mut core = core_with_a_parked_lane();
    assert_eq!(step(&mut core, replayed_head()), [replay_starts()]);
    assert_eq!(step(&mut core, HEAD_ENDED), []);
    let ended = step(&mut core, finished(0, Finish::Skipped));
    assert!(ended.contains(&WHAT_IS_NEXT), "{ended:?}");
}
