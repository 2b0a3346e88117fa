//! What `supa-safe demo` plays on: a throwaway Postgres that looks like a hosted project, stand-ins
//! for the platform around it, and the sample project of `supabase/`, all out of this program alone.
//!
//! Everything stands in the folder of the scratch server, so that its keeper removes it all,
//! whatever becomes of the run.

pub mod cloud;
pub mod platform;
pub mod storage;

use crate::disk;
use crate::migration::Flags;
use crate::postgres::connect;
use crate::proc;
use crate::scratch::{self, Engine, Kept, Scratch, Wanted};
use crate::secret::Secret;
use crate::target::{Connection, SslMode};
use crate::tools::Machine;
use crate::tools::installs::Installation;
use crate::tools::supabase::{self, Answer, Supabase};
use cloud::Function;
use platform::Platform;
use std::io;
use std::path::{Path, PathBuf};

/// The bootstrap role of the platform.
const SUPERUSER: &str = "supabase_admin";
/// The role of the project's owner.
const OWNER: &str = "postgres";
/// The database of every hosted project.
const DATABASE: &str = "postgres";
/// `max_connections` and `max_locks_per_transaction` of a small hosted project.
const LIMITS: (u32, u32) = (60, 64);
/// The folder of what functions share.
const SHARED: &str = "_shared";
/// What the CLI leaves behind.
const CLI_HOME: &str = "cli";

/// The roles of the platform.
const ROLES: &str = include_str!("demo/hosted/roles.sql");
/// Its schemas, tables, and privileges.
const PLATFORM: &str = include_str!("demo/hosted/platform.sql");
/// The rows of the shop.
const ROWS: &str = include_str!("demo/shop.sql");
const CUSTOMERS: &str = include_str!("demo/customers.sql");
/// The migration that turns out to be wrong.
const WRONG: &str = include_str!("demo/wrong.sql");
/// Its file's name.
pub const WRONG_NAME: &str = "20261123090000_clean_up.sql";
/// Versions that are applied before the story begins.
const APPLIED: &str = include_str!("demo/applied.txt");

macro_rules! project_files {
    ($($path:literal),* $(,)?) => {
        [$(($path, include_str!(concat!("../supabase/", $path)))),*]
    };
}

/// The sample project, by path in its `supabase` folder.
const PROJECT: [(&str, &str); 17] = project_files![
    "config.toml",
    "seed.sql",
    "checks/accounts_without_profile.sql",
    "checks/avatars_without_owner.sql",
    "checks/order_totals.sql",
    "checks/orphaned_order_items.sql",
    "checks/payments.sql",
    "functions/_shared/reply.ts",
    "functions/hello/index.ts",
    "functions/order-status/index.ts",
    "migrations/20260112090000_catalog.sql",
    "migrations/20260119103000_customers_and_orders.sql",
    "migrations/20260216140000_events_and_reports.sql",
    "migrations/20260309081500_archive_and_odds.sql",
    "migrations/20261102090000_shipping_and_loyalty.sql",
    "migrations/20261109090000_orders_by_customer_and_date.sql",
    "migrations/20261116090000_reviews.sql",
];

/// Why there is nothing to play on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No server.
    #[error("cannot start the demo's database")]
    Scratch(#[from] scratch::Error),
    /// No session on it.
    #[error("cannot connect to the demo's database")]
    Connect(#[from] connect::Error),
    /// A part of it could not be made.
    #[error("cannot set up {what} of the demo's database")]
    Setup {
        /// Which part.
        what: &'static str,
        /// What the server said.
        #[source]
        source: tokio_postgres::Error,
    },
    /// The CLI could not be run.
    #[error("cannot push the applied migrations to the demo's database")]
    Push(#[from] proc::Error),
    /// The CLI did not say what it did.
    #[error("the Supabase CLI gave no answer")]
    Answer(#[from] supabase::AnswerError),
    /// The CLI refused.
    #[error("supabase did not push the applied migrations to the demo's database: {0}")]
    Refused(String),
    /// No platform around it.
    #[error("cannot start what stands for the platform")]
    Platform(#[from] platform::Error),
    /// A file or folder could not be made.
    #[error("cannot prepare the demo's folder")]
    Io(#[from] io::Error),
}

/// A database like a hosted one, with the sample shop in it, and the sample project beside it.
#[derive(Debug)]
pub struct Hosted {
    scratch: Scratch,
    connection: Connection,
    folder: PathBuf,
}

impl Hosted {
    /// Starts the server, and makes roles, schemas, and the password of the owner.
    pub async fn start(installation: Installation, machine: &Machine) -> Result<Self, Error> {
        let (max_connections, max_locks_per_transaction) = LIMITS;
        let scratch = scratch::start(Wanted {
            engine: Engine::Local(installation),
            superuser: SUPERUSER.to_owned(),
            max_connections,
            max_locks_per_transaction,
            keeper: machine.own_program.clone(),
            base_dir: machine.temp_dir.clone(),
            run_as: scratch::unprivileged_user(),
        })
        .await?;
        let folder = scratch.dir().join("demo");
        disk::make_private_dir(&folder.join(CLI_HOME))?;
        let password = scratch::random_password()?;
        // It is hex, so it needs no quoting.
        let owner = format!("alter role {OWNER} password '{}'", password.expose());
        let admin = scratch.superuser_connection(DATABASE);
        run(&admin, &[("the roles", ROLES), ("the password", &owner), ("the schemas", PLATFORM)]).await?;
        let connection = scratch.connection(OWNER, DATABASE, Some(password));
        Ok(Self { scratch, connection, folder })
    }

    /// Pushes the migrations that are applied when the story begins, with the real CLI, so that the
    /// history is its own.
    pub async fn push_applied(&self, cli: &Supabase) -> Result<(), Error> {
        let applied = self.folder.join("applied");
        lay_out(&applied, |path| path == "config.toml" || is_applied(path))?;
        let empty = self.folder.join("empty");
        disk::make_private_dir(&empty)?;
        let cmd = cli.push(&supabase::Push {
            connection: &self.connection,
            ssl_mode: SslMode::Disable,
            frozen_dir: &applied,
            empty_dir: &empty,
            flags: Flags::default(),
            vault_variables: &[],
        });
        if let Answer::Stopped(problem) = supabase::answer(&cmd.run_unchecked().await?.stdout)? {
            return Err(Error::Refused(problem.message));
        }
        Ok(())
    }

    /// Loads the rows of the shop, and writes the sample project with its pending migrations.
    pub async fn load(&self) -> Result<(), Error> {
        run(&self.connection, &[("the rows", ROWS)]).await?;
        lay_out(&self.project(), |_| true)?;
        Ok(())
    }

    /// Writes the migration that turns out to be wrong.
    pub fn write_wrong(&self) -> Result<(), Error> {
        let file = self.project().join("supabase/migrations").join(WRONG_NAME);
        Ok(disk::write(&file, WRONG.as_bytes())?)
    }

    /// What customers do while nobody has noticed yet: one signs up, another one orders.
    pub async fn go_on(&self) -> Result<(), Error> {
        run(&self.connection, &[("the customers of the shop", CUSTOMERS)]).await
    }

    /// What customers see.
    pub async fn looks(&self) -> Result<String, Error> {
        let session = connect::read_only(&self.connection).await?;
        let failed = |source| Error::Setup { what: "what customers see", source };
        // As somebody who has not signed in, by the policies of the tables.
        session.client.batch_execute("begin; set local role anon").await.map_err(failed)?;
        let open =
            session.client.query_one("select count(*) from public.orders", &[]).await.map_err(failed)?;
        session.client.batch_execute("rollback").await.map_err(failed)?;
        let sql = "select (select count(*) from public.products where net_cents = 0), (select count(*) from auth.users)";
        let row = session.client.query_one(sql, &[]).await.map_err(failed)?;
        session.close().await;
        let [free, open, accounts]: [i64; 3] = [row.get(0), open.get(0), row.get(1)];
        Ok(format!("{free} products are free, {open} orders are open to everybody, {accounts} accounts"))
    }

    /// Starts what stands for the platform, with the project's functions, secrets, and objects.
    pub async fn platform(&self) -> Result<Platform, Error> {
        let admin = self.scratch.superuser_connection(DATABASE);
        Ok(Platform::start(admin, &self.folder, &functions()).await?)
    }

    /// The folder of the sample project, with the pending migrations in it.
    pub fn project(&self) -> PathBuf {
        self.folder.join("shop")
    }

    /// A folder for what the CLI leaves behind.
    pub fn cli_home(&self) -> PathBuf {
        self.folder.join(CLI_HOME)
    }

    /// Where everything of the demo stands.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// How the owner of the project reaches it.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Stops the server and removes all of it.
    pub async fn stop(self) -> Result<(), Error> {
        Ok(self.scratch.stop().await?)
    }

    /// Leaves server and folder behind, and the owner's password in a private file.
    pub fn keep(self) -> Result<Kept, Error> {
        let password = self.connection.password.as_ref().map_or("", Secret::expose);
        disk::write(&self.password_file(), format!("{password}\n").as_bytes())?;
        Ok(self.scratch.keep()?)
    }

    /// Where [`Hosted::keep`] puts the password.
    pub fn password_file(&self) -> PathBuf {
        self.folder.join("password")
    }
}

/// Tables in which customers write after the wrong push, and by how many rows they grow: an account with its
/// profile, an order with its item, and a picture each that is replaced, deleted, and uploaded.
pub const BY_CUSTOMERS: [(&str, u64); 5] = [
    ("auth.users", 1),
    ("public.order_items", 1),
    ("public.orders", 1),
    ("public.profiles", 1),
    ("storage.objects", 0),
];

/// The bucket in which customers go on meanwhile.
pub const OF_CUSTOMERS: &str = "avatars";

/// Names of the migrations that are applied before the story begins, and of those that are not.
pub fn migrations() -> (Vec<&'static str>, Vec<&'static str>) {
    PROJECT
        .iter()
        .filter(|(path, _)| path.starts_with("migrations/"))
        .map(|(path, _)| path.trim_start_matches("migrations/"))
        .partition(|name| is_applied_name(name))
}

/// The functions of the sample project, each with the files that it is deployed with.
fn functions() -> Vec<Function> {
    let below: Vec<(&str, &str)> =
        PROJECT.iter().filter_map(|(path, text)| Some((path.strip_prefix("functions/")?, *text))).collect();
    let slugs = below.iter().filter_map(|(path, _)| path.strip_suffix("/index.ts"));
    let function = |slug: &str| {
        let own = |path: &str| path.split('/').next().is_some_and(|dir| dir == slug || dir == SHARED);
        let files: Vec<(&str, &str)> = below.iter().copied().filter(|(path, _)| own(path)).collect();
        Function::new(slug, &files)
    };
    slugs.map(function).collect()
}

fn is_applied(path: &str) -> bool {
    path.strip_prefix("migrations/").is_some_and(is_applied_name)
}

fn is_applied_name(name: &str) -> bool {
    APPLIED.lines().any(|version| name.split('_').next() == Some(version))
}

/// Writes those files of the sample project that are wanted.
fn lay_out(root: &Path, wanted: impl Fn(&str) -> bool) -> io::Result<()> {
    for (path, text) in PROJECT.iter().filter(|(path, _)| wanted(path)) {
        let to = root.join("supabase").join(path);
        disk::make_private_dir(to.parent().unwrap_or(root))?;
        disk::write(&to, text.as_bytes())?;
    }
    Ok(())
}

/// Runs whole files, each as one simple query.
async fn run(connection: &Connection, files: &[(&'static str, &str)]) -> Result<(), Error> {
    let session = connect::writable(connection).await?;
    for (what, sql) in files {
        session.client.batch_execute(sql).await.map_err(|source| Error::Setup { what, source })?;
    }
    session.close().await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_sample_project_is_in_the_program() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("supabase");
        let mut there: Vec<String> = disk::files_below(&folder)
            .unwrap()
            .iter()
            .map(|path| path.display().to_string())
            .filter(|path| !path.starts_with('.'))
            .collect();
        let mut here: Vec<&str> = PROJECT.iter().map(|(path, _)| *path).collect();
        there.sort();
        here.sort_unstable();
        assert_eq!(here, there);
    }

    #[test]
    fn every_function_is_deployed_with_what_it_shares() {
        let functions = functions();
        let files = |function: &Function| -> Vec<String> {
            let files = function.parts.iter().map(|part| part.path.clone());
            files.map(|path| path.replace("source/supabase/functions/", "")).collect()
        };
        assert_eq!(
            functions.iter().map(|one| one.slug.as_str()).collect::<Vec<_>>(),
            ["hello", "order-status"]
        );
        assert_eq!(files(&functions[0]), ["_shared/reply.ts", "hello/index.ts"]);
        assert_eq!(files(&functions[1]), ["_shared/reply.ts", "order-status/index.ts"]);
    }

    #[test]
    fn the_story_begins_with_migrations_to_push() {
        let (applied, pending) = migrations();
        assert_eq!(applied.len(), APPLIED.lines().count());
        assert!(!pending.is_empty());
        assert!(applied.iter().max() < pending.iter().min(), "the pending ones are newer");
    }
}
