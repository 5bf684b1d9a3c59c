//! The application's tables as the handlers know them: what they read, what they write, and what they can do without.
//!
//! A test holds it against `infra/postgres/waitlist.sql`.

/// A table of the reference schema.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Table {
    pub(super) name: &'static str,
    pub(super) columns: &'static [Column],
    /// Whether the worker writes it: then its columns must have the reference's types.
    pub(super) is_written: bool,
    /// Whether an application may have no such table at all.
    pub(super) may_be_absent: bool,
    /// Whether its changes wake handlers.
    pub(super) is_captured: bool,
}

/// A column that the worker uses.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Column {
    pub(super) name: &'static str,
    pub(super) sql_type: &'static str,
    pub(super) absent: Absent,
}

/// What stands for a column that an application does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Absent {
    /// It has to have it.
    Never,
    /// Null.
    Null,
    /// This expression.
    Is(&'static str),
}

use Absent::{Is, Never, Null};

const TIME: &str = "timestamp with time zone";

const fn column(name: &'static str, sql_type: &'static str, absent: Absent) -> Column {
    Column { name, sql_type, absent }
}

pub(super) const TABLES: &[Table] = &[
    Table {
        name: "campaigns",
        is_written: false,
        may_be_absent: false,
        is_captured: true,
        columns: &[
            column("id", "uuid", Never),
            column("name", "text", Never),
            column("slug", "text", Never),
            column("status", "text", Never),
            column("verification_required", "boolean", Is("true")),
            column("ranking", "text", Is("'score'")),
            column("points_per_referral", "integer", Is("1")),
            column("notify_improvement_min", "integer", Is("1")),
            column("notify_interval", "interval", Is("'24 hours'")),
            column("milestones", "integer[]", Is("'{100,1000,10000}'")),
            column("from_name", "text", Null),
            column("from_address", "text", Null),
            column("reply_to", "text", Null),
            column("deleted_at", TIME, Null),
        ],
    },
    Table {
        name: "waitlist_users",
        is_written: false,
        may_be_absent: false,
        is_captured: true,
        columns: &[
            column("id", "uuid", Never),
            column("campaign_id", "uuid", Never),
            column("email", "text", Never),
            column("first_name", "text", Null),
            column("last_name", "text", Null),
            column("status", "text", Never),
            column("original_position", "integer", Null),
            column("referral_code", "text", Never),
            column("email_verified", "boolean", Never),
            column("verification_token", "text", Null),
            column("verified_at", TIME, Null),
            column("ip_address", "inet", Null),
            column("user_agent", "text", Null),
            column("device_fingerprint", "text", Null),
            column("marketing_consent", "boolean", Is("false")),
            column("created_at", TIME, Never),
            column("deleted_at", TIME, Null),
        ],
    },
    Table {
        name: "referrals",
        is_written: false,
        may_be_absent: false,
        is_captured: true,
        columns: &[
            column("id", "uuid", Never),
            column("campaign_id", "uuid", Never),
            column("referrer_id", "uuid", Never),
            column("referred_id", "uuid", Never),
            column("status", "text", Never),
            column("ip_address", "inet", Null),
            column("verified_at", TIME, Null),
            column("created_at", TIME, Never),
        ],
    },
    Table {
        name: "rewards",
        is_written: false,
        may_be_absent: false,
        is_captured: true,
        columns: &[
            column("id", "uuid", Never),
            column("campaign_id", "uuid", Never),
            column("name", "text", Never),
            column("description", "text", Null),
            column("type", "text", Is("'custom'")),
            column("config", "jsonb", Is("'{}'")),
            column("trigger_type", "text", Never),
            column("trigger_threshold", "integer", Never),
            column("evaluate", "text", Is("'completion'")),
            column("delivery_method", "text", Is("'email'")),
            column("webhook_id", "uuid", Null),
            column("total_available", "integer", Null),
            column("user_limit", "integer", Is("1")),
            column("status", "text", Is("'active'")),
            column("starts_at", TIME, Null),
            column("expires_at", TIME, Null),
            column("created_at", TIME, Never),
        ],
    },
    Table {
        name: "user_rewards",
        is_written: true,
        may_be_absent: false,
        is_captured: true,
        columns: &[
            column("id", "uuid", Never),
            column("campaign_id", "uuid", Never),
            column("reward_id", "uuid", Never),
            column("user_id", "uuid", Never),
            column("ordinal", "integer", Never),
            column("status", "text", Never),
            column("code", "text", Never),
            column("snapshot", "jsonb", Never),
            column("cause", "text", Never),
            column("earned_at", TIME, Never),
            column("delivered_at", TIME, Never),
            column("expires_at", TIME, Never),
            column("delivery_error", "text", Never),
            column("resend_no", "integer", Never),
            column("created_at", TIME, Never),
            column("updated_at", TIME, Never),
        ],
    },
    Table {
        name: "email_templates",
        is_written: false,
        may_be_absent: true,
        is_captured: false,
        columns: &[
            column("id", "uuid", Never),
            column("campaign_id", "uuid", Never),
            column("type", "text", Never),
            column("subject", "text", Never),
            column("html_body", "text", Never),
            column("text_body", "text", Null),
            column("enabled", "boolean", Is("true")),
        ],
    },
    Table {
        name: "webhooks",
        is_written: true,
        may_be_absent: true,
        is_captured: false,
        columns: &[
            column("id", "uuid", Never),
            column("campaign_id", "uuid", Never),
            column("url", "text", Never),
            column("secret", "text", Never),
            column("status", "text", Never),
            column("disabled_reason", "text", Never),
        ],
    },
    Table {
        name: "suppressions",
        is_written: true,
        may_be_absent: false,
        is_captured: false,
        columns: &[
            column("email", "text", Never),
            column("reason", "text", Never),
            column("campaign_id", "uuid", Never),
        ],
    },
    Table {
        name: "ip_safelist",
        is_written: false,
        may_be_absent: true,
        is_captured: false,
        columns: &[column("campaign_id", "uuid", Never), column("range", "cidr", Never)],
    },
];
