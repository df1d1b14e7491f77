//! Images that others made and that are unusual, and what is refused of them with what to do.

use crate::common::{Cache, exit_code, finish, text};
use crate::failures::assert_refused;
use crate::foreign_images::{Imported, Maker, names, succeed};
use crate::images::import_layer;
use serde_json::json;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Output};

/// Imports an archive; returns what is said.
fn import(cache: &Cache, words: &[&str], archive: &Path) -> Output {
    let words = [&["image", "import"], words].concat();
    finish(cache.sandbox(&words).arg(archive), b"")
}

#[test]
fn a_name_that_no_image_can_have_is_refused_before_anything_is_unpacked() {
    let (maker, cache) = (Maker::new(), Cache::copied());
    maker.put_busybox("layer");
    let saved = maker.saved(&["layer"], json!({}), "docker.io/library/python:3");
    for name in ["--name=-x", "--name=x.toml", "--name=python", "--name=../x"] {
        let output = import(&cache, &[name], &saved);
        assert_refused(&output, 125, "the name \"", "--name NAME");
    }
    let output = import(&cache, &[], &saved);
    assert_refused(&output, 125, "\"python\" in the archive", "--name NAME");
    let images = cache.0.path().join("sandbox/images");
    fs::write(cache.0.path().join("sandbox/victim.toml"), "").unwrap();
    for verb in ["remove", "show", "export"] {
        let words = ["image", verb, "../victim"];
        let mut command = cache.sandbox(&words);
        if verb == "export" {
            command.arg(maker.path("out"));
        }
        let output = finish(&mut command, b"");
        assert_refused(&output, 125, "there is no image ../victim", "");
    }
    assert!(cache.0.path().join("sandbox/victim.toml").exists());
    assert!(names(&images).is_empty());
}

#[test]
fn a_pipe_in_place_of_an_archive_or_of_an_export_is_refused() {
    let (maker, cache) = (Maker::new(), Cache::copied());
    let pipe = maker.path("pipe");
    succeed(Command::new("mkfifo").arg(&pipe));
    let output = import(&cache, &[], &pipe);
    assert_refused(
        &output,
        125,
        "pipe is not a file",
        "put the image into a file",
    );
    import_layer(&cache, "lua");
    let mut export = cache.sandbox(&["image", "export", "lua"]);
    let output = finish(export.arg(&pipe), b"");
    assert_refused(&output, 125, "pipe, which is no file", "name a file");
    assert!(!pipe.metadata().unwrap().is_file());
}

#[test]
fn an_image_of_others_has_no_sessions_and_no_packages() {
    let maker = Maker::new();
    maker.put_busybox("layer");
    let image = Imported::of(&maker.archive(&["layer"], json!({})), "base");
    let words = ["session", "start", "--image", "base"];
    let output = finish(&mut image.cache.sandbox(&words), b"");
    assert_refused(&output, 125, "the image base has no sessions", "--image");
    maker.write("x.py", b"print(1)\n");
    let output = image.run(&[maker.path("x.py").to_str().unwrap()], b"");
    assert_refused(
        &output,
        126,
        "x.py is Python, which the image base",
        "leave out --image",
    );
    let header = b"# /// script\n# dependencies = [\"numpy\"]\n# ///\necho 1\n";
    maker.write("x.sh", header);
    let output = image.run(&[maker.path("x.sh").to_str().unwrap()], b"");
    assert_refused(
        &output,
        125,
        "the image base takes no packages",
        "without packages",
    );
}

#[test]
fn an_images_own_command_runs_at_its_root_or_where_it_says() {
    for (workdir, printed) in [
        (json!(null), "/\n"),
        (json!("/"), "/\n"),
        (json!("app/../app/x"), "/app/x\n"),
    ] {
        let maker = Maker::new();
        maker.put_busybox("layer");
        let config = json!({"Cmd": ["pwd"], "WorkingDir": workdir});
        let image = Imported::of(&maker.archive(&["layer"], config), "at");
        assert_eq!(image.printed(&[]), printed);
        assert_eq!(image.printed(&["--fresh"]), printed);
        assert_eq!(image.printed(&["--workdir", "/tmp"]), "/tmp\n");
    }
}

#[test]
fn a_working_directory_that_the_user_may_not_enter_is_told_by_its_name() {
    let maker = Maker::new();
    maker.put_busybox("layer");
    maker.write("layer/secret/file", b"");
    let mode = fs::Permissions::from_mode(0o700);
    fs::set_permissions(maker.path("layer/secret"), mode).unwrap();
    let config = json!({"Cmd": ["pwd"], "WorkingDir": "/secret"});
    let image = Imported::of(&maker.archive(&["layer"], config), "secret");
    let output = image.run(&[], b"");
    let said = text(&output.stderr);
    assert_eq!(exit_code(output.status), 126, "{said}");
    assert!(
        said.contains("directory /secret: Permission denied"),
        "{said}"
    );
    assert!(said.contains("as root, or choose another"), "{said}");
    assert_eq!(image.printed(&["--root"]), "/secret\n");
}

#[test]
fn root_may_write_where_an_image_of_others_has_directories() {
    let maker = Maker::new();
    maker.put_busybox("layer");
    maker.write("layer/home", b"a file");
    symlink("/nowhere", maker.path("layer/root")).unwrap();
    symlink("etc", maker.path("layer/var")).unwrap();
    maker.write("layer/etc/x", b"");
    // Programs reach all that is there, whatever a layer says of the root.
    let mode = fs::Permissions::from_mode(0o700);
    fs::set_permissions(maker.path("layer"), mode).unwrap();
    let image = Imported::of(&maker.archive(&["layer"], json!({})), "odd");
    for path in [&[][..], &["--fresh"]] {
        let words = [path, &["--root", "-c", "echo y >/var/y; cat /etc/y /home"]].concat();
        assert_eq!(image.printed(&words), "y\na file");
        assert_eq!(image.printed(&[path, &["--", "pwd"]].concat()), "/work\n");
    }
}
