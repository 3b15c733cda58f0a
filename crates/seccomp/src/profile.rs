//! A seccomp profile as users write it: Docker's format, and `linux.seccomp` of an OCI bundle.

use serde_json::Value;

use crate::action::{ACTION_NAMES, Action, ActionKind, MAX_ERRNO};
use crate::arch::{self, ARCH_NAMES, Arch};
use crate::json::Node;
use crate::kernel::KernelVersion;

/// Largest profile read, in bytes; Docker's own has 14 thousand.
pub const MAX_PROFILE_BYTES: usize = 1 << 20;

/// Arguments of a system call.
const MAX_ARGUMENTS: u64 = 6;

/// Docker's default profile.
pub(crate) const DOCKER_DEFAULT: &[u8] = include_bytes!("default.json");

/// Why a profile cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ParseError {
    /// More bytes than [`MAX_PROFILE_BYTES`].
    #[error("seccomp profile has {bytes} bytes, at most {MAX_PROFILE_BYTES} are read")]
    TooLarge {
        /// Bytes found.
        bytes: usize,
    },
    /// Not JSON.
    #[error("seccomp profile is not valid JSON")]
    Json(#[source] serde_json::Error),
    /// A field has a value that means nothing, or is missing.
    #[error("seccomp profile: {field}: {problem}")]
    Field {
        /// Path of the field, such as `syscalls[3].args[0].op`.
        field: String,
        /// What is wrong with it.
        problem: String,
    },
}

/// A parsed profile; what it means is settled by [`Profile::resolve`].
#[derive(Debug, Clone)]
pub struct Profile {
    pub(crate) default_action: Action,
    pub(crate) architectures: Architectures,
    pub(crate) flags: Vec<FilterFlag>,
    pub(crate) rules: Vec<ProfileRule>,
    pub(crate) listener_path: Option<String>,
}

/// The system call conventions a profile speaks of.
#[derive(Debug, Clone)]
pub(crate) enum Architectures {
    /// OCI: exactly these and the native one.
    Listed(Vec<Arch>),
    /// Docker: each native architecture with its relatives.
    Mapped(Vec<(Arch, Vec<Arch>)>),
}

/// Flags of seccomp(2) a profile may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FilterFlag {
    /// Meant for all threads; a container's first process has one.
    Tsync,
    Log,
    SpecAllow,
    WaitKillableRecv,
}

/// Names of the flags a profile may use.
pub const FLAG_NAMES: &[&str] = &[
    "SECCOMP_FILTER_FLAG_LOG",
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
    "SECCOMP_FILTER_FLAG_TSYNC",
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
];

/// Names of the comparisons a profile may use.
pub const OPERATOR_NAMES: &[&str] = &[
    "SCMP_CMP_EQ",
    "SCMP_CMP_GE",
    "SCMP_CMP_GT",
    "SCMP_CMP_LE",
    "SCMP_CMP_LT",
    "SCMP_CMP_MASKED_EQ",
    "SCMP_CMP_NE",
];

/// One entry of `syscalls`.
#[derive(Debug, Clone)]
pub(crate) struct ProfileRule {
    pub(crate) names: Vec<String>,
    pub(crate) action: Action,
    pub(crate) args: Vec<ArgTest>,
    pub(crate) includes: Condition,
    pub(crate) excludes: Condition,
}

/// A comparison of one argument, unsigned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ArgTest {
    /// Which argument, 0 to 5.
    pub index: u8,
    /// How it is compared.
    pub test: Test,
}

/// How an argument is compared with a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Test {
    /// Differs from the value.
    NotEqual(u64),
    /// Is less.
    Less(u64),
    /// Is less or the same.
    LessOrEqual(u64),
    /// Is the same.
    Equal(u64),
    /// Is greater or the same.
    GreaterOrEqual(u64),
    /// Is greater.
    Greater(u64),
    /// Has these bits where the mask is set.
    MaskedEqual {
        /// Bits looked at.
        mask: u64,
        /// What they must be.
        value: u64,
    },
}

/// `includes` or `excludes` of a rule.
#[derive(Debug, Clone, Default)]
pub(crate) struct Condition {
    pub(crate) caps: Vec<String>,
    pub(crate) arches: Vec<String>,
    pub(crate) min_kernel: Option<KernelVersion>,
}

impl Profile {
    /// Reads a profile in Docker's format or that of `linux.seccomp` in an OCI `config.json`.
    ///
    /// # Errors
    /// Input that is too large, no JSON, or has a field this crate cannot honour.
    pub fn parse(bytes: &[u8]) -> Result<Self, ParseError> {
        if bytes.len() > MAX_PROFILE_BYTES {
            return Err(ParseError::TooLarge { bytes: bytes.len() });
        }
        let value: Value = serde_json::from_slice(bytes).map_err(ParseError::Json)?;
        let root = Node::root(&value);

        let default_errno = errno(&root, "defaultErrnoRet")?;
        let default_action =
            action_kind(&root.required("defaultAction")?)?.with_errno(default_errno);
        if default_action == Action::Notify {
            return Err(root.required("defaultAction")?.error(
                "SCMP_ACT_NOTIFY cannot be the default: the program that starts the container would wait for itself",
            ));
        }
        let rules = root
            .list("syscalls")?
            .iter()
            .map(rule)
            .collect::<Result<_, _>>()?;
        let listener_path = match root.field("listenerPath")? {
            Some(node) => Some(node.string()?.to_owned()),
            None => None,
        };
        Ok(Self {
            default_action,
            architectures: architectures(&root)?,
            flags: root
                .list("flags")?
                .iter()
                .map(flag)
                .collect::<Result<_, _>>()?,
            rules,
            listener_path,
        })
    }

    /// Docker's default profile.
    ///
    /// # Errors
    /// None in practice: a test parses it.
    pub fn docker_default() -> Result<Self, ParseError> {
        Self::parse(DOCKER_DEFAULT)
    }

    /// Socket of the program that answers `SCMP_ACT_NOTIFY`, if the profile names one.
    pub fn listener_path(&self) -> Option<&str> {
        self.listener_path.as_deref()
    }
}

fn architectures(root: &Node<'_>) -> Result<Architectures, ParseError> {
    let listed = root.list("architectures")?;
    let mapped = root.list("archMap")?;
    if !listed.is_empty() && !mapped.is_empty() {
        return Err(root
            .required("archMap")?
            .error("use either architectures or archMap, not both"));
    }
    if mapped.is_empty() {
        // A foreign convention cannot be called on this machine: nothing to filter.
        let known = listed
            .iter()
            .map(arch_name)
            .collect::<Result<Vec<_>, _>>()?;
        return Ok(Architectures::Listed(known.into_iter().flatten().collect()));
    }
    let mut map = Vec::new();
    for entry in &mapped {
        let native = arch_name(&entry.required("architecture")?)?;
        let relatives = entry
            .list("subArchitectures")?
            .iter()
            .map(arch_name)
            .collect::<Result<Vec<_>, _>>()?;
        if let Some(native) = native {
            map.push((native, relatives.into_iter().flatten().collect()));
        }
    }
    Ok(Architectures::Mapped(map))
}

fn arch_name(node: &Node<'_>) -> Result<Option<Arch>, ParseError> {
    let name = node.string()?;
    match Arch::from_scmp_name(name) {
        Some(arch) => Ok(Some(arch)),
        None if arch::is_known_elsewhere(name) => Ok(None),
        None => Err(node.error(format!(
            "unknown architecture {name:?}, known are {}",
            ARCH_NAMES.join(", ")
        ))),
    }
}

fn flag(node: &Node<'_>) -> Result<FilterFlag, ParseError> {
    match node.string()? {
        "SECCOMP_FILTER_FLAG_TSYNC" => Ok(FilterFlag::Tsync),
        "SECCOMP_FILTER_FLAG_LOG" => Ok(FilterFlag::Log),
        "SECCOMP_FILTER_FLAG_SPEC_ALLOW" => Ok(FilterFlag::SpecAllow),
        "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV" => Ok(FilterFlag::WaitKillableRecv),
        other => Err(node.error(format!(
            "unknown flag {other:?}, known are {}",
            FLAG_NAMES.join(", ")
        ))),
    }
}

fn action_kind(node: &Node<'_>) -> Result<ActionKind, ParseError> {
    let name = node.string()?;
    ActionKind::from_name(name).ok_or_else(|| {
        node.error(format!(
            "unknown action {name:?}, known are {}",
            ACTION_NAMES.join(", ")
        ))
    })
}

fn errno(node: &Node<'_>, name: &str) -> Result<Option<u16>, ParseError> {
    let Some(field) = node.field(name)? else {
        return Ok(None);
    };
    let number = field.unsigned(MAX_ERRNO)?;
    Ok(u16::try_from(number).ok())
}

fn rule(node: &Node<'_>) -> Result<ProfileRule, ParseError> {
    let mut names = node.strings("names")?;
    if let Some(single) = node.field("name")? {
        if !names.is_empty() {
            return Err(single.error("use either name or names, not both"));
        }
        names.push(single.string()?.to_owned());
    }
    if names.is_empty() {
        return Err(node.error("no system call is named: give \"names\""));
    }
    if let Some(at) = names.iter().position(String::is_empty) {
        return Err(node.error(format!("names[{at}] is empty")));
    }
    let action_node = node.required("action")?;
    let action = action_kind(&action_node)?.with_errno(errno(node, "errnoRet")?);
    if action == Action::Notify && names.iter().any(|name| name == "write") {
        // The listener's descriptor is reported by write(2) after the filter is in force.
        return Err(action_node.error("SCMP_ACT_NOTIFY cannot be used for write"));
    }
    Ok(ProfileRule {
        names,
        action,
        args: node
            .list("args")?
            .iter()
            .map(arg_test)
            .collect::<Result<_, _>>()?,
        includes: condition(node, "includes")?,
        excludes: condition(node, "excludes")?,
    })
}

fn arg_test(node: &Node<'_>) -> Result<ArgTest, ParseError> {
    let number = |name: &str| match node.field(name)? {
        Some(field) => field.unsigned(u64::MAX),
        None => Ok(0),
    };
    let index = match node.field("index")? {
        Some(field) => field.unsigned(MAX_ARGUMENTS - 1)?,
        None => 0,
    };
    let (value, value_two) = (number("value")?, number("valueTwo")?);
    let op = node.required("op")?;
    let test = match op.string()? {
        "SCMP_CMP_NE" => Test::NotEqual(value),
        "SCMP_CMP_LT" => Test::Less(value),
        "SCMP_CMP_LE" => Test::LessOrEqual(value),
        "SCMP_CMP_EQ" => Test::Equal(value),
        "SCMP_CMP_GE" => Test::GreaterOrEqual(value),
        "SCMP_CMP_GT" => Test::Greater(value),
        // The specification's order: `value` is the mask, `valueTwo` what is compared.
        "SCMP_CMP_MASKED_EQ" => Test::MaskedEqual {
            mask: value,
            value: value_two,
        },
        other => {
            return Err(op.error(format!(
                "unknown comparison {other:?}, known are {}",
                OPERATOR_NAMES.join(", ")
            )));
        }
    };
    Ok(ArgTest {
        index: u8::try_from(index).unwrap_or(0),
        test,
    })
}

fn condition(node: &Node<'_>, name: &str) -> Result<Condition, ParseError> {
    let Some(field) = node.field(name)? else {
        return Ok(Condition::default());
    };
    let min_kernel = match field.field("minKernel")? {
        Some(version) => Some(
            KernelVersion::parse(version.string()?)
                .ok_or_else(|| version.error("expected a kernel version such as \"4.8\""))?,
        ),
        None => None,
    };
    Ok(Condition {
        caps: field.strings("caps")?,
        arches: field.strings("arches")?,
        min_kernel,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(json: &str) -> String {
        Profile::parse(json.as_bytes())
            .expect_err("must be refused")
            .to_string()
    }

    #[test]
    fn parse_docker_default_succeeds() {
        let profile = Profile::docker_default().expect("default profile");
        assert_eq!(profile.rules.len(), 33);
        assert_eq!(profile.default_action, Action::Errno(1));
    }

    #[test]
    fn parse_wrong_fields_names_each() {
        assert!(problem("{}").contains("\"defaultAction\" is missing"));
        assert!(
            problem(r#"{"defaultAction":"ALLOW"}"#)
                .starts_with("seccomp profile: defaultAction: unknown action")
        );
        let nested = r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["a"],"action":"SCMP_ACT_LOG"},
            {"names":["read"],"action":"SCMP_ACT_ERRNO","args":[{"index":0,"op":"EQ"}]}]}"#;
        assert!(problem(nested).contains("syscalls[1].args[0].op: unknown comparison"));
        let index = nested.replace("\"index\":0", "\"index\":6");
        assert!(problem(&index).contains("syscalls[1].args[0].index: 6 is above 5"));
        let errno = r#"{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":4096}"#;
        assert!(problem(errno).contains("defaultErrnoRet: 4096 is above 4095"));
        let kernel = r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["a"],"action":"SCMP_ACT_LOG","includes":{"minKernel":"x"}}]}"#;
        assert!(problem(kernel).contains("syscalls[0].includes.minKernel"));
        let both = r#"{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86"],"archMap":[{"architecture":"SCMP_ARCH_X86_64"}]}"#;
        assert!(problem(both).contains("archMap: use either"));
        assert!(
            problem(r#"{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_Z80"]}"#)
                .contains("architectures[0]")
        );
        assert!(
            problem(r#"{"defaultAction":"SCMP_ACT_ALLOW","flags":["X"]}"#)
                .contains("flags[0]: unknown flag")
        );
        assert!(
            problem(r#"{"defaultAction":"SCMP_ACT_NOTIFY"}"#)
                .contains("defaultAction: SCMP_ACT_NOTIFY")
        );
        assert!(problem("[]").contains("profile: expected an object, found a list"));
        assert!(problem("").contains("not valid JSON"));
    }

    #[test]
    fn parse_oversized_input_is_refused() {
        let huge = vec![b' '; MAX_PROFILE_BYTES + 1];
        assert!(matches!(
            Profile::parse(&huge),
            Err(ParseError::TooLarge { .. })
        ));
    }
}
