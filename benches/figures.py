"""Figures for people."""

import math


def percentile(values, percent):
    """The nearest rank: the least value that so many percent of the values do not exceed."""
    return sorted(values)[math.ceil(len(values) * percent / 100) - 1]


def seconds(value):
    if value >= 1:
        return f"{value:.2f} s"
    return f"{value * 1000:.{0 if value >= 0.1 else 2}f} ms"


def ratio(value, base):
    times = value / base
    return f"{times:.0f} ×" if times >= 10 else f"{times:.2f} ×"


def mib(size):
    return "not readable" if math.isnan(size) else f"{size / (1 << 20):.1f} MiB"


def table(head, rows):
    lines = [head, ["---"] + ["--:"] * (len(head) - 1), *rows]
    return "\n".join(f"| {' | '.join(str(cell) for cell in line)} |" for line in lines)


def aligned(head, rows):
    """A table that is easy to read at a terminal too."""
    columns = list(zip(head, *([str(cell) for cell in row] for row in rows)))
    widths = [max(map(len, column)) for column in columns]

    def pad(row):
        return [str(row[0]).ljust(widths[0]), *(str(cell).rjust(width) for cell, width in zip(row[1:], widths[1:]))]

    return table(pad(head), [pad(row) for row in rows])
