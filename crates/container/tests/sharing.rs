//! Namespaces of others, the host's root as image, held starts and terminals of exec.

mod support;

use std::os::fd::{AsFd as _, OwnedFd};

use hull_container::{Options, Stdio, launch};
use hull_proto::plan::{Namespace, PlanUser, RootFs};
use hull_sys::ns;
use rustix::process::Pid;
use support::{Fixture, process};

#[test]
fn launch_with_namespaces_of_another_container_shares_them() {
    let fixture = Fixture::new();
    let (first, _output) = fixture.start(&fixture.plan("sleep 1000"));
    let pid = Pid::from_raw(first.0.process.pid as i32).expect("pid");
    let kinds = ["net", "ipc", "uts", "pid"];
    let descriptors: Vec<OwnedFd> = kinds
        .iter()
        .map(|name| ns::open(pid, name).expect("namespace"))
        .collect();
    let second = Fixture::new();
    let mut plan = second.plan("hostname; ps | grep -c 'sleep 1000'; for n in net ipc uts pid; do readlink /proc/1/ns/$n; readlink /proc/self/ns/$n; done");
    plan.namespaces.net = Namespace::Fd(0);
    plan.namespaces.ipc = Namespace::Fd(1);
    plan.namespaces.uts = Namespace::Fd(2);
    plan.namespaces.pid = Namespace::Fd(3);
    // To look at process 1 it needs more than the default.
    plan.process.capabilities.push("SYS_PTRACE".to_owned());
    plan.hostname = "ignored".to_owned();
    let (text, _) = second.try_run_with(&plan, &descriptors).expect("launch");
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.first(), Some(&"inside"), "{text}");
    assert_ne!(lines.get(1), Some(&"0"), "{text}");
    assert_eq!(lines.len(), 10, "{text}");
    for pair in lines[2..].chunks(2) {
        assert_eq!(pair[0], pair[1], "{text}");
    }
}

#[test]
fn launch_plan_naming_a_descriptor_that_was_not_sent_is_refused() {
    let fixture = Fixture::new();
    let mut plan = fixture.plan("true");
    plan.namespaces.net = Namespace::Fd(3);
    let error = fixture.try_run(&plan).expect_err("refused");
    assert!(error.to_string().contains("descriptor 3"), "{error}");
}

#[test]
fn launch_host_image_shows_the_host_and_keeps_its_changes_in_memory() {
    let fixture = Fixture::new();
    let hidden = fixture.dir.join("secret");
    std::fs::create_dir(&hidden).expect("mkdir");
    std::fs::write(hidden.join("key"), "k").expect("write");
    let mark = format!("/hull-mark-{}", fixture.id);
    let mut plan = fixture.plan(&format!(
        "test -x /bin/busybox && echo there; echo x > {mark} && cat {mark}; ls {} | wc -l; ls /proc/1/fd",
        hidden.display()
    ));
    plan.rootfs = RootFs::Host {
        hidden: vec![hidden],
        size: Some(16 << 20),
    };
    let (text, code) = fixture.run(&plan);
    assert_eq!((text.as_str(), code), ("there\nx\n0\n0\n1\n2\n", 0));
    assert!(
        !std::path::Path::new(&mark).exists(),
        "the host is unchanged"
    );
}

#[test]
fn launch_held_process_runs_after_the_byte() {
    let fixture = Fixture::new();
    let (read, write) = std::io::pipe().expect("pipe");
    let (out_read, out_write) = std::io::pipe().expect("pipe");
    let null = std::fs::File::open("/dev/null").expect("null");
    let stdio = Stdio {
        stdin: null.as_fd(),
        stdout: out_write.as_fd(),
        stderr: out_write.as_fd(),
    };
    let options = Options {
        hold: Some(read.into()),
        ..Options::default()
    };
    let plan = fixture.plan("echo ran");
    let launched = launch(&fixture.host, &plan, &[], &stdio, &options).expect("launch");
    drop(out_write);
    let running = support::Running(launched);
    let early = hull_sys::pidfd::wait(&running.0.process.pidfd, false).expect("wait");
    assert_eq!(early, None);
    rustix::io::write(&write, b"x").expect("write");
    assert_eq!(running.wait(), 0);
    let mut text = String::new();
    std::io::Read::read_to_string(&mut { out_read }, &mut text).expect("read");
    assert_eq!(text, "ran\n");
}

#[test]
fn exec_sees_the_container_and_its_users() {
    let fixture = Fixture::new();
    let (running, _output) = fixture.start(&fixture.plan("sleep 1000"));
    let mut plan = process(&[
        "sh",
        "-c",
        "hostname; id -u; echo $HOME; pwd; readlink /proc/1/ns/net; readlink /proc/self/ns/net; exit 3",
    ]);
    plan.user = PlanUser::Name("web:34".to_owned());
    plan.cwd = "/tmp".to_owned();
    let (text, code) = running.exec(&fixture, &plan).expect("exec");
    assert_eq!(code, 3);
    assert!(text.starts_with("inside\n33\n/srv/web\n/tmp\n"), "{text}");
    let missing = running
        .exec(&fixture, &process(&["nope"]))
        .expect_err("missing");
    assert_eq!(missing.kind(), hull_model::ErrorKind::CommandNotFound);
}

#[test]
fn exec_in_a_container_that_ended_is_an_error() {
    let fixture = Fixture::new();
    let (running, output) = fixture.start(&fixture.plan("true"));
    output.text();
    running.wait();
    assert!(running.exec(&fixture, &process(&["/bin/true"])).is_err());
}

#[test]
fn exec_terminal_comes_from_the_container_s_devpts() {
    use std::io::Read as _;
    let fixture = Fixture::new();
    let (running, _output) = fixture.start(&fixture.plan("sleep 1000"));
    let target = hull_container::ExecTarget {
        pid: running.0.process.pid,
        pidfd: running.0.process.pidfd.as_fd(),
        cgroup: running.0.cgroup.as_ref(),
        also: hull_sys::clone3::Namespaces::NONE,
        chroot: false,
    };
    let mut plan = process(&["sh", "-c", "tty; echo ok > /dev/tty"]);
    plan.tty = true;
    let null = std::fs::File::open("/dev/null").expect("null");
    let stdio = Stdio {
        stdin: null.as_fd(),
        stdout: null.as_fd(),
        stderr: null.as_fd(),
    };
    let cache = fixture.dir.join("seccomp");
    let started = hull_container::exec(
        &fixture.host,
        &target,
        &plan,
        &cache,
        &stdio,
        &Options::default(),
    )
    .expect("exec");
    hull_sys::pidfd::wait(&started.pidfd, true).expect("wait");
    let mut text = String::new();
    let _ = std::fs::File::from(started.terminal.expect("terminal")).read_to_string(&mut text);
    assert_eq!(text.replace('\r', ""), "/dev/pts/0\nok\n");
}
