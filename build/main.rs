//! Finds what the binary embeds, and names the code that saved machines depend on.
//!
//! A fresh clone has nothing to embed yet. It compiles nevertheless, so that `cargo check`,
//! `cargo doc` and editors work, and what is built then says that it has no guest.

mod machine_key;

use machine_key::COUNTED;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

/// Where scripts/build-assets puts what is embedded.
const ASSETS: &str = "target/assets";
/// The files in there that `src/image/store.rs` embeds.
const EMBEDDED: [&str; 5] = [
    "agent",
    "kernel.zst",
    "runtime.identity",
    "runtime.zst",
    "versions",
];

fn main() -> io::Result<()> {
    let root = PathBuf::from(variable("CARGO_MANIFEST_DIR")?);
    let mut assets = root.join(ASSETS);
    for path in COUNTED {
        println!("cargo::rerun-if-changed={path}");
    }
    for name in EMBEDDED {
        println!("cargo::rerun-if-changed={ASSETS}/{name}");
    }
    let missing = EMBEDDED.iter().find(|name| !assets.join(name).is_file());
    if let Some(name) = missing {
        println!(
            "cargo::warning={ASSETS}/{name} is missing, so what is built has no guest in it and \
             runs nothing: scripts/build makes the guest and then the binary"
        );
        assets = stand_ins()?;
    }
    let files = EMBEDDED.map(|name| assets.join(name));
    let key = machine_key::compute(&root, &files, &variable("PROFILE")?)?;
    println!("cargo::rustc-env=SANDBOX_ASSETS={}", assets.display());
    println!("cargo::rustc-env=MACHINE_KEY={key}");
    Ok(())
}

fn variable(name: &str) -> io::Result<String> {
    env::var(name).map_err(|error| io::Error::other(format!("{name}: {error}")))
}

/// Makes an empty file for each that is missing, in a directory of their own.
fn stand_ins() -> io::Result<PathBuf> {
    let directory = Path::new(&variable("OUT_DIR")?).join("no-guest");
    fs::create_dir_all(&directory)?;
    for name in EMBEDDED {
        fs::write(directory.join(name), "")?;
    }
    Ok(directory)
}
