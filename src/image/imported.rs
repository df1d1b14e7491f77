//! Images that the user imported.

use crate::cache::{self, Item, Opened, Removed, Shelf, check_writable, mark_used, open_trusted};
use crate::error::{Error, Image as Way, Kind, Remedy};
use crate::fs::{BLOCK, remove};
use crate::image::descriptor::Files;
use crate::image::draft::{Draft, unwritable};
use crate::image::image_file::{self, DESCRIPTION_MAX, open, unreadable};
use crate::image::layer_file::{LayerFile, OVER_SYSTEM, WHOLE_SYSTEM};
use crate::image::name::{NAME_MAX, is_name};
use crate::image::{Image, System, known_languages, store};
use crate::text::escape_line;
use anyhow::{Context, Result};
use nix::fcntl::Flock;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The beginning of a file's name until it is whole.
const UNFINISHED: &str = ".import-";

/// What an image that others made comes to.
pub struct Foreign {
    pub name: String,
    pub system: System,
    /// The names of the programs in it.
    pub programs: Vec<String>,
}

/// The directory with the images: `NAME.toml` describes one, and names its file system.
pub struct Imported(PathBuf);

impl Imported {
    pub fn open() -> Result<Self> {
        cache::subdirectory("images").map(Self)
    }

    /// Returns all images that can be used, by name.
    pub fn all(&self) -> Result<Vec<Image>> {
        let found = self.names()?.into_iter();
        // What is refused is told to whoever names it.
        let images = found.filter_map(|name| self.find(&name).ok().flatten());
        Ok(images.collect())
    }

    /// Returns the names of all images, in order.
    pub fn names(&self) -> Result<Vec<String>> {
        let files = store::files(&self.0, |name| name.ends_with(".toml"))?;
        let names = files
            .iter()
            .filter_map(|(name, _)| name.strip_suffix(".toml"));
        let names = names.filter(|name| is_name(name));
        let mut names: Vec<_> = names.map(str::to_owned).collect();
        names.sort();
        Ok(names)
    }

    /// Returns the image with this name, if there is one.
    pub fn find(&self, name: &str) -> Result<Option<Image>> {
        let Some(path) = self.description(name) else {
            return Ok(None);
        };
        let text = match open_trusted(&path)? {
            Opened::Trusted(file, _) => io::read_to_string(file)?,
            Opened::Missing => return Ok(None),
            Opened::Refused(why) => return Err(refused(&path, why).into()),
        };
        let image = Image::parse(&text).map_err(|why| refused(&path, &why))?;
        if let Some(files) = &image.files {
            check_base(files).map_err(|why| refused(&path, &why))?;
        }
        Ok(Some(image))
    }

    /// Takes in the image in this file, in place of one with the same name; returns it. The file must be an
    /// image of ours.
    pub fn import(&self, from: &Path) -> Result<Image> {
        check_writable(&self.0)?;
        let mut file = open(from)?;
        let text = image_file::description(&mut file)
            .map_err(|error| unreadable(from, &error))?
            .ok_or_else(|| refused(from, "it is not an image that scripts/build-image made"))?;
        let image = Image::parse(&text).map_err(|why| refused(from, &why))?;
        let files = image.files.as_ref();
        let files = files.ok_or_else(|| refused(from, "it says nothing of its file system"))?;
        check_name(&image.name).map_err(|why| refused(from, &why))?;
        check_base(files).map_err(|why| refused(from, &why))?;
        let _lock = self.lock()?;
        let unpack = |into: &mut File| store::unpack(&file, into, (&files.sha256, files.size));
        self.place(&self.file_system(files), unpack)
            .map_err(|error| refused(from, &format!("{error:#}")))?;
        self.describe(&image, &text)?;
        Ok(image)
    }

    /// Takes in an image that others made, in place of one with the same name; returns it. `unpack` writes its
    /// file system to an empty file, and tells a name without a fault.
    pub fn import_foreign(
        &self,
        from: &Path,
        unpack: impl FnOnce(File, &File) -> Result<Foreign>,
    ) -> Result<Image> {
        check_writable(&self.0)?;
        let archive = open(from)?;
        let _lock = self.lock()?;
        let draft = self.draft()?;
        let foreign = unpack(archive, &draft.file)?;
        draft.file.sync_all().context("writing an image to disk")?;
        let files = Files {
            sha256: draft.digest()?,
            size: draft.file.metadata()?.len(),
            base: None,
        };
        let (image, text) = described(foreign, &files).map_err(|why| unusable(from, &why))?;
        let path = self.file_system(&files);
        draft.keep(&path).context("renaming a file")?;
        self.describe(&image, &text)?;
        Ok(image)
    }

    /// Writes an image that was imported to a file, which [`Imported::import`] takes anywhere.
    pub fn export(&self, image: &Image, to: &Path) -> Result<()> {
        let files = image.files.as_ref().context("finding its files")?;
        let file_system = self.runtime(image, files)?;
        let text = toml::to_string(image).context("describing an image")?;
        let mut draft = Draft::beside(to)?;
        image_file::write(&mut draft.file, &text, &file_system)
            .map_err(|error| unwritable(to, error))?;
        Ok(draft.keep(to).map_err(|error| unwritable(to, error))?)
    }

    /// Takes the right to change what is here, and removes what killed processes left.
    fn lock(&self) -> Result<Flock<File>> {
        let lock = store::lock(&self.0)?;
        for (_, path) in store::files(&self.0, |name| name.starts_with(UNFINISHED))? {
            remove(&path)?;
        }
        Ok(lock)
    }

    /// Makes the description of an image whose file system is there.
    fn describe(&self, image: &Image, text: &str) -> Result<()> {
        let path = self.description(&image.name);
        let path = path.context("finding a place for its description")?;
        self.place(&path, |into| Ok(into.write_all(text.as_bytes())?))?;
        self.sweep()
    }

    /// Removes the image with this name; returns whether there was one.
    pub fn remove(&self, name: &str) -> Result<bool> {
        let Some(path) = self.description(name) else {
            return Ok(false);
        };
        let _lock = store::lock(&self.0)?;
        let was_there = remove(&path)?.is_some();
        self.sweep()?;
        Ok(was_there)
    }

    /// Removes the file systems that no image has. A run that uses one keeps it.
    fn sweep(&self) -> Result<()> {
        let images = self.all()?;
        if images.len() < self.names()?.len() {
            // They may be those of another version.
            return Ok(());
        }
        let needed: Vec<_> = images.iter().flat_map(|image| &image.files).collect();
        for (_, path) in store::files(&self.0, |name| name.ends_with(".erofs"))? {
            if !needed.iter().any(|files| self.file_system(files) == path) {
                remove(&path)?;
            }
        }
        Ok(())
    }

    /// Returns the layer of an image whose files are one.
    fn layer(&self, image: &Image, files: &Files) -> LayerFile {
        let mount = match &image.system {
            Some(_) => WHOLE_SYSTEM,
            None => OVER_SYSTEM,
        };
        LayerFile {
            path: self.file_system(files),
            size: files.size,
            digest: files.sha256.clone(),
            mount: mount.into(),
            modules: Vec::new(),
        }
    }

    /// Opens the file system of an image, or its layer.
    fn runtime(&self, image: &Image, files: &Files) -> Result<File> {
        let path = self.file_system(files);
        let why = match open_trusted(&path)? {
            Opened::Trusted(file, metadata) if metadata.len() == files.size => {
                mark_used(&file, metadata.mtime());
                return Ok(file);
            }
            Opened::Trusted(..) => "it has another size than was imported",
            Opened::Missing => "it is gone",
            Opened::Refused(why) => why,
        };
        let name = &image.name;
        Err(Error::new(
            Kind::File,
            format!("the file system of the image {name} cannot be used: {why}"),
            Remedy::GetImage(Way::ImportAgain),
        )
        .into())
    }

    /// Returns where the description of an image with this name is, if one can have it.
    fn description(&self, name: &str) -> Option<PathBuf> {
        is_name(name).then(|| self.0.join(format!("{name}.toml")))
    }

    fn file_system(&self, files: &Files) -> PathBuf {
        self.0.join(store::runtime_name(&files.sha256))
    }

    fn draft(&self) -> Result<Draft> {
        let name = format!("{UNFINISHED}{}", std::process::id());
        // Nobody changes what is here.
        Draft::new(self.0.join(name), 0o400)
    }

    /// Makes a file, all at once.
    fn place(&self, path: &Path, write: impl FnOnce(&mut File) -> Result<()>) -> Result<()> {
        let mut draft = self.draft()?;
        write(&mut draft.file)?;
        draft.file.sync_all().context("writing it to disk")?;
        draft.keep(path).context("renaming a file")
    }
}

/// Opens the runtime image of an image.
pub fn runtime(image: &Image) -> Result<File> {
    match &image.files {
        Some(files) if !image.is_layer() => Imported::open()?.runtime(image, files),
        _ => store::runtime(),
    }
}

/// Returns the layer that an image lays over the runtime image or beside it, if it does.
pub fn layer(image: &Image) -> Result<Option<LayerFile>> {
    let files = image.files.as_ref().filter(|_| image.is_layer());
    let Some(files) = files else { return Ok(None) };
    let imported = Imported::open()?;
    imported.runtime(image, files)?;
    Ok(Some(imported.layer(image, files)))
}

/// Returns what is wrong with a name for an image that is imported, if anything is.
pub fn name_fault(name: &str) -> Option<String> {
    if !is_name(name) {
        return Some(format!(
            "is none that an image can have: that has 1 to {NAME_MAX} of the characters A to Z, digits, ., - and _, no . or - \
             at its beginning, and no .toml at its end"
        ));
    }
    let is_built_in = name == Image::built_in().name;
    is_built_in.then(|| "is that of the image that is built in".into())
}

/// Checks that an image may have this name.
fn check_name(name: &str) -> Result<(), String> {
    name_fault(name).map_or(Ok(()), |fault| Err(format!("its name, {name}, {fault}")))
}

/// Checks that what a layer lies over is built in.
fn check_base(files: &Files) -> Result<(), String> {
    let ours = store::identity().ok().map(|(digest, _)| digest);
    match &files.base {
        Some(base) if Some(base.as_str()) != ours => {
            Err("it lies over the guest of another version of sandbox".into())
        }
        _ => Ok(()),
    }
}

/// Returns the image that others made with these files, and its description.
fn described(foreign: Foreign, files: &Files) -> Result<(Image, String), String> {
    check_name(&foreign.name)?;
    let image = Image {
        name: foreign.name,
        packages: None,
        files: Some(files.clone()),
        system: Some(foreign.system),
        languages: known_languages::of_programs(&foreign.programs),
    };
    let text = toml::to_string(&image).map_err(|error| error.to_string())?;
    if text.len() > DESCRIPTION_MAX as usize {
        return Err(format!(
            "its environment, its command and what its programs are known by have more than {DESCRIPTION_MAX} bytes"
        ));
    }
    // What was written is read as any other.
    Ok((Image::parse(&text)?, text))
}

/// Returns the failure with what others say of their image.
fn unusable(path: &Path, why: &str) -> Error {
    Error {
        remedy: "make the image with a shorter environment and a shorter command".into(),
        ..refused(path, why)
    }
}

fn refused(path: &Path, why: &str) -> Error {
    Error::new(
        Kind::File,
        escape_line(&format!("the image {} is refused: {why}", path.display())),
        Remedy::GetImage(Way::MakeAgain),
    )
}

/// Imported images take room as all else does, but only whoever imported them removes them.
impl Shelf for Imported {
    fn items(&self) -> Result<Vec<Item>> {
        let mut items = Vec::new();
        for name in self.names()? {
            let Some(description) = self.description(&name) else {
                continue;
            };
            let (path, about) = match self.find(&name) {
                Ok(Some(image)) => match &image.files {
                    Some(files) => (
                        self.file_system(files),
                        Ok("an image that was imported".into()),
                    ),
                    None => continue,
                },
                Ok(None) => continue,
                Err(error) => (description, Err(error.to_string())),
            };
            // It may have been removed meanwhile.
            if let Ok(metadata) = path.symlink_metadata() {
                items.push(Item {
                    name: format!("images/{name}"),
                    size: metadata.blocks() * BLOCK,
                    used: metadata.mtime(),
                    is_needed: true,
                    is_spare: false,
                    about,
                });
            }
        }
        Ok(items)
    }

    fn remove(&self, _: &str) -> Result<bool> {
        Ok(false)
    }

    fn sweep(&self) -> Result<Removed> {
        Ok(Removed::default())
    }

    fn verify(&self, name: &str) -> Result<bool> {
        let image = name.rsplit('/').next().map(|name| self.find(name));
        let files = image.transpose()?.flatten().and_then(|image| image.files);
        let Some(files) = files else { return Ok(true) };
        let mut hash = Sha256::new();
        io::copy(&mut File::open(self.file_system(&files))?, &mut hash)?;
        Ok(format!("{:x}", hash.finalize()) == files.sha256)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// A directory with images in it, beside which there is a file that is none.
    fn beside_a_victim() -> (tempfile::TempDir, Imported) {
        let directory = tempfile::tempdir().unwrap();
        let images = directory.path().join("images");
        fs::create_dir(&images).unwrap();
        fs::write(directory.path().join("victim.toml"), "x").unwrap();
        (directory, Imported(images))
    }

    #[test]
    fn a_name_that_leads_out_is_that_of_no_image() {
        let (directory, images) = beside_a_victim();
        let absolute = directory.path().join("victim");
        for name in [
            "../victim",
            "x/../../victim",
            absolute.to_str().unwrap(),
            "",
        ] {
            assert!(!images.remove(name).unwrap(), "{name}");
            assert_eq!(images.find(name).unwrap(), None, "{name}");
        }
        assert!(directory.path().join("victim.toml").exists());
    }

    #[test]
    fn names_of_files_that_no_image_can_have_are_not_listed() {
        let (_directory, images) = beside_a_victim();
        for name in ["good.toml", "x.toml.toml", "-x.toml", ".toml", "other"] {
            fs::write(images.0.join(name), "").unwrap();
        }
        assert_eq!(images.names().unwrap(), ["good"]);
    }

    #[test]
    fn an_image_that_is_imported_is_not_called_as_the_one_that_is_built_in() {
        assert_eq!(name_fault("python3.11"), None);
        assert!(name_fault("python").unwrap().contains("built in"));
        assert!(name_fault("../x").unwrap().contains("none that an image"));
    }
}
