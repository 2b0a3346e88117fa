//! Reads the index of Storage back, and the bytes that it names.

use crate::disk;
use crate::manifest::storage::{Counts, Line, Object};
use crate::store::Objects;
use fs_err as fs;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufRead as _, BufReader};
use std::path::{Path, PathBuf};

/// Files that are digested between two looks at the index.
const PORTION: usize = 4096;

/// How closely bytes are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// They are there, and as many.
    Length,
    /// They have their SHA-256.
    Digest,
}

/// What is wrong with the Storage component, in words that name bucket and key.
pub(super) fn damage(
    index: &Path,
    recorded: Counts,
    objects: &Objects,
    look: Look,
) -> io::Result<Vec<String>> {
    let mut counts = Counts::default();
    let mut broken = Vec::new();
    let mut digested = Digested::default();
    for (number, line) in BufReader::new(fs::File::open(index)?).lines().enumerate() {
        let line: Line = match serde_json::from_str(&line?) {
            Ok(line) => line,
            Err(error) => {
                broken.push(format!("line {} of the index of Storage cannot be read ({error})", number + 1));
                continue;
            }
        };
        counts.add(&line);
        let Line::Object(object) = line else { continue };
        match (&object.sha256, object.size) {
            (Some(sha256), Some(size)) if !objects.holds(sha256, size) => {
                broken.push(format!("the bytes of object {} are not there", object.in_words()));
            }
            (Some(sha256), Some(_)) if look == Look::Digest => {
                digested.add(sha256, &object, objects, &mut broken)?;
            }
            (None, _) if object.state.is_captured() => {
                broken.push(format!("object {} has no bytes in the index", object.in_words()));
            }
            _ => {}
        }
    }
    digested.look(objects, &mut broken)?;
    if counts != recorded {
        broken.push(format!(
            "the index of Storage has {} objects in {} buckets instead of {} in {}",
            counts.objects(),
            counts.buckets,
            recorded.objects(),
            recorded.buckets
        ));
    }
    Ok(broken)
}

/// Those of some objects whose bytes are not what they were, in words.
pub(super) fn altered(wanted: &[Object], objects: &Objects) -> Vec<String> {
    let captured: Vec<(&Object, &String)> =
        wanted.iter().filter_map(|object| Some((object, object.sha256.as_ref()?))).collect();
    let paths: Vec<PathBuf> = captured.iter().map(|(_, sha256)| objects.path(sha256)).collect();
    let digests = captured.into_iter().zip(disk::sha256_files(&paths));
    let is_other =
        |digest: io::Result<(String, u64)>, sha256: &String| digest.ok().is_none_or(|(is, _)| is != *sha256);
    digests
        .filter_map(|((object, sha256), digest)| {
            is_other(digest, sha256).then(|| another(&object.in_words()))
        })
        .collect()
}

/// Digests each file once, some at a time; of files that are done the 32 bytes of their names stay.
#[derive(Default)]
struct Digested {
    done: BTreeSet<Vec<u8>>,
    altered: BTreeSet<String>,
    waiting: BTreeMap<String, Vec<String>>,
}

impl Digested {
    fn add(
        &mut self,
        sha256: &str,
        object: &Object,
        objects: &Objects,
        broken: &mut Vec<String>,
    ) -> io::Result<()> {
        if self.altered.contains(sha256) {
            broken.push(another(&object.in_words()));
        } else if !hex::decode(sha256).is_ok_and(|name| self.done.contains(&name)) {
            self.waiting.entry(sha256.to_owned()).or_default().push(object.in_words());
            if self.waiting.len() >= PORTION {
                self.look(objects, broken)?;
            }
        }
        Ok(())
    }

    fn look(&mut self, objects: &Objects, broken: &mut Vec<String>) -> io::Result<()> {
        let waiting = std::mem::take(&mut self.waiting);
        let paths: Vec<PathBuf> = waiting.keys().map(|sha256| objects.path(sha256)).collect();
        for ((sha256, names), digest) in waiting.into_iter().zip(disk::sha256_files(&paths)) {
            if digest.is_ok_and(|(found, _)| found == sha256) {
                self.done.extend(hex::decode(sha256));
            } else {
                broken.extend(names.iter().map(|name| another(name)));
                objects.set_aside(&sha256)?;
                self.altered.insert(sha256);
            }
        }
        Ok(())
    }
}

fn another(name: &str) -> String {
    format!("the bytes of object {name} have another SHA-256")
}
