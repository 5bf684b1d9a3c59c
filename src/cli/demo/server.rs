//! Whether somebody's server can be used for a demo, asked before anything is made in it.

use sqlx::FromRow;

/// What the server is asked before anything is made in it.
pub(super) const ASK: &str = "
SELECT current_setting('server_version_num')::integer AS version_number, current_setting('server_version') AS version,
    pg_is_in_recovery() AS is_standby, current_setting('wal_level') AS wal_level, r.rolname::text AS role,
    r.rolsuper OR r.rolcreatedb AS may_make_databases,
    -- A hosted server may give the right by a membership.
    r.rolsuper OR r.rolreplication OR EXISTS (SELECT FROM pg_roles g
        WHERE g.rolname = 'rds_replication' AND pg_has_role(r.oid, g.oid, 'member')) AS may_replicate,
    current_setting('max_replication_slots')::bigint - (SELECT count(*) FROM pg_replication_slots) AS slots_free,
    current_setting('max_wal_senders')::bigint - (SELECT count(*) FROM pg_stat_replication) AS senders_free
FROM pg_roles r WHERE r.rolname = current_user";

/// What it answers.
#[derive(Debug, Clone, FromRow)]
pub(super) struct Server {
    version_number: i32,
    pub(super) version: String,
    is_standby: bool,
    wal_level: String,
    pub(super) role: String,
    may_make_databases: bool,
    may_replicate: bool,
    slots_free: i64,
    senders_free: i64,
}

impl Server {
    /// Why a demo with so many slots cannot be played in it, each with what to do; empty when it can.
    pub(super) fn refusals(&self, slots: usize) -> Vec<String> {
        let needed = i64::try_from(slots).unwrap_or(i64::MAX);
        let Self {
            version,
            wal_level,
            role,
            slots_free,
            senders_free,
            ..
        } = self;
        let reasons = [
            (
                self.version_number < 150_000,
                format!("it is version {version}, and 15 or newer is needed"),
            ),
            (
                self.is_standby,
                "it is a standby, where nothing can be written: name the primary".to_owned(),
            ),
            (
                wal_level != "logical",
                format!("wal_level is {wal_level}: set wal_level = logical in its configuration and restart it"),
            ),
            (
                !self.may_make_databases,
                format!("role {role} may not make databases: ALTER ROLE {role} CREATEDB, or name another role"),
            ),
            (
                !self.may_replicate,
                format!("role {role} may not replicate: ALTER ROLE {role} REPLICATION, or name another role"),
            ),
            (
                *slots_free < needed,
                format!(
                    "{needed} replication slots are needed and {slots_free} are free: raise max_replication_slots, or drop \
                     slots that nobody reads"
                ),
            ),
            (
                *senders_free < needed,
                format!(
                    "{needed} connections for replication are needed and {senders_free} are free: raise max_wal_senders"
                ),
            ),
        ];
        reasons
            .into_iter()
            .filter_map(|(holds, reason)| holds.then_some(reason))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fit() -> Server {
        Server {
            version_number: 150_018,
            version: "15.18".to_owned(),
            is_standby: false,
            wal_level: "logical".to_owned(),
            role: "me".to_owned(),
            may_make_databases: true,
            may_replicate: true,
            slots_free: 5,
            senders_free: 5,
        }
    }

    #[test]
    fn a_server_that_cannot_be_used_is_told_with_what_to_do() {
        assert_eq!(fit().refusals(5), Vec::<String>::new());
        let check = |server: Server, parts: &[&str]| {
            let why = server.refusals(5);
            assert_eq!(why.len(), 1, "{why:?}");
            assert!(parts.iter().all(|part| why[0].contains(part)), "{parts:?}: {why:?}");
        };
        let (version_number, version) = (140_020, "14.20".to_owned());
        check(
            Server {
                version_number,
                version,
                ..fit()
            },
            &["14.20", "15 or newer"],
        );
        check(
            Server {
                is_standby: true,
                ..fit()
            },
            &["standby", "primary"],
        );
        let wal_level = "replica".to_owned();
        check(Server { wal_level, ..fit() }, &["wal_level = logical", "restart"]);
        check(
            Server {
                may_make_databases: false,
                ..fit()
            },
            &["ALTER ROLE me CREATEDB"],
        );
        check(
            Server {
                may_replicate: false,
                ..fit()
            },
            &["ALTER ROLE me REPLICATION"],
        );
        check(
            Server { slots_free: 4, ..fit() },
            &["5 replication slots", "4 are free", "max_replication_slots"],
        );
        check(
            Server {
                senders_free: 0,
                ..fit()
            },
            &["max_wal_senders"],
        );
        let much = Server {
            is_standby: true,
            may_replicate: false,
            slots_free: 0,
            ..fit()
        };
        assert_eq!(much.refusals(5).len(), 3);
    }
}
