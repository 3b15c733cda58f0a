//! Kubernetes' way: containerd's CRI with a runtime whose `BinaryName` stands in config.toml. The few
//! messages of that interface are made here; curl speaks HTTP/2 to the socket.

use std::fs;
use std::path::{Path, PathBuf};

use hull_testkit::{Run, eventually, fixtures, paths};

use crate::kit::{Engine, text};

/// Bytes of a gRPC message's head: whether it is compressed, and its length.
const HEAD: usize = 5;
/// The namespace in which CRI has its images.
const NAMESPACE: &str = "k8s.io";
/// `NamespaceMode.NODE`.
const OF_THE_NODE: u64 = 2;

/// A message of protocol buffers under construction.
#[derive(Debug, Default, Clone)]
struct Message(Vec<u8>);

impl Message {
    fn number(mut self, field: u64, value: u64) -> Self {
        self.varint(field << 3);
        self.varint(value);
        self
    }

    fn bytes(mut self, field: u64, value: impl AsRef<[u8]>) -> Self {
        let value = value.as_ref();
        self.varint(field << 3 | 2);
        self.varint(value.len() as u64);
        self.0.extend(value);
        self
    }

    fn part(self, field: u64, part: &Self) -> Self {
        self.bytes(field, &part.0)
    }

    fn varint(&mut self, mut value: u64) {
        while value > 0x7f {
            self.0.push((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }
}

/// A field of a message that came: a number, or bytes.
#[derive(Debug, Default, PartialEq)]
struct Field {
    number: u64,
    bytes: Vec<u8>,
}

/// The first field of a number in a message; empty if there is none.
fn field(mut message: &[u8], wanted: u64) -> Field {
    fn varint(message: &mut &[u8]) -> u64 {
        let (mut value, mut shift) = (0, 0);
        while let [first, rest @ ..] = *message {
            *message = rest;
            value |= u64::from(first & 0x7f) << shift;
            shift += 7;
            if first & 0x80 == 0 || shift > 63 {
                break;
            }
        }
        value
    }
    while !message.is_empty() {
        let key = varint(&mut message);
        let value = varint(&mut message);
        let mut found = Field {
            number: value,
            bytes: Vec::new(),
        };
        if key & 7 == 2 {
            let (bytes, rest) = message.split_at(usize::try_from(value).expect("a length"));
            found.bytes = bytes.to_vec();
            message = rest;
        }
        if key >> 3 == wanted {
            return found;
        }
    }
    Field::default()
}

/// A containerd with CRI.
struct Cri(Engine);

impl Cri {
    fn new(name: &str) -> Self {
        let engine = Engine::spawn("containerd", name, |dir| {
            let file = dir.join("config.toml");
            fs::write(&file, configuration(dir)).expect("write the configuration");
            vec!["--config".to_owned(), text(file)]
        });
        let cri = Self(engine);
        let ctr = |args: &[&str]| {
            Run::new("ctr")
                .args(["--address", &text(cri.0.path("sock"))])
                .args(["--namespace", NAMESPACE])
                .args(args)
                .run()
        };
        eventually("containerd answers", || ctr(&["version"]).code == 0);
        for (image, archive) in [
            ("busybox", fixtures::busybox()),
            ("pause", pause(cri.0.dir.path())),
        ] {
            let base = format!("docker.io/library/{image}");
            ctr(&[
                "images",
                "import",
                "--snapshotter",
                "native",
                "--base-name",
                &base,
                &text(archive),
            ])
            .ok();
        }
        cri
    }

    /// Calls a method of the service; what it answers.
    #[track_caller]
    fn call(&self, method: &str, request: &Message) -> Vec<u8> {
        let (head, out) = (self.0.path("head"), self.0.path("answer"));
        let mut body = vec![0];
        let length = u32::try_from(request.0.len()).expect("a short message");
        body.extend(length.to_be_bytes());
        body.extend(&request.0);
        let _ = fs::remove_file(&out);
        let said = Run::new("curl")
            .args([
                "--silent",
                "--show-error",
                "--http2-prior-knowledge",
                "--max-time",
                "60",
            ])
            .args(["--unix-socket", &text(self.0.path("sock"))])
            .args([
                "--header",
                "content-type: application/grpc",
                "--header",
                "te: trailers",
            ])
            .args([
                "--dump-header",
                &text(&head),
                "--output",
                &text(&out),
                "--data-binary",
                "@-",
            ])
            .arg(format!(
                "http://localhost/runtime.v1.RuntimeService/{method}"
            ))
            .input(body)
            .run();
        let heads = fs::read_to_string(&head).unwrap_or_default();
        let status = heads
            .lines()
            .find_map(|line| line.trim().strip_prefix("grpc-status: "));
        assert_eq!(status, Some("0"), "{method}: {heads}{}", said.stderr);
        let answer = fs::read(&out).unwrap_or_default();
        answer.get(HEAD..).unwrap_or_default().to_vec()
    }

    /// Runs a command in a container; its code and output.
    fn exec(&self, id: &[u8], command: &[&str]) -> (u64, String) {
        let mut request = Message::default().bytes(1, id);
        for word in command {
            request = request.bytes(2, word);
        }
        let answer = self.call("ExecSync", &request.number(3, 20));
        let out = field(&answer, 1).bytes;
        (
            field(&answer, 3).number,
            String::from_utf8_lossy(&out).into_owned(),
        )
    }
}

fn configuration(dir: &Path) -> String {
    let binary = paths::dist().join("hull-oci");
    format!(
        r#"version = 2
root = "{dir}/root"
state = "{dir}/state"
[grpc]
address = "{dir}/sock"
[ttrpc]
address = "{dir}/ttrpc"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "docker.io/library/pause:pause"
restrict_oom_score_adj = true
disable_apparmor = true
stream_server_address = "127.0.0.1"
stream_server_port = "0"
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{dir}/cni"
conf_dir = "{dir}/cni"
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "native"
default_runtime_name = "hull"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.hull]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.hull.options]
BinaryName = "{binary}"
"#,
        dir = dir.display(),
        binary = binary.display()
    )
}

/// An image that does nothing, for the first container of a pod: busybox that sleeps.
fn pause(dir: &Path) -> PathBuf {
    let layout = dir.join("pause");
    let archive = format!("docker-archive:{}", fixtures::busybox().display());
    let image = format!("{}:pause", layout.display());
    Run::new("skopeo")
        .args(["copy", "--quiet", &archive, &format!("oci:{image}")])
        .ok();
    Run::new("umoci")
        .args([
            "config",
            "--image",
            &image,
            "--config.cmd",
            "sleep",
            "--config.cmd",
            "100000",
        ])
        .ok();
    let file = dir.join("pause.tar");
    Run::new("tar")
        .args(["-C", &text(&layout), "-cf", &text(&file), "."])
        .ok();
    file
}

#[test]
fn kubernetes_runs_execs_updates_and_stops_through_it() {
    let name = "hp-cri";
    let cri = Cri::new(name);
    let cgroup = format!("/{name}-{}", std::process::id());
    fs::create_dir(cri.0.path("logs")).expect("folder");
    let new = Message::default;
    let on_node = new().number(1, OF_THE_NODE);
    let pod = new()
        .part(
            1,
            &new().bytes(1, "pod").bytes(2, "uid").bytes(3, "default"),
        )
        .bytes(3, text(cri.0.path("logs")))
        .part(
            8,
            &new().bytes(1, &cgroup).part(2, &new().part(1, &on_node)),
        );
    let answer = cri.call("RunPodSandbox", &new().part(1, &pod).bytes(2, "hull"));
    let sandbox = field(&answer, 1).bytes;
    assert!(!sandbox.is_empty());

    let resources =
        |quota: u64, memory: u64| new().number(1, 100_000).number(2, quota).number(4, memory);
    let script = "trap 'exit 0' TERM; echo begun; while :; do sleep 0.1; done";
    let image = images(&cri);
    let linux = new()
        .part(1, &resources(50_000, 64 << 20))
        .part(2, &new().part(3, &on_node));
    let container = new()
        .part(1, &new().bytes(1, "box"))
        .part(2, &new().bytes(1, image))
        .bytes(3, "sh")
        .bytes(3, "-c")
        .bytes(3, script)
        .part(6, &new().bytes(1, "GREETING").bytes(2, "hello"))
        .bytes(11, "log")
        .part(15, &linux);
    let request = new().bytes(1, &sandbox).part(2, &container).part(3, &pod);
    let answer = cri.call("CreateContainer", &request);
    let id = field(&answer, 1).bytes;
    cri.call("StartContainer", &new().bytes(1, &id));

    let said = cri.exec(&id, &["sh", "-c", "echo $GREETING; exit 9"]);
    assert_eq!(said, (9, "hello\n".to_owned()));
    let limit = |file: &str| cri.exec(&id, &["cat", &format!("/sys/fs/cgroup/{file}")]).1;
    assert_eq!(limit("memory/memory.limit_in_bytes"), "67108864\n");
    assert_eq!(limit("cpu/cpu.cfs_quota_us"), "50000\n");
    let request = new().bytes(1, &id).part(2, &resources(25_000, 96 << 20));
    cri.call("UpdateContainerResources", &request);
    assert_eq!(limit("memory/memory.limit_in_bytes"), "100663296\n");
    assert_eq!(limit("cpu/cpu.cfs_quota_us"), "25000\n");

    let log = fs::read_to_string(cri.0.path("logs/log")).expect("the log");
    assert!(log.ends_with(" stdout F begun\n"), "{log}");
    cri.call("StopContainer", &new().bytes(1, &id).number(2, 10));
    let status = cri.call("ContainerStatus", &new().bytes(1, &id));
    // ContainerStatusResponse.status, its state EXITED and its code.
    let status = field(&status, 1).bytes;
    assert_eq!((field(&status, 3).number, field(&status, 7).number), (2, 0));
    cri.call("RemoveContainer", &new().bytes(1, &id));
    cri.call("StopPodSandbox", &new().bytes(1, &sandbox));
    cri.call("RemovePodSandbox", &new().bytes(1, &sandbox));
}

/// The name of the image of busybox.
fn images(cri: &Cri) -> String {
    let listed = Run::new("ctr")
        .args(["--address", &text(cri.0.path("sock"))])
        .args(["--namespace", NAMESPACE, "images", "list", "-q"])
        .run();
    let listed = listed.ok();
    let name = listed.lines().find(|name| name.contains("/busybox"));
    name.expect("an image of busybox").to_owned()
}
