//! Archives whose digests, sizes and names of blobs are not those of what is in them.

use super::builder::{Image, digest, digits};
use super::changed::{
    blob_with, simple, with_config, with_files, with_index, with_list, with_manifest,
};
use super::refused;
use serde_json::{Value, json};

/// Returns a change of what is at this place of a document.
fn set(place: &'static str, value: Value) -> impl Fn(&mut Value) + 'static {
    move |it: &mut Value| *it.pointer_mut(place).unwrap() = value.clone()
}

#[test]
fn bytes_that_have_another_digest_are_refused() {
    let change = |part: &'static str| {
        with_files(move |files| {
            let path = blob_with(files, part);
            let bytes = files.get_mut(&path).unwrap();
            let last = bytes.len() - 1;
            // Of a layer, the padding; of a document, the bracket at its end.
            bytes[last] = if bytes[last] == 0 { 1 } else { b' ' };
        })
    };
    refused(&change("schemaVersion"), "has the digest");
    refused(&change("diff_ids"), "has the digest");
    refused(&change("content\0"), "layer 1: it has the digest");
    let saved = Image {
        files: Box::new(|files| {
            let path = files.keys().find(|path| path.len() == 69).unwrap().clone();
            files.get_mut(&path).unwrap().push(b' ');
        }),
        ..simple()
    };
    refused(&saved.docker(), "has the digest");
}

#[test]
fn what_a_configuration_says_of_layers_holds_for_them() {
    let (ids, other) = ("/rootfs/diff_ids", digest(b"other"));
    for (place, value, words) in [
        (
            "/rootfs/diff_ids/0",
            json!(other),
            "layer 1: what is in it has the digest",
        ),
        (
            "/rootfs/diff_ids/0",
            json!("sha256:12"),
            "\"sha256:12\" is no digest",
        ),
        (ids, json!([]), "its configuration has 0"),
        (ids, json!([other, other]), "its configuration has 2"),
        ("/rootfs/type", json!("snapshot"), "made of \"snapshot\""),
    ] {
        refused(&with_config(set(place, value)), words);
    }
}

#[test]
fn descriptors_that_no_blob_fits_are_refused() {
    let (digest_at, size_at) = ("/manifests/0/digest", "/manifests/0/size");
    let other = digest(b"other");
    for (place, value, words) in [
        (digest_at, json!(other), "is missing"),
        (digest_at, json!("sha512:12"), "digests of sha512"),
        (digest_at, json!("../../etc/passwd"), "is no digest"),
        (
            digest_at,
            json!("sha256:../../../etc/passwd"),
            "is no digest",
        ),
        (digest_at, json!(other.to_uppercase()), "is no digest"),
        (size_at, json!(-1), "manifests[0].size: invalid value"),
        (size_at, json!(1), "and should have 1"),
    ] {
        refused(&with_index(set(place, value)), words);
    }
    for (place, value, words) in [
        (
            "/layers/0/size",
            json!(u64::MAX),
            "and should have 18446744073709551615",
        ),
        ("/layers/0/digest", json!(other), "is missing"),
        ("/config/digest", json!(other), "is missing"),
    ] {
        refused(&with_manifest(set(place, value)), words);
    }
}

#[test]
fn names_that_no_entry_has_are_refused() {
    let config = format!("{}.json", digits(b"x"));
    for (place, value, words) in [
        ("/0/Config", json!(config), "is missing"),
        ("/0/Config", json!("../../../etc/passwd"), "\"..\" in it"),
        ("/0/Layers/0", json!("../../../etc/passwd"), "\"..\" in it"),
        (
            "/0/Layers/0",
            json!("/etc/passwd"),
            "\"/etc/passwd\" is missing",
        ),
        ("/0/Layers/0", json!(""), "an entry has no name"),
    ] {
        refused(&with_list(set(place, value)), words);
    }
}
