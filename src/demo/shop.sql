-- The rows of the sample shop: about 50,000, in the user's tables and in those
-- of Auth and Storage, the same in every run.
--
-- Run as role postgres, in a database made by hosted/platform.sql, after the
-- migrations named in applied.txt were pushed. Plain SQL and one transaction,
-- so psql runs it as well as a single simple query.
--
-- Nothing is random and nothing reads the clock, except the stand-ins of Vault
-- and Cron at the end, as the real ones would.

begin;

set local timezone = 'UTC';
set local search_path = '';
-- The zoo has an empty text-search query, which is worth a notice each time.
set local client_min_messages = warning;

-- A number below `below` that depends on `of` alone. The hash functions of
-- PostgreSQL may change from major to major, md5 does not.
create function pg_temp.pick(below integer, variadic parts text[]) returns integer
    language sql immutable
    as $$
    select ('x' || substr(md5(array_to_string(parts, '/')), 1, 7))::bit(28)::integer % below
    $$;
create function pg_temp.id(variadic parts text[]) returns uuid
    language sql immutable
    as $$ select md5(array_to_string(parts, '/'))::uuid $$;
-- An instant of the first half of 2026.
create function pg_temp.instant(variadic parts text[]) returns timestamptz
    language sql immutable
    as $$
    select timestamptz '2026-01-12 00:00:00+00'
         + pg_temp.pick(12000000, variadic parts || 'instant'::text) * interval '1 second'
    $$;

--
-- Auth
--

-- 500 accounts, of every kind that Auth knows. The trigger of the shop gives
-- each of them a profile.
insert into auth.users (
    instance_id, id, aud, role, email, encrypted_password, email_confirmed_at, confirmation_token,
    recovery_token, email_change_token_new, email_change, last_sign_in_at, raw_app_meta_data,
    raw_user_meta_data, is_super_admin, created_at, updated_at, phone, phone_confirmed_at,
    banned_until, is_sso_user, deleted_at, is_anonymous
)
select '00000000-0000-0000-0000-000000000000',
       pg_temp.id('user', n::text),
       'authenticated', 'authenticated',
       case when n % 50 <> 0 then 'customer' || n || '@example.com' end,
       case when n % 25 <> 0 then '$2a$10$' || rpad(md5('password' || n), 53, '.') end,
       case when n % 10 <> 3 and n % 50 <> 0 then pg_temp.instant('user', n::text) + interval '3 minutes' end,
       case when n % 10 = 3 then md5('confirm' || n) else '' end,
       '', '', '',
       case when n % 7 <> 0 then pg_temp.instant('signed in', n::text) end,
       jsonb_build_object('provider', 'email', 'providers', array['email']),
       case when n % 50 = 0 then '{}' else jsonb_build_object('name', (array[
           'Ada Lovelace', 'José Peña', 'Zoë Müller', 'Ольга Смирнова', '李雷', 'محمد علي', 'O''Brien',
           'back\slash', E'tab\tand\nline', E'\U0001F469\u200D\U0001F680 A\u030A strøm', '', '\.', 'NULL'
       ])[1 + n % 13]) end,
       null, pg_temp.instant('user', n::text), pg_temp.instant('user', n::text),
       case when n % 20 = 0 then '4915' || lpad(n::text, 8, '0') end,
       case when n % 40 = 0 then pg_temp.instant('phone', n::text) end,
       case n when 13 then 'infinity'::timestamptz when 14 then '2026-07-01 00:00:00+00' end,
       n % 100 = 99, case n when 77 then timestamptz '2026-06-30 23:59:59.999999+00' end,
       n % 50 = 0
  from generate_series(1, 500) as n;

insert into auth.identities (
    provider_id, user_id, identity_data, provider, last_sign_in_at, created_at, updated_at, id
)
select id::text, id,
       jsonb_build_object('sub', id, 'email', initcap(email), 'email_verified', confirmed_at is not null),
       'email', last_sign_in_at, created_at, updated_at, pg_temp.id('identity', id::text)
  from auth.users where not is_anonymous;

insert into auth.sessions (id, user_id, created_at, updated_at, aal, refreshed_at, user_agent, ip)
select pg_temp.id('session', id::text), id, last_sign_in_at, last_sign_in_at, 'aal1',
       last_sign_in_at at time zone 'UTC', 'Mozilla/5.0', '192.0.2.7'
  from auth.users where last_sign_in_at > '2026-05-01 00:00:00+00';

insert into auth.refresh_tokens (
    instance_id, token, user_id, revoked, created_at, updated_at, parent, session_id
)
select '00000000-0000-0000-0000-000000000000', substr(md5('token' || id), 1, 12), user_id::text, false,
       created_at, updated_at, null, id
  from auth.sessions order by id;

insert into auth.mfa_factors (
    id, user_id, friendly_name, factor_type, status, created_at, updated_at, secret
)
select pg_temp.id('factor', id::text), id, 'phone app', 'totp', 'verified', created_at, updated_at,
       upper(md5('totp' || id))
  from auth.users where pg_temp.pick(20, id::text) = 0;

insert into auth.one_time_tokens (
    id, user_id, token_type, token_hash, relates_to, created_at, updated_at
)
select pg_temp.id('one time', id::text), id, 'confirmation_token', confirmation_token, email,
       created_at at time zone 'UTC', created_at at time zone 'UTC'
  from auth.users where confirmation_token <> '';

insert into auth.audit_log_entries (instance_id, id, payload, created_at, ip_address)
select '00000000-0000-0000-0000-000000000000', pg_temp.id('audit', id::text),
       json_build_object('action', 'user_signedup', 'actor_id', id, 'log_type', 'team'), created_at, ''
  from auth.users;

--
-- Catalog
--

insert into public.categories (parent_id, slug, name)
values (null, 'books', 'Books'), (null, 'kitchen', 'Kitchen & table'), (null, 'textile', 'Clothes'),
       (null, 'toys', 'Toys'), (1, 'novels', 'Novels'), (1, 'maps', 'Maps'), (2, 'cups', 'Cups'),
       (2, 'knives', 'Knives <sharp>'), (3, 'shirts', 'Shirts'), (3, 'größen', 'Übergrößen'),
       (4, 'puzzles', 'Puzzles'), (11, '1000', '1000 "pieces"');

insert into public.products (
    sku, category_id, title, description, net_cents, vat_percent, tags, attributes, stock, available,
    updated_at
)
select (array['BOK', 'KIT', 'TEX', 'TOY'])[1 + n % 4] || '-' || lpad(n::text, 5, '0'),
       1 + pg_temp.pick(12, 'category', n::text),
       (array['Atlas', 'Cup', 'Shirt', 'Puzzle', 'Knife', 'Novel', 'Größe', '茶碗'])[1 + n % 8] || ' ' || n,
       case when n % 11 = 0 then null when n % 13 = 0 then '' else
           repeat('Fine quality, made to last. ', 1 + pg_temp.pick(6, 'description', n::text)) end,
       100 + pg_temp.pick(20000, 'price', n::text),
       case when n % 4 = 0 then 7.00 else 19.00 end,
       (array['new', 'sale', 'gift', 'eco', 'a,b', '"quoted"', ''])[1:pg_temp.pick(8, 'tags', n::text)],
       case when n % 9 = 0 then '{}' else jsonb_build_object(
           'weight_g', pg_temp.pick(5000, 'weight', n::text), 'color', null,
           'sizes', case when n % 4 = 2 then '["S", "M", "L"]'::jsonb end) end,
       pg_temp.pick(200, 'stock', n::text),
       case when n % 37 = 0 then daterange('2026-01-01', '2026-02-01') else daterange(null, null) end,
       pg_temp.instant('product', n::text)
  from generate_series(1, 600) as n;

insert into public.promotions (name, percent_off, runs)
values ('Winter', 20, '[2026-01-12,2026-02-01)'), ('Spring', 12.5, '[2026-03-20,2026-04-03)'),
       ('Summer, and no end', 5, '[2026-06-21,)');

--
-- Customers and orders
--

alter table public.profiles disable trigger profiles_touch;
update public.profiles
   set home = case when pg_temp.pick(5, 'home', id::text) > 0 then row(
           'Main Street ' || pg_temp.pick(200, 'house', id::text),
           lpad(pg_temp.pick(100000, 'postcode', id::text)::text, 5, '0'),
           (array['Berlin', 'São Paulo', 'Kraków', '東京', 'St. John''s, NL'])[1 + pg_temp.pick(5, id::text)],
           (array['DE', 'BR', 'PL', 'JP', 'CA'])[1 + pg_temp.pick(5, id::text)])::public.postal_address end,
       locale = (array['en', 'de', 'pt-BR', 'pl', 'ja'])[1 + pg_temp.pick(5, id::text)],
       newsletter = pg_temp.pick(3, 'newsletter', id::text) = 0;
alter table public.profiles enable trigger profiles_touch;

insert into public.orders (customer_id, status, placed_at, ship_to, note)
select p.id, s.status, case when s.status <> 'cart' then s.placed_at end, p.home,
       case n % 17 when 0 then '' when 1 then E'Please ring twice\nat the back door' when 2 then '🎁' end
  from generate_series(1, 6000) as n
 cross join lateral (
       select (array['cart', 'placed', 'paid', 'shipped', 'delivered', 'delivered', 'delivered', 'returned',
                     'canceled'])[1 + pg_temp.pick(9, 'status', n::text)]::public.order_status as status,
              pg_temp.instant('order', n::text) as placed_at) as s
  join public.profiles as p on p.id = pg_temp.id('user', (1 + pg_temp.pick(480, 'customer', n::text))::text)
 order by n;

-- One to four lines for each order; the trigger of the shop sums them up.
insert into public.order_items (order_id, line, product_id, quantity, unit_cents)
select o.id, line, p.id, 1 + pg_temp.pick(3, 'quantity', o.id::text, line::text), p.gross_cents
  from public.orders as o
 cross join generate_series(1, 4) as line
  join public.products as p on p.id = 1 + pg_temp.pick(600, 'product', o.id::text, line::text)
 where line <= 1 + pg_temp.pick(4, 'lines', o.id::text)
 order by o.id, line;

insert into public.payments (id, order_id, provider, reference, cents, paid_at, answer)
select pg_temp.id('payment', id::text), id,
       (array['card', 'paypal', 'invoice'])[1 + pg_temp.pick(3, 'by', id::text)],
       'R' || lpad(id::text, 8, '0'), total_cents, placed_at + interval '90 seconds',
       jsonb_build_object('ok', true, 'trace', md5('trace' || id))
  from public.orders
 where status in ('paid', 'shipped', 'delivered');

--
-- Events, reports, archive
--

insert into analytics.events (happened_at, kind, customer_id, product_id, details)
select pg_temp.instant('event', n::text),
       (array['view', 'view', 'view', 'search', 'cart', 'exit'])[1 + pg_temp.pick(6, 'kind', n::text)],
       case when n % 3 > 0 then pg_temp.id('user', (1 + pg_temp.pick(500, 'visitor', n::text))::text) end,
       case when n % 6 > 0 then 1 + pg_temp.pick(600, 'seen', n::text) end,
       case n % 5 when 0 then null when 1 then '{}' else jsonb_build_object(
           'ms', pg_temp.pick(9000, 'ms', n::text), 'from', 'https://example.com/?q=a%20b&n=' || n) end
  from generate_series(1, 20000) as n;

refresh materialized view analytics.daily_sales;

insert into public."Gift Cards" ("Code ""x""", "select", "größe")
select 'GIFT "' || n || '"', n * 500, case n % 3 when 0 then null when 1 then '' else 'groß' end
  from generate_series(1, 40) as n;

-- Rows that are equal in all columns: a sum of hashes has to count each of them.
insert into public.legacy_import (line, source)
select 'line ' || n % 7, case when n % 2 = 0 then 'till' end from generate_series(1, 300) as n;

insert into public.sessions_cache (key, value) values ('gone after a crash', '{"unlogged": true}');
insert into public.notes (body) select 'note ' || n from generate_series(1, 20) as n;
insert into public.internal_notes (body) select 'internal ' || n from generate_series(1, 10) as n;
select setval('public.invoice_number', 987654);

-- Twelve papers as large objects, one of them empty and one over two pages long.
select lo_from_bytea(loid, content)
  from (select 900000 + n as loid, case n when 0 then ''::bytea else convert_to(
                   repeat('Invoice ' || n || ', page ' || n || E'.\n', n * n * 20), 'UTF8') end as content
          from generate_series(0, 11) as n) as paper;
insert into public.documents (order_id, title, content, sha256)
select nullif(999 + n, 999), 'Invoice ' || n, 900000 + n, sha256(lo_get(900000 + n))
  from generate_series(0, 11) as n;
grant select on large object 900001 to service_role;
comment on large object 900002 is 'Signed copy';

--
-- The value zoo: extremes first, then what is empty, then NULL throughout
--

insert into public.value_zoo
values (
    1, E'quote '' double " back\\slash\ttab\nline\rreturn \\. \\N', 'pad', 'Ω≈ç√∫˜µ≤', -32768,
    -9223372036854775808, 'NaN', -99999999.9999, '-Infinity', 'NaN', '-92233720368547758.08'::numeric, true,
    '\x00ff5c00', B'1010101010101010', '4713-01-01 BC', '24:00:00', '23:59:59.999999+14:59',
    '4713-01-01 00:00:00 BC', '-infinity', '-178000000 years -11 mons -1 day -00:00:00.000001',
    '::ffff:192.0.2.1/128', '0.0.0.0/0', 'ff:ff:ff:ff:ff:ff', '00000000-0000-0000-0000-000000000000',
    '{"b": 1, "a":  2, "b": 3}', '{"b": 1, "a": 2, "b": 3}', '<a b="c">&amp;<!-- x --></a>',
    '''it''''s'':1A quoted:2B', '!''a b'' & (c | d:*)', '(1e300,-1e-300)', '((0,0),(0,1),(1,0))',
    '[-1:1]={-2147483648,NULL,2147483647}', '{{a,"b,c"},{"NULL",""}}', '(,5)', '{(,2026-01-01),[2026-02-01,)}',
    '[0.00,100]', row('', null, '"', 'DE')::public.postal_address,
    array[row('a,b', '(c)', E'\\', null)::public.postal_address, null], 'it''s "great"', 'ABC-00001',
    'FFFFFFFF/FFFFFFFF', '$.a[*] ? (@ > 1.5)', 'not the row'
), (
    2, E'\U0001F469\u200D\U0001F680 é e\u0301 \u202Ertl', 'äöü', '  spaces  ', 32767, 9223372036854775807, 'Infinity',
    99999999.9999, 1.17549435e-38, 4.9e-324, '92233720368547758.07'::numeric, false,
    decode(repeat('00', 3000), 'hex'), B'0', '5874897-12-31', '00:00:00', '00:00:00-15:59',
    '294276-12-31 23:59:59.999999', 'infinity', '178000000 years 11 mons 31 days 24:00:00.000001', '::1',
    '2001:db8::/32', '00:00:00:00:00:00', 'ffffffff-ffff-ffff-ffff-ffffffffffff', '"\u00e9 \ud83d\ude00"',
    '[1.0, 1, 1e2, -0, 12345678901234567890.123, "\u00e9", {"": null}]', '<?xml version="1.0"?><root/>',
    'a:1,2,16383', 'a <2> b', '(-0,0)', '((1,1),(2,2))', '{}', '{}', 'empty', '{}', 'empty', null, '{}', '😀',
    'XYZ-99999', '0/0', 'strict $.**."a b"', ''
), (
    3, '', '', '', 0, 0, '-Infinity', 0, '-0', '-0', 0::numeric, null, '', B'', 'infinity', '12:34:56.789', '12:00+00',
    'infinity', '2026-03-29 01:30:00+00', '0', '192.0.2.1/24', '192.0.2.0/24', '08:00:2b:01:02:03',
    'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', 'null', 'null', '', '', '', '(0,0)', '((0,0))', '{NULL}', '{NULL}',
    '[2147483646,2147483647)', '{[2026-01-01,2026-01-02)}', '(,)', row(null, null, null, null), null, '',
    null, null, null, null
), (
    4, repeat('long text, out of line: ', 20000), null, null, 1, 1, repeat('9', 2000)::numeric, 0.0001, 3.4028235e38,
    1.7976931348623157e308, 1.5::numeric, true, decode(repeat('0123456789abcdef', 4000), 'hex'), null, '0001-01-01',
    null, null, null, '2026-10-25 00:30:00.123456+00', '1 mon -1 day', null, null, null, null, null,
    '{"deep": [[[[[[[[[[1]]]]]]]]]]}', null, null, null, null, null, '{{1,2},{3,4}}', null, null, null, null, null,
    null, 'sad', null, null, null, null
);
insert into public.value_zoo (id) values (5);
insert into public.value_zoo (id, exact, big_number, single, wide, moment, uid, tight)
select n, (pg_temp.pick(1000000, 'zoo', n::text) - 500000) / 7.0, n::bigint * 1000003, n / 3.0::real,
       n / 7.0::double precision, pg_temp.instant('zoo', n::text), pg_temp.id('zoo', n::text),
       jsonb_build_object('n', n, 'third', n / 3.0)
  from generate_series(100, 399) as n;

--
-- Storage
--

-- Rows of objects whose bytes can be made again from them: the content of an
-- object is 'object ' || bucket || '/' || name and a line feed, repeated
-- `1 + n % 40` times; user_metadata holds that number as `repeat`. ETag and size
-- are those of this content.
insert into storage.objects (
    id, bucket_id, name, owner, owner_id, created_at, updated_at, last_accessed_at,
    metadata, version, user_metadata
)
select pg_temp.id('object', bucket, name), bucket, name, owner::uuid, owner, made, made, made,
       jsonb_build_object(
           'eTag', '"' || md5(content) || '"', 'size', octet_length(content), 'mimetype', mimetype,
           'cacheControl', 'max-age=3600', 'httpStatusCode', 200, 'contentLength', octet_length(content),
           'lastModified', to_char(made, 'YYYY-MM-DD"T"HH24:MI:SS".000Z"')),
       pg_temp.id('version', bucket, name)::text, jsonb_build_object('repeat', 1 + n % 40)
  from (select n, 'avatars' as bucket, pg_temp.id('user', n::text)::text || '/avatar.png' as name,
               pg_temp.id('user', n::text)::text as owner, 'image/png' as mimetype
          from generate_series(1, 400) as n
        union all
        select n, 'invoices', format('2026/%s/invoice %s (copy).pdf', lpad((1 + n % 6)::text, 2, '0'), n),
               pg_temp.id('user', (1 + n % 480)::text)::text, 'application/pdf'
          from generate_series(1, 250) as n) as object
 cross join lateral (
       select repeat('object ' || bucket || '/' || name || chr(10), 1 + n % 40) as content,
              pg_temp.instant('object', bucket, n::text) as made) as stored;

--
-- Vault and Cron, where this database has them
--

do $$
begin
    if to_regclass('vault.secrets') is not null then
        perform vault.create_secret('made-up-signing-key', 'payment_webhook', 'Checks what the provider sends');
        perform vault.create_secret('made-up-token', 'mail_api');
    end if;
    if to_regclass('cron.job') is not null then
        perform cron.schedule('refresh-daily-sales', '15 3 * * *', 'refresh materialized view analytics.daily_sales');
        perform cron.schedule('drop-stale-carts', '@daily', 'call public.drop_stale_carts()');
        -- The scheduler alone may draw from the sequence of these numbers.
        insert into cron.job_run_details (
            jobid, runid, job_pid, database, username, command, status, start_time, end_time
        )
        select jobid, 1, 4711, database, username, command, 'succeeded',
               '2026-06-01 03:15:00+00', '2026-06-01 03:15:01+00'
          from cron.job where jobname = 'refresh-daily-sales';
    end if;
end
$$;

drop function pg_temp.instant, pg_temp.id, pg_temp.pick;

commit;
