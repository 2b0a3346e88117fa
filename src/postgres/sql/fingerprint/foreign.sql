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
                from plain_option p cross join lateral pg_options_to_table(w.fdwoptions) o),
            'sha256', (
                select encode(sha256(convert_to(w.fdwname || chr(10) || string_agg(
                    o.option_name || '=' || o.option_value, chr(10) order by o.option_name collate "C"), 'UTF8')), 'hex')
                from plain_option p cross join lateral pg_options_to_table(w.fdwoptions) o
                where o.option_name <> all (p.names))) as fields,
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
                from plain_option p cross join lateral pg_options_to_table(s.srvoptions) o),
            'sha256', (
                select encode(sha256(convert_to(s.srvname || chr(10) || string_agg(
                    o.option_name || '=' || o.option_value, chr(10) order by o.option_name collate "C"), 'UTF8')), 'hex')
                from plain_option p cross join lateral pg_options_to_table(s.srvoptions) o
                where o.option_name <> all (p.names))),
        null, null, s.srvowner, null, coalesce(s.srvacl, acldefault('S', s.srvowner))
    from pg_foreign_server s
    join pg_foreign_data_wrapper w on w.oid = s.srvfdw
    where not exists (
        select from member m where m.classid = 'pg_foreign_server'::regclass and m.objid = s.oid)
    union all
    -- The view shows options to whom they are for, to the server's owner when they are for everybody, and to a
    -- superuser (system_views.sql); a role that reads the rest of the catalog sees none of the others. All of
    -- one mapping's are hashed together, with its name: nobody guesses a password without the rest.
    select
        'user mapping', u.identity,
        case
            when not u.is_readable then '{"options": "not readable"}'
            else jsonb_build_object(
                'sha256', (
                    select encode(sha256(convert_to(u.identity || chr(10) || string_agg(
                        o.option_name || '=' || o.option_value, chr(10) order by o.option_name collate "C"), 'UTF8')),
                        'hex')
                    from pg_options_to_table(u.umoptions) o))
            end,
        null, null, nullif(u.umuser, 0), null, null
    from (
        select m.umuser, m.umoptions,
            case m.umuser when 0 then 'PUBLIC' else m.umuser::regrole::text end || ' on ' || quote_ident(m.srvname)
                as identity,
            (select rolsuper from pg_roles where rolname = current_user)
                or case m.umuser
                    when 0 then pg_has_role(s.srvowner, 'USAGE')
                    else m.usename = current_user
                        and (pg_has_role(s.srvowner, 'USAGE') or has_server_privilege(s.oid, 'USAGE'))
                    end as is_readable
        from pg_user_mappings m
        join pg_foreign_server s on s.oid = m.srvid) u
),
