//! One campaign with many users, in a database of its own.

use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions};
use sqlx::{AssertSqlSafe, Executor};
use uuid::Uuid;

use crate::cli::Failure;
use crate::cli::{database, migrate};
use crate::config::Config;

/// What anybody writes who ranks everybody in one statement.
pub(super) const BARE: &str = "UPDATE bare_positions p
    SET position = ranked.place
    FROM (SELECT user_id, row_number() OVER (ORDER BY score, verified_referrals DESC, signed_up_at, user_id) AS place
          FROM bare_positions WHERE campaign_id = $1) AS ranked
    WHERE p.campaign_id = $1 AND p.user_id = ranked.user_id";

/// The application's tables, as everywhere.
const TABLES: &str = include_str!("../../../../infra/postgres/waitlist.sql");

/// User number n has this id, so that ids lie as random as any and are found again.
const ID: &str = "md5('user ' || n)::uuid";

/// The database.
#[derive(Debug)]
pub(super) struct World {
    pub(super) pool: PgPool,
    pub(super) campaign: Uuid,
    admin: PgPool,
    name: String,
}

impl World {
    /// Half as many referrals as users, all by the first half of the users, so that in the second half one referral is one
    /// place.
    pub(super) async fn make(config: &Config, users: i32) -> Result<Self, Failure> {
        let admin = database::connect(config).await?;
        let name = format!("afterwrite_bench_{}", Uuid::new_v4().simple());
        let options: PgConnectOptions = config.postgres.url.expose().parse().map_err(Failure::usage)?;
        execute(&admin, format!("CREATE DATABASE {name}"))
            .await
            .map_err(Failure::failed)?;
        let pool = PgPoolOptions::new()
            .max_connections(2)
            .connect_with(options.database(&name))
            .await
            .map_err(Failure::failed)?;
        let world = Self {
            pool,
            campaign: Uuid::new_v4(),
            admin,
            name,
        };
        world.exec(TABLES).await.map_err(Failure::failed)?;
        migrate::migrator().run(&world.pool).await.map_err(Failure::failed)?;
        world.fill(users).await.map_err(Failure::failed)?;
        Ok(world)
    }

    async fn fill(&self, users: i32) -> Result<(), sqlx::Error> {
        let campaign = self.campaign;
        tracing::info!(users, "filling");
        self.exec(&format!(
            "INSERT INTO campaigns (id, account_id, name, slug, status)
             VALUES ('{campaign}', gen_random_uuid(), 'Bench', 'bench', 'active');
             INSERT INTO waitlist_users (id, campaign_id, email, referral_code, status, email_verified, created_at)
             SELECT {ID}, '{campaign}', 'user' || n || '@example.org', 'code' || n, 'verified', true,
                    '2026-01-01'::timestamptz + n * interval '1 second'
             FROM generate_series(1, {users}) AS n;
             INSERT INTO referrals (campaign_id, referrer_id, referred_id, status)
             SELECT '{campaign}', md5('user ' || 1 + (n::bigint * n) % ({users} / 2))::uuid, {ID}, 'verified'
             FROM generate_series({users} / 2 + 1, {users}) AS n;"
        ))
        .await?;
        self.settle().await
    }

    /// The same rows without places.
    pub(super) async fn copy(&self) -> Result<(), sqlx::Error> {
        self.exec(
            "CREATE TABLE bare_positions (LIKE waitlist_positions INCLUDING ALL);
             INSERT INTO bare_positions SELECT * FROM waitlist_positions ORDER BY user_id;
             UPDATE bare_positions SET position = NULL;",
        )
        .await?;
        self.settle().await
    }

    /// As after some time: statistics are known, and nothing of the past lies about.
    pub(super) async fn settle(&self) -> Result<(), sqlx::Error> {
        self.exec("VACUUM ANALYZE").await?;
        self.exec("CHECKPOINT").await.or_else(|_| Ok(()))
    }

    /// User number n refers the first user, and answers who that is.
    pub(super) async fn refer(&self, n: i32) -> Result<Uuid, sqlx::Error> {
        self.one(&format!(
            "INSERT INTO referrals (campaign_id, referrer_id, referred_id, status)
             SELECT '{}', {ID}, md5('user 1')::uuid, 'verified' FROM (VALUES ({n})) AS given(n) RETURNING referrer_id",
            self.campaign
        ))
        .await
    }

    /// Many users of the second half get one referral each.
    pub(super) async fn refer_many(
        &self,
        connection: &mut PgConnection,
        users: usize,
    ) -> Result<Vec<Uuid>, sqlx::Error> {
        sqlx::query_scalar(AssertSqlSafe(format!(
            "WITH many AS (
                 SELECT id FROM waitlist_users WHERE campaign_id = '{campaign}'
                 ORDER BY created_at OFFSET (SELECT count(*) / 2 FROM waitlist_users) + 5000
             ), spread AS (
                 SELECT id FROM (SELECT id, row_number() OVER () AS n, count(*) OVER () AS all_of_them FROM many) AS many
                 WHERE n % greatest(all_of_them / {users}, 1) = 0 LIMIT {users}
             )
             INSERT INTO referrals (campaign_id, referrer_id, referred_id, status)
             SELECT '{campaign}', id, md5('user 2')::uuid, 'verified' FROM spread
             RETURNING referrer_id",
            campaign = self.campaign
        )))
        .fetch_all(connection)
        .await
    }

    /// User number n had signed up before so many others.
    pub(super) async fn climb(&self, n: i32, places: i32) -> Result<Uuid, sqlx::Error> {
        self.one(&format!(
            "UPDATE waitlist_users SET original_position = {n} - {places}
             WHERE id = (SELECT {ID} FROM (VALUES ({n})) AS given(n)) RETURNING id"
        ))
        .await
    }

    pub(super) async fn sign_up(&self, number: i32) -> Result<Uuid, sqlx::Error> {
        self.one(&format!(
            "INSERT INTO waitlist_users (campaign_id, email, referral_code, status, email_verified)
             VALUES ('{}', 'late{number}@example.org', 'late{number}', 'verified', true) RETURNING id",
            self.campaign
        ))
        .await
    }

    pub(super) async fn leave(&self, n: i32) -> Result<Uuid, sqlx::Error> {
        self.one(&format!(
            "UPDATE waitlist_users SET status = 'blocked'
             WHERE id = (SELECT {ID} FROM (VALUES ({n})) AS given(n)) RETURNING id"
        ))
        .await
    }

    async fn one(&self, sql: &str) -> Result<Uuid, sqlx::Error> {
        sqlx::query_scalar(AssertSqlSafe(sql.to_owned()))
            .fetch_one(&self.pool)
            .await
    }

    pub(super) async fn exec(&self, sql: &str) -> Result<(), sqlx::Error> {
        execute(&self.pool, sql.to_owned()).await
    }

    pub(super) async fn drop(self) -> Result<(), Failure> {
        self.pool.close().await;
        let dropped = execute(&self.admin, format!("DROP DATABASE {} WITH (FORCE)", self.name)).await;
        dropped.map_err(Failure::failed)
    }
}

/// Made up here and never put together from what somebody typed.
async fn execute(pool: &PgPool, sql: String) -> Result<(), sqlx::Error> {
    pool.execute(sqlx::raw_sql(AssertSqlSafe(sql))).await.map(drop)
}
