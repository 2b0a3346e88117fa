//! Compares the rows that the push wrote with those that it wrote on the copy, net of what the
//! application writes meanwhile. A difference is a warning with numbers: the counters are the
//! server's statistics, and rows may have come in since the snapshot.

use crate::effect::FileEffect;
use crate::postgres::traffic::{self, Counts};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use tokio_postgres::{Client, Error};

/// Share of the rehearsed rows by which the target may differ: it has grown since the snapshot.
const GROWTH: f64 = 0.1;
/// Rows by which it may differ whatever the share.
const SLACK: f64 = 20.0;
/// How long the counters may take to arrive (PostgreSQL documentation, 27.2: about a second).
const ARRIVAL: Duration = Duration::from_secs(2);
/// How long those of a session may take that a pooler keeps: a backend that has become idle delivers
/// what is left after ten seconds (PostgreSQL source, `PGSTAT_IDLE_INTERVAL`).
const LATE_ARRIVAL: Duration = Duration::from_secs(12);
/// How often they are read meanwhile.
const POLL: Duration = Duration::from_millis(200);
const WORDS: [&str; 3] = ["inserted", "updated", "deleted"];

/// What the application writes to the tables that the push touches.
#[derive(Debug)]
pub struct Traffic {
    expected: BTreeMap<String, [u64; 3]>,
    first: (Instant, Counts),
    last: (Instant, Counts),
}

/// Something outside the band.
#[derive(Debug)]
struct Surprise {
    text: String,
    /// Whether fewer rows were counted than on the copy.
    is_missing: bool,
}

impl Traffic {
    /// Begins to watch the tables that the rehearsed files touched.
    pub async fn watch(client: &Client, effects: &[FileEffect]) -> Result<Self, Error> {
        let mut expected: BTreeMap<String, [u64; 3]> = BTreeMap::new();
        for table in effects.iter().flat_map(|effect| &effect.tables) {
            let sums = expected.entry(table.table.clone()).or_default();
            for (sum, rows) in sums.iter_mut().zip([table.inserted, table.updated, table.deleted]) {
                *sum += rows;
            }
        }
        let names: Vec<String> = expected.keys().cloned().collect();
        let seen = (Instant::now(), traffic::read(client, &names).await?);
        Ok(Self { expected, first: seen.clone(), last: seen })
    }

    /// Looks a last time before the push.
    pub async fn look(&mut self, client: &Client) -> Result<(), Error> {
        self.last = (Instant::now(), self.read(client).await?);
        Ok(())
    }

    /// What is outside the band after the push, in words. Rows that are missing may not be counted yet,
    /// and are waited for longer.
    pub async fn surprises(&self, client: &Client) -> Result<Vec<String>, Error> {
        let begun = Instant::now();
        loop {
            let now = (Instant::now(), self.read(client).await?);
            let found = self.outside(&now);
            let patience = if found.iter().any(|one| one.is_missing) { LATE_ARRIVAL } else { ARRIVAL };
            if found.is_empty() || begun.elapsed() > patience {
                return Ok(found.into_iter().map(|one| one.text).collect());
            }
            tokio::time::sleep(POLL).await;
        }
    }

    async fn read(&self, client: &Client) -> Result<Counts, Error> {
        let names: Vec<String> = self.expected.keys().cloned().collect();
        traffic::read(client, &names).await
    }

    fn outside(&self, (at, counts): &(Instant, Counts)) -> Vec<Surprise> {
        let of = |counts: &Counts, table: &str, kind: usize| {
            counts.get(table).and_then(|counts| counts.get(kind)).copied().unwrap_or_default()
        };
        let watched = self.last.0.duration_since(self.first.0).as_secs_f64();
        let pushed = at.duration_since(self.last.0).as_secs_f64();
        let mut found = Vec::new();
        for (table, expected) in &self.expected {
            for (kind, (rehearsed, word)) in expected.iter().zip(WORDS).enumerate() {
                let [first, last, now] =
                    [&self.first.1, &self.last.1, counts].map(|counts| number(of(counts, table, kind)));
                let usual = if watched > 0.0 { (last - first).max(0.0) / watched * pushed } else { 0.0 };
                let rehearsed = number(*rehearsed);
                let band = rehearsed * GROWTH + usual + SLACK;
                let net = now - last - usual;
                if (net - rehearsed).abs() > band {
                    let text = format!(
                        "{table}: about {:.0} rows {word} by the push, {rehearsed:.0} on the copy",
                        net.max(0.0)
                    );
                    found.push(Surprise { text, is_missing: net < rehearsed });
                }
            }
        }
        found
    }
}

#[expect(clippy::cast_precision_loss, reason = "compared within a tenth")]
fn number(rows: u64) -> f64 {
    rows as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Watched for ten seconds, pushed for ten; counts of updates before, then, and now.
    fn check(expected: u64, counts: [u64; 3], surprises: &[&str]) {
        let at = Instant::now();
        let seen = |seconds: u64, updates: u64| {
            (at + Duration::from_secs(seconds), Counts::from([("public.t".to_owned(), [0, updates, 0])]))
        };
        let traffic = Traffic {
            expected: BTreeMap::from([("public.t".to_owned(), [0, expected, 0])]),
            first: seen(0, counts[0]),
            last: seen(10, counts[1]),
        };
        let found = traffic.outside(&seen(20, counts[2]));
        assert_eq!(found.iter().map(|one| one.text.as_str()).collect::<Vec<_>>(), surprises);
    }

    #[test]
    fn what_the_application_writes_is_no_surprise() {
        check(1000, [0, 0, 1000], &[]);
        check(1000, [0, 0, 1090], &[]);
        check(1000, [0, 500, 2000], &[]);
    }

    #[test]
    fn a_lost_where_is() {
        check(1, [0, 0, 5000], &["public.t: about 5000 rows updated by the push, 1 on the copy"]);
        check(5000, [0, 0, 0], &["public.t: about 0 rows updated by the push, 5000 on the copy"]);
    }
}
