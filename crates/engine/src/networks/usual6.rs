//! Whether networks have an IPv6 half where their user says nothing of it.

use std::str::FromStr;

use hull_model::{Error, Result};
use serde::Deserialize;

/// The setting `ipv6-networks`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Word")]
pub enum Ipv6Networks {
    /// Those that are made while the host has a global address and a default route of IPv6.
    #[default]
    Auto,
    /// All of them.
    Always,
    /// None of them, as with Docker.
    Never,
}

/// As a config file may have it.
#[derive(Deserialize)]
#[serde(untagged)]
enum Word {
    Flag(bool),
    Text(String),
}

impl TryFrom<Word> for Ipv6Networks {
    type Error = Error;

    fn try_from(word: Word) -> Result<Self> {
        match word {
            Word::Flag(true) => Ok(Self::Always),
            Word::Flag(false) => Ok(Self::Never),
            Word::Text(text) => text.parse(),
        }
    }
}

impl FromStr for Ipv6Networks {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "auto" => Ok(Self::Auto),
            "true" => Ok(Self::Always),
            "false" => Ok(Self::Never),
            _ => Err(Error::invalid(format!(
                "invalid value {text:?} of ipv6-networks: use auto, true or false"
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Overrides;

    #[test]
    fn setting_is_read_as_flag_and_as_word() {
        for (text, wanted) in [
            ("true", Ipv6Networks::Always),
            ("false", Ipv6Networks::Never),
            ("\"auto\"", Ipv6Networks::Auto),
            ("\"false\"", Ipv6Networks::Never),
        ] {
            let file = format!("ipv6-networks = {text}");
            let read = Overrides::from_toml("x".as_ref(), &file).unwrap();
            assert_eq!(read.ipv6_networks, Some(wanted), "{text}");
        }
        assert!(Overrides::from_toml("x".as_ref(), "ipv6-networks = 'some'").is_err());
    }
}
