//! Accounts that the push itself changed, deleted, or added, as the rehearsal saw it: these columns of
//! these rows are as in the snapshot again. All else in their tables moves by itself, and stays.
//!
//! A value that a user gave such a column of such a row after the push goes back too, and is kept: nobody
//! can tell it from one that still has the push's in it, as JSON that was merged does.

use super::since::{self, Doomed, Saved};
use super::{Error, Work, history, names};
use crate::disk;
use crate::effect::{ManagedChange, ManagedRows, Which};
use crate::postgres::storage::back;
use crate::salvage;
use crate::tools::pg_restore::Section;
use bytes::Bytes;
use futures_util::SinkExt as _;
use serde::{Deserialize, Serialize};
use std::fmt::Write as _;
use tokio::sync::mpsc::{Receiver, channel};
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;

/// To whose rows those of the other tables belong.
const USERS: &str = "auth.users";
/// Pieces of output between the program and the server.
const PIECES: usize = 16;
/// Bytes of rows that go to the server at once.
const AT_ONCE: usize = 64 << 10;
/// Columns that can be written.
const COLUMNS: &str = "
    select a.attname::text, pg_catalog.quote_ident(a.attname)
    from pg_catalog.pg_attribute a
    where a.attrelid = pg_catalog.to_regclass($1) and a.attnum > 0 and not a.attisdropped and a.attgenerated = ''
    order by a.attnum";

/// Whether a row `t` is as the push left it.
const PUSHED: &str = "t.xmin::text in (select p.xid from pg_temp.supa_safe_pushed p)";

/// Rows of accounts that could not go back: another row has by now what only one may have, such as an
/// address under which somebody signed up again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Taken {
    /// Qualified name.
    pub table: String,
    /// Their ids.
    pub ids: Vec<String>,
    /// The file with the rows as they were, in the folder of the rollback; none in a rehearsal.
    pub file: Option<String>,
}

/// What is left of bringing accounts back.
#[derive(Debug, Default)]
pub(super) struct Back {
    /// What stood in the rows that changed.
    pub(super) kept: Vec<Saved>,
    /// What could not go back.
    pub(super) taken: Vec<Taken>,
}

/// Accounts that the push added.
#[derive(Debug, Default)]
pub(super) struct Marked {
    /// Whether some were found.
    pub(super) are_any: bool,
    /// Where fewer were found than there are, in words.
    pub(super) missed: Vec<String>,
}

/// A table of accounts, and the archive's rows of it in a temporary table.
pub(super) struct Managed<'a> {
    rows: &'a ManagedRows,
    was: String,
    /// As they are, and as SQL wants them.
    columns: Vec<(String, String)>,
    changes: Vec<Change>,
}

/// Columns that go back together.
struct Change {
    /// As SQL wants them; generated ones follow.
    columns: Vec<String>,
    /// Whether a row `t` that the push changed differs in these from what it was, `w`.
    differs: String,
}

impl Managed<'_> {
    /// Whether a row `t` differs from what it was, `w`, in what goes back.
    fn differs(&self) -> String {
        let each: Vec<&str> = self.changes.iter().map(|change| change.differs.as_str()).collect();
        format!("({})", each.join(" or "))
    }
}

impl Change {
    /// Reads one; ids that are known are in the temporary table `ids`, with its number.
    fn of(
        rows: &ManagedRows,
        change: &ManagedChange,
        columns: &[(String, String)],
        (ids, number): (&str, usize),
    ) -> Self {
        let is_changed = |name: &String| change.columns.contains(name);
        let columns: Vec<String> =
            columns.iter().filter(|(name, _)| is_changed(name)).map(|(_, quoted)| quoted.clone()).collect();
        let side = |side: &str| {
            let texts: Vec<String> =
                columns.iter().map(|column| format!("{side}.{column}::pg_catalog.text")).collect();
            format!("row({})", texts.join(", "))
        };
        let is_one = match change.rows {
            Which::Any => String::new(),
            // The copy had others not, or had them otherwise.
            Which::These(_) => format!(
                " and ((t.id::pg_catalog.text, {number}) in (select c.id, c.change from {ids} c)
                or t.id::pg_catalog.text not in (select c.id from {ids} c) and ({PUSHED} or coalesce(
                (pg_catalog.to_jsonb(t) ->> 'created_at')::timestamptz > '{}'::timestamptz, false)))",
                rows.newest.as_deref().unwrap_or("-infinity").replace('\'', "''")
            ),
        };
        let differs = format!("w.id = t.id and {} is distinct from {}{is_one}", side("t"), side("w"));
        Self { columns, differs }
    }

    /// Brings the columns back, of the rows that fit one more condition.
    fn statement(&self, Managed { rows, was, .. }: &Managed<'_>, more: &str) -> String {
        let set: Vec<String> = self.columns.iter().map(|column| format!("{column} = w.{column}")).collect();
        format!("update {} t set {} from {was} w where {}{more}", rows.table, set.join(", "), self.differs)
    }
}

/// Loads what the archive has of the tables in which the push wrote.
pub(super) async fn load<'a>(work: &Work<'a>) -> Result<Vec<Managed<'a>>, Error> {
    let mut loaded = Vec::new();
    if !work.task.besides.managed.is_empty() {
        note_pushed(work).await?;
    }
    for (at, rows) in work.task.besides.managed.iter().enumerate() {
        let Some((schema, name)) = names::qualified(&rows.table) else { continue };
        let was = format!("pg_temp.supa_safe_was_{at}");
        let sql = format!(
            "create temp table supa_safe_was_{at} (like {} including defaults including generated) on commit drop",
            rows.table
        );
        work.client.batch_execute(&sql).await.map_err(Error::at("read the accounts of the snapshot"))?;
        let list = work.archive.list_of_rows(|found, table| (found, table) == (&schema, &name));
        if !list.is_empty() {
            let (sender, receiver) = channel::<Bytes>(PIECES);
            let command = work.archive.command(&list, Section::Data)?.on_bytes(move |bytes| {
                // A receiver that is gone has failed, and says so itself.
                drop(sender.blocking_send(Bytes::copy_from_slice(bytes)));
            });
            let run = async { command.run().await.map_err(Error::Archive) };
            tokio::try_join!(run, fill(work.client, &was, receiver))?;
        }
        let columns = work.client.query(COLUMNS, &[&rows.table]).await?;
        let columns: Vec<(String, String)> = columns.iter().map(|row| (row.get(0), row.get(1))).collect();
        let changes = changes(work.client, rows, &columns, at).await?;
        loaded.push(Managed { rows, was, columns, changes });
    }
    Ok(loaded)
}

/// Notes the numbers of the push's transactions.
async fn note_pushed(work: &Work<'_>) -> Result<(), Error> {
    work.client.batch_execute("create temp table supa_safe_pushed (xid text) on commit drop").await?;
    if work.has_history().await? {
        let sql = format!("insert into pg_temp.supa_safe_pushed {}", history::TRANSACTIONS);
        work.client.execute(&sql, &[&work.task.versions]).await?;
    }
    Ok(())
}

/// What goes back of the rows that were there before and after, their ids in a temporary table.
async fn changes(
    client: &Client,
    rows: &ManagedRows,
    columns: &[(String, String)],
    at: usize,
) -> Result<Vec<Change>, Error> {
    let ids = format!("pg_temp.supa_safe_changed_{at}");
    let sql = format!("create temp table supa_safe_changed_{at} (id text, change int) on commit drop");
    client.batch_execute(&sql).await?;
    let mut changes = Vec::new();
    for change in &rows.changed {
        let number = changes.len();
        let read = Change::of(rows, change, columns, (&ids, number));
        if read.columns.is_empty() {
            continue;
        }
        if let Which::These(these) = &change.rows {
            let sql = format!("insert into {ids} select id, {number} from pg_catalog.unnest($1::text[]) id");
            client.execute(&sql, &[these]).await?;
        }
        changes.push(read);
    }
    Ok(changes)
}

/// Takes the rows of one `COPY` of a script into another table.
async fn fill(client: &Client, place: &str, mut pieces: Receiver<Bytes>) -> Result<(), Error> {
    let (mut line, mut rows, mut copy) = (Vec::new(), Vec::new(), None);
    while let Some(piece) = pieces.recv().await {
        for part in piece.split_inclusive(|byte| *byte == b'\n') {
            line.extend_from_slice(part);
            if !part.ends_with(b"\n") {
                continue;
            }
            let whole = std::mem::take(&mut line);
            match &mut copy {
                None if whole.starts_with(b"COPY ") => {
                    let text = String::from_utf8(whole).map_err(|_| Error::Encoding)?;
                    let (_, columns) = text.split_once(" (").ok_or(Error::Cut)?;
                    let (columns, _) = columns.rsplit_once(") FROM stdin;").ok_or(Error::Cut)?;
                    let sql = format!("copy {place} ({columns}) from stdin");
                    copy = Some(Box::pin(client.copy_in::<_, Bytes>(&sql).await?));
                }
                None => {}
                Some(sink) if whole == b"\\.\n" => {
                    sink.send(std::mem::take(&mut rows).into()).await?;
                    sink.as_mut().finish().await?;
                    copy = None;
                }
                Some(sink) => {
                    rows.extend_from_slice(&whole);
                    if rows.len() > AT_ONCE {
                        sink.send(std::mem::take(&mut rows).into()).await?;
                    }
                }
            }
        }
    }
    if copy.is_some() { Err(Error::Cut) } else { Ok(()) }
}

/// Lists the accounts that the push added in a temporary table: those that the rehearsal knows, and, where
/// ids are others here, those that its transactions wrote last, if that can be nobody else's. Nobody can refer
/// to one any more. Says of which table fewer were found than the rehearsal saw come.
pub(super) async fn mark_added(work: &Work<'_>, managed: &[Managed<'_>]) -> Result<Marked, Error> {
    let mut found = Marked::default();
    let sql = "create temp table supa_safe_added (name text, id text) on commit drop";
    work.client.batch_execute(sql).await?;
    for Managed { rows, was, .. } in managed.iter().filter(|one| !one.rows.added.is_empty()) {
        let mark = format!(
            "insert into pg_temp.supa_safe_added select $2, t.id::text from {} t
             where not exists (select from {was} w where w.id = t.id) and",
            rows.table
        );
        let by_id = format!("{mark} t.id::text = any($1) for update of t");
        let mut marked = work.client.execute(&by_id, &[&rows.added, &rows.table]).await?;
        let expected = u64::try_from(rows.added.len()).unwrap_or(u64::MAX);
        // Where the push changed accounts, one that came between the snapshot and the push looks the same.
        if marked < expected && rows.changed.is_empty() {
            work.client.batch_execute("savepoint supa_safe_unknown").await?;
            let unknown =
                format!("{mark} not t.id::text = any($1) and {} for update of t", nobodys(work, rows).await?);
            let more = work.client.execute(&unknown, &[&rows.added, &rows.table]).await?;
            if more > expected - marked {
                // It wrote to accounts of people, too.
                work.client.batch_execute("rollback to savepoint supa_safe_unknown").await?;
            } else {
                marked += more;
            }
            work.client.batch_execute("release savepoint supa_safe_unknown").await?;
        }
        found.are_any |= marked > 0;
        if marked < expected {
            found.missed.push(format!(
                "{}: of {} rows that the push added on the copy, {marked} were found and taken away; the others \
                 stand under ids that nobody knows, or went before",
                rows.table,
                rows.added.len()
            ));
        }
    }
    Ok(found)
}

/// A condition on a row `t` that the push wrote last: no person was there before. Who signs up gets an identity
/// or a session at once, in the same transaction.
async fn nobodys(work: &Work<'_>, rows: &ManagedRows) -> Result<String, Error> {
    let mut condition = PUSHED.to_owned();
    if rows.table != USERS {
        return Ok(condition);
    }
    for table in ["auth.identities", "auth.sessions"] {
        let sql = "select pg_catalog.to_regclass($1) is not null";
        if work.client.query_one(sql, &[&table]).await?.get(0) {
            let _ = write!(
                condition,
                " and not exists (select from {table} r where r.user_id = t.id
                  and r.xmin::text not in (select p.xid from pg_temp.supa_safe_pushed p))"
            );
        }
    }
    Ok(condition)
}

/// Takes these accounts away, with all that refers to them; their rows are kept first.
pub(super) async fn remove_added(work: &Work<'_>, managed: &[Managed<'_>]) -> Result<Vec<Saved>, Error> {
    let stage = || Error::at("take away the accounts that the push added");
    let added = "pg_temp.supa_safe_added a where a.name = $1 and a.id = t.id::text";
    let going = || managed.iter().filter(|one| !one.rows.added.is_empty());
    let mut kept = Vec::new();
    for one in going() {
        let marked = format!("select 0, t.ctid from {} t, {added}", one.rows.table);
        kept.extend(keep(work, one, (&marked, &[&one.rows.table], ".added")).await?);
    }
    for Managed { rows, .. } in going() {
        let sql = format!("delete from {} t using {added}", rows.table);
        work.client.execute(&sql, &[&rows.table]).await.map_err(stage())?;
    }
    Ok(kept)
}

/// Brings back what the push changed and deleted; what stood there is kept first.
pub(super) async fn bring_back(work: &Work<'_>, managed: &[Managed<'_>]) -> Result<Back, Error> {
    let mut back = Back::default();
    if managed.is_empty() {
        return Ok(back);
    }
    let storage = |error| Error::Storage(salvage::Error::from(error));
    let quiet = back::quieten(work.client).await.map_err(storage)?;
    let mut collided = Vec::new();
    for one in managed {
        let Managed { rows, was, columns, changes } = one;
        if !changes.is_empty() {
            let (table, differs) = (&rows.table, one.differs());
            let marked = format!("select 0, t.ctid from {table} t, {was} w where {differs} for update of t");
            back.kept.extend(keep(work, one, (&marked, &[], "")).await?);
        }
        let mut has_collided = false;
        for change in changes {
            has_collided |= change_back(work.client, one, change).await?;
        }
        collided.push(has_collided);
        let columns: Vec<&str> = columns.iter().map(|(_, quoted)| quoted.as_str()).collect();
        let columns = columns.join(", ");
        let sql = format!(
            "insert into {} ({columns}) overriding system value select {columns} from {was} w
             where w.id::text = any($1) and {} and not exists (select from {} t where t.id = w.id)
             on conflict do nothing",
            rows.table,
            stands(rows),
            rows.table
        );
        let done = work.client.execute(&sql, &[&rows.gone]).await;
        done.map_err(Error::at("bring back the accounts that the push deleted"))?;
    }
    back::waken(work.client, quiet).await.map_err(storage)?;
    for (one, has_collided) in managed.iter().zip(collided) {
        back.taken.extend(taken(work, managed, one, has_collided).await?);
    }
    Ok(back)
}

/// A condition on `w`: an identity, or a second factor, without its account is nobody's.
fn stands(rows: &ManagedRows) -> &'static str {
    match rows.table.as_str() {
        USERS => "true",
        _ => "exists (select from auth.users u where u.id = w.user_id)",
    }
}

/// Brings some columns back, together or, where another row has a value of theirs by now, row by row, as
/// long as one more finds its place. Returns whether there is such a row.
async fn change_back(client: &Client, one: &Managed<'_>, change: &Change) -> Result<bool, Error> {
    let stage = Error::at("bring back what the push changed in accounts");
    client.batch_execute("savepoint supa_safe_merged").await?;
    match client.execute(&change.statement(one, ""), &[]).await {
        Ok(_) => {
            client.batch_execute("release savepoint supa_safe_merged").await?;
            return Ok(false);
        }
        Err(error) if error.code() == Some(&SqlState::UNIQUE_VIOLATION) => {
            client.batch_execute("rollback to savepoint supa_safe_merged").await?;
        }
        Err(error) => return Err(stage(error)),
    }
    let (table, was, differs) = (&one.rows.table, &one.was, &change.differs);
    let sql = format!(
        "do $supa_safe$
        declare
            one record;
            before int8;
            remaining int8;
        begin
            loop
                for one in select t.id from {table} t, {was} w where {differs} loop
                    begin
                        {};
                    exception when unique_violation then null;
                    end;
                end loop;
                select count(*) into remaining from {table} t, {was} w where {differs};
                exit when remaining in (0, before);
                before := remaining;
            end loop;
        end
        $supa_safe$",
        change.statement(one, " and t.id = one.id")
    );
    client.batch_execute(&sql).await.map_err(stage)?;
    Ok(true)
}

/// What could not go back, kept as it was. Where no row was in the way, nothing else may be.
async fn taken(
    work: &Work<'_>,
    managed: &[Managed<'_>],
    one: &Managed<'_>,
    has_collided: bool,
) -> Result<Option<Taken>, Error> {
    let Managed { rows, was, columns, changes } = one;
    let (client, table) = (work.client, &rows.table);
    let changed = if changes.is_empty() { "false".to_owned() } else { one.differs() };
    // What belongs to an account that could not come back could not either.
    let users = managed.iter().find(|one| one.rows.table == USERS);
    let gone_users = users.map(|users| users.rows.gone.clone()).unwrap_or_default();
    let or_went = if table == USERS { "$2::text[] is null" } else { "w.user_id::text = any($2)" };
    let left = format!("select w.id, w.ctid as place from {table} t, {was} w where {changed}");
    let away = format!(
        "select w.id, w.ctid from {was} w
         where w.id::text = any($1) and ({} or {or_went}) and not exists (select from {table} t where t.id = w.id)",
        stands(rows)
    );
    let count: i64 = client.query_one(&format!("select count(*) from ({left}) l"), &[]).await?.get(0);
    if count > 0 && !has_collided {
        return Err(Error::NotExact(vec![format!("{count} rows of {table} did not go back")]));
    }
    since::unmark(client).await?;
    let sql = format!(
        "with found as ({left} union all {away}), marked as (
             insert into pg_temp.supa_safe_since select 0, place from found)
         select id::text from found order by 1"
    );
    let found = client.query(&sql, &[&rows.gone, &gone_users]).await?;
    if found.is_empty() {
        return Ok(None);
    }
    let ids = found.iter().map(|row| row.get(0)).collect();
    let mut taken = Taken { table: table.clone(), ids, file: None };
    if let (Some(folder), Some(("pg_temp", bare))) = (work.task.keep_in, was.split_once('.')) {
        let columns = columns.iter().map(|(name, _)| name.clone()).collect();
        let old = Doomed::plain("pg_temp", bare, columns);
        let file = since::write(client, (0, &old), (folder, &format!("{table}.old"))).await?;
        disk::sync_dir(folder)?;
        taken.file = Some(file);
    }
    Ok(Some(taken))
}

/// Keeps the rows that are about to go or to be changed, which nobody else changes any more: those at the places
/// that a query finds. The file has the name of the table, and what follows it.
async fn keep(
    work: &Work<'_>,
    one: &Managed<'_>,
    (places, parameters, suffix): (&str, &[&(dyn ToSql + Sync)], &str),
) -> Result<Option<Saved>, Error> {
    let Some(folder) = work.task.keep_in else { return Ok(None) };
    let sql = format!("insert into pg_temp.supa_safe_since {places}");
    since::unmark(work.client).await?;
    let rows =
        work.client.execute(&sql, parameters).await.map_err(Error::at("keep what stands in accounts"))?;
    let Some((schema, name)) = names::qualified(&one.rows.table).filter(|_| rows > 0) else {
        return Ok(None);
    };
    let columns = one.columns.iter().map(|(name, _)| name.clone()).collect();
    let now = Doomed::plain(&schema, &name, columns);
    let file = since::write(work.client, (0, &now), (folder, &format!("{}{suffix}", one.rows.table))).await?;
    disk::sync_dir(folder)?;
    Ok(Some(Saved { table: one.rows.table.clone(), rows, file }))
}
