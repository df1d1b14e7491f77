//! Code as a cell of a notebook: what models write, what such a cell gives, and its tracebacks.

use crate::common::{finish, sandbox, text};
use crate::interpreter::{code, plain, record};
use crate::reference::reference;
use serde_json::{Value, json};

/// Checks that the cell succeeds and that its value has this `repr()`.
fn gives(cell: &str, plain: &str) {
    let record = code(cell);
    assert_eq!(record["exit_code"], 0, "{cell}: {record}");
    assert_eq!(record["result"], json!({"text/plain": plain}), "{cell}");
}

/// Returns the message of the exception that ends the cell.
fn error_of(cell: &str) -> String {
    let record = code(cell);
    record["exception"]["message"].as_str().unwrap().to_string()
}

#[test]
fn a_semicolon_at_the_end_hides_the_result() {
    for cell in ["1;", "1 ; # why", "(1)\t;", "'''a\nb''';\n\n", "'ü';"] {
        let record = code(cell);
        assert_eq!(record["result"], Value::Null, "{cell}");
        assert_eq!(record["exit_code"], 0, "{cell}");
    }
    for (cell, value) in [("1 # ;", "1"), ("'a;'", "'a;'"), ("x = 1; x", "1")] {
        gives(cell, value);
    }
}

#[test]
fn a_cell_may_await() {
    for (cell, value) in [
        ("import asyncio\nawait asyncio.sleep(0, 5)", "5"),
        (
            "import asyncio\ntask = asyncio.create_task(asyncio.sleep(0.01, 7))\nx = 1\nawait task",
            "7",
        ),
        (
            "async def count():\n    for n in range(3): yield n\nasync for n in count(): pass\n[n async for n in count()]",
            "[0, 1, 2]",
        ),
        (
            "import asyncio\nasync with asyncio.timeout(9): pass\nasyncio.get_running_loop().is_running()",
            "True",
        ),
        ("import asyncio\nasyncio.run(asyncio.sleep(0, 3))", "3"),
    ] {
        gives(cell, value);
    }
    assert_eq!(
        code("import asyncio\nawait asyncio.sleep(0)\nraise SystemExit(4)")["exit_code"],
        4
    );
}

#[test]
fn an_exception_of_a_cell_that_awaits_shows_no_event_loop() {
    let cell = "import asyncio\nasync def fail():\n    await asyncio.sleep(0)\n    raise ValueError(1)\nawait fail()";
    let expected = "Traceback (most recent call last):\n  File \"<code>\", line 5, in <module>\n    await fail()\n  File \"<code>\", line 4, in fail\n    raise ValueError(1)\nValueError: 1\n";
    assert_eq!(code(cell)["stderr"], expected);
}

#[test]
fn await_where_there_is_no_cell_is_an_error_as_ever() {
    assert!(error_of("def f(): await x").contains("'await' outside async function"));
    assert!(error_of("def f():\n    yield 1\nyield 2").contains("'yield' outside function"));
    let output = finish(&mut sandbox(&["run", "-c", "await x"]), b"");
    assert!(text(&output.stderr).contains("'await' outside function"));
}

#[test]
fn a_cell_that_is_indented_as_a_whole_runs() {
    gives("    x = 5\n    x + 1", "6");
    gives("\n\tif True:\n\t\tx = 3\n\tx\n", "3");
    gives("  # why\n    x = 5\n    x", "5");
    gives("  x = 1\nx", "1");
    assert!(error_of("x = 5\n  y = 6").contains("unexpected indent"));
}

#[test]
fn what_is_ipythons_is_an_error_that_says_what_to_do_instead() {
    for (cell, instead) in [
        ("!pwd", "!pwd is IPython's"),
        ("!pwd", "subprocess.run"),
        ("x = 1\n%timeit x", "timeit.timeit"),
        ("%%bash\necho \"it's\"", "language bash"),
        ("%%time\n1", "time.perf_counter"),
        ("%matplotlib inline\n1", "leave it out"),
        ("!pip install numpy", "nothing can be installed"),
        ("%pip install numpy", "nothing can be installed"),
        ("len?", "help(len)"),
    ] {
        let message = error_of(cell);
        assert!(message.contains(instead), "{cell}: {message}");
        assert!(!message.contains('\n'), "{cell}: {message}");
    }
    for (cell, message) in [("x = 5 %", "invalid syntax"), ("x !", "invalid syntax")] {
        assert_eq!(error_of(cell), format!("{message} (<code>, line 1)"));
    }
}

#[test]
fn ipythons_display_is_there_where_ipython_is_not() {
    let record = code(
        r##"
from IPython.display import display, HTML, Image, Markdown, JSON, SVG, Latex, clear_output
display(HTML("<b>x</b>"), Markdown("# x"), JSON({"a": [1]}), SVG("<svg/>"))
display(Image(data=b"\x89PNG1234"), Latex("$x$"), metadata={"a": 1})
clear_output(wait=True)
open("a.gif", "wb").write(b"GIF89a")
Image("a.gif")
"##,
    );
    let forms = |kind: &str, data: Value, class: &str| json!({kind: data, "text/plain": format!("<IPython.display.{class} object>")});
    let expected = json!([
        forms("text/html", json!("<b>x</b>"), "HTML"),
        forms("text/markdown", json!("# x"), "Markdown"),
        forms("application/json", json!({"a": [1]}), "JSON"),
        forms("image/svg+xml", json!("<svg/>"), "SVG"),
        forms("image/png", json!("iVBORzEyMzQ="), "Image"),
        forms("text/latex", json!("$x$"), "Latex"),
    ]);
    assert_eq!(record["displays"], expected, "{record}");
    assert_eq!(
        record["result"],
        forms("image/gif", json!("R0lGODlh"), "Image")
    );
}

#[test]
fn what_else_code_asks_ipython_for_is_there_or_an_import_error() {
    gives("import IPython\nIPython.get_ipython() is None", "True");
    gives(
        "from IPython.core.display import HTML, display\ndisplay is __builtins__.display",
        "True",
    );
    assert!(error_of("from IPython.display import Audio").contains("cannot import name 'Audio'"));
    gives(
        "import os\nos.mkdir('IPython')\nopen('IPython/__init__.py', 'w').write('mine = 1')\nimport IPython\nIPython.mine",
        "1",
    );
    let look = "import importlib.util; print(importlib.util.find_spec('IPython'))";
    let output = finish(&mut sandbox(&["run", "-c", look]), b"");
    assert_eq!(text(&output.stdout), "None\n");
}

#[test]
fn display_takes_the_options_of_ipythons() {
    let record = code(
        "display({'text/html': '<b>', 'text/plain': 'b'}, raw=True)\nhandle = display(1, display_id=True)\nhandle.update(2)\ndisplay(3, exclude=['text/html'], metadata={})",
    );
    let expected = json!([
        {"text/html": "<b>", "text/plain": "b"},
        {"text/plain": "1"},
        {"text/plain": "2"},
        {"text/plain": "3"},
    ]);
    assert_eq!(record["displays"], expected, "{record}");
}

#[test]
fn whatever_a_program_makes_of_python_its_result_is_told() {
    for sabotage in [
        "builtins.issubclass = None",
        "del builtins.repr, builtins.type, builtins.getattr",
        "builtins.str = builtins.dict = builtins.Exception = None",
        "builtins.__import__ = None",
        "builtins.__dict__.clear()",
        "sys.modules.clear()",
        "sys.stdout = sys.stderr = sys.displayhook = None",
        "sys.meta_path.clear(); sys.path.clear()",
        "sys.setrecursionlimit(7)",
        "globals().clear()",
        "class type: pass\nclass str: pass\nclass Exception: pass",
        "import json, binascii; json.dumps = binascii.b2a_base64 = None",
        "import encodings; vars(encodings).clear()",
        "from unittest import mock; mock.patch('builtins.repr').start()",
        "import os; os.closerange(0, 100)",
        "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))",
    ] {
        gives(&format!("import builtins, sys\n{sabotage}\n5"), "5");
    }
}

#[test]
fn whatever_a_program_makes_of_python_its_exception_is_told() {
    for sabotage in [
        "builtins.__dict__.clear()",
        "builtins.str = builtins.Exception = builtins.print = None",
        "sys.modules.clear(); sys.stderr = None",
        "del sys.excepthook",
        "import io; io.open = None",
        "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))",
    ] {
        let record = code(&format!("import builtins, sys\n{sabotage}\n1/0"));
        let exception = &record["exception"];
        assert_eq!(exception["type"], "ZeroDivisionError", "{sabotage}");
        assert_eq!(record["exit_code"], 1, "{sabotage}");
    }
}

/// Ways in which a program fails, whose tracebacks have lines and carets.
const FAILURES: [&str; 5] = [
    "def f(x):\n    return 1 / x\n\nf(0)",
    "try:\n    {}['k']\nexcept KeyError as e:\n    raise ValueError('ü') from e",
    "def f(): f()\nf()",
    "raise ExceptionGroup('a', [ValueError(1)])",
    "exec('1/0')",
];

#[test]
fn a_traceback_of_code_shows_its_lines_as_that_of_a_file() {
    for program in FAILURES {
        let (_, expected) = plain(program, "<code>");
        assert!(expected.contains("\n    "), "{expected}");
        assert_eq!(code(program)["stderr"], expected);
        assert_said_as_by_python(program);
    }
}

/// Checks that what a run of this code says is what Python says of it.
fn assert_said_as_by_python(program: &str) {
    let expected = finish(reference().args(["-c", program]), b"");
    let output = finish(sandbox(&["run", "-c"]).arg(program), b"");
    assert_eq!(text(&output.stderr), text(&expected.stderr));
}

#[test]
fn an_error_of_the_compilers_shows_its_line_as_in_a_file() {
    for program in ["x = 1\nreturn x", "def f():\n  nonlocal x", "if", "a = 'b"] {
        let (_, expected) = plain(program, "<code>");
        assert_eq!(code(program)["stderr"], expected);
        assert_said_as_by_python(program);
    }
}

#[test]
fn what_a_cell_prints_of_its_exceptions_and_of_itself_has_its_lines() {
    let record = code(
        "import inspect, traceback\ndef f():\n    return 1 / 0\ntry: f()\nexcept Exception: traceback.print_exc()\nprint(inspect.getsource(f))",
    );
    let stderr = record["stderr"].as_str().unwrap();
    assert!(
        stderr.contains("    return 1 / 0\n           ~~^~~\n"),
        "{stderr}"
    );
    assert_eq!(record["stdout"], "def f():\n    return 1 / 0\n\n");
}

#[test]
fn code_that_was_made_by_other_code_shows_no_lines_of_the_cell() {
    let program = "from dataclasses import dataclass\n@dataclass\nclass A:\n    x: int\nclass D:\n    def __set__(self, *_): 1/0\nA.x = D()\nA(1)";
    let record = code(program);
    let stderr = record["stderr"].as_str().unwrap();
    assert!(
        stderr.contains("  File \"<string>\", line 3, in __init__\n  File \"<code>\""),
        "{stderr}"
    );
}

#[test]
fn a_message_that_looks_like_a_file_of_ours_stays_as_it_is() {
    let message = "a /proc/self/fd/3 b\n  /proc/self/fd/3";
    let record = code(&format!("raise ValueError({message:?})"));
    assert_eq!(record["exception"]["message"], message);
    let traceback = record["exception"]["traceback"].as_str().unwrap();
    assert!(traceback.ends_with(&format!("ValueError: {message}\n")));
}

#[test]
fn a_machine_that_is_booted_runs_cells_too() {
    let cell = "  from IPython.display import HTML\n  import asyncio\n  await asyncio.sleep(0)\n  HTML('x')";
    let record = record(&["--fresh", "-c", cell], b"");
    assert_eq!(record["result"]["text/html"], "x", "{record}");
}
