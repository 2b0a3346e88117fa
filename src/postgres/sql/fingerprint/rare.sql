-- Operators and the like, collations, conversions, text search, casts, transforms, languages.
operator_lines as (
    select
        'operator' as kind, o.oid::regoperator::text as identity,
        jsonb_build_object(
            'function', nullif(o.oprcode, 0)::regprocedure, 'result', nullif(o.oprresult, 0)::regtype,
            'commutator', nullif(o.oprcom, 0)::regoperator, 'negator', nullif(o.oprnegate, 0)::regoperator,
            'restrict', nullif(o.oprrest, 0)::regprocedure, 'join', nullif(o.oprjoin, 0)::regprocedure,
            'merges', nullif(o.oprcanmerge, false), 'hashes', nullif(o.oprcanhash, false)) as fields,
        null::text as subject, h.schema_name, o.oprowner as owner, null::text as partner,
        null::aclitem[] as acl
    from pg_operator o
    join home h on h.oid = o.oprnamespace
    where not exists (
        select from member m where m.classid = 'pg_operator'::regclass and m.objid = o.oid)
    union all
    select
        'operator class',
        quote_ident(h.schema_name) || '.' || quote_ident(c.opcname) || ' using ' || quote_ident(a.amname),
        jsonb_build_object(
            'family', quote_ident(n.nspname) || '.' || quote_ident(f.opfname),
            'input', c.opcintype::regtype, 'key', nullif(c.opckeytype, 0)::regtype,
            'default', nullif(c.opcdefault, false)),
        null, h.schema_name, c.opcowner, null, null
    from pg_opclass c
    join home h on h.oid = c.opcnamespace
    join pg_am a on a.oid = c.opcmethod
    join pg_opfamily f on f.oid = c.opcfamily
    join pg_namespace n on n.oid = f.opfnamespace
    where not exists (
        select from member m where m.classid = 'pg_opclass'::regclass and m.objid = c.oid)
    union all
    select
        'operator family',
        quote_ident(h.schema_name) || '.' || quote_ident(f.opfname) || ' using ' || quote_ident(a.amname),
        jsonb_build_object(
            'operators', (
                select jsonb_agg(x.entry order by x.entry collate "C")
                from (
                    select p.amopstrategy || ' ' || p.amopopr::regoperator || coalesce(
                        ' for order by ' || quote_ident(n.nspname) || '.' || quote_ident(s.opfname), '') as entry
                    from pg_amop p
                    left join pg_opfamily s on s.oid = p.amopsortfamily
                    left join pg_namespace n on n.oid = s.opfnamespace
                    where p.amopfamily = f.oid) x),
            'functions', (
                select jsonb_agg(x.entry order by x.entry collate "C")
                from (
                    select p.amprocnum || ' (' || p.amproclefttype::regtype || ', '
                        || p.amprocrighttype::regtype || ') ' || p.amproc::regprocedure as entry
                    from pg_amproc p where p.amprocfamily = f.oid) x)),
        null, h.schema_name, f.opfowner, null, null
    from pg_opfamily f
    join home h on h.oid = f.opfnamespace
    join pg_am a on a.oid = f.opfmethod
    where not exists (
        select from member m where m.classid = 'pg_opfamily'::regclass and m.objid = f.oid)
    union all
    select
        'access method', quote_ident(a.amname),
        jsonb_build_object('type', a.amtype, 'handler', a.amhandler::regproc), null, null, null, null, null
    from pg_am a
    where a.oid >= 16384 and not exists (
        select from member m where m.classid = 'pg_am'::regclass and m.objid = a.oid)
),
-- The columns of pg_collation go by other names in 15, 16, and 17: the row is taken whole.
text_lines as (
    select
        'collation' as kind, c.oid::regcollation::text as identity,
        to_jsonb(c) - array['oid', 'collname', 'collnamespace', 'collowner', 'collversion'] as fields,
        null::text as subject, h.schema_name, c.collowner as owner, null::text as partner,
        null::aclitem[] as acl
    from pg_collation c
    join home h on h.oid = c.collnamespace
    where not exists (
        select from member m where m.classid = 'pg_collation'::regclass and m.objid = c.oid)
    union all
    select
        'conversion', quote_ident(h.schema_name) || '.' || quote_ident(c.conname),
        jsonb_build_object(
            'from', pg_encoding_to_char(c.conforencoding), 'to', pg_encoding_to_char(c.contoencoding),
            'function', c.conproc::regprocedure, 'default', nullif(c.condefault, false)),
        null, h.schema_name, c.conowner, null, null
    from pg_conversion c
    join home h on h.oid = c.connamespace
    where not exists (
        select from member m where m.classid = 'pg_conversion'::regclass and m.objid = c.oid)
    union all
    select
        'text search configuration', c.oid::regconfig::text,
        jsonb_build_object(
            'parser', quote_ident(n.nspname) || '.' || quote_ident(p.prsname),
            'mapping', (
                select jsonb_agg(k.alias || ' ' || k.number || ' ' || k.dictionary
                    order by k.alias collate "C", k.number)
                from (
                    select t.alias, s.mapseqno as number, s.mapdict::regdictionary::text as dictionary
                    from pg_ts_config_map s
                    join ts_token_type(c.cfgparser) t on t.tokid = s.maptokentype
                    where s.mapcfg = c.oid) k)),
        null, h.schema_name, c.cfgowner, null, null
    from pg_ts_config c
    join home h on h.oid = c.cfgnamespace
    join pg_ts_parser p on p.oid = c.cfgparser
    join pg_namespace n on n.oid = p.prsnamespace
    where not exists (
        select from member m where m.classid = 'pg_ts_config'::regclass and m.objid = c.oid)
    union all
    select
        'text search dictionary', d.oid::regdictionary::text,
        jsonb_build_object(
            'template', quote_ident(n.nspname) || '.' || quote_ident(t.tmplname),
            'options', d.dictinitoption),
        null, h.schema_name, d.dictowner, null, null
    from pg_ts_dict d
    join home h on h.oid = d.dictnamespace
    join pg_ts_template t on t.oid = d.dicttemplate
    join pg_namespace n on n.oid = t.tmplnamespace
    where not exists (
        select from member m where m.classid = 'pg_ts_dict'::regclass and m.objid = d.oid)
    union all
    select
        'text search parser', quote_ident(h.schema_name) || '.' || quote_ident(p.prsname),
        jsonb_build_object(
            'start', p.prsstart::regproc, 'token', p.prstoken::regproc, 'end', p.prsend::regproc,
            'types', p.prslextype::regproc, 'headline', nullif(p.prsheadline, 0)::regproc),
        null, h.schema_name, null, null, null
    from pg_ts_parser p
    join home h on h.oid = p.prsnamespace
    where not exists (
        select from member m where m.classid = 'pg_ts_parser'::regclass and m.objid = p.oid)
    union all
    select
        'text search template', quote_ident(h.schema_name) || '.' || quote_ident(t.tmplname),
        jsonb_build_object('init', nullif(t.tmplinit, 0)::regproc, 'lexize', t.tmpllexize::regproc),
        null, h.schema_name, null, null, null
    from pg_ts_template t
    join home h on h.oid = t.tmplnamespace
    where not exists (
        select from member m where m.classid = 'pg_ts_template'::regclass and m.objid = t.oid)
),
-- A cast lives nowhere; the schema of its function, or else of a type, stands for it.
cast_lines as (
    select
        'cast' as kind, '(' || c.castsource::regtype || ' as ' || c.casttarget::regtype || ')' as identity,
        jsonb_build_object(
            'function', nullif(c.castfunc, 0)::regprocedure,
            'context', case c.castcontext when 'a' then 'assignment' when 'i' then 'implicit' else 'explicit' end,
            'method', case c.castmethod when 'b' then 'binary' when 'i' then 'inout' else 'function' end) as fields,
        null::text as subject,
        (
            select n.nspname::text
            from (
                values
                    (1, (select f.pronamespace from pg_proc f where f.oid = c.castfunc)),
                    (2, (select t.typnamespace from pg_type t where t.oid = c.castsource)),
                    (3, (select t.typnamespace from pg_type t where t.oid = c.casttarget))
            ) x (rank, schema_id)
            join pg_namespace n on n.oid = x.schema_id
            where n.nspname <> 'pg_catalog'
            order by x.rank limit 1
        ) as schema_name,
        null::oid as owner, null::text as partner, null::aclitem[] as acl
    from pg_cast c
    where c.oid >= 16384
        and not exists (
            select from member m where m.classid = 'pg_cast'::regclass and m.objid = c.oid)
        -- The cast of a range to its multirange comes with the type.
        and not exists (
            select from pg_depend d
            where d.classid = 'pg_cast'::regclass and d.objid = c.oid and d.deptype = 'i')
    union all
    select
        'transform', 'for ' || t.trftype::regtype || ' language ' || quote_ident(l.lanname),
        jsonb_build_object(
            'from sql', nullif(t.trffromsql, 0)::regprocedure, 'to sql', nullif(t.trftosql, 0)::regprocedure),
        null, null, null, null, null
    from pg_transform t
    join pg_language l on l.oid = t.trflang
    where not exists (
        select from member m where m.classid = 'pg_transform'::regclass and m.objid = t.oid)
    union all
    select
        'language', quote_ident(l.lanname),
        jsonb_build_object(
            'trusted', l.lanpltrusted, 'handler', nullif(l.lanplcallfoid, 0)::regprocedure,
            'inline', nullif(l.laninline, 0)::regprocedure, 'validator', nullif(l.lanvalidator, 0)::regprocedure),
        null, null, l.lanowner, null, coalesce(l.lanacl, acldefault('l', l.lanowner))
    from pg_language l
    where l.oid >= 16384 and not exists (
        select from member m where m.classid = 'pg_language'::regclass and m.objid = l.oid)
),
