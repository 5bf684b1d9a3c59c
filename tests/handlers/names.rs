//! An application that calls its tables and columns otherwise: the handlers do the same in it.

use std::collections::BTreeMap;

use afterwrite::handlers::names::{Names, TableNames, check};
use sqlx::postgres::{PgConnectOptions, PgPool};

use crate::database::{in_database, run};
use crate::world::{World, in_renamed_world};

/// What the reference's tables become. `people` has a column of its own that is called as another one of the reference.
const RENAMING: &str = "
    CREATE SCHEMA app;
    ALTER TABLE waitlist_users RENAME TO people;
    ALTER TABLE people RENAME COLUMN email TO mail;
    ALTER TABLE people RENAME COLUMN campaign_id TO list_id;
    ALTER TABLE people RENAME COLUMN status TO state;
    ALTER TABLE people ADD COLUMN status integer NOT NULL DEFAULT 7;
    ALTER TABLE people ALTER COLUMN user_agent TYPE varchar(200);
    ALTER TABLE campaigns RENAME TO lists;
    ALTER TABLE lists DROP COLUMN ranking, DROP COLUMN from_name;
    ALTER TABLE lists RENAME COLUMN slug TO handle;
    ALTER TABLE referrals RENAME TO invitations;
    ALTER TABLE invitations RENAME COLUMN referrer_id TO inviter_id;
    ALTER TABLE user_rewards RENAME TO prizes;
    ALTER TABLE prizes RENAME COLUMN reward_id TO kind_id;
    ALTER TABLE email_templates SET SCHEMA app;
    ALTER TABLE app.email_templates RENAME TO \"mail templates\";
    GRANT USAGE ON SCHEMA app TO afterwrite_worker;
    ALTER TABLE suppressions RENAME COLUMN email TO address_hash;
    DROP TABLE ip_safelist;
";

fn given() -> BTreeMap<String, TableNames> {
    let table = |name: Option<&str>, columns: &[(&str, &str)]| TableNames {
        name: name.map(str::to_owned),
        columns: columns
            .iter()
            .map(|(of, own)| ((*of).to_owned(), (*own).to_owned()))
            .collect(),
    };
    let people = [("email", "mail"), ("campaign_id", "list_id"), ("status", "state")];
    let given = [
        ("waitlist_users", table(Some("people"), &people)),
        (
            "campaigns",
            table(
                Some("public.lists"),
                &[("ranking", ""), ("from_name", ""), ("slug", "handle")],
            ),
        ),
        (
            "referrals",
            table(Some("invitations"), &[("referrer_id", "inviter_id")]),
        ),
        ("user_rewards", table(Some("prizes"), &[("reward_id", "kind_id")])),
        ("email_templates", table(Some("app.mail templates"), &[])),
        ("suppressions", table(None, &[("email", "address_hash")])),
        ("ip_safelist", table(Some(""), &[])),
    ];
    given.into_iter().map(|(name, own)| (name.to_owned(), own)).collect()
}

#[tokio::test]
async fn an_application_with_other_names_is_served_the_same() {
    let names = Names::new(&given()).unwrap();
    in_renamed_world(RENAMING, names, async |world: &mut World| {
        world.reward(1, &[]).await;
        let ann = world.member("ann").await;
        let bob = world.member("bob").await;
        world.pump().await;
        assert_eq!(world.ranking().await, "ann bob");
        let (friend, _) = world.friend(bob, "friend").await;
        world.pump().await;
        assert_eq!(world.ranking().await, "bob ann friend");
        assert_eq!(world.text("SELECT status FROM prizes").await, "delivered");
        for (user, mails) in [("ann", 1), ("bob", 2), ("friend", 1)] {
            assert_eq!(world.mails_to(user).len(), mails, "{user}");
        }
        // By the application's own names, and with what is found taking the reward back.
        world
            .exec(&format!(
                "UPDATE people SET device_fingerprint = 'one' WHERE id IN ('{bob}', '{friend}')"
            ))
            .await;
        world.pump().await;
        assert_eq!(world.text("SELECT status FROM prizes").await, "revoked");
        world
            .exec(&format!("UPDATE people SET state = 'blocked' WHERE id = '{ann}'"))
            .await;
        world.pump().await;
        assert_eq!(world.ranking().await, "bob friend");
    })
    .await;
}

/// The reference's tables under other names, in a database of their own.
async fn in_application(test: impl AsyncFnOnce(PgPool, PgConnectOptions)) {
    in_database(async |_, options| {
        let pool = PgPool::connect_with(options.clone()).await.unwrap();
        run(&pool, include_str!("../../infra/postgres/waitlist.sql")).await;
        run(&pool, RENAMING).await;
        test(pool.clone(), options).await;
        pool.close().await;
    })
    .await;
}

#[tokio::test]
async fn what_the_tables_lack_is_found_and_named() {
    in_application(async |pool, _| {
        run(
            &pool,
            "ALTER TABLE people REPLICA IDENTITY DEFAULT;
             ALTER TABLE people ALTER COLUMN created_at TYPE timestamp;
             ALTER TABLE prizes ALTER COLUMN ordinal TYPE bigint;
             ALTER TABLE lists DROP CONSTRAINT campaigns_pkey CASCADE",
        )
        .await;
        let mut given = given();
        given.get_mut("waitlist_users").unwrap().columns.remove("email");
        given.get_mut("referrals").unwrap().name = Some("gone".to_owned());
        let names = Names::new(&given).unwrap();
        let found = check::check(&mut pool.acquire().await.unwrap(), &names).await.unwrap();
        let said: Vec<String> = found.iter().map(check::Finding::to_string).collect();
        for part in [
            "campaigns: the primary key of public.lists should be id alone",
            "waitlist_users.email: public.people has no column email; set waitlist.tables.waitlist_users.columns.email",
            "waitlist_users.created_at: public.people.created_at is timestamp without time zone",
            "waitlist_users: old rows of public.people are not logged whole",
            "referrals: there is no table public.gone",
            "user_rewards.ordinal: public.prizes.ordinal is bigint, and should be integer",
        ] {
            assert!(
                said.iter().any(|line| line.starts_with(part)),
                "{part} is not in {said:#?}"
            );
        }
        assert_eq!(said.len(), 6, "{said:#?}");
    })
    .await;
}

#[tokio::test]
async fn the_reference_fits_itself() {
    in_database(async |_, options| {
        let pool = PgPool::connect_with(options).await.unwrap();
        run(&pool, include_str!("../../infra/postgres/waitlist.sql")).await;
        let mut connection = pool.acquire().await.unwrap();
        assert_eq!(check::check(&mut connection, &Names::default()).await.unwrap(), []);
        drop(connection);
        pool.close().await;
    })
    .await;
}

/// `[waitlist.tables]` as a user writes it.
fn configuration() -> String {
    let mut text = String::new();
    for (table, own) in given() {
        text.push_str(&format!("[waitlist.tables.{table}]\n"));
        if let Some(name) = own.name {
            text.push_str(&format!("name = \"{name}\"\n"));
        }
        for (column, name) in own.columns {
            text.push_str(&format!("columns.{column} = \"{name}\"\n"));
        }
    }
    text
}

#[tokio::test]
async fn migrate_makes_the_views_and_publishes_the_applications_tables() {
    in_application(async |pool, options| {
        let name = options.get_database().unwrap().to_owned();
        let file = std::env::temp_dir().join(format!("{name}.toml"));
        std::fs::write(&file, configuration()).unwrap();
        let url = sqlx::ConnectOptions::to_url_lossy(&options);
        let migrate = async |words: &[&str]| {
            let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_afterwrite"));
            let command = command.args(["migrate", "--publication", "require"]).args(words);
            let output = command.env("DATABASE_URL", url.as_str()).output().await.unwrap();
            (output.status.code(), String::from_utf8(output.stderr).unwrap())
        };
        let path = file.to_str().unwrap();
        assert_eq!(migrate(&["--config", path]).await, (Some(0), String::new()));
        assert_eq!(migrate(&["--config", path]).await, (Some(0), String::new()), "repeated");
        let text = async |sql: &'static str| -> String { sqlx::query_scalar(sql).fetch_one(&pool).await.unwrap() };
        let published = text(
            "SELECT string_agg(schemaname || '.' || tablename, ' ' ORDER BY tablename) FROM pg_publication_tables
             WHERE pubname = 'afterwrite_waitlist' AND schemaname = 'public'",
        );
        assert_eq!(
            published.await,
            "public.campaign_milestones public.email_log public.fraud_detections public.invitations public.lists \
             public.people public.position_changes public.prizes public.reward_rounds public.rewards"
        );
        let seen = text(
            "SELECT string_agg(viewname, ' ' ORDER BY viewname) FROM pg_views WHERE schemaname = 'afterwrite_names'",
        );
        assert_eq!(
            seen.await,
            "campaigns email_templates ip_safelist referrals suppressions user_rewards waitlist_users"
        );
        // A name that the tables do not have is said, and nothing is changed.
        run(&pool, "ALTER TABLE people RENAME COLUMN mail TO email_address").await;
        let (code, said) = migrate(&["--config", path]).await;
        assert!(
            code == Some(1) && said.contains("public.people has no column mail"),
            "{code:?} {said}"
        );
        let views = text("SELECT count(*)::text FROM pg_views WHERE schemaname = 'afterwrite_names'").await;
        assert_eq!(views, "7");
        std::fs::remove_file(&file).unwrap();
    })
    .await;
}
