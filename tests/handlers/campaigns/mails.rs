//! Mails: each one that arrives is held against the facts of that moment, and the account at the end against all that was.
//!
//! The application says nothing while a delivery runs, so a mail that arrives was decided by the facts that are still there.
//! Which mails there are depends on the order of the deliveries; what any order allows is judged from both sides. Upper bound:
//! a mail, or a reason why there is none, needs a fact that held at some time. Lower bound: what the facts demanded whenever
//! the handler looked has its row.

use std::collections::{BTreeMap, BTreeSet};

use afterwrite::handlers::address::suppression_key;
use afterwrite::handlers::email::message::message_id;
use afterwrite::handlers::email::rules::{number_of_key, reward_of_key};
use uuid::Uuid;

use super::Dice;
use super::model::all;
use crate::servers::{MailServer, Smtp};
use crate::world::{World, settings};

/// Mails of which some do not go well; those after them do.
const SCRIPTED: usize = 150;

/// What the mail server does, mail by mail.
pub(super) fn script(dice: &mut Dice) -> Vec<Smtp> {
    let mut step = || match dice.roll(24) {
        0 | 1 => Smtp::LoseReply,
        2 | 3 => Smtp::RefuseRecipient("450 4.2.0 greylisted"),
        4 => Smtp::RefuseRecipient("550 5.1.1 no such user"),
        _ => Smtp::Accept,
    };
    (0..SCRIPTED).map(|_| step()).collect()
}

/// A user at some moment.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, sqlx::FromRow)]
struct State {
    id: Uuid,
    campaign_id: Uuid,
    email: String,
    token: String,
    email_verified: bool,
    holds_a_place: bool,
    consents: bool,
}

/// A campaign at some moment.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, sqlx::FromRow)]
struct Campaign {
    id: Uuid,
    status: String,
    required: bool,
}

/// The account of one mail.
#[derive(Debug, sqlx::FromRow)]
struct Row {
    effect_key: String,
    campaign_id: Uuid,
    user_id: Uuid,
    #[sqlx(rename = "type")]
    kind: String,
    status: String,
    reason: Option<String>,
    message_id: Option<String>,
    kept: i32,
}

#[derive(sqlx::FromRow)]
struct Milestone {
    campaign_id: Uuid,
    milestone: i32,
    passed_us: i64,
    outdone: bool,
    ended: bool,
}

/// What arrived, and all that was ever true.
pub(super) struct Post<'a> {
    server: &'a MailServer,
    /// Mails by their Message-ID, as they came.
    arrived: BTreeMap<String, Vec<String>>,
    looked_at: usize,
    /// When the delivery began that ends next, or before.
    mark: String,
    /// Those of which a transaction says that they were sent.
    ended: BTreeSet<String>,
    users: BTreeMap<Uuid, BTreeSet<State>>,
    campaigns: BTreeMap<Uuid, BTreeSet<Campaign>>,
}

const STATES: &str = "SELECT id, campaign_id, email, coalesce(verification_token, '') AS token, email_verified,
            deleted_at IS NULL AND status NOT IN ('removed', 'blocked') AS holds_a_place,
            marketing_consent AS consents
     FROM waitlist_users";

const CAMPAIGNS: &str = "SELECT id, status, verification_required AS required FROM campaigns";

fn header<'m>(mail: &'m str, name: &str) -> &'m str {
    let line = mail
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    line.unwrap_or_else(|| panic!("a mail without {name}: {mail}")).trim()
}

fn id_of(key: &str) -> String {
    let address = settings().email.sender.address;
    message_id(key, address.rsplit_once('@').unwrap().1)
}

fn verification_key(state: &State) -> String {
    let lower = state.email.to_lowercase();
    let parts = [lower.as_bytes(), state.token.as_bytes()];
    let tag = settings().secret.tag_hex("verification mail", &parts);
    format!("verification:{}:{tag}", state.id)
}

fn is_marketing(kind: &str) -> bool {
    matches!(kind, "position_update" | "milestone")
}

/// Whether the address takes no such mail. Of two mails at once one may bounce while the other is on its way: a bounce counts
/// when it was known `before`.
async fn is_suppressed(world: &World, address: &str, reasons: &str, campaign: Uuid, before: &str) -> bool {
    let key = suppression_key(&settings().secret, address);
    let rows = format!(
        "suppressions WHERE email = '{key}' AND reason IN ({reasons})
           AND (campaign_id IS NULL OR campaign_id = '{campaign}')
           AND (reason <> 'bounced' OR created_at < '{before}')"
    );
    world.count(&rows).await > 0
}

impl<'a> Post<'a> {
    pub(super) fn new(server: &'a MailServer) -> Self {
        Self {
            server,
            arrived: BTreeMap::new(),
            looked_at: 0,
            mark: "-infinity".to_owned(),
            ended: BTreeSet::new(),
            users: BTreeMap::new(),
            campaigns: BTreeMap::new(),
        }
    }

    /// The application has said something.
    pub(super) async fn note(&mut self, world: &World) {
        let users: Vec<State> = all(world, STATES).await;
        for state in users {
            self.users.entry(state.id).or_default().insert(state);
        }
        let campaigns: Vec<Campaign> = all(world, CAMPAIGNS).await;
        for state in campaigns {
            self.campaigns.entry(state.id).or_default().insert(state);
        }
    }

    /// A delivery has ended: what arrived meanwhile was allowed, came once, and was not known to be sent before.
    pub(super) async fn look(&mut self, world: &World) {
        self.look_at_new(world).await;
        self.mark = world.text("SELECT now()").await;
    }

    async fn look_at_new(&mut self, world: &World) {
        let mails = self.server.received.lock().unwrap()[self.looked_at..].to_vec();
        if mails.is_empty() {
            return;
        }
        self.looked_at += mails.len();
        let claimed: Vec<(String, String)> = all(
            world,
            "SELECT effect_key, state FROM afterwrite.effects WHERE handler = 'email'",
        )
        .await;
        let mut came = BTreeSet::new();
        for mail in mails {
            let id = header(&mail, "Message-ID").to_owned();
            let key = claimed.iter().find(|(key, _)| id_of(key) == id);
            let (key, _) = key.unwrap_or_else(|| panic!("a mail that was not claimed: {mail}"));
            self.was_allowed(world, key, header(&mail, "To")).await;
            let is_first = came.insert(id.clone()) && !self.ended.contains(&id);
            assert!(is_first, "{key} came again: {mail}");
            self.arrived.entry(id).or_default().push(mail);
        }
        let sent = claimed.iter().filter(|(_, state)| state == "sent");
        self.ended.extend(sent.map(|(key, _)| id_of(key)));
    }

    async fn was_allowed(&self, world: &World, key: &str, to: &str) {
        let (kind, rest) = key.split_once(':').unwrap();
        let user: Uuid = match kind {
            "reward_earned" => {
                let (reward, _) = reward_of_key(key).unwrap();
                let owner = format!("SELECT user_id FROM user_rewards WHERE id = '{reward}'");
                world.text(&owner).await.parse().unwrap()
            }
            "position_update" => {
                let told = format!("SELECT user_id FROM position_changes WHERE id = {rest}");
                world.text(&told).await.parse().unwrap()
            }
            "milestone" => rest.rsplit(':').next().unwrap().parse().unwrap(),
            _ => rest.split(':').next().unwrap().parse().unwrap(),
        };
        let now: Vec<State> = all(world, &format!("{STATES} WHERE id = '{user}'")).await;
        let [now] = &now[..] else {
            panic!("{key} went to a person who was deleted");
        };
        let campaign: Vec<Campaign> = all(world, &format!("{CAMPAIGNS} WHERE id = '{}'", now.campaign_id)).await;
        let campaign = &campaign[0];
        let context = format!("{key} to {to}: {now:?} of {campaign:?}");
        let was_theirs = self.users[&user].iter().any(|state| state.email == to);
        assert!(was_theirs, "somebody else's address: {context}");
        assert!(now.holds_a_place, "{context}");
        if kind == "verification" {
            assert_eq!(key, verification_key(now), "{context}");
            assert!(
                campaign.required && !now.email_verified && !now.token.is_empty(),
                "{context}"
            );
        } else {
            assert!(now.email_verified || !campaign.required, "{context}");
        }
        if is_marketing(kind) {
            assert!(now.consents && campaign.status != "paused", "{context}");
        }
        let reasons = match is_marketing(kind) {
            true => "'bounced', 'complained', 'unsubscribed'",
            false => "'bounced', 'complained'",
        };
        for address in [to, &now.email] {
            let is_suppressed = is_suppressed(world, address, reasons, campaign.id, &self.mark).await;
            assert!(!is_suppressed, "unwanted by {address}: {context}");
        }
    }

    /// Everything has come to rest.
    pub(super) async fn judge(&self, world: &World) {
        let rows: Vec<Row> = all(
            world,
            "SELECT effect_key, campaign_id, user_id, type, status, reason, message_id,
                    num_nonnulls(recipient, subject, variables, smtp_reply) AS kept FROM email_log",
        )
        .await;
        let living: Vec<State> = all(world, STATES).await;
        let living: BTreeMap<Uuid, State> = living.into_iter().map(|state| (state.id, state)).collect();
        let rows: BTreeMap<&str, &Row> = rows.iter().map(|row| (row.effect_key.as_str(), row)).collect();
        self.arrivals(&rows);
        for row in rows.values() {
            match row.status.as_str() {
                "sent" => assert!(
                    self.arrived.contains_key(&id_of(&row.effect_key))
                        && (row.message_id.as_deref() == Some(&id_of(&row.effect_key))
                            || row.reason.as_deref() == Some("erased")),
                    "never arrived: {row:?}"
                ),
                "skipped" => assert!(self.is_justified(world, row, &living).await, "{row:?}"),
                _ => panic!("nobody works on it any more: {row:?}"),
            }
            assert!(
                living.contains_key(&row.user_id) || row.kept == 0,
                "not erased: {row:?}"
            );
        }
        self.first_mails(&rows, &living);
        position_updates(world, &rows).await;
        rewards(world, &rows).await;
        self.milestones(world, &rows, &living).await;
        nothing_is_kept(world, &living).await;
    }

    /// A mail comes again only after its reply was lost, and then with the same bytes; and it is not lost from the account. A
    /// process that dies over a mail that was accepted leaves word.
    fn arrivals(&self, rows: &BTreeMap<&str, &Row>) {
        let sent: BTreeSet<String> = rows
            .values()
            .filter(|row| row.status == "sent")
            .map(|row| id_of(&row.effect_key))
            .collect();
        let lost = self.server.lost();
        let (mut again, mut unaccounted) = (0, 0);
        for (id, mails) in &self.arrived {
            assert!(mails.iter().all(|mail| *mail == mails[0]), "other bytes: {mails:#?}");
            again += mails.len() - 1;
            // Whose reply was lost may be asked for no more, or for another mail. That it was sent nobody knows.
            unaccounted += usize::from(!sent.contains(id));
        }
        assert!(
            again + unaccounted <= lost,
            "{again} came again, {unaccounted} are in no account, after {lost} lost replies"
        );
    }

    /// The process died over it or its reply was lost, and whoever came next asked for another address or token, for none any
    /// more, or for one after all.
    fn is_superseded(&self, row: &Row) -> bool {
        let states = &self.users[&row.user_id];
        match row.kind.as_str() {
            "verification" => states.len() > 1 || self.was_lax(row.user_id),
            "welcome" => self.was_lax(row.user_id) && states.iter().any(|state| !state.email_verified),
            _ => false,
        }
    }

    /// Whether a campaign of the user asked for no verification at some time.
    fn was_lax(&self, user: Uuid) -> bool {
        let states = self.users[&user].iter();
        states
            .flat_map(|state| &self.campaigns[&state.campaign_id])
            .any(|seen| !seen.required)
    }

    /// Whether the reason for which there is no mail was a fact at some time.
    async fn is_justified(&self, world: &World, row: &Row, living: &BTreeMap<Uuid, State>) -> bool {
        let states = &self.users[&row.user_id];
        let campaigns: Vec<&Campaign> = states
            .iter()
            .flat_map(|state| &self.campaigns[&state.campaign_id])
            .collect();
        let ever = |fact: &dyn Fn(&State) -> bool| states.iter().any(fact);
        let is_verification = row.kind == "verification";
        match row.reason.as_deref().unwrap_or_default() {
            "already_verified" => is_verification && ever(&|state| state.email_verified),
            "verification_not_required" => is_verification && campaigns.iter().any(|campaign| !campaign.required),
            "no_token" => is_verification && ever(&|state| state.token.is_empty()),
            "not_in_standing" => {
                let asks_for_verified = !matches!(row.kind.as_str(), "verification" | "welcome");
                ever(&|state| !state.holds_a_place || asks_for_verified && !state.email_verified)
            }
            "no_marketing_consent" => is_marketing(&row.kind) && ever(&|state| !state.consents),
            "campaign_paused" => {
                is_marketing(&row.kind) && campaigns.iter().any(|campaign| campaign.status == "paused")
            }
            "campaign_left" => ever(&|state| state.campaign_id != row.campaign_id),
            "user_gone" | "erased" => !living.contains_key(&row.user_id),
            "superseded" => self.is_superseded(row),
            "not_improved" => row.kind == "position_update",
            "reward_not_earned" | "sent_anew" | "reward_gone" => row.kind == "reward_earned",
            "unsubscribed" => is_marketing(&row.kind) && self.was_suppressed(world, states, "'unsubscribed'").await,
            "suppressed" => self.was_suppressed(world, states, "'bounced', 'complained'").await,
            "bounced" => self.was_suppressed(world, states, "'bounced'").await,
            _ => false,
        }
    }

    async fn was_suppressed(&self, world: &World, states: &BTreeSet<State>, reasons: &str) -> bool {
        for state in states {
            if is_suppressed(world, &state.email, reasons, state.campaign_id, "infinity").await {
                return true;
            }
        }
        false
    }

    /// Everybody was asked to verify, or greeted; greeted is who verified, or did not have to.
    fn first_mails(&self, rows: &BTreeMap<&str, &Row>, living: &BTreeMap<Uuid, State>) {
        for (user, now) in living {
            let was_lax = self.was_lax(*user);
            let is_greeted = rows.contains_key(format!("welcome:{user}").as_str());
            assert!(is_greeted || !now.email_verified, "nobody greeted {now:?}");
            assert!(
                !is_greeted || now.email_verified || was_lax,
                "greeted too early: {now:?}"
            );
            let is_asked = rows.contains_key(verification_key(now).as_str());
            assert!(
                is_asked || now.email_verified || was_lax,
                "nobody asked {now:?} to verify"
            );
            assert!(is_asked || is_greeted || was_lax, "no first mail for {now:?}");
        }
        for row in rows.values().filter(|row| row.kind == "verification") {
            let was_so = self.users[&row.user_id]
                .iter()
                .any(|state| verification_key(state) == row.effect_key);
            assert!(was_so, "about an address and token that never were: {row:?}");
        }
    }

    /// Who was there, agreed and was in good standing all the time is told of a milestone, unless the campaign was paused or
    /// passed a higher one at once. Nobody is told of one that was passed before.
    async fn milestones(&self, world: &World, rows: &BTreeMap<&str, &Row>, living: &BTreeMap<Uuid, State>) {
        let passed: Vec<Milestone> = all(
            world,
            "SELECT m.campaign_id, m.milestone, (extract(epoch FROM m.created_at) * 1000000)::bigint AS passed_us,
                    m.mails_ended_at IS NOT NULL AS ended,
                    EXISTS (SELECT FROM campaign_milestones higher
                            WHERE higher.campaign_id = m.campaign_id AND higher.milestone > m.milestone
                              AND higher.created_at = m.created_at) AS outdone
             FROM campaign_milestones m",
        )
        .await;
        let since: Vec<(Uuid, i64, Option<i64>)> = all(
            world,
            "SELECT id, (extract(epoch FROM created_at) * 1000000)::bigint,
                    (extract(epoch FROM verified_at) * 1000000)::bigint FROM waitlist_users",
        )
        .await;
        for milestone in &passed {
            let Milestone { campaign_id, .. } = milestone;
            let was_paused = self.campaigns[campaign_id].iter().any(|seen| seen.status == "paused");
            assert!(milestone.ended || was_paused || milestone.outdone, "not all are told");
            for (user, created_us, verified_us) in &since {
                let key = format!("milestone:{campaign_id}:{}:{user}", milestone.milestone);
                let is_told = rows.contains_key(key.as_str());
                assert!(
                    !is_told || *created_us <= milestone.passed_us && !milestone.outdone,
                    "{key}"
                );
                let mut states = self.users[user].iter();
                let was_there = states
                    .all(|state| state.campaign_id == *campaign_id && state.holds_a_place && state.consents)
                    && living[user].email_verified
                    && verified_us.is_some_and(|at| at <= milestone.passed_us);
                assert!(
                    is_told || was_paused || milestone.outdone || !was_there,
                    "{key} is missing"
                );
            }
        }
        for row in rows.values().filter(|row| row.kind == "milestone") {
            let number = number_of_key(&row.effect_key);
            let is_one = |one: &Milestone| one.campaign_id == row.campaign_id && Some(one.milestone) == number;
            assert!(passed.iter().any(is_one), "of no milestone: {row:?}");
        }
    }
}

/// One row of account for each better place, and none besides.
async fn position_updates(world: &World, rows: &BTreeMap<&str, &Row>) {
    let told: Vec<(String,)> = all(
        world,
        "SELECT 'position_update:' || id FROM position_changes WHERE cause = 'improved'",
    )
    .await;
    let told: BTreeSet<&str> = told.iter().map(|(key,)| key.as_str()).collect();
    let of_places = rows.values().filter(|row| row.kind == "position_update");
    assert_eq!(
        of_places.map(|row| row.effect_key.as_str()).collect::<BTreeSet<_>>(),
        told
    );
}

/// At rest no mail that hands over is waited for, and each reward says what became of its own.
async fn rewards(world: &World, rows: &BTreeMap<&str, &Row>) {
    let given: Vec<(Uuid, i32, String)> = all(
        world,
        "SELECT o.id, o.resend_no, o.status FROM user_rewards o JOIN rewards w ON w.id = o.reward_id
         WHERE w.delivery_method = 'email'",
    )
    .await;
    for (id, resend_no, status) in &given {
        let row = rows.get(format!("reward_earned:{id}:{resend_no}").as_str());
        assert_ne!(status, "earned", "nobody hands {id} over: {row:?}");
        if status == "failed" {
            assert_eq!(row.map(|row| row.status.as_str()), Some("skipped"), "{id}");
        }
        if status == "held" {
            assert!(row.is_none_or(|row| row.status != "sent"), "{row:?}");
        }
    }
    for row in rows.values().filter(|row| row.kind == "reward_earned") {
        let (id, resend_no) = reward_of_key(&row.effect_key).unwrap();
        // With its owner the reward goes.
        let is_known = given.iter().any(|one| one.0 == id && resend_no <= one.1);
        assert!(is_known || row.kept == 0, "a sending that never was: {row:?}");
    }
}

/// Of who was deleted, no mail is kept for another try.
async fn nothing_is_kept(world: &World, living: &BTreeMap<Uuid, State>) {
    let kept: Vec<(String,)> = all(
        world,
        "SELECT effect_key FROM afterwrite.effects
         WHERE octet_length(rendered) > 0 AND effect_key ~ '^(verification|welcome):'",
    )
    .await;
    for (key,) in kept {
        let user: Uuid = key.split(':').nth(1).unwrap().parse().unwrap();
        assert!(
            living.contains_key(&user),
            "the bytes of {key} are kept of a person who was deleted"
        );
    }
}
