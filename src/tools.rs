//! The programs that supa-safe runs: builds their commands and reads their output.

pub mod installs;
pub mod supabase;
