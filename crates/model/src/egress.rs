//! Where a container may connect to: a default and its exceptions, and the text of a rule.
//!
//! ```text
//! RULE    TARGET[:PORT[-PORT]][/tcp|/udp|/sctp]
//! TARGET  ADDRESS | ADDRESS/PREFIX | [IPv6[/PREFIX]] | NAME | *.NAME | *
//! ```
//!
//! `deny` lets out what `allow` lists less what `deny` lists; `allow` lets out all but what `deny`
//! lists, save what `allow` lists.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Label that stands for the default.
pub const LABEL: &str = "hull.egress";
/// Label with the rules to allow, between spaces or commas.
pub const LABEL_ALLOW: &str = "hull.egress.allow";
/// Label with the rules to deny.
pub const LABEL_DENY: &str = "hull.egress.deny";

/// Most rules of one list: each costs every first packet of a flow a look.
pub const MOST_RULES: usize = 64;
const LONGEST_NAME: usize = 253;
const LONGEST_LABEL: usize = 63;

/// What becomes of a flow that no rule is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EgressDefault {
    /// It leaves.
    Allow,
    /// It is refused.
    Deny,
}

impl EgressDefault {
    /// `allow` or `deny`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        }
    }
}

/// A container's policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EgressPolicy {
    /// What becomes of the rest.
    pub default: EgressDefault,
    /// What is let out.
    #[serde(default)]
    pub allow: Vec<Rule>,
    /// What is not.
    #[serde(default)]
    pub deny: Vec<Rule>,
}

/// A transport protocol with ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Transport {
    /// Its number in IP headers.
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }
}

/// Whom a rule is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Everybody.
    Any,
    /// Addresses that share so many leading bits.
    Addresses(IpAddr, u8),
    /// Whoever this name stands for, in lower case, without a dot at its end.
    Name(String),
    /// Whoever a name below this one stands for.
    Below(String),
}

/// An exception; without ports and protocol it is about all that goes by IP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Whom it is about.
    pub target: Target,
    /// Lowest and highest destination port.
    pub ports: Option<(u16, u16)>,
    /// Protocol; with ports, none means TCP and UDP.
    pub transport: Option<Transport>,
}

/// Why a policy cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidEgress {
    /// A rule's text.
    #[error(
        "invalid egress rule {rule:?}: {why}; write ADDRESS, ADDRESS/PREFIX, NAME, *.NAME or *, and behind it :PORT and /tcp or /udp if you like"
    )]
    Rule {
        /// The text.
        rule: String,
        /// What is wrong.
        why: &'static str,
    },
    /// The default.
    #[error("invalid egress policy {0:?}: use deny or allow")]
    Default(String),
    /// Exceptions to both, and no default.
    #[error("rules to allow and to deny: say by --egress deny or allow what becomes of the rest")]
    Missing,
    /// A denied name where the rest is allowed.
    #[error(
        "egress rule {0}: a name can be denied only where the rest is denied too, for its addresses may be reached without asking for it; deny addresses instead"
    )]
    DeniedName(String),
    /// Too many.
    #[error("more than {MOST_RULES} egress rules in a list")]
    TooMany,
}

impl EgressPolicy {
    /// The policy that these texts say; `None` if it restricts nothing. One list alone says the
    /// default too.
    ///
    /// # Errors
    /// A text is malformed, or the whole makes no sense.
    pub fn new(
        default: &str,
        allow: &[String],
        deny: &[String],
    ) -> Result<Option<Self>, InvalidEgress> {
        let default = match default {
            "deny" => EgressDefault::Deny,
            "allow" => EgressDefault::Allow,
            "" => match (allow.is_empty(), deny.is_empty()) {
                (true, true) => return Ok(None),
                (false, true) => EgressDefault::Deny,
                (true, false) => EgressDefault::Allow,
                (false, false) => return Err(InvalidEgress::Missing),
            },
            other => return Err(InvalidEgress::Default(other.to_owned())),
        };
        let read = |texts: &[String]| -> Result<Vec<Rule>, InvalidEgress> {
            if texts.len() > MOST_RULES {
                return Err(InvalidEgress::TooMany);
            }
            texts.iter().map(|text| text.parse()).collect()
        };
        let policy = Self {
            default,
            allow: read(allow)?,
            deny: read(deny)?,
        };
        if default == EgressDefault::Deny {
            return Ok(Some(policy));
        }
        match policy.deny.iter().find(|rule| rule.name().is_some()) {
            Some(rule) => Err(InvalidEgress::DeniedName(rule.to_string())),
            // Everything may leave: that needs no policy.
            None => Ok(Some(policy).filter(|policy| !policy.deny.is_empty())),
        }
    }

    /// The policy that labels ask for.
    ///
    /// # Errors
    /// As [`EgressPolicy::new`].
    pub fn of_labels(labels: &BTreeMap<String, String>) -> Result<Option<Self>, InvalidEgress> {
        let text = |label: &str| labels.get(label).map(String::as_str).unwrap_or_default();
        let list = |label: &str| -> Vec<String> {
            let parts = text(label).split(|c: char| c == ',' || c.is_whitespace());
            let parts = parts.filter(|part| !part.is_empty());
            parts.map(str::to_owned).collect()
        };
        Self::new(text(LABEL).trim(), &list(LABEL_ALLOW), &list(LABEL_DENY))
    }

    /// Whether names of others may be looked up: what cannot be reached need not be found.
    pub fn resolves(&self, name: &str) -> bool {
        let about = |rules: &[Rule]| rules.iter().any(|rule| rule.names(name));
        let everybody = |rule: &Rule| match rule.target {
            Target::Any => true,
            Target::Addresses(_, prefix) => prefix == 0,
            Target::Name(_) | Target::Below(_) => false,
        };
        match self.default {
            EgressDefault::Allow => true,
            EgressDefault::Deny => {
                !about(&self.deny) && (about(&self.allow) || self.allow.iter().any(everybody))
            }
        }
    }
}

impl Rule {
    /// Whether it is about what `name` (in lower case, without a dot at its end) stands for.
    pub fn names(&self, name: &str) -> bool {
        match &self.target {
            Target::Name(own) => own == name,
            Target::Below(parent) => name
                .strip_suffix(parent.as_str())
                .and_then(|rest| rest.strip_suffix('.'))
                .is_some_and(|rest| !rest.is_empty()),
            Target::Any | Target::Addresses(..) => false,
        }
    }

    /// The name that it is about, less an asterisk.
    pub fn name(&self) -> Option<&str> {
        match &self.target {
            Target::Name(name) | Target::Below(name) => Some(name),
            Target::Any | Target::Addresses(..) => None,
        }
    }
}

impl FromStr for Rule {
    type Err = InvalidEgress;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        read(text).map_err(|why| InvalidEgress::Rule {
            rule: text.to_owned(),
            why,
        })
    }
}

fn read(text: &str) -> Result<Rule, &'static str> {
    let (rest, transport) = match text.rsplit_once('/') {
        Some((rest, name)) if name.starts_with(|c: char| c.is_ascii_alphabetic()) => {
            let transport = match name.to_ascii_lowercase().as_str() {
                "tcp" => Transport::Tcp,
                "udp" => Transport::Udp,
                "sctp" => Transport::Sctp,
                _ => return Err("the protocol is none of tcp, udp and sctp"),
            };
            (rest, Some(transport))
        }
        _ => (text, None),
    };
    let (target, ports) = if let Some(inner) = rest.strip_prefix('[') {
        let (target, tail) = inner.split_once(']').ok_or("the bracket is not closed")?;
        if !target.contains(':') {
            return Err("brackets are for IPv6 addresses");
        }
        match tail.strip_prefix(':') {
            Some(ports) => (target, Some(ports)),
            None if tail.is_empty() => (target, None),
            None => return Err("the prefix of an IPv6 address stands within the brackets"),
        }
    } else if rest.matches(':').count() > 1 {
        (rest, None)
    } else {
        match rest.split_once(':') {
            Some((target, ports)) => (target, Some(ports)),
            None => (rest, None),
        }
    };
    let ports = ports.map(read_ports).transpose()?;
    let target = match target {
        "*" => Target::Any,
        "" if ports.is_some() => Target::Any,
        target => read_target(target)?,
    };
    Ok(Rule {
        target,
        ports,
        transport,
    })
}

fn read_ports(text: &str) -> Result<(u16, u16), &'static str> {
    let number = |text: &str| {
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        let number = text.parse::<u16>().ok().filter(|port| digits && *port > 0);
        number.ok_or("a port is a number from 1 to 65535")
    };
    let (low, high) = text.split_once('-').unwrap_or((text, text));
    let (low, high) = (number(low)?, number(high)?);
    if low > high {
        return Err("the range of ports is upside down");
    }
    Ok((low, high))
}

fn read_target(text: &str) -> Result<Target, &'static str> {
    let (address, prefix) = match text.split_once('/') {
        Some((address, prefix)) => (address, Some(prefix)),
        None => (text, None),
    };
    let Ok(address) = address.parse::<IpAddr>() else {
        return match prefix {
            Some(_) => Err("no address stands before the prefix"),
            None => read_name(text),
        };
    };
    if matches!(address, IpAddr::V6(six) if six.to_ipv4_mapped().is_some()) {
        return Err("an IPv4 address is written as such");
    }
    let bits = if address.is_ipv4() { 32 } else { 128 };
    let prefix = match prefix {
        None => bits,
        Some(text) if text.bytes().all(|byte| byte.is_ascii_digit()) => {
            let prefix = text.parse().ok().filter(|prefix| *prefix <= bits);
            prefix.ok_or("the prefix is longer than the address")?
        }
        Some(_) => return Err("the prefix is no number"),
    };
    Ok(Target::Addresses(masked(address, prefix), prefix))
}

/// The first address that shares `prefix` bits.
fn masked(address: IpAddr, prefix: u8) -> IpAddr {
    let prefix = u32::from(prefix);
    match address {
        IpAddr::V4(four) => {
            let mask = u32::MAX.checked_shl(32_u32.saturating_sub(prefix));
            IpAddr::V4((four.to_bits() & mask.unwrap_or(0)).into())
        }
        IpAddr::V6(six) => {
            let mask = u128::MAX.checked_shl(128_u32.saturating_sub(prefix));
            IpAddr::V6((six.to_bits() & mask.unwrap_or(0)).into())
        }
    }
}

fn read_name(text: &str) -> Result<Target, &'static str> {
    let lower = text.to_ascii_lowercase();
    let name = lower.strip_suffix('.').unwrap_or(&lower);
    let (name, below) = match name.strip_prefix("*.") {
        Some(parent) => (parent, true),
        None => (name, false),
    };
    if name.is_empty() || name.len() > LONGEST_NAME {
        return Err("no address or name stands there");
    }
    if name.contains('*') {
        return Err("an asterisk stands for the first labels of a name alone");
    }
    if !name.is_ascii() {
        return Err("a name of other letters is written in its form for DNS (xn--…)");
    }
    let good = |label: &str| {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        !label.is_empty() && label.len() <= LONGEST_LABEL && label.bytes().all(allowed)
    };
    if !name.split('.').all(good) {
        return Err("it is neither an address nor a name");
    }
    if name
        .bytes()
        .all(|byte| byte.is_ascii_digit() || byte == b'.')
    {
        return Err("it is no whole IPv4 address");
    }
    let name = name.to_owned();
    Ok(if below {
        Target::Below(name)
    } else {
        Target::Name(name)
    })
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let open = self.ports.is_some();
        match &self.target {
            Target::Any => f.write_str("*")?,
            Target::Name(name) => f.write_str(name)?,
            Target::Below(name) => write!(f, "*.{name}")?,
            Target::Addresses(address, prefix) => {
                let brackets = open && address.is_ipv6();
                f.write_str(if brackets { "[" } else { "" })?;
                write!(f, "{address}")?;
                if *prefix < if address.is_ipv4() { 32 } else { 128 } {
                    write!(f, "/{prefix}")?;
                }
                f.write_str(if brackets { "]" } else { "" })?;
            }
        }
        match self.ports {
            Some((low, high)) if low == high => write!(f, ":{low}")?,
            Some((low, high)) => write!(f, ":{low}-{high}")?,
            None => {}
        }
        match self.transport {
            Some(transport) => write!(f, "/{}", transport.as_str()),
            None => Ok(()),
        }
    }
}

impl Serialize for Rule {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Rule {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(text: &str) -> Rule {
        text.parse().unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn rule_read_is_written_in_its_shortest_form() {
        for (text, shown) in [
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("10.1.2.3/8:443", "10.0.0.0/8:443"),
            ("1.2.3.4", "1.2.3.4"),
            ("1.2.3.4:53/udp", "1.2.3.4:53/udp"),
            ("1.2.3.4/32/TCP", "1.2.3.4/tcp"),
            ("Example.COM.:443", "example.com:443"),
            ("*.crates.example", "*.crates.example"),
            ("_dmarc.example:80-90/tcp", "_dmarc.example:80-90/tcp"),
            ("*:53/udp", "*:53/udp"),
            (":53", "*:53"),
            ("*", "*"),
            ("*/sctp", "*/sctp"),
            ("2001:db8::1", "2001:db8::1"),
            ("2001:db8::1/32", "2001:db8::/32"),
            ("[2001:db8::1]:443/tcp", "[2001:db8::1]:443/tcp"),
            ("[2001:db8::/32]:1-2", "[2001:db8::/32]:1-2"),
            ("::/0", "::/0"),
            ("db", "db"),
            ("4.example", "4.example"),
        ] {
            assert_eq!(rule(text).to_string(), shown, "{text}");
            assert_eq!(rule(shown), rule(text), "{text}");
        }
    }

    #[test]
    fn rule_malformed_is_refused() {
        for text in [
            "",
            ":",
            "/tcp",
            "a b",
            "a..b",
            "-:x",
            "1.2.3",
            "1.2.3.4/33",
            "1.2.3.4/",
            "1.2.3.4/+8",
            "1.2.3.4:0",
            "1.2.3.4:65536",
            "1.2.3.4:+5",
            "1.2.3.4:9-8",
            "1.2.3.4:",
            "1.2.3.4/icmp",
            "a.*.b",
            "**.b",
            "*.",
            "[1.2.3.4]:5",
            "[::1",
            "[::1]/64",
            "::ffff:1.2.3.4",
            "bücher.example",
            "name/8",
            "http://x.example",
        ] {
            assert!(text.parse::<Rule>().is_err(), "{text}");
        }
        let long = vec!["a"; 128].join(".");
        assert!(long.parse::<Rule>().is_err());
    }

    #[test]
    fn names_match_whole_labels_alone() {
        let below = rule("*.example.com");
        for (name, matches) in [
            ("a.example.com", true),
            ("b.a.example.com", true),
            ("example.com", false),
            ("badexample.com", false),
            (".example.com", false),
        ] {
            assert_eq!(below.names(name), matches, "{name}");
        }
        assert!(rule("example.com:443").names("example.com"));
        assert!(!rule("example.com").names("a.example.com"));
    }

    fn policy(default: &str, allow: &[&str], deny: &[&str]) -> EgressPolicy {
        let own = |list: &[&str]| {
            list.iter()
                .map(|text| (*text).to_owned())
                .collect::<Vec<_>>()
        };
        let policy = EgressPolicy::new(default, &own(allow), &own(deny));
        policy.expect("a policy").expect("a restriction")
    }

    #[test]
    fn names_resolve_where_something_lets_them_out() {
        let shut = policy("deny", &["*.example:443", "10.0.0.0/8"], &["bad.example"]);
        assert!(shut.resolves("good.example"));
        assert!(!shut.resolves("bad.example"));
        assert!(!shut.resolves("example.org"));
        assert!(policy("deny", &["*:443"], &[]).resolves("example.org"));
        assert!(policy("", &[], &["10.0.0.0/8"]).resolves("example.org"));
    }

    #[test]
    fn default_is_said_by_one_list_and_must_be_by_two() {
        let list = ["1.2.3.4".to_owned()];
        let none = [];
        assert_eq!(EgressPolicy::new("", &none, &none), Ok(None));
        assert_eq!(EgressPolicy::new("allow", &list, &none), Ok(None));
        let implied = EgressPolicy::new("", &list, &none).unwrap().unwrap();
        assert_eq!(implied.default, EgressDefault::Deny);
        assert_eq!(
            EgressPolicy::new("", &list, &list),
            Err(InvalidEgress::Missing)
        );
        assert!(EgressPolicy::new("drop", &none, &none).is_err());
        let name = ["tracker.example".to_owned()];
        assert!(EgressPolicy::new("allow", &none, &name).is_err());
        let many = vec!["1.2.3.4".to_owned(); MOST_RULES + 1];
        assert_eq!(
            EgressPolicy::new("deny", &many, &none),
            Err(InvalidEgress::TooMany)
        );
    }

    #[test]
    fn labels_say_the_same_as_flags() {
        let labels = |pairs: &[(&str, &str)]| {
            let pairs = pairs
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
            EgressPolicy::of_labels(&pairs.collect())
        };
        assert_eq!(labels(&[("a", "b")]), Ok(None));
        let said = labels(&[
            (LABEL, "deny"),
            (LABEL_ALLOW, "example.com:443, 10.0.0.0/8\n*.x.example"),
        ]);
        assert_eq!(
            said,
            Ok(Some(policy(
                "deny",
                &["example.com:443", "10.0.0.0/8", "*.x.example"],
                &[]
            )))
        );
        assert!(labels(&[(LABEL, "maybe")]).is_err());
    }

    #[test]
    fn policy_kept_is_read_again() {
        let policy = policy("deny", &["*.example:443/tcp"], &["[::1]:5"]);
        let text = serde_json::to_string(&policy).expect("text");
        assert_eq!(
            text,
            r#"{"default":"deny","allow":["*.example:443/tcp"],"deny":["[::1]:5"]}"#
        );
        assert_eq!(serde_json::from_str::<EgressPolicy>(&text).unwrap(), policy);
    }
}
