//! One member of a tar stream, with its extension headers already applied.

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Regular file.
    File,
    /// Hard link to an earlier member.
    HardLink,
    /// Symbolic link.
    Symlink,
    /// Character device.
    Char,
    /// Block device.
    Block,
    /// Directory.
    Dir,
    /// Named pipe.
    Fifo,
    /// Something no file system object stands for; its payload is skipped.
    Other(u8),
}

/// Seconds and nanoseconds since the epoch; the nanoseconds count forward.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Mtime {
    /// Seconds, negative before 1970.
    pub secs: i64,
    /// 0 to 999,999,999.
    pub nanos: u32,
}

/// The data fragments of a sparse file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SparseMap {
    /// Offset and length of each fragment, ascending and apart.
    pub fragments: Vec<(u64, u64)>,
    /// Size of the file with its holes.
    pub real_size: u64,
}

/// A member with its final names and numbers.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Name as stored, not cleaned.
    pub path: Vec<u8>,
    /// Target of a hard or symbolic link.
    pub link: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// The lower twelve permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time.
    pub mtime: Mtime,
    /// Bytes of payload in the stream.
    pub size: u64,
    /// Major number of a device.
    pub major: u32,
    /// Minor number of a device.
    pub minor: u32,
    /// Extended attributes by name.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Set for a sparse file: the payload holds the fragments one after another.
    pub sparse: Option<SparseMap>,
    /// Offset of the first header of this entry in the stream.
    pub offset: u64,
}
