//! Files that are no scripts of any language that an image has, though somebody may take them for one.

use crate::error::{Error, Image as Way, Kind, Remedy};
use crate::image::Image;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

const NOTEBOOK: &str = "a Jupyter notebook";

/// Languages of images that scripts/build-image makes, by the endings of their scripts' names.
const OF_IMAGES: &[(&[&str], &str)] = &[
    (&["js", "mjs", "cjs"], "JavaScript"),
    (&["ts", "mts", "cts"], "TypeScript"),
    (&["pl", "pm"], "Perl"),
    (&["rb"], "Ruby"),
    (&["php"], "PHP"),
    (&["lua"], "Lua"),
    (&["r", "R"], "R"),
    (&["sql"], "SQL"),
    (&["go"], "Go"),
    (&["rs"], "Rust"),
    (&["c"], "C"),
    (&["cc", "cpp", "cxx"], "C++"),
    (&["java"], "Java"),
];

/// Other kinds of files, by the endings of their names.
const BY_NAME: &[(&[&str], &str)] = &[
    (&["ipynb"], NOTEBOOK),
    (&["jsx"], "JavaScript"),
    (&["tsx"], "TypeScript"),
    (&["zsh"], "a script for zsh"),
    (&["fish"], "a script for fish"),
    (&["csh", "tcsh"], "a script for csh"),
    (&["ksh"], "a script for ksh"),
    (&["ps1"], "a script for PowerShell"),
    (&["bat", "cmd"], "a script for Windows"),
    (&["jl"], "Julia"),
    (&["awk"], "a script for awk"),
    (&["h"], "C"),
    (&["hpp"], "C++"),
    (&["cs"], "C#"),
    (&["class", "jar"], "Java"),
    (&["kt", "kts"], "Kotlin"),
    (&["swift"], "Swift"),
    (&["pyx", "pxd"], "Cython"),
    (&["whl"], "a Python package"),
    (&["exe", "dll", "msi"], "a program for Windows"),
    (&["so", "o", "a"], "compiled code"),
    (&["wasm"], "WebAssembly"),
    (&["html", "htm"], "HTML"),
    (&["md", "rst"], "a document"),
    (
        &["json", "toml", "yaml", "yml", "csv", "tsv", "xml"],
        "data",
    ),
    (
        &["tar", "tgz", "gz", "xz", "zst", "bz2", "7z"],
        "an archive",
    ),
];

/// Kinds of files, by the bytes that they begin with.
const BY_CONTENT: &[(&[u8], &str)] = &[
    (b"\x7fELF", "a compiled program"),
    (b"\xcf\xfa\xed\xfe", "a program for macOS"),
    (b"\0asm", "WebAssembly"),
    (b"\x1f\x8b", "an archive"),
    (b"\xfd7zXZ", "an archive"),
    (b"\x28\xb5\x2f\xfd", "an archive"),
    (b"%PDF-", "a PDF document"),
    (b"\x89PNG", "an image"),
    (b"\xff\xd8\xff", "an image"),
    (b"SQLite format 3\0", "a database"),
];

/// Refuses a file that its name or its content says to be something else than a script of the image's.
pub fn refuse(image: &Image, path: &Path, content: &[u8]) -> Result<(), Error> {
    let ending = path.extension().map(OsStr::as_bytes);
    let is_named = |endings: &[&str]| endings.iter().any(|its| Some(its.as_bytes()) == ending);
    let of_images = OF_IMAGES.iter().find(|(endings, _)| is_named(endings));
    let by_name = of_images.or_else(|| BY_NAME.iter().find(|(endings, _)| is_named(endings)));
    let by_content = BY_CONTENT
        .iter()
        .find(|(start, _)| content.starts_with(start));
    let kind = by_name.map(|(_, kind)| *kind);
    let Some(kind) = kind.or(by_content.map(|(_, kind)| *kind)) else {
        return Ok(());
    };
    let remedy = match kind {
        NOTEBOOK => "save its code as a script: jupyter nbconvert --to script".into(),
        _ if of_images.is_some() => Remedy::GetImage(Way::Import),
        _ => Remedy::NameLanguage(image.names()),
    };
    let (shown, image) = (path.display(), &image.name);
    let message = format!("{shown} is {kind}, which the image {image} does not run");
    Err(Error::new(Kind::BadProgram, message, remedy))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_script_is_refused_by_its_kind() {
        let refused = |name: &str, content: &[u8]| {
            let refused = refuse(Image::built_in(), Path::new(name), content);
            refused.err().map(|error| error.message)
        };
        for (name, content, kind) in [
            ("nb.ipynb", &b"{}"[..], "a Jupyter notebook"),
            ("x.js", b"console.log(1)", "JavaScript"),
            ("ls", b"\x7fELF\x02\x01", "a compiled program"),
            ("x.tar", b"", "an archive"),
            ("backup", b"\x1f\x8b\x08", "an archive"),
        ] {
            let message = refused(name, content).unwrap();
            assert!(
                message.starts_with(&format!("{name} is {kind}")),
                "{message}"
            );
        }
        for (name, content) in [
            ("x", &b"print(1)"[..]),
            ("app.pyz", b"PK\x03\x04"),
            ("x.pyc", b"\xa7\x0d\x0d\x0a\0\0\0\0"),
            ("x.txt", b"MZ = 1"),
            ("js", b"print(1)"),
        ] {
            assert_eq!(refused(name, content), None, "{name}");
        }
    }
}
