//! Reading of scripts, and detection of the language that they are in.

use crate::error::{Error, Kind, Remedy};
use crate::image::{Image, Language};
use crate::job::foreign;
use crate::limits::PROGRAM_MAX;
use std::ffi::{OsStr, OsString};
use std::io::{self, ErrorKind, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

/// A script that was read.
pub struct Script<'a> {
    pub content: Vec<u8>,
    /// The language, if it is the main file of a directory that was named in its place.
    pub directory: Option<&'a Language>,
}

/// Reads the script at this path; of a directory, the file that makes it a program.
pub fn find<'a>(image: &'a Image, path: &Path) -> Result<Script<'a>, Error> {
    let unreadable = |error| unreadable(path, &error);
    if !path.metadata().map_err(unreadable)?.is_dir() {
        let content = read(path)?;
        return Ok(Script {
            content,
            directory: None,
        });
    }
    let mut languages = image.languages.iter();
    let main = languages.find_map(|language| {
        let main = path.join(language.main.as_ref()?);
        main.is_file().then_some((language, main))
    });
    let (language, main) = main.ok_or_else(|| no_main(image, path))?;
    Ok(Script {
        content: read(&main)?,
        directory: Some(language),
    })
}

fn no_main(image: &Image, directory: &Path) -> Error {
    let mains: Vec<_> = image.languages.iter().flat_map(|l| &l.main).collect();
    let mains: Vec<_> = mains.iter().map(|main| main.as_str()).collect();
    let shown = directory.display();
    Error::new(
        Kind::BadProgram,
        match mains.as_slice() {
            [] => format!("{shown} is a directory"),
            mains => format!("{shown} is a directory without {}", mains.join(" or ")),
        },
        format!(
            "name the file in it that should run: {}",
            directory.join("FILE").display()
        ),
    )
}

fn unreadable(path: &Path, error: &io::Error) -> Error {
    let shown = path.display();
    let unusable = |message, remedy| Error::new(Kind::BadProgram, message, remedy);
    match error.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => Error::new(
            Kind::NoProgram,
            format!("there is no script {shown}"),
            Remedy::CheckProgramPath,
        ),
        ErrorKind::PermissionDenied => unusable(
            format!("you may not read the script {shown}"),
            "give yourself permission to read it: chmod u+r",
        ),
        ErrorKind::IsADirectory => unusable(
            format!("{shown} is a directory"),
            "name the file in it that has the code",
        ),
        _ => unusable(
            format!("the script {shown} cannot be read: {error}"),
            "check that it is a file with code",
        ),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    let mut content = Vec::new();
    // The file's size is not used: a device or a pipe has none.
    std::fs::File::open(path)
        .and_then(|file| file.take(PROGRAM_MAX + 1).read_to_end(&mut content))
        .map_err(|error| unreadable(path, &error))?;
    if content.len() as u64 > PROGRAM_MAX {
        return Err(Error::new(
            Kind::BadProgram,
            format!(
                "the script {} is larger than {} MiB",
                path.display(),
                PROGRAM_MAX >> 20
            ),
            "give the data to its standard input instead",
        ));
    }
    Ok(content)
}

/// Reads a script, or the file that makes a directory a program, before it is known what runs it.
pub fn read_script(image: &Image, path: &Path) -> Result<Vec<u8>, Error> {
    Ok(find(image, path)?.content)
}

/// Reads code that is to run as if it were given after -c.
pub fn read_code(path: &Path) -> Result<OsString, Error> {
    let code = read(path)?;
    if code.contains(&0) {
        return Err(Error::new(
            Kind::BadProgram,
            format!("the code in {} has a NUL in it", path.display()),
            "give code, which is text",
        ));
    }
    Ok(OsString::from_vec(code))
}

/// Returns the language of a script, which is the one that was asked for, or else the one that its
/// name or its first line tells. Also returns what follows the interpreter in that line, if the
/// interpreter is of this language.
pub fn language<'a, 'b>(
    image: &'a Image,
    path: &Path,
    content: &'b [u8],
    asked: Option<&'a Language>,
) -> Result<(&'a Language, Option<&'b [u8]>), Error> {
    let shebang = Shebang::of(content);
    let extension = path.extension().map(OsStr::as_bytes);
    let by_extension = extension.and_then(|extension| {
        let mut languages = image.languages.iter();
        languages.find(|language| language.has_extension(extension))
    });
    let language = match (asked.or(by_extension), &shebang) {
        (Some(language), _) => language,
        (None, None) => {
            foreign::refuse(image, path, content)?;
            image.default_language()
        }
        (None, Some(shebang)) => {
            let mut languages = image.languages.iter();
            let found = languages.find(|language| language.has_interpreter(shebang.name));
            found.ok_or_else(|| unknown(image, path, shebang))?
        }
    };
    let its = shebang.filter(|shebang| language.has_interpreter(shebang.name));
    Ok((language, its.and_then(|shebang| shebang.option)))
}

/// Returns the version of Python that a script's first line names, such as 3.11.
pub fn python_named(content: &[u8]) -> Option<&str> {
    let version = Shebang::of(content)?.name.strip_prefix(b"python")?;
    let version = std::str::from_utf8(version).ok()?;
    let (_, minor) = version.split_once("3.")?;
    let is_number = !minor.is_empty() && minor.bytes().all(|byte| byte.is_ascii_digit());
    (version.starts_with("3.") && is_number).then_some(version)
}

fn unknown(image: &Image, path: &Path, shebang: &Shebang) -> Error {
    Error::new(
        Kind::NoProgram,
        format!(
            "the script {} needs {}, which this image does not have",
            path.display(),
            String::from_utf8_lossy(shebang.name).escape_debug()
        ),
        foreign::no_interpreter(image, shebang.name),
    )
}

/// The interpreter that a script's first line names (execve(2)).
struct Shebang<'a> {
    /// The interpreter's name, without the directory.
    name: &'a [u8],
    /// The words after the name, as one word.
    option: Option<&'a [u8]>,
}

impl<'a> Shebang<'a> {
    fn of(content: &'a [u8]) -> Option<Self> {
        let line = content
            .strip_prefix(b"#!")?
            .split(|&byte| byte == b'\n')
            .next()?;
        let (path, option) = first_word(line)?;
        match (last_name(path), option) {
            (b"env", Some(rest)) => {
                let (name, option) = first_word(rest.strip_prefix(b"-S").unwrap_or(rest))?;
                Some(Self {
                    name: last_name(name),
                    option,
                })
            }
            (name, option) => Some(Self { name, option }),
        }
    }
}

/// Splits a line into its first word and the others, if there are any.
fn first_word(line: &[u8]) -> Option<(&[u8], Option<&[u8]>)> {
    let line = line.trim_ascii();
    let end = line.iter().position(u8::is_ascii_whitespace);
    let (word, rest) = line.split_at(end.unwrap_or(line.len()));
    let rest = rest.trim_ascii();
    (!word.is_empty()).then_some((word, (!rest.is_empty()).then_some(rest)))
}

fn last_name(path: &[u8]) -> &[u8] {
    path.rsplit(|&byte| byte == b'/').next().unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::{Words, expand};

    fn command(name: &str, content: &[u8], asked: Option<&str>) -> Result<Vec<Vec<u8>>, Error> {
        let image = Image::built_in();
        let asked = asked.map(|name| image.find(name).unwrap());
        let (language, option) = language(image, Path::new(name), content, asked)?;
        let words = Words {
            file: b"file",
            option,
            ..Words::default()
        };
        Ok(expand(&language.file, words))
    }

    fn words(words: &[&str]) -> Vec<Vec<u8>> {
        words.iter().map(|word| word.as_bytes().into()).collect()
    }

    #[test]
    fn a_first_line_names_a_version_of_python() {
        for (line, version) in [
            ("#!/usr/bin/env python3.11", Some("3.11")),
            ("#!/usr/bin/python3.13 -u", Some("3.13")),
            ("#!/usr/bin/env -S python3.9 -X dev", Some("3.9")),
            ("#!/usr/bin/python3", None),
            ("#!/usr/bin/python", None),
            ("#!/usr/bin/python2.7", None),
            ("#!/usr/bin/python3.", None),
            ("#!/usr/bin/python3.13t", None),
            ("#!/bin/bash", None),
            ("# python3.11", None),
        ] {
            assert_eq!(python_named(line.as_bytes()), version, "{line}");
        }
    }

    #[test]
    fn a_scripts_language_is_told_by_its_name_or_its_first_line() {
        let python = ["python3", "file"].as_slice();
        let bash = ["bash", "file"].as_slice();
        for (name, line, expected) in [
            ("a.py", "", python),
            ("a", "", python),
            ("a", "# no #! line", python),
            ("a", "#!/usr/bin/python3 -u", python),
            ("a", "#! /usr/bin/env python3.11", python),
            ("a.py", "#!/bin/sh", python),
            ("a.sh", "", bash),
            ("a.sh", "#!/usr/bin/perl", bash),
            ("a", "#!/bin/sh", bash),
            ("a", "#!/bin/bash -eu ", &["bash", "-eu", "file"]),
            ("a", "#!/usr/bin/env bash", bash),
            ("a", "#!/usr/bin/env -S bash -e", &["bash", "-e", "file"]),
        ] {
            let content = format!("{line}\nmore");
            let argv = command(name, content.as_bytes(), None);
            assert_eq!(argv, Ok(words(expected)), "{name} {line}");
        }
    }

    #[test]
    fn a_script_for_another_interpreter_runs_only_in_a_language_that_there_is() {
        let of = |asked| command("a", b"#!/usr/bin/perl\n", asked);
        let error = of(None).unwrap_err();
        assert_eq!(error.kind, Kind::NoProgram);
        assert!(error.message.contains("needs perl"), "{error}");
        assert_eq!(of(Some("bash")), Ok(words(&["bash", "file"])));
        assert_eq!(of(Some("python")), Ok(words(&["python3", "file"])));
    }
}
