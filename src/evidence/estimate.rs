//! What a snapshot will cost, before it starts.

use crate::postgres::catalog::Table;
use std::time::{Duration, Instant};
use tokio_postgres::{Client, Error};

/// Bytes that the probe of the line fetches.
const PROBE_BYTES: u64 = 1 << 20;
/// What `pg_dump` compresses in a second at most, whatever the line (measured: 50 to 100 MB).
const DUMP_BYTES_PER_SECOND: f64 = 60e6;
/// Compressed tables take at most about this share of their size; text takes a third.
const COMPRESSED_SHARE: f64 = 0.6;

/// An estimate.
#[derive(Clone, Copy, Debug)]
pub struct Estimate {
    /// Bytes of the tables on the server.
    pub table_bytes: u64,
    /// Bytes that the archive may take.
    pub disk_bytes: u64,
    /// Time that it may take.
    pub time: Duration,
}

/// Fetches a megabyte to learn how fast the line is.
pub async fn bytes_per_second(client: &Client) -> Result<f64, Error> {
    let started = Instant::now();
    client
        .query_one("select pg_catalog.repeat('x', $1)", &[&i32::try_from(PROBE_BYTES).unwrap_or(i32::MAX)])
        .await?;
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    Ok(PROBE_BYTES as f64 / started.elapsed().as_secs_f64().max(1e-6))
}

/// Estimates from the tables' sizes and the line's speed.
pub fn estimate(tables: &[Table], bytes_per_second: f64) -> Estimate {
    let table_bytes: u64 = tables.iter().filter(|table| table.is_readable).map(|table| table.bytes).sum();
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    let bytes = table_bytes as f64;
    let rate = bytes_per_second.min(DUMP_BYTES_PER_SECOND);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share of a number of bytes"
    )]
    let disk_bytes = (bytes * COMPRESSED_SHARE) as u64;
    Estimate { table_bytes, disk_bytes, time: Duration::from_secs_f64(1.0 + bytes / rate) }
}

/// A number of bytes for people, in decimal units.
pub fn bytes_in_words(bytes: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "shown with one decimal")]
    let value = bytes as f64;
    match bytes {
        0..1_000 => format!("{bytes} B"),
        1_000..1_000_000 => format!("{:.1} kB", value / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", value / 1e6),
        _ => format!("{:.1} GB", value / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_words() {
        assert_eq!(
            [999, 1_500, 2_500_000, 3_000_000_000].map(bytes_in_words),
            ["999 B", "1.5 kB", "2.5 MB", "3.0 GB"]
        );
    }
}
