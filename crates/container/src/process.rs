//! A process plan made ready: strings, ids, limits and the filter, all before the clone.

use std::collections::BTreeSet;
use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::path::Path;

use hull_proto::plan::{PlanUser, ProcessPlan, SeccompPlan};
use hull_seccomp::{Arch, Env, cache};
use hull_sys::caps::CapSet;
use hull_sys::mailbox::Mailbox;
use hull_sys::proc::StringArray;
use hull_sys::rlimit::{self, Limit};
use hull_sys::seccomp::{self, Instruction};

use crate::error::prepare;
use crate::listener;
use crate::lsm::Labels;
use crate::report::{Failed, Step};
use crate::rootfs::c_string;
use crate::schedule::Schedule;
use crate::stdio::PreparedStdio;
use crate::target::Target;
use crate::user::{Databases, Identity};
use crate::{Host, LaunchError};

/// Where programs are looked for if the environment has no PATH.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Folders of PATH that are searched.
const MAX_PATH_DIRS: usize = 256;
/// Where the static init is bound.
pub(crate) const INIT_PATH: &str = "/sbin/docker-init";
const DEFAULT_UMASK: u32 = 0o022;

/// A process that runs.
#[derive(Debug)]
pub struct Started {
    /// Its id on the host.
    pub pid: u32,
    /// Its pidfd.
    pub pidfd: OwnedFd,
    /// The monitor's side of its terminal, if the plan asked for one.
    pub terminal: Option<OwnedFd>,
    /// What could not be done fully, in words.
    pub warnings: Vec<String>,
}

/// All that the child needs for the second half of its way.
#[derive(Debug)]
pub(crate) struct PreparedProcess {
    pub(crate) arguments: StringArray,
    pub(crate) environment: StringArray,
    /// Paths to try, in order.
    pub(crate) candidates: Vec<CString>,
    pub(crate) cwd: Target,
    pub(crate) identity: Identity,
    pub(crate) bounding: CapSet,
    pub(crate) ambient: CapSet,
    pub(crate) keep_keyring: bool,
    pub(crate) no_new_privileges: bool,
    pub(crate) rlimits: Vec<(u32, Limit)>,
    pub(crate) oom_score_adj: Option<String>,
    pub(crate) seccomp: Option<(Vec<Instruction>, u32)>,
    /// For the descriptor of a filter that notifies.
    pub(crate) mailbox: Option<Mailbox>,
    /// The parent can fetch it only from a process that is not closed to others.
    pub(crate) opens_to_parent: bool,
    pub(crate) umask: u32,
    pub(crate) stdio: PreparedStdio,
    pub(crate) schedule: Schedule,
    pub(crate) labels: Labels,
    /// Inheritable capabilities besides the ambient ones.
    pub(crate) inheritable: CapSet,
}

impl PreparedProcess {
    pub(crate) fn prepare(
        plan: &ProcessPlan,
        stdio: PreparedStdio,
        databases: &Databases,
        host: &Host,
        seccomp_cache: &Path,
        init: bool,
    ) -> Result<Self, LaunchError> {
        let program = plan
            .args
            .first()
            .filter(|program| !program.is_empty())
            .ok_or_else(|| LaunchError::Plan("no command specified".to_owned()))?;
        let identity = match &plan.user {
            PlanUser::Name(name) => databases.identity(name, &plan.group_add)?,
            PlanUser::Ids { uid, gid, groups } => {
                let mut groups = groups.clone();
                for group in &plan.group_add {
                    groups.push(databases.gid(group)?);
                }
                Identity {
                    uid: *uid,
                    gid: *gid,
                    groups,
                    home: databases.home(*uid),
                }
            }
        };
        let mut environment = Vec::with_capacity(plan.env.len() + 1);
        for variable in &plan.env {
            environment.push(c_string(variable.as_str())?);
        }
        if !plan
            .env
            .iter()
            .any(|variable| variable.starts_with("HOME="))
        {
            environment.push(c_string(format!("HOME={}", identity.home))?);
        }
        let mut arguments = Vec::with_capacity(plan.args.len() + 2);
        if init {
            arguments.push(c_string(INIT_PATH)?);
            arguments.push(c_string("--")?);
        }
        for argument in &plan.args {
            arguments.push(c_string(argument.as_str())?);
        }
        let candidates = if init {
            vec![c_string(INIT_PATH)?]
        } else {
            candidates(
                if plan.program.is_empty() {
                    program
                } else {
                    &plan.program
                },
                &plan.env,
            )?
        };
        let bounding = capabilities(&plan.capabilities)?;
        let cwd = if plan.cwd.is_empty() {
            "/"
        } else {
            plan.cwd.as_str()
        };
        if !cwd.starts_with('/') {
            let text = format!("the working directory {cwd:?} is not absolute");
            return Err(LaunchError::Plan(text));
        }
        let seccomp = filter(&plan.seccomp, bounding, host, seccomp_cache)?;
        let notifies = seccomp
            .as_ref()
            .is_some_and(|(_, flags)| flags & seccomp::NEW_LISTENER != 0);
        let mailbox = if notifies {
            Some(Mailbox::new().map_err(prepare("share memory with the process"))?)
        } else {
            None
        };
        Ok(Self {
            arguments: StringArray::new(arguments),
            environment: StringArray::new(environment),
            candidates,
            cwd: Target::new(cwd)?,
            identity,
            bounding,
            ambient: capabilities(&plan.ambient)?.and(bounding),
            keep_keyring: plan.keep_keyring,
            no_new_privileges: plan.no_new_privileges,
            rlimits: rlimits(plan)?,
            oom_score_adj: plan.oom_score_adj.map(|score| score.to_string()),
            seccomp,
            mailbox,
            opens_to_parent: notifies
                && listener::needs_open_process().map_err(prepare("read the own capabilities"))?,
            umask: plan.umask.unwrap_or(DEFAULT_UMASK),
            stdio,
            schedule: Schedule::prepare(plan)?,
            labels: Labels::prepare(plan)?,
            inheritable: capabilities(&plan.inheritable)?,
        })
    }

    /// The words for a step that failed, if it is one of this half.
    pub(crate) fn item(&self, failed: &Failed) -> Option<String> {
        match failed.step {
            Step::Rlimit => {
                let (resource, _) = self.rlimits.get(failed.index)?;
                rlimit::name(*resource).map(str::to_owned)
            }
            Step::Cwd => Some(self.cwd.as_str().to_owned()),
            Step::Uid => Some(self.identity.uid.to_string()),
            Step::Gid => Some(self.identity.gid.to_string()),
            Step::OomScore => self.oom_score_adj.clone(),
            _ => None,
        }
    }
}

/// Full paths at which the program may be.
fn candidates(program: &str, env: &[String]) -> Result<Vec<CString>, LaunchError> {
    if program.contains('/') {
        return Ok(vec![c_string(program)?]);
    }
    let path = env
        .iter()
        .rev()
        .find_map(|variable| variable.strip_prefix("PATH="))
        .unwrap_or(DEFAULT_PATH);
    path.split(':')
        .take(MAX_PATH_DIRS)
        .map(|dir| {
            let dir = if dir.is_empty() { "." } else { dir };
            c_string(format!("{dir}/{program}"))
        })
        .collect()
}

fn capabilities(names: &[String]) -> Result<CapSet, LaunchError> {
    names.iter().try_fold(CapSet::EMPTY, |set, name| {
        if name.eq_ignore_ascii_case("ALL") {
            return Ok(CapSet::ALL);
        }
        CapSet::from_name(name)
            .map(|found| set.or(found))
            .ok_or_else(|| LaunchError::Plan(format!("unknown capability {name:?}")))
    })
}

fn rlimits(plan: &ProcessPlan) -> Result<Vec<(u32, Limit)>, LaunchError> {
    plan.rlimits
        .iter()
        .map(|limit| {
            let wrong = |why: &str| LaunchError::Plan(format!("ulimit {}: {why}", limit.name));
            let resource = rlimit::from_name(&limit.name).ok_or_else(|| wrong("unknown name"))?;
            let value = |number: i64| u64::try_from(number).unwrap_or(u64::MAX);
            let (soft, hard) = (value(limit.soft), value(limit.hard));
            if soft > hard {
                return Err(wrong("the soft limit is above the hard limit"));
            }
            Ok((resource, Limit { soft, hard }))
        })
        .collect()
}

fn filter(
    plan: &SeccompPlan,
    bounding: CapSet,
    host: &Host,
    folder: &Path,
) -> Result<Option<(Vec<Instruction>, u32)>, LaunchError> {
    let source = match plan {
        SeccompPlan::Unconfined => return Ok(None),
        SeccompPlan::Default => cache::Source::DockerDefault,
        SeccompPlan::Profile(json) => cache::Source::Json(json.as_bytes()),
    };
    let caps: BTreeSet<String> = bounding.names().into_iter().collect();
    let env = Env {
        caps,
        arch: Arch::NATIVE,
        kernel: host.kernel,
    };
    let wrong = |error: cache::LoadError| LaunchError::Seccomp(chain(&error));
    let program = if folder.as_os_str().is_empty() {
        cache::compile(source, &env).map_err(wrong)?
    } else {
        cache::load_or_compile(folder, source, &env)
            .map_err(wrong)?
            .program
    };
    let instructions = program
        .instructions()
        .iter()
        .map(|i| Instruction {
            code: i.code,
            jt: i.jt,
            jf: i.jf,
            k: i.k,
        })
        .collect();
    Ok(Some((instructions, program.flags())))
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn candidates_name_is_searched_and_path_is_not() {
        let env = ["PATH=/a:/b:".to_owned()];
        let found = candidates("x", &env).expect("candidates");
        let texts: Vec<_> = found.iter().filter_map(|path| path.to_str().ok()).collect();
        assert_eq!(texts, ["/a/x", "/b/x", "./x"]);
        assert_eq!(candidates("./x", &env).expect("candidates").len(), 1);
    }

    #[test]
    fn capabilities_unknown_name_is_refused() {
        assert!(capabilities(&["NOPE".into()]).is_err());
        assert_eq!(capabilities(&["all".into()]).ok(), Some(CapSet::ALL));
    }
}
