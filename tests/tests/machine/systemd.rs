//! A real systemd: the units of `dist/systemd`, and control groups that it makes.

use hull_testkit::machine::Guest;
use hull_testkit::{fixtures, paths};

use crate::kit::{Scratch, furnish};

/// The daemon as its units start it.
const UNITS: [(&str, &str); 9] = [
    ("running", "systemctl is-system-running; grep -q ' / cgroup2\\| /sys/fs/cgroup cgroup2' /proc/mounts"),
    (
        "install",
        "ln -s /payload/hull /usr/local/lib/hull; cp /payload/systemd/* /etc/systemd/system/
systemd-analyze verify /etc/systemd/system/hull.socket /etc/systemd/system/hull.service && systemctl daemon-reload
systemctl start hull.socket && test $(systemctl is-active hull.service) = inactive && stat -c '%a %U' /run/hull/hull.sock",
    ),
    // The first caller starts the daemon.
    (
        "hello",
        "hull run --rm hull/hello && systemctl is-active hull.service hull.socket",
    ),
    (
        "box",
        "hull load -q -i /payload/busybox.tar; hull run -d --name box -m 64m busybox sh -c 'while :; do sleep 1; done' && hull inspect --format '{{.State.Pid}}' box >/run/box.pid
cat /proc/$(cat /run/box.pid)/cgroup",
    ),
    (
        "limits",
        "hull exec box cat /sys/fs/cgroup/memory.max; systemctl status hull.service --no-pager",
    ),
    // The container outlives the service; a new daemon finds it.
    (
        "stop",
        "systemctl stop hull.service hull.socket && ! pgrep -f 'hull daemon' && kill -0 $(cat /run/box.pid) && echo lives",
    ),
    (
        "again",
        "systemctl start hull.socket; hull ps --format '{{.Names}} {{.Status}}' && test $(hull inspect --format '{{.State.Pid}}' box) = $(cat /run/box.pid) && hull exec box echo inside",
    ),
    (
        "kill",
        "systemctl kill -s KILL --kill-whom=main hull.service; sleep 2; kill -0 $(cat /run/box.pid) && hull ps -q | wc -l",
    ),
    (
        "end",
        "hull rm -f box && ! kill -0 $(cat /run/box.pid) 2>/dev/null && systemctl stop hull.service hull.socket; systemctl --failed --no-legend --no-pager; systemctl is-active hull.service",
    ),
];

#[test]
fn units_of_dist_serve_under_systemd() {
    let scratch = Scratch::new("units");
    let guest = Guest::systemd(&scratch.0)
        .file(&paths::root().join("dist/systemd"), "systemd")
        .file(&fixtures::busybox(), "busybox.tar");
    let report = furnish(guest, &UNITS).run();
    report.check("running", 0, "running");
    report.check("install", 0, "660 root");
    report.check("hello", 0, "active\nactive");
    report.check("box", 0, "0::/");
    report.check("limits", 0, "67108864");
    report.check("stop", 0, "lives");
    report.check("again", 0, "box Up");
    report.check("again", 0, "inside");
    report.check("kill", 0, "1");
    report.check("end", 3, "inactive");
}
