"""What is measured of the work that programs do, what each figure must be, and the goal."""

from dataclasses import dataclass, field

PYTHON, ISOLATED, BASH = "python3", "python3 -I -S", "bash"
# A guest has one processor.
PYTHON_ON_ONE = "python3 on one processor"
# The same run of the sandbox without the options of the row.
WITHOUT = "without it"
COMMANDS = {
    PYTHON: ["/usr/bin/python3"],
    ISOLATED: ["/usr/bin/python3", "-I", "-S"],
    PYTHON_ON_ONE: ["/usr/bin/python3"],
    BASH: ["/usr/bin/bash"],
}


@dataclass
class Limit:
    """Of the median's ratio to the base's; or, where `itself`, of the figure itself. None: it is measured only."""
    base: str | None
    must: float | None = None
    goal: float | None = None
    itself: bool = False


@dataclass
class Row:
    title: str
    limits: list
    rounds: int
    program: str = "hello"
    options: list = field(default_factory=list)  # of `sandbox run`
    how: str = "seconds"  # or "first": with an empty cache; "memory", in bytes; "rate", of so many at once


def on_one(title, program):
    return Row(title, [Limit(PYTHON_ON_ONE, 3, 1.3)], 20, program)


def against(base, must, goal, rounds, title, program):
    return Row(title, [Limit(base, must, goal)], rounds, program)


ROWS = {
    "hello": Row("hello", [Limit(PYTHON, 0.85, 0.7), Limit(ISOLATED, 1.15, 1.0)], 300),
    "fresh": Row("hello with `--fresh`", [Limit(None, 0.25, 0.12, itself=True)], 10, options=["--fresh"]),
    "first": Row("first run ever, empty cache", [Limit(None, 1.2, 0.6, itself=True)], 5, how="first"),
    "bash": against(BASH, 10, 3, 30, "a bash script, `echo hello`", "bash"),
    "subprocess": against(PYTHON, 2.2, 1.5, 30, '`subprocess.run([sys.executable, "-c", "pass"])`', "subprocess"),
    "strings": against(PYTHON, 1.2, 1.0, 20, "300,000 new strings", "strings"),
    "touch": against(PYTHON, 1.2, 1.0, 20, "64 MiB touched", "touch"),
    "output": against(PYTHON, 1.2, 1.0, 50, "8 MiB through standard output, buffered", "output"),
    "writes": against(PYTHON, 1.5, 1.0, 20, "8 MiB through standard output, in 8,192 writes", "writes"),
    "imports": against(PYTHON, 1.0, 0.6, 50, "`import json, re, sqlite3`", "imports"),
    "compute": against(PYTHON, 1.05, 1.0, 15, "1 s of integer arithmetic", "compute"),
    "files": on_one("1,000 small files written and read", "files"),
    "sqlite": on_one("20,000 sqlite inserts, in one transaction", "sqlite"),
    "pool": on_one("`multiprocessing.Pool(4).map`", "pool"),
    "threads": on_one("100 threads", "threads"),
    "http": on_one("100 requests over loopback HTTP", "http"),
    "put-files": Row("`--put` of 1,000 files of 1 kB", [Limit(WITHOUT)], 10, options=["--put", "{work}/put-files"]),
    "put-many": Row("`--put` of 20,000 files of 1 kB", [Limit(None, 1, itself=True)], 10, options=["--put", "{work}/put-many"]),
    "put-bytes": Row("`--put` of a file of 100 MB", [Limit(WITHOUT)], 10, options=["--put", "{work}/put-bytes"]),
    "tests": Row("970 files of tests, found and run by `unittest`", [Limit(PYTHON_ON_ONE)], 10, "tests",
                 ["--no-siblings", "--put", "{work}/tests"]),
    "get-byte": Row("`--get` of a file of 1 byte", [Limit(WITHOUT)], 30, "make byte", ["--get", "byte"]),
    "get-files": Row("`--get` of 1,000 files of 1 kB", [Limit(WITHOUT)], 10, "make files", ["--get", "files"]),
    "get-bytes": Row("`--get` of a file of 100 MB", [Limit(WITHOUT)], 10, "make bytes", ["--get", "bytes"]),
    "memory": Row("private memory of a hello", [Limit(PYTHON, 3 << 20, 2 << 20, itself=True)], 5, how="memory"),
    # This much a second was reached before, by the better and the worse of two machines: 168 and 242.
    "at-once": Row("32 hellos at once, runs a second", [Limit(PYTHON, 168, 210, itself=True)], 5, how="rate"),
}
