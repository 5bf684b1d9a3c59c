//! One database with the waitlist's tables, the handlers, and a pump that brings every recorded change to them: twice,
//! from two workers.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use afterwrite::clients::mailer::{Mailer, Protection, SmtpMailer, SmtpSettings};
use afterwrite::clients::webhook::{HttpCaller, WebhookSettings};
use afterwrite::event::change::ChangeEvent;
use afterwrite::handler::{Context, Handler, HandlerError, Outcome, Resources};
use afterwrite::handlers::email::EmailSettings;
use afterwrite::handlers::email::links::Links;
use afterwrite::handlers::email::message::Sender;
use afterwrite::handlers::fraud::rules::FraudSettings;
use afterwrite::handlers::named;
use afterwrite::handlers::names::{Names, check, views};
use afterwrite::handlers::reward::RewardSettings;
use afterwrite::handlers::secret::Secret;
use afterwrite::handlers::{self, Clients, Settings};
use afterwrite::ledger::effects::Effects;
use afterwrite::ledger::transaction::Mode;
use afterwrite::ledger::{LedgerKey, days};
use afterwrite::testkit::event::Recorder;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use uuid::Uuid;

use crate::database::{in_database, run};

/// What a connector would capture.
const CAPTURED: &[&str] = &[
    "campaigns",
    "waitlist_users",
    "referrals",
    "rewards",
    "user_rewards",
    "position_changes",
    "email_log",
    "fraud_detections",
    "campaign_milestones",
    "reward_rounds",
];

/// More rounds than any cascade of changes has; an endless one is a handler that wakes itself.
const ROUNDS_MAX: usize = 30;

pub(crate) struct World {
    /// Unique in this run; part of every address, so that mails of tests do not mix.
    pub(crate) name: String,
    pub(crate) pool: PgPool,
    pub(crate) campaign: Uuid,
    pub(crate) recorder: Recorder,
    pub(crate) handlers: Vec<Arc<dyn Handler>>,
    worker: PgPool,
    first: Resources,
    second: Resources,
}

pub(crate) fn env(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("set {name} to run these tests against real services"))
}

/// The mail server of the environment.
pub(crate) fn mail_server() -> SmtpSettings {
    let port = env("SMTP_PORT").parse().expect("SMTP_PORT is a number");
    smtp(&env("SMTP_HOST"), port)
}

pub(crate) fn smtp(host: &str, port: u16) -> SmtpSettings {
    SmtpSettings {
        host: host.to_owned(),
        port,
        protection: Protection::None,
        credentials: None,
        hello_name: "worker.test".to_owned(),
        step_timeout: Duration::from_secs(5),
        connections_max: 2,
        idle_max: Duration::from_secs(5),
        authorities_pem: None,
        rate: None,
    }
}

pub(crate) fn settings() -> Settings {
    Settings {
        secret: Secret::new("a secret for tests"),
        email: EmailSettings {
            users_table: "public.waitlist_users".to_owned(),
            sender: Sender {
                name: "Waitlist".into(),
                address: "waitlist@sender.example".into(),
                reply_to: None,
            },
            links: Links {
                verification_url: "https://app.example/verify?token={token}".into(),
                referral_url: "https://app.example/{campaign}?ref={code}".into(),
                public_url: Some("https://lists.example".into()),
            },
        },
        reward: RewardSettings::default(),
        fraud: FraudSettings::default(),
    }
}

/// Runs a test in a world of its own, and takes the world away afterwards, whatever came.
pub(crate) async fn in_world(test: impl AsyncFnOnce(&mut World)) {
    Box::pin(in_world_with(smtp_mailer(mail_server()), settings(), test)).await;
}

pub(crate) fn smtp_mailer(settings: SmtpSettings) -> Arc<dyn Mailer> {
    Arc::new(SmtpMailer::new(settings).unwrap())
}

pub(crate) async fn in_world_with(mailer: Arc<dyn Mailer>, settings: Settings, test: impl AsyncFnOnce(&mut World)) {
    in_database(async |name, options| {
        let mut world = World::new(&name, options, mailer, settings, None).await;
        world.test(test).await;
    })
    .await;
}

/// In an application that has other names: `renaming` gives its tables and columns those.
pub(crate) async fn in_renamed_world(renaming: &str, names: Names, test: impl AsyncFnOnce(&mut World)) {
    in_database(async |name, options| {
        let mailer = smtp_mailer(mail_server());
        let renamed = Some((renaming, names));
        let mut world = World::new(&name, options, mailer, settings(), renamed).await;
        world.test(test).await;
    })
    .await;
}

impl World {
    async fn test(&mut self, test: impl AsyncFnOnce(&mut World)) {
        test(self).await;
        self.worker.close().await;
        self.pool.close().await;
    }

    async fn new(
        name: &str,
        options: PgConnectOptions,
        mailer: Arc<dyn Mailer>,
        settings: Settings,
        renamed: Option<(&str, Names)>,
    ) -> Self {
        let options = options.options([("search_path", views::SEARCH_PATH)]);
        let pool = PgPoolOptions::new()
            .max_connections(20)
            .connect_with(options.clone())
            .await
            .unwrap();
        for script in [
            include_str!("../../infra/postgres/waitlist.sql"),
            include_str!("../../infra/postgres/migrations/0001_coordination.sql"),
            include_str!("../../infra/postgres/migrations/0002_waitlist_worker.sql"),
            include_str!("../../infra/postgres/migrations/0003_effect_failures.sql"),
            include_str!("../../infra/postgres/migrations/0004_inheritance.sql"),
            include_str!("../../infra/postgres/migrations/0005_letters.sql"),
            include_str!("../../infra/postgres/migrations/0006_groups.sql"),
            include_str!("../../infra/postgres/migrations/0007_status.sql"),
            include_str!("../../infra/postgres/migrations/0008_slots.sql"),
            include_str!("../../infra/postgres/migrations/0009_sources.sql"),
            include_str!("../../infra/postgres/migrations/0010_parked_letters.sql"),
            include_str!("../../infra/postgres/migrations/0011_schedule.sql"),
            include_str!("../../infra/postgres/migrations/0013_milestone_mails.sql"),
            include_str!("../../infra/postgres/migrations/0014_ranking.sql"),
            include_str!("../../infra/postgres/migrations/0015_erasure.sql"),
            include_str!("../../infra/postgres/migrations/0016_acceptances.sql"),
            include_str!("../../infra/postgres/publication.sql"),
        ] {
            run(&pool, script).await;
        }
        // The handlers may do what the worker's role may do, and no more.
        let worker = PgPoolOptions::new()
            .max_connections(20)
            .connect_with(options.options([("role", "afterwrite_worker")]))
            .await
            .unwrap();
        let recorder = Recorder::install(&pool, CAPTURED).await.unwrap();
        let webhooks = WebhookSettings {
            timeout: Duration::from_secs(3),
            allowed_networks: vec!["127.0.0.1/32".parse().unwrap()],
        };
        let clients = Clients {
            mailer,
            caller: Arc::new(HttpCaller::new(&webhooks).unwrap()),
        };
        let campaign = sqlx::query_scalar(
            "INSERT INTO campaigns (account_id, name, slug, status, milestones)
             VALUES (gen_random_uuid(), 'Launch', 'launch', 'active', '{3,5}') RETURNING id",
        )
        .fetch_one(&pool)
        .await
        .unwrap();
        let mut handlers = handlers::build(&settings, &clients);
        if let Some((renaming, names)) = renamed {
            // Changes until now have the reference's names.
            recorder.drain().await.unwrap();
            run(&pool, renaming).await;
            let found = check::check(&mut pool.acquire().await.unwrap(), &names).await.unwrap();
            assert_eq!(found, [], "the names fit the tables");
            let grants = views::grants(&names, "afterwrite_worker");
            run(&pool, &format!("{}{grants}", views::script(&names))).await;
            handlers = named::woken_by(names, handlers);
        }
        Self {
            name: name.to_owned(),
            campaign,
            recorder,
            handlers,
            first: resources(&worker),
            second: resources(&worker),
            pool,
            worker,
        }
    }

    /// Connections with the worker's role.
    pub(crate) fn worker_pool(&self) -> PgPool {
        self.worker.clone()
    }

    pub(crate) fn handler(&self, name: &str) -> Arc<dyn Handler> {
        let found = self.handlers.iter().find(|handler| handler.spec().name == name);
        Arc::clone(found.unwrap())
    }

    pub(crate) async fn exec(&self, sql: &str) {
        run(&self.pool, sql).await;
    }

    pub(crate) async fn count(&self, sql: &str) -> i64 {
        sqlx::query_scalar(sqlx::AssertSqlSafe(format!("SELECT count(*) FROM {sql}")))
            .fetch_one(&self.pool)
            .await
            .unwrap()
    }

    /// One value as text; `-` when there is no row or a null.
    pub(crate) async fn text(&self, sql: &str) -> String {
        let found: Option<Option<String>> = sqlx::query_scalar(sqlx::AssertSqlSafe(format!("SELECT ({sql})::text")))
            .fetch_optional(&self.pool)
            .await
            .unwrap();
        found.flatten().unwrap_or_else(|| "-".to_owned())
    }

    /// Says in the ledger that the event is in the handler's dead letters.
    pub(crate) async fn bury(&self, handler: &str, event: &Arc<ChangeEvent>) {
        let key = LedgerKey::of(event).unwrap();
        days::make(&self.pool, key.commit_day).await.unwrap();
        sqlx::query(
            "INSERT INTO afterwrite.ledger (commit_day, handler, event_id, state) VALUES ($1, $2, $3, 'buried')",
        )
        .bind(key.commit_day)
        .bind(handler)
        .bind(&key.event_id.0[..])
        .execute(&self.pool)
        .await
        .unwrap();
    }

    pub(crate) fn address(&self, user: &str) -> String {
        format!("{user}@{}.example.org", self.name.replace('_', "-"))
    }

    /// A user who joined and has not verified the address.
    pub(crate) async fn join(&self, user: &str) -> Uuid {
        sqlx::query_scalar(
            "INSERT INTO waitlist_users (campaign_id, email, first_name, referral_code, verification_token, created_at)
             VALUES ($1, $2, $3, $2, 'token-' || $3,
                     '2026-01-01'::timestamptz + (SELECT count(*) FROM waitlist_users) * interval '1 minute')
             RETURNING id",
        )
        .bind(self.campaign)
        .bind(self.address(user))
        .bind(user)
        .fetch_one(&self.pool)
        .await
        .unwrap()
    }

    /// Agrees to news.
    pub(crate) async fn agree(&self, user: Uuid) {
        self.exec(&format!(
            "UPDATE waitlist_users SET marketing_consent = true WHERE id = '{user}'"
        ))
        .await;
    }

    pub(crate) async fn verify(&self, user: Uuid) {
        self.exec(&format!(
            "UPDATE waitlist_users SET email_verified = true, status = 'verified', verified_at = now() WHERE id = '{user}'"
        ))
        .await;
    }

    /// A verified user.
    pub(crate) async fn member(&self, user: &str) -> Uuid {
        let id = self.join(user).await;
        self.verify(id).await;
        id
    }

    /// A verified friend whose referral counts, unless something speaks against it.
    pub(crate) async fn friend(&self, referrer: Uuid, user: &str) -> (Uuid, Uuid) {
        let friend = self.member(user).await;
        (friend, self.refer(referrer, friend).await)
    }

    pub(crate) async fn refer(&self, referrer: Uuid, friend: Uuid) -> Uuid {
        sqlx::query_scalar(
            "INSERT INTO referrals (campaign_id, referrer_id, referred_id, status, verified_at)
             VALUES ($1, $2, $3, 'verified', now()) RETURNING id",
        )
        .bind(self.campaign)
        .bind(referrer)
        .bind(friend)
        .fetch_one(&self.pool)
        .await
        .unwrap()
    }

    /// A reward for this many referrals. `more` are further columns and values.
    pub(crate) async fn reward(&self, threshold: i32, more: &[(&str, &str)]) -> Uuid {
        let names: String = more.iter().map(|(name, _)| format!(", {name}")).collect();
        let values: String = more.iter().map(|(_, value)| format!(", {value}")).collect();
        let sql = format!(
            "INSERT INTO rewards (campaign_id, name, type, trigger_type, trigger_threshold, config{names})
             VALUES ('{}', 'Early access', 'early_access', 'referral_count', {threshold},
                     '{{\"code_template\": \"VIP-{{random}}\"}}'{values}) RETURNING id",
            self.campaign
        );
        sqlx::query_scalar(sqlx::AssertSqlSafe(sql))
            .fetch_one(&self.pool)
            .await
            .unwrap()
    }

    /// The places of a campaign in order, as first names.
    pub(crate) async fn ranking(&self) -> String {
        self.text(&format!(
            "SELECT string_agg(u.first_name, ' ' ORDER BY p.position)
             FROM waitlist_positions p JOIN waitlist_users u ON u.id = p.user_id
             WHERE p.campaign_id = '{}' AND p.position IS NOT NULL",
            self.campaign
        ))
        .await
    }

    /// Brings changes to the handlers until nothing changes any more; every change comes to each handler twice, the
    /// second time from another worker.
    pub(crate) async fn pump(&self) {
        for _ in 0..ROUNDS_MAX {
            let events = self.recorder.drain().await.unwrap();
            if events.is_empty() {
                return;
            }
            for event in events {
                for handler in self.woken_by(&event) {
                    for resources in [&self.first, &self.second] {
                        let name = handler.spec().name;
                        self.deliver(resources, &handler, std::slice::from_ref(&event))
                            .await
                            .unwrap_or_else(|error| panic!("{name} failed: {}", error.chain()));
                    }
                }
            }
        }
        panic!("the handlers do not come to rest");
    }

    pub(crate) fn woken_by(&self, event: &ChangeEvent) -> Vec<Arc<dyn Handler>> {
        let routed = |handler: &&Arc<dyn Handler>| {
            let routes = handler.spec().routes;
            routes.iter().any(|route| *route.table == *event.origin().table) && handler.wants(event)
        };
        self.handlers.iter().filter(routed).map(Arc::clone).collect()
    }

    /// Brings what changed to one handler, once, and answers its last word.
    pub(crate) async fn deliver_to(&self, name: &str) -> Result<Outcome, HandlerError> {
        let mut outcome = Ok(Outcome::Skipped("nothing_wanted"));
        for event in self.recorder.drain().await.unwrap() {
            if self.woken_by(&event).iter().any(|handler| handler.spec().name == name) {
                outcome = self.first_time(name, &event).await;
            }
        }
        outcome
    }

    pub(crate) async fn first_time(&self, name: &str, event: &Arc<ChangeEvent>) -> Result<Outcome, HandlerError> {
        self.deliver(&self.first, &self.handler(name), std::slice::from_ref(event))
            .await
    }

    pub(crate) async fn second_time(&self, name: &str, event: &Arc<ChangeEvent>) -> Result<Outcome, HandlerError> {
        self.deliver(&self.second, &self.handler(name), std::slice::from_ref(event))
            .await
    }

    /// The last recorded change that this handler wants.
    pub(crate) async fn last_for(&self, name: &str) -> Arc<ChangeEvent> {
        let events = self.recorder.drain().await.unwrap();
        let wanted = |event: &&Arc<ChangeEvent>| self.woken_by(event).iter().any(|handler| handler.spec().name == name);
        Arc::clone(events.iter().rfind(wanted).expect("a change that the handler wants"))
    }

    pub(crate) fn deliver<'a>(
        &'a self,
        resources: &'a Resources,
        handler: &'a Arc<dyn Handler>,
        events: &'a [Arc<ChangeEvent>],
    ) -> impl Future<Output = Result<Outcome, HandlerError>> + 'a {
        self.attempt(resources, handler, events, 1, Mode::Deliver)
    }

    pub(crate) async fn replay(&self, name: &str, event: &Arc<ChangeEvent>) -> Result<Outcome, HandlerError> {
        let mode = Mode::Replay {
            letter_id: "none".to_owned(),
        };
        self.attempt(&self.first, &self.handler(name), std::slice::from_ref(event), 1, mode)
            .await
    }

    /// Brings these events to a handler in one call, as a worker of its own.
    pub(crate) async fn events_to(
        &self,
        name: &str,
        events: &[Arc<ChangeEvent>],
        mode: Mode,
    ) -> Result<Outcome, HandlerError> {
        self.attempt(&resources(&self.worker), &self.handler(name), events, 1, mode)
            .await
    }

    pub(crate) async fn attempt_no(
        &self,
        name: &str,
        event: &Arc<ChangeEvent>,
        no: u32,
    ) -> Result<Outcome, HandlerError> {
        let events = std::slice::from_ref(event);
        self.attempt(&self.first, &self.handler(name), events, no, Mode::Deliver)
            .await
    }

    async fn attempt(
        &self,
        resources: &Resources,
        handler: &Arc<dyn Handler>,
        events: &[Arc<ChangeEvent>],
        no: u32,
        mode: Mode,
    ) -> Result<Outcome, HandlerError> {
        let mut context = Context::new(resources.clone(), &**handler, events, no, mode);
        let outcome = handler.handle(&mut context, events).await?;
        // As the engine does: what is to be done later is not done.
        if !matches!(outcome, Outcome::Snooze(_)) {
            context.commit().await?;
        }
        Ok(outcome)
    }

    /// Works on an event and dies before the commit.
    pub(crate) async fn die_before_commit(&self, name: &str, event: &Arc<ChangeEvent>) {
        let events = std::slice::from_ref(event);
        let handler = self.handler(name);
        let mut context = Context::new(self.first.clone(), &*handler, events, 1, Mode::Deliver);
        handler.handle(&mut context, events).await.unwrap();
    }

    /// Works on these events and is rolled back, as when the process dies before the commit. Whether the work succeeded is
    /// nobody's concern.
    pub(crate) async fn roll_back(&self, name: &str, events: &[Arc<ChangeEvent>]) {
        let handler = self.handler(name);
        let mut context = Context::new(resources(&self.worker), &*handler, events, 1, Mode::Deliver);
        drop(handler.handle(&mut context, events).await);
    }

    /// Mails in the catcher's folder to this user of this world.
    pub(crate) fn mails_to(&self, user: &str) -> Vec<String> {
        let to = format!("To: {}", self.address(user));
        let files = std::fs::read_dir(env("MAILBOX_DIR")).unwrap();
        files
            .filter_map(|file| std::fs::read_to_string(file.unwrap().path()).ok())
            .filter(|mail| mail.contains(&to))
            .collect()
    }
}

fn resources(pool: &PgPool) -> Resources {
    Resources {
        pool: pool.clone(),
        effects: Effects::new(pool.clone(), Uuid::new_v4(), Duration::from_secs(60)),
        redo_days: Arc::default(),
    }
}
