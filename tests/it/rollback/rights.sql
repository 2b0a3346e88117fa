-- What a role can really do: each thing is tried, and taken back. Run after `set role`, with these made before it:
-- a table `answers`, and functions `pg_temp.attempt` and `pg_temp.reading`.
do $$
declare
    thing record;
    role text := current_user;
begin
    for thing in
        select format('%I.%I', n.nspname, c.relname) as name,
            -- How many statements the server saw, nobody brings back.
            case when c.relname ~ '^pg_stat_' then ' where false' else '' end as which,
            (select string_agg(format('%1$I = %1$I', a.attname), ', ') from pg_catalog.pg_attribute a
                where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped and a.attgenerated = '' and a.attidentity <> 'a') as sets,
            (select array_agg(quote_ident(a.attname) order by a.attnum) from pg_catalog.pg_attribute a
                where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped) as columns
        from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
        where c.relkind in ('r', 'p', 'v', 'm', 'f') and n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
    loop
        perform pg_temp.attempt('select ' || thing.name, 'select from ' || thing.name || thing.which);
        perform pg_temp.reading('read ' || thing.name, 'select * from ' || thing.name || thing.which);
        perform pg_temp.attempt('delete ' || thing.name, 'delete from ' || thing.name);
        perform pg_temp.attempt('truncate ' || thing.name, 'truncate ' || thing.name);
        perform pg_temp.attempt('insert ' || thing.name, 'insert into ' || thing.name || ' default values');
        perform pg_temp.attempt('insert none ' || thing.name, format('insert into %s (%s) select null where false', thing.name, thing.columns[1]));
        perform pg_temp.attempt('update ' || thing.name, format('update %s set %s', thing.name, thing.sets));
        perform pg_temp.reading(format('select %s of %s', c, thing.name), format('select %s from %s', c, thing.name) || thing.which),
            pg_temp.attempt(format('update %s of %s', c, thing.name), format('update %s set %s = null where false', thing.name, c))
            from unnest(thing.columns) c;
    end loop;
    perform pg_temp.attempt('nextval ' || s.seqrelid::pg_catalog.regclass, format('select nextval(%s)', s.seqrelid)),
        pg_temp.attempt('last_value ' || s.seqrelid::pg_catalog.regclass, format('select last_value from %s', s.seqrelid::pg_catalog.regclass)),
        pg_temp.attempt('setval ' || s.seqrelid::pg_catalog.regclass, format('select setval(%s, null)', s.seqrelid))
        from pg_catalog.pg_sequence s;
    -- What functions of extensions answer may be random.
    perform case when f.prokind = 'p' or exists (select from pg_catalog.pg_depend d
                where (d.classid, d.objid, d.deptype) = ('pg_catalog.pg_proc'::pg_catalog.regclass, f.oid, 'e'))
            then pg_temp.attempt('call ' || f.oid::pg_catalog.regprocedure, statement)
            else pg_temp.reading('call ' || f.oid::pg_catalog.regprocedure, statement) end
        from pg_catalog.pg_proc f join pg_catalog.pg_namespace n on n.oid = f.pronamespace, lateral format(
            case f.prokind when 'p' then 'call' else 'select' end || ' %I.%I(%s)', n.nspname, f.proname,
            (select string_agg('null::' || t::pg_catalog.regtype, ', ' order by rank) from unnest(f.proargtypes) with ordinality u (t, rank))) statement
        where n.nspname !~ '^pg_' and n.nspname <> 'information_schema';
    perform pg_temp.reading('ask ' || call, 'select ' || call)
        from unnest('{public.total(1),public.secret_count(),public.hidden(),public.shown(),auth.uid(),auth.role()}'::text[]) call;
    perform pg_temp.attempt('cast to ' || t.oid::pg_catalog.regtype, format('create temp table of_type (a %s)', t.oid::pg_catalog.regtype))
        from pg_catalog.pg_type t join pg_catalog.pg_namespace n on n.oid = t.typnamespace
        where t.typtype in ('e', 'd') and n.nspname !~ '^pg_' and n.nspname <> 'information_schema';
    perform pg_temp.attempt('make in ' || nspname, format('create table %I.made (a int)', nspname))
        from pg_catalog.pg_namespace where nspname !~ '^pg_';
    perform pg_temp.attempt('make a schema', 'create schema made');
    perform pg_temp.attempt('become ' || rolname, format('set role %I', rolname)) from pg_catalog.pg_roles where rolname !~ '^pg_';
    perform pg_temp.attempt('read large object ' || o, format('select lo_get(%s)', o)) from generate_series(424242, 424243) o;
end $$;
