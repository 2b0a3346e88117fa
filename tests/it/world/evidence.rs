//! What a world's runs left on disk, as the program reads it.

use super::{OWNER, World};
use supa_safe::rollback::{self, Translation};
use supa_safe::secret::Secret;
use supa_safe::store::{Snapshot, Store};
use supa_safe::target::{Connection, Defaults};
use supa_safe::tools::installs::{self, Installation, Search};
use tokio::runtime::Runtime;

impl World {
    /// The newest snapshot, as the program reads it.
    pub(crate) fn snapshot(&self) -> Snapshot {
        let store = self.store();
        let store =
            Store::existing(store.parent().unwrap(), &store.file_name().unwrap().to_string_lossy()).unwrap();
        store.load(&store.ids().unwrap()[0]).unwrap()
    }

    /// The client programs that this world's runs find.
    pub(crate) fn clients(&self) -> Installation {
        let search = Search { explicit: vec![self.variable("SUPA_SAFE_PG_BIN")], ..Search::default() };
        Runtime::new().unwrap().block_on(installs::installations(&search)).swap_remove(0)
    }

    /// How a role reaches this world's database.
    pub(crate) fn connection(&self, role: &str) -> Connection {
        let password = self.place().password.clone();
        let defaults = Defaults { password: Some(Secret::new(password)), ..Defaults::default() };
        Connection::from_url(&self.url().replacen("postgres@", &format!("{role}@"), 1), &defaults).unwrap()
    }

    /// The ids that the objects of a snapshot have now.
    pub(crate) fn translation(&self, snapshot: &Snapshot, clients: &Installation) -> Translation {
        let connection = self.connection(OWNER);
        let scratch = self.path("tmp");
        let now = rollback::contents(&connection, clients, &scratch);
        let now = Runtime::new().unwrap().block_on(now).unwrap();
        Translation::of_target(&rollback::recorded_contents(snapshot).unwrap(), &now)
    }
}
