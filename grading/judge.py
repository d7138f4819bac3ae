"""Judge the answers of one submission: `pytest --nbval` outside, the student's code in a sandbox.

`judge` is the unit of work of a batch: plain data in, plain data out, on this machine or another.
"""

import contextlib
import functools
import json
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_output

from . import feedback, sandbox
from .answers import Answer
from .graft import exercises, expected_output, graft
from .sandbox import BROKEN, DIED, NOT_STARTED, TIME

CELL_SECONDS = 20
NOTEBOOK_SECONDS = 40
PATIENCE = 30.0  # seconds for pytest to give a notebook up by itself, and to start
# Of pytest, in kilobytes: what kernels say is kept there, where a right answer needs 110,000.
MEMORY = "ulimit -c 0 -v 350000"
RIGHT, WRONG = "right", "wrong"
NOTHING = {"cells": {}, "seconds": 0.0, "why": DIED}
GRADED, FEEDBACK = "graded", "feedback"

_running: set[subprocess.Popen] = set()
_interrupted = threading.Event()


@dataclass(frozen=True)
class Task:
    """How to judge a submission for `notebook`: the same for all submissions of a batch.

    `expected` has, for each exercise, what must be printed for the inputs that `seed` draws.
    """

    notebook: str
    seed: int
    expected: dict[str, str]
    isolated: bool = True
    feedback: bool = False


@dataclass(frozen=True)
class Judged:
    """What was found of one submission: a status for each exercise, and the page ("" if not asked).

    `said` has, for each exercise that was run with `feedback`, the first line of what the course's
    check said of it, "" where it said that it is right. It comes from the student's kernel: it may
    be any text. `seconds` has how long each exercise took that was run.
    """

    statuses: dict[str, str]
    said: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    page: str = ""


class NotFitToGrade(RuntimeError):
    """The course's own answers do not pass on this machine, so nobody's can be judged on it."""


@functools.cache
def task(notebook: str, seed: int, isolated: bool = True, feedback: bool = False) -> Task:
    """Raises ValueError for an unknown notebook."""
    expected = {name: expected_output(name, seed) for name in exercises(notebook)}
    return Task(notebook, seed, expected, isolated, feedback)


def judge(found: dict[str, Answer], task: Task, student: str = "") -> Judged:
    """Raises RuntimeError if this machine cannot isolate students' code, and that is asked for; and
    if a kernel did not start, which is no fault of an answer: nothing was given up before.
    """
    if task.isolated and sandbox.why_not():
        raise RuntimeError(sandbox.why_not())
    statuses, to_run = {}, {}
    for name in exercises(task.notebook):
        if found[name].problem:
            statuses[name] = found[name].problem
        else:
            to_run[name] = found[name]
    work = Path(tempfile.mkdtemp(prefix="grading-"))
    try:
        judged, seconds = _graded(work, to_run, task) if to_run else ({}, {})
        statuses = {name: (statuses | judged)[name] for name in exercises(task.notebook)}
        if not task.feedback:
            return Judged(statuses, seconds=seconds)
        # What was given up once is not run again.
        shown = {name: to_run[name] for name in to_run if statuses[name] in (RIGHT, WRONG)}
        outputs = _shown(work, shown, task) if shown else []
    finally:
        _remove(work)
    said = feedback.said(task.notebook, shown, outputs)
    made = feedback.filled(task.notebook, to_run, shown, outputs)
    return Judged(statuses, said, seconds, feedback.page(task.notebook, student, statuses, made))


def judge_course(task: Task) -> None:
    """Judge the course's own answers. Raises NotFitToGrade unless all of them are right."""
    own = {name: Answer(code=exercise.code) for name, exercise in exercises(task.notebook).items()}
    statuses = judge(own, replace(task, feedback=False)).statuses
    failed = [f"{name}: {status}" for name, status in statuses.items() if status != RIGHT]
    if failed:
        raise NotFitToGrade(
            f"The course's own answers do not pass here ({', '.join(failed)}), so nothing was "
            "graded. Does `python3 course.py test` pass on this machine?"
        )


def _graded(
    work: Path, to_run: dict[str, Answer], task: Task
) -> tuple[dict[str, str], dict[str, float]]:
    """Run one graft for each answer, in the order of the exercises: statuses, and seconds.

    Only a probe that passes is right.
    """
    probes = {}
    for name, answer in to_run.items():
        notebook = graft(name, answer, task.seed)
        printed = new_output("stream", name="stdout", text=task.expected[name])
        notebook.cells[-1].outputs = [printed]
        notebook.cells[-1].execution_count = 1
        probes[name] = str(len(notebook.cells) - 1)
        _write(notebook, work / f"{name}.ipynb", GRADED)
    with sandbox.kernels(work, GRADED, task.isolated):
        outcomes = _pytest(work, [*to_run])
    statuses = {name: _status(outcomes[name], cell) for name, cell in probes.items()}
    if {NOT_STARTED} == {*statuses.values()} - {RIGHT, WRONG}:
        raise RuntimeError(NOT_STARTED)
    return statuses, {name: outcomes[name]["seconds"] for name in probes}


def _shown(work: Path, given: dict[str, Answer], task: Task) -> list[list[dict]]:
    """Run the student's own cells and the visible checks: what each cell put out.

    The sandbox of the graded run is gone, and so is what its processes knew.
    """
    _write(feedback.notebook(task.notebook, given), work / "feedback.ipynb", FEEDBACK)
    with sandbox.kernels(work, FEEDBACK, task.isolated, feedback.handout(task.notebook)):
        return _outputs(_pytest(work, ["feedback"])["feedback"]["cells"])


def _remove(folder: Path) -> None:
    """Remove a folder of a student's, of any depth: `shutil.rmtree` calls itself for each level."""
    if os.name == "posix":
        subprocess.run(["rm", "-rf", "--", str(folder)], stderr=subprocess.DEVNULL, check=False)
    else:
        shutil.rmtree(folder, ignore_errors=True)


def _write(notebook: NotebookNode, path: Path, kernel: str) -> None:
    notebook.metadata["kernelspec"] = {"name": kernel, "display_name": kernel}
    nbformat.write(notebook, path)


def _status(outcome: dict, probe: str) -> str:
    found = outcome["cells"].get(probe, {"passed": False, "why": outcome["why"]})
    return RIGHT if found["passed"] else found["why"] or WRONG


def _outputs(cells: dict[str, dict]) -> list[list[dict]]:
    """What each cell put out; a cell that was given up says so."""
    found = []
    for cell in (cells[str(number)] for number in range(len(cells))):
        said = [{"output_type": "stream", "text": f"\n[not finished: {cell['why']}]"}]
        found.append(cell.get("outputs", []) + (said if cell["why"] else []))
    return found


def _pytest(work: Path, names: list[str]) -> dict[str, dict]:
    """What became of each notebook: its "cells", "seconds", and "why" it has no more cells.

    One that keeps pytest from going on is given up, and pytest goes on with the next.
    """
    outcomes: dict[str, dict] = {}
    while left := names[len(outcomes) :]:
        late = _pytest_once(work, left)
        results = work / "results.json"
        found = json.loads(results.read_text(encoding="utf-8")) if results.exists() else {}
        results.unlink(missing_ok=True)
        outcomes |= found
        if len(found) < len(left):
            outcomes[left[len(found)]] = NOTHING | {"why": TIME if late else BROKEN}
    return outcomes


def _pytest_once(work: Path, names: list[str]) -> bool:
    """Run pytest over these notebooks; whether it had to be ended, since one took too long."""
    results = work / "results.json"
    options = ["-p", "grading.watchdog", "-p", "nbval.plugin", "--nbval"]
    options += ["--nbval-cell-timeout", str(CELL_SECONDS), "-p", "no:cacheprovider", "-q"]
    options += ["-c", os.devnull, "--rootdir", str(work)]
    environment = os.environ | {
        "GRADING_PROCESS": str(os.getpid()),
        "GRADING_RESULTS": str(results),
        "GRADING_SPEC": str(work / "specs"),
        "GRADING_SOCKETS": str(work / "sockets"),
        "GRADING_SECONDS": str(NOTEBOOK_SECONDS),
        "GRADING_KEEP_OUTPUTS": "feedback",
        "PYTHONPATH": str(Path(__file__).resolve().parent.parent),
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "MALLOC_ARENA_MAX": "1",  # glibc takes 64 MB of addresses for each thread else
    }
    command = [sandbox.PYTHON, "-m", "pytest", *options, *(f"{name}.ipynb" for name in names)]
    if sandbox.why_not() is None:
        command = ["bash", "-c", f'{MEMORY}; exec "$@"', "bash", *command]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(
        command, cwd=work, env=environment, start_new_session=True, **quiet
    ) as process:
        _running.add(process)
        try:
            late = _waited(process, results)
        finally:
            _end(process)
    if _interrupted.is_set():
        raise RuntimeError("interrupted")
    return late


def _waited(process: subprocess.Popen, results: Path) -> bool:
    """Wait for a process while its results grow in time; whether they did not."""
    size, end = 0, time.monotonic() + NOTEBOOK_SECONDS + PATIENCE
    while time.monotonic() < end and not _interrupted.is_set():
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=1.0)
            return False
        grown = results.stat().st_size if results.exists() else 0
        if grown > size:
            size, end = grown, time.monotonic() + NOTEBOOK_SECONDS + PATIENCE
    return True


def _end(process: subprocess.Popen) -> None:
    """End pytest and the kernels that it has started."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    _running.discard(process)


def interrupt() -> None:
    """End everything that runs, so that every `judge` under way raises RuntimeError."""
    _interrupted.set()
    for process in list(_running):
        _end(process)


def resume() -> None:
    """After `interrupt`: judge again."""
    _interrupted.clear()
