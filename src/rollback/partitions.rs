//! Partitions, and the partitioned tables above them, as a fingerprint tells them.

use super::names;
use crate::fingerprint::{Difference, Fingerprint, Line};
use serde_json::Value;
use std::collections::BTreeMap;
use std::iter;

/// Each partition, with the name of the table that it is right below.
pub(super) fn all(fingerprint: &Fingerprint) -> impl Iterator<Item = (&Line, String)> {
    let tables = fingerprint.lines().iter().filter(|line| line.kind == "table");
    tables.filter_map(|line| {
        let fields: Value = serde_json::from_str(&line.definition).ok()?;
        fields.get("partition bound")?;
        Some((line, fields.get("inherits")?.as_array()?.first()?.as_str()?.to_owned()))
    })
}

/// The same by schema and name.
pub(super) fn parents(fingerprint: &Fingerprint) -> BTreeMap<(String, String), (String, String)> {
    let named = |(line, parent): (&Line, String)| {
        Some((names::qualified(&line.identity)?, names::qualified(&parent)?))
    };
    all(fingerprint).filter_map(named).collect()
}

/// How many partitioned tables a column's table is below: a column of a partition follows the parent's, and
/// cannot go before it.
pub(super) fn depth(
    parents: &BTreeMap<(String, String), (String, String)>,
    difference: &Difference,
) -> usize {
    let table = names::column(&difference.identity).filter(|_| difference.kind == "column");
    let table = table.and_then(|(table, _)| names::qualified(table));
    iter::successors(table.as_ref(), |table| parents.get(*table)).count()
}
