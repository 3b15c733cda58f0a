//! Every seed the fuzzers keep, and changes of it that are the same in every run.

use std::fs;
use std::path::Path;

use hull_fuzz_checks::{TARGETS, mutate};

/// Changed copies of each seed.
const COPIES: u32 = 40;

#[test]
fn seeds_of_every_target_pass() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds");
    for (name, check) in TARGETS {
        let mut count = 0;
        let files = fs::read_dir(root.join(name)).expect("a folder of seeds");
        for file in files {
            let bytes = fs::read(file.expect("a seed").path()).expect("read a seed");
            check(&bytes);
            for seed in 0..COPIES {
                let changed = mutate::json(&bytes, None, seed);
                check(&changed.unwrap_or_else(|| mutate::bytes(&bytes, seed)));
            }
            count += 1;
        }
        assert!(count > 0, "{name} has no seeds");
    }
}
