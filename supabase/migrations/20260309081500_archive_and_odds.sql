-- The archive, and one table with every kind of value that a dump has to carry
-- unharmed. Ugly names and shapes are on purpose: real databases have them.

-- The paper that came with an order; the bytes are large objects.
create table public.documents (
    id integer generated always as identity primary key,
    order_id bigint references public.orders on delete set null,
    title text not null,
    content oid not null,
    sha256 bytea not null check (octet_length(sha256) = 32)
);
alter table public.documents enable row level security;

create type public.mood as enum ('', 'sad', 'ok', 'it''s "great"', '😀');
create type public.percentages as range (subtype = numeric);

create table public.value_zoo (
    id smallint primary key,
    "as text" text,
    padded character(5),
    short character varying(12),
    small_number smallint,
    big_number bigint,
    exact numeric,
    scaled numeric(12, 4),
    single real,
    wide double precision,
    price money,
    yes boolean,
    bytes bytea,
    bits bit varying(16),
    day date,
    at_time time,
    at_time_zone timetz,
    stamp timestamp,
    moment timestamptz,
    lasting interval,
    host inet,
    network cidr,
    hardware macaddr,
    uid uuid,
    loose json,
    tight jsonb,
    page xml,
    words tsvector,
    asked tsquery,
    place point,
    shape polygon,
    numbers integer[],
    grid text[],
    span int4range,
    spans datemultirange,
    share public.percentages,
    home public.postal_address,
    homes public.postal_address[],
    feeling public.mood,
    code public.sku,
    wal pg_lsn,
    path jsonpath,
    t text
);
comment on table public.value_zoo is 'Quotes '' and " and \ in a comment,
on two lines.';
comment on column public.value_zoo.t is 'A column named t: `t::text` means it, not the row.';

-- A name that has to be quoted everywhere.
create table public."Gift Cards" (
    "Code ""x""" text primary key,
    "select" integer not null default 0,
    "größe" text
);
alter table public."Gift Cards" enable row level security;
create index "Gift Cards: by größe" on public."Gift Cards" ("größe");

-- No key, equal rows, a column that was dropped, another that came later.
create table public.legacy_import (
    line text,
    gone integer,
    source text
);
alter table public.legacy_import drop column gone;
alter table public.legacy_import add column imported_on date default '2026-03-09';
alter table public.legacy_import replica identity full;
revoke all on public.legacy_import from anon, authenticated;

create unlogged table public.sessions_cache (
    key text primary key,
    value jsonb
);
revoke all on public.sessions_cache from anon, authenticated;

-- Inheritance as it was before there were partitions.
create table public.notes (
    id serial primary key,
    body text
);
create table public.internal_notes (
    written_by name not null default current_user
) inherits (public.notes);
revoke all on public.notes, public.internal_notes from anon, authenticated;

create table public.feature_flags (
    name text primary key,
    enabled boolean not null default false
);
alter table public.feature_flags enable row level security;
comment on table public.feature_flags is 'Empty so far.';

-- Numbers for invoices: runs backwards, and no table owns it.
create sequence public.invoice_number as integer
    increment by -1 minvalue 1 maxvalue 999999 start with 999999 cache 5 cycle;
