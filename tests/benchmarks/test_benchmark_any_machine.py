"""The runs on imitated machines: what is imitated, what counts as a failure, and going on."""

import json
import os
import subprocess
import sys

import nbformat
import pandas as pd
import pytest

from benchmarks import any_machine
from benchmarks.any_machine import CONDITIONS, Condition, add, environment, overview, planned

pytestmark = pytest.mark.authors

FINE = {"failures": [], "found": {"3": "1.5 times as fast\n"}}
WRONG = {"failures": [(3, "AssertionError: slow"), (5, "NameError: x")], "found": {}}


@pytest.fixture
def out(tmp_path):
    return tmp_path / "runs.csv"


def test_a_condition_sets_its_variables_and_takes_away_those_of_others(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.setenv("SOMETHING_ELSE", "stays")
    found = environment(CONDITIONS["default"])
    assert found["ATEN_CPU_CAPABILITY"] == "default"
    assert "OMP_NUM_THREADS" not in found and found["SOMETHING_ELSE"] == "stays"
    assert environment(CONDITIONS["one thread"])["OMP_NUM_THREADS"] == "1"
    assert "ATEN_CPU_CAPABILITY" not in environment(CONDITIONS["as is"])


@pytest.mark.skipif(sys.platform != "linux", reason="cores and memory are limited on Linux only")
@pytest.mark.parametrize(
    "condition, program, status",
    [
        (Condition(one_core=True), "assert len(os.sched_getaffinity(0)) == 1", 0),
        (Condition(memory=10**9), "bytearray(5 * 10**8)", 0),
        (Condition(memory=10**9), "bytearray(2 * 10**9)", 1),
        (Condition(), "bytearray(2 * 10**9)", 0),
    ],
)
def test_cores_and_memory_are_limited_for_what_is_started(condition, program, status):
    command = [sys.executable, "-c", f"import os; {program}"]
    done = subprocess.run(
        command, preexec_fn=lambda: any_machine.restrict(condition), capture_output=True
    )
    assert done.returncode == status, done.stderr


def test_runs_that_are_in_the_csv_are_not_planned_again(out):
    paths, names = ["notebooks/05_a.ipynb", "notebooks/06_b.ipynb"], ["as is", "busy"]
    assert len(planned(paths, names, 2, out)) == 8
    add(out, paths[0], "busy", 1, 1.23, FINE)
    add(out, paths[1], "as is", 2, 1.23, WRONG)
    left = planned(paths, names, 2, out)
    assert left[0] == (paths[0], "as is", 1)
    assert len(left) == 6
    assert not {(paths[0], "busy", 1), (paths[1], "as is", 2)} & set(left)


def test_a_run_is_kept_with_what_it_found(out):
    add(out, "notebooks/05_a.ipynb", "busy", 1, 1.23, FINE)
    add(out, "notebooks/05_a.ipynb", "busy", 2, 1.23, WRONG)
    table = pd.read_csv(out, keep_default_na=False)
    assert list(table.columns) == any_machine.COLUMNS
    assert list(table["verdict"]) == ["passed", "failed"]
    assert list(table["cells"]) == ["", "3 5"]
    assert table["message"][1] == "AssertionError: slow | NameError: x"
    first, _ = map(json.loads, out.with_suffix(".jsonl").read_text().splitlines())
    assert first["found"] == FINE["found"] and first["condition"] == "busy"


def test_the_table_counts_failures_by_notebook_and_condition(out):
    for run in (1, 2):
        add(out, "05_a.ipynb", "busy", run, 1, FINE if run == 1 else WRONG)
        add(out, "05_a.ipynb", "as is", run, 1, FINE)
    add(out, "06_b.ipynb", "busy", 1, 1, WRONG)
    table = overview(pd.read_csv(out))
    assert list(table.columns) == ["as is", "busy"]
    assert list(table.loc["05_a"]) == ["0 of 2", "1 of 2"]
    assert list(table.loc["06_b"]) == ["", "1 of 1"]


def test_a_notebook_is_run_and_what_fails_is_said(tmp_path):
    """In a kernel of its own: a wrong assert, another output, a cell that is not compared."""
    v4 = nbformat.v4
    sources = [
        "print(1)",
        "# Output not compared: made up\nprint('found')",
        "assert 0, 'slow'",
        "2",
    ]
    cells = [v4.new_code_cell(source) for source in sources]
    cells[0].outputs = [v4.new_output("stream", text="0\n")]
    cells[1].metadata["tags"] = ["nbval-ignore-output"]
    path = tmp_path / "05_made_up.ipynb"
    nbformat.write(v4.new_notebook(cells=cells), path)
    answer = any_machine.run_once(str(path), "one thread")
    assert answer["failures"] == [[0, "shows '1'"], [2, "AssertionError: slow"]]
    assert answer["found"] == {"1": "found\n"}


def test_busy_processes_end_with_the_run(tmp_path, monkeypatch):
    started = []

    class Process(subprocess.Popen):
        def __init__(self, command, **options):
            super().__init__(command, **options)
            started.append(self)

    monkeypatch.setattr(any_machine.subprocess, "Popen", Process)
    monkeypatch.setattr(any_machine, "__file__", "missing.py")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    answer = any_machine.run_once("missing.ipynb", "busy")
    [[cell, message]] = answer["failures"]
    assert cell == "?" and "missing.py" in message
    assert len(started) == 2 * cores + 1
    assert all(process.poll() is not None for process in started)
