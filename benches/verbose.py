"""Reads what `sandbox run --verbose` tells on standard error.

    sandbox: the program exited with 0, in a machine that was restored (software KVM, …): setup 0.003 s, kernel none, …
    sandbox: 2 exits: 2 port I/O (2 services), 0 memory I/O, 0 assists
"""

import re

UNITS = {"s": 1, "ms": 1e-3, "µs": 1e-6, "us": 1e-6}


def durations(text):
    """Seconds by name; what there was none of is left out."""
    found = re.findall(r"([a-z][a-z ]*?) ([0-9.]+) ?(s|ms|µs|us)\b", text)
    return {name: float(value) * UNITS[unit] for name, value, unit in found}


def counts(text):
    """The exits of the guest and what they were, by name."""
    start = re.search(r"\d+ exits", text)
    if not start:
        return {}
    found = re.findall(r"(\d+) ([a-zA-Z/]+(?: [a-zA-Z/]+)*)", text[start.start():])
    return {name: int(value) for value, name in found}
