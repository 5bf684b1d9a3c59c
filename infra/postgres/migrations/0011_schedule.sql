-- Scheduled work: every run of every job, and how often the schedule called a webhook.

SET LOCAL lock_timeout = '5s';

-- One row per job and tick. due: to be run; running: an attempt was begun, by whoever holds the job's lock, or by a process
-- that died; retrying: it failed and is tried again at next_attempt_at; failed: it failed too often; passed: a newer tick was
-- run instead. previous ticks that are done are kept for a month.
CREATE TABLE afterwrite.schedule_runs (
    job             text        NOT NULL CHECK (job <> ''),
    tick            timestamptz NOT NULL,
    status          text        NOT NULL CHECK (status IN ('due', 'running', 'retrying', 'done', 'failed', 'passed')),
    attempts        integer     NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    owner           uuid,
    next_attempt_at timestamptz NOT NULL,
    started_at      timestamptz,
    finished_at     timestamptz,
    error           text,
    report          jsonb,
    -- A person who asked for it; null: the clock did.
    requested_by    text,
    PRIMARY KEY (job, tick),
    CHECK (status <> 'done' OR finished_at IS NOT NULL)
);
CREATE INDEX schedule_runs_open ON afterwrite.schedule_runs (job, tick)
    WHERE status IN ('due', 'running', 'retrying');

-- Calls that the schedule made, after those of the job; they decide how long the next one waits. A constant default: no row
-- is rewritten.
ALTER TABLE public.webhook_deliveries ADD COLUMN retries integer NOT NULL DEFAULT 0;
