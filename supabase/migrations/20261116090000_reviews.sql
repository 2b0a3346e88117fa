-- What customers say about what they bought.

create table public.reviews (
    id bigint generated always as identity primary key,
    product_id bigint not null references public.products on delete cascade,
    author_id uuid not null references public.profiles on delete cascade,
    stars smallint not null check (stars between 1 and 5),
    body text,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    unique (product_id, author_id)
);
create index reviews_author_id_idx on public.reviews (author_id);

create trigger reviews_touch before update on public.reviews
    for each row execute function public.touch_updated_at();

alter table public.reviews enable row level security;
create policy "Everybody reads reviews" on public.reviews
    for select to anon, authenticated using (true);
create policy "Customers review what they bought" on public.reviews
    for insert to authenticated
    with check (
        author_id = (select auth.uid())
        and exists (
            select from public.order_items as i
              join public.orders as o on o.id = i.order_id
             where o.customer_id = author_id and i.product_id = reviews.product_id
        )
    );
create policy "Authors take their reviews back" on public.reviews
    for delete to authenticated using (author_id = (select auth.uid()));

revoke all on public.reviews from anon, authenticated;
grant select on public.reviews to anon;
grant select, insert, delete on public.reviews to authenticated;

alter publication supabase_realtime add table public.reviews;
