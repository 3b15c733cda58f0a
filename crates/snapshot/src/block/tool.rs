//! Programs of others that write file systems: looked up when they are needed.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::SnapshotError;

/// Where programs lie.
const FOLDERS: [&str; 6] = [
    "/usr/local/bin",
    "/usr/local/sbin",
    "/usr/bin",
    "/usr/sbin",
    "/bin",
    "/sbin",
];
/// What a program said is shown up to here.
const MAX_SAID: usize = 400;

/// A program, and the package that brings it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tool {
    pub(crate) name: &'static str,
    pub(crate) package: &'static str,
}

pub(crate) const MKFS_EROFS: Tool = Tool {
    name: "mkfs.erofs",
    package: "erofs-utils",
};
pub(crate) const MKE2FS: Tool = Tool {
    name: "mke2fs",
    package: "e2fsprogs",
};

impl Tool {
    fn find(self) -> Result<PathBuf, SnapshotError> {
        FOLDERS
            .iter()
            .map(|folder| Path::new(folder).join(self.name))
            .find(|path| path.is_file())
            .ok_or(SnapshotError::NoTool {
                name: self.name,
                package: self.package,
            })
    }

    /// A command of it that neither reads input nor depends on the daemon's surroundings.
    pub(crate) fn command(self) -> Result<Command, SnapshotError> {
        let mut command = Command::new(self.find()?);
        command
            .env_clear()
            .env("LC_ALL", "C")
            .env("PATH", FOLDERS.join(":"))
            .stdin(Stdio::null());
        Ok(command)
    }

    /// Runs a command of it to its end.
    pub(crate) fn run(self, command: &mut Command, to: &Path) -> Result<(), SnapshotError> {
        let out = command
            .output()
            .map_err(|e| SnapshotError::io("run the program that makes", to, e))?;
        if out.status.success() {
            return Ok(());
        }
        let said = [out.stderr, out.stdout].concat();
        let said = String::from_utf8_lossy(&said);
        // A full disk is no fault of the program, and the daemon tells it apart.
        if said.contains("No space left on device") {
            let full = io::Error::from(io::ErrorKind::StorageFull);
            return Err(SnapshotError::io("write", to, full));
        }
        Err(SnapshotError::Tool {
            name: self.name,
            path: to.to_owned(),
            said: shortened(&said),
            status: out.status,
        })
    }
}

/// The last lines, on one.
fn shortened(said: &str) -> String {
    let text = said.split_whitespace().collect::<Vec<_>>().join(" ");
    let start = text.len().saturating_sub(MAX_SAID);
    let start = (start..text.len())
        .find(|&at| text.is_char_boundary(at))
        .unwrap_or(0);
    text.get(start..).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn find_missing_program_names_its_package() {
        let tool = Tool {
            name: "mkfs.nothing",
            package: "nothing-utils",
        };
        let error = tool.command().unwrap_err().to_string();
        assert!(error.contains("mkfs.nothing") && error.contains("nothing-utils"));
    }

    #[test]
    fn run_failing_program_tells_its_last_words() {
        let error = MKE2FS
            .run(
                MKE2FS.command().unwrap().arg("/nonexistent/file"),
                Path::new("/x"),
            )
            .unwrap_err()
            .to_string();
        assert!(error.contains("mke2fs") && error.contains("/x"), "{error}");
    }

    #[test]
    fn shortened_keeps_the_end() {
        assert_eq!(shortened("a\n b\n"), "a b");
        let long = "ä".repeat(MAX_SAID) + "end";
        let short = shortened(&long);
        assert!(short.len() <= MAX_SAID && short.ends_with("end"));
    }
}
