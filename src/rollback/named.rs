//! Tables that a person names.

use super::live::{self, Table};
use super::{Error, names};
use crate::fingerprint::Class;
use crate::manifest::{TableRows, qualified};
use crate::store::Snapshot;
use std::collections::BTreeSet;
use tokio_postgres::Client;

/// Names that are offered instead.
const OFFERED: usize = 5;

/// A name that no table of the user's has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unknown {
    /// As it was given.
    pub name: String,
    /// Tables that may be meant.
    pub candidates: Vec<String>,
}

/// Which of the names are of no table, neither in the database nor in the snapshot. A name without its
/// schema is none: tables of several schemas may have it.
pub async fn unknown(client: &Client, snapshot: &Snapshot, named: &[String]) -> Result<Vec<Unknown>, Error> {
    if named.is_empty() {
        return Ok(Vec::new());
    }
    let recorded = snapshot.manifest.database.tables.iter().filter(|table| table.class == Class::Owned);
    let recorded = recorded.map(TableRows::qualified);
    let live = live::tables(client).await?;
    let known: BTreeSet<String> = live.iter().map(Table::qualified).chain(recorded).collect();
    let unknown = named.iter().filter(|name| {
        names::qualified(name).is_none_or(|(schema, name)| !known.contains(&qualified(&schema, &name)))
    });
    Ok(unknown.map(|name| Unknown { name: name.clone(), candidates: candidates(name, &known) }).collect())
}

/// Tables whose own name is like the last part of a name.
fn candidates(name: &str, known: &BTreeSet<String>) -> Vec<String> {
    let last = |name: &str| {
        let last = names::parts(name).and_then(|parts| parts.last().map(|part| names::plain(part)));
        last.unwrap_or_else(|| name.to_owned()).to_lowercase()
    };
    let wanted = last(name);
    let is_like = |known: &&String| {
        let known = last(known);
        known == wanted || (!wanted.is_empty() && (known.contains(&wanted) || wanted.contains(&known)))
    };
    known.iter().filter(is_like).take(OFFERED).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_without_its_schema_or_with_a_slip_is_offered_whole() {
        let known: BTreeSet<String> =
            ["app.orders", "public.\"Orders\"", "public.items"].map(str::to_owned).into();
        assert_eq!(candidates("orders", &known), ["app.orders", "public.\"Orders\""]);
        assert_eq!(candidates("publik.items", &known), ["public.items"]);
        assert_eq!(candidates("public.item", &known), ["public.items"]);
        assert_eq!(candidates("x.y", &known), [""; 0]);
    }
}
