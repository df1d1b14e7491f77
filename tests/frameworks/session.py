"""A session of `sandbox`, asked over its socket (docs/session-protocol.md)."""

import base64
import errno
import json
import os
import secrets
import socket
import stat
import struct
import subprocess
import threading
from dataclasses import dataclass
from pathlib import Path

SANDBOX = os.environ["SANDBOX"]
# The bytes of a path, the mode, the bytes of the content and the time of change (docs/session-protocol.md).
RECORD = struct.Struct("<IIQq")
NO_TIME = -(1 << 63)
PIECE = 1 << 18
USER = "sandbox"
# What a shell says where it cannot write a file.
WRITE_ERRORS = errno.EACCES, errno.EISDIR, errno.ENOTDIR, errno.EROFS, errno.ENOSPC


@dataclass
class Ended:
    """What became of a command."""

    record: dict
    error: dict | None
    stdout: bytes
    stderr: bytes

    @property
    def timed_out(self):
        return self.record["status"] == "timeout"

    def exit_code(self):
        """As a shell tells it."""
        code, signal = self.record["exit_code"], self.record["signal"]
        return code if signal is None else 128 + signal


class Session:
    """A machine of its own, which ends with this process. Its user is an ordinary one, though it has root."""

    def __init__(self, *options):
        self.name = f"suite-{secrets.token_hex(4)}"
        command = [SANDBOX, "session", "start", "--quiet", "--with-parent", "--root", self.name, *options]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
        self.socket = str(Path(os.environ["XDG_RUNTIME_DIR"], "sandbox", f"{self.name}.sock"))

    def stop(self):
        subprocess.run([SANDBOX, "session", "stop", self.name], check=True)

    def exec(self, argv, input=b"", env=None, workdir=None, user=USER, timeout=None):
        """Runs a command to its end."""
        asked = dict(verb="exec", argv=argv, env=env, workdir=workdir, user=user, timeout_s=timeout)
        return self._ask({"input": True} | {name: value for name, value in asked.items() if value is not None}, [input])

    def read(self, path):
        """Returns the content of a file."""
        ended = self._ask({"verb": "get", "format": "records", "paths": [path], "user": USER}, [])
        check(ended)
        for mode, _, content in records(ended.stdout):
            if mode == 0:
                raise OSError(content, os.strerror(content), path)
            if stat.S_ISDIR(mode):
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
            return content
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)

    def put(self, path, content):
        """Makes a file in place of what is there, and the directories above it."""
        name = path.encode()
        head = RECORD.pack(len(name), stat.S_IFREG | 0o644, len(content), NO_TIME) + name
        end = RECORD.pack(0, 0, 0, NO_TIME)
        check(self._ask({"verb": "put", "format": "records", "user": USER}, [head, content, end]))

    def write(self, path, content):
        """Writes a file as a shell does: one that may not be written to stays. Makes the directories above it."""
        script = 'mkdir -p -- "$(dirname -- "$1")" && cat >"$1"'
        ended = self.exec(["sh", "-c", script, "sh", path], input=content)
        for code in WRITE_ERRORS:
            if os.strerror(code).encode() in ended.stderr:
                raise OSError(code, os.strerror(code), path)
        check(ended)

    def _ask(self, request, input):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(self.socket)
            connection.sendall(line(request))
            sender = threading.Thread(target=self._send, args=(connection, input), daemon=True)
            sender.start()
            streams = {"stdout": [], "stderr": []}
            for text in connection.makefile("rb"):
                message = json.loads(text)
                match message["event"]:
                    case "output":
                        streams[message["stream"]].append(data(message))
                    case "ended":
                        joined = {stream: b"".join(pieces) for stream, pieces in streams.items()}
                        return Ended(message["record"], message.get("error"), **joined)
                    case "refused":
                        raise OSError(message["error"]["message"])
        raise ConnectionError(f"the session {self.name} ended")

    @staticmethod
    def _send(connection, input):
        # To a command that has ended, or that reads nothing, what is left may not come.
        try:
            for content in input:
                for at in range(0, len(content), PIECE):
                    text = base64.b64encode(content[at : at + PIECE]).decode()
                    connection.sendall(line({"verb": "input", "data": text, "encoding": "base64"}))
            connection.sendall(line({"verb": "input_end"}))
        except OSError:
            pass


def line(request):
    return json.dumps(request).encode() + b"\n"


def data(message):
    if message.get("encoding") == "base64":
        return base64.b64decode(message["data"])
    return message["data"].encode()


def records(stream):
    """The mode, path and content of each record; errno in place of the content where the mode is 0."""
    at = 0
    while at < len(stream):
        path, mode, size, _ = RECORD.unpack_from(stream, at)
        at += RECORD.size
        if path == 0:
            return
        name, at = stream[at : at + path], at + path
        yield mode, name, size if mode == 0 else stream[at : at + size]
        at += 0 if mode == 0 else size


def check(ended):
    """Raises what a command that moves files failed with."""
    if ended.error or ended.exit_code() != 0:
        raise OSError((ended.error or {}).get("message") or ended.stderr.decode(errors="replace"))
