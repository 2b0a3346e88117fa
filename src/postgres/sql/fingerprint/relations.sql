-- Tables, views, materialized views, foreign tables, sequences, and their columns.
relation_lines as (
    select
        case c.relkind
            when 'v' then 'view' when 'm' then 'materialized view' when 'f' then 'foreign table'
            when 'S' then 'sequence' else 'table'
        end as kind,
        r.identity,
        jsonb_build_object(
            'unlogged', nullif(c.relpersistence = 'u', false),
            'row security', nullif(c.relrowsecurity, false),
            'force row security', nullif(c.relforcerowsecurity, false),
            'replica identity', case when c.relkind in ('r', 'p') then
                case c.relreplident
                    when 'n' then 'nothing' when 'f' then 'full' when 'i' then 'index' else 'default' end
            end,
            'access method', nullif(am.amname, 'heap'),
            'of type', nullif(c.reloftype, 0)::regtype,
            'partition key', case c.relkind when 'p' then pg_get_partkeydef(c.oid) end,
            'partition bound', pg_get_expr(c.relpartbound, c.oid),
            'populated', case c.relkind when 'm' then c.relispopulated end,
            'definition', case when c.relkind in ('v', 'm') then pg_get_viewdef(c.oid) end
        ) || jsonb_build_object(
            'inherits', (
                select jsonb_agg(i.inhparent::regclass order by i.inhseqno)
                from pg_inherits i where i.inhrelid = c.oid),
            'options', (
                select jsonb_agg(o.option order by o.option collate "C")
                from (
                    select unnest(c.reloptions) as option
                    union all select 'toast.' || unnest(t.reloptions)
                ) o),
            'server', s.srvname,
            'fdw options', (
                select jsonb_agg(
                    case when o.name = any (p.names) then o.name || '=' || o.value else o.name end
                    order by o.name collate "C")
                from plain_option p
                cross join lateral (
                    select x.option_name as name, x.option_value as value
                    from pg_options_to_table(f.ftoptions) x) o),
            'sha256', (
                select encode(sha256(convert_to(r.identity || chr(10) || string_agg(
                    o.option_name || '=' || o.option_value, chr(10) order by o.option_name collate "C"), 'UTF8')), 'hex')
                from plain_option p cross join lateral pg_options_to_table(f.ftoptions) o
                where o.option_name <> all (p.names))
        ) || coalesce(q.fields, '{}') as fields,
        null::text as subject, r.schema_name, c.relowner as owner, null::text as partner,
        coalesce(c.relacl, acldefault(case c.relkind when 'S' then 's' else 'r' end::"char", c.relowner)) as acl
    from relation r
    join pg_class c on c.oid = r.oid
    left join pg_class t on t.oid = c.reltoastrelid
    left join pg_am am on am.oid = c.relam
    left join pg_foreign_table f on f.ftrelid = c.oid
    left join pg_foreign_server s on s.oid = f.ftserver
    left join lateral (
        select jsonb_build_object(
            'type', format_type(q.seqtypid, null), 'start', q.seqstart, 'increment', q.seqincrement,
            'minimum', q.seqmin, 'maximum', q.seqmax, 'cache', q.seqcache,
            'cycle', nullif(q.seqcycle, false),
            'owned by', (
                select d.refobjid::regclass || '.' || quote_ident(a.attname)
                from pg_depend d
                join pg_attribute a on a.attrelid = d.refobjid and a.attnum = d.refobjsubid
                where d.classid = 'pg_class'::regclass and d.objid = c.oid and d.objsubid = 0
                    and d.refclassid = 'pg_class'::regclass and d.deptype in ('a', 'i'))) as fields
        from pg_sequence q where q.seqrelid = c.oid
    ) q on c.relkind = 'S'
    where r.extension is null and c.relkind <> 'c'
),
column_lines as (
    select
        'column' as kind, r.identity || '.' || quote_ident(a.attname) as identity,
        jsonb_build_object(
            'type', format_type(a.atttypid, a.atttypmod),
            'not null', nullif(a.attnotnull, false),
            'identity', case a.attidentity when 'a' then 'always' when 'd' then 'by default' end,
            'generated', case a.attgenerated when 's' then 'stored' when 'v' then 'virtual' end,
            'default', pg_get_expr(d.adbin, d.adrelid),
            'collation', case when a.attcollation <> t.typcollation then nullif(a.attcollation, 0)::regcollation end,
            'storage', case when a.attstorage <> t.typstorage then
                case a.attstorage when 'p' then 'plain' when 'e' then 'external' when 'm' then 'main' else 'extended' end
            end,
            'compression', case a.attcompression when 'p' then 'pglz' when 'l' then 'lz4' end,
            'statistics', nullif(a.attstattarget, -1),
            'inheritance', case when a.attinhcount > 0 then
                case when a.attislocal then 'merged' else 'inherited' end end,
            'options', (
                select jsonb_agg(o order by o collate "C") from unnest(a.attoptions) o),
            'fdw options', (
                select jsonb_agg(
                    case when o.option_name = any (p.names) then o.option_name || '=' || o.option_value
                        else o.option_name end
                    order by o.option_name collate "C")
                from plain_option p cross join lateral pg_options_to_table(a.attfdwoptions) o),
            'sha256', (
                select encode(sha256(convert_to(r.identity || '.' || quote_ident(a.attname) || chr(10) || string_agg(
                    o.option_name || '=' || o.option_value, chr(10) order by o.option_name collate "C"), 'UTF8')), 'hex')
                from plain_option p cross join lateral pg_options_to_table(a.attfdwoptions) o
                where o.option_name <> all (p.names))
        ) as fields,
        null::text as subject, r.schema_name, r.owner, null::text as partner, a.attacl as acl
    from relation r
    join pg_attribute a on a.attrelid = r.oid and a.attnum > 0 and not a.attisdropped
    join pg_type t on t.oid = a.atttypid
    left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
    where r.extension is null and r.relkind <> 'S'
),
-- One line for the whole order: a rank in every column would turn one dropped
-- column into a change of all that follow it.
column_order_lines as (
    select
        'column order' as kind, r.identity,
        jsonb_build_object('columns', jsonb_agg(a.attname order by a.attnum)) as fields,
        null::text as subject, r.schema_name, r.owner, null::text as partner,
        null::aclitem[] as acl
    from relation r
    join pg_attribute a on a.attrelid = r.oid and a.attnum > 0 and not a.attisdropped
    where r.extension is null and r.relkind in ('r', 'p', 'f', 'c')
    group by r.oid, r.identity, r.schema_name, r.owner
),
