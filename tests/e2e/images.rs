//! Images that are imported: files beside the binary, which a name, a Python or a script chooses.

use crate::common::{Cache, exit_code, finish, text};
use crate::failures::assert_refused;
use crate::files::Here;
use sha2::{Digest, Sha256};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

const BUILT_IN: &str = include_str!("../../guest/images/python/image.toml");
const OLDER: &str = include_str!("../../guest/images/python3.11/image.toml");

/// Returns the version of Python that a description tells.
fn python_of(description: &str) -> &str {
    let mut lines = description.lines();
    let version = lines.find_map(|line| line.strip_prefix("python = \""));
    version.unwrap().trim_end_matches('"')
}

/// Makes a file of an image with this name, which is said to have this Python and has a language of its
/// own; its file system is that of the image that is built in.
fn make(name: &str, python: &str, into: &Path) {
    let mut names = fs::read_dir(Cache::shared().0.path().join("sandbox")).unwrap();
    let files = names.find_map(|entry| {
        let path = entry.unwrap().path();
        path.extension()
            .is_some_and(|it| it == "erofs")
            .then_some(path)
    });
    let files = fs::read(files.unwrap()).unwrap();
    let (digest, size) = (Sha256::digest(&files), files.len());
    let description = BUILT_IN
        .replacen("name = \"python\"", &format!("name = \"{name}\""), 1)
        .replace(
            &format!("python = \"{}\"", python_of(BUILT_IN)),
            &format!("python = \"{python}\""),
        )
        .replace("name = \"bash\"", "name = \"shell\"");
    let description = format!("{description}\n[files]\nsha256 = \"{digest:x}\"\nsize = {size}\n");
    fs::write(into, image_file(&description, &files)).unwrap();
}

/// Returns the file of an image, as scripts/build-image makes it.
fn image_file(description: &str, files: &[u8]) -> Vec<u8> {
    let mut image = 0x184d_2a50_u32.to_le_bytes().to_vec();
    image.extend((description.len() as u32).to_le_bytes());
    image.extend(description.as_bytes());
    image.extend(zstd::encode_all(files, 1).unwrap());
    image
}

/// What the images of [`import_layer`] say of their languages, of which the second gives the first its process.
const LANGUAGES: &str = r#"
[[language]]
name = "NAME"
title = "NAME"
extensions = ["NAME"]
file = ["NAME", "{file}"]
code = ["NAME", "-e", "{code}"]
stdin = ["NAME", "-"]

[[language]]
name = "bash"
title = "Bash"
file = ["bash", "{file}"]
code = ["bash", "-c", "{code}", "bash"]
stdin = ["bash", "-s", "--"]

[language.warm]
library = "/usr/lib/sandbox/held.so"
rehearsal = "echo hello\n"
"#;

/// Imports an image that is a layer over the one that is built in, with an interpreter by this name, which prints
/// its words.
pub fn import_layer(cache: &Cache, language: &str) {
    let here = Here::new();
    let tree = here.0.path().join("tree");
    let program = tree.join("usr/bin").join(language);
    fs::create_dir_all(program.parent().unwrap()).unwrap();
    fs::write(&program, "#!/bin/sh\necho in an image: \"$@\"\n").unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let files = here.0.path().join("layer.erofs");
    // As scripts/image.sh does.
    let made = Command::new("mkfs.erofs")
        .args(["--quiet", "-x-1", "-T1700000000", "--all-root"])
        .arg("-Eforce-inode-compact,noinline_data,nosbcrc")
        .args([&files, &tree])
        .output()
        .expect("mkfs.erofs of erofs-utils is needed");
    assert!(made.status.success(), "{}", text(&made.stderr));
    let mut files = fs::read(files).unwrap();
    files.resize(files.len().next_multiple_of(2 << 20), 0);
    let assets = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/assets");
    let identity = fs::read_to_string(assets.join("runtime.identity")).unwrap();
    let (base, _) = identity.split_once(' ').unwrap();
    let description = format!(
        "name = \"{language}\"\n{}\n[files]\nsha256 = \"{:x}\"\nsize = {}\nbase = \"{base}\"\n",
        LANGUAGES.replace("NAME", language),
        Sha256::digest(&files),
        files.len(),
    );
    let file = here.0.path().join("layer.image");
    fs::write(&file, image_file(&description, &files)).unwrap();
    let output = finish(cache.sandbox(&["image", "import"]).arg(&file), b"");
    assert_eq!(exit_code(output.status), 0, "{}", text(&output.stderr));
}

/// A cache with an image that is called `older`, with a Python 3.9.
fn with_an_image() -> Cache {
    let (cache, here) = (Cache::copied(), Here::new());
    let file = here.0.path().join("older.image");
    make("older", "3.9.2", &file);
    let output = finish(cache.sandbox(&["image", "import"]).arg(&file), b"");
    assert_eq!(exit_code(output.status), 0, "{}", text(&output.stderr));
    cache
}

fn command(cache: &Cache, words: &[&str]) -> Output {
    finish(&mut cache.sandbox(words), b"")
}

#[test]
fn an_imported_image_is_chosen_by_its_name_its_python_or_a_first_line() {
    let (cache, here) = (with_an_image(), Here::new());
    let listed = text(&command(&cache, &["image", "list"]).stdout);
    assert!(
        listed.starts_with(&format!(
            "python  Python {}, built in: Python, Bash\n",
            python_of(BUILT_IN)
        )),
        "{listed}"
    );
    assert!(listed.contains("\nolder  Python 3.9.2, "), "{listed}");
    for choice in [
        ["--image", "older"],
        ["--python", "3.9"],
        ["--python", "3.9.2"],
    ] {
        let words = [&["run"], &choice[..], &["-l", "shell", "-c", "echo $0"]].concat();
        let output = command(&cache, &words);
        assert_eq!(
            text(&output.stdout),
            "bash\n",
            "{choice:?}: {}",
            text(&output.stderr)
        );
    }
    here.write("script", b"#!/usr/bin/env python3.9\nprint('asked for')\n");
    let script = here.0.path().join("script");
    let output = finish(cache.sandbox(&["run"]).arg(&script), b"");
    assert_eq!(
        text(&output.stdout),
        "asked for\n",
        "{}",
        text(&output.stderr)
    );
    let templates = text(&command(&cache, &["template", "list"]).stdout);
    assert!(
        templates.contains("Python of the image older, 256 MiB"),
        "{templates}"
    );
    let output = command(&cache, &["image", "remove", "older"]);
    assert_eq!(exit_code(output.status), 0);
    let output = finish(cache.sandbox(&["run"]).arg(&script), b"");
    assert_refused(
        &output,
        125,
        "no image with Python 3.9 here, only with 3.13",
        "sandbox image import",
    );
    let output = finish(
        cache.sandbox(&["run", "--python", "3.13"]).arg(&script),
        b"",
    );
    assert_eq!(
        text(&output.stdout),
        "asked for\n",
        "{}",
        text(&output.stderr)
    );
    let left = fs::read_dir(cache.0.path().join("sandbox/images")).unwrap();
    assert_eq!(left.count(), 0);
}

/// Imports an image of this name and Python.
fn import(cache: &Cache, name: &str, python: &str) {
    let here = Here::new();
    let file = here.0.path().join(name);
    make(name, python, &file);
    let output = finish(cache.sandbox(&["image", "import"]).arg(&file), b"");
    assert_eq!(exit_code(output.status), 0, "{}", text(&output.stderr));
}

/// The images all have the same file system: which one a machine is of is told by the list of these.
#[test]
fn a_header_gets_the_newest_image_whose_python_it_runs_with() {
    let (cache, here) = (with_an_image(), Here::new());
    import(&cache, "middle", "3.9.10");
    let run = |options: &[&str], first: &str, wanted: &str| {
        let text =
            format!("{first}\n# /// script\n# requires-python = '{wanted}'\n# ///\nprint('ran')\n");
        here.write("script.py", text.as_bytes());
        let words = [&["run"], options, &["script.py"]].concat();
        finish(cache.sandbox(&words).current_dir(here.path("")), b"")
    };
    let runs_in = |image: &str, output: Output| {
        assert_eq!(text(&output.stdout), "ran\n", "{output:?}");
        let templates = text(&command(&cache, &["template", "list"]).stdout);
        let is_there = templates.contains(&format!("Python of the image {image}, "));
        assert_eq!(is_there, image != "python", "{templates}");
        command(&cache, &["template", "prune"]);
    };
    runs_in("python", run(&[], "", ">=3.9"));
    runs_in("middle", run(&[], "", "<3.10"));
    runs_in("older", run(&[], "", ">=3.9,<3.9.5"));
    runs_in("older", run(&[], "#!/usr/bin/env python3.9", "!=3.9.10"));
    runs_in("middle", run(&["--python", "~=3.9.3"], "", ">=3.9"));
    for (options, first, wanted, code, what) in [
        (
            &[][..],
            "",
            "<3.9",
            125,
            "no image with Python <3.9 here, only with 3.13",
        ),
        (
            &[],
            "#!/usr/bin/python3.9",
            ">3.10",
            125,
            "Python >3.10 that is 3.9 too",
        ),
        (&[], "", "three", 126, "not a list of versions"),
        (
            &["--image", "older"],
            "",
            ">3.10",
            126,
            "this image has 3.9.2",
        ),
        (
            &["--python", "3.13"],
            "",
            "<3.10",
            126,
            "this image has 3.13",
        ),
        (
            &["--python", ">4"],
            "",
            ">3",
            125,
            "no image with Python >4 here",
        ),
    ] {
        let output = run(options, first, wanted);
        assert_eq!(exit_code(output.status), code, "{wanted}: {output:?}");
        assert!(text(&output.stderr).contains(what), "{wanted}: {output:?}");
    }
    here.write("policy.toml", b"[run]\n");
    let output = run(&["--policy", "policy.toml", "--audit", "log"], "", "<3.10");
    assert_eq!(exit_code(output.status), 126, "{output:?}");
}

#[test]
fn an_imported_image_takes_room_in_the_cache_and_stays() {
    let cache = with_an_image();
    command(&cache, &["cache", "prune"]);
    let listed = command(&cache, &["cache", "list", "--verify"]);
    assert!(
        text(&listed.stdout).contains("images/older  "),
        "{listed:?}"
    );
    assert_eq!(exit_code(listed.status), 0, "{listed:?}");
}

#[test]
fn an_image_that_is_not_there_is_told_with_those_that_are() {
    let cache = &Cache::copied();
    for (choice, what) in [
        (
            ["--image", "older"],
            "there is no image older here, only python",
        ),
        (
            ["--python", "3.8"],
            "there is no image with Python 3.8 here, only with 3.13",
        ),
        (
            ["--python", "x/../y"],
            "there is no image with Python x/../y here",
        ),
    ] {
        let output = command(cache, &["run", choice[0], choice[1], "-c", "pass"]);
        assert_refused(&output, 125, what, "sandbox image import FILE");
    }
    let output = command(cache, &["image", "remove", "older"]);
    assert_eq!(exit_code(output.status), 125);
    assert!(text(&output.stderr).contains("no image older"));
}

#[test]
fn what_is_no_image_is_not_imported_and_leaves_nothing() {
    let (cache, here) = (Cache::copied(), Here::new());
    let file = here.0.path().join("file");
    make("older", "3.9.2", &file);
    let whole = fs::read(&file).unwrap();
    let changed = |at: usize| {
        let mut image = whole.clone();
        image[at] ^= 1;
        image
    };
    let mut named_as_ours = whole.clone();
    let at = whole
        .windows(7)
        .position(|piece| piece == b"\"older\"")
        .unwrap();
    named_as_ours.splice(at..at + 7, *b"\"python\"");
    named_as_ours[4] += 1;
    let mut larger_than_said = whole.clone();
    let size = whole
        .windows(7)
        .position(|piece| piece == b"size = ")
        .unwrap()
        + 7;
    // The same number of digits, and a smaller number.
    larger_than_said[size..size + 4].copy_from_slice(b"1000");
    // What does not begin as an image of ours is looked at as an archive of others.
    let (ours, others) = ("scripts/build-image", "save the image again");
    for (content, what, remedy) in [
        (larger_than_said, "it is larger than it says", ours),
        (Vec::new(), "it is an empty file", others),
        (b"#!/bin/sh\n".to_vec(), "it is cut off", others),
        (whole[..whole.len() / 2].to_vec(), "is refused", ours),
        (changed(whole.len() / 2), "is refused", ours),
        (changed(0), "it has neither index.json nor", "make one"),
        (named_as_ours, "is that of the image that is built in", ours),
    ] {
        fs::write(&file, content).unwrap();
        let output = finish(cache.sandbox(&["image", "import"]).arg(&file), b"");
        assert_refused(&output, 125, what, remedy);
        let left = fs::read_dir(cache.0.path().join("sandbox/images")).unwrap();
        assert_eq!(left.count(), 0, "{what}");
    }
}

#[test]
fn a_description_tells_the_python_that_the_image_gets() {
    const LOCKS: [&str; 2] = [
        include_str!("../../guest/images/python/runtime.lock"),
        include_str!("../../guest/images/python3.11/runtime.lock"),
    ];
    for (description, lock) in [BUILT_IN, OLDER].iter().zip(LOCKS) {
        let version = python_of(description);
        let release = version.rsplit_once('.').unwrap().0;
        let pin = format!("\npython{release} {version}-");
        assert!(lock.contains(&pin), "{pin}");
        let site = format!("\nsite = \"/usr/local/lib/python{release}/dist-packages\"\n");
        assert!(description.contains(&site), "{site}");
    }
}

#[test]
fn images_differ_only_in_versions_and_in_what_is_imported_ahead() {
    let plain = |text: &str| {
        let parts = text.split_once("\nimports = [");
        let parts = parts.and_then(|(before, rest)| Some((before, rest.split_once("\n]")?.1)));
        let text = parts.map_or(text.to_owned(), |(before, after)| before.to_owned() + after);
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let lines = lines
            .filter(|line| !line.starts_with("name = \"python") && !line.starts_with("platform"));
        lines.collect::<Vec<_>>().join("\n")
    };
    let newer = plain(BUILT_IN)
        .replace(python_of(BUILT_IN), python_of(OLDER))
        .replace("3.13", "3.11");
    assert_eq!(plain(OLDER), newer);
}
