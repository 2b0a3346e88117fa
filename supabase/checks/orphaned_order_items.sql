-- Every line belongs to an order and names a product.
select i.order_id, i.line, i.product_id
  from public.order_items as i
  left join public.orders as o on o.id = i.order_id
  left join public.products as p on p.id = i.product_id
 where o.id is null or p.id is null;
