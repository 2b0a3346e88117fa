//! **supa-safe** makes `supabase db push` boring.

pub mod disk;
pub mod exit;
pub mod failure;
pub mod fingerprint;
pub mod frozen;
pub mod migration;
pub mod postgres;
pub mod proc;
pub mod scratch;
pub mod secret;
pub mod target;
pub mod tools;
