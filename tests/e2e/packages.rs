//! Packages, of an index that the tests make: what scripts ask for, how it is kept, and how it runs.

use crate::agent::{Agent, Server, text_of};
use crate::common::{Cache, finish, start, text};
use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;
use tempfile::TempDir;

/// Makes wheels of what is listed on standard input (name, version, what it needs, and its files), and adds
/// them to the index in a directory (PEP 503).
const WHEELS: &str = r#"
import json, os, sys, zipfile
for name, version, needs, files in json.load(sys.stdin):
    place = f"{sys.argv[1]}/{name}"
    os.makedirs(place, exist_ok=True)
    file, info = f"{name}-{version}-py3-none-any.whl", f"{name}-{version}.dist-info"
    requires = f"Requires-Dist: {needs}\n" if needs else ""
    files[f"{info}/METADATA"] = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{requires}"
    files[f"{info}/WHEEL"] = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    files[f"{info}/RECORD"] = "".join(f"{path},,\n" for path in files) + f"{info}/RECORD,,\n"
    with zipfile.ZipFile(f"{place}/{file}", "w") as wheel:
        for path, content in files.items():
            wheel.writestr(path, content.encode("latin-1"))
    with open(f"{place}/index.html", "a") as page:
        page.write(f'<a href="{file}">{file}</a>\n')
"#;

/// A cache, a place for scripts, and an index of packages in it.
pub struct Place {
    cache: Cache,
    directory: TempDir,
}

impl Place {
    pub fn new() -> Self {
        let place = Self {
            cache: Cache::empty(),
            directory: tempfile::tempdir().unwrap(),
        };
        let wheel = |name: &str, version: &str, needs: &str| {
            let code = format!("version = '{version}'\n");
            json!([name, version, needs, {format!("{name}.py"): code}])
        };
        place.add_wheels(&json!([
            wheel("demo", "1.0", "helper>=2"),
            wheel("helper", "1.0", ""),
            wheel("helper", "2.1", ""),
        ]));
        place
    }

    /// Adds wheels to the index: of each name, version, what it needs, and files with their contents, a
    /// character for each byte.
    pub fn add_wheels(&self, wheels: &serde_json::Value) {
        let mut command = Command::new("/usr/bin/python3");
        command.args(["-c", WHEELS]).arg(self.path("index"));
        let output = finish(&mut command, wheels.to_string().as_bytes());
        assert!(output.status.success(), "{output:?}");
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Returns the path of something in the cache.
    pub fn cache_path(&self, name: &str) -> PathBuf {
        self.cache.0.path().join("sandbox").join(name)
    }

    pub fn script(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        path
    }

    /// Returns `sandbox` with these words where the scripts are.
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = self.cache.sandbox(words);
        command
            .current_dir(self.directory.path())
            .env("UV_DEFAULT_INDEX", self.path("index"));
        command
    }

    pub fn sandbox(&self, words: &[&str]) -> Output {
        finish(&mut self.command(words), b"")
    }

    pub fn record(&self, words: &[&str]) -> serde_json::Value {
        let output = self.sandbox(words);
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"))
    }

    /// Returns whether these bytes are in a saved machine.
    pub fn has_in_templates(&self, text: &str) -> bool {
        let directory = self.cache.0.path().join("sandbox/templates");
        let found = Command::new("grep")
            .args(["--quiet", "--text", "--recursive", "--fixed-strings", text])
            .arg(directory)
            .status();
        found.unwrap().success()
    }

    #[track_caller]
    pub fn does(&self, words: &[&str]) -> String {
        let output = self.sandbox(words);
        assert!(output.status.success(), "{output:?}");
        text(&output.stderr)
    }

    #[track_caller]
    pub fn refuses(&self, words: &[&str]) -> String {
        let output = self.sandbox(words);
        assert_eq!(output.status.code(), Some(125), "{output:?}");
        text(&output.stderr)
    }
}

pub const SCRIPT: &str = "# /// script\n# dependencies = [\"demo\"]\n# ///\nimport demo, helper\nprint(demo.version, helper.version)\n";

fn packages_of(lock: &Path) -> Vec<String> {
    let text = fs::read_to_string(lock).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with(['#', ' ']));
    lines
        .map(|line| line.trim_end_matches(" \\").to_owned())
        .collect()
}

#[test]
fn what_a_script_needs_is_written_down_beside_it() {
    let place = Place::new();
    let script = place.script("a.py", SCRIPT);
    place.does(&["packages", "setup"]);
    let said = place.does(&["packages", "lock", "a.py"]);
    assert_eq!(said, "sandbox: a.py.lock has 2 packages\n");
    let lock = place.path("a.py.lock");
    assert_eq!(packages_of(&lock), ["demo==1.0", "helper==2.1"]);
    let said = place.does(&[
        "packages", "lock", "a.py", "--with", "helper<3", "-o", "other",
    ]);
    assert!(!said.contains("a.py.lock"), "{said}");
    fs::write(&script, SCRIPT.replace("\"demo\"", "\"helper<2\"")).unwrap();
    place.does(&["packages", "lock", "a.py"]);
    assert_eq!(packages_of(&lock), ["helper==1.0"]);
}

#[test]
fn a_layer_is_built_once_of_a_lock_that_is_there() {
    let place = Place::new();
    place.script("a.py", SCRIPT);
    place.does(&["packages", "setup"]);
    assert!(
        place
            .refuses(&["packages", "build", "a.py", "--locked"])
            .contains("there is no lock a.py.lock")
    );
    place.does(&["packages", "lock", "a.py"]);
    let said = place.does(&["packages", "build", "a.py", "--locked"]);
    assert_eq!(
        said,
        "sandbox: unpacking 2 packages, once\nsandbox: 2 packages are ready, 2 MiB\n"
    );
    let said = place.does(&["packages", "build", "a.py", "--offline"]);
    assert_eq!(said, "sandbox: 2 packages are ready, 2 MiB\n");
    let listed = place.sandbox(&["packages", "list", "--verify"]);
    assert!(listed.status.success(), "{listed:?}");
    assert!(
        text(&listed.stdout).contains("packages: demo 1.0, helper 2.1"),
        "{listed:?}"
    );
    let said = place.refuses(&["packages", "build", "a.py", "--locked", "--with", "helper"]);
    assert!(said.contains("it was made for something else"), "{said}");
}

#[test]
fn what_cannot_be_had_is_told_with_what_to_do() {
    let place = Place::new();
    place.does(&["packages", "setup"]);
    place.script("a.py", "# /// script\n# dependencies = [\"demo\"\n# ///\n");
    place.script("b.py", "print(1)\n");
    place.script(
        "c.py",
        "# /// script\n# requires-python = '<3'\n# dependencies = ['demo']\n# ///\n",
    );
    for (words, said) in [
        (&["build", "--with", "nonesuch"][..], "no such package"),
        (
            &["build", "--with", "helper<2", "--with", "demo"],
            "no versions fit together",
        ),
        (
            &["build", "--with", "./nothing-1-py3-none-any.whl"],
            "cannot be read",
        ),
        (&["build", "--with", "@all"], "not a set of distributions"),
        (&["build"], "this asks for no packages"),
        (&["lock", "c.py"], "no image with Python <3 here"),
        (&["lock", "b.py"], "asks for no packages"),
    ] {
        let all = place.refuses(&[&["packages"], words].concat());
        assert!(all.contains(said), "{words:?}: {all}");
        let told = all
            .lines()
            .filter(|line| !line.contains("choosing packages: "));
        assert_eq!(told.count(), 2, "{all}");
    }
    let output = place.sandbox(&["packages", "lock", "a.py"]);
    assert_eq!(output.status.code(), Some(126), "{output:?}");
    assert!(
        text(&output.stderr).contains("header is refused"),
        "{output:?}"
    );
}

#[test]
fn a_script_runs_with_what_its_header_names_and_later_without_an_index() {
    let place = Place::new();
    place.does(&["packages", "setup"]);
    place.script("a.py", SCRIPT);
    let first = place.sandbox(&["run", "a.py"]);
    assert_eq!(text(&first.stdout), "1.0 2.1\n", "{first:?}");
    assert!(
        text(&first.stderr).starts_with("sandbox: choosing packages: demo\n"),
        "{first:?}"
    );
    fs::remove_dir_all(place.path("index")).unwrap();
    let second = place.sandbox(&["run", "a.py"]);
    assert_eq!(
        (text(&second.stdout), text(&second.stderr)),
        ("1.0 2.1\n".into(), String::new())
    );
    let record = place.record(&["run", "--json", "a.py"]);
    let packages = serde_json::json!([
        {"name": "demo", "version": "1.0"}, {"name": "helper", "version": "2.1"}
    ]);
    assert_eq!(record["packages"], packages, "{record}");
    assert_eq!(
        record["packages_lock"].as_str().map(str::len),
        Some(32),
        "{record}"
    );
    assert_eq!(record["path"], "warm");
}

#[test]
fn modules_of_packages_are_compiled_and_cannot_be_written_to() {
    let place = Place::new();
    place.does(&["packages", "setup"]);
    let code = "import demo, os, helper\n\
        print(os.path.exists(demo.__cached__), os.stat(demo.__file__).st_uid, helper.version)\n\
        try: open(demo.__file__, 'w')\n\
        except OSError as error: print(error.strerror)";
    for how in [&[][..], &["--fresh"], &["--root"]] {
        let words = [
            &["run", "--with", "demo", "--with", "helper<3"],
            how,
            &["-c", code],
        ]
        .concat();
        let output = place.sandbox(&words);
        let out = text(&output.stdout);
        assert!(out.starts_with("True 0 2.1\n"), "{how:?}: {output:?}");
        assert!(!out.contains("None"), "{out}");
        assert_eq!(out.lines().count(), 2, "{out}");
    }
}

#[test]
fn a_header_brings_nothing_where_packages_are_forbidden() {
    let place = Place::new();
    place.script(
        "a.py",
        "# /// script\n# dependencies = ['demo']\n# ///\nimport yaml\n",
    );
    let record = place.record(&["run", "--json", "--no-packages", "a.py"]);
    assert_eq!(record["packages"], serde_json::json!([]));
    let advice = record["advice"][0].as_str().unwrap();
    assert!(
        advice.contains("the package pyyaml brings it: --with pyyaml"),
        "{advice}"
    );
    assert!(!place.cache.0.path().join("sandbox/packages").exists());
}

#[test]
fn a_run_that_is_killed_at_any_time_leaves_a_cache_that_works() {
    let place = Place::new();
    place.does(&["packages", "setup"]);
    place.script("a.py", SCRIPT);
    for step in 0..12 {
        let mut child = start(&mut place.command(&["run", "a.py"]));
        std::thread::sleep(Duration::from_millis(60 * step));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let output = place.sandbox(&["run", "a.py"]);
    assert_eq!(text(&output.stdout), "1.0 2.1\n", "{output:?}");
    place.does(&["cache", "prune"]);
    let directory = place.cache.0.path().join("sandbox/packages");
    let left: Vec<_> = fs::read_dir(directory).unwrap().flatten().collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_policy_says_which_packages_a_run_may_have() {
    let place = Place::new();
    place.does(&["packages", "setup"]);
    place.script("a.py", SCRIPT);
    for (policy, holds) in [
        ("allow = 'off'", false),
        ("allow = 'locked'", false),
        ("allow = ['helper']", false),
        ("allow = ['demo']", true),
        ("allow = 'locked'", true),
        ("allow = 'any'\nsize = '1M'", false),
        ("allow = 'any'\nindex = 'http://127.0.0.1:1/simple'", false),
    ] {
        place.script("policy.toml", &format!("[run.packages]\n{policy}\n"));
        let output = place.sandbox(&["run", "--policy", "policy.toml", "a.py"]);
        assert_eq!(output.status.success(), holds, "{policy}: {output:?}");
    }
}

#[test]
fn a_session_of_an_agent_has_the_packages_of_its_first_call() {
    let place = Place::new();
    place.does(&["packages", "setup"]);
    place.script("policy.toml", "[run.packages]\nallow = 'any'\n");
    let command = place.command(&["mcp", "--policy", "policy.toml"]);
    let mut agent = Agent::connect(Server::of(command, tempfile::tempdir().unwrap()));
    agent.initialize();
    let mut ask = |code: &str, packages: &[&str]| {
        let call = json!({"code": code, "session": "a", "packages": packages});
        agent.call(call)
    };
    let first = ask("import demo; demo.version", &["demo"]);
    assert_eq!(
        first["structuredContent"]["result"]["text/plain"], "'1.0'",
        "{first}"
    );
    for packages in [&[][..], &["demo"]] {
        let later = ask("demo.version", packages);
        assert_eq!(
            later["structuredContent"]["result"]["text/plain"], "'1.0'",
            "{later}"
        );
    }
    let other = ask("1", &["helper"]);
    let said = text_of(&other);
    assert!(
        said.contains("the session a was started without these packages"),
        "{said}"
    );
    assert_eq!(
        ask("demo.version", &[])["structuredContent"]["state"],
        "kept"
    );
}

#[test]
fn an_agent_has_no_packages_unless_the_policy_allows_them() {
    let mut agent = Agent::start(&[]);
    let tool = agent.ask("tools/list", json!({}))["result"]["tools"][0].clone();
    assert!(
        tool["inputSchema"]["properties"]["packages"].is_null(),
        "{tool}"
    );
    let result = agent.call(json!({"code": "pass", "packages": ["numpy"]}));
    assert!(
        text_of(&result).contains("packages allows none"),
        "{result}"
    );
    let policy = tempfile::NamedTempFile::new().unwrap();
    fs::write(policy.path(), "[run.packages]\nallow = ['demo']\n").unwrap();
    let mut agent = Agent::start(&["--policy", policy.path().to_str().unwrap()]);
    let tool = agent.ask("tools/list", json!({}))["result"]["tools"][0].clone();
    assert_eq!(
        tool["inputSchema"]["properties"]["packages"]["maxItems"],
        100
    );
    for (packages, words) in [
        (["numpy"], "allows demo, and numpy is asked for"),
        (
            ["./demo-1.0-py3-none-any.whl"],
            "does not begin with the name",
        ),
        (
            ["demo @ https://example.com/demo-1.0-py3-none-any.whl"],
            "an address",
        ),
        (["-r /etc/passwd"], "name of a distribution"),
    ] {
        let result = agent.call(json!({"code": "pass", "packages": packages}));
        assert!(text_of(&result).contains(words), "{}", text_of(&result));
    }
}
