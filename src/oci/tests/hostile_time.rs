//! Small archives that would take long.

use super::builder::{Image, Packed, Tar, digest, image};
use super::{SMALL, refused, refuses_layer, seen, unpacked};
use crate::oci::bounds::Bounds;

const SPENT: &str = "the ways to its files, with all links on them, have more than 20000 names";

#[test]
fn ways_through_many_links_are_counted_over_all_entries() {
    let chain = || {
        let first = Tar::new().directory("d").link("l", "d/../".repeat(100));
        first.link("a", "l/l/l/l/l/.")
    };
    let path = "a/".repeat(3);
    let once = || chain().file(format!("{path}x"), "");
    unpacked(&image([once()]).oci(), SMALL).unwrap();
    let removed = (0..10).fold(chain(), |tar, at| tar.file(format!("{path}.wh.{at}"), ""));
    refuses_layer(removed, SPENT);
    let added = (0..10).fold(chain(), |tar, at| tar.file(format!("{path}{at}"), ""));
    refuses_layer(added, SPENT);
    let named = chain().file("f", "");
    let named = (0..10).fold(named, |tar, at| {
        tar.name(&format!("n{at}"), &format!("{path}f"))
    });
    refuses_layer(named, SPENT);
}

#[test]
fn names_that_programs_lead_through_are_counted() {
    let first = Tar::new().directory("bin").file("bin/x", "");
    let target = format!("{}x", "../bin/".repeat(100));
    let tar = (0..110).fold(first, |tar, at| tar.link(format!("bin/{at}"), &target));
    let bounds = Bounds {
        names: 1000,
        name_bytes: 1 << 20,
        ..SMALL
    };
    let failure = unpacked(&image([tar]).oci(), bounds).unwrap_err();
    assert!(failure.to_string().contains(SPENT), "{failure}");
}

#[test]
fn names_of_its_own_layer_that_a_whiteout_spares_are_counted() {
    let files = || (0..120).fold(Tar::new(), |tar, at| tar.file(format!("d/{at}"), ""));
    let bounds = Bounds {
        names: 1000,
        ..SMALL
    };
    for whiteout in ["d/.wh..wh..opq", ".wh.d"] {
        let layer = |count| (0..count).fold(files(), |tar, _| tar.file(whiteout, ""));
        unpacked(&image([layer(100)]).oci(), bounds).unwrap();
        let failure = unpacked(&image([layer(200)]).oci(), bounds).unwrap_err();
        assert!(failure.to_string().contains(SPENT), "{failure}");
    }
}

#[test]
fn entries_that_are_left_out_are_counted() {
    for path in [
        ".wh..wh.x",
        ".wh..wh.plnk/1",
        "dev/null",
        "./",
        "d/.wh..wh.x",
    ] {
        let flag = match path {
            "dev/null" => b'3',
            "./" => b'5',
            _ => b'0',
        };
        let layer = (0..201).fold(Tar::new(), |tar, _| tar.entry(path, flag, "", ""));
        refuses_layer(layer, "it has more than 200 names");
    }
}

#[test]
fn layers_have_one_bound_on_their_bytes_together() {
    // Each is as large as one may be, and nothing in it is a file.
    let most = (SMALL.content + SMALL.headers) as usize;
    let padding = vec![0; most * 2 / 3];
    let mut one = image([Tar::new().file("a", "")]);
    one.layers[0].resize(padding.len(), 0);
    let layer = one.layers[0].clone();
    for packed in [Packed::Plain, Packed::Gzip, Packed::Zstd] {
        let two = Image {
            layers: vec![layer.clone(), layer.clone()],
            packed,
            ..image([])
        };
        seen(&two.oci());
        refused(
            &two.oci(),
            "layer 2: with the layers before it, it is larger",
        );
    }
}

#[test]
fn the_same_bytes_may_be_layers_several_times() {
    let one = image([Tar::new().file("a", "1"), Tar::new().file("a", "1")]);
    assert_eq!(digest(&one.layers[0]), digest(&one.layers[1]));
    seen(&one.oci());
}
