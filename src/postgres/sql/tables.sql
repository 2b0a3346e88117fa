-- Every relation that holds rows. `is_readable` is false where a dump, or the hash of the
-- rows, would fail or would see only a part of them.
select
    n.nspname::text as schema_name,
    c.relname::text as name,
    c.relkind = 'm' as is_materialized_view,
    c.relispopulated as is_populated,
    coalesce(pg_table_size(c.oid), 0) as bytes,
    case when c.reltuples >= 0 then c.reltuples::bigint end as estimated_rows,
    coalesce(
        has_schema_privilege(n.oid, 'usage') and has_table_privilege(c.oid, 'select')
            and not row_security_active(c.oid),
        false
    ) as is_readable,
    e.extname::text as extension,
    pg_get_userbyid(c.relowner)::text as owner,
    -- A generated column is in the row and not in the dump; the text of money follows lc_monetary.
    not exists (
        select from pg_attribute a
        where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
            and (a.attgenerated <> '' or a.atttypid in ('money'::regtype, 'money[]'::regtype))
    ) as is_dumped_as_read,
    array(
        select a.attname::text
        from pg_attribute a
        where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
        order by a.attnum
    ) as columns,
    array(
        select a.attnum from pg_attribute a where a.attrelid = c.oid and a.attnum > 0 and a.attisdropped order by a.attnum
    ) as dropped
from pg_class c
join pg_namespace n on n.oid = c.relnamespace
left join pg_depend d
    on d.classid = 'pg_class'::regclass and d.objid = c.oid and d.objsubid = 0 and d.deptype = 'e'
left join pg_extension e on e.oid = d.refobjid
where c.relkind in ('r', 'm')
    and c.relpersistence <> 't'
    and n.nspname !~ '^pg_'
    and n.nspname <> 'information_schema'
order by n.nspname collate "C", c.relname collate "C"
