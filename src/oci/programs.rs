//! The programs of an image: what its users can start by a name alone.

use crate::error::Error;
use crate::image::DEFAULT_PATH;
use crate::oci::refusal::too_much;
use crate::oci::tree::{Content, Id, Tree};
use crate::text::is_plain;
use std::collections::BTreeSet;

/// The variable that names the directories with programs.
const PATH: &str = "PATH=";
/// How many directories are looked through.
const DIRECTORIES_MAX: usize = 64;
/// Upper bound on programs.
pub const PROGRAMS_MAX: usize = 16_384;
const MAY_EXECUTE: u32 = 0o111;

/// Returns the names of all files that may be executed in the directories of `PATH`, in order.
pub fn programs(tree: &Tree, env: &[String]) -> Result<Vec<String>, Error> {
    // The last holds, as it does when programs are run.
    let own = env.iter().rev().find(|it| it.starts_with(PATH));
    let path = own.map_or(DEFAULT_PATH, String::as_str);
    let path = path[PATH.len()..].split(':');
    let path = path.filter(|it| it.starts_with('/'));
    let mut directories: Vec<Id> = Vec::new();
    for directory in path.take(DIRECTORIES_MAX) {
        let names: Vec<_> = directory.split('/').map(Vec::from).collect();
        directories.extend(tree.resolve(&names));
    }
    directories.sort_unstable();
    directories.dedup();
    let mut programs = BTreeSet::new();
    for directory in directories {
        let all = tree.entries(directory).map(|(name, _)| name);
        let executed = all.filter(|name| is_executed(tree, directory, name));
        let named = executed.filter_map(|name| str::from_utf8(name).ok());
        programs.extend(named.filter(|name| is_name(name)).map(str::to_owned));
    }
    match programs.len() > PROGRAMS_MAX {
        true => Err(too_much(format!(
            "it has more than {PROGRAMS_MAX} programs"
        ))),
        false => Ok(programs.into_iter().collect()),
    }
}

/// Returns whether this is a name that can be told.
pub fn is_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= 255 && !name.contains(['/', '\n', '\t']) && is_plain(name)
}

fn is_executed(tree: &Tree, directory: Id, name: &[u8]) -> bool {
    tree.step(directory, name).is_ok_and(|id| {
        let node = tree.node(id);
        matches!(node.content, Content::File(_)) && node.attributes.mode & MAY_EXECUTE != 0
    })
}
