//! Layers that would lead out of the image, hold too much, or contradict themselves.

use super::builder::{Image, Packed, Tar, image};
use super::{SMALL, refused, refuses_layer, refuses_layers};

#[test]
fn paths_that_lead_out_or_that_no_file_can_have_are_refused() {
    for (path, words) in [
        ("../a", "the path \"../a\" has \"..\" in it"),
        ("/../a", "\"..\" in it"),
        ("a/../../b", "\"..\" in it"),
        ("..", "\"..\" in it"),
        ("a/..", "\"..\" in it"),
        ("", "an entry has no name"),
        ("./", "it would replace the root directory"),
        ("/", "it would replace the root directory"),
        (&"x".repeat(256), "a name of more than 255 bytes"),
        (&"d/".repeat(22), "is too deep"),
        ("a\0b", "has a zero byte in it"),
        ("\u{1b}[2J/..", "\"\\u{1b}[2J/..\""),
        (".wh.", "it removes what no name stands for"),
        ("a/.wh...", "it removes what no name stands for"),
        (".wh..", "it removes what no name stands for"),
        ("a/.wh.b/c", "a directory whose name begins with \".wh.\""),
    ] {
        let layer = match path.contains('\0') {
            true => Tar::new().pax("path", path).file("x", ""),
            false => Tar::new().directory("a").file(path, ""),
        };
        refuses_layer(layer, words);
    }
    refuses_layer(
        Tar::new().entry("long", b'L', "", "a\0b\0").file("x", ""),
        "zero byte",
    );
    let error = refused(
        &image([Tar::new().file("../".repeat(1000), "")]).oci(),
        "…\"",
    );
    assert!(error.message.len() < 400);
}

#[test]
fn what_is_in_a_file_or_beyond_a_link_out_of_the_image_is_refused() {
    let one = |tar: Tar, words| refuses_layer(tar, words);
    one(
        Tar::new().file("f", "").file("f/x", ""),
        "it would be in \"f\", which is not a directory",
    );
    one(
        Tar::new().link("l", "f").file("f", "").file("l/x", ""),
        "which is not a directory",
    );
    one(
        Tar::new().link("l", "/etc").file("l/x", ""),
        "it would be in \"l\", a link to nothing",
    );
    one(
        Tar::new().link("l", "../../tmp").file("l/x", ""),
        "a link to nothing",
    );
    one(
        Tar::new().link("l", "l").file("l/x", ""),
        "it would be in \"l\", a link without an end",
    );
    let both = Tar::new().link("a", "b").link("b", "a/c").file("a/x", "");
    one(both, "a link without an end");
    one(
        Tar::new().link("l", "a").file("a/b", "").file("l/b/c", ""),
        "not a directory",
    );
    // Each link doubles the way.
    let first = Tar::new().directory("d").link("l0", "d/../d");
    let doubled = (1..40).fold(first, |tar, number| {
        let before = number - 1;
        tar.link(format!("l{number}"), format!("l{before}/../l{before}/."))
    });
    one(doubled.file("l39/x", ""), "a link without an end");
    let looped = Tar::new().link("l", "l").file("l/.wh.x", "");
    one(looped, "the links on its way have no end");
}

#[test]
fn hard_links_to_anything_but_files_of_the_image_are_refused() {
    for (target, words) in [
        ("../../etc/passwd", "\"..\" in it"),
        (
            "/etc/passwd",
            "another name of \"/etc/passwd\", which is not there",
        ),
        ("missing", "another name of \"missing\", which is not there"),
        ("x", "another name of \"x\", which is itself"),
        ("file", "another name of \"file\", which is not there"),
        ("directory", "another name of \"directory\", a directory"),
        ("/", "another name of \"/\", a directory"),
        ("loop/x", "on the way to which links have no end"),
        (
            "out/passwd",
            "another name of \"out/passwd\", which is not there",
        ),
        ("", "it is another name of nothing"),
    ] {
        let layer = Tar::new().directory("directory").link("loop", "loop");
        let layer = layer
            .link("out", "../../../etc")
            .name("x", target)
            .file("file", "");
        refuses_layer(layer, words);
    }
    let first = Tar::new().file("x", "1");
    refuses_layers([first, Tar::new().name("x", "./x")], "which is itself");
}

#[test]
fn links_that_can_lead_nowhere_are_refused() {
    refuses_layer(Tar::new().link("l", ""), "a link to nothing");
    refuses_layer(
        Tar::new().link("l", "x".repeat(4096)),
        "more than 4095 bytes",
    );
    refuses_layer(
        Tar::new().pax("linkpath", "a\0b").link("l", "x"),
        "a zero byte in it",
    );
}

#[test]
fn devices_outside_of_dev_are_refused() {
    for flag in [b'3', b'4'] {
        for path in ["null", "etc/null", "dev", "devices/x", "etc/dev/x"] {
            let layer = Tar::new().entry(path, flag, "", "");
            match path {
                "dev" => drop(super::merged([layer])),
                _ => refuses_layer(layer, "it is a device"),
            }
        }
    }
    for flag in [b'V', b'M', b'N', b'D', b'A', b'9', 0xff] {
        refuses_layer(Tar::new().entry("x", flag, "", ""), "is unknown");
    }
}

#[test]
fn what_is_in_a_layer_twice_is_refused() {
    for layer in [
        Tar::new().file("a", "1").file("a", "2"),
        Tar::new().file("a", "1").file("./a", "2"),
        Tar::new().file("a", "1").directory("a"),
        Tar::new().directory("a").file("a", "1"),
        Tar::new().directory("a").link("a", "/"),
        Tar::new().link("a", "b").directory("a"),
        Tar::new().file("a/b", "1").file("a", "2"),
        Tar::new().file("a/b", "1").link("a", "/etc"),
        Tar::new().file("a", "1").file("b", "2").name("b", "a"),
        Tar::new().file("d/a", "1").link("l", "d").file("l/a", "2"),
    ] {
        refuses_layer(layer, "it is in the layer twice");
    }
    let lower = Tar::new().file("a/old", "1");
    let upper = Tar::new().file("a/new", "2").link("a", "/etc");
    refuses_layers([lower, upper], "it is in the layer twice");
}

#[test]
fn links_over_directories_that_the_guest_needs_are_refused() {
    for name in ["dev", "proc", "sys", "tmp", "run", "work", ".sandbox"] {
        let words = format!("its /{name} is not a directory");
        refuses_layer(Tar::new().link(name, "/etc"), &words);
        refuses_layer(Tar::new().file(name, ""), &words);
        let lower = Tar::new().directory(name).directory("etc");
        let over = Tar::new().link(name, "etc");
        refuses_layers([lower, over], &words);
    }
}

#[test]
fn sizes_that_are_not_those_of_the_content_are_refused() {
    let sized = |size: [u8; 12]| {
        Tar::new().with("a", b'0', "", "x", move |header| {
            header.as_old_mut().size = size
        })
    };
    refuses_layer(sized([0xff; 12]), "its size is no number that there can be");
    refuses_layer(sized(*b"-0000000001\0"), "its size is no number");
    refuses_layer(sized(*b"0000000009x\0"), "its size is no number");
    refuses_layer(
        sized(*b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff"),
        "have more than",
    );
    refuses_layer(
        sized(*b"77777777777\0"),
        "the files of all layers have more than",
    );
    refuses_layer(sized(*b"00000100000\0"), "it is cut off");
    refuses_layer(
        Tar::new().pax("size", "5000000").file("a", ""),
        "have more than",
    );
    refuses_layer(
        Tar::new().pax("size", "-1").file("a", ""),
        "a pax header has a wrong size",
    );
    refuses_layer(
        Tar::new().pax("size", "9000").file("a", ""),
        "it is cut off",
    );
    refuses_layer(
        Tar::new().pax("uid", "4294967296").file("a", ""),
        "its owner is no number",
    );
    refuses_layer(
        Tar::new().pax("mtime", "now").file("a", ""),
        "a pax header has a wrong mtime",
    );
    refuses_layer(
        Tar::new().pax("GNU.sparse.major", "1").file("a", ""),
        "sparse",
    );
    refuses_layer(Tar::new().entry("a", b'S', "", ""), "sparse");
    refuses_layer(
        Tar::new().entry("x", b'x', "", "99 path=x\n").file("a", ""),
        "no sound records",
    );
    refuses_layer(
        Tar::new().entry("a", b'5', "", "content"),
        "it has content, but is not a file",
    );
    refuses_layer(
        Tar::new().entry("a", b'2', "b", "content"),
        "it has content, but is not a file",
    );
}

#[test]
fn the_outer_archive_cannot_have_sizes_beyond_its_end() {
    let sized = |size: [u8; 12]| {
        let tar = Tar::new().with("index.json", b'0', "", "{}", move |header| {
            header.as_old_mut().size = size;
        });
        tar.end()
    };
    refused(&sized(*b"77777777777\0"), "goes on after its end");
    refused(&sized([0xff; 12]), "its size is no number");
    refused(
        &sized(*b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff"),
        "goes on after its end",
    );
    refused(
        &sized(*b"\x80\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff"),
        "its size is no number",
    );
}

#[test]
fn bombs_of_contents_names_and_headers_are_refused() {
    let large = || Tar::new().file("a", vec![0; SMALL.content as usize * 2 / 3]);
    let words = "the files of all layers have more than";
    for packed in [Packed::Plain, Packed::Gzip, Packed::Zstd] {
        let layers = Image {
            packed,
            ..image([large(), large()])
        };
        refused(&layers.oci(), words);
    }
    let mut after = image([Tar::new().file("a", "")]);
    after.layers[0].resize((SMALL.content + SMALL.headers + 1) as usize, 0);
    after.packed = Packed::Gzip;
    refused(&after.oci(), "larger than all files may be");
    let names = |range: std::ops::Range<usize>| {
        range.fold(Tar::new(), |tar, number| tar.file(number.to_string(), ""))
    };
    refuses_layers(
        [names(0..150), names(150..300)],
        "it has more than 200 names",
    );
    refuses_layers([names(0..150), names(0..150)], "it has more than 200 names");
    let marks = (0..300).fold(Tar::new(), |tar, at| tar.file(format!(".wh.{at}"), ""));
    refuses_layer(marks, "it has more than 200 names");
    let long = |number: usize| format!("{number}{}", "n".repeat(200));
    let long = (0..50).fold(Tar::new(), |tar, number| tar.file(long(number), ""));
    refuses_layer(long, "its names of files have more than");
    let targets = (0..50).fold(Tar::new(), |tar, at| {
        tar.link(at.to_string(), "t".repeat(4000))
    });
    refuses_layer(targets, "its names of files have more than");
    let record = Tar::new()
        .entry("x", b'x', "", vec![b'1'; (1 << 20) + 1])
        .file("a", "");
    refuses_layer(record, "bytes come before an entry");
    let record = Tar::new()
        .entry("x", b'L', "", vec![b'1'; (1 << 20) + 1])
        .file("a", "");
    refuses_layer(record, "bytes come before an entry");
}

#[test]
fn directories_get_no_deeper_through_links() {
    let deep = "d/".repeat(18);
    let layer = Tar::new().directory(&deep).link("l", &deep);
    refuses_layer(layer.directory("l/e/e/e/e/e"), "it is too deep");
}
