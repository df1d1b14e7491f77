#!/usr/bin/python3
"""Times the work that programs do in a guest beside the same on the host, row by row; prints a table.

Whole processes from start to exit, medians. `scripts/bench work --help` has the options.
"""

import argparse
import os
import re
import shutil
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path

import machine
import programs
import report
import worktable
from contender import Contender, at_once, interleave, memory, say, walls, where_time_goes, workshop
from process import Running, WentWrong, empty_directory
from rows import COMMANDS, PYTHON_ON_ONE, ROWS, WITHOUT

# A guest whose kernel is emulated may need minutes for what the host does in milliseconds.
PATIENCE = {"SANDBOX_TIMEOUT": "600"}


@dataclass
class Measured:
    """What a row's contenders needed: values of each run by name, in seconds, bytes, or runs a second."""
    values: dict
    inside: dict = field(default_factory=dict)  # seconds in the program, after its imports; empty where it does not tell


def main():
    options = arguments()
    with workshop(options.sandbox) as work:
        ours = variants(options)
        facts = machine.describe_modes(ours)
        make_files(work, options.only)
        measured = {}
        for key in options.only:
            measured[key] = measure(ROWS[key], ours, options.rounds, options.limit)
            say(worktable.brief(key, measured[key], ours))
        print(worktable.of(measured, ours, titles=False), end="\n\n")
        print(worktable.MEANING, end="\n\n")
        if "hello" in measured:
            print(worktable.hello(measured["hello"], ours), end="\n\n")
            runs = min(options.rounds or 50, 50)
            print(worktable.counts({variant.name: counts(variant, runs) for variant in ours}, runs), end="\n\n")
        print(report.machine(facts | machine.afterwards()))


def arguments():
    parser = argparse.ArgumentParser(prog="scripts/bench work", description=__doc__.split("\n\n")[0])
    parser.add_argument("repository", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--only", nargs="+", default=[",".join(ROWS)], metavar="ROW",
                        help=f"these rows, with spaces or commas between: {', '.join(ROWS)}")
    parser.add_argument("--rounds", type=int, help="so many runs of each (default: by the row)")
    parser.add_argument("--limit", type=float, default=60, help="begin no round after so many seconds in a row (60)")
    parser.add_argument("--mode", "--modes", dest="modes", help="native, emulated, or both with a comma between")
    parser.add_argument("--sandbox", type=Path, help="this binary instead of the one that scripts/build made")
    parser.add_argument("--beside", type=Path, help="this binary too, to compare two builds")
    options = parser.parse_args()
    options.sandbox = (options.sandbox or options.repository / "target/sandbox").absolute()
    options.beside = options.beside and options.beside.absolute()
    options.only = [key for keys in options.only for key in keys.split(",") if key]
    if unknown := [key for key in options.only if key not in ROWS]:
        parser.error(f"no such row: {', '.join(unknown)}; there are {', '.join(ROWS)}")
    return options


def variants(options):
    """The ways to run `sandbox` that are compared: a binary or two, in a mode or two."""
    binaries = {report.OURS: os.path.abspath("sandbox.bin")}
    if options.beside:
        binaries["beside"] = shutil.copy(options.beside, os.path.abspath("beside.bin"))
    ours = []
    for name, binary in binaries.items():
        for mode in (options.modes or "").split(","):
            more = {"SANDBOX_KVM_MODE": mode} if mode else {}
            known_as = f"{name}, {mode}" if mode and options.beside else mode or name
            ours.append(Contender(known_as, [binary, "run"], environment=PATIENCE | more))
    return ours


def make_files(work, keys):
    """What these rows put into guests."""
    for key, count in {"put-files": 1000, "put-many": 20_000}.items():
        if key in keys:
            Path(work, key).mkdir()
            for number in range(count):
                Path(work, key, f"{number}.txt").write_text("x" * 1000)
    if "put-bytes" in keys:
        Path(work, "put-bytes").write_bytes(os.urandom(1_000_000) * 100)
    if "tests" in keys:
        Path(work, "tests").mkdir()
        for number in range(970):
            Path(work, "tests", f"test_{number}.py").write_text(programs.TEST)


def measured_of(runs):
    return Measured(walls(runs), {name: inside(its) for name, its in runs.items() if inside(its)})


def measure(row, ours, rounds=None, at_most=60):
    """None of it where a run goes wrong: the other rows are still worth having."""
    rounds = rounds or row.rounds
    try:
        if row.how == "first":
            return Measured({variant.name: [first_ever(variant) for _ in range(rounds)] for variant in ours})
        hosts = [host(limit.base) for limit in row.limits if limit.base in COMMANDS]
        if row.how == "memory":
            return Measured({one.name: [memory(one, rounds)[0]] for one in [*ours, *hosts]})
        if row.how == "rate":
            return Measured({name: [rate] for name, rate in at_once([*ours, *hosts], 32, rounds).items()})
        runs = interleave(row.program, [*with_options(row, ours), *hosts], rounds, at_most, empty_directory)
    except WentWrong as problem:
        Running.kill_all()
        say(f"left out, since {str(problem).removeprefix('bench: ')}")
        return Measured({})
    return measured_of(runs)


def host(base):
    return Contender(base, COMMANDS[base], processors={0} if base == PYTHON_ON_ONE else None)


def with_options(row, ours):
    """The row's runs of the sandbox, and those without its options where these are the base."""
    options = [option.format(work=os.getcwd()) for option in row.options]
    contenders = [replace(variant, prefix=[*variant.prefix, *options]) for variant in ours]
    if any(limit.base == WITHOUT for limit in row.limits):
        contenders += [replace(variant, name=worktable.without(variant)) for variant in ours]
    return contenders


def inside(runs):
    """Seconds that programs say that their work took."""
    told = [re.search("^inside ([0-9.e-]+)$", run.errors, re.M) for run in runs]
    return [float(match[1]) for match in told if match]


def first_ever(variant):
    """Seconds of a run with an empty cache: it unpacks the runtime image and builds a template."""
    with tempfile.TemporaryDirectory() as cache:
        environment = variant.environment | {"XDG_CACHE_HOME": cache}
        return replace(variant, environment=environment).run("hello").seconds


def counts(variant, runs):
    """Of a hello, what is the same each time: numbers and sizes by name."""
    _, counted = where_time_goes(variant, runs)
    total, written = memory(variant, 3)
    return counted | {"bytes of private memory": total, "bytes of private memory that it wrote to": written}


if __name__ == "__main__":
    main()
