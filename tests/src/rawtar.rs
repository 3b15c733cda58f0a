//! Tars that no sane writer makes: every field as the test wants it.

/// A tar under construction.
#[derive(Debug, Clone, Default)]
pub struct RawTar(Vec<u8>);

/// One header, its checksum right.
#[must_use]
pub fn header(kind: u8, name: &[u8], link: &[u8], size: &[u8; 12]) -> [u8; 512] {
    let mut block = [0; 512];
    let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &name[..name.len().min(100)]);
    put(
        100,
        if kind == b'5' {
            b"0000755\0"
        } else {
            b"0000644\0"
        },
    );
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    put(124, size);
    put(136, b"14524770400\0");
    put(156, &[kind]);
    put(157, &link[..link.len().min(100)]);
    put(257, b"ustar\x0000");
    put(329, b"0000000\0");
    put(337, b"0000000\0");
    sealed(block)
}

/// The block with its checksum.
#[must_use]
pub fn sealed(mut block: [u8; 512]) -> [u8; 512] {
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

/// A size as tars write it.
#[must_use]
pub fn octal(size: u64) -> [u8; 12] {
    let mut field = [0; 12];
    field.copy_from_slice(format!("{size:011o}\0").as_bytes());
    field
}

impl RawTar {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A header with a size field of the test's, and bytes after it, padded.
    #[must_use]
    pub fn sized(
        mut self,
        kind: u8,
        name: impl AsRef<[u8]>,
        link: impl AsRef<[u8]>,
        size: &[u8; 12],
        content: &[u8],
    ) -> Self {
        self.0
            .extend_from_slice(&header(kind, name.as_ref(), link.as_ref(), size));
        self.0.extend_from_slice(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    /// A file.
    #[must_use]
    pub fn file(self, name: impl AsRef<[u8]>, content: &[u8]) -> Self {
        self.sized(b'0', name, "", &octal(content.len() as u64), content)
    }

    /// A folder.
    #[must_use]
    pub fn dir(self, name: impl AsRef<[u8]>) -> Self {
        self.sized(b'5', name, "", &octal(0), b"")
    }

    /// A symbolic link.
    #[must_use]
    pub fn symlink(self, name: impl AsRef<[u8]>, to: impl AsRef<[u8]>) -> Self {
        self.sized(b'2', name, to, &octal(0), b"")
    }

    /// A hard link.
    #[must_use]
    pub fn hardlink(self, name: impl AsRef<[u8]>, to: impl AsRef<[u8]>) -> Self {
        self.sized(b'1', name, to, &octal(0), b"")
    }

    /// A device of kind `b'3'` (character) or `b'4'` (block).
    #[must_use]
    pub fn device(mut self, kind: u8, name: &str, major: u32, minor: u32) -> Self {
        let mut block = header(kind, name.as_bytes(), b"", &octal(0));
        block[329..337].copy_from_slice(format!("{major:07o}\0").as_bytes());
        block[337..345].copy_from_slice(format!("{minor:07o}\0").as_bytes());
        self.0.extend_from_slice(&sealed(block));
        self
    }

    /// A PAX header for what comes next.
    #[must_use]
    pub fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let mut body = Vec::new();
        for (key, value) in records {
            let bare = key.len() + value.len() + 3;
            let mut len = bare + 1;
            while bare + len.to_string().len() > len {
                len = bare + len.to_string().len();
            }
            body.extend_from_slice(format!("{len} {key}=").as_bytes());
            body.extend_from_slice(value);
            body.push(b'\n');
        }
        self.sized(b'x', "pax", "", &octal(body.len() as u64), &body)
    }

    /// A GNU long name (`b'L'`) or long link (`b'K'`) for what comes next.
    #[must_use]
    pub fn long(self, kind: u8, name: impl AsRef<[u8]>) -> Self {
        let body = [name.as_ref(), b"\0"].concat();
        self.sized(kind, "././@LongLink", "", &octal(body.len() as u64), &body)
    }

    /// The bytes so far, without an end.
    #[must_use]
    pub fn open(self) -> Vec<u8> {
        self.0
    }

    /// The bytes with the end marker.
    #[must_use]
    pub fn end(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}
