//! Decodes an archive to its end: what a restore would read, with every row counted and hashed.

use crate::archive::{self, Contents, RowReader, RowsByTable};
use crate::disk;
use crate::proc;
use crate::tools::installs::Installation;
use crate::tools::pg_restore;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Why an archive could not be decoded.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// `pg_restore` could not read it.
    #[error("the archive cannot be decoded")]
    Undecodable(#[source] proc::Error),
    /// The archive's table of contents was not understood.
    #[error("the archive's table of contents cannot be read")]
    Contents(#[from] archive::Error),
    /// A file could not be read or written.
    #[error("cannot read the archive")]
    Io(#[from] io::Error),
}

/// Decodes the rows of an archive, in two halves side by side. The rest of an archive is its table of
/// contents, which `pg_restore` reads whole each time.
pub async fn decode(archive: &Path, installation: &Installation) -> Result<RowsByTable, Error> {
    let listed = pg_restore::list(installation, archive).run().await.map_err(Error::Undecodable)?;
    let [left, right] = Contents::parse(&listed.stdout)?.halves(|entry| file_bytes(archive, entry.dump_id));
    let folder = tempfile::tempdir()?;
    let half = async |name: &str, list: &str| {
        let path: PathBuf = folder.path().join(name);
        disk::write(&path, list.as_bytes())?;
        let reader = Arc::new(Mutex::new(RowReader::default()));
        let reading = Arc::clone(&reader);
        pg_restore::decode_rows(installation, archive, &path)
            .on_bytes(move |bytes| reading.lock().unwrap_or_else(PoisonError::into_inner).feed(bytes))
            .run()
            .await
            .map_err(Error::Undecodable)?;
        let mut reader = reader.lock().unwrap_or_else(PoisonError::into_inner);
        Ok::<RowsByTable, Error>(std::mem::take(&mut *reader).into_tables())
    };
    let (mut rows, more) = tokio::try_join!(half("left", &left), half("right", &right))?;
    rows.extend(more);
    Ok(rows)
}

/// Bytes of an entry's file in a directory archive, whatever its compression; 0 when it has none.
fn file_bytes(archive: &Path, dump_id: u32) -> u64 {
    ["", ".gz", ".lz4", ".zst"]
        .iter()
        .filter_map(|suffix| fs_err::metadata(archive.join(format!("{dump_id}.dat{suffix}"))).ok())
        .map(|meta| meta.len())
        .sum()
}
