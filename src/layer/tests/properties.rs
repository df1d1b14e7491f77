//! Properties of images of any trees.

use crate::layer::tests::extracted::{Seen, extract, image_of, tree_at};
use crate::layer::tests::{TIME, host_file, mode};
use crate::layer::{Attributes, Content, Id, Plan, Time, Tree};
use guest::kind;
use proptest::collection::vec;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

/// Something to be added to a tree.
#[derive(Debug, Clone)]
struct Addition {
    /// Which of the directories that are there it goes into.
    directory: prop::sample::Index,
    name: Vec<u8>,
    attributes: Attributes,
    what: What,
}

#[derive(Debug, Clone)]
enum What {
    Directory,
    Link(Vec<u8>),
    /// A file of so many bytes.
    File(usize),
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    let byte = || any::<u8>().prop_filter("a byte of a name", |byte| ![0, b'/'].contains(byte));
    let like_dots = prop::sample::select(vec![b'-', b'.', b'/' - 2, b'0', b'a', b'A']);
    prop_oneof![
        vec(like_dots, 1..5),
        vec(byte(), 1..40),
        vec(byte(), 200..256),
    ]
    .prop_filter("no directory's own", |name| name != b"." && name != b"..")
}

fn attributes() -> impl Strategy<Value = Attributes> {
    let time = (-(1i64 << 31)..1 << 33, 0..1_000_000_000u32);
    let time = time.prop_map(|(seconds, nanoseconds)| Time {
        seconds,
        nanoseconds,
    });
    let id = || prop_oneof![Just(0), 0..1u32 << 17, Just(u32::MAX - 1)];
    (0..0o1000u32, id(), id(), prop::option::of(time)).prop_map(|(mode, uid, gid, modified)| {
        // Whoever extracts the tree has to read it.
        Attributes {
            mode: mode | 0o700,
            uid,
            gid,
            modified,
        }
    })
}

fn addition() -> impl Strategy<Value = Addition> {
    let size = prop_oneof![0..100usize, 4000..4200usize, 0..20_000usize];
    let target = prop_oneof![1..100usize, 3900..4096usize];
    let what = prop_oneof![
        3 => Just(What::Directory),
        1 => target.prop_map(|length| What::Link(vec![b'/'; length])),
        4 => size.prop_map(What::File),
    ];
    let parts = (any::<prop::sample::Index>(), name(), attributes(), what);
    parts.prop_map(|(directory, name, attributes, what)| Addition {
        directory,
        name,
        attributes,
        what,
    })
}

/// Makes a tree, and what is to be seen of it. What the tree refuses is left out.
fn build(additions: &[Addition]) -> (Tree, BTreeMap<Vec<u8>, Seen>) {
    let mut tree = Tree::new(mode(0o755), TIME);
    let mut directories = vec![(Tree::ROOT, Vec::new())];
    let mut expected = BTreeMap::new();
    let root = seen(mode(0o755), kind::DIRECTORY, Vec::new());
    expected.insert(Vec::new(), root);
    for one in additions {
        let (directory, above): &(Id, Vec<u8>) = one.directory.get(&directories);
        let path = match above.is_empty() {
            true => one.name.clone(),
            false => [above, &b"/"[..], &one.name].concat(),
        };
        let (kind, content, bytes) = match &one.what {
            What::Directory => (kind::DIRECTORY, Content::Directory, Vec::new()),
            What::Link(target) => (kind::LINK, Content::Link(target.clone()), target.clone()),
            What::File(size) => {
                let bytes: Vec<_> = (0..*size).map(|at| (at ^ size) as u8).collect();
                (kind::FILE, Content::Bytes(bytes.clone()), bytes)
            }
        };
        let added = tree.add(*directory, &one.name, one.attributes, content);
        let Ok(id) = added else { continue };
        expected.insert(path.clone(), seen(one.attributes, kind, bytes));
        if kind == kind::DIRECTORY && !directories.contains(&(id, path.clone())) {
            directories.push((id, path));
        }
    }
    (tree, expected)
}

fn seen(attributes: Attributes, kind: u32, content: Vec<u8>) -> Seen {
    // A link's permissions are what Linux says they are.
    let mode = if kind == kind::LINK {
        0o777
    } else {
        attributes.mode
    };
    Seen {
        mode: kind | mode,
        modified: attributes.modified.unwrap_or(TIME),
        content,
    }
}

fn bytes_of(tree: Tree) -> Vec<u8> {
    fs::read(image_of(&Plan::of(tree).unwrap()).path()).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_extracted_is_what_was_added(additions in vec(addition(), 0..150)) {
        let (tree, expected) = build(&additions);
        let found = extract(&image_of(&Plan::of(tree).unwrap()));
        let paths = |seen: &BTreeMap<Vec<u8>, Seen>| seen.keys().cloned().collect::<Vec<_>>();
        prop_assert_eq!(paths(&found), paths(&expected));
        for (path, expected) in &expected {
            prop_assert_eq!(&found[path], expected, "{:?}", path);
        }
    }

    #[test]
    fn the_same_tree_gives_the_same_image(additions in vec(addition(), 0..50)) {
        prop_assert!(bytes_of(build(&additions).0) == bytes_of(build(&additions).0));
    }
}

#[test]
fn the_order_in_which_files_are_added_does_not_matter() {
    let names: Vec<_> = (0..500)
        .map(|number| format!("{}", number * 7919 % 500))
        .collect();
    let image = |names: &mut dyn Iterator<Item = &String>| {
        let mut tree = Tree::new(mode(0o755), TIME);
        for name in names {
            let content = Content::Bytes(name.clone().into());
            tree.add(Tree::ROOT, name.as_bytes(), mode(0o644), content)
                .unwrap();
        }
        bytes_of(tree)
    };
    assert!(image(&mut names.iter()) == image(&mut names.iter().rev()));
}

/// Adds what is in a directory of the host.
fn add_all(tree: &mut Tree, directory: Id, host: &Path) {
    for entry in fs::read_dir(host).unwrap() {
        let entry = entry.unwrap();
        let (path, metadata) = (entry.path(), entry.metadata().unwrap());
        let attributes = Attributes {
            mode: metadata.mode(),
            modified: Some(Time {
                seconds: metadata.mtime(),
                nanoseconds: metadata.mtime_nsec() as u32,
            }),
            ..Attributes::default()
        };
        let content = match metadata.mode() & kind::MASK {
            kind::DIRECTORY => Content::Directory,
            kind::LINK => Content::Link(path.read_link().unwrap().as_os_str().as_bytes().into()),
            _ => host_file(&path),
        };
        let is_directory = metadata.is_dir();
        let added = tree.add(directory, entry.file_name().as_bytes(), attributes, content);
        if is_directory {
            add_all(tree, added.unwrap(), &path);
        }
    }
}

#[test]
fn the_image_holds_what_that_of_mkfs_holds() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut tree = Tree::new(mode(0o755), TIME);
    add_all(&mut tree, Tree::ROOT, &source);
    let mut ours = extract(&image_of(&Plan::of(tree).unwrap()));
    let theirs = tempfile::NamedTempFile::new().unwrap();
    let made = Command::new("mkfs.erofs")
        .arg(theirs.path())
        .arg(&source)
        .output();
    assert!(
        made.expect("mkfs.erofs of erofs-utils is needed")
            .status
            .success()
    );
    let mut theirs = extract(&theirs);
    assert!(ours.len() > 200);
    // The time of the root itself is the one of the whole tree.
    ours.remove(&b""[..]);
    theirs.remove(&b""[..]);
    assert!(ours == theirs);
    let mut source = tree_at(&source);
    source.remove(&b""[..]);
    assert!(ours == source);
}
