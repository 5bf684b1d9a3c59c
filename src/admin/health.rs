//! Whether the process lives and its groups run, with reasons.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Serialize;
use tokio::time::Instant;

use crate::admin::{Group, Need, Told};
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
    needs: Vec<NeedHealth>,
}

#[derive(Debug, Serialize)]
struct GroupHealth {
    group: String,
    state: State,
    /// Since when it is so.
    since: DateTime<Utc>,
    /// Why it does not run.
    why: Option<&'static str>,
    /// Whether somebody is woken for it.
    critical: bool,
    /// Partitions that this process owns; the group's others are other processes'.
    partitions: usize,
    /// Not the process's fault, and a restart does not mend it: neither is less alive or ready for it.
    suspended: Vec<Suspended>,
    retrying: usize,
    parked_lanes: usize,
    oldest_open: Option<OpenJob>,
}

/// Something that the process needs, as it was met last. It makes the process neither less alive nor less ready: what needs
/// it waits, a restart does not bring it back, and what needs something else goes on.
#[derive(Debug, Serialize)]
struct NeedHealth {
    name: &'static str,
    state: NeedState,
    since: Option<DateTime<Utc>>,
    /// When it was met last.
    seen: Option<DateTime<Utc>>,
    why: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum NeedState {
    Up,
    Down,
    /// Nothing has needed it yet.
    Unknown,
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

pub(super) fn of(told: &Told, now: Instant) -> Health {
    let groups = told
        .groups
        .iter()
        .map(|group| GroupHealth::of(group, told.started, now));
    let groups: Vec<GroupHealth> = groups.collect();
    Health {
        is_alive: groups.iter().all(|group| group.state != State::Stuck),
        is_ready: groups.iter().all(|group| group.state == State::Running),
        groups,
        needs: told.needs.iter().map(NeedHealth::of).collect(),
    }
}

impl NeedHealth {
    fn of(need: &Need) -> Self {
        let met = need.reach.met();
        Self {
            name: need.name,
            state: match met.as_ref().map(|met| met.is_up) {
                None => NeedState::Unknown,
                Some(true) => NeedState::Up,
                Some(false) => NeedState::Down,
            },
            since: met.as_ref().map(|met| met.since),
            seen: met.as_ref().map(|met| met.seen),
            why: met.and_then(|met| met.why),
        }
    }
}

impl GroupHealth {
    fn of(group: &Group, started: DateTime<Utc>, now: Instant) -> Self {
        let is_over = group.standing.has_changed().is_err();
        let standing = group.standing.borrow().clone();
        let state = state(&standing, is_over, now);
        Self {
            group: group.name.clone(),
            state,
            since: since(&standing, state, now).unwrap_or(started),
            why: state.why(),
            critical: group.is_critical,
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

/// When the group came into this state; nothing while it has not begun to run.
fn since(standing: &Standing, state: State, now: Instant) -> Option<DateTime<Utc>> {
    match state {
        State::Starting => None,
        State::Running => standing.running_since,
        // Nobody tells of the end: it came after what was told last.
        State::Stuck | State::Ended => Some(Utc::now() - now.duration_since(standing.told_at?)),
    }
}

impl State {
    fn why(self) -> Option<&'static str> {
        match self {
            Self::Running => None,
            Self::Starting => Some("it waits for what it needs before anything is read: see `needs`, and the log"),
            Self::Stuck => Some("its driver has not turned for longer than it ever should: only a restart helps"),
            Self::Ended => Some("it has left its source, because the process stops or it cannot go on: see the log"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::sync::watch;

    use super::*;
    use crate::tally::reach::Reach;

    fn process(groups: &[Group]) -> Told {
        Told {
            started: Utc::now(),
            groups: Arc::new(groups.to_vec()),
            scheduled: None,
            pools: Arc::default(),
            figures: None,
            needs: Arc::default(),
        }
    }

    fn group(standing: Standing) -> (watch::Sender<Standing>, Group) {
        let (told, standing) = watch::channel(standing);
        let group = Group {
            name: "afterwrite.email".to_owned(),
            handlers: vec!["email".to_owned()],
            is_critical: true,
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
            let health = of(&process(&[running.clone(), other]), now);
            assert_eq!(health.groups[0].state, State::Running);
            assert_eq!(health.groups[1].state, state);
            assert_eq!((health.is_alive, health.is_ready), (is_alive, is_ready), "{state:?}");
        }
    }

    #[test]
    fn what_is_needed_and_away_is_told_with_its_reason_and_makes_nobody_unready() {
        static AWAY: Reach = Reach::new();
        static UNMET: Reach = Reach::new();
        AWAY.missed("connection refused");
        let needs = [("smtp", &AWAY), ("registry", &UNMET)].map(|(name, reach)| Need { name, reach });
        let now = Instant::now();
        let (_running, running) = group(told(Some(now)));
        let process = Told {
            needs: Arc::new(needs.to_vec()),
            ..process(&[running])
        };
        let health = of(&process, now);
        assert!(health.is_alive && health.is_ready);
        let [away, unmet] = &health.needs[..] else {
            panic!("{health:?}")
        };
        assert_eq!(
            (away.state, away.why.as_deref()),
            (NeedState::Down, Some("connection refused"))
        );
        assert!(away.since.is_some());
        assert_eq!((unmet.state, unmet.since), (NeedState::Unknown, None));
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
        let health = of(&process(&[ended]), now);
        assert_eq!(health.groups[0].state, State::Ended);
        assert!(health.is_alive && !health.is_ready);
    }
}
