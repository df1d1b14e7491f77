//! Archives whose documents, or which themselves, are not what they should be.

use super::builder::{Image, Packed, Tar, archive, descriptor, digest, digits, image};
use super::changed::{
    blob_with, simple, with_config, with_files, with_index, with_list, with_manifest,
};
use super::{SMALL, refused};
use serde_json::{Value, json};

#[test]
fn what_is_no_archive_of_an_image_is_refused() {
    let tar = |tar: Tar| tar.end();
    let whole = simple().oci();
    let mut flipped = whole.clone();
    flipped[3] ^= 1;
    let mut after = Tar::new().file("a", "b").end();
    after.extend(Tar::new().file("c", "d").unended());
    after.drain(1536..2048);
    for (archive, words) in [
        (vec![], "it is an empty file"),
        (b"#!/bin/sh\n".to_vec(), "it is cut off"),
        (vec![b'x'; 4096], "it is no tar archive"),
        (flipped, "it is no tar archive"),
        (vec![0; 1024], "neither index.json nor manifest.json"),
        (
            tar(Tar::new().file("a", "b")),
            "neither index.json nor manifest.json",
        ),
        (b"\xfd7zXZ\0\0\0".to_vec(), "compressed with xz"),
        (b"BZh91AY&SY".to_vec(), "compressed with bzip2"),
        (b"PK\x03\x04....".to_vec(), "compressed with zip"),
        (after, "something follows its end"),
        (
            Packed::Gzip.pack(&Packed::Gzip.pack(&whole)),
            "it is no tar archive",
        ),
        (
            tar(Tar::new().file("a", "").file("./a", "")),
            "\"./a\" is in it twice",
        ),
        (
            tar(Tar::new().directory("a").file("a", "")),
            "\"a\" is in it twice",
        ),
        (tar(Tar::new().file("../a", "")), "\"..\" in it"),
        (tar(Tar::new().file("a/../../b", "")), "\"..\" in it"),
        (tar(Tar::new().file("", "")), "an entry has no name"),
        (
            tar(Tar::new().entry("a", b'6', "", "")),
            "\"a\" is a device or a pipe",
        ),
        (
            tar(Tar::new().entry("a", b'Z', "", "")),
            "its type, \"Z\", is unknown",
        ),
        (
            tar(Tar::new().link("index.json", "../../x")),
            "a link leads out of it",
        ),
        (
            tar(Tar::new().link("index.json", "index.json")),
            "neither index.json",
        ),
        (
            tar(Tar::new().directory("index.json")),
            "neither index.json",
        ),
    ] {
        refused(&archive, words);
    }
}

#[test]
fn an_archive_that_is_cut_off_anywhere_is_refused() {
    let whole = Image {
        packed: Packed::Gzip,
        ..image([
            Tar::new().file("a", vec![1; 3000]),
            Tar::new().file("b", "x"),
        ])
    };
    for bytes in [whole.oci(), whole.docker()] {
        // The end of the last file, without padding.
        let end = bytes.len() - 1024 - 512;
        for length in (1..end).step_by(331).chain([511, 512, 513]) {
            refused(&bytes[..length], "");
        }
        for packed in [Packed::Gzip, Packed::Zstd] {
            let packed = packed.pack(&bytes);
            for length in (1..packed.len()).step_by(97).chain([packed.len() - 1]) {
                refused(&packed[..length], "");
            }
        }
    }
}

#[test]
fn a_byte_that_is_another_is_never_taken_for_what_was_made() {
    let whole = Image {
        packed: Packed::Zstd,
        ..image([Tar::new().file("a", "content")])
    };
    let (bytes, sound) = (whole.oci(), whole.layers[0].clone());
    for at in (0..bytes.len()).step_by(37) {
        let mut changed = bytes.clone();
        changed[at] ^= 0x20;
        // It is refused, or does not matter: a time, a name that nobody reads.
        if let Ok((_, image)) = super::unpacked(&changed, SMALL) {
            let seen = crate::layer::tests::extracted::extract(&image);
            assert_eq!(seen[&b"a"[..]].content, b"content", "{at}");
        }
    }
    assert!(!sound.is_empty());
}

#[test]
fn documents_that_are_not_as_they_should_be_are_refused() {
    let replaced = |path: &'static str, text: String| {
        with_files(move |files| drop(files.insert(path.into(), text.clone().into_bytes())))
    };
    let index = |text: &str| replaced("index.json", text.into());
    let deep = |count: usize| format!("{{\"manifests\":{}", "[".repeat(count));
    for (archive, words) in [
        (index(""), "it is not as it should be"),
        (index("{"), "it is not as it should be"),
        (index("[]"), "it is not as it should be"),
        (index("{}"), "it has no image in it"),
        (index("{\"manifests\":null}"), "it has no image in it"),
        (index("{\"manifests\":[]} x"), "trailing characters"),
        (index("{\"manifests\":{}}"), "manifests: invalid type"),
        (
            index("{\"manifests\":[{\"digest\":1}]}"),
            "manifests[0].digest: invalid type",
        ),
        (
            index("{\"manifests\":[],\"manifests\":[]}"),
            "duplicate field",
        ),
        (index("\u{0}\u{1b}[2J"), "it is not as it should be"),
        (index(&deep(5000)), "it is not as it should be"),
        (
            replaced("index.json", " ".repeat(70_000)),
            "has more than 65536 bytes",
        ),
        (
            replaced("manifest.json", "{}".into()),
            "it is not as it should be",
        ),
        (with_config(|it| it["os"] = json!(5)), "invalid type"),
        (with_config(|it| it["rootfs"] = json!(null)), "invalid type"),
        (
            with_config(|it| it["config"] = json!({ "Env": "A=b" })),
            "config.Env: invalid type",
        ),
        (
            with_config(|it| it["config"] = json!({ "Cmd": [1] })),
            "config.Cmd[0]: invalid type",
        ),
        (
            with_config(|it| it["config"] = json!({ "User": {} })),
            "config.User: invalid type",
        ),
        (
            with_manifest(|it| it["layers"] = json!("all")),
            "layers: invalid type",
        ),
        (
            with_manifest(|it| drop(it.as_object_mut().unwrap().remove("config"))),
            "missing field",
        ),
    ] {
        refused(&archive, words);
    }
}

#[test]
fn images_of_others_systems_and_of_other_kinds_are_refused() {
    let set = |pointer: &'static str, value: Value| {
        move |it: &mut Value| *it.pointer_mut(pointer).unwrap() = value.clone()
    };
    let arm = json!({ "os": "linux", "architecture": "arm64" });
    let kind = |kind: &str| json!(format!("application/vnd.{kind}"));
    let encrypted = kind("oci.image.layer.v1.tar+gzip+encrypted");
    let (index, layer) = ("/manifests/0/mediaType", "/layers/0/mediaType");
    for (archive, words) in [
        (
            with_config(set("/architecture", json!("arm64"))),
            "it is for \"linux/arm64\"",
        ),
        (
            with_config(set("/os", json!("windows"))),
            "it is for \"windows/amd64\"",
        ),
        (
            with_config(|it| drop(it.as_object_mut().unwrap().remove("os"))),
            "it is for \"/amd64\"",
        ),
        (
            with_index(move |it| it["manifests"][0]["platform"] = arm.clone()),
            "it is for \"linux/arm64\"",
        ),
        (
            with_index(set(index, kind("oci.artifact.manifest.v1+json"))),
            "an image has the type",
        ),
        (
            with_index(set(index, json!(""))),
            "an image has the type \"\"",
        ),
        (with_manifest(set(layer, encrypted)), "a layer is encrypted"),
        (
            with_manifest(set(layer, kind("oci.image.layer.v1.tar+brotli"))),
            "a layer has the type",
        ),
        (
            with_manifest(set(layer, json!("text/plain"))),
            "a layer has the type \"text/plain\"",
        ),
        (
            with_manifest(set("/config/mediaType", kind("oci.empty.v1+json"))),
            "the configuration of an image has",
        ),
        (with_list(|it| *it = json!([])), "it has no image in it"),
        (
            with_list(|it| *it = json!([it[0], it[0]])),
            "it has 2 images in it",
        ),
    ] {
        refused(&archive, words);
    }
    let two = with_index(|it| {
        let mut other = it["manifests"][0].clone();
        other["digest"] = json!(digest(b"other"));
        it["manifests"].as_array_mut().unwrap().push(other);
    });
    refused(&two, "it has 2 images in it");
}

#[test]
fn lists_that_lead_to_lists_come_to_an_end() {
    let nested = with_files(|files| {
        for _ in 0..10 {
            let inner = files.remove("index.json").unwrap();
            let list = descriptor("application/vnd.oci.image.index.v1+json", &inner);
            files.insert(format!("blobs/sha256/{}", digits(&inner)), inner);
            let outer = json!({ "manifests": [list] }).to_string();
            files.insert("index.json".into(), outer.into_bytes());
        }
    });
    refused(&nested, "lists of images lead to more lists");
    // A list that names itself has another digest than it says.
    let looped = with_files(|files| {
        let digest = digest(b"itself");
        let kind = "application/vnd.oci.image.index.v1+json";
        let list = |size: usize| {
            json!({ "manifests": [{ "mediaType": kind, "digest": digest, "size": size }] })
                .to_string()
        };
        let size = list(200).len();
        files.insert("index.json".into(), list(size).into_bytes());
        files.insert(
            format!("blobs/sha256/{}", digits(b"itself")),
            list(size).into_bytes(),
        );
    });
    refused(&looped, "has the digest");
}

#[test]
fn more_layers_entries_or_bytes_than_the_bounds_are_refused() {
    let layers = (0..101).map(|number| Tar::new().file("a", number.to_string()));
    refused(&image(layers).docker(), "it has more than 100 layers");
    let files = (0..121).map(|number| (number.to_string(), Vec::new()));
    refused(&archive(files.collect()), "it has more than 120 entries");
    let bomb = vec![0; (SMALL.content + SMALL.headers + 1) as usize];
    for packed in [Packed::Gzip, Packed::Zstd] {
        refused(&packed.pack(&bomb), "unpacked, it has more than");
    }
}

#[test]
fn a_layer_that_is_missing_or_no_tar_is_refused() {
    let gone = with_files(|files| {
        let path = blob_with(files, "content\0");
        files.remove(&path);
    });
    refused(&gone, "is missing");
    let mut raw = simple();
    for (layer, words) in [
        (b"no tar at all".to_vec(), "layer 1: it is cut off"),
        (vec![b'x'; 600], "layer 1: it is no tar archive"),
        (
            b"\xfd7zXZ\0\0\0".to_vec(),
            "layer 1: it is compressed with xz",
        ),
        (b"\x1f\x8b\x08\x00garbage garbage".to_vec(), "layer 1: "),
        (b"\x28\xb5\x2f\xfdgarbage garbage".to_vec(), "layer 1: "),
    ] {
        raw.layers = vec![layer];
        refused(&raw.oci(), words);
    }
    for packed in [Packed::Gzip, Packed::Zstd] {
        let layer = simple().layers[0].clone();
        let mut cut = packed.pack(&layer);
        cut.truncate(cut.len() - 9);
        let path = format!("{:064}/layer.tar", 0);
        let image = Image {
            files: Box::new(move |files| drop(files.insert(path.clone(), cut.clone()))),
            ..simple()
        };
        refused(&image.docker(), "layer 1: it is cut off");
    }
}
