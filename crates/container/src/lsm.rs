//! Labels of Linux security modules, which the process gets with its execve.

use std::ffi::CString;
use std::os::fd::BorrowedFd;
use std::path::Path;

use hull_proto::plan::ProcessPlan;
use hull_sys::Errno;
use rustix::fs::{Mode, OFlags};

use crate::LaunchError;
use crate::report::{At, Failed, Step};
use crate::rootfs::c_string;

/// `Y` where AppArmor is on.
const APPARMOR: &str = "/sys/module/apparmor/parameters/enabled";
/// Mounted where SELinux is on.
const SELINUX: &str = "/sys/fs/selinux/enforce";

/// What is written, prepared.
#[derive(Debug, Default)]
pub(crate) struct Labels {
    apparmor: Option<CString>,
    selinux: Option<CString>,
}

impl Labels {
    pub(crate) fn prepare(plan: &ProcessPlan) -> Result<Self, LaunchError> {
        let mut labels = Self::default();
        if !plan.apparmor_profile.is_empty() {
            let enabled = std::fs::read_to_string(APPARMOR).unwrap_or_default();
            if enabled.trim() != "Y" {
                return Err(absent(
                    "AppArmor profile",
                    &plan.apparmor_profile,
                    "AppArmor",
                ));
            }
            labels.apparmor = Some(c_string(format!("exec {}", plan.apparmor_profile))?);
        }
        if !plan.selinux_label.is_empty() {
            if !Path::new(SELINUX).exists() {
                return Err(absent("SELinux label", &plan.selinux_label, "SELinux"));
            }
            labels.selinux = Some(c_string(plan.selinux_label.as_str())?);
        }
        Ok(labels)
    }

    /// Has the next execve take the labels. `proc_root` is a procfs that nobody else can have
    /// changed: a write that goes elsewhere is CVE-2019-16884 and its like. Runs in the child.
    pub(crate) fn apply(&self, proc_root: BorrowedFd<'_>) -> Result<(), Failed> {
        if let Some(text) = &self.apparmor {
            let own = c"thread-self/attr/apparmor/exec";
            match write(proc_root, own, text) {
                // Kernels before 5.8 have one file for all modules.
                Err(Errno::NOENT) => write(proc_root, c"thread-self/attr/exec", text),
                result => result,
            }
            .at(Step::AppArmor)?;
        }
        if let Some(text) = &self.selinux {
            write(proc_root, c"thread-self/attr/exec", text).at(Step::SeLinux)?;
        }
        Ok(())
    }

    /// Has keyrings that the caller makes from here on take the label, if there is one: with that
    /// of the runtime they would be of no use to the program. execve ends it. Runs in the child.
    pub(crate) fn apply_to_keys(&self, proc_root: BorrowedFd<'_>) -> Result<(), Failed> {
        match &self.selinux {
            Some(text) => write(proc_root, c"thread-self/attr/keycreate", text).at(Step::SeLinux),
            None => Ok(()),
        }
    }
}

fn write(proc_root: BorrowedFd<'_>, path: &std::ffi::CStr, text: &CString) -> Result<(), Errno> {
    let flags = OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let file = rustix::fs::openat(proc_root, path, flags, Mode::empty())?;
    rustix::io::write(&file, text.as_bytes()).map(drop)
}

fn absent(what: &str, name: &str, module: &str) -> LaunchError {
    LaunchError::Plan(format!(
        "{what} {name:?}: {module} is not enabled on this host: leave it away"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prepare_label_of_a_module_that_is_absent_is_refused() {
        let none = ProcessPlan::default();
        assert!(Labels::prepare(&none).is_ok());
        if !Path::new(SELINUX).exists() {
            let plan = ProcessPlan {
                selinux_label: "a:b:c:s0".into(),
                ..ProcessPlan::default()
            };
            let error = Labels::prepare(&plan).expect_err("absent").to_string();
            assert!(error.contains("SELinux is not enabled"), "{error}");
        }
    }

    #[test]
    fn apply_writes_what_there_is_a_label_for_and_nothing_else() {
        use std::os::fd::AsFd as _;
        let dir = tempfile::tempdir().expect("folder");
        let attributes = dir.path().join("thread-self/attr");
        std::fs::create_dir_all(attributes.join("apparmor")).expect("folder");
        let files = [
            "exec",
            "keycreate",
            "sockcreate",
            "fscreate",
            "apparmor/exec",
        ];
        for file in files {
            std::fs::write(attributes.join(file), "").expect("file");
        }
        let texts = || files.map(|f| std::fs::read_to_string(attributes.join(f)).expect("read"));
        let root = std::fs::File::open(dir.path()).expect("open");
        let apply = |labels: &Labels| {
            labels.apply_to_keys(root.as_fd()).expect("keys");
            labels.apply(root.as_fd()).expect("apply");
        };
        apply(&Labels::default());
        assert_eq!(texts(), ["", "", "", "", ""]);
        apply(&Labels {
            apparmor: Some(c"exec profile".to_owned()),
            selinux: None,
        });
        assert_eq!(texts(), ["", "", "", "", "exec profile"]);
        apply(&Labels {
            apparmor: None,
            selinux: Some(c"a:b:c:s0".to_owned()),
        });
        assert_eq!(texts(), ["a:b:c:s0", "a:b:c:s0", "", "", "exec profile"]);
    }
}
