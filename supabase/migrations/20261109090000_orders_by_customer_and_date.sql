-- Alone in its file: it cannot run in a transaction, so it is not all-or-nothing.
create index concurrently orders_customer_placed_idx on public.orders (customer_id, placed_at desc);
