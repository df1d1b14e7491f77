"""Clients of `sandbox mcp`, over both doors, and one that floods it."""

import contextlib
import http.client
import json
import multiprocessing
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

VERSION = "2026-07-28"
META = {
    "io.modelcontextprotocol/protocolVersion": VERSION,
    "io.modelcontextprotocol/clientInfo": {"name": "bench", "version": "1"},
    "io.modelcontextprotocol/clientCapabilities": {},
}


def request(number, method, params):
    return {"jsonrpc": "2.0", "id": number, "method": method, "params": {**params, "_meta": META}}


def run_code(number, code):
    return request(number, "tools/call", {"name": "run_code", "arguments": {"code": code}})


class Agent:
    """A server on standard input and output."""

    def __init__(self, sandbox):
        self.server = subprocess.Popen([sandbox, "mcp"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.server.kill()
        self.server.wait()
        self.server.stdin.close()

    def tell(self, message):
        self.server.stdin.write(json.dumps(message).encode() + b"\n")
        self.server.stdin.flush()

    def start_call(self, code):
        self.tell(run_code(1, code))
        return 1

    def cancel(self, call):
        self.tell({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": call}})

    def hang_up(self):
        self.server.stdin.close()

    def kill(self):
        self.server.kill()

    def machine(self):
        """Waits until a machine runs, and gives its process."""
        while True:
            for thread in threads(self.server.pid):
                for pid in read(thread / "children").split():
                    if any(read(thread / "comm") == "vcpu\n" for thread in threads(pid)):
                        return pid
            time.sleep(0.001)


def threads(pid):
    directory = Path(f"/proc/{pid}/task")
    try:
        return [directory / name for name in os.listdir(directory)]
    except (FileNotFoundError, ProcessLookupError):
        return []


def read(path):
    """Nothing of a process that has ended."""
    try:
        return path.read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def gone(pid):
    """Waits until a process has ended with all its threads, whether or not its parent knows."""
    def lives(stat):
        return stat and stat.rpartition(")")[2].split()[0] not in "ZX"

    while any(lives(read(thread / "stat")) for thread in threads(pid)):
        time.sleep(0.0002)


class Web:
    """A server on loopback, with a token for each of its clients."""

    def __init__(self, sandbox, directory, clients):
        self.tokens, lines = {}, []
        for client in clients:
            told = subprocess.run([sandbox, "mcp", "token", client], capture_output=True, text=True, check=True).stdout
            self.tokens[client] = re.search("^token: *(.*)$", told, re.M)[1]
            lines.append(re.search("^line: *(.*)$", told, re.M)[1])
        tokens = Path(directory, "tokens")
        tokens.write_text("\n".join(lines) + "\n")
        command = [sandbox, "mcp", "--http", "127.0.0.1:0", "--tokens", str(tokens)]
        self.server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        self.address = re.search(r"http://([0-9.:]+)", self.server.stderr.readline())[1]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.server.terminate()
        self.server.wait()

    def connect(self):
        return http.client.HTTPConnection(self.address)

    def post(self, connection, client, code):
        """Status and text of an answer to a call."""
        connection.request("POST", "/mcp", json.dumps(run_code(1, code)), {
            "Authorization": f"Bearer {self.tokens[client]}", "Content-Type": "application/json",
            "Accept": "application/json, text/event-stream", "MCP-Protocol-Version": VERSION,
            "Mcp-Method": "tools/call", "Mcp-Name": "run_code",
        })
        answer = connection.getresponse()
        return answer.status, answer.read()

    def timed_call(self, client):
        """Seconds that one call takes, with a connection of its own."""
        began = time.perf_counter()
        with contextlib.closing(self.connect()) as connection:
            status, text = self.post(connection, client, "print(6 * 7)")
        if status != 200 or b'"42\\n"' not in text:
            sys.exit(f"bench: this call was to succeed: {status} {text}")
        return time.perf_counter() - began


class Flood:
    """Calls at this rate, by a process of its own; afterwards, how many a second there were."""

    def __init__(self, web, client, rate):
        self.web, self.client, self.rate = web, client, rate
        self.over, self.reached = multiprocessing.Event(), multiprocessing.Value("d")
        self.process = multiprocessing.Process(target=self.send)

    def __enter__(self):
        self.process.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.process.join()

    def send(self):
        began, threads = time.monotonic(), 50
        sent = [0] * threads
        workers = [threading.Thread(target=self.send_some, args=[sent, place, began]) for place in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        self.reached.value = sum(sent) / (time.monotonic() - began)

    def send_some(self, sent, place, began):
        with contextlib.closing(self.web.connect()) as connection:
            while not self.over.is_set():
                self.web.post(connection, self.client, "sum(range(10**6))")
                sent[place] += 1
                time.sleep(max(0, began + sent[place] * len(sent) / self.rate - time.monotonic()))
