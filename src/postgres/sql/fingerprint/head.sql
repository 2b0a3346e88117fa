-- The catalog query of `postgres::catalog::fingerprint`, put together from the
-- files of this folder: head, one file per family of objects, tail.
--
-- Every `…_lines` has the same columns, and tail.sql turns them into lines:
--   kind, identity  what a person calls the object; no object ids, no database name
--   fields          the definition as jsonb; null and absent mean "as created by default"
--   subject         what decides the class when that is not `kind` itself
--   schema_name     where the object, or the table that carries it, lives
--   owner           the role that owns it, or that it is about
--   partner         schema of the called function, or the member of a membership
--   acl             privileges, never null where the object has any
--
-- Members of extensions are left out: `create extension` brings them.
with member as materialized (
    select d.classid, d.objid, e.extname::text as extension
    from pg_depend d
    join pg_extension e on e.oid = d.refobjid
    where d.refclassid = 'pg_extension'::regclass and d.deptype = 'e'
),
-- A write pause comes and goes with a run (postgres::pause).
pause as materialized (
    select n.oid from pg_namespace n
    where n.nspname = 'supa_safe' and obj_description(n.oid, 'pg_namespace') like '{"supa_safe":"pause",%'
),
home as materialized (
    select n.oid, n.nspname::text as schema_name
    from pg_namespace n
    where n.nspname !~ '^pg_' and n.nspname <> 'information_schema' and n.oid not in (select p.oid from pause p)
),
-- A composite type is a member by its row in pg_type, not in pg_class.
relation as materialized (
    select c.oid, c.relkind, c.relhassubclass, h.schema_name, m.extension,
        c.oid::regclass::text as identity, c.relowner as owner
    from pg_class c
    join home h on h.oid = c.relnamespace
    left join member m
        on m.classid = case c.relkind when 'c' then 'pg_type'::regclass else 'pg_class'::regclass end
        and m.objid = case c.relkind when 'c' then c.reltype else c.oid end
    where c.relkind in ('r', 'p', 'v', 'm', 'f', 'S', 'c') and c.relpersistence <> 't'
),
-- Values of other options may be secrets (`api_key`, `password`): only their names are taken.
plain_option as materialized (
    select array['host', 'hostaddr', 'port', 'dbname', 'schema_name', 'table_name', 'column_name',
        'schema', 'table', 'object', 'resource', 'rowid_column', 'key_column', 'updatable',
        'truncatable', 'use_remote_estimate', 'fetch_size', 'batch_size', 'async_capable',
        'fdw_startup_cost', 'fdw_tuple_cost', 'extensions', 'format', 'filename', 'header',
        'delimiter', 'quote', 'escape', 'null', 'encoding'] as names
),
