//! Accounts that the push itself changed, deleted, or added, as the rehearsal saw it: these columns and
//! rows are as in the snapshot again. All else in their tables moves by itself, and stays.

use super::since::{self, Doomed, Saved};
use super::{Error, Work, names};
use crate::disk;
use crate::effect::ManagedRows;
use crate::postgres::storage::back;
use crate::salvage;
use crate::tools::pg_restore::Section;
use bytes::Bytes;
use futures_util::SinkExt as _;
use tokio::sync::mpsc::{Receiver, channel};
use tokio_postgres::Client;

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

/// A table of accounts, and the archive's rows of it in a temporary table.
pub(super) struct Managed<'a> {
    rows: &'a ManagedRows,
    was: String,
    /// As they are, and as SQL wants them.
    columns: Vec<(String, String)>,
}

impl Managed<'_> {
    /// The columns that go back; generated ones follow.
    fn changed(&self) -> Vec<&str> {
        let is_changed = |name: &String| self.rows.columns.contains(name);
        self.columns.iter().filter(|(name, _)| is_changed(name)).map(|(_, quoted)| quoted.as_str()).collect()
    }

    /// Whether a row `t` differs in these columns from what it was, `w`.
    fn differs(&self) -> String {
        let side = |side: &str| {
            let columns: Vec<String> =
                self.changed().iter().map(|column| format!("{side}.{column}::pg_catalog.text")).collect();
            format!("row({})", columns.join(", "))
        };
        format!("w.id = t.id and {} is distinct from {}", side("t"), side("w"))
    }
}

/// Loads what the archive has of the tables in which the push wrote.
pub(super) async fn load<'a>(work: &Work<'a>) -> Result<Vec<Managed<'a>>, Error> {
    let mut loaded = Vec::new();
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
        let columns = columns.iter().map(|row| (row.get(0), row.get(1))).collect();
        loaded.push(Managed { rows, was, columns });
    }
    Ok(loaded)
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

/// Takes away the accounts that the push added, with all that refers to them: those that the rehearsal
/// knows, and, where the push changed no account, those that its transactions wrote last. Where it did, a
/// sign-up between the snapshot and the push looks the same.
pub(super) async fn remove_added(work: &Work<'_>, managed: &[Managed<'_>]) -> Result<(), Error> {
    for Managed { rows, was, .. } in managed.iter().filter(|one| !one.rows.added.is_empty()) {
        let made = if rows.columns.is_empty() && work.has_history().await? {
            "or t.xmin::text in (
                select h.xmin::text from supabase_migrations.schema_migrations h where h.version = any($2))"
        } else {
            "and $2::text[] is not null"
        };
        let sql = format!(
            "delete from {} t where (t.id::text = any($1) {made})
                and not exists (select from {was} w where w.id = t.id)",
            rows.table
        );
        let done = work.client.execute(&sql, &[&rows.added, &work.task.versions]).await;
        done.map_err(Error::at("take away the accounts that the push added"))?;
    }
    Ok(())
}

/// Brings back what the push changed and deleted; what stood there is kept first.
pub(super) async fn bring_back(work: &Work<'_>, managed: &[Managed<'_>]) -> Result<Vec<Saved>, Error> {
    let mut saved = Vec::new();
    if managed.is_empty() {
        return Ok(saved);
    }
    let storage = |error| Error::Storage(salvage::Error::from(error));
    let quiet = back::quieten(work.client).await.map_err(storage)?;
    for one in managed {
        let Managed { rows, was, columns } = one;
        let (table, changed) = (&rows.table, one.changed());
        if !changed.is_empty() {
            saved.extend(keep(work, one).await?);
            let set: Vec<String> = changed.iter().map(|column| format!("{column} = w.{column}")).collect();
            let sql = format!("update {table} t set {} from {was} w where {}", set.join(", "), one.differs());
            let done = work.client.execute(&sql, &[]).await;
            done.map_err(Error::at("bring back what the push changed in accounts"))?;
        }
        let columns: Vec<&str> = columns.iter().map(|(_, quoted)| quoted.as_str()).collect();
        let columns = columns.join(", ");
        // An identity without its account is nobody's.
        let stands = if table == "auth.identities" {
            "and exists (select from auth.users u where u.id = w.user_id)"
        } else {
            ""
        };
        let sql = format!(
            "insert into {table} ({columns}) overriding system value select {columns} from {was} w
             where w.id::text = any($1) {stands} and not exists (select from {table} t where t.id = w.id)"
        );
        let done = work.client.execute(&sql, &[&rows.gone]).await;
        done.map_err(Error::at("bring back the accounts that the push deleted"))?;
    }
    back::waken(work.client, quiet).await.map_err(storage)?;
    for one in managed.iter().filter(|one| !one.changed().is_empty()) {
        let sql = format!("select count(*) from {} t, {} w where {}", one.rows.table, one.was, one.differs());
        let left: i64 = work.client.query_one(&sql, &[]).await?.get(0);
        if left > 0 {
            return Err(Error::NotExact(vec![format!("{left} rows of {} did not go back", one.rows.table)]));
        }
    }
    Ok(saved)
}

/// Keeps the rows that are about to be changed.
async fn keep(work: &Work<'_>, one: &Managed<'_>) -> Result<Option<Saved>, Error> {
    let Some(folder) = work.task.keep_in else { return Ok(None) };
    let sql = format!(
        "create temp table if not exists supa_safe_since (rank int, place tid); truncate pg_temp.supa_safe_since;
        insert into pg_temp.supa_safe_since select 0, t.ctid from {} t, {} w where {}",
        one.rows.table,
        one.was,
        one.differs()
    );
    work.client.batch_execute(&sql).await.map_err(Error::at("keep what stands in accounts"))?;
    let count = work.client.query_one("select count(*) from pg_temp.supa_safe_since", &[]).await?;
    let rows = u64::try_from(count.get::<_, i64>(0)).unwrap_or_default();
    let Some((schema, name)) = names::qualified(&one.rows.table).filter(|_| rows > 0) else {
        return Ok(None);
    };
    let file = format!("{}.csv", one.rows.table);
    let columns = one.columns.iter().map(|(name, _)| name.clone()).collect();
    let table = Doomed { schema, name, columns, recorded: None, has_key: true, primary_key: Vec::new() };
    since::write(work.client, (0, &table), &folder.join(&file)).await?;
    disk::sync_dir(folder)?;
    Ok(Some(Saved { table: one.rows.table.clone(), rows, file }))
}
