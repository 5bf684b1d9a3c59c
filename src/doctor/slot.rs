//! The place in the log: that of the connector, or those of groups that read the log themselves.

use sqlx::postgres::PgPool;

use super::codes;
use super::expected::Expected;
use super::finding::{Code, Finding, Remedy, literal};
use crate::groups::slots::{self, FORGOTTEN_BYTES, PARTS_LEFT};

/// A slot on the server.
#[derive(Debug, Clone, Default, PartialEq, Eq, sqlx::FromRow)]
pub(super) struct Facts {
    pub(super) name: String,
    pub(super) plugin: Option<String>,
    pub(super) is_here: bool,
    pub(super) is_active: bool,
    pub(super) wal_status: Option<String>,
    pub(super) safe_bytes: Option<i64>,
    pub(super) lag_bytes: Option<i64>,
    pub(super) kept_bytes: Option<i64>,
    /// Who reads it.
    pub(super) reader: Option<String>,
}

/// All slots of the server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Slots {
    pub(super) all: Vec<Facts>,
    /// Those of groups that read the log, as afterwrite knows them.
    pub(super) of_groups: Vec<slots::Slot>,
    pub(super) keep_bytes_max: Option<i64>,
}

impl Slots {
    pub(super) fn named(&self, name: &str) -> Option<&Facts> {
        self.all.iter().find(|slot| slot.name == name)
    }
}

/// Every slot; those of groups only where afterwrite's schema is there.
pub(super) async fn collect(pool: &PgPool, expected: &Expected, has_schema: bool) -> Result<Slots, sqlx::Error> {
    let all = sqlx::query_as(
        "SELECT slot.slot_name::text AS name, slot.plugin::text AS plugin, slot.database = current_database() AS is_here,
                slot.active AS is_active, wal_status, safe_wal_size AS safe_bytes,
                (written.lsn - confirmed_flush_lsn)::bigint AS lag_bytes, (written.lsn - restart_lsn)::bigint AS kept_bytes,
                activity.usename::text AS reader
         FROM pg_replication_slots slot LEFT JOIN pg_stat_activity activity ON activity.pid = slot.active_pid
         CROSS JOIN (SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END AS lsn) written
         WHERE slot_type = 'logical' ORDER BY 1",
    )
    .fetch_all(pool)
    .await?;
    let of_groups = match has_schema && expected.brokers.is_none() {
        true => slots::read(pool, &expected.slots_begin).await?.slots,
        false => Vec::new(),
    };
    Ok(Slots {
        all,
        of_groups,
        keep_bytes_max: slots::keep_bytes_max(pool).await?,
    })
}

/// What is wrong with the connector's slot. `runs` says that its task does, `curls` makes the requests that begin anew.
pub(super) fn of_connector(slots: &Slots, name: &str, runs: bool, begin_anew: &str) -> Vec<Finding> {
    let Some(slot) = slots.named(name) else {
        return vec![codes::SLOT_MISSING.found(
            format!("there is no replication slot {name}, which the connector reads"),
            Remedy::shell(begin_anew),
        )];
    };
    let mut found = Vec::new();
    let plugin = slot.plugin.as_deref().unwrap_or("none");
    if plugin != "pgoutput" || !slot.is_here {
        let whose = if slot.is_here { "" } else { ", of another database" };
        found.push(codes::SLOT_FOREIGN.found(
            format!("slot {name} is one of plug-in {plugin}{whose}"),
            Remedy::words("give the connector another slot.name, or drop the slot if nobody needs it: SELECT pg_drop_replication_slot(…)"),
        ));
        return found;
    }
    if !slot.is_active && runs {
        found.push(codes::SLOT_INACTIVE.found(
            format!("the connector's task runs, and nobody reads its slot {name}"),
            Remedy::words("see the log of Kafka Connect: the task cannot reach Postgres, or reads another server than postgres.url names"),
        ));
    }
    found.extend(danger(slot, slots.keep_bytes_max, begin_anew));
    if slot.lag_bytes.is_some_and(|lag| lag > FORGOTTEN_BYTES) && found.is_empty() {
        found.push(codes::SLOT_LAG.found(
            format!("{} of log are written that the connector has not confirmed in slot {name}", megabytes(slot.lag_bytes)),
            Remedy::words(
                "see that the connector's task runs and its topics take records; raise heartbeat.interval.ms above 0 where its tables are \
                 idle; end transactions that are open for long",
            ),
        ));
    }
    found
}

fn danger(slot: &Facts, keep_bytes_max: Option<i64>, begin_anew: &str) -> Option<Finding> {
    let name = &slot.name;
    match slot.wal_status.as_deref() {
        Some("lost") => {
            return Some(codes::SLOT_LOST.found(
                format!("slot {name} is lost: the server removed log that was not read (max_slot_wal_keep_size)"),
                Remedy::shell(begin_anew),
            ));
        }
        Some("unreserved") => return Some(near_loss(codes::SLOT_DANGER, name, slot.safe_bytes)),
        _ => {}
    }
    let is_little = |left: i64| keep_bytes_max.is_some_and(|max| left < max / PARTS_LEFT);
    slot.safe_bytes
        .is_some_and(is_little)
        .then(|| near_loss(codes::SLOT_DANGER, name, slot.safe_bytes))
}

fn near_loss(code: &'static Code, name: &str, left: Option<i64>) -> Finding {
    code.found(
        format!(
            "slot {name} is lost when another {} of log are written",
            megabytes(left)
        ),
        Remedy::sql("ALTER SYSTEM SET max_slot_wal_keep_size = '100GB'; SELECT pg_reload_conf();"),
    )
}

/// Slots that nobody reads and that keep much log, whoever's they are.
pub(super) fn of_others(slots: &Slots, ours: &[&str]) -> Vec<Finding> {
    let hoards = |slot: &&Facts| {
        !ours.contains(&slot.name.as_str())
            && !slot.is_active
            && slot.kept_bytes.is_some_and(|kept| kept > FORGOTTEN_BYTES)
            && slot.wal_status.as_deref() != Some("lost")
    };
    let told = slots.all.iter().filter(hoards).map(|slot| {
        codes::SLOT_HOARDS.found(
            format!(
                "nobody reads slot {}, and the server keeps {} of log for it",
                slot.name,
                megabytes(slot.kept_bytes)
            ),
            Remedy::sql(format!(
                "SELECT pg_drop_replication_slot({}); -- if nobody needs it any more",
                literal(&slot.name)
            )),
        )
    });
    told.collect()
}

/// What is wrong with the slots of groups that read the log.
pub(super) fn of_groups(slots: &Slots, expected: &Expected) -> Vec<Finding> {
    let mut found = Vec::new();
    for group in &expected.groups {
        let Some(slot) = slots
            .of_groups
            .iter()
            .find(|slot| slot.group.as_deref() == Some(group.name.as_str()))
        else {
            continue;
        };
        let name = &slot.slot;
        let drop = || {
            Remedy::shell(format!(
                "afterwrite slot drop {name} # then start the group: it begins with what is written from then on"
            ))
        };
        if !slot.is_there {
            found.push(codes::GROUP_SLOT_GONE.found(format!("slot {name} of group {} is gone", group.name), drop()));
        } else if slot.is_lost() {
            found.push(codes::SLOT_LOST.found(format!("slot {name} of group {} is lost", group.name), drop()));
        } else {
            let is_little = |left: i64| slots.keep_bytes_max.is_some_and(|max| left < max / PARTS_LEFT);
            if slot.wal_status.as_deref() == Some("unreserved") || slot.safe_bytes.is_some_and(is_little) {
                found.push(near_loss(codes::SLOT_DANGER, name, slot.safe_bytes));
            }
        }
    }
    found
}

fn megabytes(bytes: Option<i64>) -> String {
    format!("{} MB", bytes.unwrap_or_default().max(0) / (1024 * 1024))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot() -> Facts {
        Facts {
            name: "dbz".to_owned(),
            plugin: Some("pgoutput".to_owned()),
            is_here: true,
            is_active: true,
            wal_status: Some("reserved".to_owned()),
            ..Facts::default()
        }
    }

    #[test]
    fn what_is_wrong_with_the_connectors_slot_is_told() {
        let status = |status: &str| Facts {
            wal_status: Some(status.to_owned()),
            ..slot()
        };
        for (facts, runs, codes) in [
            (slot(), true, &[][..]),
            (
                Facts {
                    name: "other".to_owned(),
                    ..slot()
                },
                true,
                &["slot-missing"],
            ),
            (
                Facts {
                    plugin: Some("wal2json".to_owned()),
                    ..slot()
                },
                true,
                &["slot-foreign"],
            ),
            (
                Facts {
                    is_here: false,
                    ..slot()
                },
                true,
                &["slot-foreign"],
            ),
            (
                Facts {
                    is_active: false,
                    ..slot()
                },
                true,
                &["slot-inactive"],
            ),
            // Said of the connector already.
            (
                Facts {
                    is_active: false,
                    ..slot()
                },
                false,
                &[],
            ),
            (status("lost"), true, &["slot-lost"]),
            (status("unreserved"), true, &["slot-danger"]),
            (
                Facts {
                    safe_bytes: Some(10),
                    ..slot()
                },
                true,
                &["slot-danger"],
            ),
            (
                Facts {
                    lag_bytes: Some(FORGOTTEN_BYTES + 1),
                    ..slot()
                },
                true,
                &["slot-lag"],
            ),
        ] {
            let slots = Slots {
                all: vec![facts],
                of_groups: Vec::new(),
                keep_bytes_max: Some(1000),
            };
            let found = of_connector(&slots, "dbz", runs, "curl …");
            let found: Vec<&str> = found.iter().map(|finding| finding.code.name).collect();
            assert_eq!(found, codes, "{slots:?}");
        }
    }

    #[test]
    fn a_slot_that_nobody_reads_is_told_when_it_keeps_much() {
        let kept = |kept| Facts {
            is_active: false,
            kept_bytes: Some(kept),
            ..slot()
        };
        let slots = |slot| Slots {
            all: vec![slot],
            ..Slots::default()
        };
        assert_eq!(of_others(&slots(kept(FORGOTTEN_BYTES)), &[]), []);
        assert_eq!(of_others(&slots(kept(FORGOTTEN_BYTES + 1)), &["dbz"]), []);
        assert_eq!(
            of_others(&slots(kept(FORGOTTEN_BYTES + 1)), &[])[0].code.name,
            "slot-hoards"
        );
    }
}
