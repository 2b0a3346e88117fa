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

/// Runs every check in a read-only transaction of its own.
pub async fn run(client: &Client, checks: &[(String, String)]) -> Result<Vec<Found>, Error> {
    let mut found = Vec::with_capacity(checks.len());
    for (check, sql) in checks {
        client.batch_execute("begin isolation level repeatable read read only").await?;
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
