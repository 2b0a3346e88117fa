-- Foreign data wrappers, their servers, and user mappings (whose options are secrets).
foreign_lines as (
    select
        'foreign data wrapper' as kind, quote_ident(w.fdwname) as identity,
        jsonb_build_object(
            'handler', nullif(w.fdwhandler, 0)::regprocedure,
            'validator', nullif(w.fdwvalidator, 0)::regprocedure,
            'options', (
                select jsonb_agg(
                    case when o.option_name = any (p.names) then o.option_name || '=' || o.option_value
                        else o.option_name end
                    order by o.option_name collate "C")
                from plain_option p cross join lateral pg_options_to_table(w.fdwoptions) o)) as fields,
        null::text as subject, null::text as schema_name, w.fdwowner as owner, null::text as partner,
        coalesce(w.fdwacl, acldefault('F', w.fdwowner)) as acl
    from pg_foreign_data_wrapper w
    where not exists (
        select from member m
        where m.classid = 'pg_foreign_data_wrapper'::regclass and m.objid = w.oid)
    union all
    select
        'foreign server', quote_ident(s.srvname),
        jsonb_build_object(
            'wrapper', w.fdwname, 'type', s.srvtype, 'version', s.srvversion,
            'options', (
                select jsonb_agg(
                    case when o.option_name = any (p.names) then o.option_name || '=' || o.option_value
                        else o.option_name end
                    order by o.option_name collate "C")
                from plain_option p cross join lateral pg_options_to_table(s.srvoptions) o)),
        null, null, s.srvowner, null, coalesce(s.srvacl, acldefault('S', s.srvowner))
    from pg_foreign_server s
    join pg_foreign_data_wrapper w on w.oid = s.srvfdw
    where not exists (
        select from member m where m.classid = 'pg_foreign_server'::regclass and m.objid = s.oid)
    union all
    select
        'user mapping',
        case u.umuser when 0 then 'PUBLIC' else u.umuser::regrole::text end || ' on ' || quote_ident(u.srvname),
        '{}', null, null, nullif(u.umuser, 0), null, null
    from pg_user_mappings u
),
