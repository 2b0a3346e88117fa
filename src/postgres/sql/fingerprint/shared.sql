-- What belongs to no table: schemas, extensions, publications, roles, settings, the database.
schema_lines as (
    select
        'schema' as kind, quote_ident(n.nspname) as identity, '{}'::jsonb as fields,
        null::text as subject, h.schema_name, n.nspowner as owner, null::text as partner,
        coalesce(n.nspacl, acldefault('n', n.nspowner)) as acl
    from home h
    join pg_namespace n on n.oid = h.oid
    where not exists (
        select from member m where m.classid = 'pg_namespace'::regclass and m.objid = n.oid)
),
-- The owner is whoever ran `create extension`; no dump carries it.
extension_lines as (
    select
        x.kind, quote_ident(e.extname) as identity, x.fields,
        null::text as subject, null::text as schema_name, null::oid as owner, null::text as partner,
        null::aclitem[] as acl
    from pg_extension e
    cross join lateral (
        values
            ('extension', jsonb_build_object('schema', e.extnamespace::regnamespace)),
            ('extension version', jsonb_build_object('version', e.extversion))
    ) x (kind, fields)
),
publication_lines as (
    select
        'publication' as kind, quote_ident(p.pubname) as identity,
        to_jsonb(p) - array['oid', 'pubname', 'pubowner'] as fields,
        null::text as subject, null::text as schema_name, p.pubowner as owner, null::text as partner,
        null::aclitem[] as acl
    from pg_publication p
    union all
    select
        'publication table', quote_ident(p.pubname) || ': ' || t.prrelid::regclass,
        jsonb_build_object(
            'where', pg_get_expr(t.prqual, t.prrelid),
            'columns', (
                select jsonb_agg(a.attname order by a.attname)
                from pg_attribute a where a.attrelid = t.prrelid and a.attnum = any (t.prattrs))),
        null, null, p.pubowner, null, null
    from pg_publication_rel t
    join pg_publication p on p.oid = t.prpubid
    union all
    select
        'publication schema', quote_ident(p.pubname) || ': ' || s.pnnspid::regnamespace,
        '{}', null, null, p.pubowner, null, null
    from pg_publication_namespace s
    join pg_publication p on p.oid = s.pnpubid
),
-- The other columns hold a connection string, or are closed to most roles.
subscription_lines as (
    select
        'subscription' as kind, quote_ident(s.subname) as identity, '{}'::jsonb as fields,
        null::text as subject, null::text as schema_name, s.subowner as owner, null::text as partner,
        null::aclitem[] as acl
    from pg_subscription s
    join pg_database d on d.oid = s.subdbid
    where d.datname = current_database()
),
event_trigger_lines as (
    select
        'event trigger' as kind, quote_ident(t.evtname) as identity,
        jsonb_build_object(
            'event', t.evtevent, 'function', t.evtfoid::regprocedure,
            'tags', (select jsonb_agg(g order by g collate "C") from unnest(t.evttags) g),
            'enabled', case t.evtenabled
                when 'O' then 'yes' when 'D' then 'no' when 'R' then 'replica' else 'always' end
        ) as fields,
        null::text as subject, null::text as schema_name, t.evtowner as owner,
        n.nspname::text as partner, null::aclitem[] as acl
    from pg_event_trigger t
    join pg_proc f on f.oid = t.evtfoid
    join pg_namespace n on n.oid = f.pronamespace
    where not exists (
        select from member m where m.classid = 'pg_event_trigger'::regclass and m.objid = t.oid)
),
default_acl_lines as (
    select
        'default privileges' as kind,
        'of ' || d.defaclrole::regrole || coalesce(' in ' || nullif(d.defaclnamespace, 0)::regnamespace, '')
            || ' on ' || case d.defaclobjtype
                when 'r' then 'tables' when 'S' then 'sequences' when 'f' then 'functions'
                when 'T' then 'types' when 'n' then 'schemas' else d.defaclobjtype::text end as identity,
        '{}'::jsonb as fields, null::text as subject, n.nspname::text as schema_name,
        d.defaclrole as owner, null::text as partner, d.defaclacl as acl
    from pg_default_acl d
    left join pg_namespace n on n.oid = d.defaclnamespace
),
-- A name with a dot is the user's own setting, often a secret (`app.settings.jwt_secret`).
setting_lines as (
    select
        'setting' as kind,
        case when s.setrole <> 0 then 'role ' || s.setrole::regrole
                || case when s.setdatabase <> 0 then ' in database' else '' end
            when s.setdatabase <> 0 then 'database' else 'all roles' end || ': ' || v.name as identity,
        case when v.name like '%.%' and (v.name not like 'pgrst.db\_%' or v.name = 'pgrst.db_uri')
            then jsonb_build_object('sha256', encode(sha256(convert_to(v.value, 'UTF8')), 'hex'))
            else jsonb_build_object('value', v.value) end as fields,
        null::text as subject, null::text as schema_name, nullif(s.setrole, 0) as owner,
        null::text as partner, null::aclitem[] as acl
    from pg_db_role_setting s
    cross join lateral (
        select split_part(c, '=', 1) as name, substr(c, strpos(c, '=') + 1) as value
        from unnest(s.setconfig) c
    ) v
    where s.setdatabase = 0
        or s.setdatabase = (select d.oid from pg_database d where d.datname = current_database())
),
role_lines as (
    select
        'role' as kind, quote_ident(r.rolname) as identity,
        jsonb_build_object(
            'superuser', nullif(r.rolsuper, false), 'inherit', r.rolinherit,
            'create role', nullif(r.rolcreaterole, false), 'create db', nullif(r.rolcreatedb, false),
            'login', nullif(r.rolcanlogin, false), 'replication', nullif(r.rolreplication, false),
            'bypass rls', nullif(r.rolbypassrls, false), 'connection limit', nullif(r.rolconnlimit, -1),
            'valid until', to_jsonb(r.rolvaliduntil at time zone 'UTC')) as fields,
        null::text as subject, null::text as schema_name, r.oid as owner, null::text as partner,
        null::aclitem[] as acl
    from pg_roles r
    where r.rolname !~ '^pg_'
),
-- Before 16 a membership has neither option: what the member inherits is the member's own attribute.
membership_lines as (
    select
        'membership' as kind, m.member::regrole || ' in ' || m.roleid::regrole as identity,
        jsonb_build_object(
            'admin', nullif(bool_or(m.admin_option), false),
            'inherit', bool_or((to_jsonb(m) ->> 'inherit_option')::boolean),
            'set', bool_or((to_jsonb(m) ->> 'set_option')::boolean)) as fields,
        null::text as subject, null::text as schema_name, m.roleid as owner,
        pg_get_userbyid(m.member)::text as partner, null::aclitem[] as acl
    from pg_auth_members m
    where pg_get_userbyid(m.member) !~ '^pg_'
    group by m.roleid, m.member
),
parameter_lines as (
    select
        'parameter privileges' as kind, p.parname as identity, '{}'::jsonb as fields,
        null::text as subject, null::text as schema_name, null::oid as owner, null::text as partner,
        p.paracl as acl
    from pg_parameter_acl p
),
database_lines as (
    select
        'database' as kind, 'current' as identity,
        jsonb_build_object('connection limit', nullif(d.datconnlimit, -1)) as fields,
        null::text as subject, null::text as schema_name, d.datdba as owner, null::text as partner,
        coalesce(d.datacl, acldefault('d', d.datdba)) as acl
    from pg_database d
    where d.datname = current_database()
),
large_object_lines as (
    select
        'large object' as kind, l.oid::text as identity, '{}'::jsonb as fields,
        null::text as subject, null::text as schema_name, l.lomowner as owner, null::text as partner,
        coalesce(l.lomacl, acldefault('L', l.lomowner)) as acl
    from pg_largeobject_metadata l
),
