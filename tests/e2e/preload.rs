//! Packages that a machine had imported before it was saved.

use crate::common::text;
use crate::packages::Place;
use serde_json::json;
use std::collections::BTreeSet;

/// A module that tells whether it was executed before a program could set `late`.
pub const EARLY: &str = "import json, sys\nearly = not hasattr(sys.modules['__main__'], 'late')\n";

pub fn place_with(name: &str, code: &str) -> Place {
    let place = Place::new();
    place.add_wheels(&json!([[name, "1.0", "", {format!("{name}.py"): code}]]));
    place.does(&["packages", "setup"]);
    place
}

#[track_caller]
pub fn prints(place: &Place, words: &[&str]) -> String {
    let output = place.sandbox(words);
    assert!(output.status.success(), "{output:?}");
    text(&output.stdout)
}

#[test]
fn a_package_was_imported_and_seems_not_to_have_been() {
    let place = place_with("early", EARLY);
    let code = "import sys
late = 1
before = [name in sys.modules for name in ('early', 'json', 'json.decoder')]
import early
after = [name in sys.modules for name in ('early', 'json', 'json.decoder')]
print(early.early, before, after)";
    for _ in 0..2 {
        let printed = prints(&place, &["run", "--with", "early", "-c", code]);
        assert_eq!(printed, "True [False, False, False] [True, True, True]\n");
    }
    let other = "late = 1\nimport json, early\nprint(early.early, json.dumps([1]))";
    let printed = prints(&place, &["run", "--with", "early", "-c", other]);
    assert_eq!(printed, "True [1]\n", "a second program, the same machine");
}

#[test]
fn a_module_of_the_program_comes_before_one_that_was_imported() {
    let place = place_with("early", EARLY);
    place.script("a.py", "late = 1\nimport early\nprint(early.early)");
    assert_eq!(
        prints(&place, &["run", "--with", "early", "a.py"]),
        "True\n"
    );
    place.script("early.py", "early = 'mine'");
    assert_eq!(
        prints(&place, &["run", "--with", "early", "a.py"]),
        "mine\n"
    );
    let code = "late = 1
open('early.py', 'w').write('early = \"made\"')
import early
print(early.early)";
    assert_eq!(
        prints(&place, &["run", "--with", "early", "-c", code]),
        "made\n"
    );
}

#[test]
fn what_a_package_seeded_by_chance_differs_between_clones() {
    let module = "import random, uuid, secrets, tempfile, ssl\nown = random.Random()\nfixed = random.Random(1)\n";
    let place = place_with("seeded", module);
    let code = "import seeded, random, uuid, secrets, tempfile, ssl
print(seeded.own.random(), random.random(), uuid.uuid4(), secrets.token_hex(), ssl.RAND_bytes(8).hex(), tempfile.mktemp(), sep='\\n')
assert seeded.fixed.random() == random.Random(1).random()";
    let mut drawn = BTreeSet::new();
    const CLONES: usize = 40;
    for _ in 0..CLONES {
        let printed = prints(&place, &["run", "--with", "seeded", "-c", code]);
        drawn.extend(printed.lines().map(str::to_owned));
    }
    assert_eq!(drawn.len(), 6 * CLONES);
}

#[test]
fn a_package_that_keeps_a_random_number_is_imported_by_each_program() {
    for module in [
        "import random\nkept = random.random()\n",
        "import random\nkept = random.Random().random()\n",
        "import os\nkept = os.urandom(8)\n",
        "import uuid\nkept = uuid.uuid4()\n",
        "import secrets\nkept = secrets.randbelow(2**64)\n",
    ] {
        let place = place_with("keeper", module);
        let code = "import keeper\nprint(keeper.kept)";
        let run = || prints(&place, &["run", "--with", "keeper", "-c", code]);
        assert_ne!(run(), run(), "{module}");
    }
}

#[test]
fn nothing_else_of_the_first_program_is_in_its_template() {
    let place = place_with("early", &format!("{EARLY}mark = 'mark-of-the-package'\n"));
    let secrets = (0..5000).map(|n| format!("x{n} = 'secret-of-the-first-{n}'\n"));
    let code = format!(
        "{}import early, json as secretly\n",
        secrets.collect::<String>()
    );
    place.script("first.py", &code);
    prints(&place, &["run", "--with", "early", "first.py"]);
    let printed = prints(
        &place,
        &[
            "run",
            "--with",
            "early",
            "-c",
            "late = 1\nimport early\nprint(early.early)",
        ],
    );
    assert_eq!(printed, "True\n", "it was imported ahead");
    assert!(place.has_in_templates("mark-of-the-package"));
    assert!(!place.has_in_templates("secret-of-the-first"));
}

#[test]
fn a_package_that_prints_when_it_is_imported_prints_in_each_program() {
    for code in [
        "print('imported')\n",
        "import os\nos.write(2, b'imported\\n')\n",
    ] {
        let place = place_with("loud", code);
        for _ in 0..2 {
            let output = place.sandbox(&["run", "--with", "loud", "-c", "import loud"]);
            let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
            let count = (stdout + &stderr).matches("imported\n").count();
            assert_eq!(count, 1, "{output:?}");
        }
    }
}

#[test]
fn a_package_that_ends_its_machine_when_it_is_imported_is_told() {
    let place = place_with("deadly", "import os\nos._exit(3)\n");
    let said = place.refuses(&["run", "--with", "deadly", "-c", "import deadly"]);
    assert!(said.contains("--no-preload"), "{said}");
    let words = [
        "run",
        "--no-preload",
        "--with",
        "deadly",
        "-c",
        "import deadly",
    ];
    let output = place.sandbox(&words);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
}

#[test]
fn a_package_that_fails_when_it_is_imported_fails_in_the_program() {
    let place = place_with("broken", "raise ValueError('as it is')\n");
    let output = place.sandbox(&["run", "--with", "broken", "-c", "import broken"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(text(&output.stderr).ends_with("ValueError: as it is\n"));
}

#[test]
fn what_the_library_drew_for_a_package_is_drawn_again_in_each_clone() {
    let code = format!(
        "{EARLY}import logging, multiprocessing, ssl\ncontext = ssl.create_default_context()\n"
    );
    let place = place_with("early", &code);
    let code = "late = 1
import early, logging, multiprocessing, ssl, time
assert abs(logging._startTime / 1e9 - time.time()) < 60
print(early.early, ssl.RAND_bytes(9), bytes(multiprocessing.current_process().authkey))";
    let printed: BTreeSet<_> = (0..4)
        .map(|_| prints(&place, &["run", "--with", "early", "-c", code]))
        .collect();
    assert!(
        printed.iter().skip(1).all(|line| line.starts_with("True ")),
        "{printed:?}"
    );
    for part in ["True b", " b"] {
        let rests = printed.iter().map(|line| line.split(part).nth(1));
        assert_eq!(rests.collect::<BTreeSet<_>>().len(), 4, "{printed:?}");
    }
}

#[test]
fn a_package_that_keeps_random_bytes_is_not_imported_ahead() {
    for draws in [
        "import ssl\ntoken = ssl.RAND_bytes(9)",
        "import ssl\nssl.create_default_context()\nfrom ssl import RAND_bytes\ntoken = RAND_bytes(9)",
        "import ctypes\ntoken = ctypes.create_string_buffer(9)\nctypes.CDLL(None).getentropy(token, 9)\ntoken = token.raw",
        "import ctypes\ntoken = ctypes.CDLL(None).arc4random()",
        "import secrets\ntoken = secrets.token_hex()",
        "import uuid\ntoken = uuid.uuid4()",
    ] {
        let place = place_with("early", &format!("{EARLY}{draws}\n"));
        let code = "late = 1\nimport early\nprint(early.early, early.token)";
        let [one, other] =
            [(); 2].map(|()| prints(&place, &["run", "--with", "early", "-c", code]));
        assert!(
            one.starts_with("False ") && one != other,
            "{draws}: {one}{other}"
        );
    }
}

#[test]
fn a_file_that_a_package_reads_when_it_is_imported_is_read() {
    let place = place_with("early", EARLY);
    place.script("matplotlibrc", "");
    let code = "late = 1\nimport early\nprint(early.early)";
    let words = ["run", "--with", "early", "-c", code];
    assert_eq!(prints(&place, &words), "True\n");
    let words = [
        "run",
        "--with",
        "early",
        "--put",
        "matplotlibrc",
        "-c",
        code,
    ];
    assert_eq!(prints(&place, &words), "False\n");
}

#[test]
fn whoever_builds_packages_may_say_what_is_imported_ahead() {
    let place = place_with("early", EARLY);
    let early = "late = 1\nimport early\nprint(early.early)";
    let run = |code: &str| {
        prints(
            &place,
            &["run", "--with", "early", "--with", "demo", "-c", code],
        )
    };
    assert_eq!(run("import demo\nprint(1)"), "1\n");
    assert_eq!(run(early), "False\n");
    let build = ["packages", "build", "--with", "early", "--with", "demo"];
    place.does(&[&build[..], &["--preload", "early,demo"]].concat());
    assert_eq!(run(early), "True\n");
    for modules in ["early;x", "", "a..b", "--x"] {
        place.refuses(&[&build[..], &[&format!("--preload={modules}")]].concat());
    }
}

/// A module in which what programs do first with numpy can be done, and is counted.
const USED: &str = "
class Anything:
    T = property(lambda self: self)
    def __call__(self, *arguments, **keywords): return self
    __getattr__ = __getitem__ = __matmul__ = __gt__ = lambda self, *arguments: self
    __str__ = lambda self: ''
used = 0
def arange(end):
    global used
    used += 1
    return Anything()
sort = sin = Anything()
";

#[test]
fn what_programs_do_first_with_a_package_was_done_once() {
    let place = place_with("numpy", USED);
    let code = "import numpy\nprint(numpy.used)";
    let words = ["run", "--with", "numpy", "-c", code];
    assert_eq!(prints(&place, &words), "1\n");
    let words = ["run", "--no-preload", "--with", "numpy", "-c", code];
    assert_eq!(prints(&place, &words), "0\n");
}

#[test]
fn a_package_whose_first_use_fails_was_imported_all_the_same() {
    let place = place_with("numpy", EARLY);
    let code = "late = 1\nimport numpy\nprint(numpy.early)";
    let words = ["run", "--with", "numpy", "-c", code];
    assert_eq!(prints(&place, &words), "True\n");
}

#[test]
fn what_a_package_is_made_of_counts_no_references() {
    let place = place_with("early", &format!("{EARLY}def function(): pass\n"));
    let code = "import early, sys
parts = early, early.function, early.function.__code__, early.__name__
print([sys.getrefcount(part) > 1 << 30 for part in (*parts, [], early.__spec__)])";
    let words = ["run", "--with", "early", "-c", code];
    let immortal = "[True, True, True, True, False, False]\n";
    assert_eq!(prints(&place, &words), immortal);
}

#[test]
fn what_a_program_hangs_on_an_imported_package_is_finalized() {
    let place = place_with("early", EARLY);
    let code = "import early
class Thing:
    def __del__(self): print('gone')
early.thing = Thing()
print('end')";
    let words = ["run", "--with", "early", "-c", code];
    assert_eq!(prints(&place, &words), "end\ngone\n");
}

#[test]
fn a_package_that_was_imported_ahead_can_be_asked_for() {
    let place = place_with("early", EARLY);
    let code = "late = 1
from importlib import import_module, util
def wish():
    import early
spec = util.find_spec('early')
print(spec.origin, spec.has_location, import_module('early').early)";
    let words = ["run", "--with", "early", "-c", code];
    let site = "/usr/local/lib/python3.13/dist-packages";
    assert_eq!(
        prints(&place, &words),
        format!("{site}/early.py True True\n")
    );
}
