"""Draws how long runs took as an SVG: a strip for each way to run, a dot for each run."""

import math
from html import escape

from figures import percentile, ratio, seconds

WIDTH, LEFT, RIGHT, TOP, STRIP = 880, 200, 165, 56, 44
# Where a page is dark and the reader's system is not, or the other way round, the background is still ours.
STYLE = """
.back { fill: #ffffff; stroke: #d1d9e0 } text { fill: #1f2328; font: 14px sans-serif } .dim { fill: #59636e; font-size: 12px }
.grid { stroke: #d1d9e0 } .dots { stroke: #0969da; stroke-opacity: .5 } .ours { stroke: #1a7f37 } .mark { stroke: #1f2328 }
@media (prefers-color-scheme: dark) {
.back { fill: #0d1117; stroke: #3d444d } text { fill: #f0f6fc } .dim { fill: #9198a1 }
.grid { stroke: #3d444d } .dots { stroke: #4493f8 } .ours { stroke: #3fb950 } .mark { stroke: #f0f6fc }
}
.dots { stroke-width: 4; stroke-linecap: round; fill: none } .mark { stroke-width: 2; fill: none }
"""


def strips(times, base):
    """`times`: seconds of each run, by name. `base`: the name of what the others are compared with."""
    every = [value for values in times.values() for value in values]
    low, high = math.log10(min(every) * 0.9), math.log10(max(every) * 1.1)

    def x(value):
        return LEFT + (math.log10(value) - low) / (high - low) * (WIDTH - LEFT - RIGHT)

    bottom = TOP + STRIP * len(times)
    height = bottom + 34
    middle = percentile(times[base], 50)
    body = [grid(value, x(value), bottom) for value in ticks(low, high)]
    for number, (name, values) in enumerate(times.items()):
        body.append(strip(name, sorted(values), middle, x, TOP + STRIP * number + STRIP // 2))
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">',
        f"<title>Wall clock of print('hello') for each way to run it</title><style>{STYLE}</style>",
        f'<rect class="back" x=".5" y=".5" width="{WIDTH - 1}" height="{height - 1}" rx="6"/>',
        "<text x=\"16\" y=\"26\">print('hello'): process start to exit</text>",
        f'<text class="dim" x="{WIDTH - 16}" y="26" text-anchor="end">'
        "a dot a run · long mark p50 · short mark p95 · logarithmic</text>",
        *body, "</svg>", ""])


def ticks(low, high):
    powers = range(math.floor(low), math.ceil(high))
    values = [step * 10.0**power for power in powers for step in (1, 2, 5)]
    return [value for value in values if low <= math.log10(value) <= high]


def grid(value, x, bottom):
    label = f"{value:g} s" if value >= 1 else f"{value * 1000:g} ms"
    return (f'<path class="grid" d="M{x:.1f} {TOP - 10}V{bottom}"/>'
            f'<text class="dim" x="{x:.1f}" y="{bottom + 18}" text-anchor="middle">{label}</text>')


def strip(name, values, base, x, y):
    """`values` are sorted."""
    step = max(1, len(values) / 250)  # more dots than this say no more
    shown = [values[int(index * step)] for index in range(int(len(values) / step))]
    # Spread over the strip by the golden ratio, which looks random and is the same each time.
    dots = "".join(f"M{x(value):.1f} {y - 11 + 22 * (index * 0.618 % 1):.1f}h0" for index, value in enumerate(shown))
    p50, p95 = percentile(values, 50), percentile(values, 95)
    kind = "dots ours" if name.startswith("sandbox") else "dots"
    return (f'<text x="16" y="{y + 5}">{escape(name)}</text><path class="{kind}" d="{dots}"/>'
            f'<path class="mark" d="M{x(p50):.1f} {y - 16}v32M{x(p95):.1f} {y - 8}v16"/>'
            f'<text x="{WIDTH - 16}" y="{y + 5}" text-anchor="end">{seconds(p50)} · {ratio(p50, base)}</text>')
