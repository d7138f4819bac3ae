"""What fails runs once more, alone: what was disturbed passes then, what is wrong does not."""

import again
import pytest
from small_notebooks import write_notebook

pytestmark = pytest.mark.authors

SETTINGS = """
[pytest]
addopts = --strict-markers -m "not left_out"
markers =
    left_out: not in this run
"""
TESTS = """
import pathlib

import pytest

def seen_before(name):
    before = pathlib.Path(name).exists()
    with open(name, "a") as file:
        file.write("run ")
    return before

def test_right():
    seen_before("right")

@pytest.mark.parametrize("case", ["a b", r"sqrt\\(3\\)", "a::b", "[c]"])
def test_disturbed(case):
    assert seen_before(f"disturbed {ord(case[1])}"), "too slow"

@pytest.mark.left_out
def test_left_out():
    assert False
"""
NBVAL = ("-p", "nbval.plugin", "--nbval", "--nbval-current-env")
TWO_AT_A_TIME = ("-n", "2", "--dist", "loadscope", "--no-loadscope-reorder")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "pytest.ini").write_text(SETTINGS)
    (tmp_path / "test_few.py").write_text(TESTS)
    monkeypatch.setattr(again, "ROOT", tmp_path)
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # they take seconds to load
    monkeypatch.setattr(again.signal, "signal", lambda *_: None)
    return tmp_path


def run(path, *options, **variables):
    return again.pytest_twice("-q", "-p", "xdist", *options, paths=[path], **variables)


def test_what_was_disturbed_is_green_the_second_time_and_named(folder, capfd):
    assert run("test_few.py", *TWO_AT_A_TIME) == 0
    assert (folder / "right").read_text() == "run "
    shown = capfd.readouterr().out
    assert "too slow" in shown
    named = shown.partition("Once more, alone, for the machine may have been busy:\n")[2]
    assert named.count("test_few.py::test_disturbed[") == 4
    assert "4 passed" in named
    assert not (folder / ".pytest_cache" / "v" / "cache" / "lastfailed").exists()


def test_what_is_wrong_stays_red(folder):
    (folder / "test_few.py").write_text("def test_wrong():\n    assert False\n")
    assert run("test_few.py") == 1


def test_of_a_notebook_all_cells_run_again(folder):
    write_notebook(
        folder / "some.ipynb",
        ("code", "import pathlib; file = pathlib.Path('before'); known = file.exists()", [], ""),
        ("code", "file.touch(); print(known)", [], "True\n"),
    )
    assert run("some.ipynb", *NBVAL) == 0


def test_if_much_fails_nothing_runs_again(folder, monkeypatch, capfd):
    monkeypatch.setattr(again, "MOST", 3)
    assert run("test_few.py") == 1
    assert "Once more" not in capfd.readouterr().out


def test_a_file_that_cannot_be_read_is_no_disturbance(folder, capfd):
    (folder / "test_few.py").write_text("import nothing_of_this_name\n")
    assert run("test_few.py") == 2
    assert run("test_few.py", "--no-such-option") == 4
    assert "Once more" not in capfd.readouterr().out


def test_without_a_list_of_failures_the_status_is_kept(folder):
    assert run("test_few.py", PYTEST_ADDOPTS="-p no:cacheprovider") == 1
