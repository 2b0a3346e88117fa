-- Shipping costs for every order, and points for those who come again.
-- All or nothing: one file, one transaction.

alter table public.orders add column shipping_cents integer;
alter table public.profiles add column loyalty_points integer not null default 0;

-- Free from 250 euros on.
update public.orders
   set shipping_cents = case when total_cents >= 25000 then 0 else 490 end;

update public.profiles as p
   set loyalty_points = earned.points
  from (select customer_id, (sum(total_cents) / 1000)::integer as points
          from public.orders
         where status in ('paid', 'shipped', 'delivered')
         group by customer_id) as earned
 where earned.customer_id = p.id;

alter table public.orders
    alter column shipping_cents set default 490,
    alter column shipping_cents set not null,
    add constraint shipping_not_negative check (shipping_cents >= 0);
alter table public.profiles
    add constraint points_not_negative check (loyalty_points >= 0);

grant select (loyalty_points) on public.profiles to authenticated;
