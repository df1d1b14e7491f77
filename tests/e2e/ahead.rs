//! What programs do with modules of the library that a saved interpreter may have imported: they agree with `python3`
//! on it, as in `warm`.

use crate::warm::agree;
use std::ffi::OsStr;

/// Checks that a script does in a guest what it does outside.
fn agrees(script: &str) {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("script.py"), script).unwrap();
    agree(&directory, &[OsStr::new("script.py")]);
}

#[test]
fn a_module_that_the_program_has_replaced() {
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
fn a_module_that_is_found_before_the_librarys_later_on() {
    agrees(
        r#"
import os, sys
os.mkdir('lib'); open('lib/bisect.py', 'w').write('MINE = 1\ndef bisect(*_): pass\ninsort = insort_left = insort_right = bisect_left = bisect_right = bisect')
sys.path.insert(0, 'lib')
import random, bisect
print(bisect.MINE, random.bisect is bisect)
open('heapq.py', 'w').write('MINE = 2\nfrom _heapq import *\nfrom _heapq import heapify, heappop, heappush, heapreplace\nnlargest = merge = heapify')
import asyncio, heapq
print(heapq.MINE)
"#,
    );
}

#[test]
fn what_is_asked_of_the_loaders_of_modules() {
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
fn modules_that_are_loaded_when_they_are_used() {
    agrees(
        r#"
import importlib.util, sys
for name in 'random', 'logging', 'json', 'statistics':
    spec = importlib.util.find_spec(name)
    spec.loader = importlib.util.LazyLoader(spec.loader)
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    print(type(module).__name__, sorted(vars(module))[-3:] and len(dir(module)), type(module).__name__)
"#,
    );
}

#[test]
fn files_that_hang_on_modules_of_the_library_are_written() {
    agrees(
        r#"
import logging
class Handler(logging.Handler):
    file = None
    def emit(self, record): self.file.write(record.getMessage())
handler = Handler(); handler.file = open('/dev/stdout', 'w')
logging.root.addHandler(handler); logging.warning('by a handler')
"#,
    );
}
