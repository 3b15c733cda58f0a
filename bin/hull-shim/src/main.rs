//! Monitor of one sandbox.

fn main() {}
