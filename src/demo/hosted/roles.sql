-- The roles of a hosted Supabase project, as of 2026.
--
-- Run once per server, connected to database `postgres` as `supabase_admin`,
-- the bootstrap role (`initdb -U supabase_admin`). It sets no passwords: who
-- starts the server does. Runs on PostgreSQL 15, 16, and 17, from psql or as
-- one simple query, and stops at the first role that is already there.
--
-- Sources: the expected outputs in `nix/tests/expected` of supabase/postgres
-- (roles.out, z_15_roles.out, z_17_roles.out, realtime.out) and the files in
-- its `migrations/db/migrations`, named below by their dates.
--
-- A vanilla server has no supautils, so role postgres lacks here what that
-- library allows it on the platform: policies on storage.objects, dropping
-- triggers on auth.users, event triggers, and extensions that only a superuser
-- may create. Nothing here is wider than production, except where a comment
-- says so.

-- Roles of the Data API. INHERIT since 2023-05-29.
create role anon nologin inherit;
create role authenticated nologin inherit;
create role service_role nologin inherit bypassrls;
create role authenticator login noinherit;

grant anon, authenticated, service_role to authenticator;

alter role anon set statement_timeout = '3s';
alter role authenticated set statement_timeout = '8s';
-- The platform also sets session_preload_libraries = supautils, safeupdate for
-- authenticator and, since 2026-10-10, for postgres. A server without these
-- libraries would refuse every session, so they are left out.
alter role authenticator set statement_timeout = '8s';
alter role authenticator set lock_timeout = '8s';

-- Roles of the services. They own the objects in schemas auth, storage, and
-- realtime; postgres is a member of none of them since 2025-04-21.
create role supabase_auth_admin login noinherit createrole;
alter role supabase_auth_admin set search_path = 'auth';
alter role supabase_auth_admin set idle_in_transaction_session_timeout = 60000;
alter role supabase_auth_admin set log_statement = 'none';

create role supabase_storage_admin login noinherit createrole;
grant authenticator to supabase_storage_admin;
alter role supabase_storage_admin set search_path = 'storage';
alter role supabase_storage_admin set log_statement = 'none';

create role supabase_realtime_admin login noinherit createrole replication;
grant anon, authenticated, service_role to supabase_realtime_admin;
alter role supabase_realtime_admin set search_path = 'realtime';
grant set on parameter log_min_messages to supabase_realtime_admin;

-- Roles of the platform.
create role dashboard_user nologin createrole createdb replication;
create role pgbouncer login;
create role supabase_replication_admin login replication;
create role supabase_read_only_user login bypassrls;
create role supabase_etl_admin login replication bypassrls;
create role pgtle_admin nologin;
-- 2025-12-15, renamed from supabase_superuser: what supautils asks for.
create role supabase_privileged_role nologin;

grant pg_read_all_data, pg_monitor to supabase_read_only_user, supabase_etl_admin;
grant supabase_privileged_role to supabase_etl_admin;

alter role supabase_admin set search_path = "$user", public, auth, extensions;
alter role supabase_admin set log_statement = 'none';

-- The role of the project's owner, and of everything that supa-safe does.
create role postgres login nosuperuser inherit createrole createdb replication bypassrls;
-- The backslash is the platform's own: psql does not unescape it, so the first
-- entry names a schema `\$user`, which never exists. Kept, since a fingerprint
-- of role settings has to carry it unharmed.
alter role postgres set search_path = "\$user", public, extensions;

grant supabase_privileged_role, pgtle_admin to postgres;

do $$
declare
    major constant integer := current_setting('server_version_num')::integer / 10000;
begin
    if major >= 16 then
        -- From 16 on CREATEROLE alone no longer lets a role grant others, so
        -- 2025-06-05 gave postgres these with the admin option.
        grant anon, authenticated, service_role, authenticator,
              pg_monitor, pg_read_all_data, pg_signal_backend
           to postgres with admin option;
        grant pg_create_subscription to postgres;
    else
        grant anon, authenticated, service_role,
              pg_monitor, pg_read_all_data, pg_signal_backend
           to postgres;
        -- Projects of the PG 15 days still carry the roles of pgsodium.
        create role pgsodium_keyiduser nologin;
        create role pgsodium_keyholder nologin;
        create role pgsodium_keymaker nologin;
        grant pgsodium_keyiduser to pgsodium_keyholder, pgsodium_keymaker;
        grant pgsodium_keyholder to pgsodium_keymaker;
    end if;

    -- Comes with pg_net ("Database Webhooks"), and is then granted to postgres.
    -- It is made here and not in a database, where two sessions could race.
    if exists (select from pg_available_extensions where name = 'pg_net') then
        create role supabase_functions_admin login noinherit createrole;
        grant supabase_functions_admin to postgres;
    end if;
end
$$;

-- The temporary login role of the CLI (POST /cli/login-role). Its term is over:
-- a test that needs it sets a password and a new term.
create role cli_login_postgres login noinherit valid until '2026-01-01 00:00:00+00';
grant postgres to cli_login_postgres;

-- Stands in for supautils.privileged_role_allowed_configs. Wider than
-- production in one point: there `set session_replication_role = replica` is
-- allowed, but the same as a startup option (PGOPTIONS) is refused.
grant set on parameter session_replication_role, log_min_duration_statement, log_statement
   to postgres;

alter database postgres owner to postgres;
