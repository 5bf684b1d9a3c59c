//! The end of the demo: what happened, how fast, and where to look next.

use std::collections::BTreeMap;

use serde::Serialize;
use sqlx::postgres::PgPool;
use uuid::Uuid;

use super::failure::DemoFailure;
use super::place::Place;
use super::stage::{Stage, Tally};
use crate::cli::output::table;

/// What the demo did, for people as tables and for programs as one JSON document.
#[derive(Debug, Serialize)]
pub(super) struct Summary {
    campaign: Uuid,
    rows_written: u64,
    mails: u64,
    place_changes: u64,
    rewards_delivered: usize,
    webhook_calls: u64,
    fraud_detections: usize,
    referrals_held: i64,
    dead_letters_written: usize,
    dead_letters_replayed: usize,
    /// From the commit of the application's row to the reaction, by who reacted.
    latency_ms: BTreeMap<&'static str, Latency>,
    /// How long the steps took.
    seconds: Seconds,
}

/// How long the steps took.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Seconds {
    pub(super) stack: f64,
    pub(super) tables: f64,
    pub(super) worker: f64,
    pub(super) play: f64,
    pub(super) all: f64,
}

#[derive(Debug, Serialize, PartialEq, Eq)]
struct Latency {
    reactions: usize,
    median: u64,
    max: u64,
}

impl Latency {
    /// `None` without a reaction.
    fn of(times: &[u64]) -> Option<Self> {
        let mut sorted = times.to_vec();
        sorted.sort_unstable();
        Some(Self {
            reactions: sorted.len(),
            median: *sorted.get(sorted.len().saturating_sub(1) / 2)?,
            max: *sorted.last()?,
        })
    }
}

impl Summary {
    /// Counts what is there at the end of the play.
    pub(super) async fn of(
        stage: &Stage<'_>,
        campaign: Uuid,
        pool: &PgPool,
        seconds: Seconds,
    ) -> Result<Self, DemoFailure> {
        let held: i64 = sqlx::query_scalar(
            "SELECT count(DISTINCT d.user_id) FROM public.fraud_detections d
             JOIN public.referrals r ON r.referred_id = d.user_id AND r.status = 'verified'
             WHERE d.campaign_id = $1 AND d.status IN ('pending', 'confirmed')",
        )
        .bind(campaign)
        .fetch_one(pool)
        .await
        .map_err(DemoFailure::Watch)?;
        let state = stage.state();
        let Tally {
            rows_written,
            mails,
            place_changes,
            webhook_calls,
            latencies,
        } = &stage.tally;
        let replayed = state.letters.values().filter(|letter| letter.state == "replayed");
        Ok(Self {
            campaign,
            rows_written: *rows_written,
            mails: *mails,
            place_changes: *place_changes,
            rewards_delivered: state
                .rewards
                .values()
                .filter(|reward| reward.status == "delivered")
                .count(),
            webhook_calls: *webhook_calls,
            fraud_detections: state.detections.len(),
            referrals_held: held,
            dead_letters_written: state.letters.len(),
            dead_letters_replayed: replayed.count(),
            latency_ms: latencies
                .iter()
                .filter_map(|(who, times)| Some((*who, Latency::of(times)?)))
                .collect(),
            seconds,
        })
    }

    /// For people.
    pub(super) fn in_words(&self) -> String {
        let counts: [(&str, String); 10] = [
            ("rows the application wrote", self.rows_written.to_string()),
            ("mails that arrived", self.mails.to_string()),
            ("places given or changed", self.place_changes.to_string()),
            ("rewards delivered", self.rewards_delivered.to_string()),
            ("webhook calls verified", self.webhook_calls.to_string()),
            ("fraud detections", self.fraud_detections.to_string()),
            ("referrals held", self.referrals_held.to_string()),
            ("dead letters written", self.dead_letters_written.to_string()),
            ("dead letters replayed", self.dead_letters_replayed.to_string()),
            ("enqueue calls the application made", "0".to_owned()),
        ];
        let what = table(
            ["WHAT HAPPENED", "TIMES"],
            counts.map(|(what, times)| [what.to_owned(), times]),
        );
        let rows = self.latency_ms.iter().map(|(who, latency)| {
            [
                (*who).to_owned(),
                latency.reactions.to_string(),
                format!("{} ms", latency.median),
                format!("{} ms", latency.max),
            ]
        });
        let speed = table(["WHO REACTED", "TIMES", "MEDIAN", "SLOWEST"], rows);
        let Seconds {
            stack,
            tables,
            worker,
            play,
            all,
        } = self.seconds;
        format!(
            "{what}\n\n{speed}\n\ntook: stack {stack:.1} s, tables {tables:.1} s, worker {worker:.1} s, play \
             {play:.1} s, all {all:.1} s"
        )
    }
}

/// Where to look after a demo that took everything down again.
pub(super) fn where_next(binary: &str) -> String {
    format!(
        "\
Where to look next:
  make demo STAY=1                     the same, and everything keeps running: write rows yourself
  make demo-kafka                      the same behind Debezium and Kafka
  src/handlers/mod.rs                  the routing table: which row wakes which handler
  infra/postgres/waitlist.sql          the application's tables
  connectors/waitlist.json             what Debezium captures
  {binary} run --help
                                       the worker; `dlq --help` for dead letters"
    )
}

/// How to go on with a demo that stays.
pub(super) fn how_to_go_on(place: &Place, binary: &str, campaign: Uuid, pid: Option<u32>, with_kafka: bool) -> String {
    let script = place.script().display().to_string();
    let dir = place.dir.display();
    let log = place.log("worker").display().to_string();
    let pid = pid.map(|pid| format!(" (process {pid})")).unwrap_or_default();
    let (source, more) = match with_kafka {
        true => ("", format!("\n  {binary} connector status")),
        false => ("\n  export AFTERWRITE__SOURCE__KIND=wal", String::new()),
    };
    format!(
        "\
Everything keeps running until you press Ctrl-C here, and what happens is shown below.
In another terminal:
  eval \"$(STACK_DIR={dir} {script} env | sed 's/^/export /')\"{source}
  psql \"$DATABASE_URL\" -c \"INSERT INTO waitlist_users (campaign_id, email, first_name, referral_code, \
verification_token) VALUES ('{campaign}', 'you@example.org', 'you', 'YOU', 'secret')\"
  ls -t \"$MAILBOX_DIR\"     # the mails
  {binary} status
  {binary} dlq list     # dead letters{more}
  tail -f {log}     # the worker{pid}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_one_of_the_times() {
        let latency = |times: &[u64]| Latency::of(times).map(|latency| (latency.median, latency.max));
        assert_eq!(latency(&[]), None);
        assert_eq!(latency(&[7]), Some((7, 7)));
        assert_eq!(latency(&[9, 1, 5]), Some((5, 9)));
        assert_eq!(latency(&[4, 3, 2, 1]), Some((2, 4)));
    }
}
