-- What customers do after the push, before anybody notices that it was a mistake.
insert into auth.users (id, email, raw_user_meta_data, created_at, updated_at)
values ('5afe5afe-0000-4000-8000-000000000001', 'late@example.com', '{"name": "Late"}', now(), now());
with placed as (
    insert into public.orders (customer_id, status, placed_at)
    select p.id, 'placed', now() from public.profiles p order by p.id limit 1
    returning id
)
insert into public.order_items (order_id, line, product_id, quantity, unit_cents)
select placed.id, 1, (select min(id) from public.products), 1, 4200 from placed;
insert into public.product_notes (product_id, note) select min(id), 'looks fine' from public.products;
