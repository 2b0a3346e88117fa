-- Loads the rows that were written between the snapshot and the rollback, where they fit: what has a key that is
-- taken, refers to what is gone, or breaks a rule or a type of the table stays in its file, and the end says so.
-- Run it in this folder: psql <url> -f load.sql
\set ON_ERROR_STOP on
\encoding UTF8
set standard_conforming_strings = on;
-- As the rows were written: a text that is another one after it went through its type was cut.
set timezone = 'UTC';
set datestyle = 'ISO, MDY';
set intervalstyle = 'postgres';
set extra_float_digits = 1;
begin;
set constraints all immediate;
create temp table loaded (
    "table" text, "rows" bigint, "loaded" bigint, "the rest stays in" text, "since, for one" text
) on commit drop;

-- Brings the rows of a file, as texts in the table saved, into a table: all at once, and where some do not fit, by
-- halves, until those stand alone.
create or replace procedure pg_temp.load_saved(target text, file text, here text[], there text[])
language plpgsql as $load$
declare
    load text;
    names text;
    cast_values text;
    -- Whether a column would cut or round a value of a row.
    lossy text;
    is_cut boolean := false;
    total bigint := (select count(*) from pg_temp.saved);
    -- First and last numbers of the rows that are still to be loaded, those of the next ones at the end.
    todo bigint[] := array[1, total];
    alone bigint[];
    done bigint := 0;
    before bigint;
    low bigint;
    high bigint;
    came bigint;
    why text;
begin
    select
        string_agg(format('%I', p.there), ', ' order by p.place),
        string_agg(format('s.%I::%s', p.here, coalesce(b.name, 'text')), ', ' order by p.place),
        coalesce(string_agg(
            case
                when b.is_limited
                then format('s.%1$I::%2$s is distinct from s.%1$I::%3$s::%2$s', p.here, b.name, b.whole)
                when b.through is not null
                then format('s.%1$I::%3$s is distinct from s.%1$I::%2$s::text::%3$s', p.here, b.whole, b.through)
            end, ' or '), 'false')
    into names, cast_values, lossy
    from unnest(here, there) with ordinality p (here, there, place)
    left join pg_attribute a
        on a.attrelid = to_regclass(target) and a.attname = p.there and a.attnum > 0 and not a.attisdropped
    left join lateral (
        with recursive base (oid, is_limited) as (
            select a.atttypid, a.atttypmod >= 0
            union all
            select t.typbasetype, is_limited or t.typtypmod >= 0
            from base join pg_type t on t.oid = base.oid where t.typtype = 'd')
        select format_type(t.oid, -1) as name, format_type(a.atttypid, a.atttypmod) as whole, is_limited,
            case
                when t.oid = any ('{date, timestamp}'::regtype[]) then 'timestamptz'
                when t.oid = any ('{real, float8}'::regtype[]) then 'numeric'
            end as through
        from base join pg_type t on t.oid = base.oid where t.typtype <> 'd'
    ) b on true;
    load := format(
        'insert into %s (%s) overriding system value select %s from pg_temp.saved s
            where s.supa_safe_row between $1 and $2 and not (%s) order by s.supa_safe_row on conflict do nothing',
        target, names, cast_values, lossy);
    begin
        -- No row of this number: whether it can be done at all.
        execute load using 0, 0;
    exception when others then
        why := sqlerrm;
        todo := '{}';
    end;
    loop
        before := done;
        alone := '{}';
        while cardinality(todo) > 0 loop
            low := todo[cardinality(todo) - 1];
            high := todo[cardinality(todo)];
            todo := trim_array(todo, 2);
            begin
                execute load using low, high;
                get diagnostics came = row_count;
                done := done + came;
            exception when others then
                if low < high then
                    todo := todo || array[(low + high) / 2 + 1, high, low, (low + high) / 2];
                else
                    alone := alone || low;
                    why := coalesce(why, sqlerrm);
                end if;
            end;
        end loop;
        -- A row may refer to another one of the same file that came after it.
        exit when done = before or alone = '{}';
        why := null;
        todo := (select array_agg(n order by n desc) from unnest(alone || alone) n);
    end loop;
    begin
        execute format('select exists (select from pg_temp.saved s where %s)', lossy) into is_cut;
    exception when others then null;
    end;
    why := coalesce(why, case when is_cut then 'a type would cut or round a value' else 'their keys are taken' end);
    insert into pg_temp.loaded
    values (target, total, done, case when done < total then file end, case when done < total then why end);
end
$load$;

-- Gives a large object back to whom it belonged, where that can be.
create or replace procedure pg_temp.give_away(loid oid, owner text, file text)
language plpgsql as $give$
begin
    if owner <> current_user then
        execute format('alter large object %s owner to %I', loid, owner);
    end if;
exception when others then
    insert into pg_temp.loaded
    values (format('large object %s, owner', loid), 1, 0, file, sqlerrm);
end
$give$;
