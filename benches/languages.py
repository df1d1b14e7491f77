#!/usr/bin/python3
"""Times hello in each language of some images: languages.py REPOSITORY IMAGE... [--quick]. Writes a table into
docs/speed.md; with --quick, prints it only.

Beside each run is the same interpreter or compiler outside of a machine: /usr has the files of these images, and the
cache has the images themselves. `scripts/bench languages` sees to both.
"""

import contextlib
import os
import random
import shutil
import sys
import tempfile
import tomllib
from dataclasses import dataclass
from pathlib import Path

import machine
import report
from figures import percentile, ratio, seconds, table
from process import Running

MARKS = "<!-- languages: written by scripts/bench -->", "<!-- end of languages -->"
# By the names of languages, what must hold to the same one outside, and what is wished for.
COMPILED = 1.5, None
LIMITS = {"javascript": (1.0, 0.3), **dict.fromkeys(("c", "cpp", "go", "java", "rust"), COMPILED)}
OTHERS = 2.0, 1.2
QUICK, ROUNDS = 3, 40


@dataclass
class Hello:
    """A program of a language, and how it is run outside."""
    language: str
    title: str
    script: str
    words: list


def main():
    repository, images = Path(sys.argv[1]), [word for word in sys.argv[2:] if word != "--quick"]
    quick = len(images) < len(sys.argv) - 2
    sandbox, rounds = str(repository / "target/sandbox"), QUICK if quick else ROUNDS
    facts = machine.describe(sandbox)
    # A guest has its files in memory, too.
    with tempfile.TemporaryDirectory(prefix="sandbox-bench-", dir="/dev/shm") as work, contextlib.chdir(work):
        os.environ["TMPDIR"] = work
        rows = [row(hello, sandbox, rounds) for name in images for hello in hellos(repository, name)]
    head = ["hello", "sandbox", "outside", "ratio", "must", "goal", "", "runs"]
    text = table(head, rows) + "\n\n" + report.machine(facts | machine.afterwards())
    print(text)
    if not quick:
        report.replace(repository / "docs/speed.md", text, *MARKS)


def hellos(repository, image):
    """Makes a script in each language that there is a table of programs for."""
    described = tomllib.loads((repository / "guest/images" / image / "image.toml").read_text())
    for language in described["language"]:
        programs = repository / "tests/languages" / f"{language['name']}.toml"
        if not programs.exists():
            continue
        programs = tomllib.loads(programs.read_text())
        script = f"{language['name']}.{programs['ending']}"
        Path(script).write_text(programs.get("opening", "") + programs["hello"] + "\n")
        command, *words = [word.replace("{file}", script) for word in language["file"] if word != "{option}"]
        yield Hello(language["name"], language["title"], script, [shutil.which(command), *words])


def row(hello, sandbox, rounds):
    """The medians of rounds with a run of each, in random order, after one of each that does not count."""
    print(f"bench: {hello.title}: {rounds} rounds", file=sys.stderr)
    commands = {"sandbox": [sandbox, "run", hello.script], "outside": hello.words}
    times = {name: [] for name in commands}
    for number in range(rounds + 1):
        for name in random.sample(list(commands), len(commands)):
            taken = Running(commands[name], b"hello\n").finish().seconds
            if number > 0:
                times[name].append(taken)
    ours, outside = (percentile(times[name], 50) for name in commands)
    must, goal = LIMITS.get(hello.language, OTHERS)
    verdict = "goal met" if goal and ours <= goal * outside else "met" if ours <= must * outside else "**missed**"
    limits = [f"{must} ×", f"{goal} ×" if goal else "–"]
    return [hello.title, seconds(ours), seconds(outside), ratio(ours, outside), *limits, verdict, rounds]


if __name__ == "__main__":
    main()
