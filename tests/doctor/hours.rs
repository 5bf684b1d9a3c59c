//! What would take hours to come about, or another machine: server functions that lie, in the sessions of one question.

use std::time::Duration;

use crate::breaking::{as_printed, silence};
use crate::installation::{Installation, Said, execute};
use crate::patience::until;

/// A clock that is three hours ahead, and as many transactions as a year has.
const LIES: &str = "
    CREATE SCHEMA lying;
    CREATE FUNCTION lying.now() RETURNS timestamptz LANGUAGE sql AS 'SELECT pg_catalog.now() + interval ''3 hours''';
    CREATE FUNCTION lying.clock_timestamp() RETURNS timestamptz LANGUAGE sql
        AS 'SELECT pg_catalog.clock_timestamp() + interval ''3 hours''';
    CREATE FUNCTION lying.age(xid) RETURNS int LANGUAGE sql AS 'SELECT 1000000000 + pg_catalog.age($1)';";

/// Asks through the lies while a transaction is open, and ends it by the remedy.
pub(crate) async fn what_takes_hours(installation: &mut Installation, words: &[&str]) -> usize {
    execute(&installation.owner, LIES).await;
    // Of its sessions any that does something would have done so for hours.
    installation.stop().await;
    let pid = installation.open("CREATE TABLE public.never_there (i int)").await;
    let is_told = |said: &Said| said.report.to_string().contains(&format!("process {pid} of"));
    let through = [(
        "DATABASE_URL",
        installation.owner_url_through("lying,pg_catalog,public"),
    )];
    let codes = ["clock-skew", "transaction-open", "horizon-old"];
    let said: Said = until("what takes hours to be named", Duration::from_secs(40), async || {
        let said = installation.doctor(words, &through).await;
        let are_named = codes.iter().all(|code| said.codes().contains(code));
        (are_named && is_told(&said)).then_some(said)
    })
    .await;
    as_printed(installation, "transaction-open", &said).await;
    until("the transaction to be ended", Duration::from_secs(40), async || {
        let said = installation.doctor(words, &through).await;
        (!is_told(&said)).then_some(())
    })
    .await;
    installation.start();
    silence(installation, "clocks that tell the truth", words).await;
    codes.len()
}

/// A database in another encoding: nothing mends it but another one.
pub(crate) async fn another_encoding(installation: &Installation, words: &[&str]) -> usize {
    let name = format!("{}_latin1", installation.name);
    let create = format!("CREATE DATABASE {name} TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'");
    execute(&installation.owner, &create).await;
    let there = [("DATABASE_URL", installation.worker_url_of(&name))];
    let said = installation.doctor(words, &there).await;
    assert!(said.codes().contains(&"encoding"), "{:?}", said.codes());
    assert_eq!(said.code, 1);
    silence(installation, "the database in UTF8", words).await;
    execute(&installation.owner, &format!("DROP DATABASE {name} WITH (FORCE)")).await;
    1
}
