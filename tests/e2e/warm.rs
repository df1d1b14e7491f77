//! An interpreter that waited in a template runs its job as a fresh one would. Kinds of scripts,
//! arguments and variables are compared with Debian's python3, and all that a program can ask of
//! its interpreter with a machine that is booted for it. docs/clones.md lists the differences.

use crate::common::{PYTHON, exit_code, finish, sandbox, text};
use crate::equivalence::compare;
use crate::reference::reference;
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::process::Command;
use tempfile::TempDir;

/// Returns a restored run without messages: another process may be building the template.
fn warm() -> Command {
    let mut command = sandbox(&["run", "--quiet"]);
    command.env_remove("SANDBOX_FRESH");
    command
}

/// Prints all that a script can know of where it is and how it was started, and then fails.
const WHO: &str = r#"
import os, sys
known = {key: value for key, value in sys.path_importer_cache.items() if not key.startswith("/usr")}
print(ascii((sys.argv, sys.orig_argv[1:], __name__, globals().get('__file__'), globals().get('__cached__'))))
print(ascii((sys.path, known, type(__loader__), __spec__ and __spec__.origin, __package__, __doc__)))
print(os.path.exists(sys.argv[0]), sorted(vars()), 'ü€')
def fail(): raise ValueError('ü')
fail()
"#;

/// Makes a directory by Python code, in which `who` is the script above.
pub fn made(code: &str) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    let code = format!("import io, os, zipfile\nwho = {WHO:?}\n{code}");
    let mut python = Command::new(PYTHON);
    let output = finish(python.args(["-c", &code]).current_dir(&directory), b"");
    assert!(output.status.success(), "{}", text(&output.stderr));
    directory
}

/// Runs both interpreters on these words in that directory, and compares them.
pub fn agree(directory: &TempDir, words: &[&OsStr]) {
    agree_with(directory, warm().args(words), reference().args(words));
}

/// Runs both commands in that directory, and compares them.
fn agree_with(directory: &TempDir, sandbox: &mut Command, python: &mut Command) {
    let actual = finish(sandbox.current_dir(directory), b"");
    let mut expected = finish(python.current_dir(directory), b"");
    let path = directory.path().to_str().unwrap();
    for stream in [&mut expected.stdout, &mut expected.stderr] {
        *stream = text(stream).replace(path, "/work").into();
    }
    compare(&actual, &expected, path);
}

/// Makes a test of each line: its name, the script's name, and Python code that makes it.
macro_rules! scripts {
    ($($name:ident: $script:literal made by $code:expr;)*) => {$(
        #[test]
        fn $name() {
            agree(&made($code), &[$script, "argument"].map(OsStr::new));
        }
    )*};
}

scripts! {
    a_script_in_a_subdirectory: "a/b/script.py" made by "os.makedirs('a/b'); open('a/b/script.py', 'w').write(who)";
    a_script_beside_another_named_first: "./script.py" made by "open('script.py', 'w').write(who)";
    a_script_below_here: "./a/script.py" made by "os.mkdir('a'); open('a/script.py', 'w').write(who)";
    a_path_with_needless_parts: "a/.//script.py" made by "os.mkdir('a'); open('a/script.py', 'w').write(who)";
    a_name_without_an_ending: "script" made by "open('script', 'w').write(who)";
    a_name_that_is_all_ending: ".py" made by "open('.py', 'w').write(who)";
    a_name_like_a_module: "json.py" made by "open('json.py', 'w').write('import json\\n' + who)";
    a_script_with_a_byte_order_mark: "script.py" made by "open('script.py', 'w', encoding='utf-8-sig').write(who)";
    nothing_but_a_byte_order_mark: "script.py" made by "open('script.py', 'wb').write(b'\\xef\\xbb\\xbf')";
    a_script_in_latin_1: "script.py" made by
        "open('script.py', 'wb').write(b'# coding: latin-1\\n' + who.replace('€', '').encode('latin-1'))";
    a_cookie_in_the_second_line: "script.py" made by
        "open('script.py', 'wb').write(b'#!/usr/bin/python3\\n# vim: fileencoding=iso8859-15\\n' + who.encode('iso8859-15'))";
    an_encoding_that_there_is_not: "script.py" made by "open('script.py', 'w').write('# coding: nonsense\\n' + who)";
    bytes_that_are_not_utf_8: "script.py" made by "open('script.py', 'wb').write(b'print(1)\\n# \\xff\\n')";
    a_script_in_utf_16: "script.py" made by "open('script.py', 'wb').write(who.encode('utf-16'))";
    an_empty_script: "script.py" made by "open('script.py', 'w')";
    a_script_without_a_final_newline: "script.py" made by "open('script.py', 'w').write('print(1)')";
    a_nul_byte_in_a_string: "script.py" made by "open('script.py', 'wb').write(b'print(1)\\nprint(\"a\\0b\")\\n')";
    a_nul_byte_in_a_comment: "script.py" made by "open('script.py', 'wb').write(b'print(1)\\n# a\\0b\\nprint(2)\\n')";
    lines_that_end_as_on_windows: "script.py" made by "open('script.py', 'w', newline='\\r\\n').write(who)";
    lines_that_end_as_on_an_old_mac: "script.py" made by "open('script.py', 'wb').write(b'print(1)\\rprint(2)\\r')";
    five_mebibytes_of_script: "script.py" made by
        "open('script.py', 'w').write(''.join(f'x{n} = \"{n:090}\"\\n' for n in range(50_000)) + 'print(x49999)\\n1 / 0\\n')";
    a_zip_archive: "app.pyz" made by "
with zipfile.ZipFile('app.pyz', 'w') as archive:
    archive.writestr('__main__.py', 'import json, helper\\nprint(helper.__file__, helper.__spec__.origin, json.x)\\n' + who)
    archive.writestr('helper.py', '')
    archive.writestr('json.py', 'x = 1')
";
    a_zip_archive_behind_a_line_of_its_own: "app" made by "
with open('app', 'wb') as file:
    file.write(b'#!/usr/bin/python3\\n')
    with zipfile.ZipFile(file, 'w') as archive: archive.writestr('__main__.py', who)
";
    a_zip_archive_without_a_main_module: "app.pyz" made by
        "with zipfile.ZipFile('app.pyz', 'w') as archive: archive.writestr('helper.py', '')";
    a_zip_archive_that_is_interrupted: "app.pyz" made by
        "with zipfile.ZipFile('app.pyz', 'w') as archive: archive.writestr('__main__.py', 'raise KeyboardInterrupt')";
    a_zip_archive_that_exits: "app.pyz" made by
        "with zipfile.ZipFile('app.pyz', 'w') as archive: archive.writestr('__main__.py', 'raise SystemExit(7)')";
    compiled_code: "script.pyc" made by "
import py_compile
open('script.py', 'w').write(who)
py_compile.compile('script.py', 'script.pyc')
os.remove('script.py')
";
    compiled_code_of_another_version: "script.pyc" made by "open('script.pyc', 'wb').write(b'\\0' * 100)";
    an_interrupt: "script.py" made by "open('script.py', 'w').write('raise KeyboardInterrupt')";
    the_depth_of_recursion: "script.py" made by "open('script.py', 'w').write('''
def deeper(depth):
    try: return deeper(depth + 1)
    except RecursionError: return depth
print(deeper(0))
''')";
    compiled_code_under_the_name_of_a_script: "script.py" made by "
import py_compile
open('module.py', 'w').write(who)
py_compile.compile('module.py', 'script.py')
os.remove('module.py')
";
    what_is_left_at_the_end_is_finalized_in_order: "script.py" made by "open('script.py', 'w').write('''
import atexit, builtins, os, threading, weakref
class Thing:
    def __init__(self, name): self.name = name
    def __del__(self): print('gone:', self.name)
atexit.register(print, 'first registered'); atexit.register(print, 'last registered')
plain = Thing('plain')
cycle = Thing('cycle'); cycle.itself = cycle
kept = Thing('kept by builtins'); builtins.kept = kept; del kept
local = threading.local(); local.thing = Thing('kept by a thread')
class Holder: thing = Thing('kept by a class')
def function(default=Thing('kept by a function')): pass
function.itself = function
def generate():
    try: yield Thing('kept by a generator')
    finally: print('the generator ends')
generator = generate(); thing = next(generator); del thing
weakref.finalize(plain, print, 'finalizer')
threading.Thread(target=lambda: print('a thread that ends last', flush=True)).start()
def fail(thing): raise ValueError
fail(Thing('kept by a traceback'))
''')";
    what_files_hold_back_is_written_at_the_end: "script.py" made by "open('script.py', 'w').write('''
import ctypes, io, os, sys
class Holder: pass
holder = Holder(); holder.itself = holder
holder.file = open('/dev/stdout', 'w'); holder.file.write('by a file in a cycle\\\\n')
other = os.fdopen(os.dup(1), 'w'); print('by a duplicate', file=other)
third = io.TextIOWrapper(io.BufferedWriter(io.FileIO(1, 'w', closefd=False))); third.write('by layers of my own\\\\n')
ctypes.CDLL(None).printf(b'by the C library')
sys.stdout.write('by standard output')
''')";
    who_refers_to_an_object: "script.py" made by
        "open('script.py', 'w').write('import gc\\nx = []\\nprint([referrer is globals() for referrer in gc.get_referrers(x)])')";
    standard_output_that_the_program_closed: "script.py" made by
        "open('script.py', 'w').write('import os; os.close(1); print(1)')";
    modules_made_by_the_program: "script.py" made by "open('script.py', 'w').write('''
import os, subprocess, sys
try: import helper
except ImportError as error: print(error)
open('helper.py', 'w').write('x = 1')
subprocess.run(['sh', '-c', 'echo x = 2 > json.py'])
os.mkdir('d'); open('d/csv.py', 'w').write('x = 3'); os.rename('d/csv.py', 'csv.py')
sys.path.append('d'); open('d/last.py', 'w').write('x = 4')
import helper, json, csv, last
print(helper.x, json.x, csv.x, last.x, helper.__file__, last.__file__)
''')";
    a_search_path_without_anything: "script.py" made by
        "open('script.py', 'w').write('import sys; sys.path.clear(); import json')";
}

#[test]
fn scripts_with_odd_names() {
    let names = "
names = ['two words.py', 'wéird 🦀.py', 'new\\nline.py', 'per%s%n.py', 'quo\\'te\".py', '*.py', '...', 'a.b.c.py', '-v.py', b'\\xff.py']
for name in names: open(name, 'w').write(who)
";
    let directory = made(names);
    let mut names: Vec<_> = std::fs::read_dir(directory.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(names.len(), 10);
    // Where it would be an option of python3's.
    names.retain(|name| name != "-v.py");
    names.push("./-v.py".into());
    for name in names {
        agree(&directory, &[&name]);
    }
}

#[test]
fn what_hangs_on_modules_that_were_there_before_is_finalized_too() {
    let code = "
import os, json
class Thing:
    def __del__(self): print('gone')
os.thing = Thing(); json.thing = Thing()
os.log = open('/dev/stdout', 'w'); os.log.write('last words')
";
    let lines = |mut command: Command| {
        let output = text(&finish(command.args(["-c", code]), b"").stdout);
        let mut lines: Vec<_> = output.lines().map(String::from).collect();
        lines.sort();
        lines
    };
    assert_eq!(lines(warm()), lines(reference()));
}

/// Each of these is the first to look for a file in its machine, which makes files only then.
#[test]
fn a_script_is_there_whoever_looks_first() {
    for look in [
        "import os; print(os.listdir('.'))",
        "import os; print([(entry.name, entry.is_file()) for entry in os.scandir(os.getcwd())])",
        "print(open(__file__).read())",
        "import os; print(os.stat(__file__).st_size, oct(os.stat('script.py').st_mode))",
        "import os; print(os.access('script.py', os.R_OK), os.path.exists('nothing'))",
        "import os; os.chdir('/'); print(open(__file__).read())",
        "import subprocess; print(subprocess.run(['cat', 'script.py'], capture_output=True))",
        "import os; os.execv('/bin/cat', ['cat', 'script.py'])",
        "import os; fd = os.open('.', os.O_DIRECTORY); print(os.listdir(fd), os.stat('script.py', dir_fd=fd).st_size)",
        "open('script.py', 'a').write('# more'); print(open('script.py').read())",
        "import os; os.rename('script.py', 'x'); print(os.listdir('.'))",
        "import os; os.remove(__file__); print(os.listdir('.')); 1 / 0",
        "import inspect, sys; print(inspect.getsource(sys.modules[__name__]))",
        "import script; print(script.__file__ == __file__) if __name__ == '__main__' else print(__name__)",
    ] {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("script.py"), look).unwrap();
        agree(&directory, &["script.py".as_ref()]);
    }
}

#[test]
fn arguments_and_variables_of_a_hundred_kilobytes_arrive() {
    const ARGUMENT: usize = 8200;
    const ARGUMENTS: usize = 12;
    const VARIABLE: usize = 100_000;
    let code = "
import hashlib, os, subprocess, sys
print([len(word) for word in sys.argv], hashlib.sha256(repr(sys.argv).encode()).hexdigest())
print(len(os.environ['LARGE']), set(os.environ['LARGE']), subprocess.check_output('echo ${#LARGE}', shell=True))
";
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("script.py"), code).unwrap();
    let value = "v".repeat(VARIABLE);
    let (mut sandbox, mut python) = (warm(), reference());
    sandbox.args(["-e", &format!("LARGE={value}")]);
    python.env("LARGE", value);
    for command in [&mut sandbox, &mut python] {
        command
            .arg("script.py")
            .args((0..ARGUMENTS).map(|number| format!("{number:0ARGUMENT$}")));
    }
    agree_with(&directory, &mut sandbox, &mut python);
}

#[test]
fn variables_reach_the_program_the_c_library_and_its_children() {
    let code = r#"
import ctypes, os, subprocess
libc = ctypes.CDLL(None); libc.getenv.restype = ctypes.c_char_p
children = subprocess.check_output(['env', '-0']).split(b'\0')
for name in [b'PLAIN', b'EMPTY', b'EQUALS', b'UMLAUT', b'BYTES', b'LINES', b'USER', b'LD_PRELOAD', b'NOWHERE']:
    child = [variable for variable in children if variable.startswith(name + b'=')]
    print(name, ascii(os.environ.get(os.fsdecode(name))), os.environb.get(name), libc.getenv(name), child)
"#;
    let variables = [
        ("PLAIN", b"1".as_slice()),
        ("EMPTY", b""),
        ("EQUALS", b"a=b=c"),
        ("UMLAUT", "ü".as_bytes()),
        ("BYTES", b"\xff\xfe"),
        ("LINES", b"one\ntwo"),
        ("USER", b"somebody"),
    ];
    let (mut sandbox, mut python) = (warm(), reference());
    for (name, value) in variables {
        let mut word = OsString::from(format!("{name}="));
        word.push(OsStr::from_bytes(value));
        sandbox.arg("-e").arg(word);
        python.env(name, OsStr::from_bytes(value));
    }
    let code = ["-c", code];
    let directory = tempfile::tempdir().unwrap();
    agree_with(&directory, sandbox.args(code), python.args(code));
}

/// Prints all that a program can ask of its interpreter: a line for each, with its name and its
/// value. Values that change by asking are asked first.
const STATE: &str = r#"
import sys
state = {'modules': list(sys.modules), 'sys.path_importer_cache': dict(sys.path_importer_cache)}
state['__main__'] = {name: value for name, value in globals().items() if name != 'state'}
import atexit, builtins, contextvars, decimal, faulthandler, fcntl, gc, inspect, locale, os, resource, signal, threading
import time, traceback, tracemalloc, warnings
def link(path):
    try: return os.readlink(path)
    except OSError as error: return str(error)
def text(path): return open(path, encoding='latin-1').read()
def facts(stream):
    buffer = stream.buffer
    return [stream, stream.encoding, stream.errors, stream.line_buffering, stream.write_through, stream.newlines, buffer,
        buffer.mode, buffer.name, buffer.raw, buffer.raw.mode, buffer.raw.closefd, stream.isatty(), sorted(vars(stream))]
status = dict(line.split(':\t') for line in text('/proc/self/status').splitlines())
sys.audit('cpython.run_command', 'nothing waits for it any more')
state.update({
    **{'sys.' + name: sorted(value) if isinstance(value, frozenset) else value for name, value in vars(sys).items()
        if name not in ('modules', 'path_importer_cache')},
    'sys functions': [sys.getswitchinterval(), sys.getrecursionlimit(), sys.getdlopenflags(), sys.gettrace(), sys.getprofile(),
        sys.get_asyncgen_hooks(), sys.get_int_max_str_digits(), sys.get_coroutine_origin_tracking_depth()],
    'sys hooks': [sys.excepthook is sys.__excepthook__, sys.displayhook is sys.__displayhook__,
        sys.unraisablehook is sys.__unraisablehook__, sys.breakpointhook is sys.__breakpointhook__],
    'sys.std*': [facts(stream) for stream in (sys.stdin, sys.stdout, sys.stderr, sys.__stdin__, sys.__stdout__, sys.__stderr__)],
    'builtins': vars(builtins),
    'frames': [sys._getframe().f_back, len(traceback.extract_stack()), len(inspect.stack()), inspect.stack()[0].filename],
    'signals': {number: signal.getsignal(number) for number in sorted(signal.valid_signals()) if number != signal.SIGRTMAX},
    'SIGRTMAX': signal.getsignal(signal.SIGRTMAX),
    'signals of the process': [int(status[name], 16) & ~(1 << 63) for name in ('SigBlk', 'SigIgn', 'SigCgt', 'SigPnd', 'ShdPnd')],
    'signal mask': signal.pthread_sigmask(signal.SIG_BLOCK, []), 'wakeup': signal.set_wakeup_fd(-1),
    'timers': [signal.getitimer(number) for number in range(3)],
    'descriptors': {name: link('/proc/self/fd/' + name).split(':')[0] for name in sorted(os.listdir('/proc/self/fd'))},
    'flags of descriptors': [(fcntl.fcntl(fd, fcntl.F_GETFL), fcntl.fcntl(fd, fcntl.F_GETFD), os.fstat(fd).st_mode) for fd in range(3)],
    'threads': [(thread.name, thread.daemon, type(thread)) for thread in threading.enumerate()] + os.listdir('/proc/self/task')[1:],
    'gc': [gc.get_threshold(), gc.isenabled(), gc.get_debug(), gc.garbage, gc.callbacks],
    'gc, frozen': gc.get_freeze_count() > 0, 'atexit': atexit._ncallbacks(), 'small': int(status['VmSize'].split()[0]) < 32 << 10,
    'warnings': [warnings.filters, warnings.defaultaction, warnings._onceregistry],
    'debugging': [faulthandler.is_enabled(), tracemalloc.is_tracing()],
    'contexts': [decimal.getcontext(), len(contextvars.copy_context())],
    'locale': [locale.setlocale(locale.LC_ALL), locale.getpreferredencoding(), locale.getencoding(), locale.getlocale()],
    'time zone': [time.tzname, time.timezone, time.daylight],
    'environment': list(os.environ.items()), 'directory': os.getcwd(), 'umask': os.umask(0o22), 'terminal': os.isatty(0),
    'identity': [os.getppid(), os.getpgid(0) == os.getsid(0) == os.getpid(), os.getresuid(), os.getresgid(), os.getgroups()],
    'scheduling': [os.getpriority(0, 0), os.sched_getscheduler(0), os.sched_getaffinity(0)],
    'limits': {name: resource.getrlimit(getattr(resource, name)) for name in dir(resource) if name.startswith('RLIMIT_')},
    'capabilities': {name: value for name, value in status.items() if name.startswith(('Cap', 'NoNewPrivs', 'Seccomp'))},
    **{'/proc/self/' + name: text('/proc/self/' + name) for name in
        'comm cgroup oom_score_adj mounts timerslack_ns personality environ cmdline'.split()},
    'extra mappings': sorted({line.split()[-1] for line in open('/proc/self/maps') if '/sandbox/' in line}),
    'executable': link('/proc/self/exe'), 'files': [sorted(os.listdir(path)) for path in ('/', '/work', '/tmp', '/dev/shm', '/run')],
})
import re
for name, value in state.items(): print(name, re.sub('0x[0-9a-f]{6,}|\n', '', ascii(value)), sep='\t')
"#;

/// Prints the modules of the library as they are after their import.
const MODULES: &str = r#"
import importlib.util, re, sys
import json.decoder, ctypes, sqlite3, decimal, asyncio, unittest, xml.dom, multiprocessing.pool, ssl, uuid, inspect, pkgutil
def show(name, *values): print(name, re.sub('0x[0-9a-f]{6,}', '', ascii(values)), sep='\t')
for name, module in list(sys.modules.items()):
    spec = getattr(module, '__spec__', None)
    if spec: show(name, module, module.__loader__, vars(spec), spec.cached, spec.parent, getattr(module, '__file__', None))
    show('names in ' + name, sorted(vars(module)))
show('order', list(sys.modules))
show('found', [importlib.util.find_spec(name) for name in ('tomllib', 'xml.sax', '_curses', 'nothing', 'sys')])
show('source', inspect.getsource(json.decoder), json.__loader__.get_code('json'), json.dumps.__code__.co_filename)
show('all', sorted(module.name for module in pkgutil.iter_modules()))
for name in 'nothing', 'json.nothing', 'os.path.nothing', 'json.decoder.nothing', '':
    try: importlib.import_module(name)
    except (ImportError, ValueError) as error: show('no ' + name, type(error), error)
show('sys.path_importer_cache', sorted(sys.path_importer_cache))
"#;

// What docs/clones.md says a program finds different.
const STATE_DIFFERENT: [&str; 5] = [
    "SIGRTMAX",
    "atexit",
    "extra mappings",
    "gc, frozen",
    "small",
];
const MODULES_DIFFERENT: [&str; 1] = ["sys.path_importer_cache"];

#[derive(Clone, Copy)]
enum Source {
    Script,
    Code,
    Stdin,
}

/// Returns what such a program prints.
fn facts(mut command: Command, given: Source, code: &str) -> BTreeMap<String, String> {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("script.py"), code).unwrap();
    let (words, stdin) = match given {
        Source::Script => (vec!["script.py", "argument"], ""),
        Source::Code => (vec!["-c", code, "argument"], ""),
        Source::Stdin => (vec!["-", "argument"], code),
    };
    let output = finish(
        command.args(words).current_dir(&directory),
        stdin.as_bytes(),
    );
    assert_eq!(exit_code(output.status), 0, "{}", text(&output.stderr));
    text(&output.stdout)
        .lines()
        .map(|line| line.split_once('\t').expect("a name and a value"))
        .map(|(name, value)| (name.into(), value.into()))
        .collect()
}

/// Checks that exactly the given names differ between a restored machine and a booted one.
fn assert_like_fresh(given: Source, code: &str, different: &[&str]) {
    let actual = facts(warm(), given, code);
    let mut expected = facts(sandbox(&["run", "--fresh"]), given, code);
    assert!(actual.keys().eq(expected.keys()));
    expected.retain(|name, value| actual[name] != *value);
    let unknown: Vec<_> = expected
        .iter()
        .filter(|(name, _)| !different.contains(&name.as_str()))
        .map(|(name, value)| format!("{name}\n    warm: {}\n   fresh: {value}", actual[name]))
        .collect();
    assert!(unknown.is_empty(), "{}", unknown.join("\n"));
    assert_eq!(expected.len(), different.len(), "{:?}", expected.keys());
}

#[test]
fn the_interpreter_of_a_script_is_in_the_state_of_a_fresh_one() {
    assert_like_fresh(Source::Script, STATE, &STATE_DIFFERENT);
}

#[test]
fn the_interpreter_of_code_is_in_the_state_of_a_fresh_one() {
    assert_like_fresh(Source::Code, STATE, &STATE_DIFFERENT);
}

#[test]
fn the_interpreter_of_standard_input_is_in_the_state_of_a_fresh_one() {
    assert_like_fresh(Source::Stdin, STATE, &STATE_DIFFERENT);
}

#[test]
fn modules_of_the_library_are_as_a_fresh_interpreter_imports_them() {
    assert_like_fresh(Source::Script, MODULES, &MODULES_DIFFERENT);
}
