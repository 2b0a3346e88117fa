//! Looks at the target beside a push. A session that is lost meanwhile is opened anew: the push goes on
//! without it, and only the server knows what became of it.

use super::Error;
use crate::context::Context;
use crate::event::Event;
use crate::postgres::connect::Session;
use crate::postgres::sessions::{Backend, Seen};
use crate::postgres::waits::{Transaction, Wait};
use crate::postgres::{history, sessions, waits};
use crate::resolve;
use crate::target::Target;
use std::time::Duration;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

/// How often a lost session is opened anew, after the first time, and the pause before each.
const ATTEMPTS: u32 = 20;
const BETWEEN_ATTEMPTS: Duration = Duration::from_secs(1);

/// Looks through a session that is there, or through one of its own when that one is lost.
pub struct Eye<'a> {
    target: &'a Target,
    held: &'a Client,
    anew: Option<Session>,
    seen: Seen,
}

impl<'a> Eye<'a> {
    /// Looks through a session that is there.
    pub fn new(target: &'a Target, held: &'a Client) -> Self {
        Self { target, held, anew: None, seen: Seen::default() }
    }

    /// Knows a backend of the push from its record.
    pub fn know(&mut self, backend: Backend) {
        self.seen.backends.insert(backend);
    }

    /// Knows when the push began, by the server's clock in microseconds since 1970.
    pub(super) fn begins(&mut self, at: i64) {
        self.seen.since = Some(at);
    }

    /// Whether no backend was noticed yet.
    pub(super) fn is_blind(&self) -> bool {
        self.seen.backends.is_empty()
    }

    fn client(&self) -> &Client {
        self.anew.as_ref().map_or(self.held, |session| &session.client)
    }

    /// Asks the target; in a new session when the old one is lost.
    async fn ask<T>(
        &mut self,
        question: impl AsyncFn(&Client) -> Result<T, tokio_postgres::Error>,
    ) -> Result<T, Error> {
        match question(self.client()).await {
            Ok(answer) => return Ok(answer),
            Err(error) if !is_lost(&error) => return Err(error.into()),
            Err(_) => {}
        }
        let mut left = ATTEMPTS;
        loop {
            match resolve::reopen(self.target).await {
                Ok(session) => break self.anew = Some(session),
                Err(error) if left == 0 => return Err(error.into()),
                Err(_) => left -= 1,
            }
            tokio::time::sleep(BETWEEN_ATTEMPTS).await;
        }
        Ok(question(self.client()).await?)
    }

    /// Notices which backends work for the push, as long as they bear the CLI's name.
    pub(super) async fn notice(&mut self, context: &Context) -> Result<(), Error> {
        for backend in self.ask(sessions::cli_backends).await? {
            if self.seen.backends.insert(backend) {
                context.tell(&Event::DelegateBackend { pid: backend.pid, started: backend.started });
            }
        }
        Ok(())
    }

    pub(super) async fn at_work(&mut self) -> Result<Vec<i32>, Error> {
        let seen = self.seen.clone();
        self.ask(async |client: &Client| sessions::at_work(client, &seen).await).await
    }

    pub(super) async fn cancel(&mut self, pid: i32) -> Result<bool, Error> {
        self.ask(async |client: &Client| sessions::cancel(client, pid).await).await
    }

    /// The transactions of the backends that were noticed.
    pub(super) async fn transactions(&mut self) -> Result<Vec<Transaction>, Error> {
        let backends = self.seen.backends.clone();
        self.ask(async |client: &Client| waits::transactions(client, &backends).await).await
    }

    pub(super) async fn waits(&mut self) -> Result<Vec<Wait>, Error> {
        self.ask(waits::waits).await
    }

    pub(super) async fn holders(&mut self, pids: &[i32]) -> Result<Vec<crate::event::Holder>, Error> {
        self.ask(async |client: &Client| waits::holders(client, pids).await).await
    }

    pub(super) async fn cancel_transaction(&mut self, transaction: &Transaction) -> Result<bool, Error> {
        self.ask(async |client: &Client| waits::cancel(client, transaction).await).await
    }

    /// Versions in the target's history.
    pub async fn history(&mut self) -> Result<Vec<String>, Error> {
        let applied = self.ask(history::read).await?;
        Ok(applied.into_iter().map(|applied| applied.version).collect())
    }

    /// The same without waiting for whoever holds a lock on it: then it is not known.
    pub(super) async fn history_now(&mut self) -> Result<Option<Vec<String>>, Error> {
        self.ask(history::versions_now).await
    }
}

/// Whether an error means that the session is gone.
fn is_lost(error: &tokio_postgres::Error) -> bool {
    error.is_closed() || error.code().is_none_or(|code| *code == SqlState::ADMIN_SHUTDOWN)
}
