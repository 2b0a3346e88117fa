//! The `supa-safe` program.

fn main() {}
