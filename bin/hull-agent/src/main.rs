//! PID 1 of a guest, and the hull/hello program.

fn main() {}
