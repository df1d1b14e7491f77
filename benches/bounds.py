#!/usr/bin/python3
"""Measures how tight bounds are: how late a limit or a cancellation ends a machine, what another client's flood
costs, and what confinement and the guest's events cost. Prints a table, and writes it to docs/bounds.md.

Usage: bounds.py REPOSITORY RUNS: that many of each kind.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import machine
import report
from agent import Agent, Flood, Web, gone
from figures import percentile, ratio, seconds

LIMIT = 0.5
FOREVER = "while True: pass"
# What each program does when its time is up.
STUBBORN = {
    "spins": FOREVER,
    "sleeps": "import time\ntime.sleep(99)",
    "floods its output": "import os\nwhile True: os.write(1, b'x' * 65536)",
    "forks without end": "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass",
    "ignores every signal": """\
import signal
for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
    signal.signal(number, signal.SIG_IGN)
while True: pass""",
}
PROGRAMS = {
    "compute": "total = 0\nfor number in range(6_000_000): total += number * number",
    "files": "for _ in range(200): open('/work/a', 'w').close()",
    "processes": "import subprocess\nfor _ in range(20): subprocess.run(['/bin/true'])",
}


def overrun(sandbox, runs, code):
    """Seconds past the time limit."""
    command = [sandbox, "run", "--json", "--max-output", "1M", "-t", str(LIMIT), "-c", code]
    for _ in range(runs):
        record = json.loads(subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL).stdout)
        if record["status"] != "timeout":
            sys.exit(f"bench: this run was to reach its limit: {record}")
        yield record["timings_ms"]["guest"] / 1000 - LIMIT


def ended_by(sandbox, runs, end):
    """Seconds from what ends a call to the end of its machine's process."""
    for _ in range(runs):
        with Agent(sandbox) as agent:
            call = agent.start_call(FOREVER)
            process = agent.machine()
            time.sleep(0.02)
            began = time.perf_counter()
            end(agent, call)
            gone(process)
            yield time.perf_counter() - began


def taking_turns(runs, commands):
    """Seconds that each command takes."""
    times = [[] for _ in commands]
    for _ in range(runs):
        for command, its in zip(commands, times):
            began = time.perf_counter()
            subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, check=True)
            its.append(time.perf_counter() - began)
    return times


def price(sandbox, runs, code, without, with_it):
    """Medians of seconds."""
    commands = [[sandbox, "run", "--quiet", *options, "-c", code] for options in (without, with_it)]
    return [percentile(times, 50) for times in taking_turns(runs, commands)]


def beside_a_flood(sandbox, runs):
    """Medians of seconds that a client's call takes alone, and while another is to send 1,000 a second; how many it did."""
    with tempfile.TemporaryDirectory() as directory, Web(sandbox, directory, ["honest", "flood"]) as web:
        alone = [web.timed_call("honest") for _ in range(runs)]
        with Flood(web, "flood", 1000) as flood:
            beside = [web.timed_call("honest") for _ in range(runs)]
    return percentile(alone, 50), percentile(beside, 50), flood.reached.value


def lateness_rows(sandbox, runs):
    for name, code in STUBBORN.items():
        yield f"past the time limit, a program that {name}", list(overrun(sandbox, runs, code))
    for name, end in {
        "its call was cancelled": lambda agent, call: agent.cancel(call),
        "its client hung up": lambda agent, _: agent.hang_up(),
        "its server was killed": lambda agent, _: agent.kill(),
    }.items():
        yield f"until a machine was gone after {name}", list(ended_by(sandbox, runs, end))


def late(name, values):
    p99 = percentile(values, 99)
    say(f"{name}: {seconds(p99)}")
    figures = [seconds(percentile(values, percent)) for percent in (50, 99)]
    return [name, *figures, seconds(max(values)), len(values), met(p99 <= 0.1)]


def price_rows(sandbox, runs):
    without, confined = price(sandbox, runs, "print('hello')", ["--confine=off"], ["--confine=require"])
    yield ["confinement of a hello ≤ 0.5 ms", seconds(without), seconds(confined),
           seconds(max(confined - without, 0)), met(confined - without <= 5e-4)]
    for name, code in PROGRAMS.items():
        without, told = price(sandbox, max(runs // 5, 1), code, [], ["--json"])
        yield [f"a record with the guest's events, {name} ≤ 1.05 ×", seconds(without), seconds(told),
               ratio(told, without), met(told <= 1.05 * without)]
    alone, beside, sent = beside_a_flood(sandbox, runs)
    yield [f"a client's call beside another's {sent:.0f} a second ≤ 2 ×", seconds(alone), seconds(beside),
           ratio(beside, alone), met(beside <= 2 * alone)]


def met(is_met):
    return "met" if is_met else "**missed**"


def say(text):
    print(f"bench: {text}", file=sys.stderr)


def main():
    repository = Path(sys.argv[1])
    sandbox, runs = str(repository / "target/sandbox"), int(sys.argv[2])
    facts = machine.describe(sandbox)
    head = ["how late (p99 ≤ 100 ms)", "p50", "p99", "the latest", "runs", ""]
    lateness = report.table(head, [late(*row) for row in lateness_rows(sandbox, runs)])
    head = ["what it costs", "p50 without", "p50 with", "more", ""]
    prices = report.table(head, list(price_rows(sandbox, runs)))
    text = "\n\n".join([lateness, prices, report.machine(facts)])
    print(text)
    report.replace(repository / "docs/bounds.md", text)


main()
