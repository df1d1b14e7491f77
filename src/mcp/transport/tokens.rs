//! The tokens of clients over HTTP: a file with a name and the SHA-256 of a token on each line.

use crate::error::{Error, Kind, Remedy};
use crate::random;
use crate::text::hex;
use anyhow::Result;
use nix::unistd::getuid;
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use subtle::{Choice, ConstantTimeEq};

/// The fewest characters of a token: generated ones have twice as many.
const TOKEN_MIN: usize = 32;
/// The fewest different bytes in a token: random hexadecimal digits have fewer once in a billion
/// times.
const DIFFERENT_MIN: usize = 8;
const NAME_MAX: usize = 64;
/// Names that the log uses for other callers.
const NAMES_TAKEN: [&str; 4] = ["cli", "local", "stdio", "unknown"];
/// Words that stand for tokens in examples. A file with the hash of one is refused.
const PLACEHOLDERS: [&str; 6] = [
    "changeme",
    "example",
    "password",
    "placeholder",
    "secret",
    "token",
];

type Hash = [u8; 32];

/// Generates a token. Returns its line for the file, and the token, which is stored nowhere.
pub fn new_line(name: &str) -> Result<(String, String)> {
    check_name(name).map_err(unusable)?;
    let token = random::unguessable_id()?;
    let hash = hex(&hash(token.as_bytes()));
    Ok((format!("{name}:{hash}"), token))
}

pub struct Tokens(Vec<(Arc<str>, Hash)>);

impl Tokens {
    pub fn read(path: &Path) -> Result<Self> {
        let told = |what: String| unusable(format!("the tokens in {}: {what}", path.display()));
        let unreadable = |error: std::io::Error| told(error.to_string());
        let metadata = fs::metadata(path).map_err(unreadable)?;
        let owner = metadata.uid();
        if (owner != getuid().as_raw() && owner != 0) || metadata.mode() & 0o022 != 0 {
            return Err(told(
                "others than you and root could write to this file; chmod go-w it".into(),
            )
            .into());
        }
        let text = fs::read_to_string(path).map_err(unreadable)?;
        Ok(Self::parse(&text).map_err(told)?)
    }

    fn parse(text: &str) -> Result<Self, String> {
        let mut tokens: Vec<(Arc<str>, Hash)> = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (name, hash) =
                parse_line(line).map_err(|what| format!("line {}: {what}", number + 1))?;
            let twice = |what: &str| Err(format!("line {}: {what} is there twice", number + 1));
            if tokens.iter().any(|(other, _)| **other == *name) {
                return twice(name);
            }
            if let Some((other, _)) = tokens.iter().find(|(_, its)| *its == hash) {
                return twice(&format!("the token of {other}"));
            }
            tokens.push((name.into(), hash));
        }
        match tokens.is_empty() {
            true => Err("there are none".into()),
            false => Ok(Self(tokens)),
        }
    }

    /// Returns the owner of a token. It takes the same time for every wrong token.
    pub fn owner(&self, token: &[u8]) -> Option<Arc<str>> {
        let given = hash(token);
        let strong = Choice::from(u8::from(is_strong(token)));
        let mut owner = None;
        for (name, hash) in &self.0 {
            if bool::from(hash.ct_eq(&given) & strong) {
                owner = Some(Arc::clone(name));
            }
        }
        owner
    }

    /// Returns the names whose tokens these others do not have.
    pub fn without(&self, others: &Self) -> Vec<Arc<str>> {
        let missing = self.0.iter().filter(|token| !others.0.contains(token));
        missing.map(|(name, _)| Arc::clone(name)).collect()
    }
}

/// Checks that a token is long and varied enough not to be one that a person typed.
fn is_strong(token: &[u8]) -> bool {
    let different: BTreeSet<_> = token.iter().collect();
    token.len() >= TOKEN_MIN && different.len() >= DIFFERENT_MIN
}

fn parse_line(line: &str) -> Result<(&str, Hash), String> {
    let (name, digits) = line.split_once(':').ok_or("it is not NAME:SHA256")?;
    check_name(name)?;
    let digits = digits.trim();
    if digits.len() != 64 || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return Err(
            "after the name there must be a SHA-256 in hexadecimal digits, never a token".into(),
        );
    }
    let byte = |position| u8::from_str_radix(&digits[2 * position..][..2], 16).unwrap_or_default();
    let stored: Hash = std::array::from_fn(byte);
    match PLACEHOLDERS
        .iter()
        .any(|placeholder| hash(placeholder.as_bytes()) == stored)
    {
        true => Err(format!("the token of {name} is one that anybody would try")),
        false => Ok((name, stored)),
    }
}

fn check_name(name: &str) -> Result<(), String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if NAMES_TAKEN.contains(&name) {
        return Err(format!(
            "{name} has a meaning of its own in the log: take another name"
        ));
    }
    match (1..=NAME_MAX).contains(&name.len()) && name.bytes().all(plain) {
        true => Ok(()),
        false => Err(format!(
            "a name has 1 to {NAME_MAX} letters, digits, dots, - and _"
        )),
    }
}

fn hash(bytes: &[u8]) -> Hash {
    Sha256::digest(bytes).into()
}

fn unusable(message: String) -> Error {
    Error::new(Kind::Request, message, Remedy::MakeToken)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_belongs_to_the_name_on_its_line() {
        let (one, its) = new_line("one").unwrap();
        let (two, other) = new_line("two").unwrap();
        let tokens = Tokens::parse(&format!("# clients\n{one}\n\n{two}\n")).unwrap();
        assert_eq!(tokens.owner(its.as_bytes()).as_deref(), Some("one"));
        assert_eq!(tokens.owner(other.as_bytes()).as_deref(), Some("two"));
        for wrong in ["", &its[1..], &its.to_uppercase(), &format!("{its} ")] {
            assert_eq!(tokens.owner(wrong.as_bytes()), None, "{wrong}");
        }
    }

    #[test]
    fn a_token_that_is_short_or_repeats_itself_is_nobodys() {
        for token in ["short", &"0123456789".repeat(3), &"secret1".repeat(9)] {
            let digits = hex(&hash(token.as_bytes()));
            let tokens = Tokens::parse(&format!("one:{digits}")).unwrap();
            assert_eq!(tokens.owner(token.as_bytes()), None, "{token}");
        }
    }

    #[test]
    fn a_file_with_anything_else_is_refused() {
        let (line, token) = new_line("one").unwrap();
        let digits = hex(&hash(b"changeme"));
        for wrong in [
            "".into(),
            "# nothing".into(),
            "one".into(),
            format!("one:{}", &token[..40]),
            format!("one:{}", "x".repeat(64)),
            format!("o ne:{}", "0".repeat(64)),
            format!("one:{digits}"),
            format!("{line}\n{line}"),
            format!("{line}\n{}", line.replace("one", "two")),
        ] {
            assert!(Tokens::parse(&wrong).is_err(), "{wrong}");
        }
        for name in ["a:b", "", "cli", "stdio", "local", "unknown"] {
            assert!(new_line(name).is_err(), "{name}");
        }
    }
}
