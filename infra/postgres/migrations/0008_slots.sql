-- Where the groups stand that read the write-ahead log themselves.

SET LOCAL lock_timeout = '5s';

-- One row per slot. It is written before the server is told, so the server never knows of a position that this does not:
-- a slot that is gone, or that somebody moved, is told apart from one that is made for the first time.
CREATE TABLE afterwrite.slots (
    slot_name     name        PRIMARY KEY,
    group_name    text        NOT NULL,
    -- Of the cluster whose log it is: places in the log of another one mean nothing.
    system_id     text        NOT NULL,
    -- All transactions that end before it are settled.
    confirmed_lsn pg_lsn      NOT NULL,
    -- Number of the first change after it.
    position      bigint      NOT NULL,
    -- Changes with smaller numbers are settled. Ahead of `position` inside a transaction.
    settled_to    bigint      NOT NULL,
    created_at    timestamptz NOT NULL DEFAULT now(),
    updated_at    timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 50);
