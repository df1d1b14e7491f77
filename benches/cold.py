#!/usr/bin/env python3
"""Times cold runs of `sandbox run --fresh`, split, from process start to first output.

Reads what `--verbose` tells and takes its own time for the whole process.
Usage: cold.py SANDBOX RUNS
"""

import os
import statistics
import subprocess
import sys
import time

import verbose

# The second line is the kernel's share of the interpreter's CPU time, by the guest's own clock.
PROGRAM = "print('hello', flush=True); import os; t = os.times(); print(t.system / (t.user + t.system or 1))"


def once(sandbox):
    """One run: named figures in seconds or counts."""
    began = time.monotonic()
    process = subprocess.Popen(
        [sandbox, "run", "--fresh", "--verbose", "-t", "300", "-c", PROGRAM],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL)
    line = process.stdout.readline()
    first_output = time.monotonic() - began
    rest = process.stdout.read()
    stderr = process.stderr.read().decode()
    _, status, usage = os.wait4(process.pid, 0)
    total = time.monotonic() - began
    if line != b"hello\n" or status != 0:
        sys.exit(f"the run failed: {line!r}, status {status}\n{stderr}")
    told = verbose.durations(stderr)
    figures = {"process start to first output": first_output, "whole process": total}
    for key, name in {
        "setup": "  VM set-up",
        "kernel": "  kernel, to PID 1",
        "agent": "  agent, to exec",
        "first output": "  interpreter, to its first line",
        "program": "  (exec to exit)",
        "teardown": "  teardown",
    }.items():
        figures[name] = told[key]
    figures["guest kernel's share of the interpreter's time"] = float(rest)
    figures["host CPU in the guest or for it"] = usage.ru_stime + usage.ru_utime
    told = verbose.counts(stderr)
    for key, name in {
        "exits": "exits", "port I/O": "  port I/O", "services": "    of these, host services",
        "memory I/O": "  memory-mapped I/O", "assists": "  instructions completed",
    }.items():
        figures[name] = told[key]
    return figures


def main():
    sandbox, runs = sys.argv[1], int(sys.argv[2])
    samples = []
    for number in range(runs):
        print(f"run {number + 1} of {runs}", file=sys.stderr)
        samples.append(once(sandbox))
    print(f"| cold run, median of {runs} | | least | most |\n|---|---|---|---|")
    for name in samples[0]:
        values = [sample[name] for sample in samples]
        if "share" in name:
            unit = "{:.0%}".format
        else:
            unit = "{:.3f} s".format if isinstance(values[0], float) else "{}".format
        print(f"| {name} | {unit(statistics.median(values))} | {unit(min(values))} | {unit(max(values))} |")
    size = os.stat(sandbox).st_size
    print(f"| binary | {size / (1 << 20):.1f} MiB | | |")


main()
