//! Keeps everybody from what a rollback makes again, and from what it changes besides.
//!
//! Who already waits for us must not hold what we take next: the server ends one of the two, and that may be
//! a user's write. So everything is taken at once, before the first drop, in the order in which others take
//! it: a view before what it reads, a table before those that its policies read, a row that refers before the one that it refers to (its key is checked when
//! the row is there), a partitioned table before its partitions, a table before the sequence that numbers it, tables of the platform before
//! those that their triggers write to.

use super::closure::{self, Closure};
use super::inverse;
use super::live::sql_name;
use super::{Error, Mode, Work, names, sequences};
use crate::fingerprint::{Difference, Fingerprint, is_platform_schema};
use crate::postgres::waits;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio_postgres::Row;

/// Relations that one statement locks.
const AT_ONCE: usize = 100;
/// What is being done, when it fails.
pub(super) const STAGE: &str = "lock the tables";
/// How much longer than one lock all of them may take: where it is one that does not come, the server says so.
const GRACE: Duration = Duration::from_millis(50);

/// The relations that go with these objects, those that the server locks when they go, and those named (`$6`, and
/// `$7` against writers alone); each with those that come before it. Of a view, the rule goes first and takes it along.
const RELATIONS: &str = "
    with recursive going (catalog, id) as (
        select 'pg_catalog.pg_class'::pg_catalog.regclass::oid, pg_catalog.unnest($1::oid[])
        union select 'pg_catalog.pg_class'::pg_catalog.regclass, pg_catalog.to_regclass(name)
            from pg_catalog.unnest($2::text[]) name
        union select 'pg_catalog.pg_proc'::pg_catalog.regclass, pg_catalog.to_regprocedure(name)
            from pg_catalog.unnest($3::text[]) name
        union select 'pg_catalog.pg_type'::pg_catalog.regclass, pg_catalog.to_regtype(name)
            from pg_catalog.unnest($4::text[]) name
        union select 'pg_catalog.pg_namespace'::pg_catalog.regclass, n.oid
            from pg_catalog.pg_namespace n where pg_catalog.quote_ident(n.nspname) = any($5::text[])
        union
        select case when w.oid is null then d.classid else 'pg_catalog.pg_class'::pg_catalog.regclass end,
            coalesce(w.ev_class, d.objid)
        from going g
        join pg_catalog.pg_depend d on d.refclassid = g.catalog and d.refobjid = g.id and d.deptype <> 'e'
        left join pg_catalog.pg_rewrite w on d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass
            and w.oid = d.objid and w.rulename = '_RETURN'
    ), touched (id, catalog, by_id) as (
        select c.oid, 'pg_catalog.pg_class'::pg_catalog.regclass::oid, c.oid from pg_catalog.pg_class c
        union all select ev_class, 'pg_catalog.pg_rewrite'::pg_catalog.regclass, oid from pg_catalog.pg_rewrite
        union all select adrelid, 'pg_catalog.pg_attrdef'::pg_catalog.regclass, oid from pg_catalog.pg_attrdef
        union all select conrelid, 'pg_catalog.pg_constraint'::pg_catalog.regclass, oid from pg_catalog.pg_constraint
        union all select confrelid, 'pg_catalog.pg_constraint'::pg_catalog.regclass, oid from pg_catalog.pg_constraint
        union all select tgrelid, 'pg_catalog.pg_trigger'::pg_catalog.regclass, oid from pg_catalog.pg_trigger
        union all select polrelid, 'pg_catalog.pg_policy'::pg_catalog.regclass, oid from pg_catalog.pg_policy
        union all select inhparent, 'pg_catalog.pg_class'::pg_catalog.regclass, inhrelid from pg_catalog.pg_inherits
    ), wanted (id, keeps_readers) as (
        select t.id, true from touched t join going g on (g.catalog, g.id) = (t.catalog, t.by_id)
        union all select pg_catalog.to_regclass(name), true from pg_catalog.unnest($6::text[]) name
        union all select pg_catalog.to_regclass(name), false from pg_catalog.unnest($7::text[]) name
    ), relations (id, keeps_readers) as (
        select id, bool_or(keeps_readers) from wanted where id <> 0 group by id
    ), pairs (first, next) as (
        select conrelid, confrelid from pg_catalog.pg_constraint where contype = 'f' and conrelid <> confrelid
        union select inhparent, inhrelid from pg_catalog.pg_inherits
        union
        select w.ev_class, d.refobjid
        from pg_catalog.pg_rewrite w
        join pg_catalog.pg_depend d on d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass and d.objid = w.oid
            and d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass and d.refobjid <> w.ev_class
        union
        select p.polrelid, d.refobjid
        from pg_catalog.pg_policy p
        join pg_catalog.pg_depend d on d.classid = 'pg_catalog.pg_policy'::pg_catalog.regclass and d.objid = p.oid
            and d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass and d.refobjid <> p.polrelid
    ), before (id, ids) as (
        select p.next, pg_catalog.array_agg(p.first order by p.first)
        from pairs p join relations a on a.id = p.first join relations b on b.id = p.next
        group by p.next
    )
    select c.oid, n.nspname::text, c.relname::text, pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(c.relowner)),
        c.relkind::text, r.keeps_readers, pg_catalog.has_table_privilege(c.oid, 'update, delete, truncate'),
        exists (
            select from pg_catalog.pg_trigger t where t.tgrelid = c.oid and not t.tgisinternal and t.tgtype & 2 = 0),
        coalesce(b.ids, '{}')
    from relations r
    join pg_catalog.pg_class c on c.oid = r.id and c.relkind in ('r', 'p', 'v', 'm', 'f', 'S')
    join pg_catalog.pg_namespace n on n.oid = c.relnamespace
    left join before b on b.id = r.id
    where pg_catalog.has_schema_privilege(n.oid, 'usage') and (pg_catalog.pg_has_role(c.relowner, 'usage')
        or (c.relkind in ('r', 'p') and pg_catalog.has_table_privilege(c.oid, 'update, delete, truncate')))
    order by n.nspname collate \"C\", c.relname collate \"C\"";

/// How a relation is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    /// As its owner would change it; `LOCK TABLE` takes what a view reads along, does not take materialized views,
    /// foreign tables, and sequences, and is not for an owner who may not write.
    Alone,
    /// Readers wait too.
    Whole,
    /// Writers wait.
    Writers,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Table,
    Sequence,
    /// A view, a materialized one, or a foreign table.
    View,
}

#[derive(Clone, Debug)]
struct Relation {
    oid: u32,
    name: String,
    owner: String,
    how: How,
    kind: Kind,
    is_platform: bool,
    /// Whether triggers of it run when a row is there, and may write elsewhere.
    goes_on: bool,
    /// Those that others take before it.
    before: Vec<u32>,
}

impl Relation {
    fn read(row: &Row) -> Self {
        let (schema, name): (String, String) = (row.get(1), row.get(2));
        let kind = match row.get::<_, String>(4).as_str() {
            "r" | "p" => Kind::Table,
            "S" => Kind::Sequence,
            _ => Kind::View,
        };
        let how = match (kind, row.get(6), row.get(5)) {
            (Kind::Table, true, true) => How::Whole,
            (Kind::Table, true, false) => How::Writers,
            _ => How::Alone,
        };
        Self {
            oid: row.get(0),
            name: sql_name(&schema, &name),
            owner: row.get(3),
            how,
            kind,
            is_platform: is_platform_schema(&schema),
            goes_on: row.get(7),
            before: row.get(8),
        }
    }

    /// Views come first, then the platform's tables, then the user's, then the sequences that number these.
    fn rank(&self) -> u8 {
        match (self.kind, self.is_platform) {
            (Kind::View, _) => 0,
            (Kind::Table, true) => 1,
            (Kind::Table, false) => 2,
            (Kind::Sequence, _) => 3,
        }
    }
}

/// Takes everything that goes, and what is changed when it goes and comes again, but for what is taken already. All of
/// it is one statement, which waits no longer than one lock may: whoever came between two of them may wait for the
/// first, and hold the next.
pub(super) async fn take(
    work: &Work<'_>,
    (live, closure): (&Fingerprint, &Closure),
    taken: &mut BTreeSet<u32>,
) -> Result<(), Error> {
    let oids: Vec<u32> = closure.tables.iter().map(|table| table.oid).collect();
    let named = |kinds: &[&str]| -> Vec<&str> {
        let units = closure.units.iter().filter(|unit| kinds.contains(&unit.kind.as_str()));
        units.map(|unit| unit.identity.as_str()).collect()
    };
    let relations = named(&["table", "foreign table", "view", "materialized view", "sequence"]);
    let routines = named(&["function", "procedure"]);
    let types = named(&["type", "composite type", "domain"]);
    let schemas = named(&["schema"]);
    let differences = work.differences(live);
    let carriers = carriers(work, live, (closure, &differences));
    let mut writers = sequences::numbered_tables(work, &differences).await?;
    writers.extend(work.platform_tables());
    let carriers: Vec<&str> = carriers.iter().map(String::as_str).collect();
    let wanted = work
        .client
        .query(RELATIONS, &[&oids, &relations, &routines, &types, &schemas, &carriers, &writers])
        .await?;
    let mut wanted: Vec<Relation> = wanted.iter().map(Relation::read).collect();
    wanted.retain(|relation| !taken.contains(&relation.oid));
    taken.extend(wanted.iter().map(|relation| relation.oid));
    let mut left = closure.tables.iter().filter(|table| !taken.contains(&table.oid)).peekable();
    // One that somebody dropped meanwhile shows when the tables are read again.
    let there = if left.peek().is_some() { work.tables().await? } else { Vec::new() };
    let left: Vec<String> = left
        .filter(|table| there.iter().any(|one| one.oid == table.oid))
        .map(|table| {
            format!("{} cannot be locked: this role neither owns it nor may write to it", table.qualified())
        })
        .collect();
    if !left.is_empty() {
        return Err(Error::NotExact(left));
    }
    if wanted.is_empty() {
        return Ok(());
    }
    // Those that go anyway would run for what follows.
    let triggers = closure.units.iter().filter(|unit| unit.kind == "event trigger");
    let mut statements: Vec<String> = triggers.filter_map(inverse::drop_statement).collect();
    let ordered = in_order(wanted);
    let same = ordered.chunk_by(|one, other| one.how == other.how).flat_map(|same| same.chunks(AT_ONCE));
    statements.extend(same.map(statement));
    let body = inverse::quote_literal(&format!("begin {}; end", statements.join(";\n")));
    let patience = (work.task.patience + GRACE).as_millis();
    let sql =
        format!("set local statement_timeout = '{patience}ms'; do {body}; set local statement_timeout = 0");
    work.client.batch_execute(&sql).await.map_err(Error::at(STAGE))
}

/// The statement that takes relations which are taken in the same way.
fn statement(relations: &[Relation]) -> String {
    let names = |between: &str| {
        let names: Vec<&str> = relations.iter().map(|relation| relation.name.as_str()).collect();
        names.join(between)
    };
    match relations.first().map(|relation| relation.how) {
        None => String::new(),
        Some(How::Whole) => format!("lock table only {} in access exclusive mode", names(", only ")),
        // With the partitions, into which others write by themselves.
        Some(How::Writers) => format!("lock table {} in share row exclusive mode", names(", ")),
        Some(How::Alone) => {
            let same =
                |relation: &Relation| format!("alter table {} owner to {}", relation.name, relation.owner);
            relations.iter().map(same).collect::<Vec<_>>().join(";\n")
        }
    }
}

/// Lets a vacuum of what goes back make way, which no attempt does that keeps others waiting.
pub(super) async fn outwait_vacuum(work: &Work<'_>) -> Result<(), Error> {
    if work.task.keep_in.is_none() {
        // Nobody else is on a copy.
        return Ok(());
    }
    let mut tables = work.tables().await?;
    tables.retain(|table| work.task.mode == Mode::Whole || closure::is_named(work.task.tables, table));
    let tables: Vec<(u32, String)> = tables.iter().map(|table| (table.oid, table.sql())).collect();
    Ok(waits::outwait_vacuum(work.client, &tables).await?)
}

/// The relations in which something is changed in place or comes again, and those that keys which come again refer
/// to; names as SQL wants them. Privileges alone are changed without a lock on the table.
fn carriers(
    work: &Work<'_>,
    live: &Fingerprint,
    (closure, differences): (&Closure, &[Difference]),
) -> BTreeSet<String> {
    let found = |kinds: fn(&str) -> bool| -> BTreeSet<String> {
        let changed = differences.iter().filter(|change| kinds(&change.kind) && !change.is_of_privileges());
        let going = closure.units.iter().filter(|unit| kinds(&unit.kind)).filter_map(inverse::carrier);
        let relations = changed.filter_map(inverse::relation).chain(going.map(str::to_owned));
        relations.filter(|name| !name.starts_with("domain ")).collect()
    };
    // A publication lets go of a table under a lock that keeps nobody from reading and writing.
    let carriers = found(|kind| kind != "publication table");
    // Whose key comes or goes, or has a column of another type, keeps writers from the other side.
    let keyed = found(|kind| ["constraint", "column", "column order"].contains(&kind));
    let tables = live.lines().iter().filter(|line| line.kind == "table");
    let stand: BTreeSet<&str> = tables.map(|line| line.identity.as_str()).collect();
    let going: BTreeSet<(&str, &str)> =
        closure.tables.iter().map(|table| (table.schema.as_str(), table.name.as_str())).collect();
    let comes = |table: &str| {
        let goes = names::qualified(table).is_some_and(|(schema, name)| going.contains(&(&schema, &name)));
        goes || keyed.contains(table) || !stand.contains(table)
    };
    let keys = work.keys.iter().filter(|key| comes(&key.table));
    carriers.iter().cloned().chain(keys.map(|key| key.refers_to.clone())).collect()
}

/// The order in which they are taken; where there is none, that of their names, so that two of us never wait for
/// each other.
fn in_order(mut relations: Vec<Relation>) -> Vec<Relation> {
    relations.sort_by_key(|relation| (relation.rank(), !relation.goes_on));
    let places: BTreeMap<u32, usize> =
        relations.iter().enumerate().map(|(place, relation)| (relation.oid, place)).collect();
    let mut order = Vec::with_capacity(relations.len());
    let mut seen = vec![false; relations.len()];
    // Each waits on the stack until those before it are in; what is met again on the way is a circle, which is cut.
    let mut stack: Vec<(usize, bool)> = (0..relations.len()).rev().map(|place| (place, false)).collect();
    while let Some((place, is_ready)) = stack.pop() {
        let Some(relation) = relations.get(place) else { continue };
        if is_ready {
            order.push(relation.clone());
            continue;
        }
        if seen.get(place).copied().unwrap_or(true) {
            continue;
        }
        if let Some(seen) = seen.get_mut(place) {
            *seen = true;
        }
        stack.push((place, true));
        let before = relation.before.iter().filter_map(|oid| places.get(oid));
        let same = before
            .filter(|place| relations.get(**place).is_some_and(|before| before.rank() == relation.rank()));
        stack.extend(same.map(|place| (*place, false)));
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    fn relation(oid: u32, how: How, before: &[u32]) -> Relation {
        Relation {
            oid,
            name: format!("public.r{oid}"),
            owner: "postgres".to_owned(),
            how,
            kind: if how == How::Alone { Kind::View } else { Kind::Table },
            is_platform: false,
            goes_on: false,
            before: before.to_vec(),
        }
    }

    fn order(relations: Vec<Relation>) -> Vec<u32> {
        in_order(relations).iter().map(|relation| relation.oid).collect()
    }

    #[test]
    fn others_take_them_in_this_order() {
        // 5 refers to 1, 4 is below 3; view 7 reads view 6, and that reads 1.
        let relations = vec![
            relation(1, How::Whole, &[5, 6]),
            relation(2, How::Writers, &[]),
            relation(3, How::Whole, &[]),
            relation(4, How::Whole, &[3]),
            relation(5, How::Whole, &[]),
            relation(6, How::Alone, &[7]),
            relation(7, How::Alone, &[]),
        ];
        assert_eq!(order(relations.clone()), [7, 6, 5, 1, 2, 3, 4]);

        // What writes on comes early, and still after what refers to it; the platform's comes before all.
        let mut relations = relations;
        relations[0].goes_on = true;
        relations[2].goes_on = true;
        relations[3].is_platform = true;
        assert_eq!(order(relations), [7, 6, 4, 5, 1, 3, 2]);
    }

    #[test]
    fn a_circle_is_cut() {
        let circle = vec![relation(1, How::Whole, &[2]), relation(2, How::Whole, &[1])];
        assert_eq!(order(circle), [2, 1]);
    }
}
