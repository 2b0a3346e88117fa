-- Rows of accounts that are not as they were when measuring began, by what happened to them; a column that
-- came since is no change. Of more than $1 rows that changed alike the ids are not told.
with found as (
    select name, id, was.content as before, now.content as after
    from supa_safe_rehearsal.managed was
    full join supa_safe_rehearsal.managed_rows() now using (name, id)
    where was.content is distinct from now.content
), told as (
    select f.name, f.id,
        case when f.after is null then 'gone' when f.before is null then 'added' else 'changed' end as what,
        array(
            select k.name
            from jsonb_object_keys(f.before) k (name)
            where f.after is not null and f.before -> k.name is distinct from f.after -> k.name
            order by 1
        ) as columns
    from found f
)
select name, what, columns,
    case when what <> 'changed' or count(*) <= $1 then array_agg(id order by id) end,
    (
        select to_jsonb(max((m.content ->> 'created_at')::timestamptz)) #>> '{}'
        from supa_safe_rehearsal.managed m
        where m.name = told.name
    )
from told
where what <> 'changed' or columns <> '{}'
group by name, what, columns
order by name desc, what, columns
