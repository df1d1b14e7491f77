"""The table of what work in a guest takes beside the same on the host."""

from figures import aligned, mib, percentile, ratio, seconds, table
from rows import ROWS, WITHOUT

NO_FIGURE = "–"
MEANING = """\
Medians; a ratio is that of whole processes from start to exit, `sandbox run X` to `python3 X` of the same image outside of
a machine. Inside: the work alone in the program's own time, from after its imports to before its exit. The host's programs
write into a directory in memory (tmpfs), as those in a guest do."""
UNITS = {"seconds": seconds, "first": seconds, "memory": mib, "rate": "{:.0f}".format}


def of(measured, ours, titles=True):
    """A line for each limit of each row. `titles`: whether with what each row is, or with its short name."""
    head = ["work" if titles else "row", "beside", "that", ours[0].name, "ratio"]
    if len(ours) == 1:
        head += ["its quartiles", "inside"]
    for variant in ours[1:]:
        head += [variant.name, "ratio", "quartiles to the first"]
    head += ["must", "goal", "", "runs"]
    lines = [line(key, limit, its, ours, titles) for key, its in measured.items() for limit in ROWS[key].limits]
    return aligned(head, lines) if not titles else table(head, lines)


def line(key, limit, its, ours, titles):
    row, unit = ROWS[key], UNITS[ROWS[key].how]
    bases = [its.values.get(base_of(limit, variant)) for variant in ours]
    cells = [row.title if titles else key, limit.base or NO_FIGURE, middle(bases[0], unit)]
    first = its.values.get(ours[0].name)
    cells += [middle(first, unit), compared(first, bases[0])]
    if len(ours) == 1:
        cells += [quartiles(first, bases[0]), inside(its, limit, ours[0])]
    for variant, base in zip(ours[1:], bases[1:]):
        values = its.values.get(variant.name)
        cells += [middle(values, unit), compared(values, base), quartiles(values, first)]
    bound = unit if limit.itself else "{:g} ×".format
    cells += [NO_FIGURE if value is None else bound(value) for value in (limit.must, limit.goal)]
    return [*cells, verdict(row, limit, first, bases[0]), len(first or [])]


def brief(key, its, ours):
    """For who waits for the table."""
    limit, unit = ROWS[key].limits[0], UNITS[ROWS[key].how]
    told = []
    for variant in ours:
        values, base = its.values.get(variant.name), its.values.get(base_of(limit, variant))
        told.append(f"{variant.name} {middle(values, unit)}, {compared(values, base)}")
    return f"{key}: {'; '.join(told)}"


def base_of(limit, variant):
    return without(variant) if limit.base == WITHOUT else limit.base


def without(variant):
    return f"{variant.name} {WITHOUT}"


def middle(values, unit):
    return unit(percentile(values, 50)) if values else NO_FIGURE


def compared(values, base):
    return ratio(percentile(values, 50), percentile(base, 50)) if values and base else NO_FIGURE


def quartiles(values, base):
    """Of the ratios of the rounds: half of them were between these two."""
    if not values or not base or len(values) != len(base) or len(values) < 4:
        return NO_FIGURE
    ratios = [one / other for one, other in zip(values, base)]
    return f"{percentile(ratios, 25):.2f}-{percentile(ratios, 75):.2f}"


def inside(its, limit, variant):
    """The time in the program, after its imports."""
    ours, base = its.inside.get(variant.name), its.inside.get(base_of(limit, variant))
    if not ours or not base:
        return NO_FIGURE
    return f"{middle(ours, seconds)} to {middle(base, seconds)}, {compared(ours, base)}"


def verdict(row, limit, values, base):
    if not values:
        return "**failed**"
    if limit.must is None:
        return "measured only"
    value = percentile(values, 50)
    if not limit.itself:
        value /= percentile(base, 50)
    more_is_better = row.how == "rate"

    def reaches(bound):
        return bound is not None and (value >= bound if more_is_better else value <= bound)

    if reaches(limit.goal):
        return "goal met"
    return "met" if reaches(limit.must) else "**missed**"


def hello(measured, ours):
    """The slow ones of many."""
    names = [*(variant.name for variant in ours), *(limit.base for limit in ROWS["hello"].limits)]
    rows = [[name, *(seconds(percentile(measured.values[name], percent)) for percent in (50, 95, 99))]
            for name in names if name in measured.values]
    return aligned(["hello", "p50", "p95", "p99"], rows)


def counts(counted, runs):
    """`counted`: numbers by name, by variant."""
    names = dict.fromkeys(name for its in counted.values() for name in its)
    rows = [[name, *(f"{its.get(name, 0):.10g}" for its in counted.values())] for name in names]
    return aligned([f"counts of a hello, medians of {runs}", *counted], rows)

