//! Sequences where only a part goes back: one that the push moved returns to its place in the snapshot,
//! and so does one that came back from the archive, but not below a row that stays.

use super::{Error, Mode, Work, inverse, names};
use crate::archive::Names;
use crate::effect::SequenceLeft;
use crate::fingerprint::{Difference, is_platform_schema};
use crate::manifest::SequenceValue;
use std::collections::{BTreeMap, BTreeSet};
use tokio_postgres::Row;

/// The columns that sequences number, and whether these are plain numbers.
const NUMBERED: &str = "
    select q.name, f.relation::pg_catalog.regclass::text, pg_catalog.quote_ident(a.attname),
        a.atttypid in ('int2'::pg_catalog.regtype, 'int4'::pg_catalog.regtype, 'int8'::pg_catalog.regtype), f.relation
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
    relation: u32,
}

/// What stood before anything went.
#[derive(Debug, Default)]
pub(super) struct Noted {
    tables: BTreeSet<u32>,
    /// Sequences of the snapshot that stood, by their names there: their ids, and the last number that they
    /// gave.
    sequences: BTreeMap<String, (u32, Option<i64>)>,
}

/// A sequence that may have to go to another place.
struct Candidate<'a> {
    was: &'a SequenceValue,
    /// Where the push left it, when it moved it.
    left: Option<&'a SequenceLeft>,
    /// Whether it came back from the archive.
    is_back: bool,
}

/// The sequences that the push moved, with what the snapshot has of them.
fn moved<'a>(work: &Work<'a>) -> impl Iterator<Item = (&'a SequenceLeft, &'a SequenceValue)> {
    let recorded = &work.task.snapshot.manifest.database.sequences;
    let sequences = work.task.besides.sequences.iter().filter(|_| work.task.mode == Mode::Touched);
    sequences.filter_map(|left| Some((left, recorded.iter().find(|was| was.name == left.name)?)))
}

async fn numbered(work: &Work<'_>, names: &[&str]) -> Result<BTreeMap<String, Vec<Numbered>>, Error> {
    let mut found: BTreeMap<String, Vec<Numbered>> = BTreeMap::new();
    if names.is_empty() {
        return Ok(found);
    }
    for row in work.client.query(NUMBERED, &[&names]).await? {
        let numbered =
            Numbered { table: row.get(1), column: row.get(2), is_number: row.get(3), relation: row.get(4) };
        found.entry(row.get(0)).or_default().push(numbered);
    }
    Ok(found)
}

/// Keeps writers from tables: a number that was given, and is not yet in a row that others see, would be
/// given again.
async fn lock(work: &Work<'_>, tables: impl Iterator<Item = &Numbered>) -> Result<(), Error> {
    let tables: BTreeSet<&str> = tables.map(|one| one.table.as_str()).collect();
    if tables.is_empty() {
        return Ok(());
    }
    let tables: Vec<&str> = tables.into_iter().collect();
    let sql = format!("lock table {} in share row exclusive mode", tables.join(", "));
    work.client.batch_execute(&sql).await.map_err(Error::at("lock the tables of sequences"))
}

/// The tables that sequences number which the push moved or changed; names as SQL wants them. Nobody may write to them
/// when it is noted what stands.
pub(super) async fn numbered_tables(
    work: &Work<'_>,
    differences: &[Difference],
) -> Result<Vec<String>, Error> {
    let changed = differences.iter().filter(|difference| difference.kind == "sequence");
    let changed = changed.map(|difference| difference.identity.as_str());
    let names: Vec<&str> = moved(work).map(|(left, _)| left.name.as_str()).chain(changed).collect();
    let numbered = numbered(work, &names).await?;
    Ok(numbered.into_values().flatten().map(|one| one.table).collect())
}

/// Notes what stands.
pub(super) async fn note(work: &Work<'_>) -> Result<Noted, Error> {
    if work.task.mode == Mode::Whole {
        return Ok(Noted::default());
    }
    let recorded = recorded(work);
    let plain: Vec<(String, String)> =
        recorded.iter().filter_map(|sequence| names::qualified(&sequence.name)).collect();
    let names = Names::of(plain.iter().map(|(schema, name)| (schema.as_str(), name.as_str())));
    let entries = work.known();
    let entries = entries.named().filter(|(entry, _)| entry.kind == "SEQUENCE");
    let ids: BTreeMap<u32, &str> = entries
        .filter_map(|(entry, oid)| Some((oid, recorded.get(names.find(entry)?)?.name.as_str())))
        .collect();
    let wanted: Vec<u32> = ids.keys().copied().collect();
    let sql = "select c.oid, case when pg_catalog.has_sequence_privilege(c.oid, 'select')
            then pg_catalog.pg_sequence_last_value(c.oid) end
        from pg_catalog.pg_class c where c.relkind = 'S' and c.oid = any($1)";
    let mut noted = Noted::default();
    for row in work.client.query(sql, &[&wanted]).await? {
        if let Some(name) = ids.get(&row.get(0)) {
            noted.sequences.insert((*name).to_owned(), (row.get(0), row.get(1)));
        }
    }
    let tables = work.client.query("select oid from pg_catalog.pg_class where relkind in ('r', 'p')", &[]);
    noted.tables = tables.await?.iter().map(|row| row.get(0)).collect();
    Ok(noted)
}

/// The user's sequences in the snapshot.
fn recorded<'a>(work: &Work<'a>) -> Vec<&'a SequenceValue> {
    let recorded = work.task.snapshot.manifest.database.sequences.iter();
    let is_owned = |sequence: &&SequenceValue| {
        names::qualified(&sequence.name).is_some_and(|(schema, _)| !is_platform_schema(&schema))
    };
    recorded.filter(is_owned).collect()
}

/// The sequences that may have to go to another place, now that everything is back.
async fn candidates<'a>(work: &Work<'a>, noted: &Noted) -> Result<Vec<Candidate<'a>>, Error> {
    let recorded = recorded(work);
    let names: Vec<&str> = recorded.iter().map(|was| was.name.as_str()).collect();
    let sql = "select q.name, pg_catalog.to_regclass(q.name)::oid from unnest($1::text[]) q (name)";
    let stands = work.client.query(sql, &[&names]).await?;
    let stands: BTreeMap<String, Option<u32>> = stands.iter().map(|row| (row.get(0), row.get(1))).collect();
    let left: BTreeMap<&str, &SequenceLeft> =
        moved(work).map(|(left, _)| (left.name.as_str(), left)).collect();
    let candidates = recorded.into_iter().filter_map(|was| {
        let oid = (*stands.get(&was.name)?)?;
        let is_back = noted.sequences.get(&was.name).is_none_or(|(before, _)| *before != oid);
        let left = left.get(was.name.as_str()).copied();
        (is_back || left.is_some()).then_some(Candidate { was, left, is_back })
    });
    Ok(candidates.collect())
}

/// Turns them back; returns the names of those that may be ahead of their place in the snapshot.
pub(super) async fn turn_back(work: &Work<'_>, noted: &Noted) -> Result<Vec<String>, Error> {
    if work.task.mode == Mode::Whole {
        return Ok(Vec::new());
    }
    let candidates = candidates(work, noted).await?;
    let names: Vec<&str> = candidates.iter().map(|one| one.was.name.as_str()).collect();
    let numbered = numbered(work, &names).await?;
    let stays = |one: &&Numbered| noted.tables.contains(&one.relation);
    lock(work, numbered.values().flatten().filter(stays)).await?;
    let mut turned = Vec::new();
    for candidate in &candidates {
        let columns = numbered.get(&candidate.was.name).map(Vec::as_slice).unwrap_or_default();
        // One that came back with the tables that it numbers is where it belongs.
        if candidate.is_back && !columns.is_empty() && !columns.iter().any(|one| stays(&one)) {
            continue;
        }
        let before = noted.sequences.get(&candidate.was.name).and_then(|(_, last)| *last);
        turn(work, candidate, columns, before).await?;
        turned.push(candidate.was.name.clone());
    }
    Ok(turned)
}

async fn turn(
    work: &Work<'_>,
    candidate: &Candidate<'_>,
    columns: &[Numbered],
    before: Option<i64>,
) -> Result<(), Error> {
    let name = candidate.was.name.as_str();
    let literal = inverse::quote_literal(name);
    // Nobody takes a number from here on, and what follows goes with the transaction, which `setval` alone
    // would outlive: the sequence gets a file of its own (PostgreSQL documentation, ALTER SEQUENCE).
    let sql = format!(
        "do $supa_safe$begin execute 'alter sequence {} increment by '
            || (select q.seqincrement from pg_catalog.pg_sequence q
                where q.seqrelid = {literal}::pg_catalog.regclass); end$supa_safe$",
        name.replace('\'', "''")
    );
    work.client.batch_execute(&sql).await.map_err(Error::at("hold sequences"))?;
    let ends = |end: &str| -> String {
        let numbers = columns.iter().filter(|one| one.is_number);
        let ends: Vec<String> =
            numbers.map(|one| format!("(select {end}({})::int8 from {})", one.column, one.table)).collect();
        ends.join(", ")
    };
    let (highest, lowest) = match ends("max") {
        none if none.is_empty() => ("null::int8".to_owned(), "null::int8".to_owned()),
        highest => (format!("greatest({highest})"), format!("least({})", ends("min"))),
    };
    let sql = format!(
        "select s.last_value, s.is_called, q.seqincrement > 0, {highest}, {lowest} from {name} s \
         join pg_catalog.pg_sequence q on q.seqrelid = {literal}::pg_catalog.regclass"
    );
    let row = work.client.query_one(&sql, &[]).await?;
    let are_all_known = !columns.is_empty() && columns.iter().all(|one| one.is_number);
    let stands = Now::read(&row, are_all_known);
    // What came back is where the archive put it, and not where it was.
    let at = before.filter(|_| candidate.is_back).map_or(stands.at, |last| (last, true));
    let now = Now { at, ..stands };
    let left = candidate.left.map(|left| (left.value, left.is_called));
    let target = now.place(left, (candidate.was.value, candidate.was.is_called));
    if target != stands.at {
        let (value, is_called) = target;
        let sql = format!("select pg_catalog.setval({literal}, {value}, {is_called})");
        work.client.batch_execute(&sql).await.map_err(Error::at("turn sequences back"))?;
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
    /// may be anywhere stays ahead when it moved on after the push, and any that the push did not move.
    fn place(self, left: Option<(i64, bool)>, was: (i64, bool)) -> (i64, bool) {
        let is_beyond = |one: i64, other: i64| if self.is_ascending { one > other } else { one < other };
        let reaches = |number: i64| is_beyond(number, was.0) || (number == was.0 && !was.1);
        let is_users = left.is_none_or(|left| !self.are_all_known && self.at != left);
        let moved_on = is_users && self.at.1;
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
            assert_eq!(now.place(Some((1000, true)), (100, true)), expected, "{now:?}");
        };
        check((1000, true), Some(90), true, (100, true));
        check((1002, true), Some(1002), true, (1002, true));
        check((3, true), Some(105), true, (105, true));
        check((1000, true), None, false, (100, true));
        check((1007, true), None, false, (1007, true));
        check((50, true), None, false, (100, true));
        check((1000, true), Some(105), false, (105, true));

        // One that the push did not move, and that came back alone.
        let back = Now { at: (108, true), is_ascending: true, furthest: Some(107), are_all_known: true };
        assert_eq!(back.place(None, (100, true)), (108, true));
        assert_eq!(Now { at: (100, true), furthest: Some(90), ..back }.place(None, (100, true)), (100, true));

        let fresh = Now { at: (9, true), is_ascending: true, furthest: Some(1), are_all_known: true };
        assert_eq!(fresh.place(Some((9, true)), (1, false)), (1, true));
        assert_eq!(Now { furthest: None, ..fresh }.place(Some((9, true)), (1, false)), (1, false));
        let down = Now { at: (-9, true), is_ascending: false, furthest: Some(-5), are_all_known: true };
        assert_eq!(down.place(Some((-9, true)), (-2, true)), (-5, true));
        assert_eq!(down.place(Some((-9, true)), (-7, true)), (-7, true));
    }
}
