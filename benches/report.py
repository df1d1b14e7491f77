"""Makes tables and a plot of what warm.py measured."""

import datetime
from pathlib import Path

import chart
import worktable
from figures import mib, percentile, ratio, seconds, table
from rows import PYTHON

BEGIN, END = "<!-- written by scripts/bench -->", "<!-- end -->"
OURS, BARE, CLEAN, FRESH = "sandbox run", PYTHON, "python3 without add-ons", "sandbox run --fresh"
PARTS = {
    "setup": "set-up, to the guest's first instruction",
    "first output": "in the guest, to the program's first output",
    "program": "in the guest, to the program's end (with the line above)",
    "teardown": "teardown of the virtual machine",
}


def write(results, directory):
    """Prints the tables, and writes them into speed.md, between the marks, with the plot beside."""
    directory.mkdir(parents=True, exist_ok=True)
    text = markdown(results)
    print(text)
    # A cold run is so far to the right that the others would all look the same.
    shown = {name: times for name, times in results.hello.items() if name != FRESH}
    (directory / "speed.svg").write_text(chart.strips(shown, BARE))
    replace(directory / "speed.md", text, BEGIN, END)


def replace(page, text, begin, end):
    """Puts this between these marks of a page, which need not exist."""
    before, _, rest = (page.read_text() if page.exists() else "").partition(begin)
    after = rest.partition(end)[2] or "\n"
    page.write_text(f"{before}{begin}\n{text}\n{end}{after}")


def markdown(results):
    return "\n\n".join([
        "![Wall clock of hello, a dot for each run](speed.svg)",
        hello_table(results),
        targets_table(results),
        worktable.of(results.work, [results.ours]),
        worktable.MEANING,
        others_table(results),
        many_table(results),
        time_table(results),
        machine(results.machine),
    ])


def hello_table(results):
    bare, clean = (percentile(results.hello[name], 50) for name in (BARE, CLEAN))
    rows = []
    for name, times in results.hello.items():
        p50, (total, written) = percentile(times, 50), results.memory[name]
        compared = ratio(p50, bare), ratio(p50, clean)
        rows.append([name, *percentiles(times), *compared, mib(total), mib(written), len(times)])
    head = [results.titles["hello"], "p50", "p95", "p99", "to python3", "to the one without add-ons",
            "private memory", "of it written", "runs"]
    return table(head, rows)


def targets_table(results):
    ours, bare, clean = (percentile(results.hello[name], 50) for name in (OURS, BARE, CLEAN))
    compute = [percentile(results.others["compute"][name], 50) for name in (OURS, BARE)]
    private = max(total for values in results.memory_at_once.values() for total, _ in values)
    most, parts = max(results.at_once), results.parts
    rows = [
        ("hello ≤ 1.5 × python3", ratio(ours, bare), ours <= 1.5 * bare),
        ("hello ≤ 1.0 × python3 (the goal)", ratio(ours, bare), ours <= bare),
        ("hello ≤ 1.0 × python3 without add-ons", ratio(ours, clean), ours <= clean),
        ("compute ≤ 1.05 × python3", ratio(*compute), compute[0] <= 1.05 * compute[1]),
        ("private memory ≤ 12 MiB for each VM", f"{mib(private)} at most", private <= 12 << 20),
        (f"{most} at once all succeed", "they do", True),  # else there is no table
        ("set-up ≤ 2 ms", seconds(parts["setup"]), parts["setup"] <= 2e-3),
        ("teardown ≤ 1 ms", seconds(parts["teardown"]), parts["teardown"] <= 1e-3),
        ("first run ever, with an empty cache ≤ 35 s", seconds(results.first_ever), results.first_ever <= 35),
    ]
    rows = [[name, value, "met" if met else "**missed**"] for name, value, met in rows]
    return table(["target", "measured", ""], rows)


def others_table(results):
    rows = []
    for program, times in results.others.items():
        ours, bare = times[OURS], times[BARE]
        compared = ratio(percentile(ours, 50), percentile(bare, 50))
        rows.append([results.titles[program], *percentiles(ours), *percentiles(bare), compared, len(ours)])
    head = [f"{name} {rank}" for name in ("sandbox", "python3") for rank in ("p50", "p95", "p99")]
    return table(["other programs", *head, "p50 to p50", "runs"], rows)


def many_table(results):
    runs, took = results.back_to_back
    rows = [[f"{runs} back to back", *(f"{runs / took[name]:.0f}" for name in (OURS, BARE)), "", ""]]
    for number, rates in results.at_once.items():
        private = [total for total, _ in results.memory_at_once[number]]
        rows.append([f"{number} at once", f"{rates[OURS]:.0f}", f"{rates[BARE]:.0f}",
                     mib(sum(private) / number), mib(max(private))])
    head = ["hello, many times", "sandbox, runs per second", "python3", "private memory for each VM", "the largest"]
    alone, written = results.memory_alone
    notes = [
        f"{runs} back to back: {seconds(took[OURS])}, python3 {seconds(took[BARE])}.",
        f"With {max(results.at_once)} at once, the machine had {mib(results.available)} less memory available",
        "for each VM, the host kernel's part included.",
        f"A VM while no other runs: {mib(alone)} of private memory, {mib(written)} of it written;",
        "the rest is page cache that the next VM would share.",
    ]
    return table(head, rows) + "\n\n" + "\n".join(notes)


def time_table(results):
    parts = results.parts
    rows = [[PARTS.get(name, name), seconds(value)] for name, value in parts.items() if name != "whole process"]
    named = sum(parts.get(name, 0) for name in ("setup", "kernel", "agent", "program", "teardown"))
    rows.append(["the rest: start and exit of the process", seconds(parts["whole process"] - named)])
    rows.append(["whole process", seconds(parts["whole process"])])
    rows += [[f"number of {name}", f"{count:g}"] for name, count in results.counts.items() if count]
    return table(["where the time of a warm hello goes", f"median of {results.told}"], rows)


def machine(facts):
    facts = [f"{name}: {what}" for name, what in facts.items()]
    return "\n".join([f"Measured on {datetime.date.today().isoformat()}:", "", *(f"- {fact}" for fact in facts)])


def percentiles(times):
    return [seconds(percentile(times, percent)) for percent in (50, 95, 99)]
