-- What happens in the shop, and what is read from it.

create schema analytics;
comment on schema analytics is 'Not served by the Data API.';

do $$
begin
    -- A role belongs to the server, so another database may have made it.
    if not exists (select from pg_roles where rolname = 'shop_reporting') then
        create role shop_reporting nologin;
        alter role shop_reporting set statement_timeout = '30s';
    end if;
end
$$;
grant usage on schema analytics to shop_reporting, service_role;
alter default privileges in schema analytics grant select on tables to shop_reporting;
-- In every schema, from here on: a function is for those who were told.
alter default privileges revoke execute on functions from public;

create table analytics.events (
    id bigint generated always as identity,
    happened_at timestamptz not null,
    kind text not null,
    customer_id uuid references public.profiles on delete set null,
    product_id bigint,
    details jsonb,
    primary key (id, happened_at)
) partition by range (happened_at);
create index events_kind_idx on analytics.events (kind, happened_at);

create table analytics.events_2026_01 partition of analytics.events
    for values from ('2026-01-01 00:00:00+00') to ('2026-02-01 00:00:00+00');
create table analytics.events_2026_02 partition of analytics.events
    for values from ('2026-02-01 00:00:00+00') to ('2026-03-01 00:00:00+00');
-- Spring was busy: one more level.
create table analytics.events_2026_03 partition of analytics.events
    for values from ('2026-03-01 00:00:00+00') to ('2026-04-01 00:00:00+00')
    partition by hash (id);
create table analytics.events_2026_03_a partition of analytics.events_2026_03
    for values with (modulus 2, remainder 0);
create table analytics.events_2026_03_b partition of analytics.events_2026_03
    for values with (modulus 2, remainder 1);
create table analytics.events_2026_04 partition of analytics.events
    for values from ('2026-04-01 00:00:00+00') to ('2026-05-01 00:00:00+00')
    with (fillfactor = 90);
create table analytics.events_later partition of analytics.events default;

create view public.order_summaries with (security_invoker = true) as
select o.id, o.status, o.placed_at, o.total_cents, count(i.line) as lines
  from public.orders as o
  left join public.order_items as i on i.order_id = o.id
 group by o.id;
comment on view public.order_summaries is 'One line for each order that the reader may see.';

create view analytics.best_sellers with (security_barrier = true) as
select p.id, p.title, sum(i.quantity) as sold, rank() over (order by sum(i.quantity) desc) as place
  from public.products as p
  join public.order_items as i on i.product_id = p.id
 group by p.id, p.title;

create materialized view analytics.daily_sales as
select (placed_at at time zone 'UTC')::date as day, count(*) as orders, sum(total_cents) as cents
  from public.orders
 where status not in ('cart', 'canceled')
 group by 1;
create unique index daily_sales_day_idx on analytics.daily_sales (day);

-- An inbox that only takes: what is inserted goes to the events.
create view public.event_inbox as
select kind, customer_id, product_id, details from analytics.events where false;
create rule event_inbox_insert as on insert to public.event_inbox do instead
    insert into analytics.events (happened_at, kind, customer_id, product_id, details)
    values (now(), new.kind, new.customer_id, new.product_id, new.details);

create function analytics.larger(bigint, bigint) returns bigint
    language sql immutable parallel safe
    as $$ select greatest($1, $2) $$;
create aggregate analytics.peak(bigint) (sfunc = analytics.larger, stype = bigint, initcond = '0');

create procedure public.drop_stale_carts(older_than interval default '30 days')
    language sql
    as $$
    delete from public.orders where status = 'cart' and placed_at < now() - older_than
    $$;
revoke execute on procedure public.drop_stale_carts(interval) from public, anon, authenticated;
