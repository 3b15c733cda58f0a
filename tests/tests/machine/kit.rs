//! Bundles and small shell functions for the guests.

use std::path::PathBuf;

use hull_testkit::machine::Guest;
use hull_testkit::paths;

/// Shell functions every guest has: `. /payload/root/kit.sh` comes first in each command.
pub(crate) const KIT: &str = r#"
# make NAME FILTER: a bundle in $B/NAME, its config.json passed through a filter of jq.
B=${B:-/run/bundles}
make() {
  mkdir -p "$B/$1/rootfs"/bin "$B/$1/rootfs"/proc "$B/$1/rootfs"/sys "$B/$1/rootfs"/dev "$B/$1/rootfs"/tmp
  cp /bin/busybox "$B/$1/rootfs/bin/"
  for applet in sh cat echo sleep true false ls id dd mknod mount stat grep sync head touch kill; do ln -sf busybox "$B/$1/rootfs/bin/$applet"; done
  rm -f "$B/$1/config.json"
  "${RUNTIME:-hull-oci}" spec ${ROOTLESS:+--rootless} --bundle "$B/$1" || return 1
  jq '.process.terminal = false | .root.readonly = false | '"${2:-.}" "$B/$1/config.json" >"$B/$1/new" && mv "$B/$1/new" "$B/$1/config.json"
}
jq() { command jq -M "$@"; }
run() { "${RUNTIME:-hull-oci}" ${GLOBAL:-} run --bundle "$B/$1" "${2:-$1}"; }
fail() { echo "FAILED: $*"; exit 1; }
# is FILE VALUE: what a control group's file says.
is() { [ "$(cat "$1")" = "$2" ] || fail "$1 is '$(cat "$1")', wanted '$2'"; }
has() { grep -q -- "$2" "$1" || fail "$1 has no '$2': $(cat "$1")"; }
"#;

/// A folder for a guest's files, removed when dropped.
pub(crate) struct Scratch(pub(crate) PathBuf);

impl Scratch {
    pub(crate) fn new(name: &str) -> Self {
        let dir = paths::target().join(format!("machine-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir).expect("make a folder for the guest");
        Self(dir)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The guest with the kit in it, and commands that begin with it.
pub(crate) fn furnish(mut guest: Guest, commands: &[(&str, &str)]) -> Guest {
    guest = guest.text("/kit.sh", 0o755, KIT);
    for (name, command) in commands {
        guest = guest.command(name, &format!(". /kit.sh\n{command}"));
    }
    guest
}
