//! Scripts: reading them, and which interpreter they are for.

use crate::error::{Error, Kind, Remedy};
use crate::image::language::{Language, PYTHON, SHELL, words};
use std::ffi::{OsStr, OsString};
use std::io::{ErrorKind, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

/// Bytes of a script at most.
const SCRIPT_MAX: u64 = 56 << 20;

pub fn read(path: &Path) -> Result<Vec<u8>, Error> {
    let shown = path.display();
    let unusable = |message: String, remedy: &str| Error::new(Kind::BadProgram, message, remedy);
    let unreadable = |error: std::io::Error| match error.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => Error::new(
            Kind::NoProgram,
            format!("there is no script {shown}"),
            Remedy::CheckProgramPath,
        ),
        ErrorKind::PermissionDenied => unusable(
            format!("you may not read the script {shown}"),
            "give yourself permission to read it: chmod u+r",
        ),
        _ => unusable(
            format!("the script {shown} cannot be read: {error}"),
            "check that it is a file with Python code",
        ),
    };
    let metadata = path.metadata().map_err(unreadable)?;
    if metadata.is_dir() {
        return Err(unusable(
            format!("the script {shown} is a directory"),
            "name the file in it that should run",
        ));
    }
    let mut content = Vec::new();
    // Not by its size: a device or a pipe has none.
    std::fs::File::open(path)
        .and_then(|file| file.take(SCRIPT_MAX + 1).read_to_end(&mut content))
        .map_err(unreadable)?;
    if content.len() as u64 > SCRIPT_MAX {
        return Err(unusable(
            format!("the script {shown} is larger than {} MiB", SCRIPT_MAX >> 20),
            "give the data to its standard input instead",
        ));
    }
    Ok(content)
}

/// Code that is to run as after -c.
pub fn read_code(path: &Path) -> Result<OsString, Error> {
    let code = read(path)?;
    if code.contains(&0) {
        return Err(Error::new(
            Kind::BadProgram,
            format!("the code in {} has a NUL in it", path.display()),
            "give Python code, which is text",
        ));
    }
    Ok(OsString::from_vec(code))
}

/// The start of the command line that runs a script: of the language that was asked for, or else
/// its name or its first line tells.
pub fn interpreter(
    path: &Path,
    content: &[u8],
    language: Option<Language>,
) -> Result<Vec<Vec<u8>>, Error> {
    let shebang = Shebang::of(content);
    let is_shell = |shebang: &Shebang| matches!(shebang.name, b"sh" | b"bash");
    let extension = path.extension().map(OsStr::as_bytes);
    let language = match (language, extension, &shebang) {
        (Some(language), ..) => language,
        (None, Some(b"py"), _) => Language::Python,
        (None, Some(b"sh"), _) => Language::Bash,
        (None, _, None) => Language::Python,
        (None, _, Some(shebang)) if is_shell(shebang) => Language::Bash,
        (None, _, Some(shebang)) if shebang.name.starts_with(b"python") => Language::Python,
        (None, _, Some(shebang)) => {
            return Err(Error::new(
                Kind::NoProgram,
                format!(
                    "the script {} is for {}, which is not there",
                    path.display(),
                    String::from_utf8_lossy(shebang.name).escape_debug()
                ),
                Remedy::NameLanguage(vec!["Python".into(), "Bash".into()]),
            ));
        }
    };
    Ok(match language {
        Language::Python => words(&[PYTHON]),
        Language::Bash => {
            let options = shebang.filter(is_shell).and_then(|shebang| shebang.option);
            [SHELL].into_iter().chain(options).map(Vec::from).collect()
        }
    })
}

/// The interpreter that a script's first line names (execve(2)).
struct Shebang<'a> {
    /// Without the directory.
    name: &'a [u8],
    /// What follows it, as one word.
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

/// The first word of a line, and the others if there are any.
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

    #[test]
    fn a_scripts_language_is_told_by_its_name_or_its_first_line() {
        let python = ["python3"].as_slice();
        let bash = ["bash"].as_slice();
        for (name, line, words) in [
            ("a.py", "", python),
            ("a", "", python),
            ("a", "# no #! line", python),
            ("a", "#!/usr/bin/python3 -u", python),
            ("a", "#! /usr/bin/env python3.11", python),
            ("a.py", "#!/bin/sh", python),
            ("a.sh", "", bash),
            ("a.sh", "#!/usr/bin/perl", bash),
            ("a", "#!/bin/sh", bash),
            ("a", "#!/bin/bash -eu ", &["bash", "-eu"]),
            ("a", "#!/usr/bin/env bash", bash),
            ("a", "#!/usr/bin/env -S bash -e", &["bash", "-e"]),
        ] {
            let content = format!("{line}\nmore");
            let argv = interpreter(Path::new(name), content.as_bytes(), None).unwrap();
            let expected: Vec<Vec<u8>> = words.iter().map(|word| word.as_bytes().into()).collect();
            assert_eq!(argv, expected, "{name} {line}");
        }
    }

    #[test]
    fn a_script_for_another_interpreter_runs_only_in_a_language_that_there_is() {
        let of = |language| interpreter(Path::new("a"), b"#!/usr/bin/perl\n", language);
        let complaint = of(None).unwrap_err();
        assert_eq!(complaint.kind, Kind::NoProgram);
        assert!(complaint.message.contains("is for perl"), "{complaint}");
        assert_eq!(of(Some(Language::Bash)), Ok(words(&[SHELL])));
        assert_eq!(of(Some(Language::Python)), Ok(words(&[PYTHON])));
    }
}
