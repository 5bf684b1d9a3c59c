-- What is streamed. `-- WAIT` waits until every connector has delivered all that was written before it: where the table
-- changes next, what was written with the old one must have been read, because a connector asks the catalogue as it is now.
SET timezone = 'UTC';

-- Single rows: insert, update of nullable columns with defaults to null, an update that changes nothing.
INSERT INTO campaigns (slug, created_at) VALUES ('gamma', '2026-04-01T00:00:00Z');
UPDATE campaigns SET cap = NULL, note = NULL, pinged_at = NULL WHERE id = 3;
UPDATE campaigns SET slug = slug WHERE id = 3;
INSERT INTO users (campaign_id, email, referred_by, points, ip, profile, bio, score, joined_at, avatar, tags, token, tier) VALUES
    (1, 'full@example.com', 1, 9007199254740993, '192.168.0.7/32',
     '{"b": 1e3, "a": {"deep": [true, false, null]}, "big": 123456789012345678901234567890}', E'tab\t nl\n quote" back\\ 🚀',
     -12.340, '2026-04-01T10:11:12.130000+05:30', decode('00ff10', 'hex'), '{x,NULL,"y,z"}',
     '00000000-0000-4000-8000-00000000000a', NULL);

-- One transaction over several tables.
BEGIN;
INSERT INTO users (campaign_id, email, referred_by) VALUES (1, 'm1@example.com', 1), (2, 'm2@example.com', 1);
INSERT INTO referrals VALUES (1, 1, 1), (2, 2, 1);
UPDATE users SET points = points + 20, mood = 'tense' WHERE id = 1;
INSERT INTO rewards VALUES (1, 'ref-2', 0.0001, 'NaN', '2026-04-02T00:00:00.5Z'),
    (5, 'welcome', 12345678901234.5678, 'Infinity', '2026-04-02T00:00:00Z');
COMMIT;

-- Insert, update, update, delete, insert of one key in one transaction; then one that is rolled back.
BEGIN;
INSERT INTO rewards VALUES (9, 'tmp', 1, 1, '2026-04-03T00:00:00Z');
UPDATE rewards SET amount = 2 WHERE user_id = 9;
UPDATE rewards SET amount = 3 WHERE user_id = 9;
DELETE FROM rewards WHERE user_id = 9;
INSERT INTO rewards VALUES (9, 'tmp', 4, NULL, '2026-04-03T00:00:01Z');
COMMIT;
BEGIN;
INSERT INTO campaigns (slug) VALUES ('never');
ROLLBACK;

-- COPY writes many rows into one record of the log: they share their LSN, and without a key nothing tells equal rows apart.
COPY referrals FROM STDIN;
101	1	1	2026-04-04 00:00:00+00
102	1	1	2026-04-04 00:00:00+00
103	2	3	2026-04-04 00:00:00+00
104	2	3	2026-04-04 00:00:00+00
105	1	2	2026-04-04 00:00:00+00
\.
COPY audit FROM STDIN;
2026-04-04 00:00:00+00	copy	{"same": true}
2026-04-04 00:00:00+00	copy	{"same": true}
2026-04-04 00:00:00+00	copy	{"same": true}
\.

-- Changes of primary keys under both identities, and a swap in one transaction.
UPDATE users SET id = 1002 WHERE id = 2;
UPDATE rewards SET kind = 'renamed' WHERE user_id = 1 AND kind = 'welcome';
BEGIN;
UPDATE referrals SET id = -1 WHERE id = 101;
UPDATE referrals SET id = 101 WHERE id = 102;
UPDATE referrals SET id = 102 WHERE id = -1;
COMMIT;
-- A row that moves to another campaign, and with it to another partition.
UPDATE users SET campaign_id = 2 WHERE id = 1002;

-- Deletes: whole old rows, old rows that are made up, an index as identity, no key.
DELETE FROM users WHERE id = 6;
DELETE FROM referrals WHERE id = 105;
DELETE FROM rewards WHERE user_id = 9;
UPDATE audit SET actor = 'upd' WHERE actor = 'root';
DELETE FROM audit WHERE actor = 'upd';
INSERT INTO by_index VALUES (1, 'a', 1, 'x'), (2, 'b', 2, 'y');
UPDATE by_index SET note = 'z' WHERE id = 1;
UPDATE by_index SET code = 'c' WHERE id = 1;
UPDATE by_index SET id = 3 WHERE id = 2;
DELETE FROM by_index;
INSERT INTO fabricated VALUES (1, 7, 8, 'text', true, 1.5, 9.99, '00000000-0000-4000-8000-00000000000b', '{"a": 1}', '2026-04-05T00:00:00Z',
    '2026-04-05', '\x01', 'tense', '{a}', '1 day', NULL);
DELETE FROM fabricated;

-- Odd names.
INSERT INTO "odd-Names" VALUES (1, 'a', 'b', 'c', 'd', 'e');
UPDATE "odd-Names" SET "dash-ed" = 'aa';
INSERT INTO disguised VALUES ('c', '{"type":"struct"}', '{"id":1}', '{"table":"x"}', 'b', 'a', 1, 2);
UPDATE disguised SET payload = NULL;
DELETE FROM disguised;

-- Out of line and unchanged: the connector puts its placeholder there, unless the old row has the value.
INSERT INTO toast_default SELECT 2, 2, big.t, big.t, big.t, to_json(big.t), to_jsonb(big.t), ('<a>' || big.t || '</a>')::xml, decode(big.t, 'hex'),
        hstore('k', big.t), to_tsvector('simple', big.words), repeat('12345678901', 30)::numeric, big.texts, big.ints, big.ints, big.uuids, big.documents
    FROM (SELECT string_agg(md5(i::text), '') AS t, string_agg(md5(i::text), ' ') AS words, array_agg(md5(i::text)) AS texts,
        array_agg(i * 7919) AS ints, array_agg(md5(i::text)::uuid) AS uuids, array_agg(to_jsonb(md5(i::text))) AS documents
        FROM generate_series(1, 20) i) big;
UPDATE toast_default SET small = 3 WHERE id = 2;
INSERT INTO toast_full SELECT * FROM toast_default WHERE id = 2;
UPDATE toast_full SET small = 4;
UPDATE toast_full SET id = 20;
UPDATE toast_default SET t = 'now short' WHERE id = 2;
INSERT INTO toast_default (id, t, jb, b, at, h) VALUES (3, '__debezium_unavailable_value', '"__debezium_unavailable_value"', '__debezium_unavailable_value',
    '{__debezium_unavailable_value}', '__debezium_unavailable_value=>__debezium_unavailable_value');
UPDATE toast_default SET id = 20 WHERE id = 2;
DELETE FROM toast_default WHERE id = 20;

-- Logical messages, in a transaction and outside.
SELECT pg_logical_emit_message(true, 'mail', '{"to":"full@example.com"}');
SELECT pg_logical_emit_message(false, 'ping', 'ping');
BEGIN;
SELECT pg_logical_emit_message(true, 'in-tx', decode('00ff', 'hex'));
INSERT INTO campaigns (slug, created_at) VALUES ('msg', '2026-04-05T00:00:00Z');
COMMIT;

-- Every type: ordinary, all null, extreme.
INSERT INTO all_types VALUES (1, true, -2, 3, 4, 4294967295, 1.5, 2.25, 1.10, 12.3400, 12345, 0.00012, '12.34', 'abc', 'x', 'v', 't', 'n', 'CiText',
    '\x010203', '1', '101010101010', '10101', '2026-05-06', '01:02:03', '01:02:03.456', '01:02:03.456789', '11:51:30.123789+02',
    '2026-05-06 01:02:03', '2026-05-06 01:02:03.456', '2026-05-06 01:02:03.456789', '2026-05-06 01:02:03+02',
    '2026-05-06 01:02:03.456789+02', '1 year 2 mons 3 days 04:05:06.78', '11111111-2222-3333-4444-555555555555',
    '{"b":1, "a":2,"a":3}', '{"b":1, "a":2}', '<a>b</a>', '10.1.2.3/8', '10.0.0.0/8', '08:00:2b:01:02:03', '08:00:2b:01:02:03:04:05',
    '[1,5)', '[1,5)', '[1.5,2.5]', '[2026-01-01,2026-02-01)', '[2026-01-01 00:00+00,infinity)', '[2026-01-01,2026-02-01)', '{[1,3),[5,7)}',
    'a fat cat', 'fat & cat', '0/16B3748', '10:20:10,14,15', '$.a', 'tense', 5, 'short', ROW('s t', 12345), 'k1=>v1,k2=>NULL,"k 3"=>"v\"3"', 'a.b.c');
INSERT INTO all_types (id) VALUES (2);
INSERT INTO all_types (id, c_int2, c_int4, c_int8, c_oid, c_float4, c_float8, c_num, c_num124, c_num_neg, c_money, c_char, c_varchar, c_text, c_bytea,
    c_bit12, c_varbit, c_date, c_time0, c_time3, c_time, c_timetz, c_ts3, c_ts, c_tstz, c_interval, c_jsonb, c_json, c_tsr, c_hstore, c_enum)
    VALUES (3, -32768, -2147483648, -9223372036854775808, 0, 'NaN', '-Infinity', 'NaN', '-99999999.9999', NULL, '-92233720368547758.08', '', '', '',
    '', '000000000000', '', 'infinity', '24:00:00', '23:59:59.999', '24:00:00', '23:59:59.999999-15:59', 'infinity', 'infinity', 'infinity',
    '-1 year 3 days -00:00:00.000001', '[]', 'null', 'empty', '', 'it''s, fine');
INSERT INTO all_types (id, c_int2, c_int4, c_int8, c_float4, c_float8, c_num, c_date, c_time, c_ts3, c_ts, c_tstz, c_text, c_jsonb, c_interval) VALUES
    (4, 32767, 2147483647, 9223372036854775807, 3.4028235e38, 4.9e-324, '123456789012345678901234567890.123456789000', '0044-03-15 BC',
    '23:59:59.999999', '0001-01-01 00:00:00', '0001-01-01 00:00:00', '9999-12-31 23:59:59.999999+00',
    E'tab\t nl\n quote" back\\ \u007f 🚀', '"\ud83d\ude80"', '178000000 years');
INSERT INTO all_types (id, c_float8, c_num, c_date, c_ts3, c_ts, c_tstz, c_interval) VALUES
    (5, 1e300, '-Infinity', '-infinity', '-infinity', '-infinity', '-infinity', '-178000000 years');
INSERT INTO all_types (id, c_float8, c_num, c_date, c_ts, c_tstz, c_tstz0) VALUES
    (6, 9007199254740993, 'Infinity', '9999-12-31', '294276-12-31 23:59:59.999999', '294276-12-31 23:59:59.999999+00', '4713-01-01 00:00:00+00 BC');
UPDATE all_types SET c_enum = 'calm' WHERE id = 2;
DELETE FROM all_types WHERE id = 2;
INSERT INTO shapes VALUES (1, '(1.5,-2)', '(1,1),(0,0)', '<(0,0),5>', '{1,-1,0}', '[(0,0),(1,1)]', '[(0,0),(1,1),(2,0)]', '((0,0),(1,1),(2,0))');
INSERT INTO shapes (id) VALUES (2);
UPDATE shapes SET c_path = '((0,0),(1e300,-0))' WHERE id = 1;
INSERT INTO arrays VALUES (1, '{t,f,NULL}', '{1,NULL}', '{1,2,NULL}', '{9007199254740993,NULL}', '{1}', '{1.5,NaN}', '{2.25,Infinity,NULL}', '{1.10,NULL}',
    '{1.10,NULL}', '{1.5}', '{abc}', '{v}', '{a,NULL,"c d"}', '{Ci}', '{"\\x0102",NULL}', '{2026-05-06,infinity}', '{01:02:03.456789,24:00}',
    '{11:51:30+02}', '{2026-05-06 01:02:03.5,infinity}', '{2026-05-06 01:02:03+00,-infinity}', '{1 day,-1 mon}',
    '{11111111-2222-3333-4444-555555555555}', '{"{\"a\": 1}"}', '{"{\"a\": 1}","null"}', '{<a/>}', '{10.0.0.1/8}', '{10.0.0.0/8}',
    '{08:00:2b:01:02:03}', '{"[1,5)",empty}', '{"[1.5,2.5]"}', '{"[2026-01-01 00:00+00,infinity)"}', '{"[2026-01-01,2026-02-01)"}', '{tense,calm}',
    '{5}', '{"(1,2)"}', '{"a=>1"}', '{a.b}');
INSERT INTO arrays (id) VALUES (2);
INSERT INTO arrays (id, a_text, a_i4, a_num, a_uuid) VALUES (3, '{}', '{}', '{}', '{}');
INSERT INTO arrays (id, a_text, a_i8, a_f8, a_i4, a_uuid) VALUES
    (4, '{{a,b},{c,d}}', '{{1,2},{3,4}}', '{{1.5,2},{3,4}}', '{{1,2},{3,4}}', '{{11111111-2222-3333-4444-555555555555}}');

-- What modes make different.
INSERT INTO modes VALUES (1, 1.10, 12.3400, '12.34', '2026-05-06', '01:02:03', '01:02:03.456', '01:02:03.456789', '11:51:30.123789+02', '2026-05-06 01:02:03',
    '2026-05-06 01:02:03.456', '2026-05-06 01:02:03.456789', '2026-05-06 01:02:03.456789+02', '1 year 2 mons 3 days 04:05:06.78', '\x00ff10fbef',
    'b=>1,a=>NULL,c=>"x y"', '{1.10,NULL}', '{2026-05-06}', '{2026-05-06 01:02:03.456789}', '{01:02:03.456789}', '0/16B3748', '{[1,3)}', ROW('s', 1),
    NULL);
INSERT INTO modes (id) VALUES (2);
INSERT INTO modes (id, n, d, t0, t6, tz, ts3, ts6, tstz, i, b, h) VALUES
    (3, 'NaN', 'infinity', '24:00:00', '24:00:00', '24:00:00+00', 'infinity', 'infinity', 'infinity', '-1 mon -00:00:00.000001', '', ''),
    (4, '-Infinity', '-infinity', '00:00:00', '23:59:59.999999', '00:00:00.5-15:59', '-infinity', '-infinity', '-infinity', '178000000 years', NULL, NULL),
    (5, '12345678901234567890.5', '0044-03-15 BC', NULL, NULL, NULL, '0001-01-01', '0044-03-15 12:00:00.5 BC', '0044-03-15 12:00:00.5+00 BC', '1 mon', '\xff', 'z=>1'),
    (6, '-0.001', '9999-12-31', NULL, NULL, NULL, '9999-12-31 23:59:59.999', '9999-12-31 23:59:59.999999', '9999-12-31 23:59:59.999999+00', '-00:00:01', NULL, NULL);
UPDATE modes SET i = '2 days' WHERE id = 1;
DELETE FROM modes WHERE id = 2;

-- What cannot be converted.
INSERT INTO lossy SELECT 1, 1, decode(string_agg(md5(i::text), ''), 'hex'), array_agg('2026-01-01'::date + i * 7919),
    array_agg(decode(md5(i::text), 'hex')), '{1.10,NaN,NULL}', '{101}' FROM generate_series(1, 60) i;
UPDATE lossy SET small = 2;
INSERT INTO generated VALUES (2);
UPDATE evolving SET n = 2;

-- WAIT
ALTER TYPE mood ADD VALUE 'glad';
ALTER TABLE evolving ADD COLUMN theme text DEFAULT 'dark';
INSERT INTO evolving VALUES (2, NULL, NULL, 'glad', NULL);
UPDATE users SET mood = 'glad' WHERE id = 1;
-- WAIT
ALTER TABLE evolving DROP COLUMN note;
ALTER TABLE evolving ALTER COLUMN n TYPE bigint;
UPDATE evolving SET n = 9007199254740993;
-- WAIT
TRUNCATE referrals, rewards;
