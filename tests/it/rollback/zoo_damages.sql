-- What is done to the objects of `zoo.sql`: one damage a line.
drop schema zoo cascade
drop schema "odd ""place"".x" cascade
drop type zoo.mood cascade
drop type zoo.pair cascade
drop type zoo.span cascade
drop domain zoo.positive cascade
drop domain zoo.nice cascade
drop collation zoo.german; drop conversion zoo.recode; drop text search configuration zoo.search; drop text search dictionary zoo.words
drop sequence zoo.tickets; drop sequence zoo.hasty_tickets; drop sequence "odd ""place"".x"."Seq ü"
drop sequence zoo.fresh cascade
drop function zoo.add cascade
drop function zoo.both; drop function zoo.joined; drop function "odd ""place"".x"."weird (name), x"; drop procedure zoo.work; drop procedure zoo.store
drop function zoo.mood_number cascade
drop function zoo.same cascade
drop aggregate zoo.total(integer); drop aggregate zoo.middle(order by integer); drop aggregate zoo.rank_at(integer order by integer)
drop operator zoo.@#@ (none, zoo.mood); drop operator zoo.!== (zoo.pair, zoo.pair)
drop cast (zoo.mood as integer); drop cast (zoo.mood as varchar)
drop function zoo.is_nice cascade
drop table zoo.heir
drop table zoo.parent cascade
drop table zoo.child cascade
drop table zoo.ring_a cascade
drop table zoo.tree cascade
drop table zoo.of_pair; drop table zoo.empty_row; drop table zoo.hasty
drop table zoo.event cascade
drop table zoo.event_2024 cascade
drop table zoo.event_2024_a cascade
delete from zoo.pointer; alter table zoo.event detach partition zoo.event_2024
alter table zoo.event_2024 detach partition zoo.event_2024_rest
drop table zoo.hashed_1
drop view zoo.cheap cascade
drop view zoo.grouped cascade
drop view zoo.ways
drop materialized view zoo.sums cascade
drop materialized view zoo.empty; drop materialized view zoo.sums_of_sums
drop rule quiet on zoo.cheap; drop rule "also, (odd)" on zoo.of_pair
drop function zoo.touch cascade
drop trigger touch on zoo.parent; drop trigger "seen, (odd)" on zoo.parent; drop trigger late on zoo.child; drop trigger emptied on zoo.child
drop trigger part on zoo.event; drop trigger instead_of on zoo.cheaper
drop policy reading on zoo.parent; drop policy "writing on x" on zoo.parent; drop policy nested on zoo.child; drop policy zoo_objects on storage.objects
drop trigger zoo_signup on auth.users
drop publication "Odd pub"; drop publication partitions
drop server "Else where" cascade
drop foreign table zoo.far
drop user mapping for postgres server "Else where"; drop user mapping for public server "Else where"
drop table zoo."select" cascade; drop function zoo."end"
drop table "odd ""place"".x"."Tâble, with (all).x" cascade
drop statistics zoo.parent_stats; drop statistics zoo.expression_stats
drop index zoo.parent_lower, zoo.parent_brin, zoo."Index, (odd)", zoo.parent_nice, zoo.event_at, zoo.only_here, "odd ""place"".x"."I on x.y"
alter table zoo.parent drop constraint note_unique cascade; alter table zoo.parent drop constraint no_overlap; alter table zoo.parent drop constraint price_check; alter table zoo.parent drop constraint amount_check; alter table zoo.parent drop constraint own_check
alter table zoo.parent drop constraint parent_pkey cascade
alter table zoo.child drop constraint "fk (odd)"; alter table zoo.child drop constraint to_note; alter table zoo.child drop constraint to_more; alter table zoo.pointer drop constraint pointer_id_at_kind_fkey; alter table zoo.event drop constraint event_parent_id_fkey
alter table zoo.event drop constraint event_pkey cascade
alter table "odd ""place"".x"."Tâble, with (all).x" drop constraint "Prim.key" cascade
alter type zoo.mood add value 'new' before 'sad'
alter type zoo.mood rename value 'sad' to 'bad'
alter type zoo.pair add attribute c integer cascade
alter type zoo.pair rename attribute b to bee cascade
alter type zoo.mood rename to humor
alter domain zoo.positive set default 2; alter domain zoo.small drop not null; alter domain zoo.small drop constraint "small (check), x"; alter domain zoo.nice add check (value <> 'z')
alter collation zoo.german rename to austrian; alter conversion zoo.recode rename to coded; alter text search dictionary zoo.words (accept = true); alter text search configuration zoo.search drop mapping for asciiword
alter text search configuration zoo.search add mapping for tag with simple
alter sequence zoo.tickets as bigint increment 1 no cycle cache 1 no maxvalue; alter sequence zoo.fresh owned by none; alter sequence zoo.hasty_tickets set logged
alter sequence zoo.tickets rename to coupons
alter sequence zoo.parent_id_seq increment 7
create or replace function zoo.add(a integer, b integer default 3) returns integer language sql immutable strict parallel safe return a * b
alter function zoo.add(integer, integer) volatile cost 77; alter function zoo.touch() security invoker reset search_path; alter procedure zoo.work(integer) security definer; alter function zoo.joined(text, text[]) rename to glued
create or replace function zoo.both(n integer) returns table (x integer, y integer) language sql stable rows 7 cost 3 begin atomic select n, n + 5; end
create or replace procedure zoo.store(words text) language sql begin atomic delete from zoo.child; end
alter aggregate zoo.total(integer) rename to totals; alter aggregate zoo.middle(order by integer) set schema "odd ""place"".x"
alter operator zoo.=== (zoo.pair, zoo.pair) set (restrict = none, join = none)
alter table zoo.hasty alter column id type bigint
alter table zoo.parent drop column tags
alter table zoo.parent add column more text default 'x'
alter table zoo.parent rename column note to remark
alter table zoo.parent alter column id drop identity
alter table zoo.parent alter column id set generated always; alter table zoo.parent alter column id set start 50 set increment 3 restart
alter table zoo.parent alter column total drop expression
alter table zoo.parent alter column note set statistics -1, alter column data set storage plain, alter column note reset (n_distinct), alter column tags set compression default
alter table zoo.parent set (fillfactor = 50); alter table zoo.parent reset (toast.autovacuum_enabled); alter table zoo.parent replica identity default; alter table zoo.parent set without cluster
alter table zoo.child replica identity default; alter table zoo.child no force row level security; alter table zoo.parent disable row level security
alter table zoo.heir no inherit zoo.parent
alter table zoo.heir alter column price set default 2
alter table zoo.hasty set logged
alter table zoo.of_pair not of
alter table zoo.parent alter column created_at drop default, alter column price drop not null, alter column note set not null
alter table zoo.parent validate constraint amount_check; alter table zoo.child validate constraint to_more
alter table zoo.parent rename constraint price_check to cost_check
alter table zoo.child alter constraint "fk (odd)" not deferrable
alter table zoo.parent set schema "odd ""place"".x"
alter table zoo.parent rename to ancestor
alter table zoo.event rename to happening; alter table zoo.event_2024_a rename to event_a
create table zoo.event_2025 partition of zoo.event for values from ('2035-01-01') to ('2035-02-01')
alter table zoo.event add column more integer default 3
alter table zoo.event alter column body type text
alter view zoo.cheap alter column price drop default; alter view zoo.cheap set (security_invoker = false); alter view zoo.cheaper reset (security_barrier)
create or replace view zoo.grouped as select id, note, count(*) + 1 as n from zoo.parent group by id
create or replace recursive view zoo.ways (id, depth) as select id, 5 from zoo.tree where up is null union all select t.id, w.depth + 1 from zoo.tree t join ways w on t.up = w.id
alter view zoo.cheap rename column note to remark; alter view zoo.grouped rename to collected
alter materialized view zoo.sums rename column total to sum; alter materialized view zoo.sums set (fillfactor = 90)
refresh materialized view zoo.empty; refresh materialized view zoo.sums with no data
alter table zoo.of_pair enable rule "also, (odd)"; create or replace rule quiet as on delete to zoo.cheap do instead select 1
alter index zoo.parent_lower alter column 1 set statistics 10; alter index zoo.parent_brin set (pages_per_range = 8); alter index zoo."Index, (odd)" rename to tame
alter statistics zoo.parent_stats set statistics 5; alter statistics zoo.expression_stats rename to other_stats
alter table zoo.parent enable trigger touch; alter table zoo.child enable trigger emptied; alter table zoo.event_2024_a enable trigger part; alter table zoo.event disable trigger part
alter trigger touch on zoo.parent rename to touched; alter trigger part on zoo.event rename to parted
alter policy reading on zoo.parent to public using (true); alter policy "writing on x" on zoo.parent rename to tame; alter policy zoo_objects on storage.objects using (true)
alter publication "Odd pub" set table zoo.parent where (id > 5), zoo.ring_b; alter publication "Odd pub" set (publish = 'delete')
alter publication partitions rename to parts; alter publication supabase_realtime drop table zoo.tree
alter server "Else where" options (set host 'evil.example.com'); alter foreign table zoo.far options (set table_name 'u'); alter foreign table zoo.far alter column id options (drop column_name)
alter server "Else where" rename to elsewhere
alter foreign table zoo.far add column w integer; alter foreign table zoo.far alter column id drop not null
grant all on all tables in schema zoo to anon with grant option; grant all on all sequences in schema zoo to anon; grant all on all routines in schema zoo to anon
revoke all on all tables in schema zoo from anon, authenticated, service_role; revoke all on all sequences in schema zoo from authenticated; revoke all on all routines in schema zoo from public, anon, authenticated, service_role
revoke all on schema zoo, "odd ""place"".x" from anon, authenticated; grant create on schema zoo to anon
grant usage on type zoo.mood to public; revoke usage on type zoo.pair, zoo.span, "odd ""place"".x"."Odd.Type" from public; grant usage on domain zoo.small to anon with grant option
revoke all on foreign server "Else where" from authenticated; grant usage on foreign server "Else where" to anon; revoke select (id, note), update (note) on zoo.parent from authenticated; grant update (price) on zoo.parent to anon
alter default privileges in schema zoo revoke all on tables from anon; alter default privileges in schema zoo grant all on sequences to anon; alter default privileges in schema "odd ""place"".x" grant select on tables to anon; alter default privileges revoke usage on types from public; alter default privileges grant all on schemas to anon
comment on type zoo.mood is null; comment on domain zoo.positive is 'x'; comment on constraint "small (check), x" on domain zoo.small is null; comment on collation zoo.german is 'x'; comment on conversion zoo.recode is null; comment on text search dictionary zoo.words is 'x'; comment on text search configuration zoo.search is null; comment on type zoo.pair is 'x'; comment on column zoo.pair.a is 'x'
comment on aggregate zoo.total(integer) is 'x'; comment on aggregate zoo.middle(order by integer) is null; comment on operator zoo.=== (zoo.pair, zoo.pair) is null; comment on operator zoo.@#@ (none, zoo.mood) is 'x'; comment on cast (zoo.mood as integer) is null; comment on cast (zoo.mood as varchar) is 'new'; comment on function zoo.add(integer, integer) is 'x'; comment on procedure zoo.work(integer) is null; comment on aggregate zoo.rank_at(integer order by integer) is 'x'
comment on statistics zoo.parent_stats is 'x'; comment on rule quiet on zoo.cheap is null; comment on trigger touch on zoo.parent is 'x'; comment on policy reading on zoo.parent is null; comment on index zoo.parent_lower is 'x'; comment on constraint price_check on zoo.parent is null; comment on materialized view zoo.sums is 'x'; comment on column zoo.sums.total is null; comment on column zoo.cheap.price is 'x'; comment on server "Else where" is null; comment on column zoo.far.id is 'x'; comment on foreign table zoo.far is null; comment on publication "Odd pub" is 'x'; comment on trigger part on zoo.event is null
comment on column "odd ""place"".x"."Tâble, with (all).x"."a.b ""c"" d" is null; comment on constraint "Prim.key" on "odd ""place"".x"."Tâble, with (all).x" is 'x'; comment on policy "policy on x.y" on "odd ""place"".x"."Tâble, with (all).x" is 'x'; comment on index "odd ""place"".x"."I on x.y" is 'new'; comment on type "odd ""place"".x"."Odd.Type" is 'new'
comment on publication supabase_realtime is 'x'; comment on schema public is 'mine'; comment on trigger zoo_signup on auth.users is 'x'; comment on policy zoo_objects on storage.objects is 'x'
create type zoo.added as enum ('a'); create table zoo.t_added (a zoo.added, p zoo.parent); create function zoo.f_added(zoo.t_added) returns zoo.added language sql as 'select $1.a'; create view zoo.v_added as select zoo.f_added(t) from zoo.t_added t; create operator zoo.@@@ (function = zoo.same, leftarg = zoo.pair, rightarg = zoo.pair); create aggregate zoo.agg_added(integer) (sfunc = zoo.add, stype = integer); create cast (zoo.added as zoo.mood) with inout; create collation zoo.c_added from "C"; create text search configuration zoo.s_added (copy = simple); create statistics zoo.st_added on price, note from zoo.parent; create conversion zoo.cv_added for 'LATIN1' to 'UTF8' from iso8859_1_to_utf8
create server added foreign data wrapper postgres_fdw; create user mapping for anon server added; create foreign table zoo.ft_added (a int) server added; create publication p_added for table zoo.tree; create materialized view zoo.m_added as select * from zoo.sums; create rule r_added as on update to zoo.tree do also notify x; create trigger t_added after delete on zoo.tree for each row execute function zoo.touch(); create policy p_added on zoo.tree using (true); create index i_added on zoo.event (parent_id); create domain zoo.d_added as zoo.mood; create sequence zoo.sq_added owned by zoo.tree.id; create table zoo.h_added () inherits (zoo.heir); create type zoo.c_added as (a zoo.parent, b zoo.span)
alter table zoo.event alter body set not null, alter body set default '{}'
create or replace view zoo.lines as select string_agg(note, E'\n' order by id) as notes from zoo.parent
