//! What is found wrong with a network, in words for its user.

use std::fmt;

/// Which part of a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// The bridge.
    Link,
    /// An address of the bridge.
    Address,
    /// A switch of the kernel.
    Setting,
    /// The firewall's table.
    Rules,
    /// A container's link.
    Endpoint,
    /// The name server.
    Names,
}

impl Part {
    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Link => "bridge",
            Self::Address => "address",
            Self::Setting => "setting",
            Self::Rules => "firewall",
            Self::Endpoint => "container",
            Self::Names => "names",
        }
    }
}

/// One thing that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fault {
    /// Where.
    pub part: Part,
    /// What.
    pub text: String,
}

impl Fault {
    /// A fault.
    pub fn new(part: Part, text: impl Into<String>) -> Self {
        Self {
            part,
            text: text.into(),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.part.as_str(), self.text)
    }
}
