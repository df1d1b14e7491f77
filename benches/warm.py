#!/usr/bin/python3
"""Times warm runs of `sandbox run` beside other ways to run the same Python program.

Takes the wall clock of whole processes, from start to exit; prints tables and a plot, and writes them to docs/.
Usage: warm.py REPOSITORY [--quick]: few runs, to see that it works, written to target/bench/.
"""

import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import machine
import report
import rows
import work
from contender import (Contender, at_once, available_memory_taken, interleave, memory, memory_while_waiting, say, walls,
                       where_time_goes, workshop)
from figures import percentile
from programs import PROGRAMS
from work import Measured


# Programs of this machine, where scripts/bench puts them.
BWRAP, RUNSC = "/mnt/bin/bwrap", "/mnt/bin/runsc"


@dataclass
class Effort:
    """How many runs of each kind."""
    hello: int
    gvisor_every: int  # rounds: its runs are ten times as long as the others'
    fresh: int
    others: dict
    back_to_back: int
    series: int
    at_once: dict
    first: int  # with an empty cache
    work: int | None  # of each other row of work; None: as many as its table says
    told: int  # with --verbose
    samples: int  # of memory


FULL = Effort(hello=1000, gvisor_every=5, fresh=20,
              others={"imports": 50, "compute": 25, "strings": 25, "output": 100},
              back_to_back=200, series=3, at_once={2: 40, 8: 20, 32: 10}, first=5, work=None, told=50, samples=5)
QUICK = Effort(hello=20, gvisor_every=10, fresh=1,
               others={"imports": 2, "compute": 2, "strings": 2, "output": 3},
               back_to_back=10, series=1, at_once={2: 2, 8: 1, 32: 1}, first=1, work=1, told=5, samples=1)


def main():
    repository, quick = Path(sys.argv[1]), sys.argv[2:] == ["--quick"]
    target = repository / "target/bench" if quick else repository / "docs"
    with workshop(repository / "target/sandbox") as directory:
        os.environ["XDG_CACHE_HOME"] = directory
        results = measure(QUICK if quick else FULL)
    report.write(results, target)


def measure(effort):
    sandbox = Contender(report.OURS, [os.path.abspath("sandbox.bin"), "run"])
    python, isolated = work.host(rows.PYTHON), work.host(rows.ISOLATED)
    clean = Contender(report.CLEAN, [os.path.abspath("python/bin/python3")])
    others = [other for other in (find_bwrap(), find_gvisor(effort.gvisor_every)) if other]
    hello = [sandbox, python, isolated, clean, *others]
    fresh = Contender(report.FRESH, [*sandbox.prefix, "--fresh"], uncounted=0)

    results = SimpleNamespace(told=effort.told, ours=sandbox)
    results.machine = machine.describe(sandbox.prefix[0]) | describe_contenders(others)
    results.titles = {name: program.title for name, program in PROGRAMS.items()}
    first = [work.first_ever(sandbox) for _ in range(effort.first)]
    results.first_ever = percentile(first, 50)
    results.hello = walls(interleave("hello", hello, effort.hello))
    results.hello |= walls(interleave("hello", [fresh], effort.fresh, at_most=60))
    results.memory = {contender.name: memory(contender, effort.samples) for contender in [*hello, fresh]}
    runs = {program: interleave(program, [sandbox, python], rounds) for program, rounds in effort.others.items()}
    results.others = {program: walls(its) for program, its in runs.items()}
    results.back_to_back = effort.back_to_back, back_to_back([sandbox, python], effort.back_to_back, effort.series)
    results.at_once = {
        number: at_once([sandbox, python], number, batches) for number, batches in effort.at_once.items()
    }
    results.memory_alone = max(memory_while_waiting(sandbox, 1))
    results.memory_at_once = {number: memory_while_waiting(sandbox, number) for number in effort.at_once}
    results.available = available_memory_taken(sandbox, max(effort.at_once))
    results.parts, results.counts = where_time_goes(sandbox, effort.told)
    measured = {program: work.measured_of(its) for program, its in runs.items()} | {
        "hello": Measured(results.hello),
        "fresh": Measured({sandbox.name: results.hello[fresh.name]}),
        "first": Measured({sandbox.name: first}),
        "memory": Measured({name: [private] for name, (private, _) in results.memory.items()}),
        "at-once": Measured({name: [rate] for name, rate in results.at_once[32].items()}),
    }
    results.work = all_rows(sandbox, measured, effort.work)
    results.machine |= machine.afterwards()
    return results


def all_rows(sandbox, measured, rounds):
    """Of work, those that are not measured yet too; in order."""
    work.make_files(os.getcwd(), rows.ROWS)
    patient = replace(sandbox, environment=work.PATIENCE)
    return {key: measured.get(key) or work.measure(row, [patient], rounds) for key, row in rows.ROWS.items()}


def find_bwrap():
    libraries = "/mnt/lib/x86_64-linux-gnu"
    program = f"{libraries}/ld-linux-x86-64.so.2 --library-path {libraries} {BWRAP}"
    options = "--ro-bind / / --dev /dev --proc /proc --unshare-all"
    return first_that_works("bubblewrap", [f"{program} {options} /usr/bin/python3"])


def find_gvisor(every):
    """Without a network, which it cannot set up everywhere; systrap where this version has it, else ptrace."""
    return first_that_works("gVisor", [
        f"{RUNSC} {privilege} --network=none --platform={platform} do /usr/bin/python3"
        for privilege in ("--rootless", "") for platform in ("systrap", "ptrace")
    ], every)


def first_that_works(name, commands, every=1):
    for command in commands:
        prefix = command.split()
        try:
            argv = [*prefix, PROGRAMS["hello"].file]
            run = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=60)
        except (OSError, subprocess.TimeoutExpired) as error:
            problem = str(error)
            continue
        if run.returncode == 0 and run.stdout == PROGRAMS["hello"].output:
            return Contender(name, prefix, every)
        problem = run.stderr.decode(errors="replace").strip()
    say(f"{name} does not run here, and is left out: {problem}")
    return None


def back_to_back(contenders, number, series):
    """Seconds that a series of runs takes, one after the other: the median of some series, which alternate."""
    say(f"{number} runs back to back")
    took = {contender.name: [] for contender in contenders}
    for _ in range(series):
        for contender in contenders:
            began = time.perf_counter()
            for _ in range(number):
                contender.start("hello").finish()
            took[contender.name].append(time.perf_counter() - began)
    return {name: statistics.median(values) for name, values in took.items()}


def describe_contenders(others):
    """What was measured beside this product: names and what they are."""
    def output(*argv):
        return subprocess.run(argv, capture_output=True, text=True, check=True).stdout

    facts = {"python3": output("/usr/bin/python3", "--version").strip()}
    for contender in others:
        at = next(at for at, word in enumerate(contender.prefix) if word in (BWRAP, RUNSC))
        version = output(*contender.prefix[: at + 1], "--version").splitlines()[0]
        command = " ".join(os.path.basename(word) if word.startswith("/") else word for word in contender.prefix[at:])
        facts[contender.name] = f"{version}, `{command}`"
    for name in ("bubblewrap", "gVisor"):
        facts.setdefault(name, "does not run here")
    return facts


if __name__ == "__main__":
    main()
