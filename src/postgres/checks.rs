//! The user's own checks: queries that return no rows when all is well.

use tokio_postgres::{Client, Error, SimpleQueryMessage};

/// What a check found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The check's file.
    pub check: String,
    /// Rows that it returned, or why it could not run.
    pub what: Result<usize, String>,
}

impl Found {
    /// Whether all is well.
    pub fn is_healthy(&self) -> bool {
        self.what == Ok(0)
    }

    /// What is wrong, in words.
    pub fn in_words(&self) -> String {
        match &self.what {
            Ok(rows) => format!("check `{}` returned {rows} rows instead of none", self.check),
            Err(why) => format!("check `{}` could not run: {why}", self.check),
        }
    }
}

/// Takes the search path that the server gives to a role in this database, until the transaction ends.
const SEARCH_PATH: &str = "select pg_catalog.set_config('search_path', coalesce(
        (select pg_catalog.substr(setting, pg_catalog.length('search_path=') + 1)
         from pg_catalog.pg_db_role_setting s, pg_catalog.unnest(s.setconfig) setting
         where setting like 'search\\_path=%'
           and s.setrole in (0, (select oid from pg_catalog.pg_roles where rolname = $1))
           and s.setdatabase in
               (0, (select oid from pg_catalog.pg_database where datname = pg_catalog.current_database()))
         order by s.setrole = 0, s.setdatabase = 0 limit 1),
        (select boot_val from pg_catalog.pg_settings where name = 'search_path')), true)";

/// Runs every check in a read-only transaction of its own, with the names that a role would see.
pub async fn run(client: &Client, role: &str, checks: &[(String, String)]) -> Result<Vec<Found>, Error> {
    let mut found = Vec::with_capacity(checks.len());
    for (check, sql) in checks {
        client.batch_execute("begin isolation level repeatable read read only").await?;
        client.query(SEARCH_PATH, &[&role]).await?;
        let what = match client.simple_query(sql).await {
            Ok(messages) => {
                Ok(messages.iter().filter(|message| matches!(message, SimpleQueryMessage::Row(_))).count())
            }
            Err(error) => match error.as_db_error() {
                Some(db) => Err(format!("{} (SQLSTATE {})", db.message(), db.code().code())),
                None => return Err(error),
            },
        };
        client.batch_execute("rollback").await?;
        found.push(Found { check: check.clone(), what });
    }
    Ok(found)
}
