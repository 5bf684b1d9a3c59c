-- What is there before a connector starts: the tables, and the rows that its snapshot reads.
SET timezone = 'UTC';
CREATE EXTENSION citext;
CREATE EXTENSION hstore;
CREATE EXTENSION ltree;
CREATE SCHEMA dbz;
CREATE TYPE mood AS ENUM ('calm', 'tense', 'it''s, fine');
CREATE TYPE address AS (street text, zip int);
CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE DOMAIN short AS varchar(10);

-- A business: nullable columns with defaults, both kinds of identity, a table without a key.
CREATE TABLE campaigns (
    id bigserial PRIMARY KEY, slug text NOT NULL UNIQUE, cap int DEFAULT 100, note text DEFAULT 'none',
    opens_on date, budget numeric(12,2), active boolean NOT NULL DEFAULT true,
    pinged_at timestamptz DEFAULT now(), created_at timestamptz NOT NULL DEFAULT now());
CREATE TABLE users (
    id bigserial PRIMARY KEY, campaign_id bigint NOT NULL, email text NOT NULL, mood mood NOT NULL DEFAULT 'calm',
    referred_by bigint, points bigint NOT NULL DEFAULT 0, ip inet, profile jsonb, bio text, score numeric(10,3), joined_at timestamptz,
    avatar bytea, tags text[], token uuid, tier int DEFAULT 7);
ALTER TABLE users REPLICA IDENTITY FULL;
CREATE TABLE referrals (
    id bigint PRIMARY KEY, campaign_id bigint NOT NULL, referrer_id bigint NOT NULL,
    created_at timestamptz NOT NULL DEFAULT '2026-01-01Z');
CREATE TABLE rewards (
    user_id bigint, kind text, amount numeric(20,4) NOT NULL, rate float8, granted_at timestamptz NOT NULL,
    PRIMARY KEY (user_id, kind));
CREATE TABLE audit (at timestamptz, actor text, what jsonb);
ALTER TABLE audit REPLICA IDENTITY FULL;

-- Identities that are neither the key nor the whole row, and columns that an old row makes up.
CREATE TABLE by_index (id int PRIMARY KEY, code text NOT NULL, place int NOT NULL, note text);
CREATE UNIQUE INDEX by_index_code ON by_index (code, place);
ALTER TABLE by_index REPLICA IDENTITY USING INDEX by_index_code;
CREATE TABLE fabricated (
    id int PRIMARY KEY, n int NOT NULL, big bigint NOT NULL DEFAULT 42, t text NOT NULL, b boolean NOT NULL, f float8 NOT NULL,
    d numeric(8,2) NOT NULL, u uuid NOT NULL, j jsonb NOT NULL DEFAULT '{}', at timestamptz NOT NULL, day date NOT NULL,
    raw bytea NOT NULL, m mood NOT NULL, tags text[] NOT NULL, span interval NOT NULL, nullable text DEFAULT 'x');

-- Names that need adjusting for Avro, and names that an envelope has.
CREATE TABLE "odd-Names" ("the id" int PRIMARY KEY, "dash-ed" text, "with space" text, "Upper" text, "ünïcode" text, "1st" text);
CREATE TABLE disguised (
    op text PRIMARY KEY, schema text, payload text, source text, before text, after text, ts_ms bigint, "before.id" int);

-- Every type that a stock Postgres offers.
CREATE TABLE all_types (
    id int PRIMARY KEY, c_bool bool, c_int2 smallint, c_int4 int, c_int8 bigint, c_oid oid, c_float4 real, c_float8 float8,
    c_num numeric, c_num124 numeric(12,4), c_num_neg numeric(10,-2), c_num_small numeric(2,5), c_money money,
    c_char char(5), c_quoted_char "char", c_varchar varchar(20), c_text text, c_name name, c_citext citext, c_bytea bytea,
    c_bit1 bit(1), c_bit12 bit(12), c_varbit varbit(20),
    c_date date, c_time0 time(0), c_time3 time(3), c_time time, c_timetz timetz, c_ts0 timestamp(0), c_ts3 timestamp(3),
    c_ts timestamp, c_tstz0 timestamptz(0), c_tstz timestamptz, c_interval interval,
    c_uuid uuid, c_json json, c_jsonb jsonb, c_xml xml, c_inet inet, c_cidr cidr, c_mac macaddr, c_mac8 macaddr8,
    c_i4r int4range, c_i8r int8range, c_nr numrange, c_tsr tsrange, c_tstzr tstzrange, c_dr daterange, c_mr int4multirange,
    c_tsv tsvector, c_tsq tsquery, c_lsn pg_lsn, c_snapshot txid_snapshot, c_jsonpath jsonpath,
    c_enum mood, c_domain positive, c_short short, c_comp address, c_hstore hstore, c_ltree ltree,
    c_identity int GENERATED ALWAYS AS IDENTITY, c_notnull int NOT NULL DEFAULT 42);
CREATE TABLE shapes (
    id int PRIMARY KEY, c_point point, c_box box, c_circle circle, c_line line, c_lseg lseg, c_path path, c_polygon polygon);
CREATE TABLE arrays (
    id int PRIMARY KEY, a_bool bool[], a_i2 smallint[], a_i4 int[], a_i8 bigint[], a_oid oid[], a_f4 real[], a_f8 float8[], a_num numeric[],
    a_num62 numeric(6,2)[], a_money money[], a_char char(5)[], a_varchar varchar(9)[], a_text text[], a_citext citext[],
    a_bytea bytea[], a_date date[], a_time time[], a_timetz timetz[], a_ts timestamp[], a_tstz timestamptz[],
    a_interval interval[], a_uuid uuid[], a_json json[], a_jsonb jsonb[], a_xml xml[], a_inet inet[], a_cidr cidr[], a_mac macaddr[],
    a_i4r int4range[], a_nr numrange[], a_tstzr tstzrange[], a_dr daterange[], a_enum mood[], a_domain positive[], a_point point[],
    a_hstore hstore[], a_ltree ltree[]);

-- Values that Postgres keeps out of line, under both identities.
CREATE TABLE toast_default (
    id int PRIMARY KEY, small int NOT NULL DEFAULT 5, t text, v varchar(20000), c citext, j json, jb jsonb, x xml, b bytea, h hstore,
    ts tsvector, n numeric, at text[], ai int[], ab bigint[], au uuid[], aj jsonb[])
    WITH (toast_tuple_target = 128);
CREATE TABLE toast_full (LIKE toast_default INCLUDING ALL) WITH (toast_tuple_target = 128);
ALTER TABLE toast_full REPLICA IDENTITY FULL;

-- What a connector cannot convert: it stops, unless it is told to put null there.
CREATE TABLE lossy (id int PRIMARY KEY, small int, b bytea, ad date[], ah bytea[], an numeric[], ab bit(3)[]) WITH (toast_tuple_target = 128);

-- Tables of which a connector sees more than one schema: changed while it streams; generated columns, which are read but not
-- streamed.
CREATE TABLE evolving (id int PRIMARY KEY, n int, note text DEFAULT 'none', mood mood);
CREATE TABLE generated (id int PRIMARY KEY, twice int GENERATED ALWAYS AS (id * 2) STORED);

-- What the connector's modes make different.
CREATE TABLE modes (
    id int PRIMARY KEY, n numeric, n4 numeric(12,4), m money, d date, t0 time(0), t3 time(3), t6 time, tz timetz,
    ts0 timestamp(0), ts3 timestamp(3), ts6 timestamp, tstz timestamptz, i interval, b bytea, h hstore,
    an numeric(6,2)[], ad date[], ats timestamp[], at time[], lsn pg_lsn, mr int4multirange, comp address, note text DEFAULT 'none');
CREATE TABLE finished (id int PRIMARY KEY);

INSERT INTO campaigns (slug, cap, note, opens_on, budget, pinged_at, created_at) VALUES
    ('launch', 500, NULL, '2026-01-31', 12345.67, '2026-01-01T00:00:00Z', '2026-01-01T00:00:00.123456Z'),
    ('beta "quoted" \ naïve 🚀', NULL, 'n', NULL, NULL, NULL, '2026-02-03T04:05:06Z');
INSERT INTO users (campaign_id, email, referred_by, ip, profile, score, tags, tier) VALUES
    (1, 'snap1@example.com', NULL, '10.0.0.1', '{"k": [1, 2.50, null], "s": "ü"}', 1.500, '{a,"b c",NULL}', NULL),
    (1, 'snap2@example.com', 1, '2001:db8::1/64', NULL, NULL, '{}', 3),
    (2, 'snap3@example.com', NULL, NULL, 'null', -0.001, NULL, NULL);
INSERT INTO rewards VALUES (1, 'welcome', 10.5000, 0.1, '2026-03-01T12:00:00+02');
INSERT INTO audit VALUES ('2026-03-01T00:00:00Z', 'root', '{"a":1}'), ('2026-03-01T00:00:00Z', 'root', '{"a":1}');
INSERT INTO toast_default (id, small, t) VALUES (1, 1, 'short');
INSERT INTO all_types (id, c_bool, c_num, c_date) VALUES (0, false, 0, '2026-01-01');
INSERT INTO modes (id, n, n4, d, ts6) VALUES (0, 0.10, 0, '2026-01-01', '2026-01-01 00:00:00.1');
INSERT INTO evolving VALUES (1, 1, 'a', 'calm');
INSERT INTO generated VALUES (1);
