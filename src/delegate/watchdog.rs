//! Keeps a push from holding up everybody else: when it waits for a lock, or others wait for its own,
//! longer than the policy allows, its statement is canceled.
//!
//! A statement on a table waits behind every other one that was there first, even behind one that only
//! waits itself: as long as a migration waits for one reader, every later reader waits for the migration.

use super::Error;
use super::eye::Eye;
use crate::context::Context;
use crate::event::{Event, Holder};
use crate::frozen::ROLES;
use crate::migration::{atomicity, holds};
use crate::postgres::waits::{Transaction, Wait, roots};
use crate::rehearse::Subject;
use jiff::SignedDuration;
use std::collections::BTreeSet;
use std::time::Duration;

/// What the CLI's own statements beside the files are about.
const HISTORY: &str = "supabase_migrations";
/// How often the server is asked, at most and at least.
const POLL: [Duration; 2] = [Duration::from_millis(20), Duration::from_millis(250)];

/// Why a push was canceled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stopped {
    /// The file that was running.
    pub file: String,
    /// What was the case.
    pub text: String,
    /// Who was in its way.
    pub holders: Vec<Holder>,
}

/// A file that a push runs.
struct Part {
    name: String,
    sql: String,
    /// What the history knows it by; roles and seeds are not in it.
    version: Option<String>,
    is_atomic: bool,
}

impl Part {
    fn new(name: &str, sql: String, version: Option<String>) -> Self {
        Self { name: name.to_owned(), is_atomic: atomicity(&sql).is_empty(), sql, version }
    }
}

/// Looks after a push.
pub(super) struct Watchdog {
    parts: Vec<Part>,
    max_block: SignedDuration,
    /// What was told of which transaction.
    told: BTreeSet<(i64, String, Vec<i32>)>,
    stopped: Option<Stopped>,
    failed: bool,
}

impl Watchdog {
    /// Looks after a push of these files.
    pub(super) fn new(subject: Subject<'_>, max_block: SignedDuration) -> std::io::Result<Self> {
        let pending = subject.pending;
        let mut parts = Vec::new();
        if pending.roles.is_some() {
            parts.push(Part::new(ROLES, subject.frozen.text(ROLES)?, None));
        }
        for file in &pending.migrations {
            parts.push(Part::new(&file.file_name, file.sql.clone(), Some(file.version.clone())));
        }
        for (path, _) in &pending.seeds {
            parts.push(Part::new(path, subject.frozen.text(path)?, None));
        }
        Ok(Self { parts, max_block, told: BTreeSet::new(), stopped: None, failed: false })
    }

    /// How long to wait before the next look.
    pub(super) fn pause(&self) -> Duration {
        let [least, most] = POLL;
        Duration::try_from(self.max_block / 4).unwrap_or(most).clamp(least, most)
    }

    /// Why it canceled the push, if it did.
    pub(super) fn stopped(self) -> Option<Stopped> {
        self.stopped
    }

    /// Looks once. A look that fails does not end a push; the next one may succeed.
    pub(super) async fn look(&mut self, eye: &mut Eye<'_>, context: &Context) {
        if let Err(error) = self.try_look(eye, context).await
            && !std::mem::replace(&mut self.failed, true)
        {
            context.warn(format!("whether the push keeps others waiting is not known: {error}"));
        }
    }

    async fn try_look(&mut self, eye: &mut Eye<'_>, context: &Context) -> Result<(), Error> {
        eye.notice(context).await?;
        // Before the waits and the history: what is canceled later is still in this transaction, so it
        // was in it all the while.
        let transactions = eye.transactions().await?;
        if transactions.is_empty() {
            return Ok(());
        }
        let waits = eye.waits().await?;
        for transaction in &transactions {
            let Some(blocking) = blocking(&waits, transaction.backend.pid, self.max_block) else { continue };
            let history = eye.history_now().await?;
            let running = running(&self.parts, history.as_deref());
            // Another program may call itself as the CLI does.
            let is_ours = transaction.query.contains(HISTORY)
                || running.iter().any(|part| holds(&part.sql, &transaction.query));
            if is_ours {
                let names: Vec<&str> = running.iter().map(|part| part.name.as_str()).collect();
                let file = names.join(" or ");
                let is_atomic = running.iter().all(|part| part.is_atomic);
                self.act(eye, context, (transaction, blocking, file, is_atomic)).await?;
            }
        }
        Ok(())
    }

    /// Cancels a transaction that may be canceled, and says who is in the way of one that may not.
    async fn act(
        &mut self,
        eye: &mut Eye<'_>,
        context: &Context,
        (transaction, blocking, file, may_cancel): (&Transaction, Blocking, String, bool),
    ) -> Result<(), Error> {
        let Blocking { text, roots } = blocking;
        let holders = eye.holders(&roots).await?;
        let canceled = may_cancel && eye.cancel_transaction(transaction).await?;
        if may_cancel && !canceled {
            // It ended by itself.
            return Ok(());
        }
        if self.told.insert((transaction.began, file.clone(), roots)) {
            let (file, text, holders) = (file.clone(), text.clone(), holders.clone());
            context.tell(&Event::Blocking { file, text, holders, canceled });
        }
        if canceled && self.stopped.is_none() {
            self.stopped = Some(Stopped { file, text, holders });
        }
        Ok(())
    }
}

/// A wait that is too long.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Blocking {
    /// What is the case.
    text: String,
    /// Who is in the way of the push, when it waits itself.
    roots: Vec<i32>,
}

/// Whether a backend of the push waits, or is waited for, longer than that.
fn blocking(waits: &[Wait], pid: i32, max_block: SignedDuration) -> Option<Blocking> {
    let too_long = |wait: &&Wait| wait.seconds > max_block.as_secs_f64();
    let waits_itself = waits.iter().find(|wait| wait.pid == pid);
    let mut behind = waits.iter().filter(|wait| wait.behind.contains(&pid));
    let longest = [waits_itself.filter(too_long), behind.clone().find(too_long)];
    if longest.iter().all(Option::is_none) {
        return None;
    }
    let text = match (waits_itself, behind.clone().count()) {
        (Some(wait), 0) => format!("waited {:.1} s for {}", wait.seconds, wait.what),
        (Some(wait), others) => {
            format!("waited {:.1} s for {}, and {} behind it", wait.seconds, wait.what, sessions(others))
        }
        (None, others) => {
            let first = behind.next()?;
            format!("kept {} waiting, one for {:.1} s for {}", sessions(others), first.seconds, first.what)
        }
    };
    let roots = waits_itself.map(|wait| roots(waits, wait)).unwrap_or_default();
    Some(Blocking { text, roots })
}

fn sessions(count: usize) -> String {
    format!("{count} other session{}", if count == 1 { "" } else { "s" })
}

/// The parts that may be running now: a migration is in the history as soon as it is through, roles and
/// seeds never are.
fn running<'p>(parts: &'p [Part], history: Option<&[String]>) -> Vec<&'p Part> {
    let Some(history) = history else { return parts.iter().collect() };
    let (migrations, others): (Vec<&Part>, Vec<&Part>) =
        parts.iter().partition(|part| part.version.is_some());
    let is_through = |part: &&Part| part.version.as_ref().is_some_and(|version| history.contains(version));
    let next = migrations.iter().copied().find(|part| !is_through(part));
    let (roles, seeds): (Vec<&Part>, Vec<&Part>) = others.into_iter().partition(|part| part.name == ROLES);
    let roles = roles.into_iter().filter(|_| !migrations.iter().any(is_through));
    let seeds = seeds.into_iter().filter(|_| next.is_none());
    roles.chain(next).chain(seeds).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait(pid: i32, seconds: f64, behind: &[i32]) -> Wait {
        Wait { pid, seconds, behind: behind.to_vec(), what: "a lock on public.t".to_owned() }
    }

    #[test]
    fn a_push_blocks_when_it_waits_and_when_it_is_waited_for() {
        let check = |waits: &[Wait]| {
            blocking(waits, 1, SignedDuration::from_secs(5)).map(|found| (found.text, found.roots))
        };
        let found = |text: &str, roots: &[i32]| Some((text.to_owned(), roots.to_vec()));
        assert_eq!(check(&[]), None);
        assert_eq!(check(&[wait(1, 5.0, &[2])]), None);
        assert_eq!(check(&[wait(1, 5.1, &[2])]), found("waited 5.1 s for a lock on public.t", &[2]));
        assert_eq!(
            check(&[wait(3, 5.1, &[1]), wait(1, 4.0, &[2])]),
            found("waited 4.0 s for a lock on public.t, and 1 other session behind it", &[2])
        );
        assert_eq!(
            check(&[wait(3, 9.0, &[1]), wait(4, 1.0, &[3, 1])]),
            found("kept 2 other sessions waiting, one for 9.0 s for a lock on public.t", &[])
        );
        assert_eq!(check(&[wait(3, 9.0, &[4])]), None);
    }

    #[test]
    fn the_history_says_which_file_runs() {
        let part =
            |name: &str, version: Option<&str>| Part::new(name, String::new(), version.map(str::to_owned));
        let parts = [part(ROLES, None), part("1_a", Some("1")), part("2_b", Some("2")), part("seed", None)];
        let check = |parts: &[Part], history: Option<&[&str]>| {
            let history: Option<Vec<String>> =
                history.map(|versions| versions.iter().map(|&version| version.to_owned()).collect());
            running(parts, history.as_deref()).iter().map(|part| part.name.clone()).collect::<Vec<_>>()
        };
        assert_eq!(check(&parts, Some(&["0"])), [ROLES, "1_a"]);
        assert_eq!(check(&parts, Some(&["0", "1"])), ["2_b"]);
        assert_eq!(check(&parts, Some(&["0", "1", "2"])), ["seed"]);
        assert_eq!(check(&parts[3..], Some(&[])), ["seed"]);
        assert_eq!(check(&parts, None).len(), 4);
    }
}
