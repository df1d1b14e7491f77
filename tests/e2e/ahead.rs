//! Modules of the library that a machine had imported before it was saved, since a package imports them: programs do
//! with them what they do where nothing was.

use crate::common::{exit_code, finish, sandbox, text};
use crate::files::Here;
use crate::packages::Place;
use crate::preload::{EARLY, place_with, prints};
use crate::warm::{agree, made};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::ffi::OsStr;

/// What the package imports.
const IMPORTS: &str = "import ast, asyncio, base64, bisect, decimal, heapq, inspect, json, logging, queue, random\n\
    import statistics, tempfile, textwrap, threading, timeit\n";

/// The last line of each program, without which it would not get that machine.
const LAST: &str = "\nimport early\n";

/// Makes a place with such a package, and with a machine that has imported it.
fn place() -> Place {
    let place = place_with("early", &format!("{EARLY}{IMPORTS}"));
    let code = "late = 1\nimport early\nprint(early.early)";
    let words = ["run", "--with", "early", "-c", code];
    assert_eq!(prints(&place, &words), "True\n");
    place
}

/// Runs a program with the package, and with these options; returns how it ended and what it printed.
fn run(place: &Place, options: &[&str], program: &[&str]) -> (i32, String, String) {
    let words = [&["run", "--quiet", "--with", "early"], options, program].concat();
    let output = place.sandbox(&words);
    let mut printed = text(&output.stdout);
    if program.contains(&"--json") {
        let record: Value = serde_json::from_str(&printed).unwrap();
        printed = format!("{}{}", record["stdout"], record["stderr"]);
    }
    (exit_code(output.status), printed, text(&output.stderr))
}

/// Checks that a program does the same where nothing was imported, as a script and as a cell.
fn agrees(program: &str) {
    let place = place();
    let program = format!("{program}{LAST}");
    place.script("script.py", &program);
    for words in [&["script.py"][..], &["--json", "-c", &program]] {
        let expected = run(&place, &["--no-preload"], words);
        assert_eq!(expected.0, 0, "{}", expected.2);
        assert_eq!(run(&place, &[], words), expected);
    }
}

#[test]
fn threads_that_import_what_draws_have_numbers_of_their_own() {
    const CLONES: usize = 30;
    let code = "
import threading
def draw():
    import random
    drawn.append(random.random())
drawn = []
threads = [threading.Thread(target=draw) for _ in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(*drawn)"
        .to_owned()
        + LAST;
    let place = place();
    let mut drawn = BTreeSet::new();
    for _ in 0..CLONES {
        let (status, printed, error) = run(&place, &[], &["-c", &code]);
        assert_eq!(status, 0, "{error}");
        drawn.extend(printed.split_whitespace().map(str::to_owned));
    }
    assert_eq!(drawn.len(), 4 * CLONES);
}

#[test]
fn a_module_that_the_program_has_replaced_stays() {
    agrees(
        r#"
import sys, types
mine = sys.modules['random'] = types.ModuleType('random')
mine.Random = mine.random = dict
import random, tempfile
print(random is mine, tempfile._Random is dict)
sys.modules['_decimal'] = sys.modules['_json'] = None
import decimal, json
print(decimal.Decimal.__module__, json.decoder.scanstring.__module__, json.scanner.c_make_scanner)
"#,
    );
}

#[test]
fn a_module_that_is_found_first_later_on_is_taken() {
    agrees(
        r#"
import importlib, os, sys
os.mkdir('lib'); open('lib/bisect.py', 'w').write('MINE = 1\ndef bisect(*_): pass\ninsort = insort_left = insort_right = bisect_left = bisect_right = bisect')
sys.path.insert(0, 'lib')
import random, bisect
print(bisect.MINE, random._bisect is bisect.bisect)
open('heapq.py', 'w').write('MINE = 2\nfrom _heapq import *\nfrom _heapq import heapify, heappop, heappush, heapreplace\nnlargest = merge = heapify')
importlib.invalidate_caches()
import asyncio, heapq
print(heapq.MINE)
"#,
    );
}

#[test]
fn loaders_answer_as_those_of_a_fresh_import() {
    agrees(
        r#"
import importlib.util, pkgutil, runpy, sys
find = importlib.util.find_spec
print([find(name).loader.is_package(name) for name in ('json', 'random')], find('random').cached)
print(len(find('textwrap').loader.get_source('textwrap')), pkgutil.get_data('json', '__init__.py')[:20])
print(sorted(runpy.run_module('bisect'))[:9], 'bisect' in sys.modules)
import pyclbr
print(sorted(pyclbr.readmodule_ex('queue')))
"#,
    );
}

#[test]
fn lazy_loaders_load_them() {
    agrees(
        r#"
import importlib.util, sys
for name in 'random', 'logging', 'json', 'statistics':
    spec = importlib.util.find_spec(name)
    spec.loader = importlib.util.LazyLoader(spec.loader)
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    print(type(module).__name__, len(dir(module)), type(module).__name__)
"#,
    );
}

#[test]
fn files_that_hang_on_modules_are_written_at_the_end() {
    // Whoever had imported the module.
    let directory = tempfile::tempdir().unwrap();
    let script = "import logging
class Handler(logging.Handler):
    file = None
    def emit(self, record): self.file.write(record.getMessage())
handler = Handler(); handler.file = open('/dev/stdout', 'w')
logging.root.addHandler(handler); logging.warning('by a handler')";
    std::fs::write(directory.path().join("script.py"), script).unwrap();
    agree(&directory, &[OsStr::new("script.py")]);
    agrees(script);
}

/// Beside a file that is named as a module of the library, which is imported ahead, the program imports all itself.
#[test]
fn a_file_named_as_a_module_of_the_library_is_imported() {
    let make = "open('shelve.py', 'w').write('x = 1'); open('script.py', 'w').write('''
import shelve
import asyncio, concurrent.futures, ctypes, datetime, decimal, json, logging, multiprocessing, random, re, sqlite3, ssl, tempfile
import threading, unittest, urllib.request, xml.etree.ElementTree, zoneinfo
print(shelve.x, decimal.Decimal(1) / 3, json.dumps({}), re.sub('a', 'b', 'a'), datetime.date(2026, 1, 2), random.Random(1).random())
print(sqlite3.connect(':memory:').execute('select 1').fetchall(), ctypes.sizeof(ctypes.c_long), ssl.create_default_context().verify_mode)
threading.Thread(target=print, args=['a thread']).start()
async def nap(): await asyncio.sleep(0); return asyncio.current_task() is not None
print(asyncio.run(nap()), list(concurrent.futures.ThreadPoolExecutor(2).map(abs, [-1, 2])))
with multiprocessing.get_context('fork').Pool(2) as pool: print(pool.map(abs, [-1, 2]))
logging.warning('told')
''')";
    agree(&made(make), &[OsStr::new("script.py")]);
}

/// A file with the name of a module that is imported ahead is data, or is imported itself, in the same interpreter.
#[test]
fn files_named_as_modules_take_nothing_from_a_record() {
    let here = Here::new();
    here.write("email.txt", b"data");
    here.write("shelve.py", b"x = 5");
    for (file, code, result) in [
        (
            "email.txt",
            "import email; open('email.txt').read()",
            "'data'",
        ),
        ("shelve.py", "import json, shelve; shelve.x", "5"),
    ] {
        let mut command = sandbox(&["run", "--json", "--put", file, "-c", code]);
        let output = finish(command.current_dir(here.0.path()), b"");
        let record: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(record["result"], json!({"text/plain": result}), "{record}");
    }
}
