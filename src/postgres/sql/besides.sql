-- Sequences and large objects that were there when measuring began, and are not as they were. One that was made
-- again has its name alone.
select was.name, now.value, now.called, null::oid as large_object
from supa_safe_rehearsal.sequence was
join supa_safe_rehearsal.sequences() now
    on now.id = was.id
        or now.name = was.name and not exists (select from pg_class c where c.oid = was.id)
where (was.value, was.called) <> (now.value, now.called)
union all
select null, null, null, was.id
from supa_safe_rehearsal.large_object was
left join supa_safe_rehearsal.large_objects now using (id)
where (was.owner, was.acl, was.content) is distinct from (now.owner, now.acl, now.content)
order by 1, 4
