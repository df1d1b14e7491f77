//! What is told of an image beside its files.

use super::builder::{Image, Tar, image};
use super::{refused, seen, text, unpacked};
use crate::error::Error;
use crate::limits::ConfineLevel;
use crate::oci::bounds::Bounds;
use crate::oci::process::unpack;
use crate::oci::unpacked::Unpacked;
use serde_json::{Value, json};
use std::fs::File;

fn with(process: Value, layer: Tar) -> Image {
    Image {
        process,
        ..image([layer])
    }
}

fn told(process: Value, layer: Tar) -> Unpacked {
    seen(&with(process, layer).oci()).0
}

#[test]
fn environment_command_and_working_directory_are_those_of_the_image() {
    let process = json!({
        "Env": ["PATH=/opt/bin", "EMPTY=", "=x", "nothing"],
        "Entrypoint": ["/entry", "-x"],
        "Cmd": ["a b"],
        "WorkingDir": "/srv//app/.",
    });
    let (told, seen) = seen(&with(process, Tar::new().link("srv", "var")).oci());
    assert_eq!(told.env, ["PATH=/opt/bin", "EMPTY="]);
    assert_eq!(told.command, ["/entry", "-x", "a b"]);
    assert_eq!(told.workdir.as_deref(), Some("/srv/app"));
    assert!(seen.contains_key("var/app"));
}

#[test]
fn a_working_directory_begins_at_the_root_and_stays_below_it() {
    for (told_of, workdir) in [
        ("relative/x", "/relative/x"),
        ("/a/../b", "/b"),
        ("/a/b/./..//c", "/a/c"),
        ("../../a", "/a"),
    ] {
        let (told, seen) = seen(&with(json!({ "WorkingDir": told_of }), Tar::new()).oci());
        assert_eq!(told.workdir.as_deref(), Some(workdir), "{told_of}");
        assert!(seen.contains_key(&workdir[1..]), "{told_of}");
    }
}

#[test]
fn an_image_that_says_nothing_has_nothing() {
    let nothing =
        json!({ "Env": null, "Cmd": null, "Entrypoint": null, "WorkingDir": "/", "User": "" });
    for process in [nothing, json!(null), json!({ "WorkingDir": "/a/../.." })] {
        let told = told(process, Tar::new());
        let size = told.size;
        let nothing = Unpacked {
            size,
            name: None,
            env: vec![],
            command: vec![],
            workdir: None,
            user: None,
            programs: vec![],
        };
        assert_eq!(told, nothing);
    }
}

#[test]
fn users_are_found_by_number_and_in_the_lists_of_the_image() {
    let lists = || {
        let passwd = "root:x:0:0::/root:/bin/sh\nbroken\nweb:x:33:34::/:\nodd:x:-1:0::/:\nnone:x:4294967295:0::/:\n";
        Tar::new()
            .file("usr/lib/passwd", passwd)
            .link("etc/passwd", "../usr/lib/passwd")
            .file("etc/group", "root:x:0:\nstaff:x:50:web\n")
    };
    for (user, numbers) in [
        ("1000", (1000, 0)),
        ("1000:5", (1000, 5)),
        ("33", (33, 34)),
        ("web", (33, 34)),
        ("web:staff", (33, 50)),
        ("web:7", (33, 7)),
        ("7:staff", (7, 50)),
        ("root", (0, 0)),
    ] {
        assert_eq!(
            told(json!({ "User": user }), lists()).user,
            Some(numbers),
            "{user}"
        );
    }
    let wrong = [
        "nobody",
        "odd",
        "web:nogroup",
        ":5",
        "-1",
        "+7",
        "7:+7",
        "4294967296",
    ];
    let none = ["4294967295", "7:4294967295", "none"];
    for user in wrong.into_iter().chain(none) {
        let image = with(json!({ "User": user }), lists());
        refused(&image.oci(), &format!("its user is \"{user}\""));
    }
    refused(
        &with(json!({ "User": "web" }), Tar::new()).oci(),
        "its user is \"web\"",
    );
}

#[test]
fn programs_are_what_may_be_executed_on_the_path() {
    let layer = || {
        Tar::new()
            .program("usr/bin/b")
            .program("usr/bin/a")
            .file("usr/bin/text", "")
            .link("bin", "usr/bin")
            .link("usr/local/bin/link", "/bin/a")
            .link("usr/local/bin/dangling", "/nowhere")
            .link("usr/local/bin/loop", "loop")
            .directory("usr/bin/directory")
            .program("usr/bin/new\nline")
            .program("opt/own")
    };
    assert_eq!(told(json!({}), layer()).programs, ["a", "b", "link"]);
    let path = json!({ "Env": ["PATH=/opt:relative:/missing:/opt"] });
    assert_eq!(told(path, layer()).programs, ["own"]);
    let twice = json!({ "Env": ["PATH=/opt", "PATH=/usr/bin", "PATHS=/opt"] });
    assert_eq!(told(twice, layer()).programs, ["a", "b"]);
}

#[test]
fn what_cannot_be_shown_is_refused_before_anything_is_told() {
    for process in [
        json!({ "Env": ["A=\u{1b}[2J"] }),
        json!({ "Cmd": ["a\0b"] }),
    ] {
        refused(
            &with(process, Tar::new()).oci(),
            "characters that cannot be shown",
        );
    }
    for workdir in ["/a\u{1b}", "/a\0", &"/a".repeat(3000)] {
        refused(
            &with(json!({ "WorkingDir": workdir }), Tar::new()).oci(),
            "its working directory",
        );
    }
    let deep = json!({ "WorkingDir": "/a".repeat(30) });
    refused(&with(deep, Tar::new()).oci(), "is too deep");
    let process = json!({ "WorkingDir": "/file/x" });
    refused(
        &with(process, Tar::new().file("file", "")).oci(),
        "its working directory: it would be",
    );
}

#[test]
fn a_report_that_cannot_be_is_not_believed() {
    let sound = told(json!({ "Env": ["A=b"] }), Tar::new().program("bin/a"));
    let size = sound.size;
    assert!(sound.is_sound(size) && !sound.is_sound(size + 1));
    let changes: [fn(&mut Unpacked); 8] = [
        |it| it.name = Some("../x".into()),
        |it| it.env.push("no variable".into()),
        |it| it.command.push("\u{1b}".into()),
        |it| it.workdir = Some("/a/..".into()),
        |it| it.workdir = Some("a".into()),
        |it| it.user = Some((7, u32::MAX)),
        |it| it.programs = vec!["a/b".into()],
        |it| it.programs = vec!["b".into(), "a".into()],
    ];
    for (number, change) in changes.into_iter().enumerate() {
        let mut changed = sound.clone();
        change(&mut changed);
        assert!(!changed.is_sound(size), "{number}");
    }
}

#[test]
fn an_archive_is_unpacked_without_confinement_and_with_what_there_is() {
    let archive = image([Tar::new().file("a", "b")]).oci();
    for level in [ConfineLevel::Off, ConfineLevel::Auto] {
        let file = crate::fs::in_memory(&archive).unwrap();
        let image = tempfile::NamedTempFile::new().unwrap();
        let told = unpack(file, image.as_file(), level).unwrap();
        assert_eq!(image.path().metadata().unwrap().len(), told.size);
    }
    let image = tempfile::tempfile().unwrap();
    let directory = unpack(File::open("/").unwrap(), &image, ConfineLevel::Auto);
    let error = directory.unwrap_err().downcast::<Error>().unwrap();
    assert!(error.message.contains("it is not a file"));
}

#[test]
fn docker_and_podman_name_the_image_in_their_list() {
    let archive = image([Tar::new().file("a", "b")]).docker();
    let (told, image) = unpacked(&archive, Bounds::OURS).unwrap();
    assert_eq!(told.name.as_deref(), Some("tool"));
    let seen = crate::layer::tests::extracted::extract(&image).into_iter();
    let seen = seen
        .map(|(path, seen)| (String::from_utf8(path).unwrap(), seen))
        .collect();
    assert_eq!(text(&seen, "a"), "b");
}
