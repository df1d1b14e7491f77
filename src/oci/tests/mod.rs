//! Archives as tools make them, and as nobody should.

mod builder;
mod changed;
mod good;
mod hostile;
mod hostile_digests;
mod hostile_layers;
mod hostile_time;
mod merging;
mod told;

use crate::error::{Error, Kind, Remedy};
use crate::layer::tests::extracted::{Seen, extract};
use crate::limits::ConfineLevel;
use crate::oci::bounds::Bounds;
use crate::oci::process::unpack_in;
use crate::oci::unpacked::Unpacked;
use builder::{Image, Tar, image};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use tempfile::{NamedTempFile, TempDir};

/// Bounds that a test can exceed.
const SMALL: Bounds = Bounds {
    content: 1 << 20,
    headers: 1 << 20,
    names: 200,
    name_bytes: 8000,
    steps: 20_000,
    layers: 100,
    depth: 20,
    document: 64 << 10,
    entries: 120,
};

/// Unpacks an archive.
fn unpacked(archive: &[u8], bounds: Bounds) -> anyhow::Result<(Unpacked, NamedTempFile)> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("archive");
    fs::write(&path, archive).unwrap();
    let image = NamedTempFile::new_in(directory.path()).unwrap();
    let before = listing(&directory);
    let opened = File::open(&path).unwrap();
    let told = unpack_in(
        directory.path(),
        opened,
        image.as_file(),
        ConfineLevel::Require,
        bounds,
    );
    assert_eq!(listing(&directory), before, "there is more than before");
    assert!(
        fs::read(&path).unwrap() == archive,
        "the archive is another"
    );
    // It is to outlive the directory.
    let kept = NamedTempFile::new().unwrap();
    fs::copy(image.path(), kept.path()).unwrap();
    told.map(|told| (told, kept))
}

/// Returns the paths of all that is in a directory.
fn listing(directory: &TempDir) -> Vec<PathBuf> {
    let names = |path: &Path| {
        fs::read_dir(path)
            .unwrap()
            .map(|entry| entry.unwrap().path())
    };
    let mut all: Vec<_> = names(directory.path()).collect();
    all.sort();
    all
}

/// Returns what is told of a good archive, and what is in it by path.
fn seen(archive: &[u8]) -> (Unpacked, BTreeMap<String, Seen>) {
    let (told, image) = unpacked(archive, Bounds::OURS).unwrap();
    let seen = extract(&image).into_iter();
    let seen = seen.map(|(path, seen)| (String::from_utf8_lossy(&path).into_owned(), seen));
    (told, seen.collect())
}

/// Returns what these layers make, by path.
fn merged(layers: impl IntoIterator<Item = Tar>) -> BTreeMap<String, Seen> {
    seen(&image(layers).oci()).1
}

/// Returns the content of a file.
fn text(seen: &BTreeMap<String, Seen>, path: &str) -> String {
    let seen = seen
        .get(path)
        .unwrap_or_else(|| panic!("{path} is missing"));
    String::from_utf8_lossy(&seen.content).into_owned()
}

/// Checks that an archive is refused with these words, and returns the failure.
fn refused(archive: &[u8], words: &str) -> Error {
    let error = match unpacked(archive, SMALL) {
        Ok((told, _)) => panic!("{words}: it is taken: {told:?}"),
        Err(error) => error,
    };
    let error = error
        .downcast::<Error>()
        .unwrap_or_else(|error| panic!("{words}: {error:#}"));
    assert!(
        error.message.contains(words),
        "{words:?} is not in {:?}",
        error.message
    );
    assert_eq!(error.kind, Kind::File, "{words}");
    assert!(
        matches!(&error.remedy, Remedy::Do(text) if !text.is_empty()),
        "{words}"
    );
    assert!(
        error.message.len() < 600 && !error.message.contains('\n'),
        "{words}"
    );
    error
}

/// Checks that an image with one layer is refused with these words.
fn refuses_layer(layer: Tar, words: &str) {
    refuses_layers([layer], words);
}

fn refuses_layers(layers: impl IntoIterator<Item = Tar>, words: &str) {
    let image: Image = image(layers);
    refused(&image.oci(), words);
}
