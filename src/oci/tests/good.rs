//! Archives in all the forms that tools make.

use super::builder::{Image, Packed, Tar, descriptor, digest, digits, image};
use super::{seen, text};
use crate::layer::Time;
use crate::layer::tests::extracted::{dump, extract};
use serde_json::json;
use std::os::unix::fs::FileExt;

fn simple() -> Image {
    image([
        Tar::new()
            .directory("./")
            .directory("./etc")
            .file("./etc/name", "one"),
        Tar::new()
            .file("etc/name", "two")
            .file("large", vec![7; 3 << 20]),
    ])
}

#[test]
fn layers_are_read_however_they_and_the_whole_are_compressed() {
    let all = [Packed::Plain, Packed::Gzip, Packed::Zstd];
    for (packed, whole) in all
        .into_iter()
        .flat_map(|one| all.map(|other| (one, other)))
    {
        let image = Image { packed, ..simple() };
        for archive in [image.oci(), image.docker()] {
            let (told, seen) = seen(&whole.pack(&archive));
            assert_eq!(text(&seen, "etc/name"), "two", "{packed:?} in {whole:?}");
            assert!(seen["large"].content == [7; 3 << 20]);
            assert_eq!(told.size % (2 << 20), 0);
        }
    }
}

#[test]
fn streams_of_several_members_are_read_to_their_end() {
    let image = simple();
    let layer = &image.layers[1];
    let (one, other) = layer.split_at(1000);
    for packed in [Packed::Gzip, Packed::Zstd] {
        let members = [packed.pack(one), packed.pack(other)].concat();
        let path = format!("{:064}/layer.tar", 1);
        let image = Image {
            files: Box::new(move |files| drop(files.insert(path.clone(), members.clone()))),
            ..simple()
        };
        assert_eq!(
            seen(&image.docker()).1["large"].content.len(),
            3 << 20,
            "{packed:?}"
        );
    }
}

#[test]
fn docker_saves_both_lists_and_the_better_name_is_taken() {
    let oci = simple().oci();
    let saved = json!([{ "Config": "blobs/sha256/x", "RepoTags": ["tool:1"], "Layers": [] }]);
    let image = Image {
        index: Box::new(|index| {
            let annotations = json!({ "org.opencontainers.image.ref.name": "1" });
            index["manifests"][0]["annotations"] = annotations;
        }),
        files: Box::new(move |files| {
            files.insert("manifest.json".into(), saved.to_string().into_bytes());
        }),
        ..simple()
    };
    let (told, seen) = seen(&image.oci());
    assert_eq!(told.name.as_deref(), Some("tool"));
    assert_eq!(text(&seen, "etc/name"), "two");
    assert_eq!(super::seen(&oci).0.name, None);
}

#[test]
fn the_image_for_this_platform_is_found_in_a_nested_list() {
    let image = Image {
        files: Box::new(|files| {
            let index = files.remove("index.json").unwrap();
            let mut index: serde_json::Value = serde_json::from_slice(&index).unwrap();
            index["manifests"][0]["platform"] = json!({ "os": "linux", "architecture": "amd64" });
            let missing = digest(b"not saved");
            for (os, architecture) in [("linux", "arm64"), ("unknown", "unknown")] {
                let other = json!({
                    "mediaType": "application/vnd.oci.image.manifest.v1+json", "size": 5,
                    "digest": missing, "platform": { "os": os, "architecture": architecture },
                });
                index["manifests"].as_array_mut().unwrap().insert(0, other);
            }
            let nested = index.to_string().into_bytes();
            let mut list = descriptor("application/vnd.oci.image.index.v1+json", &nested);
            list["annotations"] =
                json!({ "org.opencontainers.image.ref.name": "docker.io/library/tool:2" });
            files.insert(format!("blobs/sha256/{}", digits(&nested)), nested);
            let outer = json!({ "schemaVersion": 2, "manifests": [list] });
            files.insert("index.json".into(), outer.to_string().into_bytes());
        }),
        ..simple()
    };
    let (told, seen) = seen(&image.oci());
    assert_eq!(told.name.as_deref(), Some("tool"));
    assert_eq!(text(&seen, "etc/name"), "two");
}

#[test]
fn a_layer_may_be_a_link_to_another_in_the_archive() {
    let image = simple();
    let layer = image.layers[0].clone();
    let config = json!({
        "architecture": "amd64", "os": "linux",
        "rootfs": { "type": "layers", "diff_ids": [digest(&layer), digest(&layer)] },
    });
    let config = config.to_string().into_bytes();
    let name = format!("{}.json", digits(&config));
    let list =
        json!([{ "Config": name, "RepoTags": null, "Layers": ["a/layer.tar", "b/layer.tar"] }]);
    let tar = Tar::new()
        .directory("a/")
        .directory("b/")
        .file("a/layer.tar", layer);
    let tar = tar.link("b/layer.tar", "../a/layer.tar").file(name, config);
    let archive = tar.file("manifest.json", list.to_string()).end();
    assert_eq!(text(&seen(&archive).1, "etc/name"), "one");
}

#[test]
fn a_hundred_layers_are_laid_over_each_other() {
    let layer = |number: usize| {
        let tar = Tar::new().file("last", number.to_string());
        tar.file(format!("each/{number}"), "")
            .file(format!("each/.wh.{}", number.wrapping_sub(2)), "")
    };
    let seen = seen(&image((0..100).map(layer)).oci()).1;
    assert_eq!(text(&seen, "last"), "99");
    let each: Vec<_> = seen
        .keys()
        .filter(|path| path.starts_with("each/"))
        .collect();
    assert_eq!(each, ["each/98", "each/99"]);
}

#[test]
fn long_and_odd_names_owners_modes_and_times_are_kept() {
    let long = format!("{}/{}", "d".repeat(200), "f".repeat(255));
    let layer = Tar::new()
        .file(&long, "long")
        .link("link", "t".repeat(300))
        .file(b"\xff\n", "odd")
        .pax("path", "päx/with\nlines")
        .file("x", "pax")
        .with("setuid", b'0', "", "s", |header| {
            header.set_mode(0o104755);
            header.set_uid(1234);
            header.set_gid(4_000_000_000);
        });
    let (_, image) = super::unpacked(&image([layer]).oci(), super::Bounds::OURS).unwrap();
    let dumped = dump(&image, "/setuid");
    assert_eq!(dumped.owner, (1234, 4_000_000_000));
    let seen = extract(&image);
    assert_eq!(seen[long.as_bytes()].content, b"long");
    assert_eq!(seen[&b"link"[..]].content, [b't'; 300]);
    assert_eq!(seen[&b"\xff\n"[..]].content, b"odd");
    // The tools do not show all bits of a mode, which is in the inode's fifth and sixth byte.
    let mut mode = [0; 2];
    let at = dumped.inode * 32 + 4;
    image.as_file().read_exact_at(&mut mode, at).unwrap();
    assert_eq!(u16::from_le_bytes(mode) & 0o7777, 0o4755);
    assert_eq!(
        seen[&b"setuid"[..]].modified,
        Time {
            seconds: 1_700_000_000,
            nanoseconds: 0
        }
    );
    assert_eq!(seen["päx/with\nlines".as_bytes()].content, b"pax");
}

#[test]
fn holes_and_an_empty_layer_and_no_layer_are_taken() {
    let mut content = vec![0; 5 << 20];
    content[4 << 20] = 1;
    let full = Tar::new()
        .file("holes", &content)
        .file("zeros", vec![0; 70_000]);
    let mut image = image([full, Tar::new()]);
    image.layers.push(Vec::new());
    image.packed = Packed::Gzip;
    let seen = seen(&image.oci()).1;
    assert!(seen["holes"].content == content && seen["zeros"].content == [0; 70_000]);
    let none = super::seen(&super::image([]).oci()).1;
    assert!(none.contains_key("proc"));
}

#[test]
fn an_archive_without_blocks_at_its_end_is_whole() {
    let mut image = image([]);
    image.layers = vec![Tar::new().file("a", "b").unended()];
    let mut bytes = image.oci();
    bytes.truncate(bytes.len() - 1024);
    assert_eq!(text(&seen(&bytes).1, "a"), "b");
}
