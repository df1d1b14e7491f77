//! Figures of programs: what becomes of those that nobody would see. scripts/test-libraries has the same
//! with the real library.

use crate::common::{exit_code, finish, sandbox, text};
use crate::files::Here;
use crate::terminal::Screen;
use std::fs;

/// A library with the parts of matplotlib's that matter here.
const LIBRARY: [(&str, &str); 4] = [
    ("matplotlib/__init__.py", ""),
    (
        "matplotlib/figure.py",
        "class Axes:\n stale = True\nclass Figure:\n def __init__(self): self.axes = [Axes()]\n \
         def savefig(self, file, **options):\n  self.axes[0].stale = False\n  \
         data = b'\\x89PNG\\r\\n\\x1a\\n' + str(id(self)).encode()\n  \
         file.write(data) if hasattr(file, 'write') else open(file, 'wb').write(data)\n",
    ),
    (
        "matplotlib/_pylab_helpers.py",
        "class Gcf:\n figs = {}\n @classmethod\n def get_all_fig_managers(cls): return list(cls.figs.values())\n",
    ),
    (
        "matplotlib/pyplot.py",
        "from types import SimpleNamespace as Space\nfrom matplotlib._pylab_helpers import Gcf\n\
         from matplotlib.figure import Figure\n\
         def figure(number=None):\n if number is None:\n  number = len(Gcf.figs) + 1\n  \
         Gcf.figs[number] = Space(canvas=Space(figure=Figure()))\n return Gcf.figs[number].canvas.figure\n\
         def get_fignums(): return sorted(Gcf.figs)\n\
         def close(which): Gcf.figs.clear()\n",
    ),
];

fn place(script: &str) -> Here {
    let here = Here::new();
    fs::create_dir(here.path("matplotlib")).unwrap();
    for (name, content) in LIBRARY {
        here.write(name, content.as_bytes());
    }
    let script = format!("import matplotlib.pyplot as plt\n{script}\nprint('done')\n");
    here.write("script.py", script.as_bytes());
    here
}

#[test]
fn a_figure_that_somebody_at_a_terminal_would_lose_is_told() {
    let get = &["--get", "plot.png"][..];
    for (script, options, told) in [
        ("plt.figure()", &[][..], "1 figure is lost"),
        ("plt.figure(), plt.figure()", &[], "2 figures are lost"),
        ("plt.figure().savefig('plot.png')", &[], "1 figure is lost"),
        ("plt.figure().savefig('plot.png')", get, ""),
        (
            "plt.figure().savefig('plot.png'), plt.figure()",
            get,
            "1 figure is lost",
        ),
        ("plt.figure(), plt.close('all')", &[], ""),
        ("plt.figure()", &["--quiet"], ""),
        ("plt.figure()", &["--show-dir", "."], ""),
    ] {
        let here = place(script);
        let words = [&["run"], options, &["script.py"]].concat();
        let mut command = sandbox(&words);
        command.current_dir(here.path(""));
        let (_, shown) = Screen::of(command, |_| {}).end();
        assert!(shown.contains("done"), "{shown}");
        assert_eq!(
            shown.contains("sandbox: "),
            !told.is_empty(),
            "{script}: {shown}"
        );
        assert!(shown.contains(told), "{script}: {shown}");
        let lines = shown.lines().filter(|line| line.contains("sandbox: "));
        assert!(lines.count() <= 1, "{shown}");
    }
}

#[test]
fn figures_are_kept_in_a_directory_and_replace_nothing_unasked() {
    let here = place("plt.figure(), plt.figure()");
    let run = |options: &[&str]| {
        let words = [&["run"], options, &["--show-dir", "kept", "script.py"]].concat();
        finish(sandbox(&words).current_dir(here.path("")), b"")
    };
    let content = || fs::read(here.path("kept/figure-1.png")).unwrap();
    let output = run(&[]);
    assert_eq!(
        (text(&output.stdout), text(&output.stderr)),
        ("done\n".into(), String::new())
    );
    assert_eq!(fs::read_dir(here.path("kept")).unwrap().count(), 2);
    assert!(content().starts_with(b"\x89PNG"));
    fs::write(here.path("kept/figure-1.png"), "mine").unwrap();
    let output = run(&[]);
    assert_eq!(exit_code(output.status), 125, "{output:?}");
    assert_eq!(
        text(&output.stderr),
        "sandbox: kept/figure-1.png is there already\n\
         sandbox: replace it with --force, or give another directory: --show-dir DIR\n"
    );
    assert_eq!(content(), b"mine");
    let output = run(&["--force", "--json"]);
    assert!(content().starts_with(b"\x89PNG"), "{output:?}");
    let record: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(record["displays"].as_array().unwrap().len(), 2, "{record}");
}
