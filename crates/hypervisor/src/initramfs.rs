//! The initramfs of a guest: an archive in the "newc" format of cpio, which the kernel unpacks as
//! its first root.

/// Begin of each header.
const MAGIC: &[u8] = b"070701";
/// Name of the entry that ends an archive.
const TRAILER: &str = "TRAILER!!!";
/// Bytes are padded to this.
const ALIGN: usize = 4;

const DIRECTORY: u32 = 0o040_000;
const FILE: u32 = 0o100_000;
const SYMLINK: u32 = 0o120_000;
const CHARACTER_DEVICE: u32 = 0o020_000;

/// The initramfs of Hull's guests: the agent as `/init`, and the console the kernel opens for it.
#[must_use]
pub fn initramfs(agent: &[u8]) -> Vec<u8> {
    Archive::new()
        .directory("dev", 0o755)
        .character_device("dev/console", 0o600, (5, 1))
        .file("init", 0o755, agent)
        .finish()
}

/// An archive in the making. Paths are relative; folders come before what is in them.
#[derive(Debug, Default)]
pub struct Archive {
    bytes: Vec<u8>,
    inode: u32,
}

impl Archive {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a folder.
    #[must_use]
    pub fn directory(self, path: &str, mode: u32) -> Self {
        self.entry(path, DIRECTORY | mode, (0, 0), &[])
    }

    /// Adds a file.
    #[must_use]
    pub fn file(self, path: &str, mode: u32, content: &[u8]) -> Self {
        self.entry(path, FILE | mode, (0, 0), content)
    }

    /// Adds a symbolic link.
    #[must_use]
    pub fn symlink(self, path: &str, target: &str) -> Self {
        self.entry(path, SYMLINK | 0o777, (0, 0), target.as_bytes())
    }

    /// Adds the node of a character device with its major and minor number.
    #[must_use]
    pub fn character_device(self, path: &str, mode: u32, device: (u32, u32)) -> Self {
        self.entry(path, CHARACTER_DEVICE | mode, device, &[])
    }

    /// The whole archive.
    #[must_use]
    pub fn finish(self) -> Vec<u8> {
        self.entry(TRAILER, 0, (0, 0), &[]).bytes
    }

    fn entry(mut self, path: &str, mode: u32, device: (u32, u32), content: &[u8]) -> Self {
        self.inode += 1;
        let links = if mode & DIRECTORY == DIRECTORY { 2 } else { 1 };
        // A file of 4 GiB does not fit the format; nothing of that size is memory for a root.
        let size = u32::try_from(content.len()).unwrap_or(u32::MAX);
        let content = content.get(..size as usize).unwrap_or_default();
        let name = u32::try_from(path.len() + 1).unwrap_or(u32::MAX);
        // Number, mode, user, group, links, time (none: the same content is the same archive), size,
        // device it lies on, device it is, length of the name, checksum (none in this format).
        let (major, minor) = device;
        let fields = [
            self.inode, mode, 0, 0, links, 0, size, 0, 0, major, minor, name, 0,
        ];
        self.bytes.extend_from_slice(MAGIC);
        for field in fields {
            self.bytes
                .extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(path.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
        self
    }

    fn pad(&mut self) {
        let length = self.bytes.len().next_multiple_of(ALIGN);
        self.bytes.resize(length, 0);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn initramfs_header_and_padding_are_those_of_newc() {
        let bytes = Archive::new().file("init", 0o755, b"12345").finish();
        let text = String::from_utf8_lossy(&bytes);
        let head = "070701\
            00000001000081ed0000000000000000000000010000000000000005\
            0000000000000000000000000000000000000005\
            00000000init\x00\x0012345\x00\x00\x00070701";
        assert!(text.starts_with(head), "{text}");
        assert!(text.contains("TRAILER!!!\0"), "{text}");
        assert_eq!(bytes.len() % ALIGN, 0);
    }

    #[test]
    fn initramfs_is_read_by_other_tools() {
        let archive = Archive::new()
            .directory("dev", 0o755)
            .character_device("dev/console", 0o600, (5, 1))
            .file("init", 0o755, b"#!/x\n")
            .symlink("sbin", "bin")
            .finish();
        let child = Command::new("cpio")
            .args(["-itv", "--numeric-uid-gid", "--quiet"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        // Not every machine has one: the kernel itself is the judge in the tests of guests.
        let Ok(mut child) = child else { return };
        let written = child.stdin.take().map(|mut pipe| pipe.write_all(&archive));
        assert!(matches!(written, Some(Ok(()))));
        let output = child.wait_with_output().expect("cpio");
        let list = String::from_utf8_lossy(&output.stdout);
        let lines: Vec<&str> = list.lines().collect();
        assert_eq!(lines.len(), 4, "{list}");
        for (line, (mode, rest)) in lines.iter().zip([
            ("drwxr-xr-x", "dev"),
            ("crw-------", "dev/console"),
            ("-rwxr-xr-x", "init"),
            ("lrwxrwxrwx", "sbin -> bin"),
        ]) {
            assert!(line.starts_with(mode) && line.ends_with(rest), "{line}");
        }
        assert!(lines.get(1).is_some_and(|line| line.contains("5,   1")));
    }
}
