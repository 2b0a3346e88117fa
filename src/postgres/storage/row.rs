//! A row of `storage.objects` as the server makes JSON of it.

use crate::manifest::storage::{Object, State};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

/// A row; columns that are not known here are left aside.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Row {
    /// Its bucket; a row may have none.
    pub bucket_id: Option<String>,
    /// Its key; a row may have none.
    pub name: Option<String>,
    /// Its id.
    pub id: String,
    /// What every upload changes.
    #[serde(default)]
    pub version: Option<String>,
    /// What the server keeps of the bytes.
    #[serde(default)]
    pub metadata: Option<Box<RawValue>>,
    /// What the application keeps beside them.
    #[serde(default)]
    pub user_metadata: Option<Box<RawValue>>,
    /// The owner, in the column that is out of use.
    #[serde(default)]
    pub owner: Option<String>,
    /// The owner.
    #[serde(default)]
    pub owner_id: Option<String>,
    /// The time of creation.
    #[serde(default)]
    pub created_at: Option<String>,
    /// The time of change.
    #[serde(default)]
    pub updated_at: Option<String>,
    /// The time of access.
    #[serde(default)]
    pub last_accessed_at: Option<String>,
}

/// What a row's metadata says of its bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// Their etag, without quotes.
    pub etag: Option<String>,
    /// Their length.
    pub size: Option<u64>,
}

impl Told {
    /// Reads metadata.
    pub fn of(metadata: Option<&RawValue>) -> Self {
        let metadata: Option<Value> = metadata.and_then(|raw| serde_json::from_str(raw.get()).ok());
        let Some(metadata) = metadata else { return Self::default() };
        let etag =
            metadata["eTag"].as_str().map(|etag| etag.trim_start_matches("W/").trim_matches('"').to_owned());
        let size = metadata["size"].as_u64().or_else(|| metadata["size"].as_str()?.parse().ok());
        Self { etag, size }
    }
}

/// Bucket and key, when a request can name them. One with a step out of a folder is never sent:
/// whatever is between here and the server may follow the step. Nor is one with a character that XML
/// has no form for (XML 1.0, 2.2): no server accepts it, and one that repeats it in its refusal sends
/// a document that nobody can read.
pub fn address<'a>(bucket: Option<&'a str>, key: Option<&'a str>) -> Option<(&'a str, &'a str)> {
    let (bucket, key) = (bucket?, key?);
    let steps = |text: &str| text.split('/').any(|part| matches!(part, "." | ".."));
    let can_be_named = !bucket.is_empty() && !key.is_empty() && !bucket.contains('/');
    let refused = |text: &str| steps(text) || !text.chars().all(has_a_form);
    (can_be_named && !refused(bucket) && !refused(key)).then_some((bucket, key))
}

/// Whether XML has a form for a character.
fn has_a_form(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\r' | ' '..='\u{fffd}' | '\u{10000}'..)
}

impl Row {
    /// What its metadata says of its bytes.
    pub fn told(&self) -> Told {
        Told::of(self.metadata.as_deref())
    }

    /// Bucket and key, when a request can name them.
    pub fn address(&self) -> Option<(&str, &str)> {
        address(self.bucket_id.as_deref(), self.name.as_deref())
    }

    /// Bucket and key for people, nothing in them taken literally.
    pub fn in_words(&self) -> String {
        let part = |text: &Option<String>| text.as_deref().unwrap_or_default().escape_debug().to_string();
        format!("`{}/{}`", part(&self.bucket_id), part(&self.name))
    }

    /// The line of an index for it, nothing captured yet.
    pub fn record(self, state: State, size: Option<u64>) -> Object {
        Object {
            state,
            bucket: self.bucket_id,
            key: self.name,
            id: self.id,
            version: self.version,
            size,
            sha256: None,
            md5: None,
            etag: None,
            content_type: None,
            cache_control: None,
            metadata: self.metadata,
            user_metadata: self.user_metadata,
            owner: self.owner,
            owner_id: self.owner_id,
            created_at: self.created_at,
            updated_at: self.updated_at,
            last_accessed_at: self.last_accessed_at,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_request_can_name_has_no_address() {
        for key in ["a", " a/b ", "a\tb\n\r", "ü%25", "a//b", "...", "\u{fffd}\u{10ffff}", "\u{7f}"] {
            assert_eq!(address(Some("b"), Some(key)), Some(("b", key)), "{key:?}");
        }
        for key in ["", "../a", "a/.", "c\u{1}x", "\u{8}", "\u{1b}[2J", "a/\u{ffff}", "\u{fffe}", "\u{1f}"] {
            assert_eq!(address(Some("b"), Some(key)), None, "{key:?}");
        }
        assert_eq!((address(None, Some("a")), address(Some("b\u{1}"), Some("a"))), (None, None));
    }
}
