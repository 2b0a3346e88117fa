//! The tests that need a machine: real servers, real programs.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, starts programs to disturb, and is told by variables what to use"
)]
#![expect(clippy::needless_raw_string_hashes, reason = "snapbox writes expected texts so")]

mod architecture;
mod bench;
mod clients;
mod cloud;
mod confirm;
mod connect;
mod consistency;
mod container;
mod demo;
mod doctor;
mod double;
mod fingerprint;
mod functions;
mod hook;
mod init;
mod json;
mod kill;
mod lent;
mod link;
mod migrate;
mod named;
mod objects;
mod quiesce;
mod retention;
mod reuse;
mod rollback;
mod rollback_kill;
mod rollback_live;
mod rollback_platform;
mod rollback_rights;
mod rollback_settled;
mod rollback_zoo;
mod rules;
mod runbook;
mod salvage;
mod scratch;
mod secrets;
mod secrets_inventory;
mod shared;
mod signals;
mod spoiled;
mod staging;
mod storage;
mod store;
mod terminal;
mod watchdog;
mod world;
