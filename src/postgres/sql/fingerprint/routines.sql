-- Functions, procedures, aggregates, and types.
--
-- A range brings its constructor functions along. They belong to the bootstrap superuser,
-- take its default privileges, and are in no dump.
routine_lines as (
    select
        case p.prokind when 'p' then 'procedure' when 'a' then 'aggregate' else 'function' end as kind,
        p.oid::regprocedure::text as identity,
        case p.prokind
            when 'a' then (
                select jsonb_build_object(
                    'arguments', pg_get_function_arguments(p.oid),
                    'kind', g.aggkind, 'direct arguments', nullif(g.aggnumdirectargs, 0),
                    'state function', g.aggtransfn::regprocedure,
                    'state type', format_type(g.aggtranstype, null),
                    'state space', nullif(g.aggtransspace, 0),
                    'final function', nullif(g.aggfinalfn, 0)::regprocedure,
                    'final extra', nullif(g.aggfinalextra, false), 'final modify', g.aggfinalmodify,
                    'combine function', nullif(g.aggcombinefn, 0)::regprocedure,
                    'serial function', nullif(g.aggserialfn, 0)::regprocedure,
                    'deserial function', nullif(g.aggdeserialfn, 0)::regprocedure,
                    'initial', g.agginitval, 'sort operator', nullif(g.aggsortop, 0)::regoperator,
                    'parallel', p.proparallel
                ) || jsonb_build_object(
                    'moving state function', nullif(g.aggmtransfn, 0)::regprocedure,
                    'moving inverse function', nullif(g.aggminvtransfn, 0)::regprocedure,
                    'moving final function', nullif(g.aggmfinalfn, 0)::regprocedure,
                    'moving state type', format_type(nullif(g.aggmtranstype, 0), null),
                    'moving state space', nullif(g.aggmtransspace, 0),
                    'moving final extra', nullif(g.aggmfinalextra, false),
                    'moving final modify', g.aggmfinalmodify,
                    'moving initial', g.aggminitval)
                from pg_aggregate g where g.aggfnoid = p.oid)
            else jsonb_build_object(
                'definition', pg_get_functiondef(p.oid), 'security definer', nullif(p.prosecdef, false))
        end as fields,
        -- On projects of some age, what the platform's own event triggers call belongs to postgres.
        case when exists (
            select from pg_event_trigger t join pg_roles s on s.oid = t.evtowner
            where t.evtfoid = p.oid and s.rolsuper) then 'platform function' end as subject,
        h.schema_name, p.proowner as owner, null::text as partner,
        coalesce(p.proacl, acldefault('f', p.proowner)) as acl
    from pg_proc p
    join home h on h.oid = p.pronamespace
    where not exists (
            select from member m where m.classid = 'pg_proc'::regclass and m.objid = p.oid)
        and not exists (
            select from pg_depend d
            where d.classid = 'pg_proc'::regclass and d.objid = p.oid and d.deptype = 'i'
                and d.refclassid = 'pg_type'::regclass)
),
-- Array types, multirange types, and row types of tables come with another object.
type_lines as (
    select
        case t.typtype when 'd' then 'domain' else 'type' end as kind, t.oid::regtype::text as identity,
        case t.typtype
            when 'e' then jsonb_build_object('labels', (
                select jsonb_agg(e.enumlabel order by e.enumsortorder) from pg_enum e where e.enumtypid = t.oid))
            when 'd' then jsonb_build_object(
                'base', format_type(t.typbasetype, t.typtypmod), 'not null', nullif(t.typnotnull, false),
                'default', coalesce(pg_get_expr(t.typdefaultbin, 0), t.typdefault),
                'collation', case when t.typcollation <> b.typcollation
                    then nullif(t.typcollation, 0)::regcollation end)
            when 'r' then (
                select jsonb_build_object(
                    'subtype', g.rngsubtype::regtype, 'multirange', g.rngmultitypid::regtype,
                    'collation', nullif(g.rngcollation, 0)::regcollation,
                    'operator class', (
                        select quote_ident(n.nspname) || '.' || quote_ident(o.opcname)
                        from pg_opclass o join pg_namespace n on n.oid = o.opcnamespace
                        where o.oid = g.rngsubopc),
                    'canonical', nullif(g.rngcanonical, 0)::regprocedure,
                    'difference', nullif(g.rngsubdiff, 0)::regprocedure)
                from pg_range g where g.rngtypid = t.oid)
            when 'c' then jsonb_build_object('composite', true)
            else jsonb_build_object(
                'shell', nullif(not t.typisdefined, false), 'length', t.typlen, 'by value', t.typbyval,
                'category', t.typcategory, 'preferred', nullif(t.typispreferred, false),
                'alignment', t.typalign, 'storage', t.typstorage, 'delimiter', t.typdelim,
                'default', t.typdefault, 'input', nullif(t.typinput, 0)::regprocedure,
                'output', nullif(t.typoutput, 0)::regprocedure,
                'receive', nullif(t.typreceive, 0)::regprocedure, 'send', nullif(t.typsend, 0)::regprocedure,
                'modifier input', nullif(t.typmodin, 0)::regprocedure,
                'modifier output', nullif(t.typmodout, 0)::regprocedure,
                'analyze', nullif(t.typanalyze, 0)::regprocedure)
        end as fields,
        null::text as subject, h.schema_name, t.typowner as owner, null::text as partner,
        coalesce(t.typacl, acldefault('T', t.typowner)) as acl
    from pg_type t
    join home h on h.oid = t.typnamespace
    left join pg_type b on b.oid = t.typbasetype
    left join relation r on r.oid = t.typrelid
    where t.typtype <> 'm'
        and (t.typtype <> 'c' or r.relkind = 'c')
        and not exists (select from pg_type e where e.typarray = t.oid)
        and not exists (
            select from member m where m.classid = 'pg_type'::regclass and m.objid = t.oid)
),
