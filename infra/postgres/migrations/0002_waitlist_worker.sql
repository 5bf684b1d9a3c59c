-- The waitlist worker's own tables. No foreign key leads to an application table: the application may erase a user, and
-- rows about that user must neither stop it nor vanish with it. The schema `afterwrite` exists (0001).
-- Names are qualified, because a role called afterwrite would have that schema first in its search path.

-- Places of one campaign change in bulk, so they are kept apart from waitlist_users, and are not published.
CREATE TABLE public.waitlist_positions (
    campaign_id        uuid NOT NULL,
    user_id            uuid NOT NULL,
    -- Ordinal by (created_at, id), given once; stands in where original_position is NULL.
    entry_no           integer NOT NULL CHECK (entry_no > 0),
    -- NULL: out of the ranking (blocked, removed, deleted); the row keeps the entry number for the way back.
    position           integer CHECK (position > 0),
    score              bigint NOT NULL,
    -- The facts the place was ranked by, so that one user's new place is found through an index.
    verified_referrals integer NOT NULL DEFAULT 0 CHECK (verified_referrals >= 0),
    signed_up_at       timestamptz NOT NULL,
    told_position      integer CHECK (told_position > 0),
    told_at            timestamptz,
    updated_at         timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (campaign_id, user_id),
    UNIQUE (campaign_id, entry_no) DEFERRABLE INITIALLY DEFERRED,
    -- A shift moves many rows in one statement; only the end of the transaction must be free of ties.
    UNIQUE (campaign_id, position) DEFERRABLE INITIALLY DEFERRED
);
CREATE INDEX waitlist_positions_by_score
    ON public.waitlist_positions (campaign_id, score, verified_referrals DESC, signed_up_at, user_id);
CREATE INDEX waitlist_positions_by_referrals
    ON public.waitlist_positions (campaign_id, verified_referrals DESC, signed_up_at, user_id);
CREATE INDEX waitlist_positions_user ON public.waitlist_positions (user_id);
-- The sweep that tells what notify_interval held back.
CREATE INDEX waitlist_positions_untold ON public.waitlist_positions (campaign_id, told_at)
    WHERE told_position IS NOT NULL AND position < told_position;

CREATE TABLE public.position_changes (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    campaign_id  uuid NOT NULL,
    user_id      uuid NOT NULL,
    old_position integer CHECK (old_position > 0),
    new_position integer NOT NULL CHECK (new_position > 0),
    cause        text NOT NULL CHECK (cause IN ('improved', 'threshold')),
    created_at   timestamptz NOT NULL DEFAULT now()
);
ALTER TABLE public.position_changes REPLICA IDENTITY FULL;
CREATE INDEX position_changes_user ON public.position_changes (user_id, id);

-- One row a mail, not an attempt. recipient, subject and variables never leave the database: the connector excludes them.
CREATE TABLE public.email_log (
    id          uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    effect_key  text NOT NULL UNIQUE,
    campaign_id uuid NOT NULL,
    user_id     uuid,
    type        text NOT NULL
                CHECK (type IN ('verification', 'welcome', 'position_update', 'reward_earned', 'milestone', 'custom')),
    status      text NOT NULL CHECK (status IN ('queued', 'sending', 'sent', 'skipped', 'failed')),
    reason      text,
    recipient   text,
    subject     text,
    variables   jsonb,
    message_id  text,
    smtp_reply  text,
    sent_at     timestamptz,
    created_at  timestamptz NOT NULL DEFAULT now(),
    updated_at  timestamptz NOT NULL DEFAULT now(),
    CHECK (status <> 'sent' OR sent_at IS NOT NULL)
);
ALTER TABLE public.email_log REPLICA IDENTITY FULL;
CREATE INDEX email_log_user ON public.email_log (user_id);
CREATE INDEX email_log_campaign_sent ON public.email_log (campaign_id, sent_at);
-- The clean-up that empties old rows of their personal data.
CREATE INDEX email_log_to_erase ON public.email_log (sent_at)
    WHERE recipient IS NOT NULL OR subject IS NOT NULL OR variables IS NOT NULL;

CREATE TABLE public.webhook_deliveries (
    id               uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    effect_key       text NOT NULL UNIQUE,
    campaign_id      uuid,
    webhook_id       uuid NOT NULL,
    event_type       text NOT NULL,
    status           text NOT NULL CHECK (status IN ('sending', 'retrying', 'delivered', 'skipped', 'failed')),
    attempts         integer NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    next_attempt_at  timestamptz,
    last_code        integer,
    response_excerpt text,
    error            text,
    delivered_at     timestamptz,
    created_at       timestamptz NOT NULL DEFAULT now(),
    updated_at       timestamptz NOT NULL DEFAULT now(),
    CHECK (status <> 'delivered' OR delivered_at IS NOT NULL),
    CHECK (status <> 'retrying' OR next_attempt_at IS NOT NULL)
);
CREATE INDEX webhook_deliveries_due ON public.webhook_deliveries (next_attempt_at) WHERE status = 'retrying';
CREATE INDEX webhook_deliveries_webhook ON public.webhook_deliveries (webhook_id, created_at);

CREATE TABLE public.fraud_detections (
    id           uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    campaign_id  uuid NOT NULL,
    user_id      uuid NOT NULL,
    -- The referral whose credit is in question, where there is one.
    referral_id  uuid,
    type         text NOT NULL
                 CHECK (type IN ('self_referral', 'velocity', 'disposable_email', 'bot', 'duplicate_ip', 'duplicate_device')),
    -- What was seen, without saying it: a rescan finds the row that is already there.
    evidence_key text NOT NULL,
    confidence   numeric(3, 2) NOT NULL CHECK (confidence BETWEEN 0 AND 1),
    evidence     jsonb NOT NULL DEFAULT '{}',
    status       text NOT NULL DEFAULT 'pending'
                 CHECK (status IN ('pending', 'confirmed', 'false_positive', 'resolved')),
    reviewed_by  text,
    reviewed_at  timestamptz,
    notes        text,
    created_at   timestamptz NOT NULL DEFAULT now(),
    updated_at   timestamptz NOT NULL DEFAULT now(),
    UNIQUE (user_id, type, evidence_key)
);
ALTER TABLE public.fraud_detections REPLICA IDENTITY FULL;
CREATE INDEX fraud_detections_referral ON public.fraud_detections (referral_id) WHERE referral_id IS NOT NULL;
CREATE INDEX fraud_detections_campaign_status ON public.fraud_detections (campaign_id, status);

CREATE TABLE public.campaign_milestones (
    campaign_id uuid NOT NULL,
    milestone   integer NOT NULL CHECK (milestone > 0),
    created_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (campaign_id, milestone)
);
ALTER TABLE public.campaign_milestones REPLICA IDENTITY FULL;

CREATE TABLE public.campaign_analytics (
    campaign_id       uuid NOT NULL,
    hour              timestamptz NOT NULL CHECK (date_trunc('hour', hour, 'UTC') = hour),
    new_signups       bigint NOT NULL DEFAULT 0,
    new_verified      bigint NOT NULL DEFAULT 0,
    new_referrals     bigint NOT NULL DEFAULT 0,
    conversions       bigint NOT NULL DEFAULT 0,
    emails_sent       bigint NOT NULL DEFAULT 0,
    rewards_earned    bigint NOT NULL DEFAULT 0,
    rewards_delivered bigint NOT NULL DEFAULT 0,
    total_signups     bigint NOT NULL DEFAULT 0,
    total_verified    bigint NOT NULL DEFAULT 0,
    total_referrals   bigint NOT NULL DEFAULT 0,
    computed_at       timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (campaign_id, hour)
);

-- The connector writes one row here regularly, so that its slot moves on while the captured tables are idle.
CREATE TABLE afterwrite.heartbeat (
    id integer PRIMARY KEY,
    ts timestamptz NOT NULL
);
ALTER TABLE afterwrite.heartbeat REPLICA IDENTITY FULL;

-- Commands to the connector, for example an incremental snapshot. Debezium prescribes the columns.
CREATE TABLE afterwrite.debezium_signal (
    id   text PRIMARY KEY,
    type text NOT NULL,
    data text
);
ALTER TABLE afterwrite.debezium_signal REPLICA IDENTITY FULL;
