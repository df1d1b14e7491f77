//! Images of others: archives that `docker save`, `podman save` and `skopeo copy … oci-archive:` make.
//!
//! [`import`] takes one in. Nothing of an archive is trusted: a process of its own reads it, which has given
//! up its rights before it reads the first byte, and no path in it ever becomes one of the host. That process
//! writes the merged file system of the archive as one image.
//!
//! ```text
//!   archive ── tar ── index.json or manifest.json ── config ── layers, decompressed, digests checked
//!                                                                 │ names         │ contents
//!                                                              tree in memory   scratch file
//!                                                                 └──── layer::Plan ───┘── image
//! ```
//!
//! What a document or a layer may say is that of the OCI image specification (image-layout.md, manifest.md,
//! config.md, layer.md). These are refused, though others take them: sparse files, devices outside of /dev,
//! what is in a layer twice, and more of anything than [`Bounds`] has. Devices in /dev, pipes and the mode of the
//! root directory are left out.

mod archive;
mod bounds;
mod compression;
mod contents;
mod digest;
mod documents;
mod entries;
mod finish;
mod import;
mod layers;
mod manifest;
mod merge;
mod name;
mod numbers;
mod path;
mod pax;
mod process;
mod programs;
mod refusal;
mod region;
#[cfg(test)]
mod tests;
mod tree;
mod unpacked;
mod user;

pub use import::import;
