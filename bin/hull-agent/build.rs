//! Compiles the filter that most containers get, for the kernel of Hull's guests: a guest that
//! starts has no cache of its own yet, and less time than the machine that builds it.

use std::collections::BTreeSet;
use std::error::Error;
use std::path::Path;

use hull_seccomp::cache::{self, Source};
use hull_seccomp::{Arch, Env, KernelVersion};

const PIN: &str = "../../guest/kernel.pin";
fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed={PIN}");
    println!("cargo:rerun-if-changed=build.rs");
    let pin = std::fs::read_to_string(PIN)?;
    let version = pin
        .lines()
        .find_map(|line| line.strip_prefix("version = "))
        .ok_or("guest/kernel.pin names no version")?;
    // Containers with other capabilities compile their filter in the guest.
    let env = Env {
        caps: hull_sys::caps::DEFAULT
            .map(str::to_owned)
            .into_iter()
            .collect::<BTreeSet<_>>(),
        arch: Arch::NATIVE,
        kernel: KernelVersion::parse(version).ok_or("guest/kernel.pin: no version")?,
    };
    let (name, content) = cache::file(Source::DockerDefault, &env)?;
    let folder = std::env::var("OUT_DIR")?;
    std::fs::write(Path::new(&folder).join("filter.bpf"), content)?;
    println!("cargo:rustc-env=HULL_FILTER_NAME={name}");
    println!("cargo:rustc-env=HULL_FILTER_KERNEL={version}");
    Ok(())
}
