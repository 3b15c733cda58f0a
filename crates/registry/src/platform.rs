//! Platforms as people write them, and which entry of an index is the best for one.
//!
//! Source: the image specification's "Platform Variants" and containerd's order of them: a machine
//! of a later variant runs programs of earlier ones.

use crate::PlatformOf;

/// `os/architecture[/variant]` in one spelling, the variant that is implied left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wanted {
    os: String,
    architecture: String,
    /// Empty: any, the best first.
    variant: String,
}

impl Wanted {
    /// Reads `os/architecture[/variant]`, or without a system, which then is Linux.
    pub(crate) fn read(text: &str) -> Self {
        let text = text.to_ascii_lowercase();
        let first = text.split('/').next().unwrap_or_default();
        let text = if is_architecture(first) || first == text {
            format!("linux/{text}")
        } else {
            text
        };
        let mut parts = text.split('/');
        let mut next = || parts.next().unwrap_or_default().to_owned();
        let (os, architecture, variant) = (next(), next(), next());
        let os = match os.as_str() {
            "macos" => "darwin".to_owned(),
            _ => os,
        };
        let (architecture, variant) = spelling(&architecture, &variant);
        Self {
            os,
            architecture,
            variant,
        }
    }

    /// How well an entry fits, the lower the better; none if it does not.
    pub(crate) fn rank(&self, entry: &PlatformOf) -> Option<u32> {
        let own_variant = entry.variant.as_deref().unwrap_or_default();
        let (architecture, variant) = spelling(
            &entry.architecture.to_ascii_lowercase(),
            &own_variant.to_ascii_lowercase(),
        );
        if entry.os.to_ascii_lowercase() != self.os || architecture != self.architecture {
            return None;
        }
        if variant == self.variant {
            return Some(0);
        }
        let level = |text: &str| text.trim_start_matches('v').parse::<u32>().ok();
        let own = level(&variant).unwrap_or(implied(&architecture));
        if self.variant.is_empty() {
            // Any will do; the one that runs on the most machines of today first.
            return Some(1 + own.abs_diff(implied(&architecture)));
        }
        let wanted = level(&self.variant)?;
        (own <= wanted).then(|| 1 + wanted - own)
    }
}

/// Whether what is wanted, `os/architecture[/variant]`, can be had from this platform.
pub fn fits(wanted: &str, own: &PlatformOf) -> bool {
    Wanted::read(wanted).rank(own).is_some()
}

/// Whether it is an architecture, and no operating system.
fn is_architecture(text: &str) -> bool {
    matches!(
        text,
        "amd64"
            | "x86_64"
            | "x86-64"
            | "386"
            | "i386"
            | "i686"
            | "arm"
            | "armhf"
            | "armel"
            | "arm64"
            | "aarch64"
            | "ppc64le"
            | "s390x"
            | "riscv64"
            | "loong64"
    )
}

/// The variant that an architecture has when none is named.
fn implied(architecture: &str) -> u32 {
    match architecture {
        "arm" => 7,
        "arm64" => 8,
        _ => 1,
    }
}

/// One spelling of architecture and variant, the implied variant as none.
fn spelling(architecture: &str, variant: &str) -> (String, String) {
    let (architecture, variant) = match (architecture, variant) {
        ("x86_64" | "x86-64", variant) => ("amd64", variant),
        ("aarch64", variant) => ("arm64", variant),
        ("armhf", _) => ("arm", "v7"),
        ("armel", _) => ("arm", "v6"),
        ("i386" | "i686", variant) => ("386", variant),
        other => other,
    };
    let variant = match (architecture, variant) {
        ("amd64", "v1") | ("arm64", "v8" | "8") => "",
        (_, variant) => variant,
    };
    let variant = if variant.starts_with(|c: char| c.is_ascii_digit()) {
        format!("v{variant}")
    } else {
        variant.to_owned()
    };
    (architecture.to_owned(), variant)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rank(wanted: &str, own: &str) -> Option<u32> {
        let mut parts = own.split('/').map(str::to_owned);
        let entry = PlatformOf {
            os: parts.next().unwrap_or_default(),
            architecture: parts.next().unwrap_or_default(),
            variant: parts.next(),
            ..PlatformOf::default()
        };
        Wanted::read(wanted).rank(&entry)
    }

    #[test]
    fn rank_knows_spellings_and_implied_variants() {
        for (wanted, own) in [
            ("linux/amd64", "linux/amd64"),
            ("amd64", "linux/amd64"),
            ("arm64/v8", "linux/arm64"),
            ("arm/v6", "linux/arm/v6"),
            ("linux/x86_64", "linux/amd64/v1"),
            ("linux/arm64/v8", "linux/arm64"),
            ("linux/arm64", "linux/arm64/v8"),
            ("linux/aarch64", "linux/arm64"),
            ("linux/armhf", "linux/arm/v7"),
            ("linux/arm/7", "linux/arm/v7"),
        ] {
            assert_eq!(rank(wanted, own), Some(0), "{wanted} {own}");
        }
        for (wanted, own) in [
            ("linux/amd64", "linux/arm64"),
            ("windows/amd64", "linux/amd64"),
            ("linux/arm/v6", "linux/arm/v7"),
            ("linux/amd64", "unknown/unknown"),
            ("", "linux/amd64"),
        ] {
            assert_eq!(rank(wanted, own), None, "{wanted} {own}");
        }
    }

    #[test]
    fn rank_later_variant_takes_the_nearest_earlier_one() {
        assert!(rank("linux/arm/v7", "linux/arm/v6") < rank("linux/arm/v7", "linux/arm/v5"));
        assert!(rank("linux/arm", "linux/arm/v7") < rank("linux/arm", "linux/arm/v6"));
        assert!(rank("linux/amd64/v3", "linux/amd64/v2") < rank("linux/amd64/v3", "linux/amd64"));
    }
}
