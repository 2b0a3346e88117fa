-- Comments, security labels, and privileges on what somebody else created.
--
-- An anchor is an object that pg_identify_object places in no schema, with what
-- decides its class.
anchor as (
    select 'pg_policy'::regclass::oid as classid, p.oid, p.polrelid as relation, null::oid as function, null::oid as owner
    from pg_policy p
    union all select 'pg_trigger'::regclass, g.oid, g.tgrelid, g.tgfoid, null from pg_trigger g where not g.tgisinternal
    union all select 'pg_rewrite'::regclass, w.oid, w.ev_class, null, null from pg_rewrite w
    union all select 'pg_constraint'::regclass, k.oid, nullif(k.conrelid, 0), null, null from pg_constraint k
    union all select 'pg_class'::regclass, i.indexrelid, i.indrelid, null, null from pg_index i
    union all select 'pg_event_trigger'::regclass, t.oid, null, t.evtfoid, t.evtowner from pg_event_trigger t
    union all select 'pg_publication'::regclass, p.oid, null, null, p.pubowner from pg_publication p
    union all select 'pg_subscription'::regclass, s.oid, null, null, s.subowner from pg_subscription s
    union all select 'pg_foreign_server'::regclass, s.oid, null, null, s.srvowner from pg_foreign_server s
    union all select 'pg_foreign_data_wrapper'::regclass, w.oid, null, null, w.fdwowner from pg_foreign_data_wrapper w
    union all select 'pg_language'::regclass, l.oid, null, null, l.lanowner from pg_language l
    union all select 'pg_largeobject'::regclass, l.oid, null, null, l.lomowner from pg_largeobject_metadata l
    union all select 'pg_authid'::regclass, r.oid, null, null, r.oid from pg_roles r
    union all select 'pg_class'::regclass, r.oid, null, null, r.owner from relation r
    union all select 'pg_proc'::regclass, p.oid, null, null, p.proowner from pg_proc p where p.oid >= 16384
    union all select 'pg_type'::regclass, t.oid, null, null, t.typowner from pg_type t where t.oid >= 16384
),
note as (
    select 'comment' as kind, d.classoid, d.objoid, d.objsubid, jsonb_build_object('text', d.description) as fields
    from pg_description d
    where (d.objoid >= 16384 or (d.classoid = 'pg_namespace'::regclass and d.objoid = 'public'::regnamespace))
        and d.classoid <> 'pg_extension'::regclass
    union all
    select 'security label', l.classoid, l.objoid, l.objsubid, jsonb_build_object(l.provider, l.label)
    from pg_seclabel l
),
shared_note as (
    select 'comment' as kind, d.classoid, d.objoid, jsonb_build_object('text', d.description) as fields
    from pg_shdescription d
    union all
    select 'security label', l.classoid, l.objoid, jsonb_build_object(l.provider, l.label)
    from pg_shseclabel l
),
note_lines as (
    select
        n.kind, o.type || ' ' || o.identity as identity, n.fields, o.type as subject,
        coalesce(
            o.schema, r.schema_name,
            case when n.classoid = 'pg_namespace'::regclass then n.objoid::regnamespace::text end
        ) as schema_name,
        coalesce(a.owner, f.proowner, r.owner) as owner, f.pronamespace::regnamespace::text as partner, null::aclitem[] as acl
    from note n
    cross join lateral pg_identify_object(n.classoid, n.objoid, n.objsubid) o
    left join anchor a on a.classid = n.classoid and a.oid = n.objoid
    left join relation r on r.oid = a.relation
    left join pg_proc f on f.oid = a.function
    where r.extension is null and not exists (
        select from member m where m.classid = n.classoid and m.objid = n.objoid)
        and (n.classoid <> 'pg_namespace'::regclass or n.objoid not in (select p.oid from pause p))
    union all
    select
        n.kind, case when d.oid is null then 'role ' || n.objoid::regrole else 'database current' end,
        n.fields, case when d.oid is null then 'role' else 'database' end,
        null, case when d.oid is null then n.objoid end, null, null
    from shared_note n
    left join pg_database d on n.classoid = 'pg_database'::regclass and d.oid = n.objoid
    where d.datname = current_database() or n.classoid = 'pg_authid'::regclass
),
-- Members of extensions and objects of the system get their privileges from their
-- creator; what was changed since is kept. What the owner and postgres have is left out:
-- where supautils creates an extension its members belong to supabase_admin, where a
-- restore does, to postgres.
given as (
    select 'pg_class'::regclass::oid as classid, c.oid, 0 as part, c.relowner as owner, c.relacl as acl,
        acldefault(case c.relkind when 'S' then 's' else 'r' end::"char", c.relowner) as builtin
    from pg_class c where c.relacl is not null
    union all select 'pg_class'::regclass, a.attrelid, a.attnum, null, a.attacl, '{}' from pg_attribute a where a.attacl is not null
    union all select 'pg_proc'::regclass, p.oid, 0, p.proowner, p.proacl, acldefault('f', p.proowner) from pg_proc p where p.proacl is not null
    union all select 'pg_namespace'::regclass, n.oid, 0, n.nspowner, n.nspacl, acldefault('n', n.nspowner) from pg_namespace n where n.nspacl is not null
    union all select 'pg_type'::regclass, t.oid, 0, t.typowner, t.typacl, acldefault('T', t.typowner) from pg_type t where t.typacl is not null
    union all select 'pg_language'::regclass, l.oid, 0, l.lanowner, l.lanacl, acldefault('l', l.lanowner) from pg_language l where l.lanacl is not null
),
regiven as materialized (
    select g.classid, g.oid, g.part, g.owner, g.acl, coalesce(i.initprivs, g.builtin) as initial,
        coalesce(quote_ident(m.extension), 'the system') as giver
    from given g
    left join pg_init_privs i on i.classoid = g.classid and i.objoid = g.oid and i.objsubid = g.part
    left join member m on m.classid = g.classid and m.objid = g.oid
    where (m.objid is not null or g.oid < 16384)
        and (g.classid, g.oid) <> ('pg_namespace'::regclass, 'public'::regnamespace)
        and g.acl is distinct from coalesce(i.initprivs, g.builtin)
),
-- One line per extension and schema: an extension often has a hundred members.
member_privilege_lines as (
    select
        'member privileges' as kind, g.giver || coalesce(' in ' || quote_ident(o.home), '') as identity,
        jsonb_object_agg(o.name, jsonb_build_object('granted', x.granted, 'revoked', x.revoked)) as fields,
        null::text as subject, o.home as schema_name,
        null::oid as owner, null::text as partner, null::aclitem[] as acl
    from regiven g
    cross join lateral (
        select i.type || ' ' || i.identity as name,
            coalesce(i.schema, case when g.classid = 'pg_namespace'::regclass then i.name end) as home
        from pg_identify_object(g.classid, g.oid, g.part) i
    ) o
    cross join lateral (
        select jsonb_agg(e.entry order by e.entry collate "C") filter (where e.is_now and not e.was) as granted,
            jsonb_agg(e.entry order by e.entry collate "C") filter (where e.was and not e.is_now) as revoked
        from (
            select case u.grantee when 0 then 'PUBLIC' else u.grantee::regrole::text end || '=' || u.privilege_type
                    || case when u.is_grantable then '*' else '' end as entry,
                bool_or(u.is_now) as is_now, bool_or(not u.is_now) as was
            from (
                select n.*, true as is_now from aclexplode(g.acl) n
                union all select b.*, false from aclexplode(g.initial) b
            ) u
            where u.grantee is distinct from g.owner and pg_get_userbyid(u.grantee) <> 'postgres'
            group by 1
        ) e
    ) x
    where (x.granted is not null or x.revoked is not null)
        -- initdb grants these after it has recorded the initial privileges.
        and o.home is distinct from 'information_schema'
    group by g.giver, o.home
),
-- What was given on an object by somebody else than its owner: on the platform's own objects, a grant option
-- lets a migration do that. Schema `extensions` is the platform's, and belongs to postgres. The partner is the
-- extension that made the object.
given_lines as (
    select
        'given privileges' as kind, 'by ' || x.grantor::regrole || ' on ' || o.name as identity, '{}'::jsonb as fields,
        null::text as subject, o.home as schema_name, x.grantor as owner, m.extension as partner, x.acl
    from given g
    cross join lateral (
        select e.grantor, array_agg(makeaclitem(e.grantee, e.grantor, e.privilege_type, e.is_grantable)) as acl
        from aclexplode(g.acl) e
        where e.grantee <> e.grantor
        group by e.grantor
    ) x
    cross join lateral (
        select 'schema ' || n.oid::regnamespace as name, n.nspname::text as home,
            case when n.nspname <> 'extensions' then n.nspowner end as owner
        from pg_namespace n where g.classid = 'pg_namespace'::regclass and n.oid = g.oid
        union all
        select case when a.attname is not null then 'column ' || c.oid::regclass || '.' || quote_ident(a.attname)
                when c.relkind = 'S' then 'sequence ' || c.oid::regclass else 'table ' || c.oid::regclass end,
            c.relnamespace::regnamespace::text, c.relowner
        from pg_class c
        left join pg_attribute a on g.part <> 0 and a.attrelid = c.oid and a.attnum = g.part
        where g.classid = 'pg_class'::regclass and c.oid = g.oid
        union all
        select 'function ' || p.oid::regprocedure, p.pronamespace::regnamespace::text, p.proowner
        from pg_proc p where g.classid = 'pg_proc'::regclass and p.oid = g.oid
        union all
        select 'type ' || t.oid::regtype, t.typnamespace::regnamespace::text, t.typowner
        from pg_type t where g.classid = 'pg_type'::regclass and t.oid = g.oid
    ) o
    left join member m on m.classid = g.classid and m.objid = g.oid
    where g.oid >= 16384 and x.grantor is distinct from o.owner
)
