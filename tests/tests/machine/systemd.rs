//! A real systemd: scopes for containers, and the units of `dist/systemd`.

use hull_testkit::machine::Guest;

use crate::kit::{Scratch, furnish};

const COMMANDS: [(&str, &str); 1] = [(
    "facts",
    "systemctl --version; systemctl is-system-running; systemd-analyze blame | head; systemctl list-units --no-pager; cat /proc/uptime; cat /proc/self/cgroup",
)];

#[test]
fn systemd_facts() {
    let scratch = Scratch::new("systemd");
    let report = furnish(Guest::systemd(&scratch.0), &COMMANDS).run();
    println!("{}", report.all());
    report.check("facts", 0, "systemd 252");
}
