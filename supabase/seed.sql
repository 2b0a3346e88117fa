-- A few rows for a local stack. It can run again, and on a database that has
-- rows of its own: nothing that is there is changed.

insert into public.categories (slug, name)
values ('samples', 'Samples')
on conflict (slug) do nothing;

insert into public.products (sku, category_id, title, description, net_cents, tags, stock)
select item.sku, c.id, item.title, item.description, item.net_cents, item.tags, item.stock
  from (values ('SMP-00001', 'Sample mug', 'Holds coffee.', 840, '{kitchen}'::text[], 12),
               ('SMP-00002', 'Sample shirt', null, 1680, '{textile,new}', 5),
               ('SMP-00003', 'Sample poster', '', 420, '{}', 0))
       as item (sku, title, description, net_cents, tags, stock)
  join public.categories as c on c.slug = 'samples'
on conflict (sku) do nothing;
