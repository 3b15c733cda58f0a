//! `linux.seccomp` of config.json.

use anyhow::{Context as _, Result, bail};
use hull_proto::oci::SeccompListener;
use hull_proto::plan::{ProcessPlan, SeccompPlan};
use oci_spec::runtime::{Linux, LinuxSeccompAction};

/// Longest metadata handed on to the listener.
const MAX_METADATA: usize = 1 << 20;

/// The filter, whose own compiler checks the fields, and who listens to it.
pub(crate) fn translate(linux: &Linux, process: &mut ProcessPlan) -> Result<()> {
    let Some(seccomp) = linux.seccomp() else {
        process.seccomp = SeccompPlan::Unconfined;
        return Ok(());
    };
    let notifies = seccomp
        .syscalls()
        .iter()
        .flatten()
        .any(|rule| rule.action() == LinuxSeccompAction::ScmpActNotify);
    let path = seccomp
        .listener_path()
        .as_ref()
        .filter(|path| !path.as_os_str().is_empty());
    let metadata = seccomp.listener_metadata().clone().unwrap_or_default();
    if path.is_none() && !metadata.is_empty() {
        bail!("config.json: linux.seccomp.listenerMetadata needs linux.seccomp.listenerPath");
    }
    if metadata.len() > MAX_METADATA {
        bail!("config.json: linux.seccomp.listenerMetadata is longer than {MAX_METADATA} bytes");
    }
    match path {
        None if notifies => bail!(
            "config.json: linux.seccomp.syscalls: SCMP_ACT_NOTIFY needs linux.seccomp.listenerPath"
        ),
        // Without a rule that notifies nobody listens: the specification ignores the path.
        Some(path) if notifies => {
            process.seccomp_listener = Some(SeccompListener {
                path: super::absolute("linux.seccomp.listenerPath", path)?,
                metadata,
            });
        }
        _ => {}
    }
    let text = serde_json::to_string(seccomp).context("cannot write the seccomp profile")?;
    hull_seccomp::Profile::parse(text.as_bytes()).context("config.json: linux.seccomp")?;
    process.seccomp = SeccompPlan::Profile(text);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(json: &str) -> Result<ProcessPlan> {
        let linux: Linux = serde_json::from_str(&format!(r#"{{"seccomp":{json}}}"#))?;
        let mut plan = ProcessPlan::default();
        translate(&linux, &mut plan)?;
        Ok(plan)
    }

    #[test]
    fn translate_notify_without_listener_is_refused_by_the_field() {
        let rule = r#""syscalls":[{"names":["mkdir"],"action":"SCMP_ACT_NOTIFY"}]"#;
        let head = r#""defaultAction":"SCMP_ACT_ALLOW""#;
        let error = result(&format!("{{{head},{rule}}}")).expect_err("no listener");
        assert!(error.to_string().contains("listenerPath"), "{error}");
        let path = r#""listenerPath":"/run/l","listenerMetadata":"m""#;
        let plan = result(&format!("{{{head},{path},{rule}}}")).expect("plan");
        let listener = plan.seccomp_listener.expect("listener");
        assert_eq!(
            (listener.path.as_str(), listener.metadata.as_str()),
            ("/run/l", "m")
        );
        // Nobody to listen to: ignored.
        assert!(
            result(&format!("{{{head},{path}}}"))
                .expect("plan")
                .seccomp_listener
                .is_none()
        );
        let error = result(&format!(r#"{{{head},"listenerMetadata":"m"}}"#)).expect_err("metadata");
        assert!(error.to_string().contains("listenerMetadata"), "{error}");
    }

    #[test]
    fn translate_unknown_action_or_operator_is_refused() {
        for bad in [
            r#"{"defaultAction":"SCMP_ACT_NOPE"}"#,
            r#"{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_NOPE"]}"#,
            r#"{"defaultAction":"SCMP_ACT_ALLOW","flags":["SECCOMP_FILTER_FLAG_NOPE"]}"#,
            r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["read"],"action":"SCMP_ACT_ERRNO","args":[{"index":0,"value":1,"op":"SCMP_CMP_NOPE"}]}]}"#,
            r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["read"],"action":"SCMP_ACT_ERRNO","args":[{"index":6,"value":1,"op":"SCMP_CMP_EQ"}]}]}"#,
        ] {
            assert!(result(bad).is_err(), "{bad}");
        }
    }
}
