"""The programs that are timed, in text and in what they print."""

from dataclasses import dataclass
from pathlib import Path

# Around the work of a program, what it imports first left out. One line more on standard error is all that it costs.
INSIDE = """\
{imports}
import sys, time
began = time.perf_counter()
{text}
sys.stdout.flush()
print("inside", time.perf_counter() - began, file=sys.stderr)"""


# One of the files that the program `tests` finds.
TEST = """\
import unittest


class Sums(unittest.TestCase):
    def test_of_none(self):
        self.assertEqual(sum([]), 0)

    def test_of_some(self):
        self.assertEqual(sum(range(10)), 45)
"""


@dataclass
class Program:
    title: str
    text: str
    output: bytes
    imports: str | None = None  # where it tells the time inside, too
    suffix: str = ".py"
    file: str = ""  # once it is written

    def write(self, directory, name):
        # No name of a module: that would be found in place of the library's.
        file = Path(directory, f"run-{name}{self.suffix}").absolute()
        told = self.imports is not None
        file.write_text((INSIDE.format(imports=self.imports, text=self.text) if told else self.text) + "\n")
        self.file = str(file)


PROGRAMS = {
    "hello": Program("`print('hello')`", "print('hello')", b"hello\n"),
    "imports": Program("`import json, re, sqlite3`", "import json, re, sqlite3\nprint('imported')", b"imported\n"),
    "compute": Program("1 s of pure-Python integer arithmetic", """\
def longest_collatz(limit):
    longest = 0
    for start in range(1, limit):
        n, steps = start, 0
        while n != 1:
            n = n // 2 if n % 2 == 0 else 3 * n + 1
            steps += 1
        longest = max(longest, steps)
    return longest


print(longest_collatz(180_000))""", b"382\n"),
    "strings": Program("300,000 new strings, 30 MiB of memory", """\
words = [str(number) for number in range(300_000)]
print(len(set(words)))""", b"300000\n", imports=""),
    "touch": Program("64 MiB of new memory touched", """\
memory = bytearray(64 << 20)
for place in range(0, len(memory), 4096):
    memory[place] = 1
print(sum(memory[::4096]))""", b"16384\n", imports=""),
    "output": Program("8 MiB through standard output, buffered", """\
for _ in range(128):
    sys.stdout.write("x" * 65535 + "\\n")""", (b"x" * 65535 + b"\n") * 128, imports=""),
    "writes": Program("8 MiB through standard output, in 8,192 writes", """\
for _ in range(8192):
    os.write(1, b"x" * 1023 + b"\\n")""", (b"x" * 1023 + b"\n") * 8192, imports="import os"),
    "subprocess": Program('`subprocess.run([sys.executable, "-c", "pass"])`', """\
subprocess.run([sys.executable, "-c", "pass"], check=True)
print("done")""", b"done\n", imports="import subprocess"),
    "files": Program("1,000 small files written and read", """\
for number in range(1000):
    with open(f"{number}.txt", "w") as file:
        file.write("x" * 1000)
size = 0
for number in range(1000):
    with open(f"{number}.txt") as file:
        size += len(file.read())
print(size)""", b"1000000\n", imports=""),
    "sqlite": Program("20,000 sqlite inserts into a file, in one transaction", """\
database = sqlite3.connect("numbers.db")
database.execute("create table numbers (number integer, text text)")
for number in range(20_000):
    database.execute("insert into numbers values (?, ?)", (number, str(number)))
database.commit()
print(database.execute("select count(*) from numbers").fetchone()[0])""", b"20000\n", imports="import sqlite3"),
    "pool": Program("`multiprocessing.Pool(4).map` of 1,000 squares", """\
def square(number):
    return number * number


with multiprocessing.Pool(4) as pool:
    print(sum(pool.map(square, range(1000))))""", b"332833500\n", imports="import multiprocessing"),
    "threads": Program("100 threads started and joined", """\
done = []
threads = [threading.Thread(target=done.append, args=[number]) for number in range(100)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(len(done))""", b"100\n", imports="import threading"),
    "http": Program("100 requests to a server of its own, over loopback", """\
class Hello(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "5")
        self.end_headers()
        self.wfile.write(b"hello")

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hello)
threading.Thread(target=server.serve_forever, daemon=True).start()
size = 0
for _ in range(100):
    connection = http.client.HTTPConnection(*server.server_address)
    connection.request("GET", "/")
    size += len(connection.getresponse().read())
    connection.close()
server.shutdown()
print(size)""", b"500\n", imports="import http.client, http.server, threading"),
    "tests": Program("970 files of tests, found and run by `unittest`", """\
sys.dont_write_bytecode = True  # the next run is to find what this one did
found = unittest.defaultTestLoader.discover(os.path.join(os.path.dirname(os.path.abspath(__file__)), "tests"))
result = unittest.TextTestRunner(io.StringIO()).run(found)
print(result.testsRun, result.wasSuccessful())""", b"1940 True\n", imports="import io, os, unittest"),
    "bash": Program("a bash script: `echo hello`", "echo hello", b"hello\n", suffix=".sh"),
    "make files": Program("", """\
import os
os.mkdir("files")
for number in range(1000):
    with open(f"files/{number}.txt", "w") as file:
        file.write("x" * 1000)""", b""),
    "make byte": Program("", """\
with open("byte", "w") as file:
    file.write("x")""", b""),
    "make bytes": Program("", """\
import os
part = os.urandom(1_000_000)
with open("bytes", "wb") as file:
    for _ in range(100):
        file.write(part)""", b""),
    "hello, then wait": Program("", """\
import sys, time
print("hello", flush=True)
time.sleep(float(sys.argv[1]))""", b"hello\n"),
}


def write(directory):
    for name, program in PROGRAMS.items():
        program.write(directory, name.replace(", ", "-").replace(" ", "-"))
