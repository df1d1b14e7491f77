//! Images as the tools of erofs read them, in cases that are hard to get right.

pub mod extracted;
mod properties;

use crate::error::Kind;
use crate::layer::{Attributes, Content, HostFile, Id, Plan, Time, Tree};
use extracted::{Seen, dump, extract, image_of};
use guest::kind;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

const TIME: Time = Time {
    seconds: 1_700_000_000,
    nanoseconds: 0,
};

fn mode(mode: u32) -> Attributes {
    Attributes {
        mode,
        ..Attributes::default()
    }
}

fn tree() -> Tree {
    Tree::new(mode(0o755), TIME)
}

fn add_file(tree: &mut Tree, directory: Id, name: &[u8], content: &[u8]) -> Id {
    let content = Content::Bytes(content.into());
    tree.add(directory, name, mode(0o644), content).unwrap()
}

fn add_directory(tree: &mut Tree, directory: Id, name: &[u8]) -> Id {
    let added = tree.add(directory, name, mode(0o755), Content::Directory);
    added.unwrap()
}

/// Returns what the tools find below a tree's root, by path.
fn seen(tree: Tree) -> BTreeMap<Vec<u8>, Seen> {
    extract(&image_of(&Plan::of(tree).unwrap()))
}

fn host_file(path: &Path) -> Content {
    Content::File(HostFile::new(path.into(), &path.metadata().unwrap()))
}

#[test]
fn files_of_sizes_around_a_block_are_whole() {
    let mut tree = tree();
    let sizes = [
        0, 1, 31, 4000, 4064, 4095, 4096, 4097, 8191, 8192, 8193, 70_000,
    ];
    let content = |size: usize| {
        (0..size)
            .map(|at| (at * 7 + size) as u8)
            .collect::<Vec<_>>()
    };
    for size in sizes {
        let name = size.to_string();
        add_file(&mut tree, Tree::ROOT, name.as_bytes(), &content(size));
    }
    let seen = seen(tree);
    assert_eq!(seen.len(), sizes.len() + 1);
    for size in sizes {
        let file = &seen[size.to_string().as_bytes()];
        assert_eq!(file.mode, kind::FILE | 0o644);
        assert!(file.content == content(size), "{size}");
        assert_eq!(file.modified, TIME);
    }
}

#[test]
fn links_lead_where_they_did_however_long_their_targets_are() {
    let mut tree = tree();
    let lengths = [1, 32, 4000, 4031, 4032, 4033, 4064, 4065, 4095];
    for length in lengths {
        for modified in [None, Some(Time::default())] {
            let name = format!("{length}{}", if modified.is_some() { "x" } else { "" });
            let attributes = Attributes {
                modified,
                ..mode(0o777)
            };
            let target = Content::Link(vec![b'a'; length]);
            tree.add(Tree::ROOT, name.as_bytes(), attributes, target)
                .unwrap();
        }
    }
    let seen = seen(tree);
    for length in lengths {
        for name in [format!("{length}"), format!("{length}x")] {
            let link = &seen[name.as_bytes()];
            assert_eq!(link.mode, kind::LINK | 0o777);
            assert_eq!(link.content, vec![b'a'; length], "{name}");
        }
    }
}

#[test]
fn odd_names_are_kept_and_differ_by_case() {
    let mut tree = tree();
    let names: [&[u8]; 14] = [
        b"a",
        b"A",
        b"ab",
        b"...",
        b"-",
        b"!",
        b" ",
        b"\n",
        b"\\",
        b"\xff\xfe",
        b"\x01",
        "ä".as_bytes(),
        &[b'x'; 255],
        &[0xff; 255],
    ];
    for name in names {
        add_file(&mut tree, Tree::ROOT, name, name);
    }
    let seen = seen(tree);
    assert_eq!(seen.len(), names.len() + 1);
    for name in names {
        assert_eq!(seen[name].content, name);
    }
}

#[test]
fn a_directory_of_20_000_files_has_them_all() {
    let mut tree = tree();
    let big = add_directory(&mut tree, Tree::ROOT, b"big");
    for number in 0..20_000 {
        let name = format!("{number}-{}", "n".repeat(number % 100));
        add_file(&mut tree, big, name.as_bytes(), b"");
    }
    let seen = seen(tree);
    assert_eq!(seen.len(), 20_002);
    assert!(
        seen.contains_key(
            &b"big/19999-"
                .iter()
                .chain(&[b'n'; 99])
                .copied()
                .collect::<Vec<_>>()
        )
    );
}

#[test]
fn directories_whose_entries_just_fill_blocks_are_whole() {
    // 12 bytes for an entry, 24 + 3 for "." and "..".
    let room = 4096 - 27;
    for spare in [0, 1, 31, 32, 33, 63, 64, 65] {
        let mut tree = tree();
        let names = 16;
        let length = (room - spare) / names - 12;
        let mut left = room - spare;
        for number in 0..names {
            let length = if number + 1 == names {
                left - 12
            } else {
                length
            };
            left -= length + 12;
            let name = format!("{number:0>length$}");
            add_file(&mut tree, Tree::ROOT, name.as_bytes(), b"x");
        }
        assert_eq!(left, 0);
        assert_eq!(seen(tree).len(), names + 1, "{spare}");
    }
}

#[test]
fn paths_may_be_deep() {
    let mut tree = tree();
    let mut directory = Tree::ROOT;
    for _ in 0..300 {
        directory = add_directory(&mut tree, directory, b"down");
    }
    add_file(&mut tree, directory, b"f", b"deep");
    let path = [&b"down/".repeat(300)[..], b"f"].concat();
    assert_eq!(seen(tree)[&path].content, b"deep");
}

#[test]
fn names_of_one_file_share_its_inode() {
    let mut tree = tree();
    let directory = add_directory(&mut tree, Tree::ROOT, b"d");
    let file = add_file(&mut tree, Tree::ROOT, b"a", b"content");
    tree.add_name(directory, b"b", file).unwrap();
    tree.add_name(directory, b"c", file).unwrap();
    let refused = tree.add_name(directory, b"e", directory).unwrap_err();
    assert!(refused.message.contains("\"d/e\""), "{refused}");
    let plan = Plan::of(tree).unwrap();
    assert_eq!(plan.files().len(), 1);
    let image = image_of(&plan);
    let of = |path: &str| dump(&image, path);
    assert_eq!(of("/a").inode, of("/d/c").inode);
    assert_eq!(of("/d/b").links, 3);
    let seen = extract(&image);
    assert_eq!(seen[&b"d/c"[..]].content, b"content");
}

#[test]
fn directories_count_those_that_are_in_them() {
    let mut tree = tree();
    let directory = add_directory(&mut tree, Tree::ROOT, b"d");
    for name in [b"a", b"b", b"c"] {
        add_directory(&mut tree, directory, name);
    }
    add_file(&mut tree, directory, b"f", b"");
    let image = image_of(&Plan::of(tree).unwrap());
    for (path, links) in [("/", 3), ("/d", 5), ("/d/a", 2), ("/d/f", 1)] {
        assert_eq!(dump(&image, path).links, links, "{path}");
    }
}

#[test]
fn attributes_need_no_more_than_they_have_to() {
    let mut tree = tree();
    let own = Time {
        seconds: -1,
        nanoseconds: 999_999_999,
    };
    let of = |uid, gid, modified| Attributes {
        mode: 0o4711,
        uid,
        gid,
        modified,
    };
    let all = [
        ("small", of(65_535, 65_535, None), 32),
        ("same", of(0, 0, Some(TIME)), 32),
        ("uid", of(65_536, 0, None), 64),
        ("gid", of(0, 4_000_000_000, None), 64),
        ("time", of(1, 2, Some(own)), 64),
    ];
    for (name, attributes, _) in all {
        let content = Content::Bytes(name.into());
        tree.add(Tree::ROOT, name.as_bytes(), attributes, content)
            .unwrap();
    }
    let image = image_of(&Plan::of(tree).unwrap());
    let seen = extract(&image);
    for (name, attributes, length) in all {
        let found = &seen[name.as_bytes()];
        assert_eq!(found.content, name.as_bytes());
        assert_eq!(
            found.modified,
            attributes.modified.unwrap_or(TIME),
            "{name}"
        );
        let dumped = dump(&image, &format!("/{name}"));
        assert_eq!(dumped.owner, (attributes.uid, attributes.gid));
        assert_eq!(dumped.inode_length, length, "{name}");
    }
}

#[test]
fn a_directory_that_is_added_again_keeps_what_is_in_it() {
    let mut tree = tree();
    let directory = add_directory(&mut tree, Tree::ROOT, b"d");
    add_file(&mut tree, directory, b"a", b"kept");
    let again = tree.add(Tree::ROOT, b"d", mode(0o700), Content::Directory);
    assert_eq!(again.unwrap(), directory);
    add_file(&mut tree, directory, b"b", b"new");
    let seen = seen(tree);
    assert_eq!(seen[&b"d"[..]].mode, kind::DIRECTORY | 0o700);
    assert_eq!(seen[&b"d/a"[..]].content, b"kept");
    assert_eq!(seen[&b"d/b"[..]].content, b"new");
}

#[test]
fn what_a_layer_cannot_hold_is_refused_with_its_path() {
    let mut tree = tree();
    let directory = add_directory(&mut tree, Tree::ROOT, b"d");
    let file = add_file(&mut tree, directory, b"f", b"");
    let cases: [(Id, &[u8], Content); 12] = [
        (directory, b"", Content::Directory),
        (directory, b".", Content::Directory),
        (directory, b"..", Content::Bytes(Vec::new())),
        (directory, b"a/b", Content::Directory),
        (directory, b"a\0", Content::Directory),
        (directory, &[b'x'; 256], Content::Directory),
        (directory, b"l", Content::Link(Vec::new())),
        (directory, b"l", Content::Link(vec![b'x'; 4096])),
        (directory, b"l", Content::Link(b"a\0b".into())),
        (directory, b"f", Content::Directory),
        (directory, b"f", Content::Bytes(Vec::new())),
        (Tree::ROOT, b"d", Content::Bytes(Vec::new())),
    ];
    for (parent, name, content) in cases {
        let case = format!("{name:?} {content:?}");
        let error = tree.add(parent, name, mode(0o644), content).unwrap_err();
        assert_eq!(error.kind, Kind::File);
        assert!(error.message.starts_with("\"d"), "{case}: {error}");
    }
    let below_file = tree.add(file, b"x", mode(0o755), Content::Directory);
    assert!(below_file.is_err());
    let seen = seen(tree);
    assert_eq!(seen.keys().collect::<Vec<_>>(), [&b""[..], b"d", b"d/f"]);
}

#[test]
fn large_files_begin_at_huge_pages_and_images_end_at_one() {
    let here = tempfile::tempdir().unwrap();
    let mut tree = tree();
    for (name, size) in [
        ("a", 5 << 20),
        ("b", 4096),
        ("c", (2 << 20) - 1),
        ("d", 2 << 20),
    ] {
        let path = here.path().join(name);
        fs::write(&path, vec![name.as_bytes()[0]; size]).unwrap();
        tree.add(Tree::ROOT, name.as_bytes(), mode(0o644), host_file(&path))
            .unwrap();
    }
    let plan = Plan::of(tree).unwrap();
    assert_eq!(plan.size() % (2 << 20), 0);
    let sizes: Vec<_> = plan.files().iter().map(|file| file.source.size()).collect();
    assert_eq!(sizes, [4096, (2 << 20) - 1, 5 << 20, 2 << 20]);
    for file in plan.files() {
        let page = if file.source.size() < 2 << 20 {
            4096
        } else {
            2 << 20
        };
        assert_eq!(file.offset % page, 0);
        let is_mapped = file.source.size() > 4096;
        assert_eq!(file.file(64 << 10).is_some(), is_mapped);
    }
    let seen = extract(&image_of(&plan));
    assert!(seen[&b"a"[..]].content == vec![b'a'; 5 << 20]);
    assert!(seen[&b"c"[..]].content == vec![b'c'; (2 << 20) - 1]);
}

#[test]
fn a_file_of_5_gib_with_holes_takes_no_more_than_its_data() {
    const GIB: u64 = 1 << 30;
    let here = tempfile::tempdir().unwrap();
    let path = here.path().join("sparse");
    let file = File::create(&path).unwrap();
    file.set_len(5 * GIB).unwrap();
    file.write_all_at(b"begin", 0).unwrap();
    file.write_all_at(b"middle", 3 * GIB + 5).unwrap();
    file.write_all_at(b"end", 5 * GIB - 3).unwrap();
    let mut tree = tree();
    tree.add(Tree::ROOT, b"f", mode(0o644), host_file(&path))
        .unwrap();
    let plan = Plan::of(tree).unwrap();
    let image = image_of(&plan);
    let written = image.as_file();
    assert!(written.metadata().unwrap().blocks() * 512 < 1 << 20);
    let offset = plan.files()[0].offset;
    for (at, expected) in [
        (0, &b"begin"[..]),
        (3 * GIB + 5, b"middle"),
        (5 * GIB - 3, b"end"),
    ] {
        let mut bytes = vec![0; expected.len()];
        written.read_exact_at(&mut bytes, offset + at).unwrap();
        assert_eq!(bytes, expected);
    }
    let dumped = dump(&image, "/f");
    assert_eq!(dumped.size, 5 * GIB);
    assert_eq!(dumped.inode_length, 64);
}

#[test]
fn a_file_that_changes_after_it_was_planned_is_named() {
    let here = tempfile::tempdir().unwrap();
    let path = here.path().join("changing");
    type Change = fn(&Path);
    let changes: [(Change, &str); 5] = [
        (|path| fs::write(path, [1; 99_999]).unwrap(), "has 99999"),
        (|path| fs::write(path, [1; 100_001]).unwrap(), "has 100001"),
        (|path| fs::remove_file(path).unwrap(), "it was removed"),
        (
            |path| {
                fs::write(path.with_extension("new"), [0; 100_000]).unwrap();
                fs::rename(path.with_extension("new"), path).unwrap();
            },
            "it was replaced",
        ),
        (
            |path| {
                fs::remove_file(path).unwrap();
                nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRUSR).unwrap();
            },
            "it was replaced",
        ),
    ];
    for (change, what) in changes {
        let _ = fs::remove_file(&path);
        fs::write(&path, [0; 100_000]).unwrap();
        let mut tree = tree();
        tree.add(Tree::ROOT, b"f", mode(0o644), host_file(&path))
            .unwrap();
        let plan = Plan::of(tree).unwrap();
        change(&path);
        let error = plan.write(&tempfile::tempfile().unwrap()).unwrap_err();
        let error: &crate::error::Error = error.downcast_ref().unwrap();
        assert!(error.message.contains("changing changed while"), "{error}");
        assert!(error.message.contains(what), "{error}");
        let mut memory = vec![0; 100_000];
        assert_eq!(
            &plan.files()[0].source.read(&mut memory).unwrap_err(),
            error
        );
    }
}

#[test]
fn more_than_an_image_can_hold_is_refused() {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(4 << 40).unwrap();
    let mut tree = tree();
    for name in [b"a", b"b", b"c", b"d", b"e"] {
        tree.add(Tree::ROOT, name, mode(0o644), host_file(file.path()))
            .unwrap();
    }
    let error = Plan::of(tree).unwrap_err();
    assert_eq!(error.message, "20480 GiB of files are too many at once");
}
