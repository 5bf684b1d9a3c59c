//! Histories that once broke the core, as the simulation shrank them.

use afterwrite::engine::core::Core;
use afterwrite::engine::core::messages::{
    Action, HandlerIndex, HandlerLimits, Inheritance, Input, JobId, JobSpec, Limits, Mark, Moment, PartitionId, Work,
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
        window_events_max: 100,
        window_bytes_max: 100,
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
