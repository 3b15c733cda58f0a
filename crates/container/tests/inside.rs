//! What a container with Docker's defaults looks like from the inside.

mod support;

use support::{Fixture, process};

#[test]
fn launch_shell_is_process_one_of_its_own_namespaces() {
    let fixture = Fixture::new();
    let script = "echo $$; hostname; for ns in mnt pid uts ipc net cgroup; do readlink /proc/self/ns/$ns; done";
    let (text, code) = fixture.run(&fixture.plan(script));
    assert_eq!(code, 0, "{text}");
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines[..2], ["1", "inside"]);
    for (line, name) in lines[2..]
        .iter()
        .zip(["mnt", "pid", "uts", "ipc", "net", "cgroup"])
    {
        let host = std::fs::read_link(format!("/proc/self/ns/{name}")).expect("ns");
        assert_ne!(*line, host.to_string_lossy(), "{name}");
    }
}

#[test]
fn launch_exit_status_and_signal_are_told() {
    let fixture = Fixture::new();
    assert_eq!(fixture.run(&fixture.plan("exit 42")).1, 42);
    // As process 1 it ignores its own signals, so a child of it dies.
    assert_eq!(
        fixture.run(&fixture.plan("sh -c 'kill -9 $$'; exit $?")).1,
        137
    );
}

#[test]
fn launch_no_descriptor_of_ours_is_inside() {
    let fixture = Fixture::new();
    // An inheritable descriptor, as a careless library would leave it.
    let file = std::fs::File::open("/etc/hostname").expect("open");
    let leaked = rustix::io::fcntl_dupfd_cloexec(&file, 700).expect("dup");
    rustix::io::fcntl_setfd(&leaked, rustix::io::FdFlags::empty()).expect("setfd");
    let (text, _) =
        fixture.run(&fixture.plan("ls /proc/1/fd; readlink /proc/1/cwd; readlink /proc/1/root"));
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines, ["0", "1", "2", "/", "/"], "{text}");
}

#[test]
fn launch_host_mounts_and_root_are_out_of_sight() {
    let fixture = Fixture::new();
    let (text, _) = fixture.run(&fixture.plan("cat /proc/self/mountinfo"));
    assert!(text.lines().count() > 5, "{text}");
    // Every mount but the binds of single files is of a kind that was asked for.
    for line in text.lines() {
        let kind = line
            .split(" - ")
            .nth(1)
            .and_then(|right| right.split(' ').next());
        let known = [
            "overlay", "proc", "tmpfs", "devpts", "sysfs", "cgroup", "cgroup2", "mqueue",
            "devtmpfs",
        ];
        assert!(kind.is_some_and(|kind| known.contains(&kind)), "{line}");
        assert!(
            !line.contains("shared:") && !line.contains("master:"),
            "{line}"
        );
    }
    let host = std::fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    assert!(
        !host.contains(&fixture.id),
        "nothing is left in the host's table"
    );
}

#[test]
fn launch_default_capabilities_are_docker_s_fourteen() {
    let fixture = Fixture::new();
    let (text, _) = fixture.run(&fixture.plan("grep ^Cap /proc/self/status"));
    let value = |name: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(name))
            .map(str::trim)
            .expect("line")
            .to_owned()
    };
    for name in ["CapPrm:", "CapEff:", "CapBnd:"] {
        assert_eq!(value(name), "00000000a80425fb", "{name}");
    }
    for name in ["CapInh:", "CapAmb:"] {
        assert_eq!(value(name), "0000000000000000", "{name}");
    }
}

#[test]
fn launch_user_by_name_has_group_home_and_no_capabilities() {
    let fixture = Fixture::new();
    let mut plan = fixture
        .plan("id; echo $HOME; grep CapEff /proc/self/status; grep Seccomp: /proc/self/status");
    plan.process.user = hull_proto::plan::PlanUser::Name("web".to_owned());
    let (text, _) = fixture.run(&plan);
    assert!(
        text.contains("uid=33(web) gid=34(web)") && text.contains("77(extra)"),
        "{text}"
    );
    assert!(text.contains("/srv/web\n"), "{text}");
    assert!(text.contains("CapEff:\t0000000000000000"), "{text}");
    assert!(text.contains("Seccomp:\t2"), "{text}");
}

#[test]
fn launch_filter_refuses_unshare_and_unconfined_does_not() {
    let fixture = Fixture::new();
    let mut plan = fixture.plan("grep -E '^(Seccomp|NoNewPrivs):' /proc/self/status");
    plan.process.no_new_privileges = true;
    let (text, _) = fixture.run(&plan);
    assert!(
        text.contains("Seccomp:\t2") && text.contains("NoNewPrivs:\t1"),
        "{text}"
    );
    plan.process.seccomp = hull_proto::plan::SeccompPlan::Unconfined;
    let (text, _) = fixture.run(&plan);
    assert!(text.contains("Seccomp:\t0"), "{text}");
}

#[test]
fn launch_masked_paths_are_empty_and_readonly_paths_refuse_writes() {
    let fixture = Fixture::new();
    let script = "cat /proc/interrupts /proc/keys /proc/timer_list | wc -c; \
                  ls /sys/firmware | wc -l; \
                  echo 1 > /proc/sys/kernel/domainname;  \
                  touch /sys/firmware/x; true";
    let (text, _) = fixture.run(&fixture.plan(script));
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines[..2], ["0", "0"], "{text}");
    assert_eq!(text.matches("Read-only file system").count(), 2, "{text}");
}

#[test]
fn launch_dev_has_the_minimum_that_works() {
    let fixture = Fixture::new();
    let script = "ls /dev; head -c 3 /dev/zero | wc -c; echo gone > /dev/null; \
                  echo x > /dev/full; for l in fd stdin ptmx; do readlink /dev/$l; done; stat -c %a /dev/shm /dev/null; \
                  echo out > /dev/stdout; mknod /tmp/disk b 254 0; cat /tmp/disk";
    let (text, _) = fixture.run(&fixture.plan(script));
    let names: Vec<_> = text.lines().take(15).collect();
    let expected = [
        "core", "fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin",
        "stdout", "tty", "urandom", "zero",
    ];
    assert_eq!(names, expected, "{text}");
    assert!(text.contains("No space left on device"), "{text}");
    assert!(
        text.contains("/proc/self/fd\n/proc/self/fd/0\npts/ptmx\n1777\n666\nout\n"),
        "{text}"
    );
    assert!(
        text.contains("Operation not permitted"),
        "the device group refuses: {text}"
    );
}

#[test]
fn launch_readonly_root_refuses_writes_but_tmpfs_takes_them() {
    let fixture = Fixture::new();
    let mut plan = fixture.plan("touch /x; touch /dev/shm/y && echo shm; pwd");
    plan.readonly_rootfs = true;
    plan.process.cwd = "/made/for/me".to_owned();
    let (text, _) = fixture.run(&plan);
    assert!(text.contains("Read-only file system"), "{text}");
    assert!(text.ends_with("shm\n/made/for/me\n"), "{text}");
}

#[test]
fn launch_terminal_is_controlling_and_has_its_size() {
    use std::io::Read as _;
    let fixture = Fixture::new();
    let mut plan = fixture
        .plan("tty; ls -1 /dev/pts; stat -c %t:%T /dev/console; stty size; echo ok > /dev/tty");
    plan.process.tty = true;
    plan.process.console_size = Some((40, 120));
    let (mut running, _) = fixture.start(&plan);
    let master = running.0.process.terminal.take().expect("terminal");
    let size = hull_sys::tty::size(&master).expect("size");
    assert_eq!((size.ws_row, size.ws_col), (40, 120));
    assert_eq!(running.wait(), 0);
    let mut text = String::new();
    // EIO ends the stream of a terminal whose other side is closed.
    let _ = std::fs::File::from(master).read_to_string(&mut text);
    let text = text.replace('\r', "");
    assert_eq!(text, "/dev/pts/0\n0\nptmx\n88:0\n40 120\nok\n");
}

#[test]
fn launch_terminal_of_the_host_covers_the_console_of_a_bound_dev() {
    use std::io::Read as _;
    let fixture = Fixture::new();
    let mut plan = fixture.plan("stat -c %t:%T /dev/console | cut -d: -f1; ls /dev | wc -l");
    plan.mounts
        .retain(|mount| !mount.target.starts_with("/dev"));
    plan.mounts
        .push(support::bind(std::path::Path::new("/dev"), "/dev"));
    plan.process.tty = true;
    let (mut running, _) = fixture.start(&plan);
    let master = running.0.process.terminal.take().expect("terminal");
    assert_eq!(running.wait(), 0);
    let mut text = String::new();
    let _ = std::fs::File::from(master).read_to_string(&mut text);
    let count = std::fs::read_dir("/dev").expect("dev").count();
    let has_console = std::path::Path::new("/dev/console").exists();
    if has_console {
        assert_eq!(text.replace('\r', ""), format!("88\n{count}\n"));
    }
}

#[test]
fn launch_init_reaps_as_process_one() {
    let fixture = Fixture::new();
    let mut plan = fixture.plan("");
    // Stands in for the static init: shows what it was called with.
    plan.init = Some("/bin/busybox".into());
    plan.process = process(&["/bin/true"]);
    let (text, code) = fixture.run(&plan);
    // busybox does not know itself by that name.
    assert!(
        text.contains("docker-init: applet not found"),
        "{text} {code}"
    );
}

#[test]
fn launch_signals_are_at_their_defaults() {
    let fixture = Fixture::new();
    // What a monitor blocks to read them from a descriptor must not reach the program, nor what
    // Rust's runtime ignores.
    let blocked = hull_sys::signal::SignalSet::of(&[libc::SIGCHLD, libc::SIGTERM]);
    let before = hull_sys::signal::set_blocked(blocked).expect("block");
    let mut plan = fixture.plan("");
    plan.process.args = ["/bin/grep", "^Sig[BI]", "/proc/self/status"]
        .map(String::from)
        .to_vec();
    let (text, _) = fixture.run(&plan);
    hull_sys::signal::set_blocked(before).expect("restore");
    let masks: Vec<_> = text
        .lines()
        .filter_map(|line| line.split_whitespace().nth(1))
        .collect();
    assert_eq!(masks, ["0000000000000000", "0000000000000000"], "{text}");
}

#[test]
fn launch_without_the_right_to_mknod_binds_the_host_s_nodes() {
    use hull_sys::caps::{self, CapSet};
    let outcome = std::thread::spawn(|| {
        let fixture = Fixture::new();
        let mknod = CapSet::from_name("MKNOD").expect("name");
        let mut sets = caps::get().expect("get");
        let rest = CapSet::from_bits(sets.permitted.bits() & !mknod.bits());
        (sets.effective, sets.permitted) = (rest, rest);
        caps::set(&sets).expect("set");
        fixture.run(&fixture.plan("stat -c %t:%T /dev/null /dev/urandom; echo x > /dev/null; grep -c ' /dev/null ' /proc/self/mountinfo"))
    })
    .join()
    .expect("thread");
    assert_eq!(outcome, ("1:3\n1:9\n1\n".to_owned(), 0));
}
