-- The two roles of a running installation. Idempotent; run by the owner of the database (or a superuser).
-- Passwords are no part of it: set them with ALTER ROLE … PASSWORD, or use certificates.
-- What they may do is granted in publication.sql, when the tables exist.

DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'afterwrite_worker') THEN
        CREATE ROLE afterwrite_worker LOGIN;
    END IF;
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'debezium') THEN
        CREATE ROLE debezium LOGIN REPLICATION;
    END IF;
END
$$;
