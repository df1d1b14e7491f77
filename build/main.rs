//! Names the code that saved machines depend on, with what the binary embeds.

mod machine_key;

use machine_key::COUNTED;
use std::path::PathBuf;
use std::{env, io};

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
    let assets = root.join(ASSETS);
    for path in COUNTED {
        println!("cargo::rerun-if-changed={path}");
    }
    for name in EMBEDDED {
        println!("cargo::rerun-if-changed={ASSETS}/{name}");
    }
    let files = EMBEDDED.map(|name| assets.join(name));
    let key = machine_key::compute(&root, &files, &variable("PROFILE")?)?;
    println!("cargo::rustc-env=MACHINE_KEY={key}");
    Ok(())
}

fn variable(name: &str) -> io::Result<String> {
    env::var(name).map_err(|error| io::Error::other(format!("{name}: {error}")))
}
