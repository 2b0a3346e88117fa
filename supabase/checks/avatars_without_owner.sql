-- An avatar lies in the folder of the account that it belongs to.
select o.name
  from storage.objects as o
  left join auth.users as u on u.id::text = o.path_tokens[1]
 where o.bucket_id = 'avatars' and u.id is null;
