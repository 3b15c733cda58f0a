//! Prints how long each step from the default profile to its program takes, and the program's size.
#![allow(clippy::print_stdout)]

use std::time::Instant;

use hull_seccomp::cache::{Source, load_or_compile};
use hull_seccomp::{Arch, Env, KernelVersion, Profile};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let env = Env {
        caps: ["CAP_CHOWN", "CAP_SYS_CHROOT"]
            .into_iter()
            .map(str::to_owned)
            .collect(),
        arch: Arch::NATIVE,
        kernel: KernelVersion { major: 6, minor: 1 },
    };
    let dir = std::env::temp_dir().join(format!("hull-seccomp-measure-{}", std::process::id()));
    for round in 0..3 {
        let start = Instant::now();
        let profile = Profile::docker_default()?;
        let parsed = start.elapsed();
        let filter = profile.resolve(&env)?;
        let resolved = start.elapsed();
        let program = filter.compile()?;
        let compiled = start.elapsed();
        let start = Instant::now();
        let cached = load_or_compile(&dir, Source::DockerDefault, &env)?;
        println!(
            "round {round}: {} instructions; parse {parsed:?}, with resolve {resolved:?}, with compile {compiled:?}; cache {:?} ({:?})",
            program.instructions().len(),
            start.elapsed(),
            cached.origin
        );
    }
    std::fs::remove_dir_all(dir)?;
    Ok(())
}
