//! SQL and nothing of the workflow: sessions, identity, rows, catalog, history.

pub mod catalog;
pub mod checks;
pub mod connect;
pub mod history;
pub mod identity;
pub mod measure;
pub mod pause;
pub mod reach;
pub mod rows;
pub mod sessions;
pub mod settings;
pub mod storage;
pub mod traffic;
pub mod waits;
