//! Progress of pulls and loads, layer by layer: bars on a terminal, plain lines elsewhere, and
//! Docker's stream for its clients.

use std::path::{Path, PathBuf};

use hull_testkit::archive::{Image, Layer};
use hull_testkit::terminal::Terminal;
use hull_testkit::{Daemon, Run};
use hull_tests::registry::{Kind, Registry};
use serde_json::Value;

/// Bytes of each of the large layers: enough for some steps.
const BYTES: usize = 8 << 20;
/// Large layers: more than come at once.
const LAYERS: usize = 5;

struct Fixture {
    daemon: Daemon,
    name: String,
    archive: PathBuf,
    _registry: Registry,
    _home: tempfile::TempDir,
}

/// A registry with an image of several layers that do not compress.
fn fixture() -> Option<Fixture> {
    let home = tempfile::tempdir().expect("home");
    let daemon = Daemon::builder()
        .bare()
        .env("DOCKER_CONFIG", &home.path().display().to_string())
        .arg("--max-concurrent-downloads=2")
        .start();
    if daemon.is_docker() {
        return None;
    }
    let mut image = Image::new("shown:1").busybox();
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    for number in 0..LAYERS {
        let mut content = Vec::with_capacity(BYTES);
        while content.len() < BYTES {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            content.extend_from_slice(&seed.to_le_bytes());
        }
        image = image.layer(Layer::new().file(&format!("{number}"), 0o644, &content));
    }
    let archive = daemon.scratch().join("shown.tar");
    image.write(&archive);
    let registry = Registry::start(&daemon.scratch().join("registry"), Kind::Plain);
    registry.put(&archive, "shown:1", "v2s2");
    Some(Fixture {
        name: format!("{}/shown:1", registry.host),
        daemon,
        archive,
        _registry: registry,
        _home: home,
    })
}

impl Fixture {
    fn forget(&self) {
        self.daemon.ok(["rmi", "-f", &self.name]);
    }
}

fn count(text: &str, part: &str) -> usize {
    text.matches(part).count()
}

#[test]
fn pull_into_a_file_tells_each_layer_in_plain_lines() {
    let Some(fixture) = fixture() else { return };
    let out = fixture.daemon.ok(["pull", &fixture.name]);
    assert!(!out.contains('\u{1b}') && !out.contains('\r'), "{out:?}");
    assert!(out.contains("1: Pulling from "), "{out}");
    for state in [
        ": Pulling fs layer",
        ": Download complete",
        ": Pull complete",
    ] {
        assert_eq!(count(&out, state), LAYERS + 1, "{state}: {out}");
    }
    // Two come at once, the others wait.
    assert_eq!(count(&out, ": Waiting"), LAYERS - 1, "{out}");
    assert!(!out.contains("Downloading"), "{out}");
    assert!(out.contains("Status: Downloaded newer image for "), "{out}");
    let again = fixture.daemon.ok(["pull", &fixture.name]);
    assert!(
        again.contains("Status: Image is up to date for "),
        "{again}"
    );
}

#[test]
fn pull_and_load_on_a_terminal_draw_bars_in_place() {
    let Some(fixture) = fixture() else { return };
    let terminal = fixture.daemon.terminal(["pull", &fixture.name]);
    let (code, shown) = terminal.finish();
    assert_eq!(code, 0, "{shown}");
    assert!(shown.contains("Downloading ["), "{shown:?}");
    assert!(
        shown.contains("Status: Downloaded newer image"),
        "{shown:?}"
    );
    fixture.forget();
    let archive = fixture.archive.display().to_string();
    let terminal = fixture.daemon.terminal(["load", "-i", &archive]);
    let (code, shown) = terminal.finish();
    assert_eq!(code, 0, "{shown}");
    assert!(shown.contains("Loaded image: shown:1"), "{shown:?}");
}

#[test]
fn pull_over_the_api_is_told_as_docker_tells_it() {
    let Some(fixture) = fixture() else { return };
    let (image, tag) = fixture.name.rsplit_once(':').expect("a tag");
    let path = format!("/images/create?fromImage={image}&tag={tag}");
    let answer = fixture.daemon.api("POST", &path, None);
    assert_eq!(answer.status, 200);
    let messages: Vec<Value> = answer
        .body
        .lines()
        .map(|line| serde_json::from_str(line).expect("a JSON object a line"))
        .collect();
    let text = |message: &Value, key: &str| message[key].as_str().unwrap_or_default().to_owned();
    assert_eq!(text(&messages[0], "id"), "1");
    let mut steps = 0;
    for message in &messages {
        let (current, total) = (
            message["progressDetail"]["current"].as_i64().unwrap_or(0),
            message["progressDetail"]["total"].as_i64().unwrap_or(0),
        );
        assert!(current <= total, "{message}");
        if text(message, "status") == "Downloading" {
            steps += 1;
            assert!(current > 0, "{message}");
            let bar = text(message, "progress");
            assert!(bar.starts_with('[') && bar.contains("MB/"), "{message}");
        }
    }
    assert!(steps >= LAYERS, "{steps} steps");
    let of = |id: &str| -> Vec<String> {
        let mut states: Vec<String> = messages
            .iter()
            .filter(|message| text(message, "id") == id)
            .map(|message| text(message, "status"))
            .collect();
        states.dedup();
        states
    };
    let ids: std::collections::BTreeSet<String> = messages
        .iter()
        .filter(|message| text(message, "status") == "Pull complete")
        .map(|message| text(message, "id"))
        .collect();
    assert_eq!(ids.len(), LAYERS + 1);
    for id in &ids {
        let states = of(id);
        let states: Vec<&str> = states
            .iter()
            .map(String::as_str)
            .filter(|state| !matches!(*state, "Waiting" | "Downloading"))
            .collect();
        let expected = ["Pulling fs layer", "Download complete", "Pull complete"];
        assert_eq!(states, expected, "{id}");
    }
    let last: Vec<String> = messages
        .iter()
        .rev()
        .take(2)
        .map(|m| text(m, "status"))
        .collect();
    assert!(last[0].starts_with("Status: Downloaded"), "{last:?}");
    assert!(last[1].starts_with("Digest: sha256:"), "{last:?}");
}

#[test]
fn dockers_client_shows_the_pull_as_its_own() {
    let docker = Path::new("/usr/local/bin/docker");
    let docker = if docker.exists() {
        docker
    } else {
        Path::new("/usr/bin/docker")
    };
    let Some(fixture) = fixture() else { return };
    let host = format!("unix://{}", fixture.daemon.socket().display());
    let out = Run::new(docker)
        .args(["-H", host.as_str(), "pull", fixture.name.as_str()])
        .env("DOCKER_CONFIG", "/nonexistent")
        .ok();
    for state in [
        ": Pulling fs layer",
        ": Download complete",
        ": Pull complete",
    ] {
        assert_eq!(count(&out, state), LAYERS + 1, "{state}: {out}");
    }
    fixture.forget();
    let program = docker.display().to_string();
    let terminal = Terminal::spawn(
        &program,
        ["-H", host.as_str(), "pull", fixture.name.as_str()],
        &[("DOCKER_CONFIG".to_owned(), "/nonexistent".to_owned())],
    );
    let (code, shown) = terminal.finish();
    assert_eq!(code, 0, "{shown}");
    // In 80 columns it shows numbers alone.
    assert!(
        shown.contains("Downloading  ") && shown.contains("MB/8.39MB"),
        "{shown:?}"
    );
    assert!(shown.contains("Pull complete"), "{shown:?}");
}
