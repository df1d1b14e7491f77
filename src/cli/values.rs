//! Parsing of option values.

use crate::error::{Error, Kind};
use crate::image::Image;
use crate::job::name;
use crate::kvm_mode::Choice;
use crate::limits::{ConfineLevel, PIDS_MAX};
use clap::builder::{PossibleValue, StringValueParser, TypedValueParser};
use clap::{Arg, Command, ValueEnum};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::net::SocketAddr;
use std::os::fd::RawFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

impl ValueEnum for ConfineLevel {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::Auto, Self::Require, Self::Off]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        let help = match self {
            Self::Auto => "As much as this kernel offers",
            Self::Require => "All, or no run",
            Self::Off => "Nothing, for debugging",
        };
        Some(PossibleValue::new(self.name()).help(help))
    }
}

impl ValueEnum for Choice {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::Auto, Self::Native, Self::Emulated]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        let help = match self {
            Self::Auto => "The fastest that works here",
            Self::Native => "The guest's kernel runs natively, or there is no run",
            Self::Emulated => "The guest's kernel is emulated",
        };
        Some(PossibleValue::new(self.name()).help(help))
    }
}

/// A parser of the names of languages: it knows those of the image that is built in, and takes any.
#[derive(Clone, Copy)]
pub enum Languages {
    OfPrograms,
    /// Those that a session can have contexts of.
    OfContexts,
}

impl TypedValueParser for Languages {
    type Value = String;

    fn parse_ref(
        &self,
        command: &Command,
        arg: Option<&Arg>,
        value: &OsStr,
    ) -> Result<String, clap::Error> {
        StringValueParser::new().parse_ref(command, arg, value)
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        let image = Image::built_in();
        Some(match self {
            Self::OfPrograms => Box::new(
                image
                    .languages
                    .iter()
                    .map(|its| PossibleValue::new(its.name.as_str()).help(its.title.as_str())),
            ),
            Self::OfContexts => {
                let languages = image.context_languages();
                Box::new(languages.map(|its| PossibleValue::new(its.name.as_str())))
            }
        })
    }
}

/// Parses the name of a module, with its packages.
pub fn parse_module(word: &str) -> Result<String, String> {
    let is_part =
        |part: &str| !part.is_empty() && part.chars().all(|c| c.is_alphanumeric() || c == '_');
    match word.split('.').all(is_part) {
        true => Ok(word.into()),
        false => Err("it is not the name of a module, such as package.module".into()),
    }
}

/// Parses the value of an option that is on or off.
pub fn parse_switch(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "true" | "t" | "yes" | "y" | "on" => Ok(true),
        "0" | "false" | "f" | "no" | "n" | "off" => Ok(false),
        _ => Err("give 1 or 0, true or false, yes or no, on or off".into()),
    }
}

/// Parses a limit on processes.
pub fn parse_pids(text: &str) -> Result<u32, String> {
    let number = text.parse::<i64>().ok();
    let number = number.filter(|number| (1..=PIDS_MAX).contains(number));
    let number = number.and_then(|number| u32::try_from(number).ok());
    number.ok_or_else(|| format!("give a number from 1 to {PIDS_MAX}"))
}

/// Parses the number of a descriptor that this process was started with.
pub fn parse_descriptor(text: &str) -> Result<RawFd, String> {
    let number = text.parse::<RawFd>().ok().filter(|number| *number >= 0);
    number
        .ok_or_else(|| "give the number of an open descriptor, such as 3 with 3>record.json".into())
}

/// Parses an address to serve at. One without a host is of this host alone.
pub fn parse_address(text: &str) -> Result<SocketAddr, String> {
    let local = text.strip_prefix("localhost").unwrap_or(text);
    let port = local.strip_prefix(':').and_then(|port| port.parse().ok());
    match port {
        Some(port) => Ok(SocketAddr::from(([127, 0, 0, 1], port))),
        None => text.parse().map_err(|_| {
            "give a numeric address and a port, such as 127.0.0.1:8080 or [::1]:8080; localhost:8080 and :8080 are the first"
                .into()
        }),
    }
}

/// Parses `NAME=value`, or the name of a variable of the host, which is passed on. Returns `None` if
/// the host does not have that variable.
pub fn parse_variable(word: &OsStr) -> Result<Option<Vec<u8>>, Error> {
    let bytes = word.as_bytes();
    let name = name(bytes);
    let unusable = |message: String, remedy: String| Error::new(Kind::Request, message, remedy);
    let usual = || "give NAME=VALUE, or the NAME of a variable to pass on".to_owned();
    let shown = word.display();
    if name.is_empty() {
        return Err(unusable(format!("{shown:?} names no variable"), usual()));
    }
    if bytes.contains(&0) {
        return Err(unusable(format!("{shown:?} has a NUL in it"), usual()));
    }
    if name.iter().any(u8::is_ascii_whitespace) {
        let bare = word
            .to_str()
            .and_then(|word| word.trim().strip_prefix("export "));
        return Err(unusable(
            format!("{shown:?} names a variable with a space in its name"),
            match bare {
                Some(bare) => format!("leave out export: {}", bare.trim()),
                None => usual(),
            },
        ));
    }
    if name.len() < bytes.len() {
        return Ok(Some(bytes.to_vec()));
    }
    Ok(std::env::var_os(word).map(|value| {
        let mut variable = word.to_os_string();
        variable.push("=");
        variable.push(value);
        variable.into_vec()
    }))
}

/// Reads a file with a variable on each line, as `parse_variable` takes it; lines that are empty or
/// begin with # are left out. If there is a NUL in the file, each variable ends with a NUL instead,
/// and is taken as it is, so that values may have many lines. An error says which line is wrong.
pub fn read_variables(path: &Path) -> Result<Vec<Vec<u8>>, Error> {
    let content = read_list(path, "variables")?;
    let words = match content.contains(&0) {
        true => ended_by_nul(&content),
        false => lines(&content),
    };
    let parsed = words
        .iter()
        .enumerate()
        .filter(|(_, word)| !is_left_out(&content, word));
    let parsed = parsed.map(|(number, word)| {
        parse_variable(word).map_err(|error| Error {
            message: format!("{} line {}: {}", path.display(), number + 1, error.message),
            ..error
        })
    });
    Ok(parsed
        .collect::<Result<Vec<_>, _>>()?
        .into_iter()
        .flatten()
        .collect())
}

fn lines(content: &[u8]) -> Vec<OsString> {
    let content = content.strip_suffix(b"\n").unwrap_or(content);
    let lines = content.split(|&byte| byte == b'\n');
    let lines = lines.map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    lines
        .map(|line| OsString::from_vec(line.to_vec()))
        .collect()
}

/// Returns whether a line says nothing.
fn is_left_out(content: &[u8], line: &OsStr) -> bool {
    let line = line.as_bytes();
    !content.contains(&0) && (line.trim_ascii().is_empty() || line.starts_with(b"#"))
}

/// Reads a file of arguments, each of which ends with a NUL.
pub fn read_arguments(path: &Path) -> Result<Vec<OsString>, Error> {
    let content = read_list(path, "arguments")?;
    Ok(ended_by_nul(&content))
}

/// Reads a file of patterns, with one on each line.
pub fn read_patterns(path: &Path) -> Result<String, Error> {
    let content = read_list(path, "patterns")?;
    String::from_utf8(content).map_err(|_| {
        Error::new(
            Kind::File,
            format!("the file of patterns {} is not UTF-8", path.display()),
            "give patterns as in a .gitignore, one on each line",
        )
    })
}

/// Reads a file that an option names, with several of these in it.
fn read_list(path: &Path, what: &str) -> Result<Vec<u8>, Error> {
    fs::read(path).map_err(|error| {
        Error::new(
            Kind::File,
            format!(
                "the file of {what} {} cannot be read: {error}",
                path.display()
            ),
            "check the path and its permissions",
        )
    })
}

fn ended_by_nul(content: &[u8]) -> Vec<OsString> {
    let pieces = content.split_inclusive(|&byte| byte == 0);
    let word = |piece: &[u8]| piece.strip_suffix(b"\0").unwrap_or(piece).to_vec();
    pieces
        .map(|piece| OsString::from_vec(word(piece)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Remedy;

    #[test]
    fn an_address_without_a_host_is_of_this_host_alone() {
        for (text, address) in [
            ("127.0.0.1:80", "127.0.0.1:80"),
            ("0.0.0.0:80", "0.0.0.0:80"),
            ("[::1]:80", "[::1]:80"),
            ("localhost:80", "127.0.0.1:80"),
            (":80", "127.0.0.1:80"),
        ] {
            assert_eq!(parse_address(text), Ok(address.parse().unwrap()), "{text}");
        }
        for wrong in ["80", "example.com:80", "localhost", ":", ":99999", ""] {
            assert!(parse_address(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_variable_is_given_or_passed_on() {
        let parse = |word: &str| parse_variable(OsStr::new(word));
        assert_eq!(parse("A=b=c"), Ok(Some(b"A=b=c".to_vec())));
        assert_eq!(parse("A="), Ok(Some(b"A=".to_vec())));
        assert_eq!(parse("SURELY_NOT_SET"), Ok(None));
        assert!(
            parse("CARGO_PKG_NAME")
                .unwrap()
                .unwrap()
                .ends_with(b"=sandbox")
        );
        for (wrong, remedy) in [
            ("", "NAME=VALUE"),
            ("=x", "NAME=VALUE"),
            ("a\0b", "NAME=VALUE"),
            ("A B", "NAME=VALUE"),
            (" A=1", "NAME=VALUE"),
            ("export A=b c", "leave out export: A=b c"),
        ] {
            let error = parse(wrong).unwrap_err();
            let Remedy::Do(told) = &error.remedy else {
                panic!("{error:?}");
            };
            assert!(told.contains(remedy), "{wrong}: {told}");
        }
    }

    #[test]
    fn a_file_of_variables_may_have_comments() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("env");
        fs::write(&path, "# comment\nA=1\r\n\n  \nB=two words\n").unwrap();
        assert_eq!(
            read_variables(&path).unwrap(),
            [&b"A=1"[..], b"B=two words"]
        );
        fs::write(&path, "# comment\n\nA=1\nexport B=2\n").unwrap();
        let error = read_variables(&path).unwrap_err();
        assert!(
            error.message.contains("env line 4: \"export B=2\""),
            "{error}"
        );
    }

    #[test]
    fn a_file_of_variables_may_have_values_of_many_lines() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("env");
        fs::write(&path, "A=1\n#2\r\n\0B=\0").unwrap();
        assert_eq!(read_variables(&path).unwrap(), [&b"A=1\n#2\r\n"[..], b"B="]);
    }

    #[test]
    fn arguments_in_a_file_may_be_anything_and_empty() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("args");
        fs::write(&path, "--json\0\0two\nlines\0").unwrap();
        assert_eq!(read_arguments(&path).unwrap(), ["--json", "", "two\nlines"]);
        fs::write(&path, "").unwrap();
        assert_eq!(read_arguments(&path).unwrap().len(), 0);
    }
}
