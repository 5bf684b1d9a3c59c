-- Coordination state of the worker: what was done, what failed for good, who owns which partition.
-- Everything lives in Postgres because Postgres is always there: it is the source.

CREATE SCHEMA IF NOT EXISTS afterwrite;

-- Once-only: one row per (event, handler) that had an effect or was given up.
-- Partitioned by the UTC day of the event's commit, which is the same in every copy of the event, so that the primary
-- key is unique over all time and old days are dropped whole.
CREATE TABLE afterwrite.ledger (
    commit_day date        NOT NULL,
    handler    text        NOT NULL,
    event_id   bytea       NOT NULL CHECK (octet_length(event_id) = 16),
    state      text        NOT NULL CHECK (state IN ('done', 'buried', 'discarded', 'redo')),
    settled_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (commit_day, handler, event_id)
) PARTITION BY RANGE (commit_day);

-- A handler's name belongs to one group and one ordering key for ever; a silent change would break order or run twice.
CREATE TABLE afterwrite.handlers (
    name          text        PRIMARY KEY,
    group_name    text        NOT NULL,
    ordering_key  text        NOT NULL,
    id_version    integer     NOT NULL,
    registered_at timestamptz NOT NULL DEFAULT now()
);

-- Who owns a partition. Taken before the first fetch: it fences replays of an earlier owner, and a partition that has
-- a claim but no committed offset has lost its offsets, whereas one without a claim is started for the first time.
CREATE TABLE afterwrite.claims (
    group_name   text        NOT NULL,
    topic        text        NOT NULL,
    partition    integer     NOT NULL,
    owner        uuid        NOT NULL,
    epoch        bigint      NOT NULL,
    first_offset bigint,
    claimed_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (group_name, topic, partition)
);

-- Mails and calls: what the database cannot roll back. The rendered bytes are kept so that every try sends the same.
CREATE TABLE afterwrite.effects (
    effect_key  text        PRIMARY KEY,
    handler     text        NOT NULL,
    state       text        NOT NULL CHECK (state IN ('sending', 'sent', 'skipped', 'failed')),
    rendered    bytea       NOT NULL,
    owner       uuid        NOT NULL,
    lease_until timestamptz NOT NULL,
    calls       integer     NOT NULL DEFAULT 1,
    reply       text,
    created_at  timestamptz NOT NULL DEFAULT now(),
    updated_at  timestamptz NOT NULL DEFAULT now()
);

-- State of every dead letter; its bytes are in the dead-letter topic at (dlq_topic, dlq_partition, dlq_offset).
CREATE TABLE afterwrite.letters (
    letter_id        text        PRIMARY KEY,
    group_name       text        NOT NULL,
    handler          text        NOT NULL,
    event_id         bytea,
    commit_day       date,
    table_name       text,
    class            text        NOT NULL CHECK (class IN
        ('undecodable', 'permanent', 'exhausted', 'timeout', 'panic', 'crashed', 'parked', 'expired')),
    error            text        NOT NULL,
    attempts         integer     NOT NULL,
    first_failed_at  timestamptz NOT NULL,
    failed_at        timestamptz NOT NULL,
    replays          integer     NOT NULL DEFAULT 0,
    source_topic     text        NOT NULL,
    source_partition integer     NOT NULL,
    source_offset    bigint      NOT NULL,
    dlq_topic        text        NOT NULL,
    dlq_partition    integer     NOT NULL,
    dlq_offset       bigint      NOT NULL,
    state            text        NOT NULL DEFAULT 'open'
        CHECK (state IN ('open', 'parked', 'replaying', 'replayed', 'discarded')),
    state_by         text,
    state_at         timestamptz NOT NULL DEFAULT now(),
    state_reason     text
);
CREATE INDEX letters_by_group ON afterwrite.letters (group_name, state, failed_at);

-- A letter on its way back. The owner of the source partition takes the request; the bytes travel with it, so that the
-- owner never has to read the dead-letter topic.
CREATE TABLE afterwrite.replay_requests (
    id               bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    letter_id        text        NOT NULL REFERENCES afterwrite.letters,
    group_name       text        NOT NULL,
    handler          text        NOT NULL,
    source_topic     text        NOT NULL,
    source_partition integer     NOT NULL,
    source_offset    bigint      NOT NULL,
    key              bytea,
    value            bytea,
    headers          jsonb       NOT NULL,
    replays          integer     NOT NULL,
    state            text        NOT NULL DEFAULT 'requested'
        CHECK (state IN ('requested', 'taken', 'done', 'failed')),
    epoch            bigint,
    outcome          text,
    requested_by     text        NOT NULL,
    requested_at     timestamptz NOT NULL DEFAULT now(),
    finished_at      timestamptz
);
CREATE INDEX replay_requests_open ON afterwrite.replay_requests (group_name, source_topic, source_partition, id)
    WHERE state IN ('requested', 'taken');
