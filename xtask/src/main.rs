//! Build, run, test, lint and bench.

fn main() {}
