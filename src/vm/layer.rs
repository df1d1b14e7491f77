//! Layers: file systems that a guest sees in windows of its memory, and can only read.

use crate::units::HUGE_PAGE;
use crate::vm::layout::{WINDOW_SIZE, WINDOWS};
use crate::vm::mapping::{ANONYMOUS, map, map_over};
use crate::vm::sigbus::Backing;
use anyhow::{Context, Result, ensure};
use std::fs::File;
use vm_memory::mmap::MmapRegionBuilder;
use vm_memory::{FileOffset, MmapRegion, VolatileMemory};

/// A file system image, put together from memory and from parts of files. What no piece covers is
/// zeroes.
#[derive(Debug, Default)]
pub struct Layer {
    /// The bytes of the image, a multiple of [`HUGE_PAGE`].
    pub size: u64,
    /// Bytes of the image, each behind its offset.
    pub content: Vec<(u64, Vec<u8>)>,
    /// Parts of files that are mapped into the image, and stay theirs.
    pub parts: Vec<Part>,
}

/// A part of a file in an image.
#[derive(Debug)]
pub struct Part {
    /// The offset in the image, a multiple of the page size.
    pub offset: u64,
    /// The file, and the offset in it, a multiple of the page size.
    pub file: FileOffset,
    pub length: u64,
}

impl Layer {
    /// Returns the layer that a whole file is.
    pub fn of_file(file: File) -> Result<Self> {
        let size = file.metadata().context("looking at a layer")?.len();
        Ok(Self {
            size,
            content: Vec::new(),
            parts: vec![Part {
                offset: 0,
                file: FileOffset::new(file, 0),
                length: size,
            }],
        })
    }
}

/// A window of a machine, with what it shows.
pub struct Window {
    /// The guest-physical address.
    pub start: u64,
    pub mapping: MmapRegion,
    /// The files that the guest sees parts of, up to the end of the last part.
    pub files: Vec<Backing>,
}

impl Window {
    /// Maps what the windows show. Of a machine that boots, a window without a layer shows zeroes where
    /// its kernel looks for one; of a machine that is restored, it shows nothing.
    pub fn map_all(layers: &[Layer], boots: bool) -> Result<Vec<Self>> {
        ensure!(
            layers.len() <= WINDOWS.len(),
            "{} layers, and {} windows",
            layers.len(),
            WINDOWS.len()
        );
        let nothing = Layer {
            size: HUGE_PAGE as u64,
            ..Layer::default()
        };
        let empty = WINDOWS.len() - layers.len();
        let empty = std::iter::repeat_n(&nothing, if boots { empty } else { 0 });
        let shown = WINDOWS.into_iter().zip(layers.iter().chain(empty));
        shown
            .map(|(start, layer)| Self::map(start, layer))
            .collect()
    }

    fn map(start: u64, layer: &Layer) -> Result<Self> {
        let is_whole = layer.size > 0 && layer.size.is_multiple_of(HUGE_PAGE as u64);
        ensure!(
            is_whole && layer.size <= WINDOW_SIZE,
            "a layer of {} bytes does not fit into a window",
            layer.size
        );
        let builder = MmapRegionBuilder::new(layer.size as usize);
        let mapping = map(builder, libc::PROT_WRITE, ANONYMOUS)?;
        for (offset, bytes) in &layer.content {
            let slice = mapping.get_slice(*offset as usize, bytes.len());
            slice.context("placing a layer's content")?.copy_from(bytes);
        }
        for part in &layer.parts {
            map_over(&mapping, part.offset, part.length, &part.file, false)?;
        }
        let file = |part: &Part| (part.file.clone(), part.length);
        Ok(Self {
            start,
            mapping,
            files: layer.parts.iter().map(file).collect(),
        })
    }

    /// Returns the offset of a guest-physical address in the window, if it is in there.
    pub fn offset(&self, address: u64) -> Option<usize> {
        let offset = address.checked_sub(self.start)?;
        (offset < self.mapping.size() as u64).then_some(offset as usize)
    }
}
