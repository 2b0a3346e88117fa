//! Captures the secrets: names, SHA-256 digests, and when they were set. Never a value; the platform
//! does not give one out.

use crate::disk;
use crate::inventory::Entry;
use crate::manifest::{Component, ComponentName, ComponentState};
use crate::store::{Draft, Snapshot};
use crate::tools::supabase::cloud::{self, Cloud, Folder, SecretDigest};
use fs_err as fs;
use std::io;

/// The record of the component.
const FILE: &str = "secrets.json";

/// Why the secrets could not be captured.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The platform did not tell.
    #[error("cannot capture the names of the secrets")]
    Cloud(#[from] cloud::Error),
    /// A file could not be read or written.
    #[error("cannot write the names of the secrets")]
    Io(#[from] io::Error),
    /// A name comes with something else than a digest, which might be the value.
    #[error("the platform told something else than a SHA-256 digest of secret `{0}`; it was not kept")]
    NotADigest(String),
}

/// The secrets as the platform has them now.
pub async fn list(cloud: &Cloud, folder: &Folder) -> Result<Vec<Entry>, Error> {
    let told = cloud.secrets(folder).await?;
    let mut entries = told.into_iter().map(entry).collect::<Result<Vec<_>, _>>()?;
    entries.sort_by(|left, right| left.name.cmp(&right.name));
    Ok(entries)
}

fn entry(told: SecretDigest) -> Result<Entry, Error> {
    let SecretDigest { name, digest, updated_at } = told;
    if digest.len() != 64 || !digest.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(Error::NotADigest(name));
    }
    Ok(Entry { name, digest: digest.to_ascii_lowercase(), updated_at })
}

/// Captures the secrets into a draft.
pub async fn capture(cloud: &Cloud, draft: &Draft) -> Result<Component, Error> {
    let name = ComponentName::Secrets;
    let entries = match list(cloud, &Folder::new(draft.scratch("secrets"))?).await {
        Ok(entries) => entries,
        Err(Error::Cloud(error @ cloud::Error::Forbidden { .. })) => {
            let missing = vec![format!("the names of the secrets: {error}")];
            return Ok(Component {
                name,
                state: ComponentState::Incomplete,
                summary: String::new(),
                missing,
            });
        }
        Err(error) => return Err(error),
    };
    disk::write_json(&draft.dir.join(FILE), &entries)?;
    let own = entries.iter().filter(|entry| !entry.is_built_in()).count();
    let word = if own == 1 { "secret" } else { "secrets" };
    let summary = format!("{own} {word} of the project, {} of the platform", entries.len() - own);
    Ok(Component { name, state: ComponentState::Complete, summary, missing: Vec::new() })
}

/// The secrets of a snapshot; none where it has none.
pub fn of(snapshot: &Snapshot) -> io::Result<Vec<Entry>> {
    match fs::read(snapshot.dir.join(FILE)) {
        Ok(bytes) => Ok(serde_json::from_slice(&bytes)?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}
