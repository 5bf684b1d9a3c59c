-- Letters of jobs that are not dead: they were parked so that the log kept for their group does not fill a disk.

SET LOCAL lock_timeout = '5s';

-- due_at: when a parked job would have been tried again; null for all other letters. Its owner releases it then.
ALTER TABLE afterwrite.letters ADD COLUMN due_at timestamptz;

-- Asked for while there are any, and by each owner of a partition once.
CREATE INDEX letters_to_release
    ON afterwrite.letters (group_name, source_topic, source_partition, handler, source_offset)
    WHERE class = 'parked' AND state IN ('parked', 'replaying');
