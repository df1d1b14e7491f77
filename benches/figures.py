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
