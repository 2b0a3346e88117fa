//! Accounts that came and went since the snapshot.
//!
//! Rows of `auth.users` are not ours to take back: who signed up since stays, with the rows that refer
//! to the new account, and who is gone stays gone, with the rows that cannot stand alone. Both happens
//! between the rows and the keys of the archive, while no trigger and no key is there.

use super::inverse::quote_literal;
use super::keys::{self, ForeignKey};
use super::live::sql_name;
use super::since::{self, Doomed};
use super::{Error, Work, names, partitions};
use crate::manifest::{qualified, quote_identifier};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, SimpleQueryMessage};

const USERS: (&str, &str) = ("auth", "users");
/// Columns of some tables: their types, these without the length that one of them or of its domains may have
/// (PostgreSQL documentation, `pg_type.typtypmod`), whether there is one, and their sequences.
const COLUMNS: &str = "
    select t.name, a.attname::text, pg_catalog.format_type(a.atttypid, a.atttypmod),
        pg_catalog.format_type(b.oid, -1), b.is_limited,
        pg_catalog.pg_get_serial_sequence(t.name, a.attname::text)
    from pg_catalog.unnest($1::text[]) t (name)
    join pg_catalog.pg_attribute a
        on a.attrelid = t.name::pg_catalog.regclass and a.attnum > 0 and not a.attisdropped
    join lateral (
        with recursive base (oid, is_limited) as (
            select a.atttypid, a.atttypmod >= 0
            union all
            select d.typbasetype, base.is_limited or d.typtypmod >= 0
            from base join pg_catalog.pg_type d on d.oid = base.oid and d.typtype = 'd')
        select base.oid, base.is_limited
        from base join pg_catalog.pg_type p on p.oid = base.oid and p.typtype <> 'd'
    ) b on true";

/// Types of some columns, in their order, where they are the server's own.
const TYPES: &str = "
    select case when t.typnamespace = 'pg_catalog'::pg_catalog.regnamespace
        then pg_catalog.format_type(a.atttypid, a.atttypmod) end
    from pg_catalog.unnest($2::text[]) with ordinality n (name, place)
    join pg_catalog.pg_attribute a on a.attrelid = $1::text::pg_catalog.regclass and a.attname = n.name
    join pg_catalog.pg_type t on t.oid = a.atttypid
    order by n.place";

/// Rows of one table that are not as in the snapshot, since an account, or another row, came or went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    /// Qualified name.
    pub table: String,
    /// How many.
    pub rows: u64,
    /// The table that lacks the rows to which they refer, when that is why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refers_to: Option<String>,
}

/// Rows of new accounts, in a temporary table of texts until their own table is there again.
pub(super) struct Kept {
    /// Schema and name of the table.
    home: (String, String),
    /// As SQL wants it.
    table: String,
    columns: Vec<String>,
    /// Their types when the rows were kept; none of those that may go, which are not the server's own.
    types: Vec<Option<String>>,
    place: String,
}

/// Keeps the rows that refer to accounts which the snapshot does not have.
pub(super) async fn keep(work: &Work<'_>, doomed: &[Doomed]) -> Result<Vec<Kept>, Error> {
    let keys = work.keys.iter().filter(|key| key.refers_to == "auth.users");
    let referring: Vec<(&str, String)> = keys
        .filter_map(|key| match &key.columns[..] {
            [column] => Some((key.table.as_str(), names::plain(column))),
            _ => None,
        })
        .collect();
    let mut wanted = Vec::new();
    for table in doomed {
        let Some((schema, name, recorded)) = table.home() else { continue };
        let pairs = table.pairs(recorded);
        let of_table = referring.iter().filter(|(of, _)| table.is_under(of));
        let live = of_table.filter_map(|(_, column)| pairs.iter().find(|(_, recorded)| recorded == column));
        let live: BTreeSet<&str> = live.map(|(live, _)| *live).collect();
        if !live.is_empty() {
            wanted.push((table, (schema, name), pairs, live));
        }
    }
    if wanted.is_empty() || !mark_new(work).await? {
        return Ok(Vec::new());
    }
    let statements = wanted.iter().enumerate().map(|(number, (table, _, pairs, referring))| {
        let texts = pairs.iter().map(|(live, recorded)| {
            format!("t.{}::pg_catalog.text as {}", quote_identifier(live), quote_identifier(recorded))
        });
        let referring = referring.iter().map(|column| format!("t.{}", quote_identifier(column)));
        format!(
            "create temp table supa_safe_kept_{number} on commit drop as select {} from only {} t \
             where exists (select from pg_temp.supa_safe_new n where n.id in ({}))",
            texts.collect::<Vec<_>>().join(", "),
            sql_name(&table.schema, &table.name),
            referring.collect::<Vec<_>>().join(", ")
        )
    });
    let counts = counts(work.client, &statements.collect::<Vec<_>>()).await;
    let counts = counts.map_err(Error::at("keep the rows of new accounts"))?;
    // Most tables have none.
    let kept = wanted.into_iter().zip(counts).enumerate().filter(|(_, (_, rows))| *rows > 0);
    let mut all = Vec::new();
    for (number, ((table, home, pairs, _), _)) in kept {
        let names: Vec<&str> = pairs.iter().map(|(live, _)| *live).collect();
        let types = work.client.query(TYPES, &[&sql_name(&table.schema, &table.name), &names]).await?;
        all.push(Kept {
            home: (home.0.clone(), home.1.clone()),
            table: sql_name(home.0, home.1),
            columns: pairs.iter().map(|(_, recorded)| quote_identifier(recorded)).collect(),
            types: types.iter().map(|row| row.get(0)).collect(),
            place: format!("pg_temp.supa_safe_kept_{number}"),
        });
    }
    Ok(all)
}

/// Runs statements in one message; returns how many rows each of them is about.
async fn counts(client: &Client, statements: &[String]) -> Result<Vec<u64>, tokio_postgres::Error> {
    let messages = client.simple_query(&statements.join(";\n")).await?;
    let counts = messages.into_iter().filter_map(|message| match message {
        SimpleQueryMessage::CommandComplete(rows) => Some(rows),
        _ => None,
    });
    Ok(counts.collect())
}

/// Lists the accounts that came since in a temporary table; returns whether there are any.
async fn mark_new(work: &Work<'_>) -> Result<bool, Error> {
    let (schema, name) = USERS;
    let ids = vec!["id".to_owned()];
    let users = Doomed {
        recorded: Some((schema.to_owned(), name.to_owned(), ids.clone())),
        primary_key: ids.clone(),
        ..Doomed::plain(schema, name, ids)
    };
    if since::mark_one(work.client, &users, &work.compared()).await? == 0 {
        return Ok(false);
    }
    let sql = "create temp table supa_safe_new on commit drop as \
        select u.id from auth.users u join pg_temp.supa_safe_since s on s.place = u.ctid";
    work.client.batch_execute(sql).await.map_err(Error::at("look for new accounts"))?;
    Ok(true)
}

/// Takes away what cannot stand without an account, or a row, that is gone; `tables` by schema and name. A
/// key of a partitioned table is its partitions'.
pub(super) async fn remove(
    work: &Work<'_>,
    tables: &BTreeSet<(String, String)>,
) -> Result<Vec<Changed>, Error> {
    let parents = partitions::parents(&work.recorded);
    let mut tables = tables.clone();
    for mut table in tables.clone() {
        while let Some(parent) = parents.get(&table) {
            tables.insert(parent.clone());
            table.clone_from(parent);
        }
    }
    let is_one = |name: &str| names::qualified(name).is_some_and(|name| tables.contains(&name));
    let keys: Vec<&ForeignKey> = work
        .keys
        .iter()
        // One that was never validated may have been broken in the snapshot.
        .filter(|key| key.is_valid && is_one(&key.table) && (work.knows_objects() || !key.is_into_storage()))
        .collect();
    // In the snapshot every key between the user's own tables holds: the first look is for others.
    let others: Vec<&ForeignKey> = keys.iter().copied().filter(|key| !is_one(&key.refers_to)).collect();
    let mut changed = Vec::new();
    keys::find_operators(work.client).await?;
    let mut rows = take_away(work, &others, &mut changed).await?;
    while rows > 0 {
        rows = take_away(work, &keys, &mut changed).await?;
    }
    work.pin().await?;
    Ok(changed)
}

/// Takes away the rows that do not hold to these keys, or their references; returns how many.
async fn take_away(work: &Work<'_>, keys: &[&ForeignKey], changed: &mut Vec<Changed>) -> Result<u64, Error> {
    let stage = Error::at("follow accounts that are gone");
    let follow = async |statements: &[Vec<String>]| {
        let mut all = vec!["savepoint supa_safe_follow".to_owned()];
        all.extend(statements.iter().flatten().cloned());
        all.push("release savepoint supa_safe_follow".to_owned());
        counts(work.client, &all).await
    };
    if keys.is_empty() {
        return Ok(0);
    }
    let mut statements: Vec<Vec<String>> = keys.iter().map(|key| statements(key)).collect();
    let counts = match follow(&statements).await {
        Err(error) if breaks_a_rule(&error) => {
            work.client.batch_execute("rollback to savepoint supa_safe_follow").await?;
            statements = keys.iter().map(|key| careful(key)).collect();
            follow(&statements).await.map_err(stage)?
        }
        outcome => outcome.map_err(stage)?,
    };
    let mut counts = counts.into_iter().skip(1);
    let mut rows = 0;
    for (key, statements) in keys.iter().zip(&statements) {
        // What the last one takes away, the first one found.
        let found = counts.by_ref().take(statements.len()).max().unwrap_or_default();
        rows += found;
        add(changed, (&key.table, Some(&key.refers_to)), found);
    }
    Ok(rows)
}

/// Whether the rows cannot stand without what is gone, whatever the action of the key is.
fn breaks_a_rule(error: &tokio_postgres::Error) -> bool {
    error.code().is_some_and(|code| [SqlState::NOT_NULL_VIOLATION, SqlState::CHECK_VIOLATION].contains(code))
}

/// A statement that gives columns of the rows that fit a condition another value.
fn set(key: &ForeignKey, (columns, value): (&[String], &str), condition: &str) -> String {
    let sets: Vec<String> = columns.iter().map(|column| format!("{column} = {value}")).collect();
    format!("update {} t set {} where {condition}", key.table, sets.join(", "))
}

/// Statements that do what the key's action does.
fn statements(key: &ForeignKey) -> Vec<String> {
    let dangles = key.dangles();
    let remove = format!("delete from {} t where {dangles}", key.table);
    match key.on_delete.value() {
        None => vec![remove],
        // The default may refer to what is gone too.
        Some(to) => vec![set(key, to, &dangles), remove],
    }
}

/// The same, where a row goes that cannot be without its reference.
fn careful(key: &ForeignKey) -> Vec<String> {
    let Some(to) = key.on_delete.value() else { return statements(key) };
    let (table, dangles) = (&key.table, key.dangles());
    let this = "t.tableoid = supa_safe_one.rel and t.ctid = supa_safe_one.place";
    let body = format!(
        "declare supa_safe_one record; begin {}; \
         exception when not_null_violation or check_violation then \
         for supa_safe_one in select t.tableoid as rel, t.ctid as place from {table} t where {dangles} loop \
         begin {}; exception when not_null_violation or check_violation then \
         delete from {table} t where {this}; end; end loop; end",
        set(key, to, &dangles),
        set(key, to, this)
    );
    vec![
        // A block does not tell how many.
        format!("select from {table} t where {dangles}"),
        format!("do {}", quote_literal(&body)),
        format!("delete from {table} t where {dangles}"),
    ]
}

fn add(changed: &mut Vec<Changed>, (table, refers_to): (&str, Option<&str>), rows: u64) {
    if rows == 0 {
        return;
    }
    let is_it = |one: &&mut Changed| (one.table.as_str(), one.refers_to.as_deref()) == (table, refers_to);
    if let Some(one) = changed.iter_mut().find(is_it) {
        one.rows += rows;
        return;
    }
    let (table, refers_to) = (table.to_owned(), refers_to.map(str::to_owned));
    changed.push(Changed { table, rows, refers_to });
}

/// Takes away those of the loaded rows that refer to what is gone: all others hold to their keys. Returns
/// them with those that did not fit before.
pub(super) async fn fit(
    work: &Work<'_>,
    kept: &[Kept],
    mut unfit: Vec<Changed>,
) -> Result<Vec<Changed>, Error> {
    let parents = partitions::parents(&work.recorded);
    let is_loaded = |key: &&ForeignKey| {
        let mut next = names::qualified(&key.table).filter(|_| key.is_valid);
        while let Some(table) = next {
            if kept.iter().any(|kept| kept.home == table) {
                return true;
            }
            next = parents.get(&table).cloned();
        }
        false
    };
    let keys: Vec<&ForeignKey> = work.keys.iter().filter(is_loaded).collect();
    while take_away(work, &keys, &mut unfit).await? > 0 {}
    Ok(unfit)
}

/// A column of a table that came back.
struct Column {
    table: String,
    name: String,
    kind: String,
    /// The type without its length, and whether it has one.
    unlimited: String,
    is_limited: bool,
    sequence: Option<String>,
}

impl Column {
    /// A condition on a row `k` of texts: the column would cut or round a value that was of this type.
    fn changes(&self, was: Option<&str>) -> String {
        let Self { name, kind, unlimited, .. } = self;
        let value = format!("k.{}", quote_identifier(name));
        match was {
            // Only a length can be in the way, and numbers are alike with more zeros at the end.
            _ if self.is_limited => {
                format!("{value}::{unlimited} is distinct from {value}::{kind}::{unlimited}")
            }
            // There and back again.
            Some(was) => format!("{value}::{was}::text is distinct from {value}::{kind}::text::{was}::text"),
            None => format!("{value} is distinct from {value}::{kind}::text"),
        }
    }
}

impl Kept {
    /// The type that a column had.
    fn type_of(&self, name: &str) -> Option<&str> {
        let at = self.columns.iter().position(|column| names::plain(column) == name)?;
        self.types.get(at)?.as_deref()
    }
}

/// Their columns.
async fn columns(client: &Client, kept: &[Kept]) -> Result<Vec<Column>, Error> {
    let tables: BTreeSet<&str> = kept.iter().map(|kept| kept.table.as_str()).collect();
    let rows = client.query(COLUMNS, &[&tables.into_iter().collect::<Vec<_>>()]).await?;
    let column = |row: &tokio_postgres::Row| Column {
        table: row.get(0),
        name: row.get(1),
        kind: row.get(2),
        unlimited: row.get(3),
        is_limited: row.get(4),
        sequence: row.get(5),
    };
    Ok(rows.iter().map(column).collect())
}

/// Loads the rows of new accounts again, and moves the sequences of their tables past them. A row of which a
/// type would cut or round a value stays away. Returns how many came, and how many did not.
pub(super) async fn load(client: &Client, kept: &[Kept]) -> Result<(Vec<Changed>, Vec<Changed>), Error> {
    let columns = columns(client, kept).await?;
    keys::find_operators(client).await?;
    let of = |kept: &Kept| -> Vec<&Column> {
        let plain: Vec<String> = kept.columns.iter().map(|column| names::plain(column)).collect();
        columns.iter().filter(|one| one.table == kept.table && plain.contains(&one.name)).collect()
    };
    let statements = kept.iter().flat_map(|kept| {
        let (table, place, columns) = (&kept.table, &kept.place, of(kept));
        let changed = columns.iter().map(|column| column.changes(kept.type_of(&column.name)));
        let changed = changed.chain(["false".to_owned()]).collect::<Vec<_>>().join(" or ");
        let names: Vec<String> = columns.iter().map(|column| quote_identifier(&column.name)).collect();
        let values: Vec<String> =
            names.iter().zip(&columns).map(|(name, column)| format!("k.{name}::{}", column.kind)).collect();
        let (names, values) = (names.join(", "), values.join(", "));
        [
            format!("delete from {place} k where {changed}"),
            format!("insert into {table} ({names}) overriding system value select {values} from {place} k"),
        ]
    });
    let counts = counts(client, &statements.collect::<Vec<_>>()).await?;
    let (mut loaded, mut unfit) = (Vec::new(), Vec::new());
    let mut moves = BTreeSet::new();
    for (kept, counts) in kept.iter().zip(counts.chunks(2)) {
        let (home, rows) = (qualified(&kept.home.0, &kept.home.1), |at: usize| counts.get(at).copied());
        add(&mut unfit, (&home, None), rows(0).unwrap_or_default());
        add(&mut loaded, (&home, None), rows(1).unwrap_or_default());
        if rows(1) > Some(0) {
            moves.extend(of(kept).into_iter().filter_map(past));
        }
    }
    let moves: Vec<String> = moves.into_iter().collect();
    client.batch_execute(&moves.join(";\n")).await?;
    Ok((loaded, unfit))
}

/// Moves the sequence of a column past its values.
fn past(column: &Column) -> Option<String> {
    let (Column { table, name, .. }, sequence) = (column, column.sequence.as_ref()?);
    Some(format!(
        "select pg_catalog.setval({}, n.last) from (select max({}) as last from {table}) n \
         where n.last >= (select last_value from {sequence})",
        quote_literal(sequence),
        quote_identifier(name)
    ))
}
