//! Random campaigns: whatever is done in whatever order, with deliveries that repeat, die and overtake each other, ends where
//! the facts say.
//!
//! An application signs users up, verifies, refers, blocks, erases and reviews at random. Between its statements the groups
//! get their changes, in order within a lane and in no order between lanes and groups: one, several at once, once more, or
//! rolled back before the commit. At the end [`model`] computes from the facts what there should be.
//!
//! Mails go to a server that loses replies, refuses for now, and knows some recipients not; [`mails`] looks at each one when it
//! comes, and at the account at the end. [`analytics`] counts the hours.
//!
//! `CAMPAIGNS=n` runs n seeds instead of a few, from `CAMPAIGNS_FROM`; a failing seed is printed.

mod analytics;

mod application;

mod mails;

mod model;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use afterwrite::event::change::ChangeEvent;
use afterwrite::handler::{Fault, Handler, HandlerError, Outcome};
use afterwrite::ledger::transaction::Mode;
use afterwrite::router::Router;

use self::application::Application;
use self::mails::Post;
use crate::deaths::end_leases;
use crate::servers::MailServer;
use crate::world::{World, in_world_with, settings, smtp, smtp_mailer};

/// Groups that are played.
const GROUPS: [&str; 4] = ["email", "fraud", "position", "reward"];

/// Statements of the application in one campaign.
const STEPS: u32 = 110;

/// More deliveries than any campaign needs to come to rest.
const DELIVERIES_MAX: u32 = 6_000;

/// A small generator, so that a failing seed can be run again.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub(crate) fn roll(&mut self, sides: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % sides.max(1)
    }

    pub(crate) fn chance(&mut self, percent: usize) -> bool {
        self.roll(100) < percent
    }

    pub(crate) fn pick<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        from.get(self.roll(from.len()))
    }
}

type Lane = (usize, String, u64);

/// What waits for the groups.
struct Groups {
    router: Router,
    lanes: BTreeMap<Lane, VecDeque<Arc<ChangeEvent>>>,
    done: Vec<(usize, Arc<ChangeEvent>)>,
    deliveries: u32,
}

impl Groups {
    fn new(world: &World) -> Self {
        let handlers: Vec<Arc<dyn Handler>> = GROUPS.iter().map(|name| world.handler(name)).collect();
        Self {
            router: Router::new(handlers),
            lanes: BTreeMap::new(),
            done: Vec::new(),
            deliveries: 0,
        }
    }

    /// Takes what changed into the lanes.
    async fn take_in(&mut self, world: &World) {
        for event in world.recorder.drain().await.unwrap() {
            for woken in self.router.route(&event) {
                let lane = (woken.handler, event.origin().table.to_string(), woken.key);
                self.lanes.entry(lane).or_default().push_back(Arc::clone(&event));
            }
        }
        self.lanes.retain(|_, waiting| !waiting.is_empty());
    }

    /// Delivers something, somehow. Answers `false` when nothing waits.
    async fn deliver(&mut self, world: &World, dice: &mut Dice) -> bool {
        self.deliveries += 1;
        assert!(self.deliveries < DELIVERIES_MAX, "the handlers do not come to rest");
        let waiting: Vec<Lane> = self.lanes.keys().cloned().collect();
        let Some(lane) = dice.pick(&waiting).cloned() else {
            return false;
        };
        match dice.roll(10) {
            0 => self.die(world, dice, &lane).await,
            1 => self.repeat(world, dice).await,
            2 | 3 => {
                let other = dice.pick(&waiting).cloned().filter(|other| *other != lane);
                self.two_at_once(world, dice, lane, other).await;
            }
            _ => self.one(world, dice, lane).await,
        }
        self.take_in(world).await;
        true
    }

    fn head(&self, lane: &Lane, dice: &mut Dice) -> Vec<Arc<ChangeEvent>> {
        let waiting = &self.lanes[lane];
        let most = self.router.handlers()[lane.0].spec().coalesce_max.min(waiting.len());
        let take = 1 + dice.roll(most);
        waiting.iter().take(take).cloned().collect()
    }

    async fn one(&mut self, world: &World, dice: &mut Dice, lane: Lane) {
        let events = self.head(&lane, dice);
        let ended = world.events_to(GROUPS[lane.0], &events, Mode::Deliver).await;
        self.settle(world, lane, &events, ended).await;
    }

    async fn two_at_once(&mut self, world: &World, dice: &mut Dice, lane: Lane, other: Option<Lane>) {
        let Some(other) = other else {
            return self.one(world, dice, lane).await;
        };
        let (mine, yours) = (self.head(&lane, dice), self.head(&other, dice));
        let (one, two) = tokio::join!(
            world.events_to(GROUPS[lane.0], &mine, Mode::Deliver),
            world.events_to(GROUPS[other.0], &yours, Mode::Deliver),
        );
        self.settle(world, lane, &mine, one).await;
        self.settle(world, other, &yours, two).await;
    }

    /// A transient failure leaves the lane as it is, and so does a wait, for whose end nobody waits here; any other failure is a
    /// bug.
    async fn settle(
        &mut self,
        world: &World,
        lane: Lane,
        events: &[Arc<ChangeEvent>],
        ended: Result<Outcome, HandlerError>,
    ) {
        match ended {
            Ok(Outcome::Snooze(_)) => end_leases(world).await,
            Ok(Outcome::Done | Outcome::Skipped(_)) => {
                let waiting = self.lanes.get_mut(&lane).unwrap();
                waiting.drain(..events.len());
                self.done.extend(events.iter().map(|event| (lane.0, Arc::clone(event))));
            }
            Err(error) if matches!(error.fault, Fault::Transient { .. }) => {}
            Err(error) => panic!("{} failed: {}", GROUPS[lane.0], error.chain()),
        }
    }

    /// The process dies before the commit.
    async fn die(&self, world: &World, dice: &mut Dice, lane: &Lane) {
        let events = self.head(lane, dice);
        world.roll_back(GROUPS[lane.0], &events).await;
    }

    /// Something that was done is delivered once more.
    async fn repeat(&self, world: &World, dice: &mut Dice) {
        if let Some((group, event)) = dice.pick(&self.done) {
            let again = world
                .events_to(GROUPS[*group], std::slice::from_ref(event), Mode::Deliver)
                .await;
            again.unwrap();
        }
    }
}

async fn play(world: &World, seed: u64, server: &MailServer) {
    let mut dice = Dice::new(seed);
    let mut application = Application::start(world, &mut dice).await;
    let mut groups = Groups::new(world);
    let mut post = Post::new(server);
    for step in 0..STEPS {
        application.act(world, &mut dice).await;
        post.note(world).await;
        groups.take_in(world).await;
        for _ in 0..dice.roll(6) {
            groups.deliver(world, &mut dice).await;
            post.look(world).await;
            model::places_are_dense(world).await;
        }
        if step == STEPS / 2 {
            analytics::run_in_between(world).await;
        }
    }
    application.end(world, &mut dice).await;
    post.note(world).await;
    rest(world, &mut dice, &mut groups, &mut post).await;
    if application.completes {
        application.review_all(world, &mut dice).await;
        rest(world, &mut dice, &mut groups, &mut post).await;
    }
    model::judge(world, &application).await;
    post.judge(world).await;
    analytics::judge(world, &mut dice).await;
}

/// Delivers until nothing waits any more.
async fn rest(world: &World, dice: &mut Dice, groups: &mut Groups, post: &mut Post<'_>) {
    groups.take_in(world).await;
    while groups.deliver(world, dice).await {
        post.look(world).await;
        model::places_are_dense(world).await;
    }
}

#[tokio::test]
async fn any_campaign_ends_where_its_facts_say() {
    let number = |name: &str, default: u64| std::env::var(name).map_or(default, |text| text.parse().unwrap());
    let (from, seeds) = (number("CAMPAIGNS_FROM", 1), number("CAMPAIGNS", 4));
    for seed in from..from + seeds {
        println!("seed {seed}: CAMPAIGNS_FROM={seed} CAMPAIGNS=1 plays it alone");
        let server = MailServer::start(&mails::script(&mut Dice::new(seed))).await;
        let mailer = smtp_mailer(smtp("127.0.0.1", server.address.port()));
        let campaign = async |world: &mut World| play(world, seed, &server).await;
        in_world_with(mailer, settings(), campaign).await;
    }
}
