//! `--format` templates, `--filter`, `-q`, `--no-trunc` and the tables people parse.

use std::time::Duration;

use hull_testkit::Daemon;
use serde_json::Value;

fn two() -> Daemon {
    let daemon = Daemon::new();
    daemon.ok([
        "run", "-d", "--name", "first", "-l", "tier=web", "-e", "A=1", "busybox", "sleep", "1000",
    ]);
    daemon.hull([
        "run", "--name", "other", "-l", "tier=db", "busybox", "sh", "-c", "exit 3",
    ]);
    daemon
}

#[test]
fn ps_table_has_dockers_columns() {
    let daemon = two();
    let out = daemon.ok(["ps"]);
    let head = out.lines().next().expect("a head");
    let columns: Vec<&str> = head
        .split("  ")
        .map(str::trim)
        .filter(|text| !text.is_empty())
        .collect();
    assert_eq!(
        columns,
        [
            "CONTAINER ID",
            "IMAGE",
            "COMMAND",
            "CREATED",
            "STATUS",
            "PORTS",
            "NAMES"
        ]
    );
    assert!(
        out.contains("\"sleep 1000\"") && out.contains("Up ") && !out.contains("other"),
        "{out}"
    );
    let all = daemon.ok(["ps", "-a"]);
    assert!(all.contains("Exited (3)"), "{all}");
    assert_eq!(
        daemon.ok(["ps", "-a", "-n", "1", "--format", "{{.Names}}"]),
        "other"
    );
    assert_eq!(daemon.ok(["ps", "-l", "--format", "{{.Names}}"]), "other");
}

#[test]
fn ps_quiet_and_no_trunc() {
    let daemon = two();
    let id = daemon.inspect("first", "{{.Id}}");
    assert_eq!(daemon.ok(["ps", "-q"]), id[..12]);
    assert_eq!(daemon.ok(["ps", "-q", "--no-trunc"]), id);
    assert_eq!(daemon.ok(["ps", "-aq"]).lines().count(), 2);
}

#[test]
fn ps_filters_select() {
    let daemon = two();
    let names = |filters: &[&str]| {
        let mut args = vec!["ps", "-a", "--format", "{{.Names}}"];
        for filter in filters {
            args.extend(["--filter", filter]);
        }
        daemon.ok(args)
    };
    assert_eq!(names(&["name=first"]), "first");
    assert_eq!(names(&["name=^oth"]), "other");
    assert_eq!(names(&["label=tier=db"]), "other");
    assert_eq!(names(&["label=tier"]), "other\nfirst");
    assert_eq!(names(&["status=running"]), "first");
    assert_eq!(names(&["status=exited"]), "other");
    assert_eq!(names(&["exited=3"]), "other");
    assert_eq!(names(&["ancestor=busybox", "status=running"]), "first");
    assert_eq!(names(&["since=first"]), "other");
    assert_eq!(names(&["before=other"]), "first");
    assert_eq!(names(&["status=running", "status=exited"]), "other\nfirst");
    assert_eq!(names(&["name=nosuch"]), "");
}

#[test]
fn ps_templates_as_docker_users_write_them() {
    let daemon = two();
    let format = |template: &str| daemon.ok(["ps", "--format", template]);
    assert_eq!(
        format("{{.Names}}: {{.Image}} {{.State}}"),
        "first: busybox running"
    );
    assert_eq!(format("{{.Command}}"), "\"sleep 1000\"");
    assert_eq!(format("{{.Label \"tier\"}}"), "web");
    assert_eq!(
        format("{{upper .Names}} {{lower .Image}} {{truncate .Names 3}}"),
        "FIRST busybox fir"
    );
    assert_eq!(
        format("{{if eq .State \"running\"}}yes{{else}}no{{end}}"),
        "yes"
    );
    assert_eq!(format("{{join (split .Names \"r\") \"-\"}}"), "fi-st");
    assert_eq!(
        format("{{printf \"%s/%s\" .Names .State}}"),
        "first/running"
    );
    assert_eq!(format("{{len .ID}}"), "12");
    let table = format("table {{.Names}}\t{{.Image}}");
    let lines: Vec<Vec<&str>> = table
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(lines, [["NAMES", "IMAGE"], ["first", "busybox"]]);
    let object: Value = serde_json::from_str(&format("{{json .}}")).expect("JSON");
    assert_eq!(object["Names"], "first");
    let object: Value = serde_json::from_str(&format("json")).expect("JSON");
    assert_eq!(object["State"], "running");
    assert!(format("{{.RunningFor}}").ends_with("ago"));
    assert_eq!(
        format("{{.Mounts}}|{{.Networks}}|{{.LocalVolumes}}"),
        "|bridge|0"
    );
}

#[test]
fn inspect_templates_reach_everything() {
    let daemon = two();
    let inspect = |template: &str| daemon.inspect("first", template);
    assert_eq!(inspect("{{.Config.Image}}"), "busybox");
    assert_eq!(inspect("{{json .Config.Cmd}}"), "[\"sleep\",\"1000\"]");
    assert_eq!(inspect("{{index .Config.Cmd 0}}"), "sleep");
    assert_eq!(
        inspect("{{range .Config.Cmd}}<{{.}}>{{end}}"),
        "<sleep><1000>"
    );
    assert_eq!(
        inspect("{{range $k, $v := .Config.Labels}}{{$k}}={{$v}}{{end}}"),
        "tier=web"
    );
    assert_eq!(inspect("{{index .Config.Labels \"tier\"}}"), "web");
    assert_eq!(inspect("{{len .Config.Cmd}}"), "2");
    assert_eq!(inspect("{{.State.Running}} {{.State.ExitCode}}"), "true 0");
    assert_eq!(inspect("{{with .State}}{{.Status}}{{end}}"), "running");
    assert_eq!(
        inspect("{{if and .State.Running (not .State.Paused)}}live{{end}}"),
        "live"
    );
    assert_eq!(inspect("{{join .Config.Cmd \",\"}}"), "sleep,1000");
    assert_eq!(
        inspect("{{range .NetworkSettings.Networks}}{{.Gateway}}{{end}}"),
        inspect("{{.NetworkSettings.Gateway}}")
    );
    assert_eq!(
        inspect("{{.NetworkSettings.Networks.bridge.IPAddress}}"),
        inspect("{{.NetworkSettings.IPAddress}}")
    );
    assert_eq!(inspect("{{slice .Id 0 12}}").len(), 12);
    assert_eq!(inspect("{{.HostConfig.RestartPolicy.Name}}"), "no");
    assert!(inspect("{{.Created}}").ends_with('Z'));
    let whole = daemon.inspect_json("first");
    for key in [
        "Id",
        "Created",
        "Path",
        "Args",
        "State",
        "Image",
        "Name",
        "HostConfig",
        "GraphDriver",
        "Mounts",
        "Config",
        "NetworkSettings",
        "LogPath",
        "ResolvConfPath",
        "HostnamePath",
        "HostsPath",
        "RestartCount",
        "Driver",
        "Platform",
    ] {
        assert!(whole.get(key).is_some(), "{key} is missing");
    }
    assert_eq!(whole["Path"], "sleep");
    daemon
        .hull(["inspect", "--format", "{{.Nonsense}}", "first"])
        .fails(1);
    let unclosed = daemon.hull(["inspect", "--format", "{{.Id", "first"]);
    assert_ne!(unclosed.code, 0);
    assert!(
        unclosed.stderr.contains("template parsing error"),
        "{}",
        unclosed.stderr
    );
    let both = daemon.ok(["inspect", "--format", "{{.Name}}", "first", "other"]);
    assert_eq!(both, "/first\n/other");
    assert_eq!(
        daemon.ok([
            "inspect", "--type", "image", "--format", "{{.Os}}", "busybox"
        ]),
        "linux"
    );
}

#[test]
fn inspect_of_one_missing_prints_the_others_and_fails() {
    let daemon = two();
    let out = daemon.hull(["inspect", "--format", "{{.Name}}", "first", "nosuch"]);
    out.fails_saying(1, "no such object: nosuch");
    assert_eq!(out.stdout, "/first\n");
}

#[test]
fn images_and_volumes_and_version_take_templates() {
    let daemon = two();
    assert_eq!(
        daemon.ok(["images", "--format", "{{.Repository}}:{{.Tag}}", "busybox"]),
        "busybox:latest"
    );
    let object: Value =
        serde_json::from_str(&daemon.ok(["images", "--format", "json", "busybox"])).expect("JSON");
    assert_eq!(object["Repository"], "busybox");
    daemon.ok(["volume", "create", "data"]);
    assert_eq!(
        daemon.ok([
            "volume",
            "ls",
            "--format",
            "{{.Name}}/{{.Driver}}/{{.Scope}}"
        ]),
        "data/local/local"
    );
    assert_eq!(
        daemon.ok(["volume", "inspect", "--format", "{{.Name}}", "data"]),
        "data"
    );
    daemon.ok(["volume", "rm", "data"]);
    assert!(
        !daemon
            .ok([
                "version",
                "--format",
                "{{.Server.Version}} {{.Client.Version}}"
            ])
            .is_empty()
    );
    assert_eq!(
        daemon.ok(["info", "--format", "{{.ContainersRunning}} {{.Containers}}"]),
        "1 2"
    );
    assert!(daemon.ok(["system", "df"]).contains("Images"));
    assert_eq!(
        daemon.ok([
            "history",
            "--format",
            "{{.Comment}}|{{.CreatedBy}}",
            "busybox"
        ]),
        "|testkit"
    );
}

#[test]
fn events_tell_the_life_of_a_container() {
    let daemon = Daemon::new();
    daemon.ok([
        "run", "--rm", "--name", "short", "-l", "x=y", "busybox", "true",
    ]);
    std::thread::sleep(Duration::from_millis(1500));
    let out = daemon.ok([
        "events",
        "--since",
        "1h",
        "--until",
        "0s",
        "--filter",
        "container=short",
        "--format",
        "{{.Action}}",
    ]);
    let actions: Vec<&str> = out.lines().collect();
    let order: Vec<&str> = actions
        .iter()
        .copied()
        .filter(|action| ["create", "start", "die", "destroy"].contains(action))
        .collect();
    assert_eq!(order, ["create", "start", "die", "destroy"], "{out}");
    let live = daemon
        .cli([
            "events",
            "--filter",
            "type=container",
            "--format",
            "{{.Actor.Attributes.name}} {{.Status}}",
        ])
        .spawn();
    std::thread::sleep(Duration::from_millis(500));
    daemon.ok(["create", "--name", "seen", "busybox"]);
    std::thread::sleep(Duration::from_millis(500));
    live.signal("INT");
    let out = live.finish();
    assert!(
        out.stdout.lines().any(|line| line == "seen create"),
        "{}",
        out.stdout
    );
}
