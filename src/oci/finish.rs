//! What each tree gets that an image may lack, and the tree as the layer of a guest.

use crate::error::Error;
use crate::layer::{self, Attributes, Time};
use crate::oci::layers::Merge;
use crate::oci::path::Path;
use crate::oci::refusal::{refused, within};
use crate::oci::tree::{Content, Id, Node, Tree};

/// The directories that the guest mounts something on, or puts files into: there can be no links.
const MOUNTED: [&str; 7] = ["dev", "proc", "sys", "tmp", "run", "work", ".sandbox"];
/// Other directories that programs rely on.
const EXPECTED: [&str; 4] = ["etc", "home", "root", "var"];
const HOSTS: &[u8] = b"127.0.0.1\tlocalhost\n::1\tlocalhost\n";
/// The number of the layer with what is added here, which is over all others.
const LAST: usize = usize::MAX;

/// Adds the directories that are missing, and the working directory.
pub fn complete(merge: &mut Merge, workdir: Option<&Path>) -> Result<(), Error> {
    let tree = &mut merge.tree;
    for name in MOUNTED.into_iter().chain(EXPECTED) {
        match tree.find(Tree::ROOT, name.as_bytes()) {
            Some(id) if MOUNTED.contains(&name) && !tree.is_directory(id) => {
                return Err(refused(
                    format!("its /{name} is not a directory"),
                    "make the image with a directory there",
                ));
            }
            Some(_) => {}
            None => {
                let mode = if name == "tmp" { 0o1777 } else { 0o755 };
                let directory = tree.directory_for(Tree::ROOT, made(mode));
                tree.put(Tree::ROOT, name.as_bytes(), directory, LAST)?;
            }
        }
    }
    if let Some(workdir) = workdir {
        let added = tree.make_directories(workdir.names(), LAST);
        added.map_err(|error| within("its working directory", error))?;
    }
    name_this_host(merge)
}

/// Gives /etc/hosts a content if it has none. A link there leads to somebody's own.
fn name_this_host(merge: &mut Merge) -> Result<(), Error> {
    let Ok(etc) = merge.tree.resolve(&[b"etc".to_vec()]) else {
        return Ok(());
    };
    let there = merge.tree.find(etc, b"hosts");
    let is_empty = there.is_none_or(|id| match &merge.tree.node(id).content {
        Content::File(part) => part.size == 0,
        Content::Directory(_) | Content::Link(_) => false,
    });
    if is_empty && merge.tree.is_directory(etc) {
        let content = Content::File(merge.contents.add(HOSTS, HOSTS.len() as u64)?);
        let attributes = there.map_or(made(0o644), |id| merge.tree.node(id).attributes);
        let hosts = Node {
            attributes,
            content,
        };
        merge.tree.put(etc, b"hosts", hosts, LAST)?;
    }
    Ok(())
}

fn made(mode: u32) -> Attributes {
    Attributes {
        mode,
        modified: Some(Time::default()),
        ..Attributes::default()
    }
}

/// Returns all that has a name as the tree of a layer.
pub fn into_layer(tree: &Tree) -> Result<layer::Tree, Error> {
    let mut layer = layer::Tree::new(tree.node(Tree::ROOT).attributes, Time::default());
    // What has a name already can get another.
    let mut added: Vec<Option<layer::Id>> = vec![None; tree.len()];
    let mut waiting: Vec<(Id, layer::Id)> = vec![(Tree::ROOT, layer::Tree::ROOT)];
    while let Some((directory, into)) = waiting.pop() {
        for (name, id) in tree.entries(directory) {
            if let Some(file) = added[Tree::index(id)] {
                layer.add_name(into, name, file)?;
                continue;
            }
            let node = tree.node(id);
            let content = match &node.content {
                Content::Directory(_) => layer::Content::Directory,
                Content::Link(target) => layer::Content::Link(target.clone()),
                Content::File(part) => layer::Content::Part(part.clone()),
            };
            let new = layer.add(into, name, node.attributes, content)?;
            added[Tree::index(id)] = Some(new);
            if tree.is_directory(id) {
                waiting.push((id, new));
            }
        }
    }
    Ok(layer)
}
