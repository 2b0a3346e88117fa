with this as (
    select d.oid, d.datdba, d.datacl, d.datconnlimit
    from pg_catalog.pg_database d
    where d.datname = pg_catalog.current_database()
),
entries as (
    select s.setrole, r.rolname,
        pg_catalog.split_part(c.entry, '=', 1) as name,
        pg_catalog.substr(c.entry, pg_catalog.strpos(c.entry, '=') + 1) as value
    from pg_catalog.pg_db_role_setting s
    join this on this.oid = s.setdatabase
    left join pg_catalog.pg_roles r on r.oid = s.setrole
    cross join lateral pg_catalog.unnest(s.setconfig) c (entry)
),
-- Each statement in two halves around the name of the database that it runs in.
halves (rank, before, after) as (
    select 1, 'alter database ', pg_catalog.format(' owner to %I', r.rolname)
    from this join pg_catalog.pg_roles r on r.oid = this.datdba
    union all
    select 2, 'alter database ', pg_catalog.format(' connection limit %s', datconnlimit)
    from this where datconnlimit <> -1
    union all
    select 3, 'revoke all on database ', ' from public'
    from this where datacl is not null
    union all
    select 4, pg_catalog.format('grant %s on database ', a.privilege_type),
        ' to ' || case when a.grantee = 0 then 'public' else pg_catalog.quote_ident(r.rolname) end
        || case when a.is_grantable then ' with grant option' else '' end
    from this
    cross join lateral pg_catalog.aclexplode(this.datacl) a
    left join pg_catalog.pg_roles r on r.oid = a.grantee
    union all
    select 5,
        case when e.setrole = 0 then 'alter database '
            else pg_catalog.format('alter role %I in database ', e.rolname) end,
        pg_catalog.format(' set %s to ', case when e.name like '%.%' or e.name = pg_catalog.lower(e.name)
            then (select pg_catalog.string_agg(pg_catalog.quote_ident(part), '.' order by rank)
                  from pg_catalog.unnest(pg_catalog.string_to_array(e.name, '.')) with ordinality p (part, rank))
            else pg_catalog.quote_ident(e.name) end)
        || case
            when pg_catalog.lower(e.name) in ('search_path', 'session_preload_libraries',
                'local_preload_libraries', 'shared_preload_libraries', 'temp_tablespaces',
                'unix_socket_directories') and e.value <> '' then e.value
            else pg_catalog.quote_literal(e.value) end
    from entries e
    union all
    select 6, 'comment on database ', ' is ' || pg_catalog.quote_literal(pg_catalog.shobj_description(oid, 'pg_database'))
    from this where pg_catalog.shobj_description(oid, 'pg_database') is not null
)
select pg_catalog.format('do %L', pg_catalog.format(
    'begin execute %L || pg_catalog.quote_ident(pg_catalog.current_database()) || %L; end', before, after))
from halves
order by rank, before, after
