-- Run in a scratch only, by its superuser. Every new row of the migration history notes the time,
-- the rows that each table has seen, the files that hold them, and the locks of its transaction.
-- Statements that write take RowExclusiveLock even where they find no row (PostgreSQL documentation, 13.3.1).
--
-- Counts that a backend has not yet reported are added to the reported ones, so that the sum never
-- depends on when statistics were sent (PostgreSQL documentation, 27.2.2).
create schema supa_safe_rehearsal;

create table supa_safe_rehearsal.mark (
    id int generated always as identity primary key,
    version text,
    ended timestamptz not null default clock_timestamp(),
    began timestamptz not null
);
create table supa_safe_rehearsal.seen (
    mark int not null, oid oid not null, name text not null, filenode oid,
    inserted bigint not null, updated bigint not null, deleted bigint not null
);
create table supa_safe_rehearsal.lock (mark int not null, oid oid not null, mode text not null);

create function supa_safe_rehearsal.note(of_version text, statements text[] default null) returns void
language plpgsql security definer
set search_path = '' set stats_fetch_consistency = 'none' set row_security = off
as $$
declare
    this int;
    last int;
    -- What the statements may do to rows that they do not find here; a function may do anything.
    may_do_anything bool := statements is null or array_to_string(statements, E'\n')
        ~* '(^|\n|;)\s*(select|with|do|call|execute)\y';
    may_delete bool := may_do_anything or array_to_string(statements, E'\n') ~* '\y(delete|merge)\y';
    may_update bool := may_do_anything or array_to_string(statements, E'\n') ~* '\y(update|merge)\y';
begin
    last := (select max(id) from supa_safe_rehearsal.mark);
    insert into supa_safe_rehearsal.mark (version, began)
    values (of_version, pg_catalog.transaction_timestamp()) returning id into this;
    insert into supa_safe_rehearsal.seen
    select this, c.oid, pg_catalog.format('%I.%I', n.nspname, c.relname), pg_catalog.pg_relation_filenode(c.oid),
        pg_catalog.pg_stat_get_tuples_inserted(c.oid) + pg_catalog.pg_stat_get_xact_tuples_inserted(c.oid),
        pg_catalog.pg_stat_get_tuples_updated(c.oid) + pg_catalog.pg_stat_get_xact_tuples_updated(c.oid),
        pg_catalog.pg_stat_get_tuples_deleted(c.oid) + pg_catalog.pg_stat_get_xact_tuples_deleted(c.oid)
    from pg_catalog.pg_class c
    join pg_catalog.pg_namespace n on n.oid = c.relnamespace
    where c.relkind in ('r', 'm')
        and n.nspname not in ('pg_catalog', 'information_schema', 'pg_toast', 'supa_safe_rehearsal');
    insert into supa_safe_rehearsal.lock
    select distinct this, l.relation, l.mode
    from pg_catalog.pg_locks l
    where l.pid = pg_catalog.pg_backend_pid() and l.locktype = 'relation' and l.granted
        and l.mode not in ('AccessShareLock', 'RowShareLock');
    -- What goes with a row, or changes with it, is found only where there is one.
    with recursive written as (
        select s.oid,
            s.deleted > coalesce(w.deleted, 0) or (is_none and may_delete) as deletes,
            s.updated > coalesce(w.updated, 0) or (is_none and may_update) as updates
        from supa_safe_rehearsal.lock l
        join supa_safe_rehearsal.seen s on s.mark = this and s.oid = l.oid
        left join supa_safe_rehearsal.seen w on w.mark = last and w.oid = l.oid
        cross join lateral (
            select (s.inserted, s.updated, s.deleted)
                = (coalesce(w.inserted, 0), coalesce(w.updated, 0), coalesce(w.deleted, 0)) as is_none) n
        where l.mark = this and l.mode = 'RowExclusiveLock'
    ),
    reached as (
        select oid, deletes, updates from written
        union
        select k.conrelid, r.deletes and k.confdeltype = 'c', true
        from reached r
        join pg_catalog.pg_constraint k on k.contype = 'f' and k.confrelid = r.oid
        where (r.deletes and k.confdeltype in ('c', 'n', 'd')) or (r.updates and k.confupdtype in ('c', 'n', 'd'))
    )
    insert into supa_safe_rehearsal.lock
    select distinct this, r.oid, 'RowExclusiveLock' from reached r
    where not exists (
        select from supa_safe_rehearsal.lock l
        where l.mark = this and l.oid = r.oid and l.mode = 'RowExclusiveLock');
    perform pg_catalog.pg_stat_force_next_flush();
end
$$;

create function supa_safe_rehearsal.noted() returns trigger
language plpgsql security definer set search_path = ''
as $$
begin
    -- The column of the CLI, in versions of it that have one.
    perform supa_safe_rehearsal.note(new.version, (
        select array_agg(s.statement)
        from pg_catalog.jsonb_array_elements_text(nullif(pg_catalog.to_jsonb(new) -> 'statements', 'null')) s (statement)));
    return null;
end
$$;

create function supa_safe_rehearsal.watch() returns void
language plpgsql security definer set search_path = ''
as $$
begin
    create trigger supa_safe_rehearsal after insert on supabase_migrations.schema_migrations
        for each row execute function supa_safe_rehearsal.noted();
end
$$;

create function supa_safe_rehearsal.made() returns event_trigger
language plpgsql security definer set search_path = ''
as $$
begin
    if exists (
        select from pg_catalog.pg_event_trigger_ddl_commands()
        where object_identity = 'supabase_migrations.schema_migrations' and command_tag = 'CREATE TABLE'
    ) then
        perform supa_safe_rehearsal.watch();
    end if;
end
$$;

create function supa_safe_rehearsal.sequences() returns table (id oid, name text, value bigint, called boolean)
language plpgsql set search_path = ''
as $$
begin
    for id, name in
        select c.oid, pg_catalog.format('%I.%I', n.nspname, c.relname)
        from pg_catalog.pg_class c
        join pg_catalog.pg_namespace n on n.oid = c.relnamespace
        where c.relkind = 'S' and c.relpersistence <> 't' and n.nspname <> 'supa_safe_rehearsal'
    loop
        execute 'select last_value, is_called from ' || name into value, called;
        return next;
    end loop;
end
$$;
create table supa_safe_rehearsal.sequence as select * from supa_safe_rehearsal.sequences();

create view supa_safe_rehearsal.large_objects as
    select l.oid as id, l.lomowner as owner, l.lomacl as acl, pg_catalog.md5(pg_catalog.lo_get(l.oid)) as content
    from pg_catalog.pg_largeobject_metadata l;
create table supa_safe_rehearsal.large_object as select * from supa_safe_rehearsal.large_objects;

create function supa_safe_rehearsal.managed_rows() returns table (name text, id text, content jsonb)
language plpgsql set search_path = ''
as $$
begin
    for name in
        select t.name from pg_catalog.unnest(array['auth.users', 'auth.mfa_factors', 'auth.identities']) t (name)
        where pg_catalog.to_regclass(t.name) is not null
    loop
        return query execute pg_catalog.format(
            'select %L, r.content ->> ''id'', r.content from (select pg_catalog.to_jsonb(t) as content from only %s t) r
             where r.content ->> ''id'' is not null', name, name);
    end loop;
end
$$;
create table supa_safe_rehearsal.managed as select * from supa_safe_rehearsal.managed_rows();

grant usage on schema supa_safe_rehearsal to public;

do $$
begin
    if pg_catalog.to_regclass('supabase_migrations.schema_migrations') is null then
        create event trigger supa_safe_rehearsal on ddl_command_end when tag in ('CREATE TABLE')
            execute function supa_safe_rehearsal.made();
    else
        perform supa_safe_rehearsal.watch();
    end if;
end
$$;
