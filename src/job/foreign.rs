//! Files that are no scripts of any language that an image has, though somebody may take them for one.

use crate::error::{Error, Image as Way, Kind, Remedy};
use crate::image::Image;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Languages of images that scripts/build-image makes, and of the one that is built in: their titles, the endings of
/// their scripts' names, and the names of them and of their interpreters, without versions.
const IMPORTABLE: &[(&str, &[&str], &[&str])] = &[
    ("Python", &["py", "pyw"], &["python"]),
    ("Bash", &["sh", "bash"], &["bash"]),
    (
        "JavaScript",
        &["js", "mjs", "cjs"],
        &["javascript", "node", "nodejs"],
    ),
    ("TypeScript", &["ts", "mts", "cts"], &["typescript"]),
    ("Perl", &["pl", "pm"], &["perl"]),
    ("Ruby", &["rb"], &["ruby"]),
    ("PHP", &["php"], &["php"]),
    ("Lua", &["lua"], &["lua"]),
    ("R", &["r", "R"], &["r", "rscript"]),
    ("SQL", &["sql"], &["sql"]),
    ("Go", &["go"], &["go"]),
    ("Rust", &["rs"], &["rust"]),
    ("C", &["c"], &["c"]),
    ("C++", &["cc", "cpp", "cxx"], &["c++", "cpp"]),
    ("Java", &["java"], &["java"]),
];

/// The way in which a file can be used, though it is no script of the image's.
#[derive(Clone, Copy)]
enum Use {
    /// A script of a language of IMPORTABLE runs with an image that has it.
    Import,
    /// A notebook has code, which can be saved as a script.
    Notebook,
    /// A script of another language may run in one that the image has.
    Script,
    /// A program runs as a command.
    Program,
    /// Data can be read by a program.
    Data,
}

/// Other kinds of files, by the endings of their names.
const BY_NAME: &[(&[&str], &str, Use)] = &[
    (&["ipynb"], "a Jupyter notebook", Use::Notebook),
    (&["jsx"], "JavaScript", Use::Script),
    (&["tsx"], "TypeScript", Use::Script),
    (&["zsh"], "a script for zsh", Use::Script),
    (&["fish"], "a script for fish", Use::Script),
    (&["csh", "tcsh"], "a script for csh", Use::Script),
    (&["ksh"], "a script for ksh", Use::Script),
    (&["ps1"], "a script for PowerShell", Use::Script),
    (&["bat", "cmd"], "a script for Windows", Use::Script),
    (&["jl"], "Julia", Use::Script),
    (&["awk"], "a script for awk", Use::Script),
    (&["h"], "C", Use::Script),
    (&["hpp"], "C++", Use::Script),
    (&["cs"], "C#", Use::Script),
    (&["class", "jar"], "Java", Use::Script),
    (&["kt", "kts"], "Kotlin", Use::Script),
    (&["swift"], "Swift", Use::Script),
    (&["pyx", "pxd"], "Cython", Use::Script),
    (&["whl"], "a Python package", Use::Data),
    (&["exe", "dll", "msi"], "a program for Windows", Use::Data),
    (&["so", "o", "a"], "compiled code", Use::Data),
    (&["wasm"], "WebAssembly", Use::Data),
    (&["html", "htm"], "HTML", Use::Data),
    (&["md", "rst"], "a document", Use::Data),
    (
        &["json", "toml", "yaml", "yml", "csv", "tsv", "xml"],
        "data",
        Use::Data,
    ),
    (
        &["tar", "tgz", "gz", "xz", "zst", "bz2", "7z"],
        "an archive",
        Use::Data,
    ),
];

/// Kinds of files, by the bytes that they begin with.
const BY_CONTENT: &[(&[u8], &str, Use)] = &[
    (b"\x7fELF", "a compiled program", Use::Program),
    (b"\xcf\xfa\xed\xfe", "a program for macOS", Use::Data),
    (b"\0asm", "WebAssembly", Use::Data),
    (b"\x1f\x8b", "an archive", Use::Data),
    (b"\xfd7zXZ", "an archive", Use::Data),
    (b"\x28\xb5\x2f\xfd", "an archive", Use::Data),
    (b"%PDF-", "a PDF document", Use::Data),
    (b"\x89PNG", "an image", Use::Data),
    (b"\xff\xd8\xff", "an image", Use::Data),
    (b"SQLite format 3\0", "a database", Use::Data),
];

/// Refuses a file that its name or its content says to be something else than a script of the image's.
pub fn refuse(image: &Image, path: &Path, content: &[u8]) -> Result<(), Error> {
    let ending = path.extension().map(OsStr::as_bytes);
    let is_named = |endings: &[&str]| endings.iter().any(|its| Some(its.as_bytes()) == ending);
    let of_images = IMPORTABLE
        .iter()
        .find(|(_, endings, _)| is_named(endings))
        .map(|(title, ..)| (*title, Use::Import));
    let by_name = || {
        let found = BY_NAME.iter().find(|(endings, ..)| is_named(endings));
        found.map(|(_, kind, what_for)| (*kind, *what_for))
    };
    let by_content = || {
        let mut kinds = BY_CONTENT.iter();
        let found = kinds.find(|(start, ..)| content.starts_with(start));
        found.map(|(_, kind, what_for)| (*kind, *what_for))
    };
    let Some((kind, what_for)) = of_images.or_else(by_name).or_else(by_content) else {
        return Ok(());
    };
    let name = ending.and_then(|ending| str::from_utf8(ending).ok());
    let remedy = match what_for {
        Use::Import => import_remedy(name.unwrap_or_default()),
        _ => what_for.remedy(image),
    };
    let (shown, image) = (path.display(), &image.name);
    let message = format!("{shown} is {kind}, which the image {image} does not run");
    Err(Error::new(Kind::BadProgram, message, remedy))
}

/// Returns the remedy for a script whose first line names an interpreter that the image does not have.
pub fn no_interpreter(image: &Image, name: &[u8]) -> Remedy {
    match is_importable(name) {
        true => import_remedy(&String::from_utf8_lossy(name)),
        false => Use::Script.remedy(image),
    }
}

/// Returns the remedy for code in a language that the image does not have.
pub fn no_language(image: &Image, name: &str) -> Remedy {
    match is_importable(name.as_bytes()) {
        true => import_remedy(name),
        false => Remedy::NameLanguage(image.names()),
    }
}

/// Returns the remedy for a language of IMPORTABLE, by a word for it.
fn import_remedy(word: &str) -> Remedy {
    Remedy::GetImage(match Image::built_in().meant(word) {
        Some(_) => Way::UseBuiltIn,
        None => Way::Import,
    })
}

/// Returns whether a language or an interpreter is called so that comes with an image of scripts/build-image.
fn is_importable(name: &[u8]) -> bool {
    let is_version = |byte: &u8| byte.is_ascii_digit() || *byte == b'.';
    let end = name.iter().rposition(|byte| !is_version(byte));
    let bare = &name[..end.map_or(0, |last| last + 1)];
    let mut names = IMPORTABLE.iter().flat_map(|(_, _, names)| *names);
    names.any(|its| its.as_bytes().eq_ignore_ascii_case(bare))
}

impl Use {
    fn remedy(self, image: &Image) -> Remedy {
        match self {
            Self::Import => Remedy::GetImage(Way::Import),
            Self::Notebook => "save its code as a script: jupyter nbconvert --to script".into(),
            Self::Script => Remedy::NameLanguageOrImport(image.names()),
            Self::Program => Remedy::RunAsCommand,
            Self::Data => Remedy::PutBesideProgram,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_script_is_refused_by_its_kind() {
        let refused = |name: &str, content: &[u8]| {
            let refused = refuse(Image::built_in(), Path::new(name), content);
            refused.err()
        };
        let or_import = || Remedy::NameLanguageOrImport(Image::built_in().names());
        for (name, content, kind, remedy) in [
            (
                "nb.ipynb",
                &b"{}"[..],
                "a Jupyter notebook",
                "save its code as a script: jupyter nbconvert --to script".into(),
            ),
            (
                "x.js",
                b"console.log(1)",
                "JavaScript",
                Remedy::GetImage(Way::Import),
            ),
            (
                "ls",
                b"\x7fELF\x02\x01",
                "a compiled program",
                Remedy::RunAsCommand,
            ),
            ("x.zsh", b"echo", "a script for zsh", or_import()),
            ("x.tar", b"", "an archive", Remedy::PutBesideProgram),
            (
                "backup",
                b"\x1f\x8b\x08",
                "an archive",
                Remedy::PutBesideProgram,
            ),
            ("x", b"%PDF-1.7", "a PDF document", Remedy::PutBesideProgram),
        ] {
            let error = refused(name, content).unwrap();
            let expected = format!("{name} is {kind}, ");
            assert!(error.message.starts_with(&expected), "{error}");
            assert_eq!(error.remedy, remedy, "{name}");
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

    #[test]
    fn an_image_without_python_or_bash_does_not_run_scripts_of_theirs() {
        let mut image = Image::built_in().clone();
        image.name = "base".into();
        image.languages.retain(|its| its.name == "bash");
        let refused = |image: &Image, name: &str| refuse(image, Path::new(name), b"").unwrap_err();
        let error = refused(&image, "x.py");
        assert_eq!(
            error.message,
            "x.py is Python, which the image base does not run"
        );
        let built_in = Remedy::GetImage(Way::UseBuiltIn);
        assert_eq!(error.remedy, built_in);
        assert_eq!(no_interpreter(&image, b"python3.13"), built_in);
        assert_eq!(no_language(&image, "Python"), built_in);
        image.languages.clear();
        let error = refused(&image, "x.bash");
        assert_eq!(
            error.message,
            "x.bash is Bash, which the image base does not run"
        );
    }

    #[test]
    fn a_language_is_imported_if_an_image_of_it_can_be_built() {
        let import = Remedy::GetImage(Way::Import);
        let image = Image::built_in();
        for name in ["node", "perl", "perl5.36", "lua5.4", "Rscript", "php8.2"] {
            assert_eq!(no_interpreter(image, name.as_bytes()), import, "{name}");
        }
        for name in ["JavaScript", "cpp", "c++", "r", "rust"] {
            assert_eq!(no_language(image, name), import, "{name}");
        }
        for name in ["cobol", "zsh", "nodes", "5.4", ""] {
            assert_ne!(no_interpreter(image, name.as_bytes()), import, "{name}");
            assert_ne!(no_language(image, name), import, "{name}");
        }
    }

    #[test]
    fn each_image_that_can_be_built_is_known_by_its_descriptions_names() {
        let images = Path::new(env!("CARGO_MANIFEST_DIR")).join("guest/images");
        for directory in std::fs::read_dir(images).unwrap() {
            let path = directory.unwrap().path().join("image.toml");
            let text = std::fs::read_to_string(&path).unwrap();
            let described: toml::Table = text.parse().unwrap();
            for language in described["language"].as_array().unwrap() {
                let name = language["name"].as_str().unwrap();
                if Image::built_in().find(name).is_some() {
                    continue;
                }
                assert!(is_importable(name.as_bytes()), "{name}");
                let interpreters = language.get("interpreters").and_then(|its| its.as_array());
                for interpreter in interpreters.into_iter().flatten() {
                    let bare = interpreter.as_str().unwrap().trim_end_matches('*');
                    assert!(is_importable(bare.as_bytes()), "{bare}");
                }
            }
        }
    }
}
