//! What is said to whoever runs a program that ends for want of a module.

use crate::common::{exit_code, finish, sandbox, text};
use crate::files::Here;
use crate::terminal::Screen;

const YAML: &str = "sandbox: there is no module yaml here; the package pyyaml brings it: --with pyyaml, \
    or dependencies = [\"pyyaml\"] in the script's header\n";

/// Returns what a script with this text, or code after -c, leaves on standard error.
#[track_caller]
fn stderr(options: &[&str], code: &str, code_of_exit: i32) -> String {
    let here = Here::new();
    here.write("script.py", code.as_bytes());
    let words = [&["run"], options].concat();
    let output = finish(sandbox(&words).current_dir(here.path("")), code.as_bytes());
    assert_eq!(exit_code(output.status), code_of_exit, "{output:?}");
    text(&output.stderr)
}

#[test]
fn the_package_that_brings_a_missing_module_is_named_after_the_traceback() {
    let coded = "# -*- coding: latin-1 -*-\nimport yaml";
    for (options, code) in [
        (&["script.py"][..], "import yaml"),
        (&["script.py"], coded),
        (&["script.py"], "from yaml.reader import Reader"),
        (
            &["script.py"],
            "try: 1 / 0\nexcept ArithmeticError: import yaml",
        ),
        (&["-c", "import yaml"], ""),
        (&["-"], "import yaml"),
        (&["--module", "script"], "import yaml"),
        (&["--json-status-fd", "1", "script.py"], "import yaml"),
        (
            &["--json-status-fd", "1", "--fresh", "script.py"],
            "import yaml",
        ),
        (
            &["script.py"],
            "import sys\nsys.excepthook = print\nimport yaml",
        ),
    ] {
        let said = stderr(options, code, 1).replace("yaml.reader", "yaml");
        assert!(said.ends_with(YAML), "{options:?} {code}: {said}");
        assert_eq!(said.matches("sandbox: ").count(), 1, "{said}");
        let is_told = said.contains("ModuleNotFoundError") || code.contains("excepthook");
        assert!(is_told, "{said}");
    }
}

#[test]
fn a_module_to_run_that_is_missing_is_told_with_what_brings_it() {
    let unknown = "sandbox: there is no module nosuch here: check its name, or bring it with --put, \
        or the package that has it with --with\n";
    for (module, expected) in [
        ("yaml", YAML),
        ("yaml.reader", YAML),
        ("nosuch", unknown),
        ("nosuch.part", unknown),
    ] {
        let said = stderr(&["--module", module], "", 1);
        assert!(said.ends_with(expected), "{said}");
        assert_eq!(said.matches("sandbox: ").count(), 1, "{said}");
        let (code, shown) = Screen::new(&["--module", module]).end();
        let shown = shown.replace("\r\n", "\n");
        assert!(code == 1 && shown.ends_with(expected), "{shown}");
    }
    for (options, code) in [
        (&["--quiet", "--module", "nosuch"][..], ""),
        (&["--module", "email"], ""),
        (&["--module", "script"], "import sys\nsys.exit('no')"),
    ] {
        let said = stderr(options, code, 1);
        assert!(!said.contains("sandbox: "), "{options:?} {code}: {said}");
    }
}

#[test]
fn nothing_is_said_of_a_module_that_is_unknown_or_was_not_the_end() {
    let trace = "import sys, traceback\ntry: import yaml\nexcept ImportError:\n ";
    let [caught, exits] = [
        "traceback.print_exc()",
        "traceback.print_exc(); sys.exit(1)",
    ]
    .map(|end| format!("{trace}{end}"));
    let child = "import subprocess, sys\nsys.exit(subprocess.run([sys.executable, '-c', 'import yaml']).returncode)";
    for (options, code, code_of_exit) in [
        (&["script.py"][..], "import strng", 1),
        (&["script.py"], "import numpyx", 1),
        (&["script.py"], "import os.paths", 1),
        (
            &["script.py"],
            "raise ImportError(\"No module named 'yaml'\")",
            1,
        ),
        (
            &["script.py"],
            "raise KeyError(\"No module named 'yaml'\")",
            1,
        ),
        (&["script.py"], caught.as_str(), 0),
        (&["script.py"], exits.as_str(), 1),
        (&["script.py"], child, 1),
        (&["--quiet", "script.py"], "import yaml", 1),
        (
            &["script.py"],
            "import atexit, os\natexit.register(os._exit, 3)\nimport yaml",
            3,
        ),
    ] {
        let said = stderr(options, code, code_of_exit);
        assert!(!said.contains("sandbox: "), "{options:?} {code}: {said}");
    }
    assert_eq!(stderr(&["--json", "script.py"], "import yaml", 1), "");
}
