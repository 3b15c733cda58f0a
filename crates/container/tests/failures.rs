//! Launches that fail say why, and leave nothing.

mod support;

use hull_container::LaunchError;
use hull_model::ErrorKind;
use hull_proto::plan::{MountKind, PlanMount, PlanUser};
use support::{Fixture, bind};

fn failure(fixture: &Fixture, plan: &hull_proto::LaunchPlan) -> LaunchError {
    let error = fixture.try_run(plan).expect_err("must fail");
    let path = format!("/sys/fs/cgroup/memory/{}", fixture.id);
    assert!(
        !std::path::Path::new(&path).exists(),
        "the control group is gone"
    );
    error
}

#[test]
fn launch_missing_program_is_not_found() {
    let fixture = Fixture::new();
    let mut plan = fixture.plan("");
    for (program, text) in [
        ("nope", "exec: \"nope\": executable file not found in $PATH"),
        (
            "/bin/nope",
            "exec: \"/bin/nope\": no such file or directory",
        ),
    ] {
        plan.process.args = vec![program.to_owned()];
        let error = failure(&fixture, &plan);
        assert_eq!(error.kind(), ErrorKind::CommandNotFound);
        assert_eq!(error.to_string(), text);
    }
}

#[test]
fn launch_file_without_execute_bit_is_not_executable() {
    let fixture = Fixture::new();
    let mut plan = fixture.plan("");
    for program in ["/etc/passwd", "/etc"] {
        plan.process.args = vec![program.to_owned()];
        let error = failure(&fixture, &plan);
        assert_eq!(error.kind(), ErrorKind::CommandNotExecutable, "{program}");
        assert_eq!(
            error.to_string(),
            format!("exec: {program:?}: permission denied")
        );
    }
}

#[test]
fn launch_bad_user_names_it() {
    let fixture = Fixture::new();
    let mut plan = fixture.plan("true");
    plan.process.user = PlanUser::Name("ghost".to_owned());
    let error = failure(&fixture, &plan);
    assert_eq!(
        error.to_string(),
        "unable to find user ghost: no matching entries in passwd file"
    );
}

#[test]
fn launch_missing_mount_source_names_both_paths() {
    let fixture = Fixture::new();
    let mut plan = fixture.plan("true");
    plan.mounts
        .push(bind(std::path::Path::new("/no/such/source"), "/data"));
    let error = failure(&fixture, &plan);
    assert_eq!(error.to_string(), "cannot mount /no/such/source at /data");
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
}

#[test]
fn launch_mount_over_proc_is_refused_also_through_a_symlink() {
    let fixture = Fixture::new();
    std::os::unix::fs::symlink("proc/self", fixture.lower().join("link")).expect("symlink");
    std::os::unix::fs::symlink("/proc/sys", fixture.lower().join("abs")).expect("symlink");
    for target in ["/proc/sys/kernel", "/link/attr", "/abs", "/proc"] {
        let mut plan = fixture.plan("true");
        plan.mounts.push(bind(std::path::Path::new("/tmp"), target));
        let error = failure(&fixture, &plan);
        assert!(
            error
                .to_string()
                .starts_with("cannot mount over procfs at "),
            "{target}: {error}"
        );
    }
}

#[test]
fn launch_foreign_sysctl_is_refused() {
    let fixture = Fixture::new();
    let mut plan = fixture.plan("true");
    plan.sysctls
        .insert("kernel.core_pattern".to_owned(), "|/evil".to_owned());
    assert!(
        failure(&fixture, &plan)
            .to_string()
            .contains("kernel.core_pattern")
    );
}

#[test]
fn launch_bad_tmpfs_option_names_it() {
    let fixture = Fixture::new();
    let mut plan = fixture.plan("true");
    plan.mounts.push(PlanMount {
        target: "/scratch".to_owned(),
        kind: MountKind::Tmpfs {
            data: "size=none".to_owned(),
        },
        options: Default::default(),
    });
    assert!(failure(&fixture, &plan).to_string().contains("size=none"));
}

#[test]
fn launch_no_command_is_refused() {
    let fixture = Fixture::new();
    let mut plan = fixture.plan("true");
    plan.process.args.clear();
    assert_eq!(failure(&fixture, &plan).to_string(), "no command specified");
}

#[test]
fn launch_processor_that_is_not_there_is_the_request_s_fault() {
    let fixture = Fixture::new();
    let mut plan = fixture.plan("true");
    plan.cgroup.resources.cpuset_cpus = Some("4000".to_owned());
    let error = failure(&fixture, &plan);
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert!(error.to_string().contains("cpuset.cpus"), "{error}");
}
