-- What happened to each table between two marks, by version; the first mark is the state before.
with span as (
    select m.id, m.version, lag(m.id) over (order by m.id) as before,
        extract(epoch from m.ended - greatest(m.began, lag(m.ended) over (order by m.id)))::float8 as atomic_seconds,
        extract(epoch from m.ended - coalesce(lag(m.ended) over (order by m.id), m.began))::float8 as seconds
    from supa_safe_rehearsal.mark m
)
select s.version, s.atomic_seconds, s.seconds, now.name,
    now.inserted - coalesce(was.inserted, 0) as inserted,
    now.updated - coalesce(was.updated, 0) as updated,
    now.deleted - coalesce(was.deleted, 0) as deleted,
    was.filenode is not null and was.filenode is distinct from now.filenode as rewritten,
    (select array_agg(l.mode order by l.mode) from supa_safe_rehearsal.lock l
     where l.mark = s.id and l.oid = now.oid and was.oid is not null) as locks
from span s
join supa_safe_rehearsal.seen now on now.mark = s.id
left join supa_safe_rehearsal.seen was on was.mark = s.before and was.oid = now.oid
where s.before is not null
order by s.id, now.name
