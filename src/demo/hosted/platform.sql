-- What the platform keeps in the database of a hosted Supabase project, as of
-- 2026: its schemas, their owners and privileges, the tables of Auth, Storage,
-- and Realtime, event triggers, extensions, and a few rows.
--
-- Run after roles.sql, as `supabase_admin`, connected to a fresh database owned
-- by postgres; its name does not matter. From psql or as one simple query, on
-- PostgreSQL 15 to 17. Nothing in it depends on the clock but the partitions of
-- realtime.messages, which the platform, too, makes around the present day.
--
-- Sources: supabase/postgres (migrations/schema-17.sql, nix/tests/expected, and
-- the files in migrations/db/migrations named here by their dates), and the
-- catalogs that the migrations of supabase/auth, supabase/storage, and
-- supabase/realtime of August 2026 leave behind when they are run. Names, columns,
-- keys, owners, and privileges are theirs; some checks and indexes are left out,
-- and of the functions only those are here that policies, triggers, or generated
-- columns call, with bodies of our own.

do $$
begin
    if (select pg_get_userbyid(datdba) from pg_database where datname = current_database()) <> 'postgres' then
        raise exception 'database % must be owned by postgres', current_database();
    end if;
    if current_user <> 'supabase_admin' then
        raise exception 'the platform is set up by supabase_admin, not by %', current_user;
    end if;

    -- Kept by the database, not in it: a copy made with TEMPLATE does not have
    -- these privileges and this setting.
    execute format('grant create on database %I to supabase_auth_admin, supabase_storage_admin, '
                   'supabase_realtime_admin, supabase_etl_admin', current_database());
    execute format('grant all on database %I to dashboard_user', current_database());
    execute format('alter database %I set "app.settings.jwt_exp" to ''3600''', current_database());
end
$$;

-- 2025-11-05. pg_dump writes it out, as an entry of schema pg_catalog.
grant execute on function pg_catalog.pg_reload_conf() to postgres;

--
-- Schemas
--

create schema extensions authorization postgres;
grant usage on schema extensions to anon, authenticated, service_role, supabase_realtime_admin;
grant all on schema extensions to dashboard_user;

create schema auth;
grant usage on schema auth to postgres, anon, authenticated, service_role, supabase_realtime_admin;
grant all on schema auth to supabase_auth_admin, dashboard_user;

create schema storage;
grant usage on schema storage to anon, authenticated, service_role;
grant usage on schema storage to postgres with grant option;
grant all on schema storage to dashboard_user;
grant all on schema storage to supabase_storage_admin with grant option;

create schema realtime;
grant usage on schema realtime to anon, authenticated, service_role;
grant usage on schema realtime to postgres with grant option;
grant all on schema realtime to supabase_realtime_admin with grant option;

create schema graphql;
create schema graphql_public;
grant usage on schema graphql, graphql_public to anon, authenticated, service_role;
grant usage on schema graphql, graphql_public to postgres with grant option;

create schema vault;
grant usage on schema vault to postgres with grant option;
grant usage on schema vault to service_role;

create schema pgbouncer authorization pgbouncer;

grant usage on schema public to postgres, anon, authenticated, service_role;
grant create, usage on schema public to supabase_realtime_admin;

--
-- Default privileges
--
-- Schema public as it is on a project from before 2026-05-30 ("autogrant"): a
-- table that anybody creates there is open to the Data API at once, and only
-- row level security stands in between.

alter default privileges for role postgres in schema public
    grant all on tables to postgres, anon, authenticated, service_role;
alter default privileges for role postgres in schema public
    grant all on sequences to postgres, anon, authenticated, service_role;
alter default privileges for role postgres in schema public
    grant all on functions to postgres, anon, authenticated, service_role;

alter default privileges in schema public
    grant all on tables to postgres, anon, authenticated, service_role;
alter default privileges in schema public
    grant all on sequences to postgres, anon, authenticated, service_role;
alter default privileges in schema public
    grant all on functions to postgres, anon, authenticated, service_role;

-- Schema storage has them for postgres, although it may create nothing there.
alter default privileges for role postgres in schema storage
    grant all on tables to postgres, anon, authenticated, service_role;
alter default privileges for role postgres in schema storage
    grant all on sequences to postgres, anon, authenticated, service_role;
alter default privileges for role postgres in schema storage
    grant all on functions to postgres, anon, authenticated, service_role;

alter default privileges for role supabase_auth_admin in schema auth
    grant all on tables to postgres, dashboard_user;
alter default privileges for role supabase_auth_admin in schema auth
    grant all on sequences to postgres, dashboard_user;
alter default privileges for role supabase_auth_admin in schema auth
    grant all on functions to postgres, dashboard_user;

alter default privileges in schema realtime grant all on tables to postgres, dashboard_user;
alter default privileges in schema realtime grant all on sequences to postgres, dashboard_user;
alter default privileges in schema realtime grant all on functions to postgres, dashboard_user;

alter default privileges in schema graphql, graphql_public
    grant all on tables to postgres, anon, authenticated, service_role;
alter default privileges in schema graphql, graphql_public
    grant all on sequences to postgres, anon, authenticated, service_role;
alter default privileges in schema graphql, graphql_public
    grant all on functions to postgres, anon, authenticated, service_role;

alter default privileges in schema extensions grant all on tables to postgres with grant option;
alter default privileges in schema extensions grant all on sequences to postgres with grant option;
alter default privileges in schema extensions grant all on functions to postgres with grant option;

--
-- Event triggers
--
-- All six belong to supabase_admin; restoring them takes a superuser.

create function extensions.pgrst_ddl_watch() returns event_trigger
    language plpgsql set search_path = ''
as $$
begin
    -- PostgREST listens here and reads the schema again.
    if exists (
        select from pg_catalog.pg_event_trigger_ddl_commands()
         where coalesce(schema_name, '') not in ('pg_temp', 'auth', 'storage', 'realtime')
           and command_tag ~ '^(CREATE|ALTER|COMMENT|SELECT INTO)'
    ) then
        notify pgrst, 'reload schema';
    end if;
end
$$;

create function extensions.pgrst_drop_watch() returns event_trigger
    language plpgsql set search_path = ''
as $$
begin
    if exists (
        select from pg_catalog.pg_event_trigger_dropped_objects()
         where not is_temporary
           and coalesce(schema_name, '') not in ('auth', 'storage', 'realtime')
           and object_type in ('schema', 'table', 'foreign table', 'view', 'materialized view',
                               'function', 'trigger', 'type', 'rule')
    ) then
        notify pgrst, 'reload schema';
    end if;
end
$$;

create function extensions.grant_pg_cron_access() returns event_trigger
    language plpgsql set search_path = ''
as $$
begin
    if not exists (
        select from pg_catalog.pg_event_trigger_ddl_commands() ddl
          join pg_catalog.pg_extension ext on ext.oid = ddl.objid
         where ext.extname = 'pg_cron'
    ) then
        return;
    end if;
    grant usage on schema cron to postgres with grant option;
    alter default privileges for role supabase_admin in schema cron
        grant all on tables to postgres with grant option;
    alter default privileges for role supabase_admin in schema cron
        grant all on sequences to postgres with grant option;
    alter default privileges for role supabase_admin in schema cron
        grant all on functions to postgres with grant option;
    -- Jobs are read here and written through cron.schedule() alone.
    grant select on cron.job to postgres with grant option;
    grant all on cron.job_run_details to postgres with grant option;
    revoke trigger on cron.job_run_details from postgres;
end
$$;
comment on function extensions.grant_pg_cron_access() is 'Grants access to pg_cron';

create function extensions.grant_pg_net_access() returns event_trigger
    language plpgsql set search_path = ''
as $$
begin
    if exists (
        select from pg_catalog.pg_event_trigger_ddl_commands() ddl
          join pg_catalog.pg_extension ext on ext.oid = ddl.objid
         where ext.extname = 'pg_net'
    ) then
        grant usage on schema net
           to supabase_functions_admin, postgres, anon, authenticated, service_role;
    end if;
end
$$;
comment on function extensions.grant_pg_net_access() is 'Grants access to pg_net';

create function extensions.grant_pg_graphql_access() returns event_trigger
    language plpgsql set search_path = ''
as $$
begin
    if exists (
        select from pg_catalog.pg_event_trigger_ddl_commands() ddl
          join pg_catalog.pg_extension ext on ext.oid = ddl.objid
         where ext.extname = 'pg_graphql'
    ) then
        grant usage on schema graphql to postgres, anon, authenticated, service_role;
    end if;
end
$$;
comment on function extensions.grant_pg_graphql_access() is 'Grants access to pg_graphql';

create function extensions.set_graphql_placeholder() returns event_trigger
    language plpgsql set search_path = ''
as $$
begin
    if exists (
        select from pg_catalog.pg_event_trigger_dropped_objects() where schema_name = 'graphql_public'
    ) then
        create or replace function graphql_public.graphql(
            "operationName" text default null, query text default null,
            variables jsonb default null, extensions jsonb default null
        ) returns jsonb
            language sql
            as 'select ''{"errors": [{"message": "pg_graphql extension is not enabled."}]}''::jsonb';
    end if;
end
$$;
comment on function extensions.set_graphql_placeholder() is
    'Reintroduces placeholder function for graphql_public.graphql';

-- pg_graphql is off since 2026-05-18; this placeholder answers.
create function graphql_public.graphql(
    "operationName" text default null, query text default null,
    variables jsonb default null, extensions jsonb default null
) returns jsonb
    language sql
    as 'select ''{"errors": [{"message": "pg_graphql extension is not enabled."}]}''::jsonb';

create event trigger issue_pg_cron_access on ddl_command_end
    when tag in ('CREATE EXTENSION') execute function extensions.grant_pg_cron_access();
create event trigger issue_pg_net_access on ddl_command_end
    when tag in ('CREATE EXTENSION') execute function extensions.grant_pg_net_access();
create event trigger issue_pg_graphql_access on ddl_command_end
    when tag in ('CREATE EXTENSION') execute function extensions.grant_pg_graphql_access();
create event trigger issue_graphql_placeholder on sql_drop
    when tag in ('DROP EXTENSION') execute function extensions.set_graphql_placeholder();
create event trigger pgrst_ddl_watch on ddl_command_end
    execute function extensions.pgrst_ddl_watch();
create event trigger pgrst_drop_watch on sql_drop
    execute function extensions.pgrst_drop_watch();

--
-- Extensions
--
-- Those of the list that this server has. The last three are stubs (see
-- extensions/) and only on a server that plays the platform, so that a dump of
-- it names extensions that the binaries of a rehearsal lack.

do $$
declare
    extension text;
    home text;
begin
    for extension, home in
        select name, schema
          from (values (1, 'pgcrypto', 'extensions'), (2, 'uuid-ossp', 'extensions'),
                       (3, 'pg_stat_statements', 'extensions'), (4, 'supabase_vault', 'vault'),
                       (5, 'pg_net', 'extensions'), (6, 'pg_cron', null)) as wanted (rank, name, schema)
          join pg_available_extensions using (name)
         order by rank
    loop
        if home is null then
            execute format('create extension %I', extension);
        else
            execute format('create extension %I with schema %I', extension, home);
        end if;
    end loop;

    if to_regclass('vault.secrets') is not null then
        -- Not INSERT and UPDATE: secrets are written by vault.create_secret().
        grant select, delete on vault.secrets, vault.decrypted_secrets to postgres with grant option;
        grant select, delete on vault.secrets, vault.decrypted_secrets to service_role;
        grant execute on function vault.create_secret, vault.update_secret,
                                  vault._crypto_aead_det_decrypt to postgres with grant option;
        grant execute on function vault.create_secret, vault.update_secret,
                                  vault._crypto_aead_det_decrypt to service_role;
    end if;
end
$$;

-- From the first set-up of the platform: one ACL entry in the dump for every
-- function of an extension.
grant all on all tables in schema extensions to dashboard_user;
grant all on all routines in schema extensions to dashboard_user;

--
-- Auth
--
-- All objects are made by supabase_auth_admin, so that its default privileges
-- give postgres and dashboard_user everything on them but ownership. The shape
-- is that of supabase/auth of August 2026: 23 tables.

set role supabase_auth_admin;

create function auth.jwt() returns jsonb
    language sql stable
    as $$ select nullif(pg_catalog.current_setting('request.jwt.claims', true), '')::jsonb $$;

create function auth.uid() returns uuid
    language sql stable
    as $$
    select coalesce(nullif(pg_catalog.current_setting('request.jwt.claim.sub', true), ''),
                    auth.jwt() ->> 'sub')::uuid
    $$;
comment on function auth.uid() is 'Deprecated. Use auth.jwt() -> ''sub'' instead.';

create function auth.role() returns text
    language sql stable
    as $$
    select coalesce(nullif(pg_catalog.current_setting('request.jwt.claim.role', true), ''),
                    auth.jwt() ->> 'role')
    $$;
comment on function auth.role() is 'Deprecated. Use auth.jwt() -> ''role'' instead.';

create function auth.email() returns text
    language sql stable
    as $$
    select coalesce(nullif(pg_catalog.current_setting('request.jwt.claim.email', true), ''),
                    auth.jwt() ->> 'email')
    $$;
comment on function auth.email() is 'Deprecated. Use auth.jwt() -> ''email'' instead.';

create type auth.aal_level as enum ('aal1', 'aal2', 'aal3');
create type auth.code_challenge_method as enum ('s256', 'plain');
create type auth.factor_status as enum ('unverified', 'verified');
create type auth.factor_type as enum ('totp', 'webauthn', 'phone');
create type auth.oauth_authorization_status as enum ('pending', 'approved', 'denied', 'expired');
create type auth.oauth_client_type as enum ('public', 'confidential');
create type auth.oauth_registration_type as enum ('dynamic', 'manual');
create type auth.oauth_response_type as enum ('code');
create type auth.one_time_token_type as enum (
    'confirmation_token', 'reauthentication_token', 'recovery_token',
    'email_change_token_new', 'email_change_token_current', 'phone_change_token'
);

create table auth.schema_migrations (version varchar(255) primary key);
comment on table auth.schema_migrations is 'Auth: Manages updates to the auth system.';

create table auth.instances (
    id uuid primary key, uuid uuid, raw_base_config text,
    created_at timestamptz, updated_at timestamptz
);

create table auth.users (
    instance_id uuid,
    id uuid primary key,
    aud varchar(255),
    role varchar(255),
    email varchar(255),
    encrypted_password varchar(255),
    email_confirmed_at timestamptz,
    invited_at timestamptz,
    confirmation_token varchar(255),
    confirmation_sent_at timestamptz,
    recovery_token varchar(255),
    recovery_sent_at timestamptz,
    email_change_token_new varchar(255),
    email_change varchar(255),
    email_change_sent_at timestamptz,
    last_sign_in_at timestamptz,
    raw_app_meta_data jsonb,
    raw_user_meta_data jsonb,
    is_super_admin boolean,
    created_at timestamptz,
    updated_at timestamptz,
    phone text default null::varchar constraint users_phone_key unique,
    phone_confirmed_at timestamptz,
    phone_change text default ''::varchar,
    phone_change_token varchar(255) default '',
    phone_change_sent_at timestamptz,
    confirmed_at timestamptz generated always as (least(email_confirmed_at, phone_confirmed_at)) stored,
    email_change_token_current varchar(255) default '',
    email_change_confirm_status smallint default 0
        constraint users_email_change_confirm_status_check
        check (email_change_confirm_status between 0 and 2),
    banned_until timestamptz,
    reauthentication_token varchar(255) default '',
    reauthentication_sent_at timestamptz,
    is_sso_user boolean not null default false,
    deleted_at timestamptz,
    is_anonymous boolean not null default false
);
comment on table auth.users is 'Auth: Stores user login data within a secure schema.';
comment on column auth.users.is_sso_user is
    'Auth: Set this column to true when the account comes from SSO. '
    'These accounts can have duplicate emails.';
create index users_instance_id_idx on auth.users (instance_id);
create index users_instance_id_email_idx on auth.users (instance_id, lower(email));
create index users_is_anonymous_idx on auth.users (is_anonymous);
create unique index users_email_partial_key on auth.users (email) where is_sso_user = false;
comment on index auth.users_email_partial_key is
    'Auth: A partial unique index that applies only when is_sso_user is false';
create unique index confirmation_token_idx on auth.users (confirmation_token)
    where confirmation_token !~ '^[0-9 ]*$';
create unique index recovery_token_idx on auth.users (recovery_token)
    where recovery_token !~ '^[0-9 ]*$';
create unique index email_change_token_current_idx on auth.users (email_change_token_current)
    where email_change_token_current !~ '^[0-9 ]*$';
create unique index email_change_token_new_idx on auth.users (email_change_token_new)
    where email_change_token_new !~ '^[0-9 ]*$';
create unique index reauthentication_token_idx on auth.users (reauthentication_token)
    where reauthentication_token !~ '^[0-9 ]*$';

create table auth.identities (
    provider_id text not null,
    user_id uuid not null references auth.users on delete cascade,
    identity_data jsonb not null,
    provider text not null,
    last_sign_in_at timestamptz,
    created_at timestamptz,
    updated_at timestamptz,
    email text generated always as (lower(identity_data ->> 'email')) stored,
    id uuid primary key default gen_random_uuid(),
    constraint identities_provider_id_provider_unique unique (provider_id, provider)
);
comment on table auth.identities is 'Auth: Stores identities associated to a user.';
create index identities_email_idx on auth.identities (email text_pattern_ops);
create index identities_user_id_idx on auth.identities (user_id);

create table auth.oauth_clients (
    id uuid primary key,
    client_secret_hash text,
    registration_type auth.oauth_registration_type not null,
    redirect_uris text not null,
    grant_types text not null,
    client_name text check (char_length(client_name) <= 1024),
    client_uri text check (char_length(client_uri) <= 2048),
    logo_uri text check (char_length(logo_uri) <= 2048),
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    deleted_at timestamptz,
    client_type auth.oauth_client_type not null default 'confidential',
    token_endpoint_auth_method text not null
        check (token_endpoint_auth_method in ('client_secret_basic', 'client_secret_post', 'none'))
);

create table auth.sessions (
    id uuid primary key,
    user_id uuid not null references auth.users on delete cascade,
    created_at timestamptz,
    updated_at timestamptz,
    factor_id uuid,
    aal auth.aal_level,
    not_after timestamptz,
    refreshed_at timestamp,
    user_agent text,
    ip inet,
    tag text,
    oauth_client_id uuid references auth.oauth_clients on delete cascade,
    refresh_token_hmac_key text,
    refresh_token_counter bigint,
    scopes text check (char_length(scopes) <= 4096)
);
comment on table auth.sessions is 'Auth: Stores session data associated to a user.';
create index sessions_user_id_idx on auth.sessions (user_id);
create index sessions_not_after_idx on auth.sessions (not_after desc);
create index user_id_created_at_idx on auth.sessions (user_id, created_at);

create table auth.refresh_tokens (
    instance_id uuid,
    id bigserial primary key,
    token varchar(255) constraint refresh_tokens_token_unique unique,
    user_id varchar(255),
    revoked boolean,
    created_at timestamptz,
    updated_at timestamptz,
    parent varchar(255),
    session_id uuid references auth.sessions on delete cascade
);
comment on table auth.refresh_tokens is
    'Auth: Store of tokens used to refresh JWT tokens once they expire.';
create index refresh_tokens_parent_idx on auth.refresh_tokens (parent);
create index refresh_tokens_session_id_revoked_idx on auth.refresh_tokens (session_id, revoked);

create table auth.mfa_factors (
    id uuid primary key,
    user_id uuid not null references auth.users on delete cascade,
    friendly_name text,
    factor_type auth.factor_type not null,
    status auth.factor_status not null,
    created_at timestamptz not null,
    updated_at timestamptz not null,
    secret text,
    phone text,
    last_challenged_at timestamptz unique,
    web_authn_credential jsonb,
    web_authn_aaguid uuid,
    last_webauthn_challenge_data jsonb
);
comment on table auth.mfa_factors is 'auth: stores metadata about factors';
create unique index mfa_factors_user_friendly_name_unique on auth.mfa_factors (friendly_name, user_id)
    where trim(friendly_name) <> '';
create unique index unique_phone_factor_per_user on auth.mfa_factors (user_id, phone);

create table auth.mfa_challenges (
    id uuid primary key,
    factor_id uuid not null constraint mfa_challenges_auth_factor_id_fkey
        references auth.mfa_factors on delete cascade,
    created_at timestamptz not null,
    verified_at timestamptz,
    ip_address inet not null,
    otp_code text,
    web_authn_session_data jsonb
);

create table auth.mfa_amr_claims (
    session_id uuid not null references auth.sessions on delete cascade,
    created_at timestamptz not null,
    updated_at timestamptz not null,
    authentication_method text not null,
    id uuid constraint amr_id_pk primary key,
    constraint mfa_amr_claims_session_id_authentication_method_pkey
        unique (session_id, authentication_method)
);

create table auth.one_time_tokens (
    id uuid primary key,
    user_id uuid not null references auth.users on delete cascade,
    token_type auth.one_time_token_type not null,
    token_hash text not null check (char_length(token_hash) > 0),
    relates_to text not null,
    created_at timestamp not null default now(),
    updated_at timestamp not null default now()
);
create index one_time_tokens_relates_to_hash_idx on auth.one_time_tokens using hash (relates_to);
create index one_time_tokens_token_hash_hash_idx on auth.one_time_tokens using hash (token_hash);
create unique index one_time_tokens_user_id_token_type_key on auth.one_time_tokens (user_id, token_type);

create table auth.flow_state (
    id uuid primary key,
    user_id uuid,
    auth_code text,
    code_challenge_method auth.code_challenge_method,
    code_challenge text,
    provider_type text not null,
    provider_access_token text,
    provider_refresh_token text,
    created_at timestamptz,
    updated_at timestamptz,
    authentication_method text not null,
    auth_code_issued_at timestamptz,
    invite_token text,
    referrer text,
    oauth_client_state_id uuid,
    linking_target_id uuid,
    email_optional boolean not null default false
);
create index idx_auth_code on auth.flow_state (auth_code);

create table auth.sso_providers (
    id uuid primary key, resource_id text, created_at timestamptz, updated_at timestamptz,
    disabled boolean
);
create unique index sso_providers_resource_id_idx on auth.sso_providers (lower(resource_id));

create table auth.sso_domains (
    id uuid primary key,
    sso_provider_id uuid not null references auth.sso_providers on delete cascade,
    domain text not null constraint "domain not empty" check (char_length(domain) > 0),
    created_at timestamptz,
    updated_at timestamptz
);
create unique index sso_domains_domain_idx on auth.sso_domains (lower(domain));

create table auth.saml_providers (
    id uuid primary key,
    sso_provider_id uuid not null references auth.sso_providers on delete cascade,
    entity_id text not null unique constraint "entity_id not empty" check (char_length(entity_id) > 0),
    metadata_xml text not null,
    metadata_url text,
    attribute_mapping jsonb,
    created_at timestamptz,
    updated_at timestamptz,
    name_id_format text
);

create table auth.saml_relay_states (
    id uuid primary key,
    sso_provider_id uuid not null references auth.sso_providers on delete cascade,
    request_id text not null,
    for_email text,
    redirect_to text,
    created_at timestamptz,
    updated_at timestamptz,
    flow_state_id uuid references auth.flow_state on delete cascade
);

create table auth.oauth_client_states (
    id uuid primary key, provider_type text not null, code_verifier text, created_at timestamptz not null
);

create table auth.oauth_authorizations (
    id uuid primary key,
    authorization_id text not null unique,
    client_id uuid not null references auth.oauth_clients on delete cascade,
    user_id uuid references auth.users on delete cascade,
    redirect_uri text not null,
    scope text not null,
    state text,
    resource text,
    code_challenge text,
    code_challenge_method auth.code_challenge_method,
    response_type auth.oauth_response_type not null default 'code',
    status auth.oauth_authorization_status not null default 'pending',
    authorization_code text unique,
    created_at timestamptz not null default now(),
    expires_at timestamptz not null default now() + interval '3 minutes',
    approved_at timestamptz,
    nonce text,
    constraint oauth_authorizations_expires_at_future check (expires_at > created_at)
);

create table auth.oauth_consents (
    id uuid primary key,
    user_id uuid not null references auth.users on delete cascade,
    client_id uuid not null references auth.oauth_clients on delete cascade,
    scopes text not null,
    granted_at timestamptz not null default now(),
    revoked_at timestamptz,
    constraint oauth_consents_user_client_unique unique (user_id, client_id),
    constraint oauth_consents_revoked_after_granted check (revoked_at is null or revoked_at >= granted_at)
);

create table auth.custom_oauth_providers (
    id uuid primary key default gen_random_uuid(),
    provider_type text not null check (provider_type in ('oauth2', 'oidc')),
    identifier text not null unique,
    name text not null,
    client_id text not null,
    client_secret text not null,
    acceptable_client_ids text[] not null default '{}',
    scopes text[] not null default '{}',
    pkce_enabled boolean not null default true,
    attribute_mapping jsonb not null default '{}',
    authorization_params jsonb not null default '{}',
    enabled boolean not null default true,
    email_optional boolean not null default false,
    issuer text,
    discovery_url text,
    skip_nonce_check boolean not null default false,
    cached_discovery jsonb,
    discovery_cached_at timestamptz,
    authorization_url text,
    token_url text,
    userinfo_url text,
    jwks_uri text,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    custom_claims_allowlist text[] not null default '{}'
);

create table auth.webauthn_challenges (
    id uuid primary key default gen_random_uuid(),
    user_id uuid references auth.users on delete cascade,
    challenge_type text not null check (challenge_type in ('signup', 'registration', 'authentication')),
    session_data jsonb not null,
    created_at timestamptz not null default now(),
    expires_at timestamptz not null
);

create table auth.webauthn_credentials (
    id uuid primary key default gen_random_uuid(),
    user_id uuid not null references auth.users on delete cascade,
    credential_id bytea not null,
    public_key bytea not null,
    attestation_type text not null default '',
    aaguid uuid,
    sign_count bigint not null default 0,
    transports jsonb not null default '[]',
    backup_eligible boolean not null default false,
    backed_up boolean not null default false,
    friendly_name text not null default '',
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    last_used_at timestamptz
);
create unique index webauthn_credentials_credential_id_key on auth.webauthn_credentials (credential_id);

create table auth.audit_log_entries (
    instance_id uuid, id uuid primary key, payload json, created_at timestamptz,
    ip_address varchar(64) not null default ''
);
comment on table auth.audit_log_entries is 'Auth: Audit trail for user actions.';
create index audit_logs_instance_id_idx on auth.audit_log_entries (instance_id);

do $$
declare
    managed regclass;
begin
    -- The tables of the OAuth server and of passkeys came later, without both.
    for managed in
        select oid from pg_class
         where relnamespace = 'auth'::regnamespace and relkind = 'r'
           and relname !~ '^(oauth_|custom_oauth_|webauthn_)'
         order by relname
    loop
        execute format('alter table %s enable row level security', managed);
        execute format('grant select on %s to postgres with grant option', managed);
    end loop;
end
$$;

-- 2025-04-21: postgres reads the history of Auth and writes it no more.
revoke all on auth.schema_migrations from dashboard_user, postgres;
grant select on auth.schema_migrations to postgres with grant option;

insert into auth.schema_migrations (version)
values ('00'), ('20210710035447'), ('20221208132122'), ('20230322519590'), ('20240806073726'),
       ('20251201000000'), ('20260115000000'), ('20260219120000'), ('20260302000000'), ('20260625000000');

reset role;

--
-- Storage
--
-- Ten tables of supabase/storage 1.11.2 (2026-08), owned by supabase_storage_admin.

set role supabase_storage_admin;

create type storage.buckettype as enum ('STANDARD', 'ANALYTICS', 'VECTOR');

create function storage.foldername(name text) returns text[]
    language sql immutable
    as $$
    select (string_to_array(name, '/'))[1:cardinality(string_to_array(name, '/')) - 1]
    $$;

create function storage.filename(name text) returns text
    language sql immutable
    as $$ select split_part(name, '/', -1) $$;

create function storage.extension(name text) returns text
    language sql immutable
    as $$ select split_part(split_part(name, '/', -1), '.', -1) $$;

create function storage.operation() returns text
    language sql stable
    as $$ select current_setting('storage.operation', true) $$;

create function storage.update_updated_at_column() returns trigger
    language plpgsql
as $$
begin
    new.updated_at = now();
    return new;
end
$$;

create function storage.enforce_bucket_name_length() returns trigger
    language plpgsql
as $$
begin
    if length(new.name) > 100 then
        raise exception 'bucket name "%" is too long (% characters). Max is 100.', new.name, length(new.name);
    end if;
    return new;
end
$$;

-- 2026-01-28. TRUNCATE is not covered, there as here.
create function storage.protect_delete() returns trigger
    language plpgsql
as $$
begin
    if coalesce(current_setting('storage.allow_delete_query', true), '') <> 'true' then
        raise exception 'Direct deletion from storage tables is not allowed. Use the Storage API instead.'
            using errcode = 'insufficient_privilege',
                  hint = 'This prevents accidental data loss from orphaned objects.';
    end if;
    return null;
end
$$;

create table storage.migrations (
    id integer primary key,
    name varchar(100) not null unique,
    hash varchar(40) not null,
    executed_at timestamp default current_timestamp
);

create table storage.buckets (
    id text primary key,
    name text not null,
    owner uuid,
    created_at timestamptz default now(),
    updated_at timestamptz default now(),
    public boolean default false,
    avif_autodetection boolean default false,
    file_size_limit bigint,
    allowed_mime_types text[],
    owner_id text,
    type storage.buckettype not null default 'STANDARD',
    versioning_status text not null default 'DISABLED',
    constraint buckets_versioning_dark_check check (versioning_status = 'DISABLED'),
    constraint buckets_versioning_status_check
        check (versioning_status in ('DISABLED', 'ENABLED', 'SUSPENDED')),
    constraint buckets_versioning_standard_only_check
        check (type = 'STANDARD' or versioning_status = 'DISABLED')
);
comment on column storage.buckets.owner is 'Field is deprecated, use owner_id instead';
create unique index bname on storage.buckets (name);

create table storage.objects (
    id uuid primary key default gen_random_uuid(),
    bucket_id text constraint "objects_bucketId_fkey" references storage.buckets,
    name text,
    owner uuid,
    created_at timestamptz default now(),
    updated_at timestamptz default now(),
    last_accessed_at timestamptz default now(),
    metadata jsonb,
    path_tokens text[] generated always as (string_to_array(name, '/')) stored,
    version text,
    owner_id text,
    user_metadata jsonb,
    -- 2026-08-18: columns of a versioning that is not switched on yet.
    archived_at timestamptz,
    is_delete_marker boolean not null default false,
    is_versioned boolean not null default false
);
comment on column storage.objects.owner is 'Field is deprecated, use owner_id instead';
create unique index bucketid_objname on storage.objects (bucket_id, name);
create index name_prefix_search on storage.objects (name text_pattern_ops);
create index idx_objects_bucket_id_name on storage.objects (bucket_id, name collate "C");
create index idx_objects_bucket_id_name_lower on storage.objects (bucket_id, lower(name) collate "C");

create trigger enforce_bucket_name_length_trigger before insert or update of name on storage.buckets
    for each row execute function storage.enforce_bucket_name_length();
create trigger protect_buckets_delete before delete on storage.buckets
    for each statement execute function storage.protect_delete();
create trigger protect_objects_delete before delete on storage.objects
    for each statement execute function storage.protect_delete();
create trigger update_objects_updated_at before update on storage.objects
    for each row execute function storage.update_updated_at_column();

create table storage.s3_multipart_uploads (
    id text primary key,
    in_progress_size bigint not null default 0,
    upload_signature text not null,
    bucket_id text not null references storage.buckets,
    key text collate "C" not null,
    version text not null,
    owner_id text,
    created_at timestamptz not null default now(),
    user_metadata jsonb,
    metadata jsonb
);
create index idx_multipart_uploads_list on storage.s3_multipart_uploads (bucket_id, key, created_at);

create table storage.s3_multipart_uploads_parts (
    id uuid primary key default gen_random_uuid(),
    upload_id text not null references storage.s3_multipart_uploads on delete cascade,
    size bigint not null default 0,
    part_number integer not null,
    bucket_id text not null references storage.buckets,
    key text collate "C" not null,
    etag text not null,
    owner_id text,
    version text not null,
    created_at timestamptz not null default now()
);

create table storage.buckets_analytics (
    name text not null,
    type storage.buckettype not null default 'ANALYTICS',
    format text not null default 'ICEBERG',
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    id uuid primary key default gen_random_uuid(),
    deleted_at timestamptz
);
create unique index buckets_analytics_unique_name_idx on storage.buckets_analytics (name)
    where deleted_at is null;

create table storage.iceberg_namespaces (
    id uuid primary key default gen_random_uuid(),
    bucket_name text not null,
    name text collate "C" not null,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    metadata jsonb not null default '{}',
    catalog_id uuid not null references storage.buckets_analytics on delete cascade
);
create unique index idx_iceberg_namespaces_bucket_id on storage.iceberg_namespaces (catalog_id, name);

create table storage.iceberg_tables (
    id uuid primary key default gen_random_uuid(),
    namespace_id uuid not null references storage.iceberg_namespaces on delete cascade,
    bucket_name text not null,
    name text collate "C" not null,
    location text not null,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    remote_table_id text,
    shard_key text,
    shard_id text,
    catalog_id uuid not null references storage.buckets_analytics on delete cascade
);
create unique index idx_iceberg_tables_location on storage.iceberg_tables (location);
create unique index idx_iceberg_tables_namespace_id on storage.iceberg_tables (catalog_id, namespace_id, name);

create table storage.buckets_vectors (
    id text primary key,
    type storage.buckettype not null default 'VECTOR',
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now()
);

create table storage.vector_indexes (
    id text primary key default gen_random_uuid(),
    name text collate "C" not null,
    bucket_id text not null references storage.buckets_vectors,
    data_type text not null,
    dimension integer not null,
    distance_metric text not null,
    metadata_configuration jsonb,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now()
);
create unique index vector_indexes_name_bucket_id_idx on storage.vector_indexes (name, bucket_id);

do $$
declare
    managed regclass;
begin
    for managed in
        select oid from pg_class
         where relnamespace = 'storage'::regnamespace and relkind = 'r'
         order by relname
    loop
        execute format('alter table %s enable row level security', managed);
    end loop;
end
$$;

-- With the grant option for postgres since 2025-06-23. On all other tables it
-- has nothing of its own and reads them through pg_read_all_data alone.
grant all on storage.buckets, storage.objects to anon, authenticated, service_role;
grant all on storage.buckets, storage.objects to postgres with grant option;
grant all on storage.buckets_analytics to anon, authenticated, service_role;
grant all on storage.iceberg_namespaces, storage.iceberg_tables, storage.s3_multipart_uploads,
             storage.s3_multipart_uploads_parts to service_role;
grant select on storage.iceberg_namespaces, storage.iceberg_tables, storage.s3_multipart_uploads,
                storage.s3_multipart_uploads_parts, storage.buckets_vectors, storage.vector_indexes
   to anon, authenticated;
grant select on storage.buckets_vectors, storage.vector_indexes to service_role;

insert into storage.migrations (id, name, hash, executed_at)
select id, name, substr(encode(sha256(convert_to(name, 'utf8')), 'hex'), 1, 40),
       timestamp '2026-01-01 00:00:00' + id * interval '1 second'
  from (values (0, 'create-migrations-table'), (1, 'initialmigration'), (2, 'storage-schema'),
               (3, 'pathtoken-column'), (16, 'add-version'), (55, 'prevent-direct-deletes'),
               (62, 'object-versioning-core')) as done (id, name);

insert into storage.buckets (id, name, public, file_size_limit, allowed_mime_types, created_at, updated_at)
values ('avatars', 'avatars', true, 5242880, '{image/png,image/jpeg,image/webp}',
        '2026-01-12 09:00:00+00', '2026-01-12 09:00:00+00'),
       ('invoices', 'invoices', false, null, null, '2026-01-19 10:30:00+00', '2026-02-02 08:15:00+00');

reset role;

-- What the project's owner made through supautils.policy_grants. They are the
-- user's, not the platform's, and stand here since postgres cannot make them on
-- a server without that library.
create policy "Anyone can see avatars" on storage.objects
    for select using (bucket_id = 'avatars');
create policy "People manage their own avatar" on storage.objects to authenticated
    using (bucket_id = 'avatars' and (storage.foldername(name))[1] = auth.uid()::text)
    with check (bucket_id = 'avatars' and (storage.foldername(name))[1] = auth.uid()::text);
create policy "People read their own invoices" on storage.objects
    for select to authenticated
    using (bucket_id = 'invoices' and owner_id = auth.uid()::text);

--
-- Realtime
--
-- Made by supabase_admin, so that default privileges apply, then handed over to
-- supabase_realtime_admin (2026-07-07).

create type realtime.action as enum ('INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'ERROR');
create type realtime.equality_op as enum (
    'eq', 'neq', 'lt', 'lte', 'gt', 'gte', 'in', 'like', 'ilike', 'is', 'match', 'imatch', 'isdistinct'
);
create type realtime.user_defined_filter as (
    column_name text, op realtime.equality_op, value text, negate boolean
);
create type realtime.wal_column as (
    name text, type_name text, type_oid oid, value jsonb, is_pkey boolean, is_selectable boolean
);
create type realtime.wal_rls as (
    wal jsonb, is_rls_enabled boolean, subscription_ids uuid[], errors text[]
);

create table realtime.schema_migrations (version bigint primary key, inserted_at timestamp(0));

-- Not immutable in truth, since it looks the role up; the generated column below
-- asks for the claim. A restore of the column's rows needs the roles to be there.
create function realtime.to_regrole(role_name text) returns regrole
    language sql immutable
    as $$ select role_name::regrole $$;

create table realtime.subscription (
    id bigint generated always as identity constraint pk_subscription primary key,
    subscription_id uuid not null,
    entity regclass not null,
    filters realtime.user_defined_filter[] not null default '{}',
    claims jsonb not null,
    claims_role regrole not null generated always as (realtime.to_regrole(claims ->> 'role')) stored,
    created_at timestamp not null default timezone('utc', now()),
    action_filter text default '*' check (action_filter in ('*', 'INSERT', 'UPDATE', 'DELETE')),
    selected_columns text[]
);
create index ix_realtime_subscription_entity on realtime.subscription (entity);

create table realtime.messages (
    topic text not null,
    extension text not null,
    payload jsonb,
    event text,
    private boolean default false,
    updated_at timestamp not null default now(),
    inserted_at timestamp not null default now(),
    id uuid not null default gen_random_uuid(),
    binary_payload bytea,
    primary key (id, inserted_at)
) partition by range (inserted_at);
alter table realtime.messages
    add constraint messages_payload_exclusive
    check (payload is null or binary_payload is null) not valid;
create index messages_inserted_at_topic_index on realtime.messages (inserted_at desc, topic)
    where extension = 'broadcast' and private is true;
alter table realtime.messages enable row level security;

do $$
declare
    day date;
begin
    -- Realtime keeps them from yesterday to three days ahead.
    for day in select current_date + ahead from generate_series(-1, 3) as ahead loop
        execute format('create table realtime.%I partition of realtime.messages for values from (%L) to (%L)',
                       'messages_' || to_char(day, 'YYYY_MM_DD'), day, day + 1);
        execute format('alter table realtime.%I owner to supabase_realtime_admin',
                       'messages_' || to_char(day, 'YYYY_MM_DD'));
    end loop;
end
$$;

create function realtime.topic() returns text
    language sql stable
    as $$ select nullif(pg_catalog.current_setting('realtime.topic', true), '') $$;

create function realtime.send(payload jsonb, event text, topic text, private boolean default true)
    returns void
    language sql
    as $$
    insert into realtime.messages (payload, event, topic, private, extension)
    values (payload, event, topic, private, 'broadcast')
    $$;

create function realtime.subscription_check_filters() returns trigger
    language plpgsql
as $$
begin
    -- The same filters in another order are the same subscription.
    new.filters = coalesce(
        (select array_agg(f order by f.column_name, f.op, f.value) from unnest(new.filters) as f), '{}');
    return new;
end
$$;
create trigger tr_check_filters before insert or update on realtime.subscription
    for each row execute function realtime.subscription_check_filters();

grant select, insert, update on realtime.messages to anon, authenticated, service_role;
grant select on realtime.subscription to anon, authenticated, service_role;
revoke all on realtime.schema_migrations from postgres, dashboard_user;
insert into realtime.schema_migrations (version, inserted_at)
values (20211116024918, '2026-01-01 00:00:00'), (20241108114728, '2026-01-01 00:00:00'),
       (20260709120000, '2026-07-20 00:00:00');

do $$
declare
    command text;
begin
    for command in
        select format('alter type realtime.%I owner to supabase_realtime_admin', typname)
          from pg_type
          left join pg_class on pg_class.oid = typrelid
         where typnamespace = 'realtime'::regnamespace
           and (typtype = 'e' or pg_class.relkind = 'c')
        union all
        select format('alter function %s owner to supabase_realtime_admin', oid::regprocedure)
          from pg_proc where pronamespace = 'realtime'::regnamespace
        union all
        select format('alter table realtime.%I owner to supabase_realtime_admin', relname)
          from pg_class
         where relnamespace = 'realtime'::regnamespace and relname in ('messages', 'subscription')
    loop
        execute command;
    end loop;
end
$$;

--
-- The rest
--

-- Owned by postgres, since it is the user who says what is in it.
create publication supabase_realtime;
alter publication supabase_realtime owner to postgres;

create function pgbouncer.get_auth(p_usename text) returns table (username text, password text)
    language sql security definer set search_path = ''
    as $$
    select rolname::text,
           case when rolvaliduntil < pg_catalog.now() then null else rolpassword end
      from pg_catalog.pg_authid
     where rolname = p_usename and rolcanlogin
    $$;
revoke all on function pgbouncer.get_auth(text) from public;
grant execute on function pgbouncer.get_auth(text) to pgbouncer, postgres;

-- Database Webhooks: only where pg_net is.
do $$
begin
    if to_regnamespace('net') is null then
        return;
    end if;
    create schema supabase_functions;
    grant usage on schema supabase_functions to postgres, anon, authenticated, service_role;
    grant all on schema supabase_functions to supabase_functions_admin;

    create table supabase_functions.migrations (
        version text primary key, inserted_at timestamptz not null default now()
    );
    create table supabase_functions.hooks (
        id bigserial primary key,
        hook_table_id integer not null,
        hook_name text not null,
        created_at timestamptz not null default now(),
        request_id bigint
    );
    create function supabase_functions.http_request() returns trigger
        language plpgsql security definer set search_path = 'supabase_functions'
    as $body$
    declare
        request bigint;
    begin
        request = net.http_post(url => tg_argv[0], body => pg_catalog.jsonb_build_object(
            'type', tg_op, 'table', tg_table_name, 'schema', tg_table_schema,
            'record', case when tg_op <> 'DELETE' then pg_catalog.to_jsonb(new) end));
        insert into supabase_functions.hooks (hook_table_id, hook_name, request_id)
        values (tg_relid::integer, tg_name, request);
        return coalesce(new, old);
    end
    $body$;
    alter table supabase_functions.migrations owner to supabase_functions_admin;
    alter table supabase_functions.hooks owner to supabase_functions_admin;
    alter function supabase_functions.http_request() owner to supabase_functions_admin;
    revoke all on function supabase_functions.http_request() from public;
    grant execute on function supabase_functions.http_request()
       to postgres, anon, authenticated, service_role;
    insert into supabase_functions.migrations (version, inserted_at)
    values ('initial', '2026-01-01 00:00:00+00'), ('20210809183423_update_grants', '2026-01-01 00:00:00+00');
end
$$;
