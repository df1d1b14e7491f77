//! The key of what saved machines depend on: what changes it, and what does not.

#[path = "../build/machine_key.rs"]
mod machine_key;

use machine_key::{COUNTED, compute};
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// What no saved machine depends on: what asks for runs and tells of them, what this process gives
/// up, and helpers that know nothing of machines.
const NOT_COUNTED: [&str; 29] = [
    "audit",
    "cache",
    "cli",
    "confine",
    "doctor.rs",
    "error.rs",
    "files",
    "fs.rs",
    "internals.rs",
    "json.rs",
    "layer",
    "lib.rs",
    "library",
    "log.rs",
    "main.rs",
    "mcp",
    "oci",
    "outcome.rs",
    "packages",
    "policy",
    "process.rs",
    "record.rs",
    "run",
    "session",
    "signals.rs",
    "terminal",
    "text.rs",
    "wire.rs",
    "worker",
];

/// A copy of the code, to be changed.
struct Copy {
    directory: TempDir,
}

impl Copy {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        for path in ["Cargo.lock", "Cargo.toml", "guest/src", "src"] {
            copy(&root.join(path), &directory.path().join(path));
        }
        fs::write(directory.path().join("kernel"), "a kernel").unwrap();
        Self { directory }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn key(&self) -> String {
        compute(self.directory.path(), &[self.path("kernel")], "release").unwrap()
    }

    fn append(&self, name: &str, text: &str) {
        let mut file = OpenOptions::new()
            .append(true)
            .open(self.path(name))
            .unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    /// Says whether the key is another after this is appended to a file.
    fn changes(&self, name: &str, text: &str) -> bool {
        let before = self.key();
        self.append(name, text);
        self.key() != before
    }
}

fn copy(from: &Path, to: &Path) {
    if from.is_dir() {
        fs::create_dir_all(to).unwrap();
        for entry in fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            copy(&entry.path(), &to.join(entry.file_name()));
        }
    } else {
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(from, to).unwrap();
    }
}

/// Returns a file in a directory, or the file itself.
fn a_file(path: PathBuf) -> PathBuf {
    match path.is_dir() {
        true => a_file(fs::read_dir(path).unwrap().next().unwrap().unwrap().path()),
        false => path,
    }
}

#[test]
fn what_no_machine_depends_on_leaves_the_key_alone() {
    let copy = Copy::new();
    for name in ["src/cli/mod.rs", "src/mcp/server.rs", "src/doctor.rs"] {
        assert!(!copy.changes(name, "// A comment.\n"), "{name}");
        assert!(!copy.changes(name, "fn more() {}\n"), "{name}");
    }
}

#[test]
fn what_machines_depend_on_changes_the_key() {
    let copy = Copy::new();
    for counted in COUNTED {
        let file = a_file(copy.path(counted));
        let name = file.strip_prefix(copy.directory.path()).unwrap();
        let text = "\nconst MORE: u8 = 1;\n";
        assert!(copy.changes(name.to_str().unwrap(), text), "{name:?}");
    }
    assert!(copy.changes("kernel", " of another version"));
    let before = copy.key();
    fs::rename(copy.path("src/units.rs"), copy.path("src/vm/units.rs")).unwrap();
    fs::write(copy.path("src/units.rs"), "").unwrap();
    assert_ne!(copy.key(), before);
}

#[test]
fn comments_and_layout_leave_the_key_alone() {
    let copy = Copy::new();
    let name = "src/vm/mod.rs";
    let text = fs::read_to_string(copy.path(name)).unwrap();
    let before = copy.key();
    let changed = format!("//! First.\n{}\n// Last.\n", text.replace('\n', "\n\n"));
    fs::write(copy.path(name), changed).unwrap();
    assert_eq!(copy.key(), before);
    copy.append(
        name,
        "/// One.\n#[inline]\nfn f() { /* two /* three */ */ }\n",
    );
    let documented = copy.key();
    let bare = format!("{text}\n#[inline]\nfn f() {{}}\n");
    fs::write(copy.path(name), bare).unwrap();
    assert_eq!(copy.key(), documented);
}

#[test]
fn what_looks_like_a_comment_and_is_code_changes_the_key() {
    let copy = Copy::new();
    let name = "src/vm/mod.rs";
    let code = fs::read_to_string(copy.path(name)).unwrap();
    let mut keys = Vec::new();
    for line in [
        "const A: &str = \"// a\";",
        "const A: &str = \"// b\";",
        "const A: &str = r#\"\"// a\"#;",
        "const A: &str = r#\"\"// b\"#;",
        "const A: (char, &str) = ('\"', \"/* a */\");",
        "const A: (char, &str) = ('\"', \"/* b */\");",
        "#[cfg(a)] const A: () = ();",
        "#[cfg(b)] const A: () = ();",
    ] {
        fs::write(copy.path(name), format!("{code}\n{line}\n")).unwrap();
        let key = copy.key();
        assert!(!keys.contains(&key), "{line}");
        keys.push(key);
    }
}

/// A new module is to be put into one of the two lists.
#[test]
fn every_module_is_counted_or_is_known_not_to_matter() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for entry in fs::read_dir(source).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let counts = COUNTED.contains(&format!("src/{name}").as_str());
        let is_known = NOT_COUNTED.contains(&name.as_str());
        assert!(
            counts != is_known,
            "src/{name}: list it in build/machine_key.rs if saved machines depend on it, else here"
        );
    }
}
