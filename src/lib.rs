//! **supa-safe** makes `supabase db push` boring: a proved snapshot, a rehearsal on a copy, a
//! checked push.
//!
//! Data flows one way, and the types make it so. [`resolve`] pins a [`target::Target`];
//! [`evidence`] captures a snapshot of it, whose [`manifest`] is written last; [`verify`] reads it
//! back; [`rehearse`] restores it into a [`scratch`] server and applies the pending files there
//! with the user's own CLI, and takes the copy back with [`rollback`], which does the same to a target;
//! [`runbook`] writes down how to restore it; a person confirms;
//! [`policy::judge`] says which rules do not hold; [`clearance::grant`] takes the proofs themselves
//! and makes the one value that [`delegate::push`] accepts, once; [`postcheck`] compares the target
//! with the copy.
//!
//! Deciding is pure; doing is at the edges. Only [`ui`] prints, only [`proc`] starts programs, only
//! [`disk`] writes files, only [`config`] reads the environment, and only [`cli`] reads the clock.
//! The modules below stand in reading order, and imports point up only; `tests/it/architecture.rs`
//! holds that.

// Ground: knows nothing of Supabase.
pub mod exit;

pub mod failure;

pub mod secret;

pub mod proc;

pub mod disk;

// Meaning: pure data and decisions.
pub mod target;

pub mod fingerprint;

pub mod manifest;

pub mod effect;

pub mod event;

pub mod inventory;

pub mod migration;

pub mod archive;

pub mod policy;

pub mod plan;

pub mod retention;

// Edges: one foreign thing each.
pub mod tools;

pub mod postgres;

pub mod objects;

pub mod store;

// Work: one stage of the flow each.
pub mod context;

pub mod resolve;

pub mod frozen;

pub mod decode;

pub mod quiesce;

pub mod evidence;

pub mod verify;

pub mod salvage;

pub mod scratch;

pub mod left_out;

pub mod rollback;

pub mod rehearse;

pub mod runbook;

pub mod clearance;

pub mod delegate;

pub mod postcheck;

// Face: people and scripts.
pub mod config;

pub mod ui;

pub mod hook;

pub mod doctor;

#[cfg(feature = "demo")]
pub mod demo;

pub mod cli;
