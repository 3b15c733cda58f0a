//! Bundles that cannot be: refused, and nothing is left.

use serde_json::json;

use super::Case;

pub(crate) fn cases() -> Vec<Case> {
    let hook = |path: &str| json!([{ "path": path }]);
    let mut all = Vec::new();
    for (name, pointer, value, field) in [
        (
            "refused.ociVersion",
            "/ociVersion",
            json!("2.0.0"),
            "ociVersion",
        ),
        ("refused.args-empty", "/process/args", json!([]), "args"),
        ("refused.cwd-relative", "/process/cwd", json!("tmp"), "cwd"),
        (
            "refused.root-missing",
            "/root/path",
            json!("missing"),
            "root",
        ),
        (
            "refused.namespace-twice",
            "/linux/namespaces/-",
            json!({"type": "pid"}),
            "namespaces",
        ),
        (
            "refused.namespace-unknown",
            "/linux/namespaces/-",
            json!({"type": "x"}),
            "namespaces",
        ),
        (
            "refused.namespace-path",
            "/linux/namespaces/1",
            json!({"type": "network", "path": "/none"}),
            "namespaces",
        ),
        (
            "refused.user-without-mappings",
            "/linux/namespaces/-",
            json!({"type": "user"}),
            "Mappings",
        ),
        (
            "refused.sysctl-of-the-host",
            "/linux/sysctl",
            json!({"vm.swappiness": "1"}),
            "sysctl",
        ),
        (
            "refused.seccomp-action",
            "/linux/seccomp",
            json!({"defaultAction": "SCMP_ACT_NOPE"}),
            "seccomp",
        ),
        (
            "refused.propagation-unknown",
            "/linux/rootfsPropagation",
            json!("sometimes"),
            "rootfsPropagation",
        ),
        (
            "refused.device-type",
            "/linux/devices",
            json!([{"path": "/dev/x", "type": "x", "major": 1, "minor": 1}]),
            "devices",
        ),
        (
            "refused.rlimit-unknown",
            "/process/rlimits",
            json!([{"type": "RLIMIT_NOPE", "soft": 1, "hard": 1}]),
            "rlimits",
        ),
        (
            "refused.memory-policy",
            "/linux/memoryPolicy",
            json!({"mode": "MPOL_NOPE"}),
            "memoryPolicy",
        ),
        // Not seen before something is made: the failure is complete all the same.
        (
            "failed.program-missing",
            "/process/args",
            json!(["/no/such"]),
            "such",
        ),
        (
            "failed.mount-source",
            "/mounts/-",
            json!({"destination": "/x", "type": "bind", "source": "/no/such", "options": ["bind"]}),
            "/no/such",
        ),
        (
            "failed.mount-type",
            "/mounts/-",
            json!({"destination": "/x", "type": "nosuchfs", "source": "x"}),
            "nosuchfs",
        ),
        (
            "failed.sysctl-missing",
            "/linux/sysctl",
            json!({"net.no.such": "1"}),
            "net",
        ),
        (
            "failed.sysctl-value",
            "/linux/sysctl",
            json!({"net.ipv4.ip_forward": "nonsense"}),
            "ip_forward",
        ),
        (
            "failed.hook-createRuntime",
            "/hooks",
            json!({"createRuntime": hook("/bin/false")}),
            "hook",
        ),
        (
            "failed.hook-createContainer",
            "/hooks",
            json!({"createContainer": hook("/bin/false")}),
            "hook",
        ),
        (
            "failed.hook-missing",
            "/hooks",
            json!({"prestart": hook("/no/such")}),
            "/no/such",
        ),
        (
            "failed.cpus",
            "/linux/resources/cpu",
            json!({"cpus": "999"}),
            "cpu",
        ),
    ] {
        all.push(Case::new(name, move |runtime| {
            let bundle = runtime.bundle("c", &[(pointer, value.clone())], "true");
            let mut said = runtime.run(&["create", "-b", bundle.path(), "c"]);
            if said.code == 0 && name == "failed.program-missing" {
                said = runtime.run(&["start", "c"]);
                runtime.clear();
            }
            assert!(said.code > 0, "was not refused");
            let text = format!("{}{}", said.out, said.err);
            if runtime.kind == hull_oci_tests::Kind::Hull {
                assert!(text.contains(field), "{field} is not named: {text}");
            }
            assert!(!text.contains("panicked"), "{text}");
            runtime.nothing_left();
        }));
    }
    for (name, option, value) in [
        ("failed.console-socket", "--console-socket", "/no/such.sock"),
        ("failed.pid-file", "--pid-file", "/no/such/pid"),
    ] {
        all.push(Case::new(name, move |runtime| {
            let terminal = option == "--console-socket";
            let bundle =
                runtime.bundle("c", &[("/process/terminal", json!(terminal))], "sleep 1000");
            runtime.fails(&["create", "-b", bundle.path(), option, value, "c"]);
            runtime.nothing_left();
        }));
    }
    all
}
