-- How a group began: written down before its first subscription, and never changed. A first start that is interrupted, or
-- made by several processes at once, ends as one that was neither: all of them begin where this row says. A partition that
-- is not in it appeared later, and is read from its beginning.
CREATE TABLE afterwrite.groups (
    group_name    text        PRIMARY KEY,
    start         text        NOT NULL CHECK (start IN ('earliest', 'latest')),
    -- {"topic": {"partition": offset}}: the ends of the partitions that there were; empty for earliest.
    first_offsets jsonb       NOT NULL,
    started_at    timestamptz NOT NULL DEFAULT now()
);
