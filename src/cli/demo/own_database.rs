//! A database of the demo's own in a Postgres that was there before.
//!
//! Nothing else in that server is written: no table, no role, no setting. The demo's groups are called like its database, so
//! that its replication slots, whose names belong to the whole server, meet nobody's. However the demo ends, slots and
//! database are dropped; what one left that was killed, the next one of the clone drops.

use std::path::PathBuf;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions};
use tokio::time::{Instant, sleep, timeout};
use url::Url;

use super::failure::DemoFailure;
use super::place::Place;
use super::screen::Screen;
use super::server::{ASK, Server};
use crate::config::value::Secret;

/// Names of databases that may be dropped begin with it.
const PREFIX: &str = "afterwrite_demo_";

/// A server that has not let us in by then is not asked any longer.
const CONNECT_MAX: Duration = Duration::from_secs(10);

/// Making a database copies files.
const MAKE_MAX: Duration = Duration::from_secs(60);

/// Who reads a slot needs a moment to notice that it has been ended.
const DROP_MAX: Duration = Duration::from_secs(60);

/// Pause before dropping is tried again.
const AGAIN_AFTER: Duration = Duration::from_millis(100);

/// The database.
#[derive(Debug, Clone)]
pub(super) struct OwnDatabase {
    name: String,
    url: Secret,
    /// The address as it was given.
    server: Secret,
    /// The server, for people.
    at: String,
    /// Where is written which databases were made and not dropped yet.
    record: PathBuf,
}

impl OwnDatabase {
    /// A name for it in the server of this address, or of `DATABASE_URL` when the address is empty. Makes nothing yet.
    pub(super) fn at(address: Option<&Secret>, place: &Place) -> Result<Option<Self>, DemoFailure> {
        let Some(given) = address else {
            return Ok(None);
        };
        let server = match given.expose() {
            "" => {
                let variable = std::env::var("DATABASE_URL").ok().filter(|url| !url.is_empty());
                Secret::new(variable.ok_or(DemoFailure::NoAddress)?)
            }
            _ => given.clone(),
        };
        let letters = uuid::Uuid::new_v4().simple().to_string();
        let name = format!("{PREFIX}{}", &letters[..8]);
        let options = options(&server)?;
        Ok(Some(Self {
            url: Secret::new(with_database(server.expose(), &name)?),
            at: format!("{}:{}", options.get_host(), options.get_port()),
            record: place.record(),
            name,
            server,
        }))
    }

    /// What the worker has to be told.
    pub(super) fn settings(&self) -> [(String, String); 2] {
        [
            ("DATABASE_URL".to_owned(), self.url.expose().to_owned()),
            ("AFTERWRITE__KAFKA__GROUP_PREFIX".to_owned(), self.name.clone()),
        ]
    }

    /// How a person reaches it, for as long as it is there. A password is not shown.
    pub(super) fn how_to_reach(&self) -> String {
        let (shown, hidden) = without_password(self.url.expose());
        let remark = if hidden { "     # and the password" } else { "" };
        format!(
            "\nafter that, because the database is in your server:\n  export DATABASE_URL='{shown}'{remark}\n  \
             export AFTERWRITE__KAFKA__GROUP_PREFIX={}",
            self.name
        )
    }

    /// Makes it, when the server can be used for so many slots.
    pub(super) async fn make(&self, screen: &Screen, slots: usize) -> Result<(), DemoFailure> {
        let mut connection = self.connect().await?;
        let asked = sqlx::query_as::<_, Server>(ASK).fetch_one(&mut connection).await;
        let server = asked.map_err(DemoFailure::Asked)?;
        self.drop_leftovers(screen, &mut connection).await?;
        let refusals = server.refusals(slots);
        if !refusals.is_empty() {
            return Err(DemoFailure::Unfit {
                at: self.at.clone(),
                why: refusals.join("; "),
            });
        }
        self.write_down(true)?;
        let made = timeout(MAKE_MAX, self.create(&mut connection)).await;
        let failed = |source| DemoFailure::NotMade {
            name: self.name.clone(),
            source,
        };
        made.unwrap_or(Err(sqlx::Error::PoolTimedOut)).map_err(failed)?;
        screen.note(&format!(
            "Postgres {} at {}, as {}: a database of the demo's own, {}, is made",
            server.version, self.at, server.role, self.name
        ));
        screen.note(
            "nothing else in that server is written; at the end the database is dropped, with its replication slots",
        );
        Ok(())
    }

    async fn create(&self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        lock(connection, &self.name).await?;
        // Of an empty template, whatever somebody put into the other one; and what is not qualified goes to `public`, also
        // for a role that is called like a schema.
        let name = &self.name;
        for sql in [
            format!("CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C'"),
            format!("ALTER DATABASE {name} SET search_path = public"),
        ] {
            sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut *connection).await?;
        }
        Ok(())
    }

    /// Drops its slots and then itself; nothing is done when it was never made.
    pub(super) async fn drop_it(&self, screen: &Screen) -> Result<(), DemoFailure> {
        if !self.written_down().contains(&self.line()) {
            return Ok(());
        }
        let mut connection = self.connect().await?;
        drop_database(&mut connection, &self.name, &self.at).await?;
        self.write_down(false)?;
        screen.note(&format!("database {} dropped, with its replication slots", self.name));
        Ok(())
    }

    /// Drops what demos of this clone that were killed left in this server.
    async fn drop_leftovers(&self, screen: &Screen, connection: &mut PgConnection) -> Result<(), DemoFailure> {
        let lines = self.written_down();
        let here = lines.iter().filter_map(|line| line.split_once(' '));
        for (_, name) in here.filter(|(at, name)| *at == self.at && is_own(name)) {
            drop_database(connection, name, &self.at).await?;
            screen.note(&format!(
                "a demo that was killed left the database {name} behind: dropped"
            ));
            self.forget(name)?;
        }
        Ok(())
    }

    async fn connect(&self) -> Result<PgConnection, DemoFailure> {
        let options = options(&self.server)?;
        let at = self.at.clone();
        match timeout(CONNECT_MAX, options.connect()).await {
            Ok(connected) => connected.map_err(|source| DemoFailure::Unreachable { at, source }),
            Err(_) => Err(DemoFailure::Silent {
                at,
                seconds: CONNECT_MAX.as_secs(),
            }),
        }
    }

    fn line(&self) -> String {
        format!("{} {}", self.at, self.name)
    }

    fn written_down(&self) -> Vec<String> {
        let text = std::fs::read_to_string(&self.record).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Before it is made, and not any more when it is gone.
    fn write_down(&self, is_there: bool) -> Result<(), DemoFailure> {
        if !is_there {
            return self.forget(&self.name);
        }
        let mut lines = self.written_down();
        lines.push(self.line());
        self.write_lines(&lines)
    }

    fn forget(&self, name: &str) -> Result<(), DemoFailure> {
        let mut lines = self.written_down();
        lines.retain(|line| *line != format!("{} {name}", self.at));
        self.write_lines(&lines)
    }

    fn write_lines(&self, lines: &[String]) -> Result<(), DemoFailure> {
        let written = match lines {
            [] => std::fs::remove_file(&self.record),
            lines => std::fs::write(&self.record, lines.join("\n") + "\n"),
        };
        written.map_err(|source| DemoFailure::Log {
            path: self.record.clone(),
            source,
        })
    }
}

/// Whether a name is one that the demo gives.
fn is_own(name: &str) -> bool {
    name.strip_prefix(PREFIX)
        .is_some_and(|letters| letters.len() == 8 && letters.chars().all(|letter| letter.is_ascii_hexdigit()))
}

/// Who makes a database and who drops it exclude each other: a session that was cut off goes on making it.
async fn lock(connection: &mut PgConnection, name: &str) -> Result<(), sqlx::Error> {
    let lock = sqlx::query("SELECT pg_advisory_lock(hashtextextended($1, 0))").bind(name);
    lock.execute(connection).await.map(|_| ())
}

async fn drop_database(connection: &mut PgConnection, name: &str, at: &str) -> Result<(), DemoFailure> {
    assert!(is_own(name), "{name} is not the demo's");
    let failed = |source| DemoFailure::NotDropped {
        at: at.to_owned(),
        name: name.to_owned(),
        source,
    };
    let dropping = async {
        lock(connection, name).await?;
        let deadline = Instant::now() + DROP_MAX / 2;
        loop {
            match try_to_drop(connection, name).await {
                Err(_) if Instant::now() < deadline => sleep(AGAIN_AFTER).await,
                tried => return tried,
            }
        }
    };
    match timeout(DROP_MAX, dropping).await {
        Ok(dropped) => dropped.map_err(|source| failed(Some(source))),
        Err(_) => Err(failed(None)),
    }
}

async fn try_to_drop(connection: &mut PgConnection, name: &str) -> Result<(), sqlx::Error> {
    for sql in [
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = $1 AND pid <> pg_backend_pid()",
        "SELECT count(pg_drop_replication_slot(slot_name)) FROM pg_replication_slots WHERE database = $1",
    ] {
        sqlx::query(sql).bind(name).execute(&mut *connection).await?;
    }
    let drop = format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)");
    sqlx::raw_sql(AssertSqlSafe(drop)).execute(connection).await.map(|_| ())
}

fn options(address: &Secret) -> Result<PgConnectOptions, DemoFailure> {
    let url: Url = address.expose().parse().map_err(|_| DemoFailure::Address)?;
    if !matches!(url.scheme(), "postgres" | "postgresql") {
        return Err(DemoFailure::Address);
    }
    let options: PgConnectOptions = address.expose().parse().map_err(|_| DemoFailure::Address)?;
    Ok(options.application_name("afterwrite demo"))
}

/// The same server, and this database in it.
fn with_database(address: &str, name: &str) -> Result<String, DemoFailure> {
    let mut url: Url = address.parse().map_err(|_| DemoFailure::Address)?;
    retain_query(&mut url, |key| key != "dbname");
    url.set_path(&format!("/{name}"));
    Ok(url.into())
}

/// The address without its password, and whether it had one.
fn without_password(address: &str) -> (String, bool) {
    let Ok(mut url) = address.parse::<Url>() else {
        return (String::new(), true);
    };
    let had = url.password().is_some() || url.query_pairs().any(|(key, _)| key == "password");
    retain_query(&mut url, |key| key != "password");
    // Refused only where there is no host, and then no password either.
    if url.set_password(None).is_err() && url.password().is_some() {
        return (String::new(), true);
    }
    (url.into(), had)
}

fn retain_query(url: &mut Url, keep: impl Fn(&str) -> bool) {
    let pairs: Vec<(String, String)> = url.query_pairs().into_owned().collect();
    let kept: Vec<_> = pairs.iter().filter(|(key, _)| keep(key)).collect();
    if kept.len() == pairs.len() {
        return;
    }
    url.set_query(None);
    if !kept.is_empty() {
        url.query_pairs_mut().extend_pairs(kept);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_database_of_an_address_is_another() {
        for (given, own) in [
            (
                "postgres://u:p%40@h:6000/app?sslmode=require",
                "postgres://u:p%40@h:6000/x?sslmode=require",
            ),
            ("postgres://h", "postgres://h/x"),
            (
                "postgresql:///app?host=/run/postgresql&dbname=other",
                "postgresql:///x?host=%2Frun%2Fpostgresql",
            ),
        ] {
            assert_eq!(with_database(given, "x").unwrap(), own);
        }
        let shown = |address| without_password(address);
        assert_eq!(shown("postgres://u:s3cret@h/x"), ("postgres://u@h/x".to_owned(), true));
        assert_eq!(
            shown("postgres://u@h/x?password=s3cret"),
            ("postgres://u@h/x".to_owned(), true)
        );
        assert_eq!(shown("postgres://u@h/x"), ("postgres://u@h/x".to_owned(), false));
    }

    #[test]
    fn nothing_but_a_demos_database_is_taken_for_one() {
        assert!(is_own("afterwrite_demo_0a1b2c3d"));
        for name in [
            "afterwrite",
            "afterwrite_demo_",
            "afterwrite_demo_0a1b2c3d; x",
            "afterwrite_demo_0a1b2c3g",
        ] {
            assert!(!is_own(name), "{name}");
        }
    }

    #[test]
    fn what_is_no_address_is_refused_and_not_quoted() {
        for address in [
            "mysql://u:s3cret@h/d",
            "s3cret",
            "postgres://u:s3cret@h/d?sslmode=sometimes",
        ] {
            let error = options(&Secret::new(address)).unwrap_err();
            assert!(!error.to_string().contains("s3cret"));
            assert!(matches!(error, DemoFailure::Address), "{address}");
        }
    }
}
