//! Kernel versions, as far as profiles compare them.

use std::fmt;

/// The first two numbers of a kernel release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KernelVersion {
    /// First number.
    pub major: u32,
    /// Second number.
    pub minor: u32,
}

impl KernelVersion {
    /// Reads the start of a release such as `6.1.0-28-amd64`, or a bare `4.8`.
    pub fn parse(release: &str) -> Option<Self> {
        let mut parts = release.split('.');
        let major = parts.next()?.parse().ok()?;
        let rest = parts.next()?;
        let digits = rest
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(rest.len());
        let minor = rest.get(..digits)?.parse().ok()?;
        Some(Self { major, minor })
    }
}

impl fmt::Display for KernelVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parse_releases_reads_two_numbers() {
        let parse = |text| KernelVersion::parse(text).map(|v| (v.major, v.minor));
        assert_eq!(parse("6.18.44-fc"), Some((6, 18)));
        assert_eq!(parse("4.8"), Some((4, 8)));
        assert_eq!(parse("5.10-rc1"), Some((5, 10)));
        assert_eq!(parse("5"), None);
        assert_eq!(parse("x.y"), None);
        assert!(
            KernelVersion {
                major: 4,
                minor: 10
            } > KernelVersion { major: 4, minor: 8 }
        );
    }
}
