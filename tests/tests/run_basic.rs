//! `hull run`: exit codes, streams, environment, user, names and how a container vanishes.

use std::fs;

use hull_testkit::{Daemon, eventually};

#[test]
fn run_exit_code_is_the_process_own() {
    let daemon = Daemon::new();
    assert_eq!(daemon.hull(["run", "--rm", "busybox", "true"]).code, 0);
    assert_eq!(daemon.hull(["run", "--rm", "busybox", "false"]).code, 1);
    assert_eq!(
        daemon
            .hull(["run", "--rm", "busybox", "sh", "-c", "exit 42"])
            .code,
        42
    );
    assert_eq!(
        daemon
            .hull(["run", "--rm", "busybox", "sh", "-c", "exit 255"])
            .code,
        255
    );
}

#[test]
fn run_failures_have_dockers_exit_codes() {
    let daemon = Daemon::new();
    daemon
        .hull(["run", "--rm", "busybox", "nosuchprogram"])
        .fails_saying(127, "nosuchprogram");
    daemon
        .hull(["run", "--rm", "busybox", "/no/such/program"])
        .fails_saying(127, "no such file or directory");
    daemon
        .hull(["run", "--rm", "busybox", "/etc/passwd"])
        .fails_saying(126, "permission denied");
    daemon.hull(["run", "--rm", "busybox", "/etc"]).fails(126);
    daemon.hull(["run", "--nosuchflag", "busybox"]).fails(125);
    daemon.hull(["run"]).fails(1);
    daemon
        .hull(["run", "--rm", "--pull", "never", "nosuchimage:1"])
        .fails_saying(125, "nosuchimage:1");
}

#[test]
fn run_killed_by_signal_returns_128_plus_n() {
    let daemon = Daemon::new();
    // PID 1 ignores what it does not handle, so the signals strike a child.
    for (signal, code) in [("KILL", 137), ("TERM", 143), ("ABRT", 134)] {
        let script = format!("sh -c 'kill -{signal} $$'; exit $?");
        let out = daemon.hull(["run", "--rm", "busybox", "sh", "-c", &script]);
        assert_eq!(out.code, code, "{signal}: {}", out.stderr);
    }
    let running = daemon
        .cli([
            "run", "--rm", "--name", "victim", "busybox", "sleep", "1000",
        ])
        .spawn();
    daemon.wait_state("victim", "running");
    daemon.ok(["kill", "victim"]);
    assert_eq!(running.finish().code, 137);
}

#[test]
fn run_streams_stay_apart() {
    let daemon = Daemon::new();
    let out = daemon.hull([
        "run",
        "--rm",
        "busybox",
        "sh",
        "-c",
        "echo out; echo err >&2",
    ]);
    assert_eq!(
        (out.stdout.as_str(), out.stderr.as_str()),
        ("out\n", "err\n")
    );
}

#[test]
fn run_interactive_passes_stdin_whole() {
    let daemon = Daemon::new();
    let out = daemon
        .cli(["run", "--rm", "-i", "busybox", "cat"])
        .input("one\ntwo")
        .run();
    assert_eq!(out.stdout, "one\ntwo");
    let big = vec![b'x'; 5_000_000];
    let out = daemon
        .cli(["run", "--rm", "-i", "busybox", "wc", "-c"])
        .input(big)
        .run();
    assert_eq!(out.ok(), "5000000");
    let out = daemon
        .cli(["run", "--rm", "busybox", "wc", "-c"])
        .input("ignored")
        .run();
    assert_eq!(out.ok(), "0", "without -i there is no stdin");
}

#[test]
fn run_large_binary_output_arrives_whole() {
    let daemon = Daemon::new();
    let out = daemon.hull([
        "run",
        "--rm",
        "busybox",
        "dd",
        "if=/dev/zero",
        "bs=1M",
        "count=20",
    ]);
    assert_eq!(out.code, 0);
    assert_eq!(out.bytes.len(), 20 << 20);
    assert!(out.bytes.iter().all(|&byte| byte == 0));
}

#[test]
fn run_output_of_quick_process_is_never_cut() {
    let daemon = Daemon::new();
    for round in 0..20 {
        let out = daemon.hull(["run", "--rm", "busybox", "echo", "whole"]);
        assert_eq!(out.ok(), "whole", "round {round}");
    }
}

#[test]
fn run_environment_comes_from_image_file_client_and_flags() {
    let daemon = Daemon::new();
    let file = daemon.scratch().join("env");
    fs::write(
        &file,
        "# comment\nFROM_FILE=a b\nFROM_CLIENT_FILE\nBOTH=file\n",
    )
    .expect("write");
    let out = daemon
        .cli([
            "run",
            "--rm",
            "--env-file",
            &file.to_string_lossy(),
            "-e",
            "ONE=1",
            "--env",
            "EMPTY=",
            "-e",
            "FROM_CLIENT",
            "-e",
            "NOT_SET_ANYWHERE",
            "-e",
            "BOTH=flag",
            "busybox",
            "env",
        ])
        .env("FROM_CLIENT", "client")
        .env("FROM_CLIENT_FILE", "client2")
        .ok();
    let has = |line: &str| assert!(out.lines().any(|have| have == line), "{line} in\n{out}");
    has("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    has("HOME=/root");
    has("ONE=1");
    has("EMPTY=");
    has("FROM_CLIENT=client");
    has("FROM_CLIENT_FILE=client2");
    has("FROM_FILE=a b");
    has("BOTH=flag");
    assert!(out.contains("HOSTNAME="));
    assert!(!out.contains("NOT_SET_ANYWHERE"));
    assert!(!out.contains("TERM="));
}

#[test]
fn run_user_by_name_number_and_group() {
    let daemon = Daemon::new();
    let id = |user: &str| daemon.ok(["run", "--rm", "-u", user, "busybox", "id"]);
    assert_eq!(
        id("hull"),
        "uid=1000(hull) gid=1000(hull) groups=29(audio),44(video),1000(hull)"
    );
    assert!(id("1000").starts_with("uid=1000(hull) gid=1000(hull)"));
    assert!(id("1234:5678").starts_with("uid=1234 gid=5678"));
    assert!(id("hull:audio").starts_with("uid=1000(hull) gid=29(audio)"));
    assert!(id("nobody:44").starts_with("uid=65534(nobody) gid=44(video)"));
    let home = daemon.ok([
        "run",
        "--rm",
        "-u",
        "hull",
        "busybox",
        "sh",
        "-c",
        "echo $HOME",
    ]);
    assert_eq!(home, "/home/hull");
    let groups = daemon.ok([
        "run",
        "--rm",
        "--group-add",
        "audio",
        "--group-add",
        "777",
        "busybox",
        "id",
        "-G",
    ]);
    assert!(groups.split(' ').any(|group| group == "29"), "{groups}");
    assert!(groups.split(' ').any(|group| group == "777"), "{groups}");
}

#[test]
fn run_unknown_user_or_group_fails() {
    let daemon = Daemon::new();
    let out = daemon.hull(["run", "--rm", "-u", "nosuchuser", "busybox", "true"]);
    assert!([125, 126].contains(&out.code), "{}", out.code);
    assert!(out.stderr.contains("nosuchuser"), "{}", out.stderr);
    let out = daemon.hull(["run", "--rm", "-u", "0:nosuchgroup", "busybox", "true"]);
    assert!([125, 126].contains(&out.code), "{}", out.code);
    assert!(out.stderr.contains("nosuchgroup"), "{}", out.stderr);
}

#[test]
fn run_workdir_is_made_and_relative_one_refused() {
    let daemon = Daemon::new();
    assert_eq!(
        daemon.ok(["run", "--rm", "-w", "/made/here", "busybox", "pwd"]),
        "/made/here"
    );
    assert_eq!(daemon.ok(["run", "--rm", "busybox", "pwd"]), "/");
    daemon
        .hull(["run", "--rm", "-w", "relative", "busybox", "pwd"])
        .fails_saying(125, "absolute");
}

#[test]
fn run_entrypoint_replaces_the_images_and_its_command() {
    let daemon = Daemon::new();
    assert_eq!(
        daemon.ok(["run", "--rm", "--entrypoint", "echo", "busybox", "a", "b"]),
        "a b"
    );
    assert_eq!(
        daemon.ok(["run", "--rm", "--entrypoint", "", "busybox", "echo", "x"]),
        "x"
    );
    assert_eq!(
        daemon.ok(["run", "--rm", "--entrypoint", "/bin/pwd", "busybox"]),
        "/"
    );
}

#[test]
fn run_hostname_is_set_or_the_short_id() {
    let daemon = Daemon::new();
    assert_eq!(
        daemon.ok(["run", "--rm", "-h", "ship", "busybox", "hostname"]),
        "ship"
    );
    assert_eq!(
        daemon.ok([
            "run",
            "--rm",
            "--hostname",
            "ship2",
            "busybox",
            "cat",
            "/etc/hostname"
        ]),
        "ship2"
    );
    let hosts = daemon.ok(["run", "--rm", "-h", "ship", "busybox", "cat", "/etc/hosts"]);
    assert!(hosts.lines().any(|line| line.ends_with("ship")), "{hosts}");
    assert!(hosts.contains("127.0.0.1\tlocalhost"), "{hosts}");
    daemon.ok(["run", "--name", "named", "busybox", "hostname"]);
    let id = daemon.inspect("named", "{{.Id}}");
    assert_eq!(daemon.ok(["logs", "named"]), id[..12]);
}

#[test]
fn run_tty_gives_a_terminal_of_the_clients_size() {
    let daemon = Daemon::new();
    let terminal = daemon.terminal([
        "run",
        "--rm",
        "-it",
        "busybox",
        "sh",
        "-c",
        "tty; sleep 0.5; stty size; echo TERM=$TERM",
    ]);
    let (code, screen) = terminal.finish();
    assert_eq!(code, 0, "{screen}");
    assert!(screen.contains("/dev/pts/0"), "{screen}");
    assert!(screen.contains("24 80"), "{screen}");
    assert!(screen.contains("TERM=xterm"), "{screen}");
}

#[test]
fn run_tty_shell_takes_typed_lines_resize_and_ctrl_c() {
    let daemon = Daemon::new();
    let mut terminal = daemon.terminal(["run", "--rm", "-it", "--name", "shell", "busybox", "sh"]);
    terminal.expect("#");
    terminal.send("echo $((6*7))\n");
    terminal.expect("42");
    terminal.resize(40, 100);
    eventually("the container sees the new size", || {
        daemon
            .hull(["exec", "shell", "sh", "-c", "stty size </dev/pts/0"])
            .stdout
            .trim()
            == "40 100"
    });
    terminal.send("sleep 100\n");
    eventually("sleep runs", || {
        daemon.hull(["top", "shell"]).stdout.contains("sleep 100")
    });
    terminal.send("\x03");
    terminal.send("echo after-$?\n");
    terminal.expect("after-130");
    terminal.send("exit 7\n");
    let (code, screen) = terminal.finish();
    assert_eq!(code, 7, "{screen}");
}

#[test]
fn run_tty_without_one_on_stdin_is_refused() {
    let daemon = Daemon::new();
    let out = daemon.hull(["run", "--rm", "-it", "busybox", "true"]);
    assert_eq!(out.code, 1, "{}", out.stderr);
    assert!(
        out.stderr.contains("the input device is not a TTY"),
        "{}",
        out.stderr
    );
    // -t alone asks for a terminal in the container, not on the client.
    let out = daemon.hull(["run", "--rm", "-t", "busybox", "tty"]);
    assert_eq!(out.stdout, "/dev/pts/0\r\n");
}

#[test]
fn run_rm_leaves_no_container_and_plain_run_does() {
    let daemon = Daemon::new();
    daemon.ok(["run", "--rm", "--name", "gone", "busybox", "true"]);
    daemon.hull(["inspect", "gone"]).fails(1);
    daemon.ok(["run", "--name", "kept", "busybox", "sh", "-c", "exit 0"]);
    assert_eq!(
        daemon.inspect("kept", "{{.State.Status}} {{.State.ExitCode}}"),
        "exited 0"
    );
    let id = daemon.ok(["run", "-d", "--rm", "busybox", "true"]);
    assert_eq!(id.len(), 64);
    eventually("a detached --rm container vanishes", || {
        daemon.hull(["inspect", &id]).code == 1
    });
}

#[test]
fn run_detached_prints_the_full_id() {
    let daemon = Daemon::new();
    let id = daemon.ok(["run", "-d", "--name", "sleeper", "busybox", "sleep", "1000"]);
    assert_eq!(id.len(), 64);
    assert!(id.bytes().all(|byte| byte.is_ascii_hexdigit()));
    assert_eq!(
        daemon.inspect("sleeper", "{{.Id}} {{.State.Running}}"),
        format!("{id} true")
    );
    assert_eq!(daemon.inspect(&id[..6], "{{.Name}}"), "/sleeper");
}

#[test]
fn run_name_taken_or_malformed_is_refused() {
    let daemon = Daemon::new();
    daemon.ok(["create", "--name", "taken", "busybox"]);
    daemon
        .hull(["run", "--rm", "--name", "taken", "busybox", "true"])
        .fails_saying(125, "already in use");
    for name in ["-dash", "with space", "a/b", "ü", "x"] {
        let out = daemon.hull(["run", "--rm", &format!("--name={name}"), "busybox", "true"]);
        assert_eq!(out.code, 125, "{name}: {}", out.stderr);
        assert!(
            out.stderr.to_lowercase().contains("invalid container name"),
            "{}",
            out.stderr
        );
    }
    let name = daemon.ok(["create", "busybox"]);
    let name = daemon.inspect(&name, "{{.Name}}");
    assert!(name.starts_with('/') && name.contains('_'), "{name}");
}

#[test]
fn run_labels_come_from_flags_and_files() {
    let daemon = Daemon::new();
    let file = daemon.scratch().join("labels");
    fs::write(&file, "# comment\nfrom.file=yes\n").expect("write");
    daemon.ok([
        "create",
        "--name",
        "labelled",
        "-l",
        "a=b",
        "--label",
        "c",
        "--label-file",
        &file.to_string_lossy(),
        "busybox",
    ]);
    let labels = daemon.inspect("labelled", "{{json .Config.Labels}}");
    let labels: serde_json::Value = serde_json::from_str(&labels).expect("JSON");
    assert_eq!(
        labels,
        serde_json::json!({"a": "b", "c": "", "from.file": "yes"})
    );
    assert_eq!(
        daemon.ok(["ps", "-a", "-q", "--filter", "label=a=b", "--no-trunc"]),
        daemon.inspect("labelled", "{{.Id}}")
    );
    assert_eq!(daemon.ok(["ps", "-a", "-q", "--filter", "label=a=x"]), "");
}

#[test]
fn run_cidfile_holds_the_id_and_is_never_overwritten() {
    let daemon = Daemon::new();
    let file = daemon.scratch().join("cid");
    let path = file.to_string_lossy().into_owned();
    daemon.ok([
        "run",
        "--cidfile",
        &path,
        "--name",
        "one",
        "busybox",
        "true",
    ]);
    assert_eq!(
        fs::read_to_string(&file).expect("read"),
        daemon.inspect("one", "{{.Id}}")
    );
    daemon
        .hull(["run", "--rm", "--cidfile", &path, "busybox", "true"])
        .fails_saying(125, "found");
}

#[test]
fn run_flags_after_the_image_belong_to_the_command() {
    let daemon = Daemon::new();
    assert_eq!(
        daemon.ok(["run", "--rm", "busybox", "echo", "--rm", "-it", "--", "-x"]),
        "--rm -it -- -x"
    );
}

#[test]
fn run_platform_of_the_host_works_and_another_is_refused() {
    let daemon = Daemon::new();
    assert_eq!(
        daemon.ok([
            "run",
            "--rm",
            "--platform",
            "linux/amd64",
            "--pull",
            "never",
            "busybox",
            "echo",
            "ok"
        ]),
        "ok"
    );
    daemon
        .hull([
            "run",
            "--rm",
            "--platform",
            "linux/s390x",
            "--pull",
            "never",
            "busybox",
            "true",
        ])
        .fails(125);
}

#[test]
fn run_init_is_pid_1_and_reaps_orphans() {
    let daemon = Daemon::new();
    let script = "(sleep 0.05 &) ; sleep 0.3; cat /proc/[0-9]*/stat | grep -c ') Z'; cat /proc/1/comm; echo $$";
    let out = daemon.hull(["run", "--rm", "--init", "busybox", "sh", "-c", script]);
    let lines: Vec<&str> = out.stdout.lines().collect();
    assert_eq!(lines.first(), Some(&"0"), "{}", out.stdout);
    assert_ne!(lines.get(1), Some(&"sh"), "{}", out.stdout);
    assert_ne!(lines.get(2), Some(&"1"), "{}", out.stdout);
    assert_eq!(
        daemon
            .hull(["run", "--rm", "--init", "busybox", "sh", "-c", "exit 9"])
            .code,
        9
    );
}
