//! Bounds on what an archive may make us read, hold and write.

/// Upper bounds. Whatever exceeds one is refused.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Bytes of the contents of files, of all layers together.
    pub content: u64,
    /// Bytes of the layers' archives together, or of the whole one, unpacked, beyond that: the headers of their
    /// entries.
    pub headers: u64,
    /// Entries of all layers together.
    pub names: u64,
    /// Bytes of all names and of the targets of links together, which are kept in memory.
    pub name_bytes: u64,
    /// Names that are looked at on the way to those of entries, and to what these remove: time, since an entry of
    /// a few bytes can lead through links to thousands.
    pub steps: u64,
    pub layers: usize,
    /// Directories above a file.
    pub depth: usize,
    /// Bytes of a JSON document.
    pub document: u64,
    /// Entries of the archive that has the layers in it.
    pub entries: usize,
}

impl Bounds {
    pub const OURS: Self = Self {
        content: 16 << 30,
        headers: 4 << 30,
        names: 1_000_000,
        name_bytes: 256 << 20,
        steps: 50_000_000,
        layers: 128,
        depth: 128,
        document: 4 << 20,
        entries: 10_000,
    };
}
