//! What the caller of the runtime has open must not reach the container.

use std::fs;
use std::time::Duration;

use hull_testkit::{paths, wait_until};
use serde_json::json;

use crate::kit::ours;

/// CVE-2024-21626: descriptors of the caller, and working directories by way of them.
#[test]
fn descriptors_of_the_caller_stay_outside() {
    let runtime = ours();
    let bundle = runtime.bundle("c", &[], "ls /proc/self/fd; sleep 1000");
    let program = paths::dist().join("hull-oci");
    let root = runtime.dir().join("root");
    let line = format!(
        "exec 7</ 8</etc/shadow 9<{0}; exec {1} --root {2} ",
        runtime.dir().display(),
        program.display(),
        root.display()
    );
    let sh = |rest: &str| {
        let out = runtime.dir().join("out");
        let file = fs::File::create(&out).expect("file");
        let status = std::process::Command::new("sh")
            .args(["-c", &format!("{line}{rest}")])
            .stdin(std::process::Stdio::null())
            .stdout(file)
            .stderr(std::process::Stdio::null())
            .status()
            .expect("sh");
        wait_until(Duration::from_secs(5), || {
            fs::read_to_string(&out).is_ok_and(|text| !text.is_empty()) || !status.success()
        });
        (status.success(), fs::read_to_string(out).expect("out"))
    };
    let (ran, said) = sh(&format!("run -d -b {} c", bundle.path()));
    assert!(ran);
    assert_eq!(
        said.split_whitespace().collect::<Vec<_>>(),
        ["0", "1", "2", "3"],
        "{said}"
    );
    let (_, said) = sh("exec c ls /proc/self/fd");
    assert_eq!(
        said.split_whitespace().collect::<Vec<_>>(),
        ["0", "1", "2", "3"],
        "{said}"
    );
    for number in 3..12 {
        let (ran, said) = sh(&format!(
            "exec --cwd /proc/self/fd/{number} c sh -c 'pwd; ls'"
        ));
        assert!(!ran, "{number}: {said}");
        let mut other = runtime.bundle("d", &[], "pwd; ls");
        other.set("/process/cwd", json!(format!("/proc/self/fd/{number}")));
        other.write();
        let (ran, said) = sh(&format!("run -b {} d", other.path()));
        assert!(!ran, "{number}: {said}");
    }
}
