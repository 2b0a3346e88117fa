//! The index of the Storage component: one line of JSON for every bucket and every object.
//!
//! Keys are foreign text, so they stand here and nowhere else: bytes are named by their SHA-256.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// The index's path in a snapshot's folder.
pub const INDEX: &str = "storage/index.jsonl";

/// The path, in a rollback's folder, of the index of what it saved before it was overwritten.
pub const SALVAGED: &str = "salvage/index.jsonl";

/// What became of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Its bytes are those of the row.
    Ok,
    /// It changed after the database's snapshot and before it was read: its bytes, if there are any,
    /// are newer than the row.
    Drifted,
    /// The row has no bytes on the server, and had none before.
    Dangling,
    /// The server does not accept the key that the row has.
    UnreadableKey,
    /// The empty file by which the dashboard keeps a folder.
    Placeholder,
}

impl State {
    /// Whether the bytes that are kept are those of the row.
    pub fn is_captured(self) -> bool {
        matches!(self, Self::Ok | Self::Placeholder)
    }
}

/// An object: its row at the consistency point, and what was captured for it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Object {
    /// What became of it.
    pub state: State,
    /// Its bucket; a row may have none.
    pub bucket: Option<String>,
    /// Its key; a row may have none.
    pub key: Option<String>,
    /// The row's id.
    pub id: String,
    /// The row's version, which every upload changes.
    pub version: Option<String>,
    /// Bytes that were captured, or that the row speaks of.
    pub size: Option<u64>,
    /// SHA-256 of the bytes, and their name in the store.
    pub sha256: Option<String>,
    /// MD5 of the bytes.
    pub md5: Option<String>,
    /// The etag that came with the bytes.
    pub etag: Option<String>,
    /// The content type that came with them.
    pub content_type: Option<String>,
    /// The cache control that came with them.
    pub cache_control: Option<String>,
    /// The row's `metadata`, as it is.
    pub metadata: Option<Box<RawValue>>,
    /// The row's `user_metadata`, as it is.
    pub user_metadata: Option<Box<RawValue>>,
    /// The row's owner, in the column that is out of use.
    pub owner: Option<String>,
    /// The row's owner.
    pub owner_id: Option<String>,
    /// The row's time of creation.
    pub created_at: Option<String>,
    /// The row's time of change.
    pub updated_at: Option<String>,
    /// The row's time of access.
    pub last_accessed_at: Option<String>,
}

impl Object {
    /// Bucket and key for people, nothing in them taken literally.
    pub fn in_words(&self) -> String {
        let words = |text: &Option<String>| {
            text.as_deref().map_or_else(|| "(null)".to_owned(), |text| text.escape_debug().to_string())
        };
        format!("`{}/{}`", words(&self.bucket), words(&self.key))
    }
}

/// A line of the index.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Line {
    /// A bucket: its whole row.
    Bucket(Box<RawValue>),
    /// An object.
    Object(Box<Object>),
}

/// What the index holds, as the manifest records it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Counts {
    /// Buckets.
    pub buckets: u64,
    /// Objects whose bytes are captured.
    pub ok: u64,
    /// Objects that changed while they were captured.
    pub drifted: u64,
    /// Rows without bytes.
    pub dangling: u64,
    /// Rows with a key that the server does not accept.
    pub unreadable_keys: u64,
    /// Placeholders of folders.
    pub placeholders: u64,
    /// Bytes of the objects, each counted as often as it is named.
    pub bytes: u64,
}

impl Counts {
    /// Objects in any state.
    pub fn objects(&self) -> u64 {
        self.ok + self.drifted + self.dangling + self.unreadable_keys + self.placeholders
    }

    /// Counts a line.
    pub fn add(&mut self, line: &Line) {
        let object = match line {
            Line::Bucket(_) => {
                self.buckets += 1;
                return;
            }
            Line::Object(object) => object,
        };
        match object.state {
            State::Ok => self.ok += 1,
            State::Drifted => self.drifted += 1,
            State::Dangling => self.dangling += 1,
            State::UnreadableKey => self.unreadable_keys += 1,
            State::Placeholder => self.placeholders += 1,
        }
        if object.sha256.is_some() {
            self.bytes += object.size.unwrap_or_default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_keeps_the_row_as_it_is() {
        let text = r#"{"object":{"state":"unreadable-key","bucket":"b","key":"../ü","id":"1","version":null,"size":null,"sha256":null,"md5":null,"etag":null,"content_type":null,"cache_control":null,"metadata":{"n":123456789012345678901234567890.10},"user_metadata":null,"owner":null,"owner_id":null,"created_at":null,"updated_at":null,"last_accessed_at":null}}"#;
        let line: Line = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&line).unwrap(), text);
        let mut counts = Counts::default();
        counts.add(&line);
        assert_eq!((counts.unreadable_keys, counts.objects()), (1, 1));
    }
}
