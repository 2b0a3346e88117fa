select
    l.kind,
    l.identity,
    jsonb_strip_nulls(
        coalesce(l.fields, '{}') || jsonb_build_object(
            'owner', case when l.kind not in ('role', 'setting', 'membership', 'default privileges', 'user mapping',
                'comment', 'security label', 'publication table', 'publication schema', 'given privileges', 'column',
                'column order', 'constraint', 'index', 'invalid index', 'rule', 'trigger', 'policy'
                ) then l.owner::regrole end,
            'acl', case when l.acl is not null then (
                select coalesce(jsonb_agg(g.entry order by g.entry collate "C"), '[]')
                from (
                    select case e.grantee when 0 then 'PUBLIC' else e.grantee::regrole::text end || '='
                        || string_agg(e.entry, ',' order by e.entry collate "C") as entry
                    from (
                        select x.grantee,
                            x.privilege_type || case when bool_or(x.is_grantable) then '*' else '' end as entry
                        from aclexplode(l.acl) x
                        group by x.grantee, x.privilege_type
                    ) e
                    group by e.grantee
                ) g) end)
    )::text as definition,
    coalesce(l.subject, l.kind) as subject,
    l.schema_name,
    r.rolname::text as owner,
    coalesce(r.rolsuper, false) as superuser,
    l.partner
from (
    select * from relation_lines
    union all select * from column_lines
    union all select * from column_order_lines
    union all select * from constraint_lines
    union all select * from index_lines
    union all select * from rule_lines
    union all select * from trigger_lines
    union all select * from policy_lines
    union all select * from statistics_lines
    union all select * from routine_lines
    union all select * from type_lines
    union all select * from schema_lines
    union all select * from extension_lines
    union all select * from publication_lines
    union all select * from subscription_lines
    union all select * from event_trigger_lines
    union all select * from default_acl_lines
    union all select * from setting_lines
    union all select * from role_lines
    union all select * from membership_lines
    union all select * from parameter_lines
    union all select * from database_lines
    union all select * from large_object_lines
    union all select * from foreign_lines
    union all select * from operator_lines
    union all select * from text_lines
    union all select * from cast_lines
    union all select * from note_lines
    union all select * from member_privilege_lines
    union all select * from given_lines
) l
left join pg_roles r on r.oid = l.owner
