-- Stand-in for pg_net 0.20: requests are queued and never sent, since there is
-- no background worker. As with the real one the schema belongs to the
-- extension and the queue is unlogged and not dumped.
\echo Use "CREATE EXTENSION pg_net" to load this file. \quit

create schema net;

create domain net.http_method as text
    check (lower(value) in ('get', 'post', 'delete'));

create type net.request_status as enum ('PENDING', 'SUCCESS', 'ERROR');
create type net.http_response as (status_code integer, headers jsonb, body text);
create type net.http_response_result as (
    status net.request_status, message text, response net.http_response
);

create unlogged table net.http_request_queue (
    id                   bigserial,
    method               net.http_method not null,
    url                  text not null,
    headers              jsonb,
    body                 bytea,
    timeout_milliseconds integer not null
);

create unlogged table net._http_response (
    id           bigint,
    status_code  integer,
    content_type text,
    headers      jsonb,
    content      text,
    timed_out    boolean,
    error_msg    text,
    created      timestamptz not null default now()
);
create index _http_response_created_idx on net._http_response (created);

create function net.http_get(
    url text, params jsonb default '{}', headers jsonb default '{}',
    timeout_milliseconds integer default 5000
) returns bigint
    language sql security definer set search_path = ''
    as $$
    insert into net.http_request_queue (method, url, headers, timeout_milliseconds)
    values ('GET', url, headers, timeout_milliseconds)
    returning id
    $$;

create function net.http_post(
    url text, body jsonb default '{}', params jsonb default '{}',
    headers jsonb default '{"Content-Type": "application/json"}',
    timeout_milliseconds integer default 5000
) returns bigint
    language sql security definer set search_path = ''
    as $$
    insert into net.http_request_queue (method, url, headers, body, timeout_milliseconds)
    values ('POST', url, headers, pg_catalog.convert_to(body::text, 'utf8'), timeout_milliseconds)
    returning id
    $$;

create function net.http_delete(
    url text, params jsonb default '{}', headers jsonb default '{}',
    timeout_milliseconds integer default 5000, body jsonb default null
) returns bigint
    language sql security definer set search_path = ''
    as $$
    insert into net.http_request_queue (method, url, headers, body, timeout_milliseconds)
    values ('DELETE', url, headers, pg_catalog.convert_to(body::text, 'utf8'), timeout_milliseconds)
    returning id
    $$;
