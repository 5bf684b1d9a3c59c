//! The storm: members join and leave, are stopped and killed; Postgres and the broker are killed and restarted; the
//! dead-letter topic refuses letters for a while.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::ExitStatus;
use std::time::Duration;

use tokio::time::Instant;

use crate::chaos::plan::{CHURN_MS_MAX, LULL_MS_MAX, Plan, Source};
use crate::chaos::random::Random;
use crate::chaos::watch::Watch;
use crate::chaos::{handler, log};
use crate::producer;
use crate::stack;
use crate::worker::Worker;
use crate::world::World;

/// A member that was asked to stop must have stopped by then: twice its grace, and what the broker takes.
const STOP_MAX: Duration = Duration::from_secs(40);

/// How long a service is away beside the time it needs to start.
const AWAY_MS_MAX: usize = 2_000;

/// Between two outages at least this part of the events is settled.
const WORK_BETWEEN: usize = 50;

/// What dead-letter topics are made with, so that a worker that starts meanwhile accepts them.
const LETTER_SETTINGS: [(&str, &str); 3] = [
    ("cleanup.policy", "delete"),
    ("retention.ms", "31536000000"),
    ("max.message.bytes", "10551296"),
];

/// A record must not be older than this when it arrives; every record is.
const REFUSE_EVERYTHING: (&str, &str) = ("message.timestamp.before.max.ms", "0");

const SIGTERM: i32 = 15;

/// What was done to the group, and what it did by itself.
#[derive(Debug, Default)]
pub(super) struct Figures {
    pub(super) gusts: usize,
    pub(super) joins: usize,
    pub(super) leaves: usize,
    /// The members that were killed.
    pub(super) killed: HashSet<String>,
    pub(super) broker_kills: usize,
    pub(super) broker_restarts: usize,
    pub(super) postgres_kills: usize,
    pub(super) postgres_restarts: usize,
    pub(super) unwritable: Duration,
    /// Members that ended while something they need was away.
    pub(super) given_up: usize,
    /// The most memory that a member has had, as far as that was seen.
    pub(super) memory_peak_kb: u64,
    /// What no outage explains.
    pub(super) faults: Vec<String>,
}

impl Figures {
    fn outages(&self) -> usize {
        self.broker_kills + self.broker_restarts + self.postgres_kills + self.postgres_restarts
    }
}

struct Member {
    name: String,
    worker: Worker,
}

pub(super) struct Storm<'a> {
    world: &'a World,
    plan: &'a Plan,
    watch: &'a Watch,
    journals: &'a Path,
    here: RefCell<Vec<Member>>,
    leaving: RefCell<Vec<(Instant, Member)>>,
    over: Cell<bool>,
    pub(super) figures: RefCell<Figures>,
}

impl<'a> Storm<'a> {
    pub(super) fn new(world: &'a World, plan: &'a Plan, watch: &'a Watch, journals: &'a Path) -> Self {
        Self {
            world,
            plan,
            watch,
            journals,
            here: RefCell::default(),
            leaving: RefCell::default(),
            over: Cell::new(false),
            figures: RefCell::default(),
        }
    }

    /// Rages until enough is settled or its time is over.
    pub(super) async fn rage(&self) {
        let calm = async {
            match self.plan.source {
                Source::Kafka(_) => self.refuse_letters().await,
                Source::Wal => self.take_the_mail_away().await,
            }
        };
        tokio::join!(self.churn(), self.outages(), calm, self.end());
        // The last outage may have ended everybody: what is left is for those who come now.
        self.reap();
        while self.here.borrow().len() < self.plan.source.members().0 {
            self.join();
        }
    }

    async fn end(&self) {
        let began = Instant::now();
        let enough = self.plan.events * self.plan.storm_percent / 100;
        let mut look = tokio::time::interval(Duration::from_millis(100));
        while began.elapsed() < self.plan.storm_max && (self.watch.settled() < enough || !self.has_raged()) {
            look.tick().await;
        }
        self.over.set(true);
        self.say("the storm is over");
    }

    /// Whether there was as much of everything as the plan asks for.
    fn has_raged(&self) -> bool {
        let figures = self.figures.borrow();
        figures.gusts >= self.plan.gusts_min
            && figures.outages() >= self.plan.outages_min
            && !figures.unwritable.is_zero()
    }

    /// Members come and go in gusts. Between two of them the group gets to work again.
    async fn churn(&self) {
        let mut chance = self.plan.chance(2);
        for _ in 0..self.plan.source.members().1 {
            self.wait_ms(chance.below(CHURN_MS_MAX + 1)).await;
            self.join();
        }
        while !self.over.get() {
            for _ in 0..chance.between(1, self.plan.source.gust_max()) {
                self.wait_ms(chance.below(CHURN_MS_MAX + 1)).await;
                self.reap();
                self.change(&mut chance);
            }
            let settled = self.watch.settled();
            while self.watch.settled() == settled && !self.watch.is_outage() && !self.over.get() {
                self.wait_ms(100).await;
                self.reap();
            }
            self.figures.borrow_mut().gusts += 1;
            self.wait_ms(chance.below(LULL_MS_MAX + 1)).await;
        }
    }

    /// One member joins or leaves.
    fn change(&self, chance: &mut Random) {
        let members = self.here.borrow().len();
        let (least, most) = self.plan.source.members();
        if members < least || members < most && chance.chance(60) {
            return self.join();
        }
        let member = self.here.borrow_mut().swap_remove(chance.below(members));
        if chance.chance(50) {
            self.kill(member);
        } else {
            self.ask_to_leave(member);
        }
    }

    fn join(&self) {
        let mut figures = self.figures.borrow_mut();
        figures.joins += 1;
        let name = format!("m{}", figures.joins);
        let worker = handler::start(self.world, self.plan, &name, self.journals);
        self.here.borrow_mut().push(Member { name, worker });
    }

    fn kill(&self, member: Member) {
        self.weigh();
        self.figures.borrow_mut().killed.insert(member.name);
        member.worker.kill();
    }

    fn ask_to_leave(&self, member: Member) {
        self.figures.borrow_mut().leaves += 1;
        member.worker.ask_to_stop();
        self.leaving.borrow_mut().push((Instant::now(), member));
    }

    /// Takes note of members that have ended.
    pub(super) fn reap(&self) {
        self.weigh();
        let mut figures = self.figures.borrow_mut();
        let ended = |member: &mut Member| member.worker.ended().map(|status| (member.name.clone(), status));
        self.here.borrow_mut().retain_mut(|member| match ended(member) {
            None => true,
            Some((name, status)) => {
                self.judge(&mut figures, &name, "ended by itself", status);
                false
            }
        });
        self.leaving
            .borrow_mut()
            .retain_mut(|(asked_at, member)| match ended(member) {
                None if asked_at.elapsed() < STOP_MAX => true,
                None => {
                    figures
                        .faults
                        .push(format!("{} did not stop within {STOP_MAX:?}", member.name));
                    false
                }
                // A process that has only begun has nothing to finish, and hears no signal yet.
                Some((_, status)) if status.success() || status.signal() == Some(SIGTERM) => false,
                Some((name, status)) => {
                    self.judge(&mut figures, &name, "was asked to stop and ended", status);
                    false
                }
            });
    }

    fn judge(&self, figures: &mut Figures, name: &str, what: &str, status: ExitStatus) {
        if self.watch.excuses() {
            figures.given_up += 1;
        } else {
            let at = self.watch.elapsed().as_secs_f64();
            figures.faults.push(format!("{at:.1} s: {name} {what}: {status}"));
        }
    }

    /// Postgres and the broker go away, one after the other; the first two times they are killed.
    async fn outages(&self) {
        let mut chance = self.plan.chance(3);
        let (least, most) = self.plan.outage_pauses_ms;
        let mut services = self.plan.source.services();
        for outage in 0.. {
            if outage % 2 == 0 && chance.chance(50) {
                services.swap(0, 1);
            }
            let is_first = outage % 4 < 2;
            // Where there is one service only, it is killed and stopped in turn.
            let is_kill = if services[0] == services[1] {
                outage % 2 == 0
            } else {
                is_first
            };
            let (service, verb) = (services[outage % 2], if is_kill { "kill" } else { "stop" });
            let pause = Duration::from_millis(chance.between(least, most) as u64);
            let away_ms = chance.below(AWAY_MS_MAX + 1);
            // An outage in the middle of work tells more than one that follows another.
            let (began, enough) = (Instant::now(), self.watch.settled() + self.plan.events / WORK_BETWEEN);
            while began.elapsed() < pause || self.watch.settled() < enough {
                self.wait_ms(100).await;
                if self.over.get() {
                    return;
                }
            }
            self.say(&format!("{verb} {service}"));
            let _outage = self.watch.outage();
            stack::order(verb, service).await;
            self.wait_ms(away_ms).await;
            stack::order("start", service).await;
            self.say(&format!("{service} is back"));
            self.count(verb, service);
        }
    }

    fn count(&self, verb: &str, service: &str) {
        let mut figures = self.figures.borrow_mut();
        let counted = match (verb, service) {
            ("kill", "kafka") => &mut figures.broker_kills,
            ("kill", _) => &mut figures.postgres_kills,
            (_, "kafka") => &mut figures.broker_restarts,
            (_, _) => &mut figures.postgres_restarts,
        };
        *counted += 1;
    }

    /// The dead-letter topic refuses every letter for a while.
    async fn refuse_letters(&self) {
        let (after, during) = self.plan.unwritable;
        self.wait_ms(usize::try_from(after.as_millis()).unwrap()).await;
        let topic = format!("{}.dlq", self.world.group_of(handler::NAME));
        let refusing: Vec<_> = LETTER_SETTINGS.into_iter().chain([REFUSE_EVERYTHING]).collect();
        self.set(&topic, &refusing).await;
        self.say("letters are refused");
        let began = Instant::now();
        self.wait_ms(usize::try_from(during.as_millis()).unwrap()).await;
        self.set(&topic, &LETTER_SETTINGS).await;
        self.say("letters are taken");
        self.figures.borrow_mut().unwritable = began.elapsed();
    }

    /// What every handler calls is away until so much log is kept that what waits is parked: nothing is lost by that, and nothing
    /// overtaken.
    async fn take_the_mail_away(&self) {
        let (after, during) = self.plan.unwritable;
        self.wait_ms(usize::try_from(after.as_millis()).unwrap()).await;
        let outage = self.watch.outage();
        handler::take_the_mail_away(self.journals);
        self.say("the mail server is away");
        let began = Instant::now();
        let parked = log::reach_the_limit(self.world).await;
        self.say(&format!("{parked} jobs are parked"));
        let left = during.saturating_sub(began.elapsed());
        self.wait_ms(usize::try_from(left.as_millis()).unwrap()).await;
        handler::bring_the_mail_back(self.journals);
        self.say("the mail server is back");
        drop(outage);
        self.figures.borrow_mut().unwritable = began.elapsed();
    }

    /// Kills every member, and starts as many.
    pub(super) fn strike(&self) {
        let here = std::mem::take(&mut *self.here.borrow_mut());
        self.say("all members are killed");
        let count = here.len().max(1);
        here.into_iter().for_each(|member| self.kill(member));
        (0..count).for_each(|_| self.join());
    }

    /// Takes note of the most memory that any member has had.
    fn weigh(&self) {
        let peaks = self
            .here
            .borrow()
            .iter()
            .filter_map(|member| member.worker.memory_peak_kb())
            .max();
        let mut figures = self.figures.borrow_mut();
        figures.memory_peak_kb = figures.memory_peak_kb.max(peaks.unwrap_or_default());
    }

    async fn set(&self, topic: &str, settings: &[(&str, &str)]) {
        stack::until("the topic's settings", Duration::from_secs(120), async || {
            producer::try_configure(topic, settings).await.then_some(())
        })
        .await;
    }

    /// Waits for those who are leaving, and has those who are not stop.
    pub(super) async fn disperse(&self) {
        let here = std::mem::take(&mut *self.here.borrow_mut());
        here.into_iter().for_each(|member| self.ask_to_leave(member));
        stack::until("the members to stop", STOP_MAX * 2, async || {
            self.reap();
            self.leaving.borrow().is_empty().then_some(())
        })
        .await;
    }

    fn say(&self, what: &str) {
        let (at, members) = (self.watch.elapsed().as_secs_f64(), self.here.borrow().len());
        println!(
            "{at:6.1} s, {members} members, {} settled: {what}",
            self.watch.settled()
        );
    }

    /// Lets the storm go on for so long.
    pub(super) async fn wait_ms(&self, ms: usize) {
        let pause = Duration::from_millis(ms as u64);
        let mut tick = tokio::time::interval_at(Instant::now() + pause, Duration::from_secs(1));
        tick.tick().await;
    }
}
