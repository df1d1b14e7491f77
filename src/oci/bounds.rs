//! Bounds on what an archive may make us read, hold and write.

/// Upper bounds. Whatever exceeds one is refused.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Bytes of the contents of files, of all layers together.
    pub content: u64,
    /// Bytes of a layer's archive or of the whole one, unpacked, beyond that: the headers of its entries.
    pub headers: u64,
    /// Entries of all layers together.
    pub names: u64,
    /// Bytes of all names and of the targets of links together, which are kept in memory.
    pub name_bytes: u64,
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
        layers: 128,
        depth: 128,
        document: 4 << 20,
        entries: 10_000,
    };
}
