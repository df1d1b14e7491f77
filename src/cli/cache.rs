//! `sandbox cache`: what is kept for later runs.

use crate::cache::{BOUND, Item, Shelf, prune};
use crate::cli::exit_code::EXIT_OURS;
use crate::clock::since_1970;
use crate::log::say;
use crate::template::eviction::with_shelves;
use crate::units::{parse_size, rough};
use anyhow::Result;
use clap::Subcommand;
use std::io::{self, Write, stdout};

#[derive(Subcommand)]
pub enum Verb {
    /// Show all that is kept: size on disk, what each is for, when it was last used
    List {
        /// Check all of their content too
        #[arg(long)]
        verify: bool,
    },
    /// Remove what no run uses now; runs make again what they need
    Prune {
        /// Keep so much, of what was used last
        #[arg(long, value_name = "SIZE", default_value = "0", hide_default_value = true, value_parser = parse_size)]
        max_size: u64,
        /// Remove checkpoints of sessions as well, which nobody can make again
        #[arg(long)]
        checkpoints: bool,
    },
}

pub fn cache_verb(verb: Verb) -> Result<u8> {
    let removes_all = matches!(
        verb,
        Verb::Prune {
            checkpoints: true,
            ..
        }
    );
    with_shelves(!removes_all, |shelves| do_verb(verb, shelves))
}

fn do_verb(verb: Verb, shelves: &[&dyn Shelf]) -> Result<u8> {
    match verb {
        Verb::List { verify } => {
            let listed = list(shelves, verify)?;
            let line = format!("{} MiB of at most {} MiB", listed.size >> 20, BOUND >> 20);
            print(&line)?;
            Ok(listed.exit_code())
        }
        Verb::Prune { max_size, .. } => remove(shelves, max_size),
    }
}

/// The total of the items that were listed.
pub struct Listed {
    /// The bytes on disk.
    size: u64,
    are_good: bool,
}

impl Listed {
    /// Returns the exit code, which tells whether all of it may be used.
    pub fn exit_code(&self) -> u8 {
        if self.are_good { 0 } else { EXIT_OURS }
    }
}

/// Prints a line for each thing, those first that were used last.
pub fn list(shelves: &[&dyn Shelf], verify: bool) -> Result<Listed> {
    let mut items = Vec::new();
    for shelf in shelves {
        items.extend(shelf.items()?.into_iter().map(|item| (shelf, item)));
    }
    items.sort_by_key(|(_, item)| std::cmp::Reverse(item.used));
    let mut listed = Listed {
        size: 0,
        are_good: true,
    };
    for (shelf, mut item) in items {
        if verify && item.about.is_ok() && !shelf.verify(&item.name)? {
            item.about = Err("its content is not what was saved".into());
        }
        listed.size += item.size;
        listed.are_good &= item.about.is_ok();
        print(&line(&item))?;
    }
    Ok(listed)
}

fn line(item: &Item) -> String {
    let told = match &item.about {
        Ok(about) => {
            match since_1970().as_secs().saturating_sub(item.used as u64) {
                // No use is written down more often.
                0..3600 => format!("{about}, used in the last hour"),
                seconds => format!("{about}, used {} ago", rough(seconds)),
            }
        }
        Err(why) => format!("refused: {why}"),
    };
    format!("{}  {} MiB  {told}", item.name, item.size >> 20)
}

/// Removes what is not in use until the rest takes at most so many bytes.
pub fn remove(shelves: &[&dyn Shelf], most: u64) -> Result<u8> {
    let removed = prune(shelves, most)?;
    say(&format!(
        "removed {}, {} MiB",
        removed.count,
        removed.size >> 20
    ));
    Ok(0)
}

/// Prints a line, if anybody still reads.
fn print(line: &str) -> Result<()> {
    match writeln!(stdout(), "{line}") {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => Ok(result?),
    }
}
