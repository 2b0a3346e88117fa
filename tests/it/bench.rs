//! The benchmarks run to their end on a few rows. What they measure there says nothing.

use crate::world::World;
use std::path::Path;

/// Runs a benchmark on a server of its own: it changes roles.
fn runs(name: &str) {
    let world = World::own_server(&[]);
    let mut bench = world.program(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bench").join(name));
    bench.args(["--tiny", "--program", env!("CARGO_BIN_EXE_supa-safe")]);
    for variable in ["PASSWORD", "PG17_BIN", "PG17_HOSTED_BIN"] {
        let variable = format!("SUPA_SAFE_TEST_{variable}");
        bench.env(&variable, crate::world::told(&variable));
    }
    let ran = world.finish(bench.env("SUPA_SAFE_TEST_PG17", world.address())).exits(0);
    assert!(ran.stdout.contains("median of 1"), "{ran}");
}

#[test]
fn the_benchmark_of_snapshots_runs() {
    runs("run");
}

#[test]
fn the_benchmark_of_rollbacks_runs() {
    runs("rollback");
}
