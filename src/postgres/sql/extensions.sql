-- Each extension with its members; one row per member, and one for an extension without any. No dump says who
-- owns an extension, nor what its members were given while it was made, by default privileges or by an event
-- trigger. The platform's own library lets its role drop what it lists.
select
    e.extname::text as name,
    e.extversion as version,
    n.nspname::text as schema_name,
    d.classid as class_oid,
    d.objid as oid,
    o.type || ' ' || o.identity as identity,
    s.nspname::text as created_schema,
    pg_has_role(e.extowner, 'USAGE') or e.extname = any (regexp_split_to_array(
        coalesce(current_setting('supautils.privileged_extensions', true), ''), '[[:space:]]*,[[:space:]]*')) as droppable,
    (select array_agg(distinct a.privilege_type order by a.privilege_type)
     from aclexplode(case d.classid
         when 'pg_proc'::regclass then (select p.proacl from pg_proc p where p.oid = d.objid)
         when 'pg_class'::regclass then (select c.relacl from pg_class c where c.oid = d.objid)
         when 'pg_namespace'::regclass then s.nspacl
     end) a
     where a.is_grantable and a.grantee = current_user::regrole) as grantable
from pg_extension e
join pg_namespace n on n.oid = e.extnamespace
left join pg_depend d
    on d.refclassid = 'pg_extension'::regclass and d.refobjid = e.oid and d.deptype = 'e'
left join lateral pg_identify_object(d.classid, d.objid, 0) o on d.objid is not null
left join pg_namespace s on d.classid = 'pg_namespace'::regclass and s.oid = d.objid
order by e.extname collate "C", d.classid, d.objid
