//! Names this build by all that it is made of, for the keys of templates: a saved machine is only
//! good for the very code that saved it.

use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::{env, fs, io};

const INPUTS: [&str; 5] = [
    "Cargo.lock",
    "Cargo.toml",
    "src",
    "guest/src",
    "target/assets",
];

fn main() -> io::Result<()> {
    let mut files = Vec::new();
    for input in INPUTS {
        println!("cargo::rerun-if-changed={input}");
        collect(Path::new(input), &mut files)?;
    }
    files.sort();
    let mut hash = Sha256::new();
    for file in files {
        let content = fs::read(&file)?;
        hash.update(file.as_os_str().as_encoded_bytes());
        hash.update((content.len() as u64).to_le_bytes());
        hash.update(content);
    }
    // Debug and release builds lay out their data alike, but are not the same build.
    hash.update(env::var("PROFILE").unwrap_or_default());
    println!("cargo::rustc-env=SANDBOX_BUILD={:x}", hash.finalize());
    Ok(())
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
