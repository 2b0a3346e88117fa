-- Stand-in for pg_cron 1.6: jobs are stored and never run. As with the real one
-- the schema belongs to the extension, and both tables and both sequences are
-- dumped although they do.
\echo Use "CREATE EXTENSION pg_cron" to load this file. \quit

create schema cron;

create sequence cron.jobid_seq;
create table cron.job (
    jobid    bigint primary key default nextval('cron.jobid_seq'),
    schedule text not null,
    command  text not null,
    nodename text not null default 'localhost',
    nodeport integer not null default inet_server_port(),
    database text not null default current_database(),
    username text not null default current_user,
    active   boolean not null default true,
    jobname  text,
    constraint jobname_username_uniq unique (jobname, username)
);
alter table cron.job enable row level security;
create policy cron_job_policy on cron.job using (username = current_user);

create sequence cron.runid_seq;
create table cron.job_run_details (
    jobid          bigint,
    runid          bigint primary key default nextval('cron.runid_seq'),
    job_pid        integer,
    database       text,
    username       text,
    command        text,
    status         text,
    return_message text,
    start_time     timestamptz,
    end_time       timestamptz
);
alter table cron.job_run_details enable row level security;
create policy cron_job_run_details_policy on cron.job_run_details
    using (username = current_user);

grant usage on schema cron to public;
grant select on cron.job, cron.jobid_seq, cron.runid_seq to public;
grant select, delete on cron.job_run_details to public;

-- The real functions are written in C and store the calling role. Inside a
-- SECURITY DEFINER function that is the role set by SET ROLE, or else the login.
create function cron.schedule(job_name text, schedule text, command text) returns bigint
    language sql security definer set search_path = ''
    as $$
    insert into cron.job as job (jobname, schedule, command, nodeport, username)
    values (job_name, schedule, command, coalesce(pg_catalog.inet_server_port(), 5432),
            coalesce(nullif(pg_catalog.current_setting('role'), 'none'), session_user))
    on conflict on constraint jobname_username_uniq
    do update set schedule = excluded.schedule, command = excluded.command
    returning job.jobid
    $$;

create function cron.schedule(schedule text, command text) returns bigint
    language sql
    as $$ select cron.schedule(null, schedule, command) $$;

create function cron.unschedule(job_name text) returns boolean
    language sql security definer set search_path = ''
    as $$
    with gone as (
        delete from cron.job
         where jobname = job_name
           and username = coalesce(nullif(pg_catalog.current_setting('role'), 'none'), session_user)
        returning 1
    )
    select exists (select from gone)
    $$;

create function cron.unschedule(job_id bigint) returns boolean
    language sql security definer set search_path = ''
    as $$
    with gone as (
        delete from cron.job
         where jobid = job_id
           and username = coalesce(nullif(pg_catalog.current_setting('role'), 'none'), session_user)
        returning 1
    )
    select exists (select from gone)
    $$;

create function cron.alter_job(
    job_id bigint, schedule text default null, command text default null,
    database text default null, username text default null, active boolean default null
) returns void
    language sql security definer set search_path = ''
    as $$
    update cron.job as job
       set schedule = coalesce(alter_job.schedule, job.schedule),
           command = coalesce(alter_job.command, job.command),
           database = coalesce(alter_job.database, job.database),
           username = coalesce(alter_job.username, job.username),
           active = coalesce(alter_job.active, job.active)
     where jobid = job_id
    $$;
revoke all on function cron.alter_job(bigint, text, text, text, text, boolean) from public;

select pg_catalog.pg_extension_config_dump('cron.job', '');
select pg_catalog.pg_extension_config_dump('cron.jobid_seq', '');
select pg_catalog.pg_extension_config_dump('cron.job_run_details', '');
select pg_catalog.pg_extension_config_dump('cron.runid_seq', '');
