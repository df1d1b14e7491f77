"""Inspect's checks of sandbox environments, on sessions."""

import os
from pathlib import Path

import anyio
import pytest
from inspect_ai.util import ExecResult, OutputLimitExceededError, SandboxEnvironment
from inspect_ai.util._sandbox.limits import SandboxEnvironmentLimits
from inspect_ai.util._sandbox.self_check import *  # noqa: F403
from session import USER, Session

# The exit code of a command that is there and may not be run.
MAY_NOT_BE_RUN = 126


class SessionEnvironment(SandboxEnvironment):
    """A session as Inspect asks for one."""

    def __init__(self, session):
        super().__init__()
        self.session = session

    async def exec(
        self, cmd, input=None, cwd=None, env=None, user=None, timeout=None, timeout_retry=True, concurrency=True
    ):
        given = input.encode() if isinstance(input, str) else input or b""
        workdir = os.path.join("/work", cwd) if cwd else None
        ended = await self._do(self.session.exec, cmd, given, env, workdir, user or USER, timeout)
        if ended.timed_out:
            raise TimeoutError(f"{cmd[0]} took longer than {timeout} s")
        streams = [stream.decode(errors="replace") for stream in (ended.stdout, ended.stderr)]
        if ended.exit_code() == MAY_NOT_BE_RUN and "Permission denied" in streams[1]:
            raise PermissionError(streams[1])
        return ExecResult(ended.exit_code() == 0, ended.exit_code(), *streams)

    async def write_file(self, file, contents):
        await self._do(self.session.write, file, contents.encode() if isinstance(contents, str) else contents)

    async def read_file(self, file, text=True):
        content = await self._do(self.session.read, os.path.join("/work", file))
        if len(content) > SandboxEnvironmentLimits.MAX_READ_FILE_SIZE:
            raise OutputLimitExceededError(SandboxEnvironmentLimits.MAX_READ_FILE_SIZE_STR, None)
        return content.decode() if text else content

    @classmethod
    async def sample_cleanup(cls, task_name, config, environments, interrupted):
        for environment in environments.values():
            environment.session.stop()

    @staticmethod
    async def _do(what, *arguments):
        return await anyio.to_thread.run_sync(what, *arguments)


@pytest.fixture(scope="module")
def session():
    adduser = Path(__file__).with_name("adduser")
    path = "PATH=/work/bin:/usr/local/bin:/usr/bin:/bin"
    session = Session("--memory", "512M", "--put", f"{adduser}:bin/adduser", "--env", path)
    yield session
    session.stop()


@pytest.fixture
def sandbox_env(session):
    return SessionEnvironment(session)
