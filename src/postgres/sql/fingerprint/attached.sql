-- What hangs on a table: constraints, indexes, rules, triggers, policies, statistics.
--
-- The copies of a foreign key that partitions carry are left out: they follow from
-- the parent's, and restoring gives them other names.
constraint_lines as (
    select
        'constraint' as kind,
        quote_ident(k.conname) || ' on ' || coalesce(r.identity, 'domain ' || y.oid::regtype) as identity,
        jsonb_build_object(
            'definition', pg_get_constraintdef(k.oid),
            'not validated', nullif(not k.convalidated, false),
            'inheritance', case when k.coninhcount > 0 then
                case when k.conislocal then 'merged' else 'inherited' end end
        ) as fields,
        null::text as subject, coalesce(r.schema_name, h.schema_name) as schema_name,
        coalesce(r.owner, y.typowner) as owner, null::text as partner, null::aclitem[] as acl
    from pg_constraint k
    left join relation r on r.oid = k.conrelid
    left join pg_type y on y.oid = k.contypid
    left join home h on h.oid = y.typnamespace
    left join member m on m.classid = 'pg_type'::regclass and m.objid = y.oid
    where k.contype not in ('n', 't') and not (k.contype = 'f' and k.conparentid <> 0)
        and (r.oid is not null or h.oid is not null) and r.extension is null and m.extension is null
),
-- pg_dump leaves out an index that a failed `create index concurrently` left behind,
-- so it has a kind of its own, which callers can name and set aside.
index_lines as (
    select
        case when i.indisvalid or c.relkind = 'I' then 'index' else 'invalid index' end as kind,
        i.indexrelid::regclass::text as identity,
        jsonb_build_object(
            'definition', pg_get_indexdef(i.indexrelid),
            'invalid', nullif(not i.indisvalid, false),
            'clustered', nullif(i.indisclustered, false),
            'replica identity', nullif(i.indisreplident, false),
            'parent', (
                select h.inhparent::regclass from pg_inherits h where h.inhrelid = i.indexrelid),
            'statistics', (
                select jsonb_object_agg(a.attnum, a.attstattarget)
                from pg_attribute a where a.attrelid = i.indexrelid and a.attstattarget >= 0)
        ) as fields,
        null::text as subject, r.schema_name, r.owner, null::text as partner,
        null::aclitem[] as acl
    from pg_index i
    join relation r on r.oid = i.indrelid
    join pg_class c on c.oid = i.indexrelid
    where r.extension is null
),
rule_lines as (
    select
        'rule' as kind, quote_ident(w.rulename) || ' on ' || r.identity as identity,
        jsonb_build_object(
            'definition', pg_get_ruledef(w.oid),
            'enabled', case w.ev_enabled
                when 'O' then 'yes' when 'D' then 'no' when 'R' then 'replica' else 'always' end
        ) as fields,
        null::text as subject, r.schema_name, r.owner, null::text as partner,
        null::aclitem[] as acl
    from pg_rewrite w
    join relation r on r.oid = w.ev_class
    where r.extension is null and w.rulename <> '_RETURN'
),
-- An extension's own trigger calls its own function; a user's trigger on such a
-- table does not, and is worth a line.
trigger_lines as (
    select
        'trigger' as kind, quote_ident(g.tgname) || ' on ' || r.identity as identity,
        jsonb_build_object(
            'definition', pg_get_triggerdef(g.oid),
            'enabled', case g.tgenabled
                when 'O' then 'yes' when 'D' then 'no' when 'R' then 'replica' else 'always' end
        ) as fields,
        null::text as subject, r.schema_name, case when m.extension is null then f.proowner end as owner,
        n.nspname::text as partner,
        null::aclitem[] as acl
    from pg_trigger g
    join relation r on r.oid = g.tgrelid
    join pg_proc f on f.oid = g.tgfoid
    join pg_namespace n on n.oid = f.pronamespace
    left join member m on m.classid = 'pg_proc'::regclass and m.objid = f.oid
    where not g.tgisinternal and f.pronamespace not in (select p.oid from pause p)
        and (r.extension is null or (m.extension is null and n.nspname <> 'pg_catalog'))
),
policy_lines as (
    select
        'policy' as kind, quote_ident(p.polname) || ' on ' || r.identity as identity,
        jsonb_build_object(
            'command', case p.polcmd
                when 'r' then 'select' when 'a' then 'insert' when 'w' then 'update'
                when 'd' then 'delete' else 'all' end,
            'restrictive', nullif(not p.polpermissive, false),
            'roles', (
                select jsonb_agg(x.name order by x.name collate "C")
                from (
                    select case u.role when 0 then 'PUBLIC' else u.role::regrole::text end as name
                    from unnest(p.polroles) u (role)
                ) x),
            'using', pg_get_expr(p.polqual, p.polrelid),
            'check', pg_get_expr(p.polwithcheck, p.polrelid)
        ) as fields,
        null::text as subject, r.schema_name, r.owner, null::text as partner,
        null::aclitem[] as acl
    from pg_policy p
    join relation r on r.oid = p.polrelid
),
statistics_lines as (
    select
        'statistics' as kind,
        quote_ident(h.schema_name) || '.' || quote_ident(s.stxname) as identity,
        jsonb_build_object(
            'definition', pg_get_statisticsobjdef(s.oid),
            'target', nullif(s.stxstattarget, -1)
        ) as fields,
        null::text as subject, h.schema_name, s.stxowner as owner, null::text as partner,
        null::aclitem[] as acl
    from pg_statistic_ext s
    join home h on h.oid = s.stxnamespace
    where not exists (
        select from member m where m.classid = 'pg_statistic_ext'::regclass and m.objid = s.oid)
),
