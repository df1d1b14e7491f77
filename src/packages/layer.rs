//! Layers of packages: what a lock names, unpacked once, as a file system that machines mount.

use crate::cache::{Holders, Opened, check_writable, open_trusted};
use crate::error::{Error, Kind, Packages as Way, Remedy};
use crate::fs::is_at;
use crate::image::LayerFile;
use crate::key::Key;
use crate::packages::choice::{How, put_wheels, uv};
use crate::packages::lock::Lock;
use crate::packages::request::Asked;
use crate::packages::staging::Stage;
use crate::packages::store::{LAYERS, Store};
use crate::packages::tree;
use crate::packages::wheel::digest;
use crate::record::Package;
use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{Read, Seek};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// The number of the way in which layers are made; layers of another way are not taken.
const WAY: &[u8] = b"2";
/// The endings of the names of what says which layer a lock has, and of locks on making it.
pub const LABEL: &str = ".layer";
pub const MAKING: &str = ".making";
/// The ending of the names of layers.
pub const LAYER: &str = ".erofs";
/// The names in a stage of the directories of unpacked packages and of their compiled modules.
const TREE: &str = "tree";
const COMPILED: &str = "compiled";

/// The entry of a layer in the cache.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Label {
    pub digest: String,
    pub size: u64,
    pub packages: Vec<Package>,
    /// The names of the modules at its top.
    pub modules: Vec<String>,
}

/// Hears what making a layer comes to, and compiles its modules.
pub trait Maker {
    /// Another process makes the same layer.
    fn waiting(&mut self);
    /// The layer has to be made first.
    fn making(&mut self);
    /// Compiles the modules of this layer where the interpreter that will run them is, and puts the files
    /// into a directory, each under its path in the guest.
    fn compile(&mut self, layer: &LayerFile, directory: &Path) -> Result<()>;
}

impl Store {
    /// Returns the layer of a lock; makes it first if there is none.
    pub fn layer(
        &self,
        lock: &Lock,
        asked: &Asked,
        how: &How,
        maker: &mut dyn Maker,
    ) -> Result<LayerFile> {
        let key = key(lock, how);
        let site = &how.packages.site;
        if let Some(layer) = self.find_layer(&key, how)? {
            return Ok(layer);
        }
        check_writable(self.directory())?;
        let _making = self.begin(&key, || maker.waiting())?;
        if let Some(layer) = self.find_layer(&key, how)? {
            return Ok(layer);
        }
        maker.making();
        let stage = self.stage()?;
        put_wheels(&stage, asked)?;
        fs::write(stage.path("locked"), &lock.text).context("writing a lock")?;
        let unpacked = uv(self, how)?.unpack(&stage, "locked", TREE);
        if let Err(error) = unpacked {
            // What it unpacked of a package that was refused must not be found next time.
            fs::remove_dir_all(self.downloads()?).unwrap_or_default();
            return Err(error);
        }
        tree::tidy(&stage.path(TREE))?;
        let bare = self.write(&stage, "bare", site)?;
        maker.compile(&bare, &stage.path(COMPILED))?;
        tree::add_compiled(&stage.path(TREE), &stage.path(COMPILED), site)?;
        let layer = self.write(&stage, "layer", site)?;
        let layer = self.keep_layer(layer, how)?;
        self.keep_label(&stage, &key, &layer, lock)?;
        Ok(layer)
    }

    /// Finds the layer of this key, if nobody else can have written it.
    fn find_layer(&self, key: &Key, how: &How) -> Result<Option<LayerFile>> {
        let Some(label) = self.label(&format!("{key}{LABEL}"))? else {
            return Ok(None);
        };
        let layer = LayerFile {
            path: self.layers().join(format!("{}{LAYER}", label.digest)),
            size: label.size,
            digest: label.digest,
            mount: how.packages.site.clone(),
            modules: label.modules,
        };
        // One that is gone, or that must not be used, is made again.
        if layer.open().is_err() {
            return Ok(None);
        }
        self.holders()
            .note_use(&item_name(&layer), how.share.as_ref());
        Ok(Some(layer))
    }

    /// Reads a label, if it is one of ours.
    pub fn label(&self, name: &str) -> Result<Option<Label>> {
        let opened = open_trusted(&self.directory().join(name)).context("looking for a layer")?;
        let Opened::Trusted(mut file, _) = opened else {
            return Ok(None);
        };
        let mut text = String::new();
        let read = file.read_to_string(&mut text);
        let label = read
            .ok()
            .and_then(|_| serde_json::from_str::<Label>(&text).ok());
        let is_digest =
            |text: &str| text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit());
        Ok(label.filter(|label| is_digest(&label.digest)))
    }

    /// Takes the right to make the layer of this key. If another process has it, `waiting` is called
    /// before the wait.
    fn begin(&self, key: &Key, waiting: impl FnOnce()) -> Result<Flock<File>> {
        let path = self.directory().join(format!("{key}{MAKING}"));
        let doing = || format!("locking {}", path.display());
        let mut waiting = Some(waiting);
        loop {
            let mut options = File::options();
            let options = options.write(true).create(true).truncate(false).mode(0o600);
            let file = options
                .custom_flags(libc::O_NOFOLLOW)
                .open(&path)
                .with_context(doing)?;
            let held = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Err((file, Errno::EWOULDBLOCK)) => {
                    waiting.take().into_iter().for_each(|waiting| waiting());
                    Flock::lock(file, FlockArg::LockExclusive)
                }
                result => result,
            };
            let held = held.map_err(|(_, errno)| errno).with_context(doing)?;
            // If the file was pruned meanwhile, others lock the file that is there now.
            if is_at(&held, &path).with_context(doing)? {
                return Ok(held);
            }
        }
    }

    /// Writes the tree of the stage as a layer, in a file of the stage.
    fn write(&self, stage: &Stage, name: &str, site: &str) -> Result<LayerFile> {
        let plan = tree::plan(&stage.path(TREE))?;
        let path = stage.path(name);
        let mut options = File::options();
        let options = options.read(true).write(true).create_new(true).mode(0o400);
        let mut image = options.open(&path).context("making a layer")?;
        plan.write(&image)
            .map_err(|error| no_space(error, self.directory()))?;
        image.sync_all().context("writing a layer")?;
        image.rewind().context("reading a layer")?;
        Ok(LayerFile {
            path,
            size: plan.size(),
            digest: digest(image).context("reading a layer")?,
            mount: site.into(),
            modules: tree::modules(&stage.path(TREE))?,
        })
    }

    /// Gives a layer that is whole its name.
    fn keep_layer(&self, layer: LayerFile, how: &How) -> Result<LayerFile> {
        let path = self.layers().join(format!("{}{LAYER}", layer.digest));
        let (name, share) = (item_name(&layer), how.share.as_ref());
        match path.exists() {
            // Another lock came to the same.
            true => drop(self.holders().note_use(&name, share)),
            false => self.holders().note_making(&name, share)?,
        }
        fs::rename(&layer.path, &path).with_context(|| format!("writing {}", path.display()))?;
        Ok(LayerFile { path, ..layer })
    }

    fn holders(&self) -> Holders {
        Holders::beside(self.layers())
    }

    fn keep_label(&self, stage: &Stage, key: &Key, layer: &LayerFile, lock: &Lock) -> Result<()> {
        let label = Label {
            digest: layer.digest.clone(),
            size: layer.size,
            packages: lock.packages.clone(),
            modules: layer.modules.clone(),
        };
        let text = serde_json::to_string(&label).context("describing a layer")?;
        self.put(stage, &format!("{key}{LABEL}"), &text)
    }
}

/// Returns the name of a layer on the shelf.
fn item_name(layer: &LayerFile) -> String {
    format!("{LAYERS}/{}{LAYER}", layer.digest)
}

/// Returns the key of the layer of a lock, for this interpreter.
fn key(lock: &Lock, how: &How) -> Key {
    let packages = &how.packages;
    let parts = [
        WAY,
        packages.python.as_bytes(),
        packages.platform.as_bytes(),
        packages.site.as_bytes(),
    ];
    let lock = lock.key();
    Key::of(&[parts.as_slice(), &[lock.as_str().as_bytes()]].concat())
}

/// Says of a failure whether the disk is full.
fn no_space(error: anyhow::Error, directory: &Path) -> anyhow::Error {
    let errno = error
        .chain()
        .find_map(|cause| match cause.downcast_ref::<std::io::Error>() {
            Some(error) => error.raw_os_error(),
            None => cause.downcast_ref::<Errno>().map(|errno| *errno as i32),
        });
    match errno {
        Some(libc::ENOSPC | libc::EDQUOT | libc::EFBIG) => {
            let shown = directory.display();
            Error::new(
                Kind::Packages,
                format!("there is no space for the packages in {shown}"),
                Remedy::GetPackages(Way::FreeSpace),
            )
            .into()
        }
        _ => error,
    }
}
