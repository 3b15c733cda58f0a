//! The program `hull-oci`; all of it lies in the library, so that tests and fuzzers reach the parts.

use std::process::ExitCode;

fn main() -> ExitCode {
    hull_oci::main()
}
