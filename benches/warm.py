#!/usr/bin/python3
"""Times warm runs of `sandbox run` beside other ways to run the same Python program.

Takes the wall clock of whole processes, from start to exit; prints tables and a plot, and writes them to docs/.
Usage: warm.py REPOSITORY [--quick]: few runs, to see that it works, written to target/bench/.
"""

import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import machine
import report
import verbose
from process import Running, available_memory, private_memory


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
    told: int  # with --verbose
    samples: int  # of memory


FULL = Effort(hello=1000, gvisor_every=5, fresh=3,
              others={"imports": 50, "compute": 25, "objects": 15, "output": 100},
              back_to_back=200, series=3, at_once={2: 40, 8: 20, 32: 10}, told=50, samples=5)
QUICK = Effort(hello=20, gvisor_every=10, fresh=1,
               others={"imports": 2, "compute": 2, "objects": 2, "output": 3},
               back_to_back=10, series=1, at_once={2: 2, 8: 1, 32: 1}, told=5, samples=1)

# What each program is, its text, and its output.
PROGRAMS = {
    "hello": ("`print('hello')`", "print('hello')", b"hello\n"),
    "imports": ("`import json, re, sqlite3`", "import json, re, sqlite3\nprint('imported')", b"imported\n"),
    "compute": ("1 s of pure-Python integer arithmetic", """\
def longest_collatz(limit):
    longest = 0
    for start in range(1, limit):
        n, steps = start, 0
        while n != 1:
            n = n // 2 if n % 2 == 0 else 3 * n + 1
            steps += 1
        longest = max(longest, steps)
    return longest


print(longest_collatz(180_000))""", b"382\n"),
    "objects": ("300,000 new strings, 30 MiB of memory", """\
words = [str(number) for number in range(300_000)]
print(len(set(words)))""", b"300000\n"),
    "output": ("8 MiB through standard output", """\
import sys
for _ in range(128):
    sys.stdout.write("x" * 65535 + "\\n")""", (b"x" * 65535 + b"\n") * 128),
    "hello, then wait": ("", """\
import sys, time
print("hello", flush=True)
time.sleep(float(sys.argv[1]))""", b"hello\n"),
}


@dataclass
class Contender:
    """A way to run a Python program: the words before the name of the script."""
    name: str
    prefix: list
    every: int = 1  # it takes part in each nth round
    uncounted: int = 1  # runs before those that count

    def start(self, program, *arguments):
        file = Path(f"{program}.py").absolute()
        return Running([*self.prefix, str(file), *arguments], PROGRAMS[program][2])


def main():
    repository, quick = Path(sys.argv[1]), sys.argv[2:] == ["--quick"]
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    target = repository / "target/bench" if quick else repository / "docs"
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    home.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="sandbox-bench-", dir=home) as work:
        try:
            prepare(work, repository / "target/sandbox")
            results = measure(QUICK if quick else FULL)
        finally:
            Running.kill_all()
            os.chdir(repository)
    report.write(results, target)


def stop(number, _):
    signal.signal(number, signal.SIG_IGN)  # so that a second one does not interrupt the cleaning up
    sys.exit(128 + number)


def prepare(work, sandbox):
    """Goes where there are the programs, an empty cache, and a binary that no build replaces meanwhile."""
    os.chdir(work)
    for name in [name for name in os.environ if name.startswith(("PYTHON", "SANDBOX_"))]:
        del os.environ[name]
    os.environ["XDG_CACHE_HOME"] = os.environ["TMPDIR"] = work
    shutil.copy(sandbox, "sandbox.bin")
    for name, (_, text, _) in PROGRAMS.items():
        Path(f"{name}.py").write_text(text + "\n")
    # An environment without packages: an interpreter that no package of this machine slows down at its start.
    Path("python/bin").mkdir(parents=True)
    Path("python/bin/python3").symlink_to("/usr/bin/python3")
    Path("python/pyvenv.cfg").write_text("home = /usr/bin\ninclude-system-site-packages = false\n")


def measure(effort):
    sandbox = Contender(report.OURS, [os.path.abspath("sandbox.bin"), "run"])
    python = Contender(report.BARE, ["/usr/bin/python3"])
    clean = Contender(report.CLEAN, [os.path.abspath("python/bin/python3")])
    others = [other for other in (find_bwrap(), find_gvisor(effort.gvisor_every)) if other]
    hello = [sandbox, python, clean, *others]
    fresh = Contender(report.FRESH, [*sandbox.prefix, "--fresh"], uncounted=0)

    results = SimpleNamespace(told=effort.told)
    results.machine = machine.describe(sandbox.prefix[0]) | describe_contenders(others)
    results.titles = {program: title for program, (title, _, _) in PROGRAMS.items()}
    results.first_ever = first_ever(sandbox)
    results.hello = interleave("hello", hello, effort.hello)
    results.hello |= interleave("hello", [fresh], effort.fresh)
    results.memory = {contender.name: memory(contender, effort.samples) for contender in [*hello, fresh]}
    results.others = {
        program: interleave(program, [sandbox, python], rounds) for program, rounds in effort.others.items()
    }
    results.back_to_back = effort.back_to_back, back_to_back([sandbox, python], effort.back_to_back, effort.series)
    results.at_once = {
        number: at_once([sandbox, python], number, batches) for number, batches in effort.at_once.items()
    }
    results.memory_alone = max(memory_while_waiting(sandbox, 1))
    results.memory_at_once = {number: memory_while_waiting(sandbox, number) for number in effort.at_once}
    results.available = available_memory_taken(sandbox, max(effort.at_once))
    results.parts, results.counts = where_time_goes(sandbox, effort.told)
    return results


def find_bwrap():
    options = "--ro-bind / / --dev /dev --proc /proc --unshare-all"
    return first_that_works("bubblewrap", [f"/usr/bin/bwrap {options} /usr/bin/python3"])


def find_gvisor(every):
    """Without a network, which it cannot set up everywhere; systrap where this version has it, else ptrace."""
    return first_that_works("gVisor", [
        f"/usr/bin/runsc {privilege} --network=none --platform={platform} do /usr/bin/python3"
        for privilege in ("--rootless", "") for platform in ("systrap", "ptrace")
    ], every)


def first_that_works(name, commands, every=1):
    for command in commands:
        prefix = command.split()
        try:
            argv = [*prefix, os.path.abspath("hello.py")]
            run = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=60)
        except (OSError, subprocess.TimeoutExpired) as error:
            problem = str(error)
            continue
        if run.returncode == 0 and run.stdout == PROGRAMS["hello"][2]:
            return Contender(name, prefix, every)
        problem = run.stderr.decode(errors="replace").strip()
    say(f"{name} does not run here, and is left out: {problem}")
    return None


def first_ever(sandbox):
    """Seconds of a run with an empty cache: it unpacks the runtime image and builds a template."""
    say("a run with an empty cache")
    seconds, _ = sandbox.start("hello").finish()
    return seconds


def interleave(program, contenders, rounds):
    """Seconds of each run. Each round has one run of each, in random order; a first one of each does not count."""
    say(f"{program}: {rounds} rounds of {', '.join(contender.name for contender in contenders)}")
    for contender in contenders:
        for _ in range(contender.uncounted):
            contender.start(program).finish()
    times = {contender.name: [] for contender in contenders}
    for number in range(rounds):
        due = [contender for contender in contenders if number % contender.every == 0]
        for contender in random.sample(due, len(due)):
            seconds, _ = contender.start(program).finish()
            times[contender.name].append(seconds)
    return times


def back_to_back(contenders, number, series):
    """Seconds that a series of runs takes, one after the other: the median of some series, which alternate."""
    say(f"{number} runs back to back")
    times = {contender.name: [] for contender in contenders}
    for _ in range(series):
        for contender in contenders:
            began = time.perf_counter()
            for _ in range(number):
                contender.start("hello").finish()
            times[contender.name].append(time.perf_counter() - began)
    return {name: statistics.median(values) for name, values in times.items()}


def at_once(contenders, number, batches):
    """Runs per second when so many start together: the median of some batches, which alternate."""
    say(f"{number} at once")
    rates = {contender.name: [] for contender in contenders}
    for _ in range(batches):
        for contender in contenders:
            began = time.perf_counter()
            for running in [contender.start("hello") for _ in range(number)]:
                running.finish()
            rates[contender.name].append(number / (time.perf_counter() - began))
    return {name: statistics.median(values) for name, values in rates.items()}


def memory(contender, samples):
    """The most of some runs: bytes of private memory, and of these, bytes written to. Two run at once, so that what
    the page cache has once for both does not count."""
    say(f"memory of {contender.name}")
    return max(max(memory_while_waiting(contender, 2)) for _ in range(samples if contender.uncounted else 1))


def available_memory_taken(contender, number):
    """By how much the machine's available memory falls for each of so many at once."""
    before = available_memory()
    during = []
    memory_while_waiting(contender, number, lambda: during.append(available_memory()))
    return (before - during[0]) / number


def memory_while_waiting(contender, number, then=lambda: None):
    """Private memory of each of so many at once, while all have printed and wait: the most of some samples."""
    started = [contender.start("hello, then wait", str(1 + number / 8)) for _ in range(number)]
    for running in started:
        running.wait_for_output()
    samples = [private_memory([running.pid for running in started]) for _ in range(5)]
    then()
    if any(running.has_ended() for running in started):
        sys.exit(f"bench: this machine is too slow to look at {number} at once while they wait")
    for running in started:
        running.finish()
    return [max(values) for values in zip(*samples)]


def where_time_goes(sandbox, runs):
    """What --verbose tells, and the whole process: medians."""
    say("where the time goes")
    told = Contender("", [*sandbox.prefix, "--verbose"])
    durations, counts = [], []
    for _ in range(runs):
        seconds, errors = told.start("hello").finish()
        durations.append(verbose.durations(errors) | {"whole process": seconds})
        counts.append(verbose.counts(errors))
    return medians(durations), medians(counts)


def medians(samples):
    names = [name for name in samples[0] if all(name in sample for sample in samples)]
    return {name: statistics.median(sample[name] for sample in samples) for name in names}


def describe_contenders(others):
    """What was measured beside this product: names and what they are."""
    def output(*argv):
        return subprocess.run(argv, capture_output=True, text=True, check=True).stdout

    facts = {"python3": output("/usr/bin/python3", "--version").strip()}
    for contender in others:
        version = output(contender.prefix[0], "--version").splitlines()[0]
        command = " ".join(word.removeprefix("/usr/bin/") for word in contender.prefix)
        facts[contender.name] = f"{version}, `{command}`"
    for name in ("bubblewrap", "gVisor"):
        facts.setdefault(name, "does not run here")
    return facts


def say(text):
    print(f"bench: {text}", file=sys.stderr)


if __name__ == "__main__":
    main()
