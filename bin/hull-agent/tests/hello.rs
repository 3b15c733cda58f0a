//! The report of hull/hello, from the built program.

use std::process::{Command, Output};
use std::time::{SystemTime, UNIX_EPOCH};

fn agent() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hull-agent"));
    command
        .env_remove("HULL_REQUEST_TIME_US")
        .env_remove("HULL_ISOLATION");
    command
}

fn text(output: Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn hello_without_arguments_tells_what_it_sees() {
    let child = agent().output().expect("run");
    let text = text(child);
    for label in [
        "isolation",
        "kernel",
        "process id",
        "memory",
        "cpu",
        "processes",
        "capabilities",
        "address",
        "started in",
    ] {
        assert!(
            text.lines()
                .any(|line| line.starts_with(&format!("  {label}"))),
            "{label}: {text}"
        );
    }
    assert!(text.contains("container"), "{text}");
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("release");
    assert!(
        text.contains(&format!("Linux {}, the host's", release.trim())),
        "{text}"
    );
    assert!(text.contains("the engine left no time"), "{text}");
}

#[test]
fn hello_with_time_of_request_counts_from_it() {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("clock");
    let asked = now.as_micros() - 1_234_567;
    let text = text(
        agent()
            .arg("hello")
            .env("HULL_REQUEST_TIME_US", asked.to_string())
            .output()
            .expect("run"),
    );
    assert!(
        text.contains("  started in      1,2") || text.contains("  started in      1,3"),
        "{text}"
    );
}

#[test]
fn hello_in_a_vm_names_the_guest_kernel() {
    let text = text(agent().env("HULL_ISOLATION", "vm").output().expect("run"));
    assert!(text.contains("  isolation       vm"), "{text}");
    assert!(text.contains("the guest's own"), "{text}");
}

#[test]
fn unknown_command_is_a_usage_error() {
    let output = agent().arg("dance").output().expect("run");
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("unknown command \"dance\""));
}
