//! Wheels that a test makes, and an index of them on this host.

use crate::cache::Share;
use crate::error::Error;
use crate::image::{Image, Packages};
use crate::key::Key;
use crate::limits::ConfineLevel;
use crate::packages::lock::Lock;
use crate::packages::store::Store;
use crate::packages::{Asked, Chosen, Environment, How, choose, setup, uv};
use anyhow::Result;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::thread;
use tempfile::TempDir;

/// Makes the lock of one package that answers this request.
pub fn lock(request: &Key) -> Lock {
    let line = format!("a==1 --hash=sha256:{}\n", "0".repeat(64));
    Lock::parse(&Lock::made(&line, request, "3.13", "linux")).unwrap()
}

/// A file in the form in which packages are published.
#[derive(Clone)]
pub struct Published {
    pub file: String,
    pub content: Vec<u8>,
}

/// Makes a wheel for any Python with these files, which needs these others.
pub fn wheel(name: &str, version: &str, files: &[(&str, &str)], needs: &[&str]) -> Published {
    let info = format!("{name}-{version}.dist-info");
    let needs: String = needs
        .iter()
        .map(|line| format!("Requires-Dist: {line}\n"))
        .collect();
    let metadata = format!("Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}");
    let about = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n";
    let mut all: Vec<(String, String)> = vec![
        (format!("{info}/METADATA"), metadata),
        (format!("{info}/WHEEL"), about.into()),
    ];
    all.extend(
        files
            .iter()
            .map(|(path, text)| (path.to_string(), text.to_string())),
    );
    let lines: String = all.iter().map(|(path, _)| format!("{path},,\n")).collect();
    all.push((
        format!("{info}/RECORD"),
        format!("{lines}{info}/RECORD,,\n"),
    ));
    Published {
        file: format!("{name}-{version}-py3-none-any.whl"),
        content: zip(&all),
    }
}

/// Makes a ZIP archive of these files, without compression.
fn zip(files: &[(String, String)]) -> Vec<u8> {
    let (mut archive, mut directory) = (Vec::new(), Vec::new());
    for (path, text) in files {
        let place = archive.len() as u32;
        let mut common = Vec::new();
        for half in [20u16, 0x800, 0, 0, 0x21] {
            common.extend(half.to_le_bytes());
        }
        for word in [crc32(text.as_bytes()), text.len() as u32, text.len() as u32] {
            common.extend(word.to_le_bytes());
        }
        common.extend((path.len() as u16).to_le_bytes());
        common.extend(0u16.to_le_bytes());
        archive.extend(b"PK\x03\x04");
        archive.extend(&common);
        archive.extend(path.as_bytes());
        archive.extend(text.as_bytes());
        directory.extend(b"PK\x01\x02\x14\x03");
        directory.extend(&common);
        directory.extend([0; 6]);
        directory.extend((0o644u32 << 16).to_le_bytes());
        directory.extend(place.to_le_bytes());
        directory.extend(path.as_bytes());
    }
    let (place, size, count) = (
        archive.len() as u32,
        directory.len() as u32,
        files.len() as u16,
    );
    archive.extend(directory);
    archive.extend(b"PK\x05\x06\0\0\0\0");
    archive.extend([count.to_le_bytes(), count.to_le_bytes()].concat());
    archive.extend([size.to_le_bytes(), place.to_le_bytes()].concat());
    archive.extend([0, 0]);
    archive
}

fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| (crc >> 1) ^ (0xedb8_8320 * (crc & 1));
    let byte = |crc: u32, byte: &u8| (0..8).fold(crc ^ u32::from(*byte), step);
    !bytes.iter().fold(!0, byte)
}

/// An index of packages at an address of this host, which counts how often it is asked.
pub struct Index {
    pub url: String,
    asked: Arc<AtomicUsize>,
}

impl Index {
    /// Serves these for as long as the test runs. The link of a file has the hash in `hashes`, if it is
    /// not that of its content.
    pub fn serve(published: Vec<Published>, hashes: &[(&str, &str)]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/simple", listener.local_addr().unwrap());
        let hashes: BTreeMap<String, String> = hashes
            .iter()
            .map(|(file, hash)| (file.to_string(), hash.to_string()))
            .collect();
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        let served = Arc::new((published, hashes));
        thread::spawn(move || {
            for stream in listener.incoming() {
                count.fetch_add(1, Ordering::SeqCst);
                let served = Arc::clone(&served);
                thread::spawn(move || answer(stream.unwrap(), &served.0, &served.1));
            }
        });
        Self { url, asked }
    }

    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

fn answer(mut stream: TcpStream, published: &[Published], hashes: &BTreeMap<String, String>) {
    let mut lines = BufReader::new(stream.try_clone().unwrap())
        .lines()
        .map_while(Result::ok);
    let Some(first) = lines.next() else { return };
    // The rest of the request is read, lest its sender be cut off.
    for _ in lines.take_while(|line| !line.is_empty()) {}
    let path = first.split(' ').nth(1).unwrap_or_default();
    let is_head = first.starts_with("HEAD");
    let name = path
        .trim_matches('/')
        .rsplit('/')
        .next()
        .unwrap_or_default();
    let found = match path.starts_with("/simple/") {
        true => page(name, published, hashes).map(|page| ("text/html", page.into_bytes())),
        false => published
            .iter()
            .find(|it| it.file == name)
            .map(|it| ("application/zip", it.content.clone())),
    };
    let (status, (kind, body)) = match found {
        Some(found) => ("200 OK", found),
        None => ("404 Not Found", ("text/plain", Vec::new())),
    };
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    let body = if is_head { Vec::new() } else { body };
    // Who asked may not want it any more.
    stream
        .write_all(&[head.into_bytes(), body].concat())
        .unwrap_or_default();
}

/// Returns the page of a distribution (PEP 503), if there is one.
fn page(name: &str, published: &[Published], hashes: &BTreeMap<String, String>) -> Option<String> {
    let files = published.iter().filter(|it| {
        it.file
            .split('-')
            .next()
            .is_some_and(|it| it.replace('_', "-") == name)
    });
    let link = |it: &Published| {
        let own = format!("{:x}", Sha256::digest(&it.content));
        let hash = hashes.get(&it.file).unwrap_or(&own);
        format!(
            "<a href=\"/files/{0}#sha256={hash}\">{0}</a><br>\n",
            it.file
        )
    };
    let links: String = files.map(link).collect();
    (!links.is_empty()).then(|| format!("<!DOCTYPE html><html><body>\n{links}</body></html>\n"))
}

/// A cache of its own for a test, and an index.
pub struct Fixture {
    /// The directory of both, which goes with the test.
    _directory: TempDir,
    pub store: Store,
    pub environment: Environment,
    pub offline: bool,
    pub share: Option<Share>,
    packages: &'static Packages,
}

/// Sees once that there is a uv, which may have to be downloaded.
static UV: LazyLock<()> = LazyLock::new(|| {
    if uv::find(setup::brought()).is_err() {
        let directory = tempfile::tempdir().unwrap();
        let stage = Store::at(directory.path()).stage().unwrap();
        setup::bring(&stage).expect("these tests need uv, or pip to bring it");
    }
});

impl Fixture {
    pub fn new(index: &str) -> Self {
        LazyLock::force(&UV);
        let directory = tempfile::tempdir().unwrap();
        let variables = [("UV_DEFAULT_INDEX", index), ("UV_HTTP_RETRIES", "0")];
        Self {
            store: Store::at(directory.path()),
            _directory: directory,
            environment: Environment::of(
                variables.map(|(name, value)| (name.into(), value.into())),
            ),
            offline: false,
            share: None,
            packages: Image::built_in().packages.as_ref().unwrap(),
        }
    }

    pub fn how(&self) -> How {
        How {
            packages: self.packages.clone(),
            environment: self.environment.clone(),
            known: false,
            offline: self.offline,
            confine: ConfineLevel::Require,
            share: self.share.clone(),
        }
    }

    pub fn choose(&self, words: &[&str]) -> Result<Chosen> {
        let mut asked = Asked::default();
        for word in words {
            asked.add_word(word)?;
        }
        choose(&self.store, &asked, &self.how(), || ())
    }

    #[track_caller]
    pub fn refuses(&self, words: &[&str]) -> Error {
        refusal(self.choose(words))
    }

    /// Returns the names of what is in the cache.
    pub fn left(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.store.directory()).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.filter(|name| name != "downloads").collect();
        names.sort();
        names
    }
}

/// Returns the failure that somebody can do something about.
#[track_caller]
pub fn refusal<T>(result: Result<T>) -> Error {
    let error = result.err().expect("it is refused");
    let known = error.downcast_ref::<Error>();
    known.unwrap_or_else(|| panic!("{error:#}")).clone()
}
