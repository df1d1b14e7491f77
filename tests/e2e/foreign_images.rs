//! Images that others made: archives in the layout of the Open Container Initiative, and of docker save. The tests
//! make them with the host's tar.

use crate::common::{Cache, exit_code, finish, text};
use crate::failures::assert_refused;
use crate::images::import_layer;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::TempDir;

/// What the programs in C print: their words but the first.
const PRINTER: &str = r#"#include <stdio.h>
int main(int count, char **words)
{
    for (int i = 1; i < count; i++)
        printf("%s\n", words[i]);
    return count;
}
"#;

/// The trees of an image's layers, and the archive of them.
pub struct Maker(TempDir);

impl Maker {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes a file of a layer.
    pub fn write(&self, path: &str, content: &[u8]) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    pub fn make_executable(&self, path: &str) {
        let mode = fs::Permissions::from_mode(0o755);
        fs::set_permissions(self.path(path), mode).unwrap();
    }

    /// Compiles the printer against musl, into a file of a layer.
    fn compile(&self, path: &str, options: &[&str]) {
        self.write("printer.c", PRINTER.as_bytes());
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let mut compiler = Command::new("musl-gcc");
        succeed(
            compiler
                .args(options)
                .arg("-o")
                .arg(path)
                .arg(self.path("printer.c")),
        );
    }

    /// Puts a busybox into a layer, with some of its programs.
    pub fn put_busybox(&self, layer: &str) {
        self.write(&format!("{layer}/bin/busybox"), b"");
        let busybox = built_in().join("usr/bin/busybox");
        fs::copy(busybox, self.path(layer).join("bin/busybox")).unwrap();
        for name in [
            "sh", "cat", "env", "id", "ls", "od", "pwd", "sleep", "touch",
        ] {
            symlink("busybox", self.path(layer).join("bin").join(name)).unwrap();
        }
    }

    /// Makes the tar of a layer; returns it with its digest.
    fn layer(&self, name: &str) -> (Vec<u8>, String) {
        let tar = self.path(&format!("{name}.tar"));
        make_tar(&self.path(name), &tar);
        let bytes = fs::read(tar).unwrap();
        let digest = digest(&bytes);
        (bytes, digest)
    }

    /// Makes an archive in the OCI layout, of these layers.
    pub fn archive(&self, layers: &[&str], config: Value) -> PathBuf {
        let blobs = self.path("layout/blobs/sha256");
        fs::create_dir_all(&blobs).unwrap();
        let put = |bytes: &[u8]| {
            fs::write(blobs.join(digest(bytes)), bytes).unwrap();
            json!({"digest": format!("sha256:{}", digest(bytes)), "size": bytes.len()})
        };
        let with_type = |mut descriptor: Value, kind: &str| {
            descriptor["mediaType"] = format!("application/vnd.oci.image.{kind}").into();
            descriptor
        };
        let made: Vec<_> = layers.iter().map(|name| self.layer(name)).collect();
        let config = put(config_of(&made, config).as_bytes());
        let tars = made
            .iter()
            .map(|(bytes, _)| with_type(put(bytes), "layer.v1.tar"));
        let manifest = json!({
            "schemaVersion": 2,
            "config": with_type(config, "config.v1+json"),
            "layers": tars.collect::<Vec<_>>(),
        });
        let manifest = with_type(put(manifest.to_string().as_bytes()), "manifest.v1+json");
        let index = json!({"schemaVersion": 2, "manifests": [manifest]});
        self.write("layout/index.json", index.to_string().as_bytes());
        self.write("layout/oci-layout", br#"{"imageLayoutVersion": "1.0.0"}"#);
        let archive = self.path("image.tar");
        make_tar(&self.path("layout"), &archive);
        archive
    }

    /// Makes an archive as docker save does.
    pub fn saved(&self, layers: &[&str], config: Value, name: &str) -> PathBuf {
        let made: Vec<_> = layers.iter().map(|name| self.layer(name)).collect();
        for (bytes, digest) in &made {
            self.write(&format!("saved/{digest}/layer.tar"), bytes);
        }
        let config = config_of(&made, config);
        let named = format!("{}.json", digest(config.as_bytes()));
        self.write(&format!("saved/{named}"), config.as_bytes());
        let tars = made.iter().map(|(_, digest)| format!("{digest}/layer.tar"));
        let manifest = json!([{
            "Config": named, "RepoTags": [name], "Layers": tars.collect::<Vec<_>>(),
        }]);
        self.write("saved/manifest.json", manifest.to_string().as_bytes());
        let archive = self.path("saved.tar");
        make_tar(&self.path("saved"), &archive);
        archive
    }
}

/// Returns the files of the built-in image, among which is a static busybox.
fn built_in() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/assets/tree")
}

fn config_of(layers: &[(Vec<u8>, String)], config: Value) -> String {
    let digests = layers.iter().map(|(_, digest)| format!("sha256:{digest}"));
    json!({
        "architecture": "amd64", "os": "linux", "config": config,
        "rootfs": {"type": "layers", "diff_ids": digests.collect::<Vec<_>>()},
    })
    .to_string()
}

fn digest(bytes: &[u8]) -> String {
    format!("{:x}", Sha256::digest(bytes))
}

pub fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let name = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name();
    entries
        .map(|entry| name(entry).into_string().unwrap())
        .collect()
}

fn make_tar(tree: &Path, tar: &Path) {
    let mut command = Command::new("tar");
    command.args(["--owner=0", "--group=0", "-cf"]).arg(tar);
    succeed(command.arg("-C").arg(tree).arg("."));
}

pub fn succeed(command: &mut Command) {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(
        output.status.success(),
        "{command:?}: {}",
        text(&output.stderr)
    );
}

/// A cache with one image that others made.
pub struct Imported {
    pub cache: Cache,
    name: &'static str,
}

impl Imported {
    pub fn of(archive: &Path, name: &'static str) -> Self {
        let cache = Cache::copied();
        let mut command = cache.sandbox(&["image", "import", "--name", name]);
        let output = finish(command.arg(archive), b"");
        assert_eq!(exit_code(output.status), 0, "{}", text(&output.stderr));
        Self { cache, name }
    }

    pub fn run(&self, words: &[&str], stdin: &[u8]) -> Output {
        let words = [&["run", "--image", self.name], words].concat();
        finish(&mut self.cache.sandbox(&words), stdin)
    }

    /// Runs something that succeeds; returns what it printed.
    pub fn printed(&self, words: &[&str]) -> String {
        let output = self.run(words, b"");
        let said = text(&output.stderr);
        assert_eq!(exit_code(output.status), 0, "{words:?}: {said}");
        text(&output.stdout)
    }
}

#[test]
fn a_tree_of_busybox_and_musl_runs_its_shell_and_its_programs() {
    let maker = Maker::new();
    maker.put_busybox("layer");
    maker.compile("layer/usr/bin/printer", &[]);
    maker.write("layer/lib/ld-musl-x86_64.so.1", b"");
    let loader = maker.path("layer/lib/ld-musl-x86_64.so.1");
    fs::copy("/lib/ld-musl-x86_64.so.1", loader).unwrap();
    let image = Imported::of(
        &maker.archive(&["layer"], json!({"Env": ["COLOUR=red"]})),
        "small",
    );
    maker.write(
        "script.sh",
        b"cat; echo \"$1 $COLOUR $SHELL $HOME\"; exit 3",
    );
    let script = maker.path("script.sh");
    for path in [&[][..], &["--fresh"]] {
        let output = image.run(
            &[path, &[script.to_str().unwrap(), "word"]].concat(),
            b"in\n",
        );
        assert_eq!(
            text(&output.stdout),
            "in\nword red /bin/sh /work\n",
            "{}",
            text(&output.stderr)
        );
        assert_eq!(exit_code(output.status), 3);
        let output = image.run(&[path, &["--", "printer", "a b", ""]].concat(), b"");
        assert_eq!(text(&output.stdout), "a b\n\n", "{}", text(&output.stderr));
        assert_eq!(exit_code(output.status), 3);
        let output = image.run(&[path, &["--", "nosuch"]].concat(), b"");
        assert_eq!(exit_code(output.status), 127, "{}", text(&output.stderr));
    }
    assert_eq!(
        image.printed(&["-c", "id -u; pwd; ls /.sandbox"]),
        "1000\n/work\nwaiting\n"
    );
    assert_eq!(
        image.printed(&["--root", "-c", "id -u; echo x >/etc/x; cat /etc/x"]),
        "0\nx\n"
    );
    let chance = || image.printed(&["--", "od", "-N16", "/dev/urandom"]);
    assert_ne!(chance(), chance());
    let output = image.run(&["-t", "200ms", "--", "sleep", "1000"], b"");
    assert_eq!(exit_code(output.status), 124, "{}", text(&output.stderr));
    let record: Value = serde_json::from_str(&image.printed(&["--json", "-c", "echo é"])).unwrap();
    assert_eq!(
        (&record["stdout"], &record["path"]),
        (&json!("é\n"), &json!("warm"))
    );
}

#[test]
fn files_go_into_an_image_of_others_and_out_of_it() {
    let (maker, into) = (Maker::new(), tempfile::tempdir().unwrap());
    maker.put_busybox("layer");
    let image = Imported::of(&maker.archive(&["layer"], json!({})), "small");
    // The guest makes a few files, and mounts many.
    maker.write("one", b"1");
    for number in 0..300 {
        maker.write(&format!("many/{number}"), b"2");
    }
    for put in ["one", "many"] {
        let put = maker.path(put);
        let mut command = image.cache.sandbox(&["run", "--image", "small", "--put"]);
        command.arg(&put).args([
            "--get",
            "out",
            "--force",
            "-c",
            "cat one many/7 2>/dev/null >out; :",
        ]);
        let output = finish(command.current_dir(&into), b"");
        assert_eq!(exit_code(output.status), 0, "{}", text(&output.stderr));
        let expected = if put.ends_with("one") { "1" } else { "2" };
        assert_eq!(
            fs::read_to_string(into.path().join("out")).unwrap(),
            expected
        );
    }
}

#[test]
fn an_image_of_nothing_but_a_static_binary_runs_it() {
    let maker = Maker::new();
    maker.compile("layer/printer", &["-static"]);
    let config = json!({"Entrypoint": ["/printer"], "Cmd": ["own"]});
    let image = Imported::of(&maker.archive(&["layer"], config), "single");
    for (words, printed, status) in [
        (&[][..], "own\n", 2),
        (&["--", "/printer", "x", "y"], "x\ny\n", 3),
        (&["--fresh", "--", "/printer"], "", 1),
    ] {
        let output = image.run(words, b"");
        assert_eq!(text(&output.stdout), printed, "{}", text(&output.stderr));
        assert_eq!(exit_code(output.status), status);
    }
    let output = image.run(&["-c", "print(1)"], b"");
    assert_refused(
        &output,
        125,
        "the image single has no interpreter",
        "run a command",
    );
}

#[test]
fn a_tree_of_debian_runs_its_own_python_and_bash() {
    let maker = Maker::new();
    symlink(built_in(), maker.path("layer")).unwrap();
    let config = json!({"Cmd": ["python3", "--version"]});
    let image = Imported::of(&maker.archive(&["layer"], config), "debian");
    let version = image.printed(&[]);
    assert!(version.starts_with("Python 3."), "{version}");
    let code = "import json, sqlite3, ssl, sys; print(sys.prefix, sqlite3.connect(':memory:').execute('select 6 * 7').fetchone())";
    assert_eq!(image.printed(&["-c", code]), "/usr (42,)\n");
    assert_eq!(
        image.printed(&["-l", "bash", "-c", "echo ${BASH_VERSION%%.*}"]),
        "5\n"
    );
}

#[test]
fn what_an_image_says_of_its_programs_holds() {
    let maker = Maker::new();
    maker.put_busybox("layer");
    maker.write(
        "layer/etc/passwd",
        b"root:x:0:0::/root:/bin/sh\napp:x:1234:55::/app:/bin/sh\n",
    );
    maker.write("layer/app/file", b"");
    let config = json!({
        "User": "app", "WorkingDir": "/app", "Env": ["PATH=/opt:/bin", "A=b=c"],
        "Entrypoint": ["sh", "-c"], "Cmd": ["id -u; id -g; pwd; ls; touch /work/x && echo $PATH $A"],
    });
    let image = Imported::of(&maker.archive(&["layer"], config), "says");
    assert_eq!(image.printed(&[]), "1234\n55\n/app\nfile\n/opt:/bin b=c\n");
    // What is brought runs where all programs do.
    assert_eq!(
        image.printed(&["-e", "A=d", "-c", "pwd; touch x; echo $A"]),
        "/work\nd\n"
    );
    assert_eq!(image.printed(&["--workdir", "/app", "--", "ls"]), "file\n");
    assert_eq!(image.printed(&["--root", "--", "id", "-u"]), "0\n");
    let shown = text(&finish(&mut image.cache.sandbox(&["image", "show", "says"]), b"").stdout);
    assert!(shown.contains("user = 1234\ngroup = 55\n"), "{shown}");
}

#[test]
fn an_archive_of_docker_save_is_an_image_that_can_be_exported() {
    let maker = Maker::new();
    maker.put_busybox("lower");
    maker.write("lower/data/gone", b"");
    maker.write("upper/data/.wh.gone", b"");
    maker.write("upper/data/new", b"");
    let archive = maker.saved(
        &["lower", "upper"],
        json!({}),
        "registry.example/team/tool:1.2",
    );
    let cache = Cache::copied();
    let output = finish(cache.sandbox(&["image", "import"]).arg(&archive), b"");
    assert!(
        text(&output.stdout).starts_with("tool, "),
        "{}",
        text(&output.stderr)
    );
    let image = Imported {
        cache,
        name: "tool",
    };
    assert_eq!(image.printed(&["--", "ls", "/data"]), "new\n");
    let list = |cache: &Cache| text(&finish(&mut cache.sandbox(&["image", "list"]), b"").stdout);
    assert!(list(&image.cache).contains("tool, "));
    let file = maker.path("tool.image");
    let mut export = image.cache.sandbox(&["image", "export", "tool"]);
    let output = finish(export.arg(&file), b"");
    assert_eq!(exit_code(output.status), 0, "{}", text(&output.stderr));
    let output = finish(&mut image.cache.sandbox(&["image", "remove", "tool"]), b"");
    assert_eq!(exit_code(output.status), 0);
    assert!(!list(&image.cache).contains("tool, "));
    let output = finish(image.cache.sandbox(&["image", "import"]).arg(&file), b"");
    assert_eq!(exit_code(output.status), 0, "{}", text(&output.stderr));
    assert_eq!(image.printed(&["--", "ls", "/data"]), "new\n");
    // Beside it is what the test made, and nothing else.
    let mut beside = names(maker.0.path());
    beside.retain(|name| name.contains("tool.image"));
    assert_eq!(beside, ["tool.image"]);
}

#[test]
fn an_archive_that_is_refused_leaves_nothing() {
    let (maker, cache) = (Maker::new(), Cache::copied());
    maker.put_busybox("layer");
    let archive = maker.archive(&["layer"], json!({}));
    let sound = fs::read(&archive).unwrap();
    let changed = |at: usize| {
        let mut bytes = sound.clone();
        bytes[at] ^= 1;
        bytes
    };
    let busybox = sound
        .windows(4)
        .position(|window| window == b"\x7fELF")
        .unwrap();
    for (bytes, told) in [
        (changed(busybox + 1000), "has the digest"),
        (sound[..sound.len() / 2].to_vec(), "image.tar"),
        (b"no archive".to_vec(), "image.tar"),
    ] {
        fs::write(&archive, bytes).unwrap();
        let output = finish(cache.sandbox(&["image", "import"]).arg(&archive), b"");
        assert_refused(&output, 125, told, "");
        let left = names(&cache.0.path().join("sandbox/images"));
        assert!(left.is_empty(), "{left:?}");
    }
}

#[test]
fn an_image_of_others_runs_no_program_that_does_not_name_it() {
    let maker = Maker::new();
    maker.put_busybox("layer");
    maker.write("layer/bin/lua", b"#!/bin/sh\necho of others\n");
    maker.make_executable("layer/bin/lua");
    let image = Imported::of(&maker.archive(&["layer"], json!({})), "a");
    maker.write("x.lua", b"print(1)\n");
    let script = maker.path("x.lua");
    let run = || finish(image.cache.sandbox(&["run"]).arg(&script), b"");
    assert_refused(&run(), 126, "is Lua", "image import");
    assert_eq!(image.printed(&[script.to_str().unwrap()]), "of others\n");
    import_layer(&image.cache, "lua");
    let output = run();
    let said = text(&output.stderr);
    assert_eq!(text(&output.stdout), "in an image: x.lua\n", "{said}");
}
