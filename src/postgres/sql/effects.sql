-- What happened to each table between two marks, by version; the first mark is the state before, and one without a
-- version is where a push began again. A table that
-- has the name of another one that was there at first was made again, and has lost what that one held.
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
    coalesce(was.filenode is not null and was.filenode is distinct from now.filenode, false)
        or coalesce(namesake.oid <> now.oid and last.oid is distinct from now.oid, false) as rewritten,
    (select array_agg(l.mode order by l.mode) from supa_safe_rehearsal.lock l
     where l.mark = s.id and l.oid = now.oid and was.oid is not null and l.mode <> 'RowExclusiveLock') as locks,
    was.oid is not null and exists (
        select from supa_safe_rehearsal.lock l
        where l.mark = s.id and l.oid = now.oid and l.mode = 'RowExclusiveLock') as reached
from span s
join supa_safe_rehearsal.seen now on now.mark = s.id
left join supa_safe_rehearsal.seen was on was.mark = s.before and was.oid = now.oid
left join supa_safe_rehearsal.seen last on last.mark = s.before and last.name = now.name
left join supa_safe_rehearsal.seen namesake
    on namesake.name = now.name and namesake.mark = (select min(id) from supa_safe_rehearsal.mark)
where s.before is not null and s.version is not null
order by s.id, now.name
