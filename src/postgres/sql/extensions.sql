-- Each extension with its members; one row per member, and one for an extension without any.
select
    e.extname::text as name,
    e.extversion as version,
    n.nspname::text as schema_name,
    d.classid as class_oid,
    d.objid as oid,
    o.type || ' ' || o.identity as identity,
    s.nspname::text as created_schema
from pg_extension e
join pg_namespace n on n.oid = e.extnamespace
left join pg_depend d
    on d.refclassid = 'pg_extension'::regclass and d.refobjid = e.oid and d.deptype = 'e'
left join lateral pg_identify_object(d.classid, d.objid, 0) o on d.objid is not null
left join pg_namespace s on d.classid = 'pg_namespace'::regclass and s.oid = d.objid
order by e.extname collate "C", d.classid, d.objid
