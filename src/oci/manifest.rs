//! Which image of an archive is taken: its configuration, its layers and its name.

use crate::error::Error;
use crate::oci::archive::Archive;
use crate::oci::bounds::Bounds;
use crate::oci::digest::Digest;
use crate::oci::documents::{Config, Descriptor, Index, Manifest, Platform, Process, Saved};
use crate::oci::name::{of_annotation, of_tag};
use crate::oci::refusal::{damaged, malformed, refused, shown, too_much};

/// How often a list may lead to another.
const INDEXES_MAX: usize = 4;
const ARCHITECTURE: &str = "amd64";
const OS: &str = "linux";
const INDEXES: [&str; 2] = [
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
];
const MANIFESTS: [&str; 2] = [
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
];
const CONFIGS: [&str; 2] = [
    "application/vnd.oci.image.config.v1+json",
    "application/vnd.docker.container.image.v1+json",
];
/// What the types of layers begin with. How each is compressed is told by its bytes.
const LAYERS: [&str; 4] = [
    "application/vnd.oci.image.layer.v1.tar",
    "application/vnd.oci.image.layer.nondistributable.v1.tar",
    "application/vnd.docker.image.rootfs.diff.tar",
    "application/vnd.docker.image.rootfs.foreign.diff.tar",
];
const COMPRESSIONS: [&str; 5] = ["", "+gzip", "+zstd", ".gzip", ".zstd"];

/// The image that is taken.
pub struct Chosen {
    pub name: Option<String>,
    pub process: Process,
    pub layers: Vec<Layer>,
}

/// A layer in the archive.
#[derive(Debug)]
pub struct Layer {
    pub path: String,
    /// That of the bytes in the archive, if it is known.
    pub digest: Option<Digest>,
    /// That of the layer as it was before it was compressed.
    pub diff_id: Digest,
}

/// Chooses the only image in an archive that runs here.
pub fn choose(archive: &Archive, bounds: Bounds) -> Result<Chosen, Error> {
    let saved = match archive.has("manifest.json") {
        true => Some(only_saved(archive)?),
        false => None,
    };
    let chosen = match saved {
        // docker save has both lists since its version 25, and this one has better names.
        _ if archive.has("index.json") => of_layout(archive, saved)?,
        Some(saved) => of_saved(archive, saved)?,
        None => {
            return Err(refused(
                "it has neither index.json nor manifest.json, so it is no archive of an image",
                "make one: docker save, podman save, or skopeo copy … oci-archive:FILE",
            ));
        }
    };
    if chosen.layers.len() > bounds.layers {
        return Err(too_much(format!(
            "it has more than {} layers",
            bounds.layers
        )));
    }
    Ok(chosen)
}

fn only_saved(archive: &Archive) -> Result<Saved, Error> {
    let saved: Vec<Saved> = archive.document("manifest.json", None)?;
    let count = saved.len();
    match <[Saved; 1]>::try_from(saved) {
        Ok([saved]) => Ok(saved),
        Err(_) => Err(not_one(count)),
    }
}

fn not_one(count: usize) -> Error {
    match count {
        0 => damaged("it has no image in it"),
        _ => refused(
            format!("it has {count} images in it"),
            "save one image alone",
        ),
    }
}

fn of_saved(archive: &Archive, saved: Saved) -> Result<Chosen, Error> {
    let digest = digest_in(&saved.config);
    let config: Config = archive.document(&saved.config, digest.as_ref())?;
    let (process, diff_ids) = checked(config, saved.layers.len())?;
    let layers = saved.layers.into_iter().zip(diff_ids);
    let layers = layers.map(|(path, diff_id)| Layer {
        digest: path
            .starts_with("blobs/")
            .then(|| digest_in(&path))
            .flatten(),
        path,
        diff_id,
    });
    Ok(Chosen {
        name: saved.repo_tags.iter().flatten().find_map(|tag| of_tag(tag)),
        process,
        layers: layers.collect(),
    })
}

/// Returns the digest that a path ends in, if it does.
fn digest_in(path: &str) -> Option<Digest> {
    let (_, last) = path.rsplit_once('/').unwrap_or(("", path));
    Digest::of_digits(last.strip_suffix(".json").unwrap_or(last))
}

fn of_layout(archive: &Archive, saved: Option<Saved>) -> Result<Chosen, Error> {
    let mut annotated = None;
    let mut index: Index = archive.document("index.json", None)?;
    for _ in 0..INDEXES_MAX {
        let descriptor = suitable(index)?;
        annotated = annotated.or_else(|| of_annotation(&descriptor));
        if !INDEXES.contains(&descriptor.media_type.as_str()) {
            let tags = saved.iter().flat_map(|saved| &saved.repo_tags).flatten();
            let name = tags.into_iter().find_map(|tag| of_tag(tag)).or(annotated);
            return of_manifest(archive, &descriptor, name);
        }
        index = blob(archive, &descriptor)?;
    }
    Err(malformed(
        "its lists of images lead to more lists without an end",
    ))
}

/// Returns the only image of a list that runs here, or the list that has it.
fn suitable(index: Index) -> Result<Descriptor, Error> {
    let all = index.manifests.unwrap_or_default();
    let mut found: Vec<&Descriptor> = all.iter().filter(|one| may_run(one)).collect();
    found.dedup_by(|one, other| one.digest == other.digest);
    match found[..] {
        [descriptor] => Ok(descriptor.clone()),
        [] => match all.iter().find_map(|one| one.platform.as_ref()) {
            Some(platform) => Err(foreign(platform)),
            None => Err(not_one(0)),
        },
        _ => Err(not_one(found.len())),
    }
}

fn may_run(descriptor: &Descriptor) -> bool {
    let platform = descriptor.platform.as_ref();
    platform.is_none_or(|it| it.architecture == ARCHITECTURE && it.os == OS)
}

fn foreign(platform: &Platform) -> Error {
    let is_for = format!("{}/{}", platform.os, platform.architecture);
    refused(
        format!("it is for {}, not for {OS}/{ARCHITECTURE}", shown(is_for)),
        &format!("save the image for the platform {OS}/{ARCHITECTURE}"),
    )
}

/// Reads a document that a descriptor names.
fn blob<T: serde::de::DeserializeOwned>(
    archive: &Archive,
    descriptor: &Descriptor,
) -> Result<T, Error> {
    let digest = described(archive, descriptor)?;
    archive.document(&digest.path(), Some(&digest))
}

/// Checks that a blob is there with the size that is told of it. Returns its digest.
fn described(archive: &Archive, descriptor: &Descriptor) -> Result<Digest, Error> {
    let digest = Digest::parse(&descriptor.digest)?;
    let path = digest.path();
    let size = archive.region(path.as_bytes())?.size();
    match size == descriptor.size {
        true => Ok(digest),
        false => Err(damaged(format!(
            "{} has {size} bytes, and should have {}",
            shown(path),
            descriptor.size
        ))),
    }
}

fn of_manifest(
    archive: &Archive,
    descriptor: &Descriptor,
    name: Option<String>,
) -> Result<Chosen, Error> {
    require_type(descriptor, "an image", |kind| MANIFESTS.contains(&kind))?;
    let manifest: Manifest = blob(archive, descriptor)?;
    require_type(&manifest.config, "the configuration of an image", |kind| {
        CONFIGS.contains(&kind)
    })?;
    let config: Config = blob(archive, &manifest.config)?;
    let (process, diff_ids) = checked(config, manifest.layers.len())?;
    let mut layers = Vec::new();
    for (layer, diff_id) in manifest.layers.iter().zip(diff_ids) {
        require_type(layer, "a layer", is_layer)?;
        let digest = described(archive, layer)?;
        layers.push(Layer {
            path: digest.path(),
            digest: Some(digest),
            diff_id,
        });
    }
    Ok(Chosen {
        name,
        process,
        layers,
    })
}

fn is_layer(kind: &str) -> bool {
    let ends = LAYERS.iter().filter_map(|layer| kind.strip_prefix(layer));
    ends.into_iter().any(|end| COMPRESSIONS.contains(&end))
}

fn require_type(
    descriptor: &Descriptor,
    what: &str,
    is_right: impl Fn(&str) -> bool,
) -> Result<(), Error> {
    let kind = descriptor.media_type.as_str();
    if is_right(kind) {
        return Ok(());
    }
    let kind = shown(kind);
    Err(match descriptor.media_type.ends_with("+encrypted") {
        true => refused(
            format!("{what} is encrypted: its type is {kind}"),
            "save the image with its layers decrypted",
        ),
        false => refused(
            format!("{what} has the type {kind}, which is unknown"),
            "save an image that runs as a container, in the form of OCI or of docker",
        ),
    })
}

/// Checks a configuration of an image of so many layers. Returns what it says of its process, and the digests.
fn checked(config: Config, layers: usize) -> Result<(Process, Vec<Digest>), Error> {
    if config.platform.architecture != ARCHITECTURE || config.platform.os != OS {
        return Err(foreign(&config.platform));
    }
    if config.rootfs.kind != "layers" {
        let kind = shown(&config.rootfs.kind);
        return Err(malformed(format!(
            "its file system is made of {kind}, not of layers"
        )));
    }
    let diff_ids = config.rootfs.diff_ids.unwrap_or_default();
    if diff_ids.len() != layers {
        let count = diff_ids.len();
        let what = format!("it has {layers} layers, and its configuration has {count}");
        return Err(malformed(what));
    }
    let diff_ids = diff_ids.iter().map(|digest| Digest::parse(digest));
    let diff_ids = diff_ids.collect::<Result<_, _>>()?;
    Ok((config.config.unwrap_or_default(), diff_ids))
}
