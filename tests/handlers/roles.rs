//! What the two roles of a running installation may do: as much as they need, and nothing else.

use std::collections::BTreeMap;

use crate::world::{World, in_world};

/// Rights on each table of `public` and on single columns, as one line a table.
async fn rights(world: &World, role: &str) -> BTreeMap<String, String> {
    let sql = format!(
        "SELECT c.relname::text, coalesce(string_agg(DISTINCT word, ' ' ORDER BY word), '')
         FROM pg_class c
         LEFT JOIN LATERAL (
             SELECT lower(p) AS word FROM unnest('{{SELECT,INSERT,UPDATE,DELETE,TRUNCATE,REFERENCES,TRIGGER}}'::text[]) p
             WHERE has_table_privilege('{role}', c.oid, p)
             UNION ALL
             SELECT 'update(' || a.attname || ')' FROM pg_attribute a
             WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
               AND has_column_privilege('{role}', c.oid, a.attnum, 'UPDATE')
               AND NOT has_table_privilege('{role}', c.oid, 'UPDATE')) AS held ON true
         WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p')
         GROUP BY c.relname"
    );
    let rows: Vec<(String, String)> = sqlx::query_as(sqlx::AssertSqlSafe(sql))
        .fetch_all(&world.pool)
        .await
        .unwrap();
    rows.into_iter().collect()
}

/// Tables of the application that the worker only reads.
const READ: [&str; 6] = [
    "campaigns",
    "waitlist_users",
    "referrals",
    "rewards",
    "email_templates",
    "ip_safelist",
];

const OWN: [&str; 9] = [
    "ranked_campaigns",
    "reward_rounds",
    "waitlist_positions",
    "position_changes",
    "email_log",
    "webhook_deliveries",
    "fraud_detections",
    "campaign_milestones",
    "campaign_analytics",
];

#[tokio::test]
async fn the_worker_writes_of_the_application_only_what_it_answers_with() {
    in_world(async |world: &mut World| {
        let mut rights = rights(world, "afterwrite_worker").await;
        for table in READ {
            assert_eq!(rights.remove(table).as_deref(), Some("select"), "{table}");
        }
        for (table, expected) in [
            ("user_rewards", "insert select update"),
            ("suppressions", "insert select"),
            ("webhooks", "select update(disabled_reason) update(status)"),
        ] {
            assert_eq!(rights.remove(table).as_deref(), Some(expected), "{table}");
        }
        for table in OWN {
            let own = rights.remove(table).unwrap_or_default();
            for needed in ["select", "insert", "update", "delete"] {
                assert!(own.split(' ').any(|word| word == needed), "{table}: {own}");
            }
        }
        assert_eq!(rights, BTreeMap::new(), "a table that nobody thought of");
    })
    .await;
}

#[tokio::test]
async fn the_connector_reads_what_is_published_and_writes_its_own_two_tables() {
    in_world(async |world: &mut World| {
        let mut readable: Vec<String> = rights(world, "debezium")
            .await
            .into_iter()
            .filter(|(_, held)| !held.is_empty())
            .map(|(table, held)| format!("public.{table} {held}"))
            .collect();
        readable.sort();
        let published = world
            .text(
                "SELECT string_agg('public.' || tablename || ' select', ',' ORDER BY tablename) FROM pg_publication_tables
                 WHERE pubname = 'afterwrite_waitlist' AND schemaname = 'public'",
            )
            .await;
        assert_eq!(readable.join(","), published);
        for secret in ["webhooks", "suppressions", "email_templates", "ip_safelist"] {
            assert!(!published.contains(&format!("public.{secret} ")), "{secret} is published");
        }
        let own = world
            .text(
                "SELECT string_agg(c.relname, ' ' ORDER BY c.relname) FROM pg_class c
                 WHERE c.relnamespace = 'afterwrite'::regnamespace AND c.relkind IN ('r', 'p')
                   AND has_table_privilege('debezium', c.oid, 'SELECT, INSERT, UPDATE, DELETE')",
            )
            .await;
        assert_eq!(own, "debezium_signal heartbeat");
        let may_replicate = "SELECT rolreplication AND NOT rolsuper FROM pg_roles WHERE rolname = 'debezium'";
        assert_eq!(world.text(may_replicate).await, "true");
    })
    .await;
}
