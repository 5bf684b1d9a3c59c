-- Which event's attempt failed an effect for good. The failure is recorded before its dead letter is written; when the
-- process dies between the two, the event is met again and must fail again, or it would be settled without a letter.

ALTER TABLE afterwrite.effects ADD COLUMN failed_by bytea CHECK (length(failed_by) = 16);
