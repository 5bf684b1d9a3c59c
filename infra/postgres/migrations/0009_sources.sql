-- Which source a group reads, and the move of groups from the write-ahead log to Kafka.

SET LOCAL lock_timeout = '5s';

-- One row per group. A process reads a source only while this names it, so that no group reads two at once.
CREATE TABLE afterwrite.sources (
    group_name text        PRIMARY KEY,
    source     text        NOT NULL CHECK (source IN ('wal', 'kafka')),
    -- Rises with every change of the source.
    epoch      bigint      NOT NULL DEFAULT 1,
    -- Whoever reads it ends what runs and stops, so that the source can be changed.
    leaving    boolean     NOT NULL DEFAULT false,
    changed_at timestamptz NOT NULL DEFAULT now(),
    -- When a process began to read this source first; null while none has.
    read_at    timestamptz
);
INSERT INTO afterwrite.sources (group_name, source, read_at)
    SELECT DISTINCT group_name, 'wal', now() FROM afterwrite.slots;
INSERT INTO afterwrite.sources (group_name, source, read_at)
    SELECT DISTINCT group_name, 'kafka', now() FROM afterwrite.claims
    ON CONFLICT DO NOTHING;

-- Moves of all groups from the write-ahead log to Kafka, with what each step needs of those before it.
CREATE TABLE afterwrite.graduations (
    id            bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    connector     text        NOT NULL,
    -- The connector's slot.
    slot_name     name        NOT NULL,
    -- Where the slot was made: transactions that commit after it are written to Kafka.
    cut_lsn       pg_lsn,
    beginnings_at timestamptz,
    connector_at  timestamptz,
    -- What is written before it was written before the first group read Kafka, or soon after.
    marker_lsn    pg_lsn,
    -- It is being taken back: no step of it is done any more.
    going_back    boolean     NOT NULL DEFAULT false,
    begun_at      timestamptz NOT NULL DEFAULT now(),
    ended_at      timestamptz,
    outcome       text        CHECK (outcome IN ('done', 'back')),
    CHECK ((ended_at IS NULL) = (outcome IS NULL))
);
CREATE UNIQUE INDEX graduations_open ON afterwrite.graduations ((true)) WHERE ended_at IS NULL;
