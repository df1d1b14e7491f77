"""The standard tests of deepagents' sandbox backends (langchain-tests), on sessions."""

import pytest
from deepagents.backends.protocol import ExecuteResponse, FileDownloadResponse, FileUploadResponse
from deepagents.backends.sandbox import BaseSandbox
from langchain_tests.integration_tests import SandboxIntegrationTests
from session import Session

DEFAULT_TIMEOUT = 120
ERRORS = {
    FileNotFoundError: "file_not_found",
    NotADirectoryError: "file_not_found",
    PermissionError: "permission_denied",
    IsADirectoryError: "is_directory",
}


class SessionBackend(BaseSandbox):
    """A session as deepagents asks for one."""

    def __init__(self, session):
        self.session = session

    @property
    def id(self):
        return self.session.name

    def execute(self, command, *, timeout=None):
        ended = self.session.exec(["sh", "-c", command], timeout=timeout or DEFAULT_TIMEOUT)
        output = (ended.stdout + ended.stderr).decode(errors="replace")
        return ExecuteResponse(output, ended.exit_code(), "output" in ended.record["limits_hit"])

    def upload_files(self, files):
        return [self._upload(path, content) for path, content in files]

    def download_files(self, paths):
        return [self._download(path) for path in paths]

    def _upload(self, path, content):
        if not path.startswith("/"):
            return FileUploadResponse(path, "invalid_path")
        try:
            self.session.put(path, content)
        except OSError as error:
            return FileUploadResponse(path, known(error))
        return FileUploadResponse(path)

    def _download(self, path):
        if not path.startswith("/"):
            return FileDownloadResponse(path, error="invalid_path")
        try:
            return FileDownloadResponse(path, self.session.read(path))
        except OSError as error:
            return FileDownloadResponse(path, error=known(error))


def known(error):
    return ERRORS.get(type(error), str(error))


class TestSession(SandboxIntegrationTests):
    @pytest.fixture(scope="class")
    def sandbox(self):
        session = Session()
        yield SessionBackend(session)
        session.stop()
