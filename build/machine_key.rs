//! The key of all that saved machines depend on: it is in the name of each template.
//!
//! A saved machine is only good for the code that saved it: that code laid out the guest's memory,
//! wrote down vCPU and devices, and knows the job for which the saved interpreter waits. So that
//! code is counted, with what it embeds. The rest, such as the command line, can change without a
//! template being built again, and so can the comments in what is counted.

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::{fs, io};

/// What counts: what makes a machine, saves it, restores it, hands it its job and answers it; the
/// protocol with the guest; what tries whether guests run natively, for its verdicts are kept under
/// this key as well; and the crates that do parts of it, which decide how states are encoded.
pub const COUNTED: [&str; 17] = [
    "Cargo.lock",
    "Cargo.toml",
    "guest/src",
    "src/agent",
    "src/checkpoint",
    "src/clock.rs",
    "src/devices",
    "src/image",
    "src/job",
    "src/key.rs",
    "src/kvm_mode",
    "src/limits.rs",
    "src/random.rs",
    "src/template",
    "src/units.rs",
    "src/vm",
    "src/watchdog.rs",
];

/// Gives the key of the code below `root` in this profile, and of these assets.
pub fn compute(root: &Path, assets: &[PathBuf], profile: &str) -> io::Result<String> {
    let mut files = Vec::new();
    for path in COUNTED {
        collect(&root.join(path), &mut files)?;
    }
    files.sort();
    let mut hash = Sha256::new();
    for file in files {
        let name = file.strip_prefix(root).map_err(io::Error::other)?;
        add(&mut hash, name.as_os_str().as_encoded_bytes());
        add(&mut hash, &content(&file)?);
    }
    for file in assets {
        add(&mut hash, &read(file)?);
    }
    // Debug and release builds lay out their data alike, but are not the same build.
    add(&mut hash, profile.as_bytes());
    Ok(format!("{:x}", hash.finalize()))
}

/// Adds bytes with their length, lest one move from them to the next unnoticed.
fn add(hash: &mut Sha256, bytes: &[u8]) {
    hash.update((bytes.len() as u64).to_le_bytes());
    hash.update(bytes);
}

fn collect(path: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    if !path.is_dir() {
        files.push(path.into());
        return Ok(());
    }
    for entry in fs::read_dir(path)? {
        collect(&entry?.path(), files)?;
    }
    Ok(())
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let explain = |error| io::Error::other(format!("reading {}: {error}", path.display()));
    fs::read(path).map_err(explain)
}

/// Reads a file: of Rust, only what the compiler takes for code.
fn content(path: &Path) -> io::Result<Vec<u8>> {
    let bytes = read(path)?;
    let is_rust = path.extension().is_some_and(|extension| extension == "rs");
    let text = str::from_utf8(&bytes).ok().filter(|_| is_rust);
    // What cannot be read as Rust will not compile either.
    Ok(match text.and_then(|text| text.parse().ok()) {
        Some(tokens) => without_docs(tokens).to_string().into(),
        None => bytes,
    })
}

/// Takes out `#[doc …]` and `#![doc …]`, which is what becomes of comments on items.
fn without_docs(tokens: TokenStream) -> TokenStream {
    let mut kept: Vec<TokenTree> = Vec::new();
    for token in tokens {
        let TokenTree::Group(group) = &token else {
            kept.push(token);
            continue;
        };
        let before = |place| kept.len().checked_sub(place).map(|index| &kept[index]);
        let marks = match (before(2), before(1)) {
            (_, Some(last)) if is_mark(last, '#') => 1,
            (Some(first), Some(last)) if is_mark(first, '#') && is_mark(last, '!') => 2,
            _ => 0,
        };
        if marks > 0 && is_doc(group) {
            kept.truncate(kept.len() - marks);
        } else {
            let inner = without_docs(group.stream());
            kept.push(proc_macro2::Group::new(group.delimiter(), inner).into());
        }
    }
    kept.into_iter().collect()
}

fn is_mark(token: &TokenTree, mark: char) -> bool {
    matches!(token, TokenTree::Punct(punct) if punct.as_char() == mark)
}

fn is_doc(group: &proc_macro2::Group) -> bool {
    let first = group.stream().into_iter().next();
    let is_named_doc = matches!(first, Some(TokenTree::Ident(name)) if name == "doc");
    group.delimiter() == Delimiter::Bracket && is_named_doc
}
