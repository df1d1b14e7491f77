//! Archives of one small image, with one part that is another.

use super::builder::{Image, Tar, image};
use serde_json::Value;
use std::collections::BTreeMap;

pub fn simple() -> Image {
    image([Tar::new().file("a", "content")])
}

pub fn with_config(change: impl Fn(&mut Value) + 'static) -> Vec<u8> {
    let config = Box::new(change);
    Image { config, ..simple() }.oci()
}

pub fn with_manifest(change: impl Fn(&mut Value) + 'static) -> Vec<u8> {
    let manifest = Box::new(change);
    Image {
        manifest,
        ..simple()
    }
    .oci()
}

pub fn with_index(change: impl Fn(&mut Value) + 'static) -> Vec<u8> {
    let index = Box::new(change);
    Image { index, ..simple() }.oci()
}

pub type Files = BTreeMap<String, Vec<u8>>;

pub fn with_files(change: impl Fn(&mut Files) + 'static) -> Vec<u8> {
    let files = Box::new(change);
    Image { files, ..simple() }.oci()
}

/// Returns an archive of `docker save` whose list is another.
pub fn with_list(change: impl Fn(&mut Value) + 'static) -> Vec<u8> {
    let manifest = Box::new(change);
    Image {
        manifest,
        ..simple()
    }
    .docker()
}

/// Returns the path of the first blob that has these bytes in it.
pub fn blob_with(files: &Files, part: &str) -> String {
    let has = |bytes: &[u8]| bytes.windows(part.len()).any(|it| it == part.as_bytes());
    let is_blob = |path: &str| path.starts_with("blobs/");
    let found = files
        .iter()
        .find(|(path, bytes)| is_blob(path) && has(bytes));
    found.unwrap().0.clone()
}
