//! `hull manifest`: lists of images for several platforms, put together by hand and read by skopeo.

use std::fs;

use hull_testkit::{Daemon, Run};
use hull_tests::documents::{Documents, media};
use hull_tests::registry::{Kind, Registry};
use serde_json::Value;

struct Place {
    daemon: Daemon,
    registry: Registry,
    home: tempfile::TempDir,
}

fn place() -> Option<Place> {
    let home = tempfile::tempdir().expect("home");
    let daemon = Daemon::builder()
        .bare()
        .env("DOCKER_CONFIG", &home.path().display().to_string())
        .start();
    if daemon.is_docker() {
        return None;
    }
    let registry = Registry::start(&daemon.scratch().join("registry"), Kind::Plain);
    Some(Place {
        daemon,
        registry,
        home,
    })
}

impl Place {
    fn documents(&self, repository: &str) -> Documents {
        let files = self.daemon.scratch().join("documents");
        Documents::new(&self.registry, repository, &files)
    }

    fn name(&self, path: &str) -> String {
        format!("{}/{path}", self.registry.host)
    }

    fn raw(&self, path: &str) -> Value {
        let text = Run::new("skopeo")
            .args(["inspect", "--raw", "--tls-verify=false"])
            .arg(format!("docker://{}", self.name(path)))
            .ok();
        serde_json::from_str(&text).expect("JSON")
    }
}

#[test]
fn list_is_created_annotated_pushed_and_chosen_from() {
    let Some(place) = place() else { return };
    let daemon = &place.daemon;
    let own = place
        .documents("lib/app")
        .image(Some("amd64"), "linux/amd64", false);
    // Of another repository: it is taken over.
    let other = place
        .documents("arm/app")
        .image(Some("1"), "linux/arm64", false);
    let list = place.name("lib/app:1");
    let (amd, arm) = (place.name("lib/app:amd64"), place.name("arm/app:1"));
    let out = daemon.ok(["manifest", "create", &list, &amd, &arm]);
    assert_eq!(out, format!("Created manifest list {list}"));
    daemon
        .hull(["manifest", "create", &list, &amd])
        .fails_saying(
            1,
            "refusing to amend an existing manifest list with no --amend flag",
        );
    daemon.ok(["manifest", "create", "--amend", &list, &amd]);
    daemon.ok([
        "manifest",
        "annotate",
        "--variant",
        "v8",
        "--os-version",
        "5",
        "--os-features",
        "a,b",
        &list,
        &arm,
    ]);
    daemon
        .hull(["manifest", "annotate", "--arch", "abacus", &list, &arm])
        .fails_saying(1, "unsupported os/arch combination: linux/abacus");
    daemon
        .hull(["manifest", "annotate", "--arch", "arm", &list, "nothing:1"])
        .fails_saying(1, "does not exist in");

    let shown: Value =
        serde_json::from_str(&daemon.ok(["manifest", "inspect", &list])).expect("JSON");
    assert_eq!(shown["mediaType"], media::INDEX);
    let entry = |digest: &Value| {
        let entries = shown["manifests"].as_array().expect("manifests");
        entries
            .iter()
            .find(|entry| entry["digest"] == *digest)
            .expect("the entry")
            .clone()
    };
    assert_eq!(entry(&own["digest"])["platform"]["architecture"], "amd64");
    let arm_entry = entry(&other["digest"]);
    assert_eq!(arm_entry["platform"]["variant"], "v8");
    assert_eq!(arm_entry["platform"]["os.version"], "5");
    assert_eq!(arm_entry["platform"]["os.features"][1], "b");
    let one: Value =
        serde_json::from_str(&daemon.ok(["manifest", "inspect", &list, &arm])).expect("JSON");
    assert!(one["layers"].is_array(), "{one}");
    let verbose: Value =
        serde_json::from_str(&daemon.ok(["manifest", "inspect", "-v", &list])).expect("JSON");
    assert_eq!(verbose[0]["OCIManifest"]["schemaVersion"], 2);

    let out = daemon.ok(["manifest", "push", "--purge", &list]);
    let arm_digest = other["digest"].as_str().expect("digest");
    assert!(
        out.contains(&format!(
            "Pushed ref {}@{arm_digest}",
            place.name("lib/app")
        )),
        "{out}"
    );
    let pushed = out.lines().last().expect("a digest");
    let raw = place.raw("lib/app:1");
    assert_eq!(raw, shown);
    let found = place.registry.inspect("lib/app:1", "{{.Digest}}");
    assert_eq!(found, pushed, "skopeo sees the digest of the list");
    assert_eq!(
        place.raw(&format!("lib/app@{arm_digest}"))["schemaVersion"],
        2
    );
    assert!(
        !place
            .home
            .path()
            .join("manifests")
            .join(list.replace(':', "-").replace('/', "_"))
            .exists()
    );
    // Now that it is not here any more, the registry's is shown.
    let again: Value =
        serde_json::from_str(&daemon.ok(["manifest", "inspect", &list])).expect("JSON");
    assert_eq!(again, shown);
    let verbose: Value =
        serde_json::from_str(&daemon.ok(["manifest", "inspect", "-v", &list])).expect("JSON");
    assert_eq!(verbose.as_array().map(Vec::len), Some(2));
    daemon.ok(["pull", "-q", &list]);
    assert_eq!(
        daemon.ok(["run", "--rm", &list, "cat", "/platform"]),
        "linux/amd64"
    );
}

#[test]
fn list_with_a_docker_manifest_is_dockers() {
    let Some(place) = place() else { return };
    let daemon = &place.daemon;
    let app = place.documents("lib/app");
    let _ = app.image(Some("amd64"), "linux/amd64", true);
    let _ = app.image(Some("arm64"), "linux/arm64", false);
    let list = place.name("lib/app:1");
    let members = [place.name("lib/app:amd64"), place.name("lib/app:arm64")];
    daemon.ok([
        "manifest",
        "create",
        "--insecure",
        &list,
        &members[0],
        &members[1],
    ]);
    daemon.ok(["manifest", "push", "--insecure", &list]);
    assert_eq!(
        place.raw("lib/app:1")["mediaType"],
        "application/vnd.docker.distribution.manifest.list.v2+json"
    );
    // What Docker's own command line keeps is in the same place and form.
    let dir = place
        .home
        .path()
        .join("manifests")
        .join(list.replace(':', "-").replace('/', "_"));
    let files: Vec<_> = fs::read_dir(&dir)
        .expect("the list's folder")
        .flatten()
        .collect();
    assert_eq!(files.len(), 2);
    let entry: Value =
        serde_json::from_slice(&fs::read(files[0].path()).expect("read")).expect("JSON");
    assert!(
        entry["Ref"].is_string() && entry["Descriptor"]["digest"].is_string(),
        "{entry}"
    );
    daemon.ok(["manifest", "rm", &list]);
    daemon
        .hull(["manifest", "rm", &list])
        .fails_saying(1, &format!("No such manifest: {list}"));
}

#[test]
fn manifest_errors_name_what_is_wrong() {
    let Some(place) = place() else { return };
    let daemon = &place.daemon;
    let app = place.documents("lib/app");
    let entry = app.image(Some("amd64"), "linux/amd64", false);
    app.index("index", &[entry]);
    let list = place.name("lib/app:1");
    daemon
        .hull(["manifest", "create", &list, &place.name("lib/app:index")])
        .fails_saying(1, "is a manifest list");
    daemon
        .hull(["manifest", "create", &list, &place.name("lib/none:1")])
        .fails_saying(1, "not in the registry");
    daemon
        .hull(["manifest", "push", &list])
        .fails_saying(1, "not found");
    daemon
        .hull(["manifest", "inspect", &place.name("lib/none:1")])
        .fails_saying(1, "not in the registry");
    // A source in another registry.
    let second = Registry::start(&daemon.scratch().join("second"), Kind::Plain);
    let foreign = format!("{}/lib/app:1", second.host);
    daemon.ok(["manifest", "create", &foreign, &place.name("lib/app:amd64")]);
    daemon
        .hull(["manifest", "push", &foreign])
        .fails_saying(1, "different registry than the target");
}
