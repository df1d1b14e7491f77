//! Parsing of option values.

use crate::error::{Error, Kind};
use crate::kvm_mode::Choice;
use crate::limits::ConfineLevel;
use clap::ValueEnum;
use clap::builder::PossibleValue;
use std::ffi::{OsStr, OsString};
use std::fs;
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

/// Parses `NAME=value`, or the name of a variable of the host, which is passed on. Returns `None` if
/// the host does not have that variable.
pub fn parse_variable(word: &OsStr) -> Result<Option<Vec<u8>>, String> {
    let bytes = word.as_bytes();
    let name = bytes.split(|&byte| byte == b'=').next().unwrap_or(bytes);
    if name.is_empty() || bytes.contains(&0) {
        return Err(format!("{} names no variable", word.display()));
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
/// and is taken as it is, so that values may have many lines.
pub fn read_variables(path: &Path) -> Result<Vec<OsString>, Error> {
    let content = fs::read(path).map_err(|error| {
        Error::new(
            Kind::File,
            format!(
                "the file of variables {} cannot be read: {error}",
                path.display()
            ),
            "check the path and its permissions",
        )
    })?;
    if content.contains(&0) {
        return Ok(ended_by_nul(&content));
    }
    let own = |bytes: &[u8]| OsString::from_vec(bytes.to_vec());
    Ok(content
        .split(|&byte| byte == b'\n')
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line))
        .filter(|line| !line.trim_ascii().is_empty() && !line.starts_with(b"#"))
        .map(own)
        .collect())
}

/// Reads a file of arguments, each of which ends with a NUL.
pub fn read_arguments(path: &Path) -> Result<Vec<OsString>, Error> {
    let content = fs::read(path).map_err(|error| {
        Error::new(
            Kind::File,
            format!(
                "the file of arguments {} cannot be read: {error}",
                path.display()
            ),
            "check the path and its permissions",
        )
    })?;
    Ok(ended_by_nul(&content))
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
        for wrong in ["", "=x", "a\0b"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_file_of_variables_may_have_comments() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("env");
        fs::write(&path, "# comment\nA=1\r\n\n  \nB=two words\n").unwrap();
        assert_eq!(read_variables(&path).unwrap(), ["A=1", "B=two words"]);
    }

    #[test]
    fn a_file_of_variables_may_have_values_of_many_lines() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("env");
        fs::write(&path, "A=1\n#2\r\n\0B=\0").unwrap();
        assert_eq!(read_variables(&path).unwrap(), ["A=1\n#2\r\n", "B="]);
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
