-- When the other side accepted a call whose last transaction is still missing: should the process die in between, the next one
-- neither repeats the call nor takes it for one that was not made. A column without a default: no row is rewritten.

SET LOCAL lock_timeout = '10s';

ALTER TABLE afterwrite.effects ADD COLUMN accepted_at timestamptz;
