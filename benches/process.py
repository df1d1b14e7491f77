"""Starts processes, and takes their time and memory. A run that goes wrong ends the benchmark."""

import contextlib
import math
import os
import resource
import signal
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path


class WentWrong(SystemExit):
    """A run that failed. It ends the benchmark, unless somebody can go on without it."""


@dataclass
class Finished:
    """A process from its start to its exit."""
    seconds: float
    errors: str
    usage: resource.struct_rusage


class Running:
    """A process with its standard output in a pipe, its standard error in a file, and no standard input."""

    alive = {}

    def __init__(self, argv, expected, environment={}, processors=None):
        self.argv = argv
        self.expected = expected
        self.chunks = []
        self.errors = tempfile.TemporaryFile()
        self.output, output = os.pipe()
        actions = [
            (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
            (os.POSIX_SPAWN_DUP2, output, 1),
            (os.POSIX_SPAWN_DUP2, self.errors.fileno(), 2),
        ]
        with on_processors(processors):
            self.began = time.perf_counter()
            # No copy of this process is made, so its size does not matter.
            self.pid = os.posix_spawn(argv[0], argv, os.environ | environment, file_actions=actions,
                                      setsigdef=[signal.SIGPIPE])
        Running.alive[self.pid] = self
        os.close(output)

    def wait_for_output(self):
        self.chunks.append(os.read(self.output, 1 << 20))

    def finish(self):
        """Waits for its exit."""
        while chunk := os.read(self.output, 1 << 20):
            self.chunks.append(chunk)
        _, status, usage = os.wait4(self.pid, 0)
        seconds = time.perf_counter() - self.began
        del Running.alive[self.pid]
        os.close(self.output)
        with self.errors as file:
            file.seek(0)
            errors = file.read().decode(errors="replace")
        self.check(os.waitstatus_to_exitcode(status), errors)
        return Finished(seconds, errors, usage)

    def check(self, status, errors):
        output = b"".join(self.chunks)
        if status == 0 and output == self.expected:
            return
        raise WentWrong(
            f"bench: this run failed: {' '.join(self.argv)}\n"
            f"exit status {status}, {len(output)} bytes of output where {len(self.expected)} were expected\n"
            f"output: {output[:200]!r}\n{errors}")

    def has_ended(self):
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    @classmethod
    def kill_all(cls):
        while cls.alive:
            pid, _ = cls.alive.popitem()
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


@contextlib.contextmanager
def on_processors(numbers):
    """What starts here stays on these processors, as with taskset but without a process for it."""
    if numbers is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, numbers)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextlib.contextmanager
def empty_directory():
    """Is in an empty directory in memory, where programs write as fast as in a guest."""
    before = os.getcwd()
    with tempfile.TemporaryDirectory(prefix="sandbox-bench-", dir="/dev/shm", ignore_cleanup_errors=True) as directory:
        os.chdir(directory)
        try:
            yield
        finally:
            os.chdir(before)


def private_memory(pids):
    """For each process with all its descendants, bytes that no other process has: (all, written to)."""
    children = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
        children.setdefault(parent, []).append(int(stat.parent.name))

    def add_up(pid):
        clean, dirty = rollup(pid)
        below = [add_up(child) for child in children.get(pid, [])]
        return clean + dirty + sum(total for total, _ in below), dirty + sum(written for _, written in below)

    return [add_up(pid) for pid in pids]


def rollup(pid):
    """Private_Clean and Private_Dirty of one process, in bytes."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0, 0
    except PermissionError:
        return math.nan, math.nan
    kib = {line.split(":")[0]: int(line.split()[1]) for line in lines if line.endswith(" kB")}
    return kib.get("Private_Clean", 0) << 10, kib.get("Private_Dirty", 0) << 10


def available_memory():
    line = next(line for line in open("/proc/meminfo") if line.startswith("MemAvailable"))
    return int(line.split()[1]) << 10
