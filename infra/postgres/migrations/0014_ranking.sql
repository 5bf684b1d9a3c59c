-- Rankings that cost what the change costs, and rewards that are given to many in pages.

SET LOCAL lock_timeout = '5s';

-- Whether the user counted for milestones when the place was ranked.
ALTER TABLE public.waitlist_positions ADD COLUMN in_standing boolean NOT NULL DEFAULT false;

-- A new place is found by halving the places there are: position orders them as the rules do, in each mode. Every place that
-- moves writes into every index of the table, so these would cost each of them for nothing. Who is asked about is known with
-- the campaign.
DROP INDEX public.waitlist_positions_by_score;
DROP INDEX public.waitlist_positions_by_referrals;
DROP INDEX public.waitlist_positions_user;

-- What the ranking of a campaign was made by, and what follows from it. A campaign without a row, or whose rules differ,
-- is ranked as a whole.
CREATE TABLE public.ranked_campaigns (
    campaign_id           uuid PRIMARY KEY,
    ranking               text NOT NULL,
    points_per_referral   integer NOT NULL,
    verification_required boolean NOT NULL,
    hold_at               integer NOT NULL,
    -- How many rows of waitlist_positions say in_standing.
    in_standing           bigint NOT NULL CHECK (in_standing >= 0),
    -- The latest signup that has an entry number; all that are later have none.
    last_signed_up_at     timestamptz,
    last_user_id          uuid,
    -- The change that completed the campaign and was answered by its last ranking.
    completed_by          bytea CHECK (octet_length(completed_by) = 16),
    updated_at            timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 50);

-- Rounds through a campaign that give what users wait for. Each page is one change of the row, which comes back as the job
-- of the next page; a round only moves forward, and ends.
CREATE TABLE public.reward_rounds (
    id               bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    campaign_id      uuid NOT NULL,
    -- NULL: all rewards of the campaign.
    reward_id        uuid,
    -- What the completion of the campaign brings may be given.
    closing          boolean NOT NULL DEFAULT false,
    -- By position first where stock is limited or places count; by signup, which nobody changes, all are met.
    walk             text NOT NULL CHECK (walk IN ('position', 'signup')),
    after_position   integer NOT NULL DEFAULT 0,
    after_created_at timestamptz,
    after_user_id    uuid,
    pages            integer NOT NULL DEFAULT 0,
    written          bigint NOT NULL DEFAULT 0,
    started_at       timestamptz NOT NULL DEFAULT now(),
    ended_at         timestamptz
) WITH (fillfactor = 50);
ALTER TABLE public.reward_rounds REPLICA IDENTITY FULL;
CREATE INDEX reward_rounds_campaign ON public.reward_rounds (campaign_id, ended_at);
