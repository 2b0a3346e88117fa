//! What a failed run must leave as it is, and a rollback give back.

use super::{ADMIN, Session, World};
use std::collections::BTreeMap;
use supa_safe::fingerprint::Class;

/// The tables and materialized views of the project, wherever they are, and those of Auth and Storage.
const TABLES: &str = "select format('%I.%I', n.nspname, c.relname) from pg_catalog.pg_class c
        join pg_catalog.pg_namespace n on n.oid = c.relnamespace
    where c.relkind in ('r', 'm') and c.relispopulated and c.relpersistence <> 't'
        and (c.relowner = 'postgres'::pg_catalog.regrole or n.nspname in ('auth', 'storage'))
    order by 1";

/// Attributes, memberships, and settings of all roles, and the settings of the database, as the server has them.
/// Passwords are masked in there. The term of the CLI's temporary role is the platform's to set, and before
/// Postgres 16 nobody says who granted a membership, for the server does not care.
const ROLES: &str = "select format('role %s', pg_catalog.to_jsonb(r) - 'oid'
            - case when r.rolname = 'cli_login_postgres' then 'rolvaliduntil' else '' end)
        from pg_catalog.pg_roles r
    union all
    select format('membership of %s in %s by %s: %s', m.member::pg_catalog.regrole, m.roleid::pg_catalog.regrole,
            case when pg_catalog.current_setting('server_version_num')::int >= 160000 then m.grantor::pg_catalog.regrole end,
            pg_catalog.to_jsonb(m) - '{oid,member,roleid,grantor}'::text[])
        from pg_catalog.pg_auth_members m
    union all
    select format('settings of %s in %s: %s', s.setrole::pg_catalog.regrole,
            case s.setdatabase when 0 then 'all databases' else 'this database' end,
            (select pg_catalog.array_agg(one order by one) from pg_catalog.unnest(s.setconfig) one))
        from pg_catalog.pg_db_role_setting s
        where s.setdatabase in (0, (select oid from pg_catalog.pg_database where datname = pg_catalog.current_database()))
    order by 1";

impl World {
    /// The owned fingerprint, the roles, and count and content of every table of the project. But for the first,
    /// nothing of it is read by the program's own code.
    pub(crate) fn state(&self) -> Vec<String> {
        let fingerprint = self.fingerprint();
        let owned = fingerprint.lines().iter().filter(|line| line.class == Class::Owned);
        let mut state: Vec<String> =
            owned.map(|line| format!("{} {}: {}", line.kind, line.identity, line.definition)).collect();
        let session = self.session(ADMIN);
        state.extend(session.run(ROLES));
        state.extend(session.contents());
        state
    }

    /// What `pg_dump` says of the whole database but its rows, line by line in an order of its own: privileges are
    /// listed in the order in which they were given.
    pub(crate) fn dumped(&self) -> Vec<String> {
        let mut dump = self.program(self.variable("SUPA_SAFE_PG_BIN").join("pg_dump"));
        let dump = dump.args(["--schema-only", "--dbname", &self.url()]);
        let ran = self.finish(dump.env("PGPASSWORD", &self.place().password)).exits(0);
        let mut lines: Vec<String> = ran.stdout.lines().map(str::to_owned).collect();
        lines.retain(|line| !line.starts_with('\\'));
        lines.sort_unstable();
        lines
    }
}

/// Demands the same lines, each as often, in whatever order.
pub(crate) fn same(before: &[String], after: &[String]) -> Result<(), String> {
    let mut counts: BTreeMap<&str, i64> = BTreeMap::new();
    for (lines, one) in [(before, -1), (after, 1)] {
        for line in lines {
            *counts.entry(line).or_default() += one;
        }
    }
    let differ = counts.into_iter().filter(|(_, count)| *count != 0);
    let found: Vec<String> = differ.map(|(line, count)| format!("{count:+} {line}")).collect();
    if found.is_empty() { Ok(()) } else { Err(found.join("\n")) }
}

impl Session {
    /// Count and content of every table of the project and of Auth and Storage, as this session sees them.
    pub(crate) fn contents(&self) -> Vec<String> {
        let measured = |table: &String| {
            let quoted = table.replace('\'', "''");
            format!(
                "select '{quoted}', count(*), sum(hashtextextended((t.*)::text, 0)::numeric) from {table} t"
            )
        };
        let tables: Vec<String> = self.run(TABLES).iter().map(measured).collect();
        self.run(&tables.join(" union all "))
    }
}
