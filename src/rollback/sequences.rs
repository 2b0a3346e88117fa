//! Sequences that stay where only a part goes back: one that the push moved returns to its place in the
//! snapshot, but not below a row that stays.

use super::{Error, Mode, Work};
use crate::effect::SequenceLeft;
use crate::manifest::SequenceValue;
use std::collections::BTreeMap;
use tokio_postgres::Row;

/// The columns that sequences number, and whether these are plain numbers.
const NUMBERED: &str = "
    select q.name, f.relation::pg_catalog.regclass::text, pg_catalog.quote_ident(a.attname),
        a.atttypid in ('int2'::pg_catalog.regtype, 'int4'::pg_catalog.regtype, 'int8'::pg_catalog.regtype)
    from unnest($1::text[]) q (name)
    join lateral (
        select d.refobjid as relation, d.refobjsubid as number
        from pg_catalog.pg_depend d
        where d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass and d.objid = pg_catalog.to_regclass(q.name)
            and d.refclassid = d.classid and d.deptype in ('a', 'i') and d.refobjsubid > 0
        union
        select v.adrelid, v.adnum
        from pg_catalog.pg_depend d
        join pg_catalog.pg_attrdef v on d.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass and v.oid = d.objid
        where d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
            and d.refobjid = pg_catalog.to_regclass(q.name)
    ) f on true
    join pg_catalog.pg_attribute a on a.attrelid = f.relation and a.attnum = f.number
    order by 2, 3";

/// A column that takes its numbers from a sequence.
struct Numbered {
    table: String,
    column: String,
    is_number: bool,
}

/// The sequences that the push moved, with what the snapshot has of them.
fn moved<'a>(work: &Work<'a>) -> Vec<(&'a SequenceLeft, &'a SequenceValue)> {
    if work.task.mode == Mode::Whole {
        return Vec::new();
    }
    let recorded = &work.task.snapshot.manifest.database.sequences;
    let known = |left: &'a SequenceLeft| Some((left, recorded.iter().find(|was| was.name == left.name)?));
    work.task.besides.sequences.iter().filter_map(known).collect()
}

async fn numbered(work: &Work<'_>) -> Result<BTreeMap<String, Vec<Numbered>>, Error> {
    let mut found: BTreeMap<String, Vec<Numbered>> = BTreeMap::new();
    let names: Vec<&str> = moved(work).iter().map(|(left, _)| left.name.as_str()).collect();
    if names.is_empty() {
        return Ok(found);
    }
    for row in work.client.query(NUMBERED, &[&names]).await? {
        let numbered = Numbered { table: row.get(1), column: row.get(2), is_number: row.get(3) };
        found.entry(row.get(0)).or_default().push(numbered);
    }
    Ok(found)
}

/// Keeps writers from the tables that such sequences number: a number that was given, and is not yet in
/// a row that others see, would be given again.
pub(super) async fn hold(work: &Work<'_>) -> Result<(), Error> {
    let numbered = numbered(work).await?;
    let mut tables: Vec<&str> = numbered.values().flatten().map(|one| one.table.as_str()).collect();
    tables.sort_unstable();
    tables.dedup();
    if tables.is_empty() {
        return Ok(());
    }
    let sql = format!("lock table {} in share row exclusive mode", tables.join(", "));
    work.client.batch_execute(&sql).await.map_err(Error::at("lock the tables of sequences"))
}

/// Turns them back.
pub(super) async fn turn_back(work: &Work<'_>) -> Result<(), Error> {
    let numbered = numbered(work).await?;
    for (left, was) in moved(work) {
        let columns = numbered.get(&left.name).map(Vec::as_slice).unwrap_or_default();
        let ends = |end: &str| -> String {
            let numbers = columns.iter().filter(|one| one.is_number);
            let ends: Vec<String> = numbers
                .map(|one| format!("(select {end}({})::int8 from {})", one.column, one.table))
                .collect();
            ends.join(", ")
        };
        let (highest, lowest) = match ends("max") {
            none if none.is_empty() => ("null::int8".to_owned(), "null::int8".to_owned()),
            highest => (format!("greatest({highest})"), format!("least({})", ends("min"))),
        };
        let name = left.name.as_str();
        let literal = super::inverse::quote_literal(name);
        let sql = format!(
            "select s.last_value, s.is_called, q.seqincrement > 0, {highest}, {lowest} from {name} s \
             join pg_catalog.pg_sequence q on q.seqrelid = {literal}::pg_catalog.regclass"
        );
        let row = work.client.query_one(&sql, &[]).await?;
        let are_all_known = !columns.is_empty() && columns.iter().all(|one| one.is_number);
        let now = Now::read(&row, are_all_known);
        let target = now.place((left.value, left.is_called), (was.value, was.is_called));
        if target != now.at {
            // `setval` alone would outlive a transaction that is not committed: the first statement
            // gives the sequence a file of its own (PostgreSQL documentation, ALTER SEQUENCE).
            let (value, is_called) = target;
            let sql = format!(
                "alter sequence {name} restart; select pg_catalog.setval({literal}, {value}, {is_called})"
            );
            work.client.batch_execute(&sql).await.map_err(Error::at("turn sequences back"))?;
        }
    }
    Ok(())
}

/// What is to be known of a sequence that stands.
#[derive(Clone, Copy, Debug)]
struct Now {
    /// `last_value` and `is_called`.
    at: (i64, bool),
    is_ascending: bool,
    /// The furthest of its numbers in rows.
    furthest: Option<i64>,
    /// Whether all its numbers are in rows.
    are_all_known: bool,
}

impl Now {
    fn read(row: &Row, are_all_known: bool) -> Self {
        let is_ascending: bool = row.get(2);
        let furthest = row.get(if is_ascending { 3 } else { 4 });
        Self { at: (row.get(0), row.get(1)), is_ascending, furthest, are_all_known }
    }

    /// Where it goes: to its place in the snapshot, or as far ahead of it as rows are. One whose numbers
    /// may be anywhere stays ahead when it moved on after the push.
    fn place(self, left: (i64, bool), was: (i64, bool)) -> (i64, bool) {
        let is_beyond = |one: i64, other: i64| if self.is_ascending { one > other } else { one < other };
        let reaches = |number: i64| is_beyond(number, was.0) || (number == was.0 && !was.1);
        let moved_on = !self.are_all_known && self.at != left && self.at.1;
        let numbers = self.furthest.into_iter().chain(moved_on.then_some(self.at.0));
        let furthest = numbers.reduce(|one, other| if is_beyond(other, one) { other } else { one });
        furthest.filter(|number| reaches(*number)).map_or(was, |number| (number, true))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sequence_returns_as_far_as_rows_allow() {
        let check = |at: (i64, bool), furthest: Option<i64>, are_all_known: bool, expected: (i64, bool)| {
            let now = Now { at, is_ascending: true, furthest, are_all_known };
            assert_eq!(now.place((1000, true), (100, true)), expected, "{now:?}");
        };
        check((1000, true), Some(90), true, (100, true));
        check((1002, true), Some(1002), true, (1002, true));
        check((3, true), Some(105), true, (105, true));
        check((1000, true), None, false, (100, true));
        check((1007, true), None, false, (1007, true));
        check((50, true), None, false, (100, true));
        check((1000, true), Some(105), false, (105, true));

        let fresh = Now { at: (9, true), is_ascending: true, furthest: Some(1), are_all_known: true };
        assert_eq!(fresh.place((9, true), (1, false)), (1, true));
        assert_eq!(Now { furthest: None, ..fresh }.place((9, true), (1, false)), (1, false));
        let down = Now { at: (-9, true), is_ascending: false, furthest: Some(-5), are_all_known: true };
        assert_eq!(down.place((-9, true), (-2, true)), (-5, true));
        assert_eq!(down.place((-9, true), (-7, true)), (-7, true));
    }
}
