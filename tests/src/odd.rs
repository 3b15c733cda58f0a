//! Layers with every oddity that tar has, written byte by byte.

/// A layer in the making.
#[derive(Debug, Default)]
pub struct OddLayer {
    bytes: Vec<u8>,
}

/// One member; what is not set is plain.
#[derive(Debug, Clone)]
pub struct Member<'a> {
    name: &'a [u8],
    kind: u8,
    mode: u32,
    owner: (u32, u32),
    mtime: u64,
    link: &'a [u8],
    device: (u32, u32),
    content: &'a [u8],
    pax: Vec<u8>,
}

impl<'a> Member<'a> {
    /// A member of a type flag of tar.
    #[must_use]
    pub fn new(kind: u8, name: &'a [u8], mode: u32) -> Self {
        Self {
            name,
            kind,
            mode,
            owner: (0, 0),
            mtime: 1_700_000_000,
            link: b"",
            device: (0, 0),
            content: b"",
            pax: Vec::new(),
        }
    }

    /// A file.
    #[must_use]
    pub fn file(name: &'a [u8], mode: u32, content: &'a [u8]) -> Self {
        Self {
            content,
            ..Self::new(b'0', name, mode)
        }
    }

    /// A folder.
    #[must_use]
    pub fn dir(name: &'a [u8], mode: u32) -> Self {
        Self::new(b'5', name, mode)
    }

    /// A symbolic link.
    #[must_use]
    pub fn symlink(name: &'a [u8], to: &'a [u8]) -> Self {
        Self {
            link: to,
            ..Self::new(b'2', name, 0o777)
        }
    }

    /// A hard link.
    #[must_use]
    pub fn hardlink(name: &'a [u8], to: &'a [u8], mode: u32) -> Self {
        Self {
            link: to,
            ..Self::new(b'1', name, mode)
        }
    }

    /// A character (`3`) or block (`4`) device.
    #[must_use]
    pub fn device(kind: u8, name: &'a [u8], device: (u32, u32)) -> Self {
        Self {
            device,
            ..Self::new(kind, name, 0o660)
        }
    }

    /// Sets the owner.
    #[must_use]
    pub fn owner(mut self, uid: u32, gid: u32) -> Self {
        self.owner = (uid, gid);
        self
    }

    /// Sets the time in the header.
    #[must_use]
    pub fn mtime(mut self, seconds: u64) -> Self {
        self.mtime = seconds;
        self
    }

    /// Sets the content.
    #[must_use]
    pub fn content(mut self, content: &'a [u8]) -> Self {
        self.content = content;
        self
    }

    /// Adds a record to an extended header before it.
    #[must_use]
    pub fn pax(mut self, key: &str, value: &[u8]) -> Self {
        let rest = key.len() + value.len() + 3;
        // The length counts its own digits.
        let mut len = rest + 1;
        while len != rest + len.to_string().len() {
            len = rest + len.to_string().len();
        }
        self.pax.extend(format!("{len} {key}=").bytes());
        self.pax.extend(value);
        self.pax.push(b'\n');
        self
    }
}

impl OddLayer {
    /// An empty layer.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a member, its extended header first if it has one.
    #[must_use]
    pub fn member(mut self, member: Member<'_>) -> Self {
        if !member.pax.is_empty() {
            let records = member.pax.clone();
            self.block(&Member::new(b'x', b"PaxHeaders/x", 0o644), records.len());
            self.body(&records);
        }
        self.block(&member, member.content.len());
        self.body(member.content);
        self
    }

    /// Adds a member whose name GNU tar writes before it.
    #[must_use]
    pub fn add_gnu_long(mut self, member: Member<'_>) -> Self {
        for (kind, text) in [(b'L', member.name), (b'K', member.link)] {
            if text.len() > 100 {
                let text = [text, b"\0"].concat();
                self.block(&Member::new(kind, b"././@LongLink", 0), text.len());
                self.body(&text);
            }
        }
        self.member(member)
    }

    /// The tar.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        self.bytes.resize(self.bytes.len() + 1024, 0);
        self.bytes
    }

    fn body(&mut self, bytes: &[u8]) {
        self.bytes.extend(bytes);
        let padded = self.bytes.len().next_multiple_of(512);
        self.bytes.resize(padded, 0);
    }

    fn block(&mut self, member: &Member<'_>, size: usize) {
        let mut block = [0u8; 512];
        text(&mut block[..100], member.name);
        octal(&mut block[100..108], member.mode.into());
        octal(&mut block[108..116], member.owner.0.into());
        octal(&mut block[116..124], member.owner.1.into());
        octal(&mut block[124..136], size as u64);
        octal(&mut block[136..148], member.mtime);
        block[148..156].fill(b' ');
        block[156] = member.kind;
        text(&mut block[157..257], member.link);
        text(&mut block[257..265], b"ustar\x0000");
        if matches!(member.kind, b'3' | b'4') {
            octal(&mut block[329..337], member.device.0.into());
            octal(&mut block[337..345], member.device.1.into());
        }
        seal(&mut block);
        self.bytes.extend(block);
    }
}

fn text(field: &mut [u8], bytes: &[u8]) {
    for (to, from) in field.iter_mut().zip(bytes) {
        *to = *from;
    }
}

fn octal(field: &mut [u8], value: u64) {
    let width = field.len() - 1;
    text(field, format!("{value:0width$o}").as_bytes());
}

fn seal(block: &mut [u8; 512]) {
    let sum: u64 = block.iter().map(|&byte| u64::from(byte)).sum();
    text(&mut block[148..156], format!("{sum:06o}\0 ").as_bytes());
}
