-- How far the mails of a milestone are queued: in pages, each of which is a job of its own. That a page is queued changes the
-- milestone's row, and that change is the next job; so no transaction grows with the campaign, and one that ends in the middle
-- goes on where it was.

SET LOCAL lock_timeout = '5s';

-- mailed_to: the last user, by (created_at, id), who was looked at. mails_ended_at: when everybody was.
ALTER TABLE public.campaign_milestones
    ADD COLUMN mail_pages     integer     NOT NULL DEFAULT 0 CHECK (mail_pages >= 0),
    ADD COLUMN mails_queued   integer     NOT NULL DEFAULT 0 CHECK (mails_queued >= 0),
    ADD COLUMN mailed_to_at   timestamptz,
    ADD COLUMN mailed_to_id   uuid,
    ADD COLUMN mails_ended_at timestamptz;
