"""Ways to run a program, and how their time and memory are taken: in turns."""

import contextlib
import math
import os
import random
import shutil
import signal
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import programs
import verbose
from process import Running, WentWrong, available_memory, private_memory
from programs import PROGRAMS


@dataclass
class Contender:
    """A way to run a program: the words before the name of the script."""
    name: str
    prefix: list
    every: int = 1  # it takes part in each nth round
    uncounted: int = 1  # runs before those that count
    environment: dict = field(default_factory=dict)  # beside what all have
    processors: set | None = None

    def start(self, program, *arguments):
        words = [*self.prefix, PROGRAMS[program].file, *arguments]
        return Running(words, PROGRAMS[program].output, self.environment, self.processors)

    def run(self, program):
        return self.start(program).finish()


@contextlib.contextmanager
def workshop(sandbox):
    """Is in a directory with the programs and a copy of the binary; afterwards neither it nor a run is left."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    home.mkdir(parents=True, exist_ok=True)
    before = os.getcwd()
    with tempfile.TemporaryDirectory(prefix="sandbox-bench-", dir=home) as work:
        try:
            prepare(work, sandbox)
            yield work
        finally:
            Running.kill_all()
            os.chdir(before)


def stop(number, _):
    signal.signal(number, signal.SIG_IGN)  # so that a second one does not interrupt the cleaning up
    sys.exit(128 + number)


def prepare(work, sandbox):
    """Goes where there are the programs, and a binary that no build replaces meanwhile."""
    os.chdir(work)
    # PYTHONDONTWRITEBYTECODE, for one, would leave the host's imports to be compiled each time.
    for name in [name for name in os.environ if name.startswith(("PYTHON", "SANDBOX_"))]:
        del os.environ[name]
    os.environ["TMPDIR"] = work
    shutil.copy(sandbox, "sandbox.bin")
    programs.write(work)
    # An environment without packages: an interpreter that no package of this machine slows down at its start.
    Path("python/bin").mkdir(parents=True)
    Path("python/bin/python3").symlink_to("/usr/bin/python3")
    Path("python/pyvenv.cfg").write_text("home = /usr/bin\ninclude-system-site-packages = false\n")


def interleave(program, contenders, rounds, at_most=math.inf, place=contextlib.nullcontext):
    """What each run was, by contender. Each round has one run of each, in random order; a first one of each does not
    count. No round begins after so many seconds. `place`: makes a place for each run."""
    say(f"{program}: {rounds} rounds of {', '.join(contender.name for contender in contenders)}")

    def once(contender):
        with place():
            return contender.run(program)

    for contender in contenders:
        for _ in range(contender.uncounted):
            once(contender)
    runs = {contender.name: [] for contender in contenders}
    began = time.monotonic()
    for number in range(rounds):
        if time.monotonic() - began > at_most:
            break
        due = [contender for contender in contenders if number % contender.every == 0]
        for contender in random.sample(due, len(due)):
            runs[contender.name].append(once(contender))
    return runs


def walls(runs):
    """Seconds of each run, by contender."""
    return {name: [run.seconds for run in its] for name, its in runs.items()}


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
    return (before - during[-1]) / number


def memory_while_waiting(contender, number, then=lambda: None, wait=None):
    """Private memory of each of so many at once, while all have printed and wait: the most of some samples."""
    wait = wait or 1 + number / 8
    started = [contender.start("hello, then wait", str(wait)) for _ in range(number)]
    for running in started:
        running.wait_for_output()
    samples = [private_memory([running.pid for running in started]) for _ in range(5)]
    then()
    too_late = any(running.has_ended() for running in started)
    for running in started:
        running.finish()
    if too_late and wait > 30:
        raise WentWrong(f"bench: this machine is too slow to look at {number} at once while they wait")
    if too_late:
        return memory_while_waiting(contender, number, then, wait * 2)
    return [max(values) for values in zip(*samples)]


def where_time_goes(sandbox, runs):
    """What --verbose tells, what the host's kernel counts, and the whole process: medians."""
    say("where the time goes")
    told = replace(sandbox, prefix=[*sandbox.prefix, "--verbose"])
    durations, counts = [], []
    for _ in range(runs):
        run = told.start("hello").finish()
        durations.append(verbose.durations(run.errors) | {"whole process": run.seconds})
        counts.append(verbose.counts(run.errors) | {
            "page faults without reading": run.usage.ru_minflt, "page faults with reading": run.usage.ru_majflt,
            "microseconds of processor time": round((run.usage.ru_utime + run.usage.ru_stime) * 1e6),
        })
    return medians(durations), medians(counts)


def medians(samples):
    names = [name for name in samples[0] if all(name in sample for sample in samples)]
    return {name: statistics.median(sample[name] for sample in samples) for name in names}


def say(text):
    print(f"bench: {text}", file=sys.stderr)
