//! Makes every fixture ahead of the tests and says where it lies.

use hull_testkit::{fixtures, machine};

fn main() {
    for path in [
        fixtures::busybox(),
        fixtures::debian(),
        fixtures::kernel(),
        machine::disk::debian(),
    ] {
        eprintln!("fixture {}", path.display());
    }
}
