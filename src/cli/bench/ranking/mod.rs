//! `bench ranking`: what a ranking costs, beside a bare `UPDATE … FROM (SELECT row_number() …)` over rows of the same
//! table, which is the least that writes as many places.
//!
//! Everything happens in a database of its own in the server of `DATABASE_URL`, with the real tables and indexes, and each
//! figure is of a whole transaction: the unique places are checked at its end.

mod world;

use std::time::Duration;

use clap::Args;
use serde::Serialize;
use sqlx::postgres::PgConnection;
use sqlx::{Connection, PgPool};
use tokio::time::Instant;
use uuid::Uuid;

use self::world::World;
use crate::cli::Failure;
use crate::cli::bench::table::median;
use crate::cli::bench::usage::round;
use crate::cli::output::{Output, table};
use crate::config::Config;
use crate::handlers::position::sql;

/// Suspicion from which a referral does not count; nobody is suspected here.
const HOLD_AT: u8 = 80;

/// Arguments of `bench ranking`.
#[derive(Debug, Args)]
pub struct RankingArgs {
    /// Users of the campaign
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(i32).range(1_000..=10_000_000))]
    users: i32,
    /// Rounds of what is measured more than once; medians count
    #[arg(long, value_name = "ROUNDS", default_value_t = 5, value_parser = clap::value_parser!(i32).range(1..=50))]
    rounds: i32,
}

/// One figure: a whole transaction.
#[derive(Debug, Clone, Serialize)]
struct Measured {
    what: String,
    ms: f64,
    /// Rows of the places' table that were inserted or updated.
    rows_written: i64,
    /// Times the bare statement.
    of_bare: Option<f64>,
}

#[derive(Debug, Serialize)]
struct Report {
    users: i32,
    rounds: i32,
    measured: Vec<Measured>,
    /// Users ranked one by one, beside everybody ranked for the same changes.
    beside_full: Vec<Beside>,
}

#[derive(Debug, Serialize)]
struct Beside {
    users: usize,
    single_ms: f64,
    full_ms: f64,
}

/// Makes the world, measures, takes the world away, prints.
pub(super) async fn run(args: &RankingArgs, config: &Config, output: Output) -> Result<(), Failure> {
    let world = World::make(config, args.users).await?;
    let report = measure(args, &world).await;
    world.drop().await?;
    output.print(&report?, Report::text)
}

async fn measure(args: &RankingArgs, world: &World) -> Result<Report, Failure> {
    let mut report = Report {
        users: args.users,
        rounds: args.rounds,
        measured: Vec::new(),
        beside_full: Vec::new(),
    };
    whole(world, &mut report).await.map_err(Failure::failed)?;
    single(args, world, &mut report).await.map_err(Failure::failed)?;
    crossing(args, world, &mut report).await.map_err(Failure::failed)?;
    Ok(report)
}

/// Everybody, beside the bare statement.
async fn whole(world: &World, report: &mut Report) -> Result<(), sqlx::Error> {
    let campaign = world.campaign;
    let full = "rank everybody";
    let first = timed(&world.pool, "waitlist_positions", async |connection| {
        sql::rank(connection, campaign, HOLD_AT).await
    });
    let first = first.await?;
    world.settle().await?;
    world.copy().await?;
    let bare = timed(&world.pool, "bare_positions", async |connection| {
        let done = sqlx::query(world::BARE).bind(campaign).execute(connection).await?;
        Ok(done.rows_affected())
    });
    let bare = bare.await?;
    world.exec("DROP TABLE bare_positions").await?;
    world.climb(report.users, report.users - 1).await?;
    let anew = timed(&world.pool, "waitlist_positions", async |connection| {
        sql::rank(connection, campaign, HOLD_AT).await
    });
    let anew = anew.await?;
    world.settle().await?;
    let again = timed(&world.pool, "waitlist_positions", async |connection| {
        sql::rank(connection, campaign, HOLD_AT).await
    });
    let again = again.await?;
    let of_bare = |spent: Spent| Some(round(spent.ms() / bare.ms(), 2));
    for (what, spent) in [
        ("bare UPDATE … row_number()".to_owned(), bare),
        (format!("{full}, for the first time"), first),
        (format!("{full}, everybody moves down"), anew),
        (format!("{full}, nothing changed"), again),
    ] {
        report.measured.push(Measured {
            what,
            ms: round(spent.ms(), 1),
            rows_written: spent.rows,
            of_bare: of_bare(spent),
        });
    }
    Ok(())
}

/// One user, who moves a little, moves far, joins, leaves.
async fn single(args: &RankingArgs, world: &World, report: &mut Report) -> Result<(), sqlx::Error> {
    let far = args.users / 10;
    let mut figures: Vec<(String, Vec<Spent>)> = [
        "a referral that moves a user by 1".to_owned(),
        format!("a user moves by {far}"),
        "a signup".to_owned(),
        "a delivery once more".to_owned(),
        format!("a user before the last {far} leaves"),
    ]
    .map(|what| (what, Vec::new()))
    .into();
    for number in 0..args.rounds {
        let referrer = world.refer(args.users - 100 - 10 * number).await?;
        figures[0].1.push(ranked(world, referrer).await?);
        let climber = world.climb(args.users - 200 - 10 * number, far).await?;
        figures[1].1.push(ranked(world, climber).await?);
        let newcomer = world.sign_up(number).await?;
        figures[2].1.push(ranked(world, newcomer).await?);
        figures[3].1.push(ranked(world, newcomer).await?);
        let leaver = world.leave(args.users - far - 10 * number).await?;
        figures[4].1.push(ranked(world, leaver).await?);
    }
    for (what, spent) in figures {
        report.measured.push(Measured {
            what,
            ms: round(median(spent.iter().map(Spent::ms).collect()), 2),
            rows_written: median(spent.iter().map(|spent| spent.rows as f64).collect()) as i64,
            of_bare: None,
        });
    }
    Ok(())
}

async fn ranked(world: &World, user: Uuid) -> Result<Spent, sqlx::Error> {
    let campaign = world.campaign;
    timed(&world.pool, "waitlist_positions", async |connection| {
        sql::rank_users(connection, campaign, &[user], HOLD_AT).await
    })
    .await
}

/// From how many users at once ranking everybody is cheaper: the same changes both ways, each taken back.
async fn crossing(args: &RankingArgs, world: &World, report: &mut Report) -> Result<(), sqlx::Error> {
    let campaign = world.campaign;
    let most = usize::try_from(args.users).unwrap_or(0) / 25;
    for users in [1, 10, 100, 1_000, 10_000, most]
        .into_iter()
        .filter(|users| *users <= most)
    {
        let mut connection = world.pool.acquire().await?;
        let mut changes = connection.begin().await?;
        let referrers = world.refer_many(&mut changes, users).await?;
        let mut transaction = changes.begin().await?;
        let began = Instant::now();
        sql::rank_users(&mut transaction, campaign, &referrers, HOLD_AT).await?;
        let single_ms = began.elapsed().as_secs_f64() * 1e3;
        transaction.rollback().await?;
        let mut transaction = changes.begin().await?;
        let began = Instant::now();
        sql::rank(&mut transaction, campaign, HOLD_AT).await?;
        let full_ms = began.elapsed().as_secs_f64() * 1e3;
        transaction.rollback().await?;
        changes.rollback().await?;
        report.beside_full.push(Beside {
            users,
            single_ms: round(single_ms, 1),
            full_ms: round(full_ms, 1),
        });
    }
    Ok(())
}

/// What one transaction took.
#[derive(Debug, Clone, Copy)]
struct Spent {
    time: Duration,
    rows: i64,
}

impl Spent {
    fn ms(&self) -> f64 {
        self.time.as_secs_f64() * 1e3
    }
}

/// Runs work in a transaction, and counts what it writes to a table.
async fn timed(
    pool: &PgPool,
    table: &str,
    work: impl AsyncFnOnce(&mut PgConnection) -> Result<u64, sqlx::Error>,
) -> Result<Spent, sqlx::Error> {
    let mut transaction = pool.begin().await?;
    // The server's counts go on from transaction to transaction until it takes them over.
    let before = rows_written(&mut transaction, table).await?;
    let began = Instant::now();
    work(&mut transaction).await?;
    let worked = began.elapsed();
    let rows = rows_written(&mut transaction, table).await? - before;
    let began = Instant::now();
    transaction.commit().await?;
    let time = worked + began.elapsed();
    Ok(Spent { time, rows })
}

async fn rows_written(connection: &mut PgConnection, table: &str) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar("SELECT n_tup_ins + n_tup_upd + n_tup_del FROM pg_stat_xact_user_tables WHERE relname = $1")
        .bind(table)
        .fetch_one(connection)
        .await
}

impl Report {
    fn text(&self) -> String {
        let head = format!("{} users, {} rounds; whole transactions\n\n", self.users, self.rounds);
        let rows = self.measured.iter().map(|figure| {
            [
                figure.what.clone(),
                format!("{:.1}", figure.ms),
                figure.rows_written.to_string(),
                figure.of_bare.map_or_else(String::new, |times| format!("{times:.2}")),
            ]
        });
        let beside = self.beside_full.iter().map(|beside| {
            [
                beside.users.to_string(),
                format!("{:.1}", beside.single_ms),
                format!("{:.1}", beside.full_ms),
            ]
        });
        head + &table(["MEASURED", "MS", "ROWS WRITTEN", "OF BARE"], rows)
            + "\n\n"
            + &table(["USERS AT ONCE", "ONE BY ONE, MS", "EVERYBODY, MS"], beside)
    }
}
