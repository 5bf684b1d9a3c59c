-- The waitlist application's tables: the schema afterwrite's handlers are written against.
-- A reference, not a requirement: an application with other names maps them in the configuration.
--
-- Words of a fixed list are text with a CHECK, not enums: a list can then be changed inside a transaction and a word
-- can be taken away again. REPLICA IDENTITY FULL stands on every table that is published, because handlers compare a
-- row with what it was before, and because a delete must still name its campaign to reach the campaign's partition.

CREATE TABLE campaigns (
    id                     uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    account_id             uuid NOT NULL,
    name                   text NOT NULL CHECK (name <> ''),
    slug                   text NOT NULL CHECK (slug ~ '^[a-z0-9]([a-z0-9-]*[a-z0-9])?$'),
    status                 text NOT NULL DEFAULT 'draft'
                           CHECK (status IN ('draft', 'active', 'paused', 'completed')),
    verification_required  boolean NOT NULL DEFAULT true,
    ranking                text NOT NULL DEFAULT 'score' CHECK (ranking IN ('score', 'referrals', 'signup')),
    points_per_referral    integer NOT NULL DEFAULT 1 CHECK (points_per_referral >= 0),
    notify_improvement_min integer NOT NULL DEFAULT 1 CHECK (notify_improvement_min >= 1),
    notify_interval        interval NOT NULL DEFAULT '24 hours' CHECK (notify_interval >= interval '0'),
    milestones             integer[] NOT NULL DEFAULT '{100,1000,10000}'
                           CHECK (0 < ALL (milestones) AND array_position(milestones, NULL) IS NULL),
    from_name              text,
    from_address           text,
    reply_to               text,
    -- The application enforces it; the worker only reads it.
    max_signups            integer CHECK (max_signups > 0),
    created_at             timestamptz NOT NULL DEFAULT now(),
    updated_at             timestamptz NOT NULL DEFAULT now(),
    deleted_at             timestamptz,
    UNIQUE (account_id, slug)
);
ALTER TABLE campaigns REPLICA IDENTITY FULL;

CREATE TABLE waitlist_users (
    id                 uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    campaign_id        uuid NOT NULL REFERENCES campaigns (id) ON DELETE CASCADE,
    email              text NOT NULL CHECK (position('@' IN email) > 1),
    first_name         text,
    last_name          text,
    status             text NOT NULL DEFAULT 'pending'
                       CHECK (status IN ('pending', 'verified', 'converted', 'removed', 'blocked')),
    original_position  integer CHECK (original_position > 0),
    referral_code      text NOT NULL UNIQUE CHECK (referral_code <> ''),
    -- Tells where the user came from. Credit is granted by rows of referrals alone.
    referred_by_id     uuid REFERENCES waitlist_users (id) ON DELETE SET NULL,
    email_verified     boolean NOT NULL DEFAULT false,
    verification_token text,
    verified_at        timestamptz,
    source             text NOT NULL DEFAULT 'direct' CHECK (source IN ('direct', 'referral', 'social', 'ad')),
    utm_source         text,
    utm_medium         text,
    utm_campaign       text,
    utm_term           text,
    utm_content        text,
    ip_address         inet,
    user_agent         text,
    device_fingerprint text,
    country_code       text CHECK (country_code ~ '^[A-Z]{2}$'),
    metadata           jsonb NOT NULL DEFAULT '{}',
    marketing_consent  boolean NOT NULL DEFAULT false,
    created_at         timestamptz NOT NULL DEFAULT now(),
    updated_at         timestamptz NOT NULL DEFAULT now(),
    deleted_at         timestamptz
);
ALTER TABLE waitlist_users REPLICA IDENTITY FULL;
CREATE UNIQUE INDEX waitlist_users_campaign_email ON waitlist_users (campaign_id, lower(email));
CREATE INDEX waitlist_users_campaign_created ON waitlist_users (campaign_id, created_at, id);
CREATE INDEX waitlist_users_referred_by ON waitlist_users (referred_by_id) WHERE referred_by_id IS NOT NULL;
CREATE INDEX waitlist_users_campaign_ip ON waitlist_users (campaign_id, ip_address) WHERE ip_address IS NOT NULL;
CREATE INDEX waitlist_users_campaign_device ON waitlist_users (campaign_id, device_fingerprint)
    WHERE device_fingerprint <> '';
CREATE INDEX waitlist_users_created ON waitlist_users (created_at);

CREATE TABLE referrals (
    id          uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    campaign_id uuid NOT NULL REFERENCES campaigns (id) ON DELETE CASCADE,
    referrer_id uuid NOT NULL REFERENCES waitlist_users (id) ON DELETE CASCADE,
    referred_id uuid NOT NULL REFERENCES waitlist_users (id) ON DELETE CASCADE,
    status      text NOT NULL DEFAULT 'pending' CHECK (status IN ('pending', 'verified', 'converted', 'invalid')),
    source      text,
    ip_address  inet,
    verified_at timestamptz,
    created_at  timestamptz NOT NULL DEFAULT now(),
    updated_at  timestamptz NOT NULL DEFAULT now(),
    UNIQUE (referrer_id, referred_id),
    CHECK (referrer_id <> referred_id)
);
ALTER TABLE referrals REPLICA IDENTITY FULL;
CREATE INDEX referrals_referrer_created ON referrals (referrer_id, created_at, id);
CREATE INDEX referrals_referred ON referrals (referred_id);
CREATE INDEX referrals_campaign_created ON referrals (campaign_id, created_at);

CREATE TABLE webhooks (
    id              uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    campaign_id     uuid NOT NULL REFERENCES campaigns (id) ON DELETE CASCADE,
    url             text NOT NULL CHECK (url ~ '^https?://'),
    secret          text NOT NULL,
    status          text NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'paused', 'disabled')),
    disabled_reason text,
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX webhooks_campaign ON webhooks (campaign_id);

CREATE TABLE rewards (
    id                uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    campaign_id       uuid NOT NULL REFERENCES campaigns (id) ON DELETE CASCADE,
    name              text NOT NULL CHECK (name <> ''),
    description       text,
    type              text NOT NULL
                      CHECK (type IN ('early_access', 'discount', 'premium_feature', 'merchandise', 'custom')),
    -- value, code_template, instructions, expiry_days
    config            jsonb NOT NULL DEFAULT '{}',
    trigger_type      text NOT NULL CHECK (trigger_type IN ('referral_count', 'position', 'milestone', 'manual')),
    trigger_threshold integer CHECK (trigger_threshold > 0),
    -- When a position counts: as soon as it is reached, or when the campaign completes.
    evaluate          text NOT NULL DEFAULT 'completion' CHECK (evaluate IN ('crossing', 'completion')),
    delivery_method   text NOT NULL DEFAULT 'email' CHECK (delivery_method IN ('email', 'webhook', 'manual')),
    webhook_id        uuid REFERENCES webhooks (id),
    total_available   integer CHECK (total_available >= 0),
    user_limit        integer NOT NULL DEFAULT 1 CHECK (user_limit > 0),
    status            text NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'paused', 'expired')),
    starts_at         timestamptz,
    expires_at        timestamptz,
    created_at        timestamptz NOT NULL DEFAULT now(),
    updated_at        timestamptz NOT NULL DEFAULT now(),
    CHECK (trigger_type = 'manual' OR trigger_threshold IS NOT NULL),
    CHECK (delivery_method <> 'webhook' OR webhook_id IS NOT NULL),
    CHECK (expires_at > starts_at)
);
ALTER TABLE rewards REPLICA IDENTITY FULL;
CREATE INDEX rewards_campaign_trigger ON rewards (campaign_id, trigger_type, status);

CREATE TABLE user_rewards (
    id             uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    campaign_id    uuid NOT NULL REFERENCES campaigns (id) ON DELETE CASCADE,
    reward_id      uuid NOT NULL REFERENCES rewards (id) ON DELETE CASCADE,
    user_id        uuid NOT NULL REFERENCES waitlist_users (id) ON DELETE CASCADE,
    -- The how-many-th time this user has earned this reward.
    ordinal        integer NOT NULL DEFAULT 1 CHECK (ordinal > 0),
    status         text NOT NULL DEFAULT 'earned'
                   CHECK (status IN ('held', 'earned', 'delivered', 'redeemed', 'revoked', 'expired', 'failed')),
    code           text,
    -- What was promised when it was earned; later edits of the reward do not change it.
    snapshot       jsonb,
    cause          text,
    earned_at      timestamptz,
    delivered_at   timestamptz,
    expires_at     timestamptz,
    delivery_error text,
    resend_no      integer NOT NULL DEFAULT 0 CHECK (resend_no >= 0),
    created_at     timestamptz NOT NULL DEFAULT now(),
    updated_at     timestamptz NOT NULL DEFAULT now(),
    UNIQUE (reward_id, user_id, ordinal)
);
ALTER TABLE user_rewards REPLICA IDENTITY FULL;
CREATE INDEX user_rewards_user ON user_rewards (user_id);
CREATE INDEX user_rewards_reward_status ON user_rewards (reward_id, status);
CREATE INDEX user_rewards_campaign_earned ON user_rewards (campaign_id, earned_at);
CREATE INDEX user_rewards_expiring ON user_rewards (expires_at)
    WHERE expires_at IS NOT NULL AND status IN ('held', 'earned', 'delivered');

-- No rows of its own: a campaign without a template gets the worker's built-in one.
CREATE TABLE email_templates (
    id          uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    -- NULL: the default of every campaign.
    campaign_id uuid REFERENCES campaigns (id) ON DELETE CASCADE,
    type        text NOT NULL
                CHECK (type IN ('verification', 'welcome', 'position_update', 'reward_earned', 'milestone', 'custom')),
    subject     text NOT NULL,
    html_body   text NOT NULL,
    text_body   text,
    enabled     boolean NOT NULL DEFAULT true,
    created_at  timestamptz NOT NULL DEFAULT now(),
    updated_at  timestamptz NOT NULL DEFAULT now(),
    UNIQUE NULLS NOT DISTINCT (campaign_id, type)
);

-- Addresses that want no mail, as keyed hashes: the list outlives the erasure of the person it protects.
CREATE TABLE suppressions (
    id          uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    email       text NOT NULL CHECK (email <> ''),
    reason      text NOT NULL CHECK (reason IN ('unsubscribed', 'bounced', 'complained')),
    -- NULL: everywhere.
    campaign_id uuid REFERENCES campaigns (id) ON DELETE CASCADE,
    created_at  timestamptz NOT NULL DEFAULT now(),
    UNIQUE NULLS NOT DISTINCT (email, reason, campaign_id)
);

CREATE TABLE ip_safelist (
    id          uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    campaign_id uuid NOT NULL REFERENCES campaigns (id) ON DELETE CASCADE,
    range       cidr NOT NULL,
    note        text,
    created_at  timestamptz NOT NULL DEFAULT now(),
    UNIQUE (campaign_id, range)
);
