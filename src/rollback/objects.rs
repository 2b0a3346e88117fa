//! Rows of the user's tables that refer to objects of Storage.

use super::{Error, Work, names};
use crate::manifest::TableRows;
use std::collections::BTreeSet;

impl Work<'_> {
    /// Whether an object that is not there is one that users removed: what the push did to the rows of
    /// Storage goes back, or is known to be nothing.
    pub(super) fn knows_objects(&self) -> bool {
        self.task.storage.is_some()
    }

    /// Demands that no row of the tables refers to an object that the push may have removed and that does not
    /// come back: it could only come back without the row, or not at all.
    pub(super) async fn demand_objects(&self, tables: &[&TableRows]) -> Result<(), Error> {
        if self.knows_objects() {
            return Ok(());
        }
        let ours: BTreeSet<(&str, &str)> =
            tables.iter().map(|table| (table.schema.as_str(), table.name.as_str())).collect();
        let is_one = |name: &str| {
            names::qualified(name)
                .is_some_and(|(schema, name)| ours.contains(&(schema.as_str(), name.as_str())))
        };
        let mut lost = Vec::new();
        for key in self.keys.iter().filter(|key| key.is_valid && key.is_into_storage() && is_one(&key.table))
        {
            let sql = format!("select count(*) from {} t where {}", key.table, key.dangles());
            let rows: i64 = self.client.query_one(&sql, &[]).await?.get(0);
            if rows > 0 {
                let (table, refers_to) = (&key.table, &key.refers_to);
                lost.push(format!(
                    "{rows} rows of {table} refer to rows of {refers_to} that are gone, and these do not go back"
                ));
            }
        }
        if lost.is_empty() { Ok(()) } else { Err(Error::Objects(lost)) }
    }
}
