//! The system call filter that most containers get, compiled when the agent was.

use std::fs;
use std::path::Path;

const NAME: &str = env!("HULL_FILTER_NAME");
const PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/filter.bpf"));

/// Puts it where launches look for it. Without it they compile it, which takes longer than all else
/// they do.
pub(super) fn provide(folder: &Path) {
    let _ = fs::create_dir_all(folder).and_then(|()| fs::write(folder.join(NAME), PROGRAM));
}

#[cfg(test)]
mod tests {
    use hull_seccomp::cache::{Origin, Source, load_or_compile};
    use hull_seccomp::{Arch, Env, KernelVersion};

    use super::*;

    #[test]
    fn provide_default_container_finds_its_filter() {
        let folder = tempfile::tempdir().expect("folder");
        let folder = folder.path().join("cache");
        provide(&folder);
        let env = Env {
            caps: hull_sys::caps::DEFAULT
                .map(str::to_owned)
                .into_iter()
                .collect(),
            arch: Arch::NATIVE,
            kernel: KernelVersion::parse(env!("HULL_FILTER_KERNEL")).expect("version"),
        };
        let found = load_or_compile(&folder, Source::DockerDefault, &env).expect("filter");
        assert!(matches!(found.origin, Origin::Cache), "{:?}", found.origin);
    }
}
