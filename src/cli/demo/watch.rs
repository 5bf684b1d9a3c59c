//! Sees what the worker does, from outside: the rows it writes and the mails that arrive.
//!
//! Everything is looked at again and again; [`Snapshot::news`] says what is new. Nothing here asks the worker.

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Deserialize;
use sqlx::postgres::PgPool;
use sqlx::types::Json;
use tokio::time::Instant;
use uuid::Uuid;

use super::failure::DemoFailure;

/// A mail that nobody accounts for within this time is of another campaign.
const ACCOUNT_WAIT_MAX: Duration = Duration::from_secs(10);

/// Everything worth seeing of one campaign, keyed by ids. `$1` is the campaign, `$2` when the play began.
const LOOK: &str = "
SELECT jsonb_build_object(
    'places', (SELECT coalesce(jsonb_object_agg(p.user_id, jsonb_build_object('who', who.name, 'place', p.position,
                   'credit', p.verified_referrals)), '{}')
               FROM public.waitlist_positions p JOIN who ON who.id = p.user_id WHERE p.campaign_id = $1),
    'rewards', (SELECT coalesce(jsonb_object_agg(o.id, jsonb_build_object('who', who.name, 'name', w.name,
                    'status', o.status, 'code', o.code, 'by', w.delivery_method)), '{}')
                FROM public.user_rewards o JOIN public.rewards w ON w.id = o.reward_id JOIN who ON who.id = o.user_id
                WHERE o.campaign_id = $1),
    'detections', (SELECT coalesce(jsonb_object_agg(d.id, jsonb_build_object('who', who.name, 'kind', d.type,
                       'percent', (100 * d.confidence)::integer)), '{}')
                   FROM public.fraud_detections d JOIN who ON who.id = d.user_id WHERE d.campaign_id = $1),
    'mails', (SELECT coalesce(jsonb_object_agg(l.message_id, jsonb_build_object('who', who.name, 'kind', l.type,
                  'recipient', l.recipient, 'subject', l.subject)), '{}')
              FROM public.email_log l JOIN who ON who.id = l.user_id
              WHERE l.campaign_id = $1 AND l.message_id IS NOT NULL),
    'letters', (SELECT coalesce(jsonb_object_agg(x.letter_id, jsonb_build_object('handler', x.handler,
                    'class', x.class, 'state', x.state)), '{}')
                FROM afterwrite.letters x WHERE x.failed_at >= $2),
    'ranked', (SELECT count(*) FROM afterwrite.ledger WHERE handler = 'position' AND settled_at >= $2),
    'reconciled', (SELECT count(*) FROM afterwrite.ledger WHERE handler = 'reward' AND settled_at >= $2))
FROM (SELECT) AS once";

/// How people are called on the screen.
const WHO: &str = "WITH who AS (SELECT id, coalesce(first_name, split_part(email, '@', 1)) AS name
    FROM public.waitlist_users WHERE campaign_id = $1) ";

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reaction {
    /// Who did it.
    pub(super) who: &'static str,
    /// By which of these somebody may wait for it.
    pub(super) keys: Vec<String>,
    /// For people.
    pub(super) text: String,
    /// When it was seen first.
    pub(super) at: Instant,
}

impl Reaction {
    pub(super) fn new(who: &'static str, keys: &[String], text: String, at: Instant) -> Self {
        let keys = keys.to_vec();
        Self { who, keys, text, at }
    }
}

/// The state of a campaign.
#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct Snapshot {
    pub(super) places: BTreeMap<String, Place>,
    pub(super) rewards: BTreeMap<String, Reward>,
    pub(super) detections: BTreeMap<String, Detection>,
    pub(super) mails: BTreeMap<String, Mail>,
    pub(super) letters: BTreeMap<String, Letter>,
    /// Events that the position handler has settled.
    pub(super) ranked: u64,
    /// Events that the reward handler has settled.
    pub(super) reconciled: u64,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Place {
    pub(super) who: String,
    pub(super) place: i32,
    pub(super) credit: i32,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Reward {
    who: String,
    name: String,
    pub(super) status: String,
    code: Option<String>,
    by: String,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Detection {
    who: String,
    kind: String,
    percent: u8,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Mail {
    who: String,
    kind: String,
    recipient: Option<String>,
    subject: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Letter {
    handler: String,
    class: String,
    pub(super) state: String,
}

impl Snapshot {
    /// The place of somebody.
    pub(super) fn place_of(&self, who: &str) -> Option<&Place> {
        self.places.values().find(|place| place.who == who)
    }

    /// What is in this state and was not in the one before. Mails are told when they arrive.
    fn news(&self, before: &Self, at: Instant) -> Vec<Reaction> {
        let mut news = Vec::new();
        for (id, detection) in &self.detections {
            if !before.detections.contains_key(id) {
                let Detection { who, kind, percent } = detection;
                let text = format!("{who} looks like {}, {percent} % sure", kind.replace('_', " "));
                news.push(Reaction::new("fraud", &[format!("fraud {who} {kind}")], text, at));
            }
        }
        for (id, place) in &self.places {
            news.extend(place.news(before.places.get(id), at));
        }
        for (id, reward) in &self.rewards {
            news.extend(reward.news(before.rewards.get(id), at));
        }
        for (id, letter) in &self.letters {
            let known = before.letters.get(id).map(|known| known.state.as_str());
            if known != Some(&letter.state) {
                let Letter { handler, class, state } = letter;
                let text = match known {
                    None => format!("{handler} gave up for good: {class}"),
                    Some(_) => format!("the letter is {state}"),
                };
                news.push(Reaction::new("letter", &[format!("letter {state}")], text, at));
            }
        }
        for (key, now, then) in [
            ("ranked", self.ranked, before.ranked),
            ("reconciled", self.reconciled, before.reconciled),
        ] {
            if now > then {
                news.push(Reaction::new("", &[key.to_owned()], String::new(), at));
            }
        }
        news
    }
}

impl Place {
    fn news(&self, before: Option<&Self>, at: Instant) -> Option<Reaction> {
        let Self { who, place, credit } = self;
        let counted = match credit {
            0 => String::new(),
            1 => " (1 referral counts)".to_owned(),
            many => format!(" ({many} referrals count)"),
        };
        let text = match before {
            None => format!("{who} is number {place}{counted}"),
            Some(known) if known.place > *place => format!("{who} moves up {} → {place}{counted}", known.place),
            Some(known) if known.place < *place => format!("{who} moves down {} → {place}{counted}", known.place),
            Some(known) if known.credit != *credit => format!("{who} stays number {place}{counted}"),
            Some(_) => return None,
        };
        let keys = [
            format!("placed {who}"),
            format!("place {who} {place}"),
            format!("credit {who} {credit}"),
        ];
        Some(Reaction::new("position", &keys, text, at))
    }
}

impl Reward {
    fn news(&self, before: Option<&Self>, at: Instant) -> Option<Reaction> {
        let Self {
            who,
            name,
            status,
            code,
            by,
        } = self;
        if before.is_some_and(|known| known.status == *status) {
            return None;
        }
        let text = match (status.as_str(), code) {
            ("earned", Some(code)) => format!("{who} earns “{name}”, code {code}"),
            _ => format!("“{name}” of {who} is {status}"),
        };
        // A mailed reward is delivered when the mail server has accepted the mail.
        let handler = if status == "delivered" && by == "email" {
            "email"
        } else {
            "reward"
        };
        // What is delivered was earned before, maybe between two looks.
        let was_earned = before.is_some_and(|known| known.status == "earned");
        let passed = (status == "delivered" && !was_earned).then_some("earned");
        let states = [Some(status.as_str()), passed].into_iter().flatten();
        let keys: Vec<String> = states.map(|state| format!("reward {who} {name} {state}")).collect();
        Some(Reaction::new(handler, &keys, text, at))
    }
}

/// Looks at a campaign and at the mailbox.
#[derive(Debug)]
pub(super) struct Watcher {
    pool: PgPool,
    campaign: Uuid,
    since: DateTime<Utc>,
    mailbox: PathBuf,
    known_files: HashSet<String>,
    /// Mails that have arrived, and of which the account has not been seen yet, by `Message-ID`.
    arrived: BTreeMap<String, Instant>,
    /// The state that was seen last.
    pub(super) last: Snapshot,
}

impl Watcher {
    /// Begins to watch: what is there already is known.
    pub(super) async fn begin(pool: &PgPool, campaign: Uuid, mailbox: PathBuf) -> Result<Self, DemoFailure> {
        let mut watcher = Self::begin_from_nothing(pool, campaign, mailbox).await?;
        watcher.collect_mails().await?;
        watcher.arrived.clear();
        watcher.last = watcher.state().await?;
        Ok(watcher)
    }

    /// Begins to watch: what is there already is news.
    pub(super) async fn begin_from_nothing(
        pool: &PgPool,
        campaign: Uuid,
        mailbox: PathBuf,
    ) -> Result<Self, DemoFailure> {
        let since = sqlx::query_scalar("SELECT clock_timestamp()")
            .fetch_one(pool)
            .await
            .map_err(DemoFailure::Watch)?;
        Ok(Self {
            pool: pool.clone(),
            campaign,
            since,
            mailbox,
            known_files: HashSet::new(),
            arrived: BTreeMap::new(),
            last: Snapshot::default(),
        })
    }

    /// What happened since the last look.
    pub(super) async fn look(&mut self) -> Result<Vec<Reaction>, DemoFailure> {
        self.collect_mails().await?;
        let now = self.state().await?;
        let at = Instant::now();
        let mut news = now.news(&self.last, at);
        let mails = &now.mails;
        self.arrived.retain(|message_id, arrived| {
            let Some(mail) = mails.get(message_id) else {
                return arrived.elapsed() < ACCOUNT_WAIT_MAX;
            };
            news.push(mail.arrival(*arrived));
            false
        });
        self.last = now;
        news.sort_by_key(|reaction| reaction.at);
        Ok(news)
    }

    async fn state(&self) -> Result<Snapshot, DemoFailure> {
        let sql = format!("{WHO}{LOOK}");
        let Json(state) = sqlx::query_scalar(sqlx::AssertSqlSafe(sql))
            .bind(self.campaign)
            .bind(self.since)
            .fetch_one(&self.pool)
            .await
            .map_err(DemoFailure::Watch)?;
        Ok(state)
    }

    async fn collect_mails(&mut self) -> Result<(), DemoFailure> {
        let refused = |source| DemoFailure::Mailbox {
            path: self.mailbox.clone(),
            source,
        };
        let mut entries = tokio::fs::read_dir(&self.mailbox).await.map_err(refused)?;
        while let Some(entry) = entries.next_entry().await.map_err(refused)? {
            let name = entry.file_name().to_string_lossy().into_owned();
            if !name.ends_with(".eml") || self.known_files.contains(&name) {
                continue;
            }
            let at = Instant::now();
            let mail = tokio::fs::read_to_string(entry.path()).await.map_err(refused)?;
            self.known_files.insert(name);
            if let Some(id) = message_id(&mail) {
                self.arrived.insert(id.to_owned(), at);
            }
        }
        Ok(())
    }
}

impl Mail {
    fn arrival(&self, at: Instant) -> Reaction {
        let Self {
            who,
            kind,
            recipient,
            subject,
        } = self;
        let recipient = recipient.as_deref().unwrap_or(who);
        let subject = subject.as_deref().unwrap_or_default();
        let text = format!("{} mail to {recipient}: “{subject}”", kind.replace('_', " "));
        Reaction::new("email", &[format!("mail {kind} {who}")], text, at)
    }
}

fn message_id(mail: &str) -> Option<&str> {
    let headers = mail.lines().take_while(|line| !line.is_empty());
    let mut found = headers.filter_map(|line| line.split_once(':'));
    let (_, value) = found.find(|(name, _)| name.eq_ignore_ascii_case("message-id"))?;
    Some(value.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(text: &str) -> Snapshot {
        let empty = r#"{"places":{},"rewards":{},"detections":{},"mails":{},"letters":{},"ranked":0,"reconciled":0}"#;
        let mut whole: serde_json::Value = serde_json::from_str(empty).unwrap();
        let part: serde_json::Value = serde_json::from_str(text).unwrap();
        whole.as_object_mut().unwrap().extend(part.as_object().unwrap().clone());
        serde_json::from_value(whole).unwrap()
    }

    #[test]
    fn only_what_is_new_is_told_and_by_the_keys_somebody_waits_for() {
        let before = state(
            r#"{"places": {"1": {"who": "ada", "place": 3, "credit": 0}, "2": {"who": "bo", "place": 1, "credit": 0}},
                "letters": {"x": {"handler": "email", "class": "permanent", "state": "open"}}}"#,
        );
        let after = state(
            r#"{"places": {"1": {"who": "ada", "place": 2, "credit": 1}, "2": {"who": "bo", "place": 1, "credit": 0}},
                "rewards": {"r": {"who": "ada", "name": "Cup", "status": "earned", "code": "C", "by": "email"}},
                "letters": {"x": {"handler": "email", "class": "permanent", "state": "replayed"}}, "ranked": 1}"#,
        );
        let keys: Vec<Vec<String>> = after
            .news(&before, Instant::now())
            .into_iter()
            .map(|news| news.keys)
            .collect();
        let expected: [&[&str]; 4] = [
            &["placed ada", "place ada 2", "credit ada 1"],
            &["reward ada Cup earned"],
            &["letter replayed"],
            &["ranked"],
        ];
        assert_eq!(keys, expected);
        assert!(after.news(&after, Instant::now()).is_empty());
    }

    #[test]
    fn a_reward_that_is_delivered_between_two_looks_was_earned() {
        let reward = |status| {
            let text =
                r#"{"rewards": {"r": {"who": "ada", "name": "Cup", "status": "STATUS", "code": "C", "by": "email"}}}"#;
            state(&text.replace("STATUS", status))
        };
        let keys = |before: &Snapshot| {
            let news = reward("delivered").news(before, Instant::now());
            news.into_iter().flat_map(|news| news.keys).collect::<Vec<String>>()
        };
        let both = ["reward ada Cup delivered", "reward ada Cup earned"];
        assert_eq!(keys(&Snapshot::default()), both);
        assert_eq!(keys(&reward("pending")), both);
        assert_eq!(keys(&reward("earned")), ["reward ada Cup delivered"]);
    }

    #[test]
    fn the_message_id_is_a_header_and_not_text() {
        assert_eq!(message_id("To: a\r\nMessage-ID: <1@x>\r\n\r\nbody"), Some("<1@x>"));
        assert_eq!(message_id("To: a\r\n\r\nMessage-ID: <1@x>"), None);
    }
}
