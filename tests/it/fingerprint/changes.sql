-- One small change per statement, and below it what it is told as; `platform:` marks a
-- difference that is reported and never a gate. The statements of a round are run
-- together, so no two of them touch the same line.

-- == Tables as such

create table fp.fresh (id integer, primary key (id));
--> column fp.fresh.id added
--> constraint fresh_pkey on fp.fresh added
--> index fp.fresh_pkey added
--> table fp.fresh added
drop table fp.hasty;
--> column fp.hasty.id removed
--> table fp.hasty removed
alter table fp.parent disable row level security;
--> table fp.parent changed: row security true -> false
alter table fp.child no force row level security;
--> table fp.child changed: force row security true -> false
alter table fp.event detach partition fp.event_2024;
--> column fp.event_2024.at changed: inheritance inherited -> none
--> column fp.event_2024.id changed: inheritance inherited -> none
--> column fp.event_2024.parent_id changed: inheritance inherited -> none
--> constraint event_2024_pkey on fp.event_2024 changed: inheritance inherited -> none
--> constraint event_parent_id_fkey on fp.event_2024 added
--> index fp.event_2024_at_idx changed: parent fp.event_at -> none
--> index fp.event_2024_pkey changed: parent fp.event_pkey -> none
--> table fp.event_2024 changed: inherits -fp.event; partition bound FOR VALUES FROM ('2024-01-01') TO ('2025-01-01') -> none
--> trigger part on fp.event_2024 removed
alter table fp.of_pair set (autovacuum_enabled = false);
--> table fp.of_pair changed: options +autovacuum_enabled=false
alter function fp.rows() owner to service_role;
--> function fp.rows() changed: acl -postgres=EXECUTE; owner postgres -> service_role
alter view fp.cheap reset (security_invoker);
--> view fp.cheap changed: options -security_invoker=true
refresh materialized view fp.empty;
--> materialized view fp.empty changed: populated false -> true
alter foreign table fp.far options (set table_name 'u');
--> foreign table fp.far changed: fdw options -table_name=t +table_name=u
alter sequence fp.counter increment 7 no cycle;
--> sequence fp.counter changed: cycle true -> false; increment 5 -> 7
alter table fp.heir no inherit fp.parent;
--> column fp.heir.amount changed: inheritance inherited -> none
--> column fp.heir.created_at changed: inheritance inherited -> none
--> column fp.heir.data changed: inheritance inherited -> none
--> column fp.heir.id changed: inheritance inherited -> none
--> column fp.heir.mood changed: inheritance inherited -> none
--> column fp.heir.note changed: inheritance inherited -> none
--> column fp.heir.number changed: inheritance inherited -> none
--> column fp.heir.price changed: inheritance inherited -> none
--> column fp.heir.tags changed: inheritance inherited -> none
--> column fp.heir.total changed: inheritance inherited -> none
--> constraint amount_check on fp.heir changed: inheritance inherited -> none
--> constraint price_check on fp.heir changed: inheritance inherited -> none
--> table fp.heir changed: inherits -fp.parent

-- == Tables as such, round 2

alter table fp.hasty set logged;
--> table fp.hasty changed: unlogged true -> false
alter table fp.parent replica identity default;
--> index fp.parent_pkey changed: replica identity true -> false
--> table fp.parent changed: replica identity index -> default
alter table fp.child replica identity nothing;
--> table fp.child changed: replica identity full -> nothing
alter table fp.of_pair not of;
--> table fp.of_pair changed: of type fp.pair -> none
revoke select on fp.event from anon;
--> table fp.event changed: acl -anon=SELECT
grant insert on fp.pointer to authenticated with grant option;
--> table fp.pointer changed: acl +authenticated=INSERT*
create or replace view fp.cheap with (security_invoker = true) as select id, price from fp.parent where price < 11 with local check option;
--> view fp.cheap changed: definition
alter sequence fp.counter owned by none;
--> sequence fp.counter changed: owned by fp.parent.number -> none
alter sequence fp.parent_id_seq cache 10;
--> sequence fp.parent_id_seq changed: cache 1 -> 10
drop materialized view fp.sums;
--> column fp.sums.mood removed
--> column fp.sums.total removed
--> index fp.sums_mood removed
--> materialized view fp.sums removed
drop foreign table fp.far;
--> column fp.far.id removed
--> column fp.far.v removed
--> foreign table fp.far removed

-- == Columns

alter table fp.parent drop column tags;
--> column fp.heir.tags removed
--> column fp.parent.tags removed
alter table fp.parent add column more text;
--> column fp.heir.more added
--> column fp.parent.more added
alter table fp.event alter column parent_id set statistics 7;
--> column fp.event.parent_id changed: statistics none -> 7
--> column fp.event_2024.parent_id changed: statistics none -> 7
--> column fp.event_rest.parent_id changed: statistics none -> 7
alter table fp.parent alter column mood set not null;
--> column fp.heir.mood changed: not null false -> true
--> column fp.parent.mood changed: not null false -> true
alter table fp.parent alter column created_at drop default;
--> column fp.heir.created_at changed: default '2024-01-01 00:00:00+00'::timestamp with time zone -> none
--> column fp.parent.created_at changed: default '2024-01-01 00:00:00+00'::timestamp with time zone -> none
alter table fp.parent alter column id set generated always;
--> column fp.parent.id changed: identity by default -> always
alter table fp.heir alter column data set storage main;
--> column fp.heir.data changed: storage external -> main
revoke update (note) on fp.parent from authenticated;
--> column fp.parent.note changed: acl -authenticated=SELECT,UPDATE +authenticated=SELECT
alter table fp.child rename column "odd ""name" to plain;
--> column fp.child."odd ""name" removed
--> column fp.child.plain added
alter table fp.hasty alter column id type bigint;
--> column fp.hasty.id changed: type integer -> bigint
alter table fp.pointer drop column id, add column id bigint;
--> column order fp.pointer changed: columns id, at -> at, id
--> constraint pointer_id_at_fkey on fp.pointer removed
alter foreign table fp.far alter column id options (set column_name 'x');
--> column fp.far.id changed: fdw options -column_name=far_id +column_name=x
alter type fp.pair rename attribute b to c cascade;
--> column fp.of_pair.b removed
--> column fp.of_pair.c added
--> column fp.pair.b removed
--> column fp.pair.c added

-- == What hangs on a table

alter table fp.parent validate constraint amount_check;
--> constraint amount_check on fp.heir changed: definition; not validated true -> false
--> constraint amount_check on fp.parent changed: definition; not validated true -> false
alter table fp.parent drop constraint no_overlap;
--> constraint no_overlap on fp.parent removed
--> index fp.no_overlap removed
alter table fp.child alter constraint child_parent_id_fkey not deferrable;
--> constraint child_parent_id_fkey on fp.child changed: definition
alter domain fp.positive drop constraint positive_check;
--> constraint positive_check on domain fp.positive removed
drop index fp.parent_lower;
--> comment index fp.parent_lower removed
--> index fp.parent_lower removed
alter index fp.parent_brin set (pages_per_range = 64);
--> index fp.parent_brin changed: definition
alter table fp.parent set without cluster;
--> index fp.parent_pkey changed: clustered true -> false
create rule loud as on insert to fp.child do also nothing;
alter table fp.child disable rule loud;
--> rule loud on fp.child added
alter table fp.parent enable trigger touch;
--> trigger touch on fp.parent changed: enabled no -> yes
drop trigger on_signup on auth.users;
--> trigger on_signup on auth.users removed
create trigger mine before delete on storage.objects for each row execute function fp.touch();
--> trigger mine on storage.objects added
alter trigger late on fp.child rename to later;
--> trigger late on fp.child removed
--> trigger later on fp.child added
alter policy reading on fp.parent to anon;
--> policy reading on fp.parent changed: roles -authenticated
alter policy writing on fp.parent with check (true);
--> policy writing on fp.parent changed: check (note IS NOT NULL) -> true
drop policy object_owner on storage.objects;
--> policy object_owner on storage.objects removed
alter statistics fp.parent_stats set statistics 100;
--> statistics fp.parent_stats changed: target 200 -> 100

-- == What hangs on a table, round 2

alter table fp.child drop constraint child_parent_id_fkey;
--> constraint child_parent_id_fkey on fp.child removed
create index on fp.child (parent_id);
--> index fp.child_parent_id_idx added
alter index fp.parent_lower alter column 1 set statistics 10;
--> index fp.parent_lower changed: statistics {"1":300} -> {"1":10}
create policy more on fp.child for delete to authenticated using (true);
--> policy more on fp.child added
create policy mine on auth.users for select to authenticated using (true);
--> policy mine on auth.users added
drop rule quiet on fp.cheap;
--> comment rule quiet on fp.cheap removed
--> rule quiet on fp.cheap removed
drop statistics fp.parent_stats;
--> statistics fp.parent_stats removed
alter table fp.event_rest disable trigger part;
--> trigger part on fp.event_rest changed: enabled yes -> no
create policy theirs on realtime.messages for select to authenticated using (true);
--> policy theirs on realtime.messages added

-- == Routines and types

create or replace function fp.rows() returns table (id bigint, price numeric) language sql stable rows 10 as 'select id, 0 from fp.parent';
--> function fp.rows() changed: definition
alter function fp.touch() security invoker;
--> function fp.touch() changed: definition; security definer true -> false
grant execute on function fp.add(integer, integer) to anon;
--> function fp.add(integer,integer) changed: acl +anon=EXECUTE
alter procedure fp.work(integer) set work_mem = '1MB';
--> procedure fp.work(integer) changed: definition
drop aggregate fp.total(integer);
--> aggregate fp.total(integer) removed
create function fp.touch(integer) returns integer language sql as 'select 1';
--> function fp.touch(integer) added
alter type fp.mood add value 'glad' after 'ok';
--> type fp.mood changed: labels +glad
alter domain fp.positive set default 2;
--> domain fp.positive changed: default 1 -> 2
alter type fp.span owner to service_role;
--> type fp.span changed: acl -postgres=USAGE +service_role=USAGE; owner postgres -> service_role
revoke usage on type fp.pair from public;
--> type fp.pair changed: acl -PUBLIC=USAGE
create type fp.other_pair as (x integer);
--> column fp.other_pair.x added
--> type fp.other_pair added
alter type fp.token set (storage = main);
--> type fp.token changed: storage x -> m

-- == Routines and types, round 2

create or replace aggregate fp.total(integer) (sfunc = fp.add, stype = integer, initcond = '1');
--> aggregate fp.total(integer) changed: initial 0 -> 1
drop procedure fp.work(integer);
--> procedure fp.work(integer) removed
alter type fp.mood rename value 'ok' to 'fine';
--> column fp.heir.mood changed: default 'ok'::fp.mood -> 'fine'::fp.mood
--> column fp.parent.mood changed: default 'ok'::fp.mood -> 'fine'::fp.mood
--> type fp.mood changed: labels -ok +fine
alter domain fp.positive add constraint small check (value < 5);
--> constraint small on domain fp.positive added

-- == What belongs to no table

create schema more;
--> schema more added
grant create on schema fp to authenticated;
--> schema fp changed: acl +authenticated=CREATE
alter schema public owner to postgres;
--> schema public changed: acl -pg_database_owner=CREATE,USAGE -postgres=USAGE +postgres=CREATE,USAGE; owner pg_database_owner -> postgres
grant create on schema auth to anon;
--> platform: schema auth changed: acl -anon=USAGE +anon=CREATE,USAGE
revoke execute on function public.citext_eq(public.citext, public.citext) from anon;
--> member privileges citext in public changed: function public.citext_eq(public.citext,public.citext)
create extension hstore with schema extensions;
--> extension hstore added
--> platform: extension version hstore added
alter publication everything set (publish = 'insert');
--> publication everything changed: pubupdate true -> false
alter publication supabase_realtime drop table fp.child;
--> publication table supabase_realtime: fp.child removed
alter publication whole_schema drop tables in schema fp;
--> platform: publication schema whole_schema: fp removed
alter event trigger watch disable;
--> platform: event trigger watch changed: enabled yes -> no
alter default privileges for role postgres in schema fp revoke select on tables from anon;
--> default privileges of postgres in fp on tables removed
alter default privileges for role postgres grant usage on types to anon;
--> default privileges of postgres on types added
select lo_unlink(424242);
--> comment large object 424242 removed
--> large object 424242 removed
select lo_create(424243);
--> platform: large object 424243 added
alter server elsewhere options (set host 'db2.example.com', drop options);
--> foreign server elsewhere changed: options -host=db.example.com -options +host=db2.example.com; sha256
alter user mapping for postgres server elsewhere options (set password 'other');
--> user mapping postgres on elsewhere changed: sha256
create user mapping for anon server elsewhere;
--> user mapping anon on elsewhere added
grant execute on function extensions.digest(text, text) to anon with grant option;
set role postgres;
grant select on auth.users to anon;
grant select (email) on auth.users to authenticated;
grant create on schema extensions to anon;
reset role;
--> given privileges by postgres on table auth.users added
--> given privileges by postgres on column auth.users.email added
--> given privileges by postgres on schema extensions changed: acl -anon=USAGE +anon=CREATE,USAGE
--> platform: table auth.users changed: acl +anon=SELECT
--> platform: column auth.users.email changed: acl +authenticated=SELECT
--> platform: schema extensions changed: acl -anon=USAGE +anon=CREATE,USAGE
--> platform: member privileges pgcrypto in extensions changed: function extensions.digest(pg_catalog.text,pg_catalog.text)
update pg_extension set extversion = '1.0' where extname = 'pg_trgm';
--> platform: extension version pg_trgm changed: version 1.6 -> 1.0
drop access method heap2 cascade;
--> access method heap2 removed
--> column fp.on_heap2.id removed
--> table fp.on_heap2 removed

-- == Roles and settings, of the server and of the database

create role fp_new login connection limit 3 valid until '2030-01-01 00:00:00+00';
--> role fp_new added
alter role anon set statement_timeout = '4s';
--> setting role anon: statement_timeout changed: value 3s -> 4s
alter role supabase_auth_admin set statement_timeout = '4s';
--> platform: setting role supabase_auth_admin: statement_timeout added
alter role supabase_storage_admin nologin;
--> platform: role supabase_storage_admin changed: login true -> false
do $$ begin execute format('alter database %I set work_mem = ''9MB''', current_database()); end $$;
--> setting database: work_mem changed: value 8MB -> 9MB
do $$ begin execute format('alter database %I set app.settings.jwt_secret = ''x''', current_database()); end $$;
--> setting database: app.settings.jwt_secret changed: sha256
do $$ begin execute format('alter role authenticated in database %I reset statement_timeout', current_database()); end $$;
--> setting role authenticated in database: statement_timeout removed
alter role authenticator set pgrst.db_schemas = 'public, fp';
--> setting role authenticator: pgrst.db_schemas added
alter role all set lock_timeout = '1min';
--> setting all roles: lock_timeout added
do $$ begin execute format('revoke create on database %I from authenticated', current_database()); end $$;
--> database current changed: acl -authenticated=CREATE
do $$ begin execute format('comment on database %I is null', current_database()); end $$;
--> comment database current removed
grant service_role to anon;
--> membership anon in service_role added
grant supabase_auth_admin to postgres;
--> platform: membership postgres in supabase_auth_admin added
grant set on parameter work_mem to anon;
--> platform: parameter privileges work_mem added
comment on role anon is 'nobody';
--> platform: comment role anon added
alter role postgres superuser;
alter event trigger watch owner to postgres;
--> comment event trigger watch added
--> event trigger watch added
--> platform: comment event trigger watch removed
--> platform: event trigger watch removed
--> platform: role postgres changed: superuser false -> true

-- == Roles and settings, of the server and of the database, round 2

create role fp_new;
grant fp_new to postgres;
alter role fp_new createdb;
--> membership postgres in fp_new added
--> role fp_new added
do $$ begin execute format('alter database %I connection limit 9', current_database()); end $$;
--> database current changed: connection limit none -> 9
do $$ begin execute format('alter database %I reset work_mem', current_database()); end $$;
--> setting database: work_mem removed
do $$ begin execute format('alter role authenticated in database %I set statement_timeout = ''10s''', current_database()); end $$;
--> setting role authenticated in database: statement_timeout changed: value 9s -> 10s
create publication other for all tables;
alter publication everything set table fp.parent (id);
--> platform: publication other added
--> publication table everything: fp.child removed
--> publication table everything: fp.heir changed: columns -note; where (id > 0) -> none
--> publication table everything: fp.parent changed: columns -note; where (id > 0) -> none
drop event trigger watch;
--> platform: comment event trigger watch removed
--> platform: event trigger watch removed
create subscription sub connection 'host=db.example.com password=hidden' publication p with (connect = false);
--> platform: subscription sub added
drop extension pg_trgm;
--> extension pg_trgm removed
--> platform: extension version pg_trgm removed
alter server elsewhere options (set options '-c app.token=other');
--> foreign server elsewhere changed: sha256
drop user mapping for postgres server elsewhere;
--> user mapping postgres on elsewhere removed
create foreign data wrapper plain handler extensions.postgres_fdw_handler options (note 'n');
--> platform: foreign data wrapper plain added
alter large object 424242 owner to service_role;
--> large object 424242 changed: acl -postgres=SELECT,UPDATE +service_role=SELECT,UPDATE; owner postgres -> service_role
alter default privileges for role supabase_admin in schema fp grant select on sequences to anon;
--> platform: default privileges of supabase_admin in fp on sequences added

-- == What few databases have

drop cast (fp.mood as integer);
--> cast (fp.mood as integer) removed
drop transform for fp.mood language sql;
--> transform for fp.mood language sql removed
alter language other rename to another;
--> platform: language another added
--> platform: language other removed
alter operator fp.=== (fp.pair, fp.pair) set (restrict = eqsel);
--> operator fp.===(fp.pair,fp.pair) changed: restrict none -> eqsel(internal,oid,internal,integer)
alter operator class fp.pair_ops using btree owner to service_role;
--> operator class fp.pair_ops using btree changed: owner supabase_admin -> service_role
alter operator family fp.pair_ops using btree add operator 2 pg_catalog.< (integer, integer);
--> operator family fp.pair_ops using btree changed: operators +2 <(integer,integer)
create access method heap3 type table handler heap_tableam_handler;
--> access method heap3 added
alter collation fp.german rename to austrian;
--> collation fp.austrian added
--> collation fp.german removed
alter conversion fp.recode owner to service_role;
--> conversion fp.recode changed: owner postgres -> service_role
alter text search configuration fp.search drop mapping for asciiword;
--> text search configuration fp.search changed: mapping -asciiword 1 fp.words -asciiword 2 english_stem
alter text search dictionary fp.words (accept = true);
--> text search dictionary fp.words changed: options accept = 'false' -> accept = 'true'
alter text search parser fp.cutter rename to knife;
--> text search parser fp.cutter removed
--> text search parser fp.knife added
drop text search template fp.plain;
--> text search template fp.plain removed

-- == Comments

comment on schema fp is 'all';
--> comment schema fp changed: text everything -> all
comment on table fp.parent is null;
--> comment table fp.parent removed
comment on column fp.parent.note is 'one';
--> comment table column fp.parent.note changed: text line one\nline\ttwo \ three -> one
comment on policy reading on fp.parent is 'mine';
--> comment policy reading on fp.parent changed: text a policy -> mine
comment on policy object_owner on storage.objects is 'new';
--> comment policy object_owner on storage.objects added
comment on trigger on_signup on auth.users is 'new';
--> comment trigger on_signup on auth.users added
comment on table auth.users is 'new';
--> platform: comment table auth.users changed: text Auth: Stores user login data within a secure schema. -> new
comment on constraint positive_check on domain fp.positive is 'new';
--> comment domain constraint positive_check on fp.positive added
comment on function fp.touch() is 'f';
--> comment function fp.touch() changed: text a function -> f
comment on publication everything is 'p';
--> comment publication everything changed: text a publication -> p
comment on operator fp.=== (fp.pair, fp.pair) is 'new';
--> comment operator fp.===(fp.pair,fp.pair) added
