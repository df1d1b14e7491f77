//! The name of an image, which is to be that of a file.

use crate::image::is_name;
use crate::oci::documents::Descriptor;

/// The annotations with a name, the better one first: what tools make of it, and OCI's, which is often a tag
/// alone.
const ANNOTATIONS: [&str; 2] = [
    "io.containerd.image.name",
    "org.opencontainers.image.ref.name",
];
/// Returns the name in "docker.io/library/alpine:3", if it can be that of a file.
pub fn of_tag(tag: &str) -> Option<String> {
    let (tag, _) = tag.split_once('@').unwrap_or((tag, ""));
    let (_, last) = tag.rsplit_once('/').unwrap_or(("", tag));
    let (name, _) = last.split_once(':').unwrap_or((last, ""));
    is_name(name).then(|| name.to_owned())
}

/// Returns the name that is told of an image.
pub fn of_annotation(descriptor: &Descriptor) -> Option<String> {
    let annotations = descriptor.annotations.as_ref()?;
    let mut told = ANNOTATIONS.iter().filter_map(|key| annotations.get(*key));
    told.find_map(|name| match is_tag_alone(name) {
        true => None,
        false => of_tag(name),
    })
}

fn is_tag_alone(name: &str) -> bool {
    let version = name.strip_prefix('v').unwrap_or(name);
    let is_bare = !name.contains(['/', ':', '@']);
    is_bare && (name == "latest" || version.starts_with(|first: char| first.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_without_registry_tag_and_digest() {
        for (tag, name) in [
            ("docker.io/library/alpine:3", Some("alpine")),
            ("alpine", Some("alpine")),
            ("localhost:5000/a/my_tool-1.x", Some("my_tool-1.x")),
            ("alpine:3@sha256:0123", Some("alpine")),
            ("docker.io/..", None),
            (".hidden:1", None),
            ("a b", None),
            ("", None),
            (":3", None),
            ("x.toml", None),
        ] {
            assert_eq!(of_tag(tag).as_deref(), name, "{tag}");
        }
        assert_eq!(of_tag(&"x".repeat(65)), None);
    }

    #[test]
    fn an_annotation_that_is_a_tag_alone_is_no_name() {
        for (told, is_tag) in [
            ("latest", true),
            ("3.19", true),
            ("v2", true),
            ("vim", false),
        ] {
            assert_eq!(is_tag_alone(told), is_tag, "{told}");
        }
    }
}
