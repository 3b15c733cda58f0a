//! Makes every fixture ahead of the tests and says where it lies.

use hull_testkit::fixtures;

fn main() {
    for path in [fixtures::busybox(), fixtures::debian(), fixtures::kernel()] {
        eprintln!("fixture {}", path.display());
    }
}
