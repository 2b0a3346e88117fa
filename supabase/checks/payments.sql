-- Nobody paid more than was due, and whatever left the shop was paid for.
select o.id, o.status, o.total_cents, coalesce(sum(p.cents), 0) as paid_cents
  from public.orders as o
  left join public.payments as p on p.order_id = o.id
 group by o.id
having coalesce(sum(p.cents), 0) > o.total_cents
    or (o.status in ('paid', 'shipped', 'delivered') and coalesce(sum(p.cents), 0) <> o.total_cents);
