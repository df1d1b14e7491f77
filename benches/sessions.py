#!/usr/bin/python3
"""Times sessions: sessions.py REPOSITORY [--quick]. Writes a table into docs/speed.md; with --quick, prints it only.

Verbs are whole processes, from start to exit. What is over the socket is asked by a client that is there already.
"""

import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import machine
import report
from figures import mib, percentile, seconds, table
from process import private_memory

MARKS = "<!-- sessions: written by scripts/bench -->", "<!-- end of sessions -->"
# The time in which an idle session is looked at, once it has come to rest, and how long that takes.
WATCHED, REST = 20, 20
MEBIBYTE = 1 << 20


class Sessions:
    """The sessions in a directory of this benchmark's own, and a way to ask for them."""

    def __init__(self, sandbox, directory):
        self.sandbox = sandbox
        self.place = Path(directory, "sandbox")
        self.environment = os.environ | {"XDG_RUNTIME_DIR": directory}

    def verb(self, *words):
        """Seconds of a verb."""
        began = time.perf_counter()
        command = [self.sandbox, *words]
        subprocess.run(command, check=True, env=self.environment, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
        return time.perf_counter() - began

    def start(self, name, *options):
        return self.verb("session", "start", "--quiet", name, *options)

    def stop_all(self):
        self.verb("session", "stop", "--all")

    @contextlib.contextmanager
    def connection(self, name):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(self.place / f"{name}.sock"))
            yield Client(connection)


class Client:
    def __init__(self, connection):
        self.connection = connection
        self.lines = connection.makefile("r")

    def ask(self, end, files=(), **request):
        """Sends a request, and waits for a message with this name."""
        line = json.dumps(request).encode() + b"\n"
        if files:
            socket.send_fds(self.connection, [line], files)
        else:
            self.connection.sendall(line)
        for line in self.lines:
            message = json.loads(line)
            if message["event"] == end:
                return message
            if message["event"] in ("refused", "over"):
                sys.exit(f"bench: {request['verb']} was answered with {message}")
        sys.exit("bench: a session ended")

    def cell(self, code):
        record = self.ask("ended", verb="run", code=code)["record"]
        if (record["status"], record["exit_code"]) != ("exited", 0):
            sys.exit(f"bench: a cell failed: {record}")

    def process(self):
        return self.ask("described", verb="describe")["pid"]


def main():
    repository, quick = Path(sys.argv[1]), "--quick" in sys.argv
    sandbox = str(repository / "target/sandbox")
    rounds = 5 if quick else 100
    with tempfile.TemporaryDirectory(prefix="sandbox-bench-") as directory:
        sessions = Sessions(sandbox, directory)
        facts = machine.describe(sandbox)
        try:
            rows = measure(sessions, Path(directory), rounds, quick)
        finally:
            sessions.stop_all()
    head = ["sessions", "measured", "must", "goal", "", "runs"]
    text = table(head, rows) + "\n\n" + report.machine(facts | machine.afterwards())
    print(text)
    if not quick:
        report.replace(repository / "docs/speed.md", text, *MARKS)


def measure(sessions, directory, rounds, quick):
    rows = [start(sessions, rounds), *cells(sessions, rounds)]
    rows += files(sessions, directory, rounds)
    rows += [first_line(sessions, rounds // 5)]
    rows += [pause(sessions, size, must, rounds // 5) for size, must in ((32, 0.05), (200, 0.25))]
    rows += many(sessions, 5 if quick else 100)
    rows += idle(sessions, 2 if quick else WATCHED, 2 if quick else REST)
    return rows


def row(title, value, must, goal, runs, unit=seconds):
    verdict = "goal met" if goal and value <= goal else "met" if value <= must else "**missed**"
    return [title, unit(value), unit(must), unit(goal) if goal else "–", verdict, runs]


def start(sessions, rounds):
    hello, started = [], []
    sessions.verb("run", "-c", "print(1)")
    for _ in range(rounds):
        hello.append(sessions.verb("run", "-c", "print(1)"))
        started.append(sessions.start("a"))
        sessions.verb("session", "stop", "a")
    value = percentile(started, 50) / percentile(hello, 50)
    title = f"`session start`, {seconds(percentile(started, 50))}, to a hello, {seconds(percentile(hello, 50))}"
    return row(title, value, 1.5, None, rounds, "{:.2f} ×".format)


def cells(sessions, rounds):
    """Cells that print a line, over the socket."""
    sessions.start("a")
    times = []
    with sessions.connection("a") as client:
        client.cell("print(0)")
        for number in range(10 * rounds):
            began = time.perf_counter()
            client.cell(f"print({number})")
            times.append(time.perf_counter() - began)
    sessions.verb("session", "stop", "a")
    p50, p99 = (percentile(times, percent) for percent in (50, 99))
    return [
        row("a cell that prints a line, over the socket", p50, 3e-3, 1e-3, len(times)),
        row("the same, p99 to p50", p99 / p50, 3, None, len(times), "{:.2f} ×".format),
    ]


def files(sessions, directory, rounds):
    """A mebibyte into a session, and out of it."""
    data = directory / "mebibyte"
    data.write_bytes(os.urandom(MEBIBYTE))
    sessions.start("a")
    put, get = [], []
    for _ in range(rounds):
        put.append(sessions.verb("session", "put", "a", str(data)))
        get.append(sessions.verb("session", "get", "--force", "a", f"mebibyte:{directory}/out"))
    if data.read_bytes() != (directory / "out").read_bytes():
        sys.exit("bench: what came out is not what went in")
    sessions.verb("session", "stop", "a")
    return [
        row("`session put` of 1 MiB", percentile(put, 50), 5e-3, None, rounds),
        row("`session get` of 1 MiB", percentile(get, 50), 5e-3, None, rounds),
    ]


def first_line(sessions, rounds):
    """From the start of a fork to the end of the first cell of what came of it."""
    sessions.start("a")
    sessions.verb("session", "run", "a", "-c", "import json, re, random")
    times = []
    for number in range(1, rounds + 1):
        began = time.perf_counter()
        sessions.verb("session", "fork", "--quiet", "a")
        with sessions.connection(f"a-{number}") as client:
            client.cell("print(1)")
        times.append(time.perf_counter() - began)
    sessions.stop_all()
    return row("`session fork`, to the first line of a child", percentile(times, 50), 0.03, 0.01, rounds)


def pause(sessions, size, must, rounds):
    """How long a session of 256 MiB stands still that has so many MiB of its own."""
    sessions.start("a", "--memory", "256M")
    times = []
    with sessions.connection("a") as client:
        client.cell(f"import os; kept = bytearray(os.urandom(1 << 20)) * {size}")
        for _ in range(rounds):
            client.cell("kept[0] ^= 1")
            file = os.memfd_create("machine", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
            try:
                saved = client.ask("saved", [file], verb="save", purpose="fork")
            finally:
                os.close(file)
            times.append(saved["paused_ms"] / 1000)
    sessions.verb("session", "stop", "a")
    return row(f"pause of a session that is forked, with {size} MiB of its own", percentile(times, 50), must, None, rounds)


def many(sessions, count):
    """So many children of one fork, and what each of them takes before it works."""
    sessions.start("a", "--memory", "256M")
    sessions.verb("session", "run", "a", "-c", "x = 1")
    took = sessions.verb("session", "fork", "--quiet", "a", "--count", str(count))
    pids = []
    for number in range(1, count + 1):
        with sessions.connection(f"a-{number}") as client:
            pids.append(client.process())
    private = [total for total, _ in private_memory(pids)]
    sessions.stop_all()
    return [
        row(f"`session fork --count {count}`", took, 2, None, 1),
        row("private memory of each of these, before it works", sum(private) / count, 4 * MEBIBYTE, None, count, mib),
    ]


def idle(sessions, watched, rest):
    """What a session takes that is asked nothing, beside another one: what they share is neither's own."""
    for name in ("b", "a"):
        sessions.start(name)
        with sessions.connection(name) as client:
            client.cell("x = 1")
            pid = client.process()
    time.sleep(rest)
    before = switches(pid)
    time.sleep(watched)
    wakes = (switches(pid) - before) / watched
    [(private, _)] = private_memory([pid])
    return [
        row("times that an idle session wakes up, a second", wakes, 1, None, 1, "{:.2f}".format),
        row("private memory of an idle session", private, 15 * MEBIBYTE, None, 1, mib),
    ]


def switches(pid):
    """How often the threads of a process have gone to sleep."""
    found = 0
    for status in Path(f"/proc/{pid}/task").glob("*/status"):
        lines = status.read_text().splitlines()
        found += sum(int(line.split()[1]) for line in lines if line.startswith("voluntary_ctxt_switches"))
    return found


if __name__ == "__main__":
    main()
