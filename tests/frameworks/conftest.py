"""Tests of others that fail for reasons of their own, with any sandbox."""

import pytest

ABSOLUTE = "deepagents returns absolute paths, the tests expect relative ones"
OWN_REASONS = {
    "test_glob": ABSOLUTE,
    "test_glob_basic_pattern": ABSOLUTE,
    "test_glob_with_directories": ABSOLUTE,
    "test_glob_hidden_files_explicitly": ABSOLUTE,
    "test_glob_with_character_class": ABSOLUTE,
    "test_glob_with_question_mark": ABSOLUTE,
    "test_write_existing_file_fails": "deepagents replaces a file that is there, the test expects an error",
}


def pytest_collection_modifyitems(items):
    for item in items:
        if reason := OWN_REASONS.get(item.name):
            item.add_marker(pytest.mark.xfail(reason=reason, strict=True))
