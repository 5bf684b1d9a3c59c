-- Dead letters by the key of their event, with their history, in runs of replays, and where no topic takes them.

-- A handler's transaction may hold the table for minutes. Whoever migrates gives up before all burials queue behind that.
SET LOCAL lock_timeout = '10s';

-- event_key: the primary key as it prints in every encoding; null for older letters, and where there is none.
-- A letter without a place has its bytes in dead_letters.
ALTER TABLE afterwrite.letters
    ADD COLUMN event_key jsonb,
    ALTER COLUMN dlq_topic DROP NOT NULL,
    ALTER COLUMN dlq_partition DROP NOT NULL,
    ALTER COLUMN dlq_offset DROP NOT NULL,
    ADD CONSTRAINT letters_place CHECK (num_nulls(dlq_topic, dlq_partition, dlq_offset) IN (0, 3));

-- A key as people write it: id=7 for each column, and the value alone where the key has one column.
CREATE FUNCTION afterwrite.key_terms(event_key jsonb) RETURNS text[]
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    SET search_path = pg_catalog
    RETURN (
        SELECT array_agg(key || '=' || coalesce(value, 'null')) || CASE count(*) WHEN 1 THEN array_agg(coalesce(value, 'null')) END
        FROM jsonb_each_text(event_key));

CREATE INDEX letters_by_time ON afterwrite.letters (failed_at, letter_id);
CREATE INDEX letters_by_handler ON afterwrite.letters (handler, state, failed_at);
CREATE INDEX letters_by_class ON afterwrite.letters (class, state, failed_at);
CREATE INDEX letters_by_table ON afterwrite.letters (table_name, failed_at);
CREATE INDEX letters_by_key ON afterwrite.letters USING gin (afterwrite.key_terms(event_key));
CREATE INDEX letters_by_source ON afterwrite.letters (group_name, source_topic, source_partition, source_offset);

-- Bytes of letters that their topic refuses as too large. The headers are those the record would have in the topic.
CREATE TABLE afterwrite.dead_letters (
    letter_id    text        PRIMARY KEY REFERENCES afterwrite.letters ON DELETE CASCADE,
    key          bytea,
    value        bytea,
    headers      jsonb       NOT NULL,
    timestamp_ms bigint,
    stored_at    timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX dead_letters_by_time ON afterwrite.dead_letters (stored_at);

-- Every change of a letter's state: by whom, when, from what to what, why. from_state is null where the letter begins.
CREATE TABLE afterwrite.letter_history (
    id         bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    letter_id  text        NOT NULL,
    changed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    changed_by text        NOT NULL,
    from_state text,
    to_state   text        NOT NULL,
    reason     text
);
CREATE INDEX letter_history_by_letter ON afterwrite.letter_history (letter_id, id);

-- By a trigger, so that no statement can forget it, and with the rights of the table's owner, so that nobody else needs
-- any. That a replay ended is said by a worker, which leaves in state_by who asked for it.
CREATE FUNCTION afterwrite.note_letter_state() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog
AS $$
BEGIN
    IF TG_OP = 'UPDATE' AND OLD.state = NEW.state THEN
        RETURN NULL;
    END IF;
    INSERT INTO afterwrite.letter_history (letter_id, changed_by, from_state, to_state, reason)
    VALUES (
        NEW.letter_id,
        CASE WHEN TG_OP = 'UPDATE' AND NEW.state = 'replayed' THEN session_user ELSE coalesce(NEW.state_by, session_user) END,
        CASE TG_OP WHEN 'UPDATE' THEN OLD.state END,
        NEW.state,
        CASE WHEN TG_OP = 'INSERT' OR NEW.state_reason IS DISTINCT FROM OLD.state_reason THEN NEW.state_reason END);
    RETURN NULL;
END
$$;
CREATE TRIGGER letters_note_state AFTER INSERT OR UPDATE OF state ON afterwrite.letters
    FOR EACH ROW EXECUTE FUNCTION afterwrite.note_letter_state();

-- Runs of replays: the letters that were listed when it began, and how far it got. Whoever works on one holds an advisory
-- lock of its session; a run that is not finished and whose lock is free was interrupted.
CREATE TABLE afterwrite.replay_runs (
    id          bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    group_name  text        NOT NULL,
    rate        integer     NOT NULL CHECK (rate > 0),
    state       text        NOT NULL DEFAULT 'running' CHECK (state IN ('running', 'finished', 'given_up')),
    run_by      text        NOT NULL,
    run_since   timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz
);
CREATE UNIQUE INDEX replay_runs_open ON afterwrite.replay_runs (group_name) WHERE state = 'running';

CREATE TABLE afterwrite.replay_run_letters (
    run_id     bigint  NOT NULL REFERENCES afterwrite.replay_runs ON DELETE CASCADE,
    ordinal    bigint  NOT NULL,
    letter_id  text    NOT NULL,
    request_id bigint,
    left_out   text    CHECK (left_out IN ('not_open', 'unreadable')),
    PRIMARY KEY (run_id, ordinal),
    UNIQUE (run_id, letter_id)
);
CREATE INDEX replay_run_letters_left ON afterwrite.replay_run_letters (run_id, ordinal)
    WHERE request_id IS NULL AND left_out IS NULL;

-- What a failed replay left is found by the place of its record; nothing ever wrote this column.
ALTER TABLE afterwrite.replay_requests DROP COLUMN outcome;
-- The bytes travel with a request until it ends, and not longer.
UPDATE afterwrite.replay_requests SET key = NULL, value = NULL, headers = '[]'
WHERE state IN ('done', 'failed') AND (key IS NOT NULL OR value IS NOT NULL OR headers <> '[]');
