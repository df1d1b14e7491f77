#!/usr/bin/env python3
"""Times `sandbox run` of a hello against bare python3, taking turns: hello.py SANDBOX RUNS.

The least that shows a ratio, for hosts where the whole benchmark would take hours.
"""

import statistics
import subprocess
import sys
import time

CODE = "print('hello')"


def once(command):
    began = time.monotonic()
    process = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL)
    elapsed = time.monotonic() - began
    if process.stdout != b"hello\n" or process.returncode != 0:
        sys.exit(f"{command} failed: {process}")
    return elapsed


sandbox, runs = sys.argv[1], int(sys.argv[2])
commands = {"sandbox run": [sandbox, "run", "-c", CODE], "python3": ["/usr/bin/python3", "-c", CODE]}
for command in commands.values():
    once(command)
times = {name: [] for name in commands}
for _ in range(runs):
    for name, command in commands.items():
        times[name].append(once(command))
medians = {name: statistics.median(values) for name, values in times.items()}
for name, median in medians.items():
    print(f"{name}: {median * 1000:.0f} ms, median of {runs}")
print(f"ratio: {medians['sandbox run'] / medians['python3']:.2f}")
