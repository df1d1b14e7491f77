//! `sandbox audit`: the log of runs.

use crate::audit::{self, verify};
use crate::cli::remedies::words;
use crate::error::{Error, Kind};
use crate::record::Anchor;
use anyhow::Result;
use clap::Subcommand;
use std::io::{Write, stdout};
use std::path::{Path, PathBuf};

/// How many of the runs without an end are listed.
const NAMED: usize = 10;
/// The exit code if something is wrong with a log.
const WRONG: u8 = 1;

#[derive(Subcommand)]
pub enum Verb {
    /// Say whether a log is as it was written, with the files that were full before it
    Verify {
        file: PathBuf,
        /// The number and hash of an entry, as a record has them: it must be there, unchanged. May
        /// be given many times
        #[arg(long, value_name = "SEQUENCE:HASH", value_parser = parse_anchor)]
        anchor: Vec<Anchor>,
    },
}

pub fn audit_verb(verb: Verb) -> Result<u8> {
    let Verb::Verify { file, anchor } = verb;
    let verified = verify(&file, &anchor).map_err(unreadable)?;
    let (text, code) = match verified {
        Ok(sound) => (describe(&file, &sound), 0),
        Err(fault) => {
            let remedy = fault.remedy.as_ref().map(|it| words(it) + "\n");
            (format!("{fault}\n{}", remedy.unwrap_or_default()), WRONG)
        }
    };
    stdout().write_all(text.as_bytes())?;
    Ok(code)
}

fn unreadable(error: anyhow::Error) -> Error {
    Error::new(
        Kind::File,
        format!("{error:#}"),
        "check the path and its permissions",
    )
}

fn describe(file: &Path, sound: &audit::Sound) -> String {
    let Anchor { sequence, hash } = &sound.head;
    let mut text = format!(
        "{}: {} entries, all as they were written\nlast: {sequence}:{hash}\n",
        file.display(),
        sound.entries
    );
    if sound.torn > 0 {
        text += &format!(
            "{} times a writer was killed while it wrote; an entry tells of each\n",
            sound.torn
        );
    }
    if !sound.open.is_empty() {
        let names: Vec<_> = sound.open.iter().take(NAMED).map(u64::to_string).collect();
        let more = sound.open.len().saturating_sub(NAMED);
        let more = match more {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        text += &format!(
            "runs without an end, which go on or were killed: {}{more}\n",
            names.join(", ")
        );
    }
    text
}

fn parse_anchor(text: &str) -> Result<Anchor, String> {
    let wrong = || "give the number and the hash of an entry, with a colon between".to_string();
    let (sequence, hash) = text.split_once(':').ok_or_else(wrong)?;
    let is_hash = hash.len() == 64 && hash.bytes().all(|byte| byte.is_ascii_hexdigit());
    Ok(Anchor {
        sequence: sequence.parse().map_err(|_| wrong())?,
        hash: is_hash.then(|| hash.to_lowercase()).ok_or_else(wrong)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_anchor_is_a_number_and_a_hash() {
        let hash = "0a".repeat(32);
        let anchor = parse_anchor(&format!("17:{hash}")).unwrap();
        assert_eq!((anchor.sequence, anchor.hash), (17, hash.clone()));
        for wrong in [
            "",
            "17",
            "17:",
            ":00",
            &format!("x:{hash}"),
            &format!("1:{hash}0"),
        ] {
            assert!(parse_anchor(wrong).is_err(), "{wrong}");
        }
    }
}
