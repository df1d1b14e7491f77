//! What layers make of the ones below them.

use super::builder::Tar;
use super::{image, merged, text, unpacked};
use crate::layer::tests::extracted::dump;
use crate::oci::bounds::Bounds;
use guest::kind;

#[test]
fn a_whiteout_removes_what_is_below_and_nothing_of_its_own_layer() {
    let lower = Tar::new()
        .file("a/b/c", "1")
        .file("a/d", "1")
        .file("x/old", "1");
    // Tools may tell of a whiteout before or after what is new.
    let upper = Tar::new().file("a/.wh.b", "").file("a/b/new", "2");
    let upper = upper
        .file("x/new", "2")
        .file(".wh.x", "")
        .file(".wh.missing", "");
    let upper = upper.file("missing/.wh.too", "").file(".wh..wh.plnk/1", "");
    let seen = merged([lower, upper]);
    for gone in ["a/b/c", "x/old", "missing", "a/.wh.b", ".wh..wh.plnk"] {
        assert!(!seen.contains_key(gone), "{gone}");
    }
    for there in ["a/d", "a/b/new", "x/new"] {
        assert!(seen.contains_key(there), "{there}");
    }
}

#[test]
fn an_opaque_directory_has_only_what_is_in_its_own_layer() {
    let lower = Tar::new().file("a/old/deep", "1").file("a/same", "1");
    let upper = Tar::new()
        .directory("a")
        .file("a/same", "2")
        .file("a/.wh..wh..opq", "");
    let seen = merged([lower, upper.file("a/new", "2")]);
    assert!(!seen.contains_key("a/old"));
    assert_eq!(
        (text(&seen, "a/same"), text(&seen, "a/new")),
        ("2".into(), "2".into())
    );
}

#[test]
fn a_whiteout_goes_through_links_inside_of_the_image() {
    let lower = Tar::new().file("usr/bin/a", "1").link("bin", "usr/bin");
    let seen = merged([lower, Tar::new().file("bin/.wh.a", "")]);
    assert!(seen.contains_key("usr/bin") && !seen.contains_key("usr/bin/a"));
}

#[test]
fn files_are_added_through_links_to_directories_of_the_image() {
    let lower = Tar::new()
        .directory("usr/bin")
        .link("bin", "usr/bin")
        .link("absolute", "/usr/bin")
        .link("up", "usr/../../../usr/bin")
        .link("chain", "absolute/../bin");
    let upper = Tar::new()
        .file("bin/a", "1")
        .file("/absolute/b", "2")
        .file("up/c", "3")
        .file("./chain/d/e", "4");
    let seen = merged([lower, upper]);
    for (path, content) in [("a", "1"), ("b", "2"), ("c", "3"), ("d/e", "4")] {
        assert_eq!(text(&seen, &format!("usr/bin/{path}")), content);
    }
    assert_eq!(seen["bin"].mode & kind::MASK, kind::LINK);
}

#[test]
fn what_is_of_another_type_in_an_upper_layer_replaces_all_below() {
    let lower = Tar::new()
        .file("d/x", "1")
        .file("f", "1")
        .link("l", "d")
        .directory("e");
    let upper = Tar::new().file("d", "file").file("f/x", "2");
    let error = unpacked(&image([lower.clone(), upper]).oci(), Bounds::OURS).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("\"f/x\": it would be in \"f\", which is not a directory")
    );
    let upper = Tar::new()
        .file("d", "file")
        .directory("f")
        .file("f/x", "2")
        .directory("l");
    let seen = merged([lower, upper.file("l/y", "3").link("e", "f")]);
    assert_eq!(
        (text(&seen, "d"), text(&seen, "f/x")),
        ("file".into(), "2".into())
    );
    assert!(!seen.contains_key("d/x"));
    assert_eq!(
        (text(&seen, "l/y"), text(&seen, "e")),
        ("3".into(), "f".into())
    );
}

#[test]
fn a_directory_gets_the_mode_of_the_last_layer_and_keeps_its_files() {
    let lower = Tar::new().directory("d").file("d/x", "1");
    let upper = Tar::new().with("d", b'5', "", "", |header| header.set_mode(0o1700));
    let seen = merged([lower, upper]);
    assert_eq!(seen["d"].mode & 0o7777, 0o1700);
    assert_eq!(text(&seen, "d/x"), "1");
}

#[test]
fn hard_links_are_names_of_one_file_within_and_across_layers() {
    let lower = Tar::new()
        .directory("bin")
        .file("bin/a", "1")
        .name("bin/b", "/bin/a");
    let lower = lower.link("sbin", "bin").link("l", "bin/a").name("m", "l");
    let upper = Tar::new().name("c", "sbin/a").name("bin/b", "./bin/a");
    let archive = image([lower, upper, Tar::new().file("bin/.wh.a", "")]).oci();
    let (_, image) = unpacked(&archive, Bounds::OURS).unwrap();
    assert_eq!(dump(&image, "/c").links, 2);
    assert_eq!(dump(&image, "/c").inode, dump(&image, "/bin/b").inode);
    assert_eq!(dump(&image, "/l").inode, dump(&image, "/m").inode);
}

#[test]
fn directories_that_the_guest_needs_are_made_and_hosts_filled() {
    let seen = merged([Tar::new().file("a", "")]);
    for name in [
        "dev", "proc", "sys", "run", "work", ".sandbox", "etc", "home", "root", "var",
    ] {
        assert_eq!(seen[name].mode, kind::DIRECTORY | 0o755, "{name}");
    }
    assert_eq!(seen["tmp"].mode, kind::DIRECTORY | 0o1777);
    assert_eq!(
        text(&seen, "etc/hosts"),
        "127.0.0.1\tlocalhost\n::1\tlocalhost\n"
    );
    let own = Tar::new()
        .file("etc/hosts", "mine")
        .file("etc/resolv.conf", "");
    let seen = merged([own.with("tmp", b'5', "", "", |header| header.set_mode(0o700))]);
    assert_eq!(
        (text(&seen, "etc/hosts"), text(&seen, "etc/resolv.conf")),
        ("mine".into(), "".into())
    );
    assert_eq!(seen["tmp"].mode & 0o7777, 0o700);
    let docker = Tar::new().with("etc/hosts", b'0', "", "", |header| header.set_mode(0o755));
    assert!(text(&merged([docker]), "etc/hosts").starts_with("127"));
}

#[test]
fn devices_in_dev_are_left_out() {
    let layer = Tar::new().directory("dev").entry("dev/null", b'3', "", "");
    let layer = layer
        .entry("dev/sub/fifo", b'6', "", "")
        .entry("dev/sda", b'4', "", "");
    let seen = merged([layer]);
    assert!(seen.contains_key("dev") && !seen.contains_key("dev/null"));
}

#[test]
fn pipes_are_left_out_with_what_lower_layers_have_there() {
    let lower = Tar::new().file("run/initctl", "1").file("a/b", "2");
    let upper = Tar::new().entry("run/initctl", b'6', "", "");
    let upper = upper.entry("missing/pipe", b'6', "", "").file("a/c", "3");
    let seen = merged([lower, upper.entry("a/b", b'6', "", "")]);
    for gone in ["run/initctl", "a/b", "missing"] {
        assert!(!seen.contains_key(gone), "{gone}");
    }
    assert_eq!(text(&seen, "a/c"), "3");
}

#[test]
fn the_root_has_one_mode_whatever_a_layer_says() {
    let layer = Tar::new().with("./", b'5', "", "", |header| header.set_mode(0o700));
    let archive = image([layer.file("a", "")]).oci();
    let (_, image) = unpacked(&archive, Bounds::OURS).unwrap();
    assert_eq!(dump(&image, "/").mode & 0o7777, 0o755);
}
