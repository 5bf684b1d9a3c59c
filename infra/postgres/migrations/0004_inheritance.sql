-- What whoever is assigned a partition inherits from its last owner: which events may have been running when that one died,
-- how often they were tried, and which lanes are parked. And how far back the ledger is kept.

-- handed_out_to: events before this offset may have been handed to handlers; it is reserved ahead, and null after a clean
-- release. suspect_to: events before this offset were with an owner that died; it only grows, because a clean release in
-- between does not say that they were all met. frontier_day: the earliest commit day among the events that are not settled; null holds the whole ledger.
ALTER TABLE afterwrite.claims
    ADD COLUMN released_clean boolean NOT NULL DEFAULT true,
    ADD COLUMN handed_out_to  bigint,
    ADD COLUMN suspect_to     bigint,
    ADD COLUMN frontier_day   date;
-- Its rows are updated often and never in an indexed column: with room on the page no index is touched.
ALTER TABLE afterwrite.claims SET (fillfactor = 50);

-- Jobs that run on a suspect partition. Written before such a job runs and deleted after it, or when it is settled if it had
-- to run alone; a row that is found by the next owner says that a process died while this job was running. Few rows at a time, but many in a day.
CREATE TABLE afterwrite.marks (
    group_name    text        NOT NULL,
    topic         text        NOT NULL,
    partition     integer     NOT NULL,
    source_offset bigint      NOT NULL,
    handler       text        NOT NULL,
    epoch         bigint      NOT NULL,
    alone         boolean     NOT NULL,
    deaths        integer     NOT NULL DEFAULT 0,
    marked_at     timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (group_name, topic, partition, source_offset, handler)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);

-- Attempts that were made at jobs which wait long for their next one, so that a change of owners does not start them anew.
CREATE TABLE afterwrite.attempts (
    group_name      text        NOT NULL,
    topic           text        NOT NULL,
    partition       integer     NOT NULL,
    source_offset   bigint      NOT NULL,
    handler         text        NOT NULL,
    attempts        integer     NOT NULL,
    first_failed_at timestamptz NOT NULL,
    noted_at        timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (group_name, topic, partition, source_offset, handler)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);

-- Lanes whose head is in the dead letters and that hold their followers back. A lane without a row is live.
CREATE TABLE afterwrite.parked_lanes (
    group_name  text        NOT NULL,
    topic       text        NOT NULL,
    partition   integer     NOT NULL,
    handler     text        NOT NULL,
    lane_key    bigint      NOT NULL,
    state       text        NOT NULL DEFAULT 'parked' CHECK (state IN ('parked', 'draining')),
    head_letter text        NOT NULL,
    parked_at   timestamptz NOT NULL DEFAULT now(),
    -- Partition before handler: an owner loads all lanes of its partition.
    PRIMARY KEY (group_name, topic, partition, handler, lane_key)
);
CREATE INDEX parked_lanes_by_head ON afterwrite.parked_lanes (head_letter);

-- The followers, with the bytes of their records. No foreign key to the lane: who appends locks its row anyway.
CREATE TABLE afterwrite.parked (
    group_name    text        NOT NULL,
    topic         text        NOT NULL,
    partition     integer     NOT NULL,
    handler       text        NOT NULL,
    lane_key      bigint      NOT NULL,
    source_offset bigint      NOT NULL,
    event_id      bytea       CHECK (octet_length(event_id) = 16),
    commit_day    date,
    key           bytea,
    value         bytea,
    headers       jsonb       NOT NULL,
    timestamp_ms  bigint,
    parked_at     timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (group_name, topic, partition, handler, lane_key, source_offset)
);

-- ledger_name: under which name the ledger knows a handler that was renamed; null while it is the handler's own.
-- kept_from: from which day on the ledger is kept for a handler; null is all of it. Events of an earlier day are not run
-- again by themselves, since nobody knows any more whether they were done.
ALTER TABLE afterwrite.handlers
    ADD COLUMN ledger_name text,
    ADD COLUMN kept_from   date;
CREATE UNIQUE INDEX handlers_by_ledger_name ON afterwrite.handlers ((coalesce(ledger_name, name)));
