//! The `wg` binary: parse, run, exit code.

fn main() {}
