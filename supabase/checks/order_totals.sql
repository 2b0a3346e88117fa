-- The total of every order is what its lines add up to.
select o.id, o.total_cents, coalesce(sum(i.line_cents), 0) as lines_cents
  from public.orders as o
  left join public.order_items as i on i.order_id = o.id
 group by o.id
having o.total_cents <> coalesce(sum(i.line_cents), 0);
