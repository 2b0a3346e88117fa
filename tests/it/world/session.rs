//! Sessions of a test on a server.

use std::sync::mpsc::{self, Receiver};
use std::time::Duration;
use supa_safe::manifest::ExtensionVersion;
use supa_safe::rollback::{self, Proved, Task};
use tokio::runtime::Runtime;
use tokio_postgres::tls::NoTlsStream;
use tokio_postgres::{AsyncMessage, Client, SimpleQueryMessage, Socket};

/// A server, and how to reach a database of it.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) password: String,
    pub(super) database: String,
}

type Connection = tokio_postgres::Connection<Socket, NoTlsStream>;

impl Place {
    /// A client, and the runtime that runs its connection in the given way.
    fn connect<F>(&self, role: &str, run: impl FnOnce(Connection) -> F) -> Session
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let client = runtime.block_on(async {
            let (client, connection) = tokio_postgres::Config::new()
                .host(&self.host)
                .port(self.port)
                .user(role)
                .password(&self.password)
                .dbname(&self.database)
                .application_name("test")
                .connect(tokio_postgres::NoTls)
                .await
                .unwrap();
            tokio::spawn(run(connection));
            client
        });
        Session { client, runtime }
    }

    pub(super) fn session(&self, role: &str) -> Session {
        self.connect(role, |connection| async move { drop(connection.await) })
    }

    /// A session that hears what is told on a channel.
    pub(super) fn listener(&self, role: &str, channel: &str) -> Listener {
        let (sender, heard) = mpsc::channel();
        let session = self.connect(role, |mut connection| async move {
            while let Some(Ok(message)) = std::future::poll_fn(|cx| connection.poll_message(cx)).await {
                if let AsyncMessage::Notification(notification) = message {
                    drop(sender.send(notification.payload().to_owned()));
                }
            }
        });
        session.run(&format!("listen {channel}"));
        Listener { session, heard }
    }
}

/// A session that hears what is told on a channel.
pub(crate) struct Listener {
    session: Session,
    heard: Receiver<String>,
}

impl Listener {
    /// Everything that was told so far, in order.
    pub(crate) fn heard(&self) -> Vec<String> {
        // What was committed before this one's own word comes before it.
        self.session.run("select pg_notify(channel, 'over') from pg_listening_channels() channel");
        let mut heard = Vec::new();
        loop {
            let told = self.heard.recv_timeout(Duration::from_secs(30)).unwrap();
            if told == "over" {
                return heard;
            }
            heard.push(told);
        }
    }
}

/// A session that a test keeps open, for a lock or a transaction.
pub(crate) struct Session {
    pub(super) client: Client,
    pub(super) runtime: Runtime,
}

impl Session {
    /// Runs statements and returns the rows of all of them, columns apart by `|`, NULL as `~`.
    pub(crate) fn run(&self, sql: &str) -> Vec<String> {
        self.try_run(sql).unwrap_or_else(|error| panic!("{sql}: {error:?}"))
    }

    /// The same, when it may fail.
    pub(crate) fn try_run(&self, sql: &str) -> Result<Vec<String>, tokio_postgres::Error> {
        let messages = self.runtime.block_on(self.client.simple_query(sql))?;
        let rows = messages.into_iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => {
                let values: Vec<&str> = (0..row.len()).map(|at| row.get(at).unwrap_or("~")).collect();
                Some(values.join("|"))
            }
            _ => None,
        });
        Ok(rows.collect())
    }

    /// Takes the session's database back, in a transaction that is left open.
    pub(crate) fn bring_back(&self, task: &Task<'_>) -> Result<Proved, rollback::Error> {
        self.runtime.block_on(rollback::bring_back(&self.client, task))
    }

    /// Tables with rows of extensions that a snapshot does not have.
    pub(crate) fn rows_of_added_extensions(
        &self,
        recorded: &[ExtensionVersion],
    ) -> Result<Vec<String>, rollback::Error> {
        self.runtime.block_on(rollback::rows_of_added_extensions(&self.client, recorded))
    }

    /// Compares what that left, as the rehearsal does.
    pub(crate) fn proved_besides(&self, task: &Task<'_>, proved: &Proved) -> Result<(), rollback::Error> {
        self.runtime.block_on(rollback::proved_besides(&self.client, task, proved))
    }
}
