-- Every account has a profile, and the other way round.
select coalesce(u.id, p.id) as id, u.id is null as account_missing
  from auth.users as u
  full join public.profiles as p on p.id = u.id
 where u.id is null or p.id is null;
