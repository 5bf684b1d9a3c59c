//! Whether the process lives and its groups run, with reasons.

use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

use crate::admin::Group;
use crate::engine::standing::{OpenJob, Standing, Suspended};

/// A driver tells of itself at each commit; one that has not for so long is stuck, unless commits are further apart.
const SILENT_MAX: Duration = Duration::from_secs(60);

/// The answer of `/healthz` and `/readyz`.
#[derive(Debug, Serialize)]
pub(super) struct Health {
    #[serde(rename = "alive")]
    pub(super) is_alive: bool,
    #[serde(rename = "ready")]
    pub(super) is_ready: bool,
    groups: Vec<GroupHealth>,
}

#[derive(Debug, Serialize)]
struct GroupHealth {
    group: String,
    state: State,
    /// Partitions that this process owns; the group's others are other processes'.
    partitions: usize,
    /// Not the process's fault, and a restart does not mend it: neither is less alive or ready for it.
    suspended: Vec<Suspended>,
    retrying: usize,
    parked_lanes: usize,
    oldest_open: Option<OpenJob>,
}

/// What the driver of a group is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    /// It waits for what it needs before anything is fetched.
    Starting,
    Running,
    /// It has not turned for longer than it ever should.
    Stuck,
    Ended,
}

pub(super) fn of(groups: &[Group], now: Instant) -> Health {
    let groups: Vec<GroupHealth> = groups.iter().map(|group| GroupHealth::of(group, now)).collect();
    Health {
        is_alive: groups.iter().all(|group| group.state != State::Stuck),
        is_ready: groups.iter().all(|group| group.state == State::Running),
        groups,
    }
}

impl GroupHealth {
    fn of(group: &Group, now: Instant) -> Self {
        let is_over = group.standing.has_changed().is_err();
        let standing = group.standing.borrow().clone();
        Self {
            group: group.name.clone(),
            state: state(&standing, is_over, now),
            partitions: standing.partitions.len(),
            suspended: standing.suspended,
            retrying: standing.retrying,
            parked_lanes: standing.parked_lanes,
            oldest_open: standing.oldest_open,
        }
    }
}

fn state(standing: &Standing, is_over: bool, now: Instant) -> State {
    let silent_max = SILENT_MAX.max(standing.told_every * 3);
    match standing.told_at {
        _ if is_over => State::Ended,
        None => State::Starting,
        Some(told_at) if now.duration_since(told_at) > silent_max => State::Stuck,
        Some(_) => State::Running,
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::watch;

    use super::*;

    fn group(standing: Standing) -> (watch::Sender<Standing>, Group) {
        let (told, standing) = watch::channel(standing);
        let group = Group {
            name: "afterwrite.email".to_owned(),
            handlers: vec!["email".to_owned()],
            standing,
            log_behind: None,
            events_behind: None,
        };
        (told, group)
    }

    fn told(told_at: Option<Instant>) -> Standing {
        Standing {
            told_at,
            told_every: Duration::from_secs(1),
            ..Standing::default()
        }
    }

    #[test]
    fn a_process_is_ready_when_each_group_runs_and_alive_until_one_is_stuck() {
        let start = Instant::now();
        let now = start + Duration::from_secs(100);
        let seconds_ago = |seconds| told(Some(now - Duration::from_secs(seconds)));
        let cases = [
            (told(None), State::Starting, true, false),
            (seconds_ago(1), State::Running, true, true),
            (seconds_ago(61), State::Stuck, false, false),
        ];
        let (_running, running) = group(seconds_ago(0));
        for (standing, state, is_alive, is_ready) in cases {
            let (_told, other) = group(standing);
            let health = of(&[running.clone(), other], now);
            assert_eq!(health.groups[0].state, State::Running);
            assert_eq!(health.groups[1].state, state);
            assert_eq!((health.is_alive, health.is_ready), (is_alive, is_ready), "{state:?}");
        }
    }

    #[test]
    fn commits_that_are_far_apart_make_no_group_stuck() {
        let now = Instant::now() + Duration::from_secs(100);
        let standing = Standing {
            told_every: Duration::from_secs(30),
            ..told(Some(now - Duration::from_secs(70)))
        };
        assert_eq!(state(&standing, false, now), State::Running);
    }

    #[test]
    fn a_group_whose_driver_is_gone_has_ended() {
        let now = Instant::now();
        let (running, ended) = group(told(Some(now)));
        drop(running);
        let health = of(&[ended], now);
        assert_eq!(health.groups[0].state, State::Ended);
        assert!(health.is_alive && !health.is_ready);
    }
}
