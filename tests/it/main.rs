//! The tests that need a machine: real servers, real programs.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, starts programs to disturb, and is told by variables what to use"
)]
#![expect(clippy::needless_raw_string_hashes, reason = "snapbox writes expected texts so")]

mod architecture;
mod clients;
mod confirm;
mod connect;
mod consistency;
mod double;
mod fingerprint;
mod json;
mod kill;
mod migrate;
mod objects;
mod rules;
mod runbook;
mod scratch;
mod secrets;
mod spoiled;
mod storage;
mod terminal;
mod world;
