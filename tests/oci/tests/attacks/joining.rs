//! A hostile container into which somebody execs.

use std::fs;
use std::os::unix::fs::symlink;
use std::time::{Duration, Instant};

use hull_testkit::{paths, wait_until};
use serde_json::json;

use crate::kit::{no_crash, ours};

/// A container whose folders are links into procfs when somebody joins.
#[test]
fn working_directory_behind_a_link_into_procfs_is_refused() {
    let runtime = ours();
    let bundle = runtime.sleeping(&[]);
    for (index, target) in [
        "/proc/self/fd/3",
        "/proc/self/fd/5",
        "/proc/1/root",
        "/proc/self/cwd",
    ]
    .iter()
    .enumerate()
    {
        let name = format!("w{index}");
        symlink(target, bundle.root().join(&name)).expect("link");
        let said = runtime.run(&["exec", "--cwd", &format!("/{name}"), "c", "ls", "etc"]);
        no_crash(&said);
        assert!(!said.out.contains("shadow"), "{target}: {}", said.out);
    }
}

/// CVE-2019-5736: what is executed is a link to the program that executes.
#[test]
fn own_program_as_program_and_as_interpreter_stays_whole() {
    let runtime = ours();
    let program = paths::dist().join("hull-oci");
    let before = fs::read(&program).expect("program");
    let watcher = "while :; do for p in /proc/[0-9]*; do e=$(readlink $p/exe) || continue; \
                   case $e in /bin/busybox) ;; *) echo FOUND $e; (echo x > $p/exe) 2>/dev/null && echo WROTE;; esac; done; echo SWEPT; done";
    let bundle = runtime.bundle("c", &[("/process/capabilities", json!({"bounding": ["CAP_SYS_PTRACE", "CAP_DAC_OVERRIDE"], "effective": ["CAP_SYS_PTRACE", "CAP_DAC_OVERRIDE"], "permitted": ["CAP_SYS_PTRACE", "CAP_DAC_OVERRIDE"]}))], &format!("exec 2>/dev/null; {watcher}"));
    symlink("/proc/self/exe", bundle.root().join("bin/evil")).expect("link");
    fs::write(bundle.root().join("bin/script"), "#!/proc/self/exe\n").expect("file");
    fs::set_permissions(
        bundle.root().join("bin/script"),
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )
    .expect("mode");
    let out = runtime.dir().join("seen");
    let status = runtime
        .command(&["run", "-d", "-b", bundle.path(), "c"])
        .stdout(fs::File::create(&out).expect("file"))
        .status()
        .expect("run");
    assert!(status.success());
    for _ in 0..70 {
        for program in ["/proc/self/exe", "/bin/evil", "/bin/script"] {
            no_crash(&runtime.run(&["exec", "c", program, "features"]));
        }
    }
    let seen = fs::read_to_string(&out).expect("seen");
    assert!(!seen.contains("WROTE"), "{seen}");
    assert!(seen.matches("SWEPT").count() > 1, "nobody watched: {seen}");
    assert_eq!(fs::read(&program).expect("program"), before);
}

/// An exec under way shows a hostile container nothing of the host.
#[test]
fn hostile_container_sees_nothing_of_an_exec() {
    let runtime = ours();
    let caps = json!([
        "CAP_SYS_PTRACE",
        "CAP_DAC_OVERRIDE",
        "CAP_DAC_READ_SEARCH",
        "CAP_KILL"
    ]);
    let watcher = "exec 2>/dev/null; while :; do for p in /proc/[0-9]*; do [ $p = /proc/1 ] && continue; \
        e=$(tr '\\0' ' ' < $p/environ) && case $e in *HOST_SECRET*) echo ENVIRON;; esac; \
        c=$(tr '\\0' ' ' < $p/cmdline) && case $c in *hull-oci*) echo CMDLINE $c;; \"sleep 0.0123 \") echo SEEN;; esac; \
        for f in $p/fd/* $p/cwd $p/root; do l=$(readlink $f) || continue; \
        case $l in /|/dev/*|/proc/*|/bin*|pipe:*|socket:*|anon_inode:*) ;; *host-secret*|*/oci-*|*.json*) echo LINK $f $l;; esac; done; \
        [ -e $p/root/etc/shadow ] && echo ROOT; [ -e $p/cwd/etc/shadow ] && echo CWD; done; done";
    let bundle = runtime.bundle(
        "c",
        &[(
            "/process/capabilities",
            json!({"bounding": caps, "effective": caps, "permitted": caps}),
        )],
        watcher,
    );
    let out = runtime.dir().join("seen");
    let status = runtime
        .command(&["run", "-d", "-b", bundle.path(), "c"])
        .stdout(fs::File::create(&out).expect("file"))
        .status()
        .expect("run");
    assert!(status.success());
    let secret = runtime.dir().join("host-secret");
    fs::write(&secret, "x").expect("file");
    let end = Instant::now() + Duration::from_secs(10);
    let mut rounds = 0;
    // The sweeps of a shell are slow: a joining process must be met by some of them.
    while Instant::now() < end && rounds < 300 {
        let status = runtime
            .command(&["exec", "c", "sleep", "0.0123"])
            .env("HOST_SECRET", "x")
            .stdin(fs::File::open(&secret).expect("file"))
            .stdout(std::process::Stdio::null())
            .status()
            .expect("exec");
        assert!(status.success());
        rounds += 1;
    }
    let seen = fs::read_to_string(&out).expect("seen");
    assert!(rounds > 0, "no exec ran");
    // Standard input is handed over on purpose.
    let bad: Vec<_> = seen
        .lines()
        .filter(|line| !line.contains("host-secret") && *line != "SEEN")
        .collect();
    assert!(bad.is_empty(), "{bad:#?}");
    assert!(seen.contains("SEEN"), "none of {rounds} execs was met");
}

/// CVE-2022-29162: `exec --cap` gives nothing that can be inherited.
#[test]
fn capability_is_not_inheritable() {
    let runtime = ours();
    let _bundle = runtime.sleeping(&[]);
    let said = runtime.ok(&[
        "exec",
        "--cap",
        "CAP_NET_ADMIN",
        "c",
        "grep",
        "-E",
        "CapInh|CapAmb",
        "/proc/self/status",
    ]);
    assert_eq!(said.matches("0000000000000000").count(), 2, "{said}");
}

/// setns and unshare from an exec lead nowhere without the right to.
#[test]
fn namespaces_of_others_are_not_entered_by_exec() {
    let runtime = ours();
    let _bundle = runtime.sleeping(&[]);
    for line in [
        "nsenter -t 1 -m true",
        "unshare -m true",
        "chroot /proc/1/root true",
        "mount -t tmpfs t /tmp",
        "mknod /tmp/sda b 8 0",
    ] {
        let said = runtime.run(&["exec", "c", "sh", "-c", line]);
        no_crash(&said);
        assert!(said.code > 0, "{line} worked");
    }
    let said = runtime.ok(&["exec", "c", "sh", "-c", "ls -d /proc/[0-9]* | wc -l"]);
    assert!(said.trim().parse::<u32>().expect("number") < 8, "{said}");
}

/// CVE-2025-52881: a container that has the rights to puts its own files over /proc. Whoever joins
/// writes where the kernel reads, or nowhere.
#[test]
fn procfs_of_the_container_gets_no_writes() {
    let runtime = ours();
    let caps = json!(["CAP_SYS_ADMIN", "CAP_DAC_OVERRIDE"]);
    let script = "mount -t tmpfs t /proc && mkdir -p /proc/self/attr/apparmor /proc/thread-self/attr/apparmor /proc/1/attr /proc/sys/kernel && \
        for f in self/oom_score_adj self/attr/exec self/attr/apparmor/exec thread-self/attr/exec thread-self/attr/apparmor/exec self/setgroups self/uid_map; do echo fake >/proc/$f; done && \
        touch /data/ready; exec sleep 1000";
    let bundle = runtime.bundle(
        "c",
        &[
            ("/process/oomScoreAdj", json!(321)),
            (
                "/process/capabilities",
                json!({"bounding": caps, "effective": caps, "permitted": caps}),
            ),
        ],
        script,
    );
    runtime.ok(&["run", "-d", "-b", bundle.path(), "c"]);
    let ready = bundle.root().join("data/ready");
    let came = wait_until(Duration::from_secs(10), || ready.exists());
    assert!(came, "the container could not prepare");
    let pid_file = runtime.dir().join("pid");
    let path = pid_file.to_str().expect("text");
    let said = runtime.run(&["exec", "-d", "--pid-file", path, "c", "sleep", "900"]);
    no_crash(&said);
    // A label can be written nowhere: the exec ends, and the fake has no write either.
    no_crash(&runtime.run(&["exec", "--apparmor", "unconfined-x", "c", "true"]));
    no_crash(&runtime.run(&["exec", "--process-label", "a:b:c:d", "c", "true"]));
    let fakes = runtime.ok(&["exec", "c", "sh", "-c", "cat /proc/*/oom_score_adj /proc/*/attr/exec /proc/*/attr/apparmor/exec /proc/self/setgroups /proc/self/uid_map | sort -u"]);
    assert_eq!(fakes, "fake\n");
    if said.code == 0 {
        let pid = fs::read_to_string(&pid_file).expect("pid");
        let score = fs::read_to_string(format!("/proc/{}/oom_score_adj", pid.trim()));
        assert_eq!(score.expect("score").trim(), "321");
    }
}

/// A first process that has gone into namespaces of its own: whoever joins sees no more than it.
#[test]
fn first_process_in_deeper_namespaces_shows_no_more() {
    let runtime = ours();
    let caps = json!(["CAP_SYS_ADMIN", "CAP_DAC_OVERRIDE", "CAP_SYS_CHROOT"]);
    let script = "touch /data/ready; exec unshare -m -u sh -c 'mount -t tmpfs t /tmp; hostname deeper; exec sleep 1000'";
    let bundle = runtime.bundle(
        "c",
        &[(
            "/process/capabilities",
            json!({"bounding": caps, "effective": caps, "permitted": caps}),
        )],
        script,
    );
    runtime.ok(&["run", "-d", "-b", bundle.path(), "c"]);
    for _ in 0..20 {
        let said = runtime.run(&[
            "exec",
            "c",
            "sh",
            "-c",
            "ls /etc/shadow /root 2>/dev/null; pwd; hostname",
        ]);
        no_crash(&said);
        assert!(
            !said.out.contains("shadow") && !said.out.contains("root"),
            "{}",
            said.out
        );
    }
}
