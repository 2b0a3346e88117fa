//! The `supa-safe` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(supa_safe::cli::main().code())
}
