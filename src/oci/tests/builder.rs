//! A maker of archives, sound ones and others.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::io::Write;
use tar::Header;

/// A tar archive that is being made.
#[derive(Default, Clone)]
pub struct Tar(Vec<u8>);

impl Tar {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn file(self, path: impl AsRef<[u8]>, content: impl AsRef<[u8]>) -> Self {
        self.entry(path, b'0', "", content)
    }

    pub fn program(self, path: &str) -> Self {
        self.with(path, b'0', "", "#!", |header| header.set_mode(0o755))
    }

    pub fn directory(self, path: impl AsRef<[u8]>) -> Self {
        self.with(path, b'5', "", "", |header| header.set_mode(0o755))
    }

    pub fn link(self, path: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Self {
        self.with(path, b'2', target, "", |header| header.set_mode(0o777))
    }

    /// Adds another name of a file.
    pub fn name(self, path: &str, target: &str) -> Self {
        self.entry(path, b'1', target, "")
    }

    pub fn entry(
        self,
        path: impl AsRef<[u8]>,
        flag: u8,
        target: impl AsRef<[u8]>,
        content: impl AsRef<[u8]>,
    ) -> Self {
        self.with(path, flag, target, content, |_| {})
    }

    /// Adds an entry whose header is changed before its sum is computed.
    pub fn with(
        mut self,
        path: impl AsRef<[u8]>,
        flag: u8,
        target: impl AsRef<[u8]>,
        content: impl AsRef<[u8]>,
        change: impl FnOnce(&mut Header),
    ) -> Self {
        let (path, target, content) = (path.as_ref(), target.as_ref(), content.as_ref());
        for (long, flag) in [(path, b'L'), (target, b'K')] {
            if long.len() > 100 {
                let name = [long, b"\0"].concat();
                self = self.entry("././@LongLink", flag, "", name);
            }
        }
        let mut header = Header::new_gnu();
        let old = header.as_old_mut();
        let (path, target) = (
            &path[..path.len().min(100)],
            &target[..target.len().min(100)],
        );
        old.name[..path.len()].copy_from_slice(path);
        old.linkname[..target.len()].copy_from_slice(target);
        old.linkflag = [flag];
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_700_000_000);
        change(&mut header);
        header.set_cksum();
        self.0.extend(header.as_bytes());
        self.0.extend(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    /// Adds a record that says something of the next entry.
    pub fn pax(self, key: &str, value: impl AsRef<[u8]>) -> Self {
        let rest = [b" ", key.as_bytes(), b"=", value.as_ref(), b"\n"].concat();
        let lengths = (1..4).map(|digits| rest.len() + digits);
        let length = lengths
            .into_iter()
            .find(|it| it.to_string().len() + rest.len() == *it);
        let record = [length.unwrap().to_string().as_bytes(), &rest].concat();
        self.entry("pax", b'x', "", record)
    }

    pub fn end(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }

    pub fn unended(self) -> Vec<u8> {
        self.0
    }
}

/// How layers are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packed {
    Plain,
    Gzip,
    Zstd,
}

impl Packed {
    pub fn pack(self, bytes: &[u8]) -> Vec<u8> {
        match self {
            Self::Plain => bytes.into(),
            Self::Gzip => {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), Default::default());
                encoder.write_all(bytes).unwrap();
                encoder.finish().unwrap()
            }
            Self::Zstd => zstd::encode_all(bytes, 1).unwrap(),
        }
    }

    fn media_type(self) -> &'static str {
        match self {
            Self::Plain => "application/vnd.oci.image.layer.v1.tar",
            Self::Gzip => "application/vnd.oci.image.layer.v1.tar+gzip",
            Self::Zstd => "application/vnd.oci.image.layer.v1.tar+zstd",
        }
    }
}

type Change<T> = Box<dyn Fn(&mut T)>;

/// An image whose archive can be made wrong at each step.
pub struct Image {
    pub layers: Vec<Vec<u8>>,
    pub packed: Packed,
    /// What its process is.
    pub process: Value,
    pub config: Change<Value>,
    pub manifest: Change<Value>,
    pub index: Change<Value>,
    pub files: Change<BTreeMap<String, Vec<u8>>>,
}

pub fn image(layers: impl IntoIterator<Item = Tar>) -> Image {
    Image {
        layers: layers.into_iter().map(Tar::end).collect(),
        packed: Packed::Plain,
        process: json!({}),
        config: Box::new(|_| {}),
        manifest: Box::new(|_| {}),
        index: Box::new(|_| {}),
        files: Box::new(|_| {}),
    }
}

pub fn digits(bytes: &[u8]) -> String {
    format!("{:x}", Sha256::digest(bytes))
}

pub fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", digits(bytes))
}

pub fn descriptor(kind: &str, bytes: &[u8]) -> Value {
    json!({ "mediaType": kind, "digest": digest(bytes), "size": bytes.len() })
}

impl Image {
    fn config_bytes(&self) -> Vec<u8> {
        let diff_ids: Vec<_> = self.layers.iter().map(|layer| digest(layer)).collect();
        let mut config = json!({
            "architecture": "amd64",
            "os": "linux",
            "created": "2024-01-01T00:00:00Z",
            "config": self.process,
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
            "history": [{ "created_by": "a test" }],
        });
        (self.config)(&mut config);
        config.to_string().into_bytes()
    }

    /// Returns an OCI image layout in a tar archive.
    pub fn oci(&self) -> Vec<u8> {
        let mut files = BTreeMap::new();
        let mut add = |kind: &str, bytes: Vec<u8>| {
            let described = descriptor(kind, &bytes);
            files.insert(format!("blobs/sha256/{}", digits(&bytes)), bytes);
            described
        };
        let layers = self.layers.iter();
        let layers = layers.map(|layer| add(self.packed.media_type(), self.packed.pack(layer)));
        let layers: Vec<_> = layers.collect();
        let kind = "application/vnd.oci.image.config.v1+json";
        let config = add(kind, self.config_bytes());
        let mut manifest = json!({ "schemaVersion": 2, "config": config, "layers": layers });
        (self.manifest)(&mut manifest);
        let kind = "application/vnd.oci.image.manifest.v1+json";
        let manifest = add(kind, manifest.to_string().into_bytes());
        let mut index = json!({ "schemaVersion": 2, "manifests": [manifest] });
        (self.index)(&mut index);
        files.insert("index.json".into(), index.to_string().into_bytes());
        let layout = br#"{"imageLayoutVersion":"1.0.0"}"#;
        files.insert("oci-layout".into(), layout.to_vec());
        (self.files)(&mut files);
        archive(files)
    }

    /// Returns what `docker save` made before it was an OCI image layout as well.
    pub fn docker(&self) -> Vec<u8> {
        let mut files = BTreeMap::new();
        let config = self.config_bytes();
        let name = format!("{}.json", digits(&config));
        files.insert(name.clone(), config);
        let mut layers = Vec::new();
        for (number, layer) in self.layers.iter().enumerate() {
            let path = format!("{number:064}/layer.tar");
            files.insert(path.clone(), self.packed.pack(layer));
            layers.push(path);
        }
        let mut list = json!([{ "Config": name, "RepoTags": ["registry.example:5000/a/tool:1"], "Layers": layers }]);
        (self.manifest)(&mut list);
        files.insert("manifest.json".into(), list.to_string().into_bytes());
        (self.files)(&mut files);
        archive(files)
    }
}

pub fn archive(files: BTreeMap<String, Vec<u8>>) -> Vec<u8> {
    let add = |tar: Tar, (path, bytes): (String, Vec<u8>)| tar.file(path, bytes);
    files.into_iter().fold(Tar::new(), add).end()
}
