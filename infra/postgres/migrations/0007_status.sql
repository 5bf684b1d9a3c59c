-- What the processes of a group tell of themselves, who moved a group's position, and which event made an effect.

-- Nobody shall wait behind this for long: it fails instead, leaves nothing behind, and is repeated.
SET LOCAL lock_timeout = '5s';

-- One row per process and group it runs, written every two seconds and kept for a day after its last word. Updated in
-- place, so room is left in its pages.
CREATE TABLE afterwrite.workers (
    owner         uuid        NOT NULL,
    group_name    text        NOT NULL,
    host          text        NOT NULL,
    pid           bigint      NOT NULL,
    version       text        NOT NULL,
    started_at    timestamptz NOT NULL DEFAULT now(),
    seen_at       timestamptz NOT NULL DEFAULT now(),
    progressed_at timestamptz,
    stopped_at    timestamptz,
    standing      jsonb       NOT NULL,
    PRIMARY KEY (group_name, owner)
) WITH (fillfactor = 50);

-- Who moved a stopped group, when, and from where to where. A move that died between its row and the broker stays `begun`.
CREATE TABLE afterwrite.group_moves (
    id            bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    group_name    text        NOT NULL,
    moved_by      text        NOT NULL,
    moved_at      timestamptz NOT NULL DEFAULT now(),
    reason        text,
    state         text        NOT NULL DEFAULT 'begun' CHECK (state IN ('begun', 'moved')),
    positions     jsonb       NOT NULL,
    -- Of a move that has events done again: whose, settled when, how many, committed on which days.
    redo_handler  text,
    settled_from  timestamptz,
    settled_until timestamptz,
    redo_days     date[]      NOT NULL DEFAULT '{}',
    redo_events   bigint      NOT NULL DEFAULT 0,
    redo_effects  bigint      NOT NULL DEFAULT 0
);
CREATE INDEX group_moves_by_handler ON afterwrite.group_moves (redo_handler) WHERE redo_handler IS NOT NULL;

-- The event that an effect was first claimed for; unknown for those of before. A reopened effect is rendered anew and made
-- again under the same key. NOT VALID: the rows that are there keep to it already, and are not read to prove it.
ALTER TABLE afterwrite.effects ADD COLUMN event_id bytea;
ALTER TABLE afterwrite.effects ADD CONSTRAINT effects_event_id_check CHECK (octet_length(event_id) = 16) NOT VALID;
ALTER TABLE afterwrite.effects DROP CONSTRAINT effects_state_check;
ALTER TABLE afterwrite.effects ADD CONSTRAINT effects_state_check
    CHECK (state IN ('sending', 'sent', 'skipped', 'failed', 'reopened')) NOT VALID;
