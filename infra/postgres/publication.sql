-- What leaves the database, and who may do what. Idempotent; run by the owner after the tables exist
-- (waitlist.sql, the migrations) and after roles.sql.
--
-- No row filters and no column lists: under REPLICA IDENTITY FULL Postgres would refuse the application's own UPDATE and
-- DELETE on a table whose filter or list leaves a column out. What must not be captured is excluded by the connector.
-- Never published: webhooks, suppressions, email_templates, ip_safelist.

DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_publication WHERE pubname = 'afterwrite_waitlist') THEN
        CREATE PUBLICATION afterwrite_waitlist;
    END IF;
END
$$;

ALTER PUBLICATION afterwrite_waitlist SET TABLE
    public.waitlist_users,
    public.referrals,
    public.rewards,
    public.user_rewards,
    public.campaigns,
    public.position_changes,
    public.fraud_detections,
    public.campaign_milestones,
    public.reward_rounds,
    public.email_log,
    afterwrite.heartbeat,
    afterwrite.debezium_signal;
ALTER PUBLICATION afterwrite_waitlist
    SET (publish = 'insert, update, delete, truncate', publish_via_partition_root = true);

-- Grants. Up to here nothing needs the roles of roles.sql: `afterwrite migrate --publication without-grants` ends here.

-- The connector: reads what it captures, and writes its two tables.
GRANT USAGE ON SCHEMA public, afterwrite TO debezium;
GRANT SELECT ON
    public.waitlist_users, public.referrals, public.rewards, public.user_rewards, public.campaigns,
    public.position_changes, public.fraud_detections, public.campaign_milestones, public.reward_rounds,
    public.email_log
TO debezium;
GRANT SELECT, INSERT, UPDATE ON afterwrite.heartbeat, afterwrite.debezium_signal TO debezium;

-- The worker: reads the application's tables, and writes there only what handlers answer with.
GRANT USAGE ON SCHEMA public, afterwrite TO afterwrite_worker;
GRANT SELECT ON
    public.campaigns, public.waitlist_users, public.referrals, public.rewards, public.user_rewards,
    public.email_templates, public.webhooks, public.suppressions, public.ip_safelist
TO afterwrite_worker;
GRANT INSERT, UPDATE ON public.user_rewards TO afterwrite_worker;
GRANT INSERT ON public.suppressions TO afterwrite_worker;
GRANT UPDATE (status, disabled_reason) ON public.webhooks TO afterwrite_worker;

-- Its own tables are its own. CREATE on the schema: it makes the ledger's partitions of coming days.
GRANT ALL ON
    public.waitlist_positions, public.position_changes, public.email_log, public.webhook_deliveries,
    public.fraud_detections, public.campaign_milestones, public.campaign_analytics, public.ranked_campaigns,
    public.reward_rounds
TO afterwrite_worker;
GRANT CREATE ON SCHEMA afterwrite TO afterwrite_worker;
GRANT ALL ON ALL TABLES IN SCHEMA afterwrite TO afterwrite_worker;
GRANT ALL ON ALL SEQUENCES IN SCHEMA afterwrite TO afterwrite_worker;
-- Only the owner of a partitioned table may add a partition to it, and only the owner of a partition may drop it.
DO $$
DECLARE
    part regclass;
BEGIN
    FOR part IN SELECT relid FROM pg_partition_tree('afterwrite.ledger') LOOP
        EXECUTE format('ALTER TABLE %s OWNER TO afterwrite_worker', part);
    END LOOP;
END
$$;
ALTER DEFAULT PRIVILEGES IN SCHEMA afterwrite GRANT ALL ON TABLES TO afterwrite_worker;
ALTER DEFAULT PRIVILEGES IN SCHEMA afterwrite GRANT ALL ON SEQUENCES TO afterwrite_worker;
