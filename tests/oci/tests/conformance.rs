//! Runs the conformance suite, which is a program so that guests can have it, too.

use std::os::unix::process::CommandExt as _;
use std::process::Command;

fn main() {
    let error = Command::new(env!("CARGO_BIN_EXE_hull-conformance"))
        .args(std::env::args_os().skip(1))
        .exec();
    panic!("cannot run the conformance suite: {error}");
}
