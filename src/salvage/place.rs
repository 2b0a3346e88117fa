//! Brings rows back to their places, one after the other: chains and swaps of keys come out, and
//! what stands in the way goes when it is saved.

use super::bytes::{Restored, Theirs, changed, send};
use super::plan::Place;
use super::save::{Chosen, Saved, Way};
use super::{Error, Reach, live};
use crate::event::{Step, Tally, Tell};
use crate::objects::{self, Rest};
use crate::postgres::storage::{Row, back};
use std::collections::{BTreeMap, BTreeSet};
use tokio_postgres::Client;

/// Moves every row of the plan that is not where it was.
pub(super) async fn settle(
    client: &Client,
    reach: &Reach,
    saved: &mut Saved,
    (done, tell): (&mut Restored, Tell<'_>),
) -> Result<(), Error> {
    let mut tally = None;
    let mut open: Vec<Chosen> =
        saved.chosen.iter().filter(|chosen| target(chosen).is_some()).cloned().collect();
    if reach.rest.is_none() {
        // Without it a move is an upload.
        done.lift_limits(client, open.iter().filter(|chosen| chosen.way == Way::Move)).await?;
    }
    loop {
        let rows = live::of_items(client, open.iter().map(|chosen| &chosen.item)).await?;
        let mut waiting = Vec::new();
        for chosen in open {
            match standing(&chosen, &rows) {
                Standing::There => {}
                Standing::Elsewhere(row) => waiting.push((chosen, *row)),
                Standing::Lost(what) => {
                    done.stays.insert(chosen.item.was.id.clone(), what);
                }
            }
        }
        if waiting.is_empty() {
            break;
        }
        let tally = tally.get_or_insert_with(|| Tally::begin(Step::MoveObjects, waiting.len() as u64, tell));
        let stuck = round(client, reach, saved, (&waiting, done, tally)).await?;
        open = waiting
            .into_iter()
            .map(|(chosen, _)| chosen)
            .filter(|chosen| !stuck.contains(&chosen.item.was.id))
            .collect();
    }
    if let Some(tally) = tally {
        tally.end();
    }
    if reach.rest.is_none() {
        remove_remains(client, reach, saved).await?;
    }
    Ok(())
}

/// Where an item's row is.
enum Standing {
    There,
    Elsewhere(Box<Row>),
    /// Somebody else took it away.
    Lost(Theirs),
}

fn target(chosen: &Chosen) -> Option<(&str, &str)> {
    let was = &chosen.item.was;
    was.bucket.as_deref().zip(was.key.as_deref())
}

fn standing(chosen: &Chosen, rows: &BTreeMap<String, Row>) -> Standing {
    let was = &chosen.item.was;
    let Some(row) = rows.get(&was.id) else {
        return Standing::Lost(Theirs::Removed);
    };
    let place = Place::of_row(row);
    let parking = Place { bucket: was.bucket.clone(), key: Some(back::parking(&was.id)) };
    if place == Place::of(was) {
        Standing::There
    } else if place == parking || chosen.item.live.as_ref().is_some_and(|live| Place::of_row(live) == place) {
        Standing::Elsewhere(Box::new(row.clone()))
    } else {
        Standing::Lost(Theirs::Moved)
    }
}

/// One look at all that wait: whoever's place is free, or is taken by a stranger, goes. Where nobody
/// can, one steps aside. Returns the ids of those that never can.
async fn round(
    client: &Client,
    reach: &Reach,
    saved: &mut Saved,
    (waiting, done, tally): (&[(Chosen, Row)], &mut Restored, &mut Tally<'_>),
) -> Result<BTreeSet<String>, Error> {
    let places: Vec<(&str, &str)> = waiting.iter().filter_map(|(chosen, _)| target(chosen)).collect();
    let mut occupants: BTreeMap<Place, Row> = BTreeMap::new();
    for places in places.chunks(live::PORTION) {
        occupants.extend(back::at(client, places).await?.into_iter().map(|row| (Place::of_row(&row), row)));
    }
    let own: BTreeSet<&str> = waiting.iter().map(|(_, row)| row.id.as_str()).collect();
    let (mut stuck, mut progress) = (BTreeSet::new(), false);
    for (chosen, row) in waiting {
        let Some(to) = target(chosen) else { continue };
        let occupant = occupants.get(&Place::of(&chosen.item.was));
        if occupant.is_some_and(|occupant| own.contains(occupant.id.as_str())) {
            continue;
        }
        progress = true;
        let gone = match occupant {
            Some(occupant) => displace(client, reach, saved, (chosen, occupant)).await,
            None => Ok(()),
        };
        let moved = match gone {
            Ok(()) => relocate(client, reach, (chosen, row), to).await,
            Err(error) => Err(error),
        };
        if let Err(error) = moved {
            done.leave(&chosen.item.was, error)?;
            stuck.insert(chosen.item.was.id.clone());
        } else {
            done.moved += 1;
            tally.add(1);
        }
    }
    if !progress {
        let aside = waiting.iter().find(|(chosen, row)| {
            row.name.as_deref().is_some_and(|name| name != back::parking(&chosen.item.was.id))
        });
        let Some((chosen, row)) = aside else {
            let all = waiting.iter().map(|(chosen, _)| chosen.item.was.id.clone());
            done.left.extend(
                waiting
                    .iter()
                    .map(|(chosen, _)| format!("object {} has no place", chosen.item.was.in_words())),
            );
            return Ok(all.collect());
        };
        let parking = back::parking(&chosen.item.was.id);
        let bucket = chosen.item.was.bucket.as_deref().unwrap_or_default();
        relocate(client, reach, (chosen, row), (bucket, &parking)).await?;
    }
    Ok(stuck)
}

/// Removes a stranger from an object's place, with its bytes, when they are saved.
async fn displace(
    client: &Client,
    reach: &Reach,
    saved: &mut Saved,
    (chosen, occupant): (&Chosen, &Row),
) -> Result<(), Error> {
    let Some(address) = occupant.address() else {
        return delete_row(client, &occupant.id).await;
    };
    let by_s3 = chosen.way == Way::Move && reach.rest.is_none();
    if by_s3 && live::look(reach, &chosen.item.was, address).await? == live::Bytes::AsTheyWere {
        // It is the upload of a run that died before the rows changed places.
        return Ok(());
    }
    let occupant = keep(client, reach, saved, occupant).await?;
    let Some(address) = occupant.as_ref().and_then(Row::address) else { return Ok(()) };
    match reach.s3.delete(address.0, address.1).await {
        Err(objects::Error::InvalidKey { .. }) => match &occupant {
            Some(occupant) => delete_row(client, &occupant.id).await,
            None => Ok(()),
        },
        deleted => Ok(deleted?),
    }
}

/// Saves a stranger as it is at the end of that, however often somebody writes it meanwhile; none when it
/// went out of the way.
async fn keep(
    client: &Client,
    reach: &Reach,
    saved: &mut Saved,
    occupant: &Row,
) -> Result<Option<Row>, Error> {
    let mut occupant = occupant.clone();
    loop {
        saved.also(reach, vec![occupant.clone()]).await?;
        match changed(client, &occupant).await? {
            None => return Ok(Some(occupant)),
            Some(Theirs::Removed | Theirs::Moved) => return Ok(None),
            Some(Theirs::Overwritten) => {}
        }
        match back::by_ids(client, &[&occupant.id]).await?.pop() {
            Some(now) => occupant = now,
            None => return Ok(None),
        }
    }
}

async fn delete_row(client: &Client, id: &str) -> Result<(), Error> {
    let quiet = begin(client).await?;
    let deleted = back::delete(client, &[id]).await;
    end(client, quiet, deleted.map(drop)).await
}

/// Gives a row another place: by SQL when its bytes stand under that one, else with them.
async fn relocate(
    client: &Client,
    reach: &Reach,
    (chosen, row): (&Chosen, &Row),
    to: (&str, &str),
) -> Result<(), Error> {
    match (&chosen.way, &reach.rest) {
        (Way::Row(_) | Way::Upload, _) => {
            let quiet = begin(client).await?;
            let renamed = back::rename(client, row, to).await;
            end(client, quiet, renamed.map(drop)).await
        }
        (Way::Move, Some(rest)) => move_by_rest(rest, row, to).await,
        (Way::Move, None) => move_by_s3(client, reach, (chosen, row), to).await,
    }
}

async fn move_by_rest(rest: &Rest, row: &Row, to: (&str, &str)) -> Result<(), Error> {
    let from = row.bucket_id.as_deref().zip(row.name.as_deref()).unwrap_or_default();
    Ok(rest.relocate(from, to).await?)
}

/// The S3 protocol moves nothing: the bytes are uploaded to the place, the two rows change theirs,
/// and what stands at the old one goes.
async fn move_by_s3(
    client: &Client,
    reach: &Reach,
    (chosen, row): (&Chosen, &Row),
    to: (&str, &str),
) -> Result<(), Error> {
    let was = &chosen.item.was;
    if live::look(reach, was, to).await? != live::Bytes::AsTheyWere {
        send(reach, was, to).await?;
    }
    let uploaded = back::at(client, &[to]).await?;
    let [other] = uploaded.as_slice() else {
        return Err(objects::Error::NotFound {
            doing: format!("move {}", was.in_words()),
            code: "no row".to_owned(),
        }
        .into());
    };
    let quiet = begin(client).await?;
    let exchanged = back::exchange(client, row, other).await;
    if !end(client, quiet, exchanged).await? {
        // What stands at the old place is not what was kept of it.
        return Err(Error::Meanwhile { object: was.in_words() });
    }
    if let Some((bucket, key)) = row.address() {
        reach.s3.delete(bucket, key).await?;
    }
    Ok(())
}

/// Removes what a run that died left between an exchange and its end, or at a parking.
async fn remove_remains(client: &Client, reach: &Reach, saved: &Saved) -> Result<(), Error> {
    let own: BTreeSet<&str> = saved.chosen.iter().map(|chosen| chosen.item.was.id.as_str()).collect();
    for chosen in saved.chosen.iter().filter(|chosen| chosen.way == Way::Move) {
        let Some(live) = &chosen.item.live else { continue };
        let parking = back::parking(&chosen.item.was.id);
        let bucket = chosen.item.was.bucket.as_deref().unwrap_or_default();
        let places: Vec<(&str, &str)> =
            live.address().into_iter().chain([(bucket, parking.as_str())]).collect();
        for row in back::at(client, &places).await? {
            let is_parked = row.name.as_deref() == Some(parking.as_str());
            if own.contains(row.id.as_str()) || !(is_parked || row.version == live.version) {
                continue;
            }
            if let Some((bucket, key)) = row.address() {
                reach.s3.delete(bucket, key).await?;
            }
        }
    }
    Ok(())
}

/// Begins a transaction in which triggers are quiet.
pub(super) async fn begin(client: &Client) -> Result<back::Quiet, Error> {
    client.batch_execute("begin").await?;
    match back::quieten(client).await {
        Ok(quiet) => Ok(quiet),
        Err(error) => {
            client.batch_execute("rollback").await?;
            Err(error.into())
        }
    }
}

/// Ends it as its work ended.
pub(super) async fn end<T>(
    client: &Client,
    quiet: back::Quiet,
    worked: Result<T, crate::postgres::storage::Error>,
) -> Result<T, Error> {
    match worked {
        Ok(done) => {
            back::waken(client, quiet).await?;
            client.batch_execute("commit").await?;
            Ok(done)
        }
        Err(error) => {
            client.batch_execute("rollback").await?;
            Err(error.into())
        }
    }
}
