-- Rows of accounts that are not as they were when measuring began; a column that came since is no change.
with found as (
    select name, id, was.content as before, now.content as after
    from supa_safe_rehearsal.managed was
    full join supa_safe_rehearsal.managed_rows() now using (name, id)
    where was.content is distinct from now.content
)
select f.name,
    coalesce(array_agg(f.id order by f.id) filter (where f.after is null), '{}') as gone,
    coalesce(array_agg(f.id order by f.id) filter (where f.before is null), '{}') as added,
    array(
        select distinct k.name
        from found c
        cross join lateral jsonb_object_keys(c.before) k (name)
        where c.name = f.name and c.after is not null and c.before -> k.name is distinct from c.after -> k.name
        order by 1
    ) as columns
from found f
group by f.name
order by f.name desc
