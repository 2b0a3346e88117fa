//! Saves what will be overwritten or deleted, and writes the plan down.

use super::plan::{Change, Differences, Item, Plan, other_columns};
use super::{Error, Reach, TRANSFERS, live};
use crate::disk;
use crate::manifest::storage::{Line, Object, SALVAGED, State};
use crate::objects;
use crate::postgres::storage::Row;
use fs_err as fs;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeSet;
use std::io::{self, BufRead as _, BufReader, BufWriter, Write as _};
use std::path::{Path, PathBuf};

/// What is done, beside the index of what was saved.
const PLAN: &str = "salvage/plan.jsonl";

/// What a bucket allows, which is lifted while objects are uploaded.
const LIMITS: [&str; 2] = ["file_size_limit", "allowed_mime_types"];

/// How an object comes back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    /// Its row is written, with this version; its bytes stand under it, if there are any.
    Row(Option<String>),
    /// Its bytes are uploaded over those that are there.
    Upload,
    /// It is moved back by the API.
    Move,
}

/// An object that is brought back, and how.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Chosen {
    pub(super) item: Item,
    pub(super) way: Way,
}

impl Chosen {
    /// The version of the row whose bytes may be replaced: any other one is somebody's upload since.
    pub(super) fn expected(&self) -> Option<&str> {
        match &self.way {
            Way::Row(version) => version.as_deref(),
            Way::Upload | Way::Move => self.item.live.as_ref()?.version.as_deref(),
        }
    }
}

/// A plan whose casualties are saved: what the later stages take.
#[derive(Clone, Debug)]
pub struct Saved {
    pub(super) folder: PathBuf,
    pub(super) plan: Plan,
    pub(super) chosen: Vec<Chosen>,
    pub(super) casualties: Vec<Object>,
}

impl Saved {
    /// The plan, its items aside.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Each object that is brought back, and how.
    pub fn items(&self) -> impl Iterator<Item = (&Item, &Way)> {
        self.chosen.iter().map(|chosen| (&chosen.item, &chosen.way))
    }

    /// Whether any row of Storage is written.
    pub fn writes_rows(&self) -> bool {
        let Plan { buckets, merged, withdrawn, withdrawn_buckets, .. } = &self.plan;
        buckets.iter().any(|bucket| bucket.is_missing || bucket.is_changed)
            || self.chosen.iter().any(|chosen| matches!(chosen.way, Way::Row(_)))
            || !(merged.is_empty() && withdrawn.is_empty() && withdrawn_buckets.is_empty())
    }

    /// What was saved: rows as they were, and the digests of their bytes in the store.
    pub fn casualties(&self) -> &[Object] {
        &self.casualties
    }

    /// Saves live objects that nobody knew of when the plan was made, before they are lost.
    pub(super) async fn also(&mut self, reach: &Reach, rows: Vec<Row>) -> Result<(), Error> {
        let known: BTreeSet<(&str, Option<&str>)> =
            self.with_bytes().map(|object| (object.id.as_str(), object.version.as_deref())).collect();
        let rows: Vec<Row> = rows
            .into_iter()
            .filter(|row| !known.contains(&(row.id.as_str(), row.version.as_deref())))
            .collect();
        if rows.is_empty() {
            return Ok(());
        }
        let fetched: Vec<Object> =
            stream::iter(rows).map(|row| live::fetch(reach, row)).buffered(TRANSFERS).try_collect().await?;
        reach.objects.sync()?;
        self.casualties.extend(fetched);
        Ok(write_index(&self.folder, &self.casualties)?)
    }

    /// Buckets that are not as they shall be, in words.
    pub(super) fn wrong_buckets(&self, found: &Differences) -> Result<Vec<String>, Error> {
        self.buckets_that(found, |live, wanted| {
            live.is_none_or(|live| !other_columns(live, wanted).is_empty())
        })
    }

    /// Buckets of which a limit is still lifted. All else of them went back with the rows: what differs now is
    /// somebody's since.
    pub(super) fn wrong_limits(&self, found: &Differences) -> Result<Vec<String>, Error> {
        self.buckets_that(found, |live, wanted| {
            let is_lifted =
                |live: &Value| LIMITS.iter().any(|limit| live[limit].is_null() && !wanted[limit].is_null());
            live.is_some_and(is_lifted)
        })
    }

    fn buckets_that(
        &self,
        found: &Differences,
        is_wrong: impl Fn(Option<&Value>, &Value) -> bool,
    ) -> Result<Vec<String>, Error> {
        let live: Vec<Value> =
            found.buckets_live.iter().filter_map(|raw| serde_json::from_str(raw.get()).ok()).collect();
        let mut wrong = Vec::new();
        for bucket in &self.plan.buckets {
            let wanted: Value = serde_json::from_str(bucket.wanted.get()).map_err(Error::Record)?;
            if is_wrong(live.iter().find(|live| live["id"] == wanted["id"]), &wanted) {
                wrong.push(format!("bucket `{}` is not as it was", bucket.id.escape_debug()));
            }
        }
        Ok(wrong)
    }

    /// Whether there is nothing to bring back.
    pub fn is_nothing(&self) -> bool {
        self.chosen.is_empty() && self.plan.is_empty()
    }

    /// What was saved with its bytes.
    pub(super) fn with_bytes(&self) -> impl Iterator<Item = &Object> {
        self.casualties.iter().filter(|object| object.sha256.is_some())
    }
}

/// A line of the written plan.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Step {
    /// Everything but the items.
    Plan(Box<Plan>),
    /// An item.
    Chosen(Box<Chosen>),
}

/// Saves every live object that will be overwritten or deleted, its row and its bytes, and writes
/// the plan into the folder of the rollback, durably. Nothing of the target changes.
pub async fn save(reach: &Reach, mut plan: Plan, folder: &Path) -> Result<Saved, Error> {
    let folder = folder.to_owned();
    make_folders(&folder)?;
    let items = std::mem::take(&mut plan.items);
    let chosen: Vec<(Chosen, Option<Object>)> =
        stream::iter(items).map(|item| choose(reach, item)).buffered(TRANSFERS).try_collect().await?;
    let going: Vec<Object> = stream::iter(plan.displaced.clone())
        .map(|row| live::fetch(reach, row))
        .buffered(TRANSFERS)
        .try_collect()
        .await?;
    let (chosen, overwritten): (Vec<Chosen>, Vec<Option<Object>>) = chosen.into_iter().unzip();
    let merged = plan.merged.iter().map(|merge| merge.live.clone().record(State::Ok, None));
    let mut saved: Vec<Object> = overwritten.into_iter().flatten().chain(going).chain(merged).collect();
    saved.extend(withdraw(reach, &mut plan.withdrawn, &mut plan.added).await?);
    // The bytes are named before anything names them, and the plan stands when all of it does.
    reach.objects.sync()?;
    write(Saved { folder, plan, chosen, casualties: saved })
}

/// The same when nothing reaches the bytes. Rows go back as far as SQL alone can do it; what takes a look at
/// bytes, or the API, is left to [`super::bytes`] of a later run, which saves what is in its way then.
pub fn defer(mut plan: Plan, folder: &Path) -> Result<Saved, Error> {
    let folder = folder.to_owned();
    make_folders(&folder)?;
    let items = std::mem::take(&mut plan.items).into_iter();
    let chosen: Vec<Chosen> = items.map(|item| Chosen { way: unseen(&item), item }).collect();
    let by_sql = chosen.iter().filter(|chosen| matches!(chosen.way, Way::Row(_)));
    let rewritten = by_sql.filter_map(|chosen| chosen.item.live.clone());
    let merged = plan.merged.iter().map(|merge| merge.live.clone());
    // Bytes stand under a version: a row that has none never had any.
    let (empty, unseen): (Vec<Row>, Vec<Row>) =
        std::mem::take(&mut plan.withdrawn).into_iter().partition(|row| row.version.is_none());
    (plan.withdrawn, plan.unseen) = (empty, unseen);
    let rows = rewritten.chain(merged).chain(plan.withdrawn.iter().cloned());
    let casualties = rows.map(|row| row.record(State::Ok, None)).collect();
    write(Saved { folder, plan, chosen, casualties })
}

/// How an object comes back at whose bytes nobody looked.
fn unseen(item: &Item) -> Way {
    match item.change {
        Change::Altered | Change::MovedBySql | Change::Absent => Way::Row(item.was.version.clone()),
        Change::Overwritten => Way::Upload,
        Change::MovedByApi => Way::Move,
    }
}

fn make_folders(folder: &Path) -> io::Result<()> {
    for file in [PLAN, SALVAGED].map(|file| folder.join(file)) {
        disk::make_private_dir(file.parent().unwrap_or(folder))?;
    }
    Ok(())
}

fn write(saved: Saved) -> Result<Saved, Error> {
    write_index(&saved.folder, &saved.casualties)?;
    let all = Step::Plan(Box::new(saved.plan.clone()));
    let steps = saved.chosen.iter().map(|chosen| Step::Chosen(Box::new(chosen.clone())));
    write_lines(&saved.folder.join(PLAN), [all].into_iter().chain(steps))?;
    Ok(saved)
}

/// Of the rows that the migration added, those into which somebody uploaded since are moved to what stays.
pub(super) async fn withdraw(
    reach: &Reach,
    withdrawn: &mut Vec<Row>,
    added: &mut Vec<Row>,
) -> Result<Vec<Object>, Error> {
    let found: Vec<(Row, Object)> = stream::iter(std::mem::take(withdrawn))
        .map(|row| async move {
            let fetched = match live::fetch(reach, row.clone()).await {
                // A server with its bytes in files fails so when there are none.
                Err(Error::Objects(objects::Error::Busy { status: 500, .. })) => {
                    row.clone().record(State::Dangling, None)
                }
                fetched => fetched?,
            };
            Ok::<_, Error>((row, fetched))
        })
        .buffered(TRANSFERS)
        .try_collect()
        .await?;
    let (filled, empty): (Vec<_>, Vec<_>) =
        found.into_iter().partition(|(_, object)| object.sha256.is_some());
    added.extend(filled.into_iter().map(|(row, _)| row));
    let (rows, objects): (Vec<Row>, Vec<Object>) = empty.into_iter().unzip();
    *withdrawn = rows;
    Ok(objects)
}

/// A plan for a copy, of which there are no bytes: every row is written as it was.
pub fn foresee(mut plan: Plan) -> Saved {
    let items = std::mem::take(&mut plan.items).into_iter();
    let chosen = items.map(|item| Chosen { way: Way::Row(item.was.version.clone()), item }).collect();
    Saved { folder: PathBuf::new(), plan, chosen, casualties: Vec::new() }
}

/// That nothing is to be done, where that is known.
pub fn nothing() -> Saved {
    foresee(Plan::default())
}

/// Reads back what was saved by a run that died; `None` when it had not come so far. Only for a run
/// whose COMMIT went through: before it, the plan is made anew.
pub fn resume(folder: &Path) -> Result<Option<Saved>, Error> {
    let folder = folder.to_owned();
    let file = match fs::File::open(folder.join(PLAN)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let (mut plan, mut chosen) = (Plan::default(), Vec::new());
    for line in BufReader::new(file).lines() {
        match serde_json::from_str(&line?).map_err(Error::Record)? {
            Step::Plan(all) => plan = *all,
            Step::Chosen(one) => chosen.push(*one),
        }
    }
    let mut saved = Vec::new();
    for line in BufReader::new(fs::File::open(folder.join(SALVAGED))?).lines() {
        if let Line::Object(object) = serde_json::from_str(&line?).map_err(Error::Record)? {
            saved.push(*object);
        }
    }
    Ok(Some(Saved { folder, plan, chosen, casualties: saved }))
}

/// Looks at a live object, and chooses how it comes back; its row is saved whenever there is one.
async fn choose(reach: &Reach, item: Item) -> Result<(Chosen, Option<Object>), Error> {
    let as_it_was = Way::Row(item.was.version.clone());
    let Some(row) = item.live.clone() else { return Ok((Chosen { item, way: as_it_was }, None)) };
    match item.change {
        Change::Altered | Change::MovedBySql | Change::Absent => {
            let saved = row.record(State::Ok, None);
            Ok((Chosen { item, way: as_it_was }, Some(saved)))
        }
        Change::Overwritten => {
            let saved = live::fetch(reach, row).await?;
            // Without bytes, or out of reach, it was SQL that gave it another version.
            let is_there = saved.sha256.is_some() && item.address().is_some();
            let way = if is_there { Way::Upload } else { as_it_was };
            Ok((Chosen { item, way }, Some(saved)))
        }
        Change::MovedByApi => {
            let is_same = match row.address().filter(|_| item.was.sha256.is_some()) {
                Some(address) => live::look(reach, &item.was, address).await? == live::Bytes::AsTheyWere,
                None => false,
            };
            if is_same {
                let mut saved = row.record(State::Ok, item.was.size);
                saved.sha256.clone_from(&item.was.sha256);
                return Ok((Chosen { item, way: Way::Move }, Some(saved)));
            }
            let version = row.version.clone();
            let saved = live::fetch(reach, row).await?;
            // The API overwrote it and SQL renamed it: the bytes stand where it was.
            let way = if saved.sha256.is_some() { Way::Move } else { Way::Row(version) };
            Ok((Chosen { item, way }, Some(saved)))
        }
    }
}

fn write_index(folder: &Path, saved: &[Object]) -> io::Result<()> {
    write_lines(&folder.join(SALVAGED), saved.iter().map(|object| Line::Object(Box::new(object.clone()))))
}

/// Writes a file of lines, durably and whole.
fn write_lines<T: Serialize>(path: &Path, lines: impl Iterator<Item = T>) -> io::Result<()> {
    let dir = path.parent().unwrap_or(path);
    let mut out = BufWriter::new(disk::Temp::new_in(dir)?);
    for line in lines {
        serde_json::to_writer(&mut out, &line)?;
        out.write_all(b"\n")?;
    }
    let temp = out.into_inner().map_err(io::IntoInnerError::into_error)?;
    temp.persist(path)?;
    disk::sync_dir(dir)
}
