-- Whose reward a call was about: what is kept of a person is found by it, also when the application has deleted the grant.
-- Rows of calls that were made before have none.

SET LOCAL lock_timeout = '10s';

ALTER TABLE public.webhook_deliveries ADD COLUMN user_id uuid;
CREATE INDEX webhook_deliveries_user ON public.webhook_deliveries (user_id) WHERE user_id IS NOT NULL;
