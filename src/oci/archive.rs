//! The archive as a whole: a tar archive with documents and layers, which are found by their names.

use crate::error::Error;
use crate::oci::bounds::Bounds;
use crate::oci::compression::{is_compressed, unpacked};
use crate::oci::digest::Digest;
use crate::oci::entries::{Entries, Kind};
use crate::oci::path::Path;
use crate::oci::refusal::{damaged, malformed, shown, too_much, unreadable, unwritable, within};
use crate::oci::region::Region;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::sync::Arc;

/// How many links are followed to a file.
const LINKS_MAX: usize = 8;

/// An archive that is a file, or was unpacked to one.
pub struct Archive {
    file: Arc<File>,
    places: BTreeMap<Path, Place>,
    bounds: Bounds,
}

/// Where in the file an entry's content is.
enum Place {
    Directory,
    File { offset: u64, size: u64 },
    Link(Path),
}

impl Archive {
    /// Finds all entries of a file of so many bytes. If it is compressed as a whole, it is unpacked to the
    /// scratch file, which is empty.
    pub fn open(file: File, size: u64, scratch: File, bounds: Bounds) -> Result<Self, Error> {
        if size == 0 {
            return Err(damaged("it is an empty file"));
        }
        let mut region = Region::new(Arc::new(file), 0, size);
        let mut file = Arc::clone(region.file());
        if is_compressed(&region)? {
            let size = unpack(region, &scratch, bounds)?;
            file = Arc::new(scratch);
            region = Region::new(Arc::clone(&file), 0, size);
        }
        Ok(Self {
            file,
            places: find(region, bounds)?,
            bounds,
        })
    }

    pub fn has(&self, name: &str) -> bool {
        self.region(name.as_bytes()).is_ok()
    }

    /// Returns the content of a file.
    pub fn region(&self, name: &[u8]) -> Result<Region, Error> {
        let mut path = Path::parse(name, self.bounds.depth)?;
        for _ in 0..LINKS_MAX {
            match self.places.get(&path) {
                Some(Place::File { offset, size }) => {
                    return Ok(Region::new(Arc::clone(&self.file), *offset, *size));
                }
                Some(Place::Link(target)) => path = target.clone(),
                Some(Place::Directory) => {
                    let what = format!("{} should be a file, and is a directory", shown(name));
                    return Err(malformed(what));
                }
                None => return Err(damaged(format!("{} is missing", shown(name)))),
            }
        }
        Err(malformed(format!(
            "the links to {} have no end",
            shown(name)
        )))
    }

    /// Reads a JSON document; if it has a digest, that is checked.
    pub fn document<T: DeserializeOwned>(
        &self,
        name: &str,
        digest: Option<&Digest>,
    ) -> Result<T, Error> {
        let mut region = self.region(name.as_bytes())?;
        let (place, most) = (shown(name), self.bounds.document);
        if region.size() > most {
            let what = format!("{place} has more than {most} bytes, which no description has");
            return Err(malformed(what));
        }
        let mut bytes = Vec::new();
        region.read_to_end(&mut bytes).map_err(unreadable)?;
        if let Some(digest) = digest {
            digest.check_bytes(&bytes, &place)?;
        }
        let wrong = |why: String| {
            within(
                &place,
                malformed(format!("it is not as it should be: {why}")),
            )
        };
        let mut json = serde_json::Deserializer::from_slice(&bytes);
        let document = serde_path_to_error::deserialize(&mut json);
        let document = document.map_err(|error| wrong(escaped(&error.to_string())))?;
        match json.end() {
            Ok(()) => Ok(document),
            Err(error) => Err(wrong(error.to_string())),
        }
    }
}

/// Unpacks all to a file. Returns its size.
fn unpack(region: Region, scratch: &File, bounds: Bounds) -> Result<u64, Error> {
    let most = bounds.content + bounds.headers;
    let mut reader = unpacked(region)?;
    let mut piece = vec![0; 256 << 10];
    let (mut scratch, mut size) = (scratch, 0);
    loop {
        let count = reader.read(&mut piece).map_err(unreadable)?;
        if count == 0 {
            return Ok(size);
        }
        size += count as u64;
        if size > most {
            return Err(too_much(format!(
                "unpacked, it has more than {} GiB",
                most >> 30
            )));
        }
        scratch.write_all(&piece[..count]).map_err(unwritable)?;
    }
}

fn find(region: Region, bounds: Bounds) -> Result<BTreeMap<Path, Place>, Error> {
    let mut places = BTreeMap::new();
    let mut entries = Entries::new(region);
    let mut count = 0;
    while let Some(entry) = entries.next()? {
        count += 1;
        if count > bounds.entries {
            let what = format!(
                "it has more than {} entries beside each other",
                bounds.entries
            );
            return Err(too_much(what));
        }
        let path = Path::parse(&entry.path, bounds.depth)?;
        let region = entries.reader();
        if entry.size > region.size() {
            return Err(damaged(format!(
                "it is cut off: {} goes on after its end",
                shown(&entry.path)
            )));
        }
        let place = match entry.kind {
            Kind::File => Place::File {
                offset: region.position(),
                size: entry.size,
            },
            Kind::Directory => Place::Directory,
            Kind::Link(target) => Place::Link(target_of(&path, &target, bounds)?),
            Kind::Name(target) => Place::Link(Path::parse(&target, bounds.depth)?),
            Kind::Device | Kind::Pipe => {
                let what = format!("{} is a device or a pipe", shown(&entry.path));
                return Err(malformed(what));
            }
        };
        let is_directory = matches!(place, Place::Directory);
        match places.insert(path, place) {
            None => {}
            Some(Place::Directory) if is_directory => {}
            Some(_) => {
                let what = format!("{} is in it twice", shown(&entry.path));
                return Err(malformed(what));
            }
        }
    }
    Ok(places)
}

/// Returns where the target of a link in a directory is.
fn target_of(link: &Path, target: &[u8], bounds: Bounds) -> Result<Path, Error> {
    let (above, _) = link.split_last().unwrap_or_default();
    let mut names = above.to_vec();
    for name in target.split(|&byte| byte == b'/') {
        match name {
            b".." if names.pop().is_none() => {
                let what = format!("a link leads out of it, to {}", shown(target));
                return Err(malformed(what));
            }
            b".." => {}
            name => names.push(name.to_vec()),
        }
    }
    Path::parse(&names.join(&b'/'), bounds.depth)
}

/// Returns the words of a parser, which may repeat what it read.
fn escaped(words: &str) -> String {
    let shown = shown(words);
    shown.trim_matches('"').to_owned()
}
