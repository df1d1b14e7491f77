//! `uv` for those who do not have it: one version of it, that was tried, brought by the pip that is there.

use crate::cache::{Opened, open_trusted};
use crate::error::{Error, Kind};
use crate::packages::staging::Stage;
use crate::packages::wheel;
use crate::text::escape_control;
use anyhow::{Context, Result};
use std::env;
use std::fs::{self, DirBuilder, Permissions};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The version, which `scripts/pin` does not renew: what uv says, and takes, is tested with it.
pub const VERSION: &str = "0.13.9";
/// SHA-256 of the wheel of the program that is linked statically, and of the program in it.
const WHEEL: &str = "2c45530751517d6c3bbc69a19473f6effe47cce047bede01ffd8af7ea7b36b25";
const PROGRAM: &str = "edbfb9a3d00dc84148e6691cd8740781fdc32db6505d7ef88ba6c3e569d5bec9";
const PLATFORM: &str = "musllinux_1_1_x86_64";

/// The commands that may be pip, in the order in which they are tried.
const PIPS: [&[&str]; 3] = [&["python3", "-m", "pip"], &["pip3"], &["pip"]];

/// Returns where the program is kept, whether it is there or not.
pub fn place() -> Option<PathBuf> {
    let absolute = |name| {
        env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    let data =
        absolute("XDG_DATA_HOME").or_else(|| Some(absolute("HOME")?.join(".local/share")))?;
    Some(data.join("sandbox").join(format!("uv-{VERSION}")))
}

/// Returns the program that was brought, if it is there and nobody else can have written it.
pub fn brought() -> Option<PathBuf> {
    let place = place()?;
    matches!(open_trusted(&place), Ok(Opened::Trusted(..))).then_some(place)
}

/// Brings the program, unless it is there. Returns where it is.
pub fn bring(stage: &Stage) -> Result<PathBuf> {
    if let Some(place) = brought() {
        return Ok(place);
    }
    let place = place().ok_or_else(|| {
        Error::new(
            Kind::Packages,
            "there is no directory to put uv into: neither XDG_DATA_HOME nor HOME names one",
            "name a directory of yours: XDG_DATA_HOME=DIRECTORY",
        )
    })?;
    let program = download(stage)?;
    let directory = place.parent().context("a place in a directory")?;
    let doing = || format!("putting uv into {}", directory.display());
    let mut builder = DirBuilder::new();
    builder
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .with_context(doing)?;
    // The cache may be on another file system.
    let draft = directory.join(format!(".uv-{}", std::process::id()));
    let put = fs::copy(&program, &draft)
        .and_then(|_| fs::set_permissions(&draft, Permissions::from_mode(0o500)))
        .and_then(|()| fs::rename(&draft, &place));
    if put.is_err() && draft.exists() {
        fs::remove_file(&draft).with_context(doing)?;
    }
    put.with_context(doing)?;
    Ok(place)
}

/// Has pip download and unpack the wheel; returns the program, whose content was checked.
fn download(stage: &Stage) -> Result<PathBuf> {
    let wanted = stage.path("wanted");
    fs::write(&wanted, format!("uv=={VERSION} --hash=sha256:{WHEEL}\n"))
        .context("asking for uv")?;
    let mut said = String::new();
    for pip in PIPS {
        let mut command = Command::new(pip[0]);
        command.args(&pip[1..]).args([
            "install",
            "--no-deps",
            "--no-compile",
            "--only-binary=:all:",
        ]);
        command.args([
            "--disable-pip-version-check",
            "--no-input",
            "--require-hashes",
            "--platform",
            PLATFORM,
        ]);
        command
            .arg("--target")
            .arg(stage.path("uv"))
            .arg("--requirement")
            .arg(&wanted);
        // Nothing of the directory that we are in is code of Python's.
        command.current_dir(stage.root()).stdin(Stdio::null());
        let Ok(output) = command.output() else {
            continue;
        };
        if output.status.success() {
            return checked(stage.path("uv/bin/uv"));
        }
        said = String::from_utf8_lossy(&output.stderr).into_owned();
        if !said.contains("No module named pip") {
            break;
        }
    }
    let last = said
        .lines()
        .rfind(|line| !line.trim().is_empty())
        .map(escape_control);
    Err(Error::new(
        Kind::Packages,
        match last {
            Some(last) => format!("pip could not bring uv {VERSION}: {last}"),
            None => format!("there is no pip on this host that could bring uv {VERSION}"),
        },
        "install uv yourself, so that it is on PATH: https://docs.astral.sh/uv has how",
    )
    .into())
}

fn checked(program: PathBuf) -> Result<PathBuf> {
    if digest(&program)? == PROGRAM {
        return Ok(program);
    }
    Err(Error::new(
        Kind::Packages,
        format!("what pip brought is not uv {VERSION}"),
        "see where pip gets packages from: pip config list",
    )
    .into())
}

fn digest(program: &Path) -> Result<String> {
    let doing = "reading what pip brought";
    wheel::digest(fs::File::open(program).context(doing)?).context(doing)
}
