"""Of a test marked `sampled(n)` each n-th case is in the suite, and the others are not lost."""

import os
import subprocess
import sys

import pytest

from course_utils.transformer import ROOT

pytestmark = pytest.mark.authors

SETTINGS = """
[pytest]
addopts = --strict-markers -m "not thorough"
markers =
    sampled(n): some
    thorough: the others
"""
TESTS = """
import pytest

@pytest.mark.sampled(3)
@pytest.mark.parametrize("case", "abcdefg")
def test_long(case):
    pass

@pytest.mark.sampled(3)
@pytest.mark.parametrize("left", "ab")
@pytest.mark.parametrize("right", "cd")
def test_pairs(left, right):
    pass

def test_other():
    pass
"""


@pytest.fixture
def ran(tmp_path):
    """A function that runs two sampled tests and another one: the names of the cases that ran."""
    (tmp_path / "pytest.ini").write_text(SETTINGS)
    (tmp_path / "test_few.py").write_text(TESTS)
    (tmp_path / "conftest.py").write_bytes((ROOT / "tests" / "conftest.py").read_bytes())
    support = f"pythonpath={ROOT / 'tests' / 'support'}"
    environment = os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}

    def run(*arguments):
        command = [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", "-o", support]
        done = subprocess.run(
            [*command, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return {line.split("::")[1].split()[0] for line in done.stdout.splitlines() if "::" in line}

    return run


def test_the_suite_has_each_nth_case_and_thorough_the_others(ran):
    long = [f"test_long[{case}]" for case in "adg"], [f"test_long[{case}]" for case in "bcef"]
    assert ran() == {*long[0], "test_pairs[c-a]", "test_pairs[d-b]", "test_other"}
    assert ran("-m", "thorough") == {*long[1], "test_pairs[c-b]", "test_pairs[d-a]"}


def test_a_case_that_is_named_runs(ran):
    assert ran("test_few.py::test_long[b]") == {"test_long[b]"}
