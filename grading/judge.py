"""Judge the answers of one submission: `pytest --nbval` outside, the student's code in a sandbox.

`judge` is the unit of work of a batch: plain data in, plain data out, on this machine or another.
"""

import functools
import json
import os
import shutil
import signal
import subprocess
import tempfile
import threading
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_output

from . import feedback, sandbox
from .answers import Answer
from .graft import exercises, expected_output, graft
from .sandbox import DIED, TIME

CELL_SECONDS = 20
NOTEBOOK_SECONDS = 60
RIGHT, WRONG = "right", "wrong"
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


class NotFitToGrade(RuntimeError):
    """The course's own answers do not pass on this machine, so nobody's can be judged on it."""


@functools.cache
def task(notebook: str, seed: int, isolated: bool = True, feedback: bool = False) -> Task:
    """Raises ValueError for an unknown notebook."""
    expected = {name: expected_output(name, seed) for name in exercises(notebook)}
    return Task(notebook, seed, expected, isolated, feedback)


def judge(found: dict[str, Answer], task: Task, student: str = "") -> tuple[dict[str, str], str]:
    """The status of each exercise, and the feedback page in HTML ("" without `task.feedback`).

    Raises RuntimeError if this machine cannot isolate students' code, and that is asked for.
    """
    if task.isolated and sandbox.why_not():
        raise RuntimeError(sandbox.why_not())
    statuses, to_run = {}, {}
    for name in exercises(task.notebook):
        if found[name].problem:
            statuses[name] = found[name].problem
        else:
            to_run[name] = found[name]
    outputs = []
    if to_run:
        judged, outputs = _run(to_run, task)
        statuses |= judged
    statuses = {name: statuses[name] for name in exercises(task.notebook)}
    if not task.feedback:
        return statuses, ""
    shown = feedback.notebook(task.notebook, to_run, outputs)
    return statuses, feedback.page(task.notebook, student, statuses, shown)


def judge_course(task: Task) -> None:
    """Judge the course's own answers. Raises NotFitToGrade unless all of them are right."""
    own = {name: Answer(code=exercise.code) for name, exercise in exercises(task.notebook).items()}
    statuses, _ = judge(own, replace(task, feedback=False))
    failed = [f"{name}: {status}" for name, status in statuses.items() if status != RIGHT]
    if failed:
        raise NotFitToGrade(
            f"The course's own answers do not pass here ({', '.join(failed)}), so nothing was "
            "graded. Does `python3 course.py test` pass on this machine?"
        )


def _run(to_run: dict[str, Answer], task: Task) -> tuple[dict[str, str], list[list[dict]]]:
    """Run one graft for each answer, in the order of the exercises, then the student's own cells.

    Only a probe that passes is right. Returns the statuses and the outputs of the student's cells.
    """
    work = Path(tempfile.mkdtemp(prefix="grading-"))
    try:
        probes = {}
        for name, answer in to_run.items():
            notebook = graft(name, answer, task.seed)
            printed = new_output("stream", name="stdout", text=task.expected[name])
            notebook.cells[-1].outputs = [printed]
            notebook.cells[-1].execution_count = 1
            probes[name] = str(len(notebook.cells) - 1)
            _write(notebook, work / f"{name}.ipynb", GRADED)
        with ExitStack() as stack:
            stack.enter_context(sandbox.kernels(work, GRADED, task.isolated))
            if task.feedback:
                _write(feedback.notebook(task.notebook, to_run), work / "feedback.ipynb", FEEDBACK)
                shown = feedback.handout(task.notebook)
                stack.enter_context(sandbox.kernels(work, FEEDBACK, task.isolated, shown))
            outcomes = _pytest(work, [*to_run, "feedback"] if task.feedback else [*to_run])
        statuses = {name: _status(outcomes.get(name, {}), cell) for name, cell in probes.items()}
        return statuses, _outputs(outcomes.get("feedback", {}))
    finally:
        _remove(work)


def _remove(folder: Path) -> None:
    """Remove a folder of a student's, of any depth: `shutil.rmtree` calls itself for each level."""
    if os.name == "posix":
        subprocess.run(["rm", "-rf", "--", str(folder)], stderr=subprocess.DEVNULL, check=False)
    else:
        shutil.rmtree(folder, ignore_errors=True)


def _write(notebook: NotebookNode, path: Path, kernel: str) -> None:
    notebook.metadata["kernelspec"] = {"name": kernel, "display_name": kernel}
    nbformat.write(notebook, path)


def _status(outcomes: dict[str, dict], probe: str) -> str:
    if not outcomes:
        return TIME
    found = outcomes.get(probe, {"passed": False, "why": DIED})
    return RIGHT if found["passed"] else found["why"] or WRONG


def _outputs(cells: dict[str, dict]) -> list[list[dict]]:
    """What each cell put out; a cell that was given up says so."""
    found = []
    for cell in (cells[str(number)] for number in range(len(cells))):
        said = [{"output_type": "stream", "text": f"\n[not finished: {cell['why']}]"}]
        found.append(cell.get("outputs", []) + (said if cell["why"] else []))
    return found


def _pytest(work: Path, names: list[str]) -> dict[str, dict[str, dict]]:
    """Outcomes by notebook and cell; none for what was not reached within the deadline."""
    results = work / "results.json"
    options = ["-p", "grading.watchdog", "-p", "nbval.plugin", "--nbval"]
    options += ["--nbval-cell-timeout", str(CELL_SECONDS), "-p", "no:cacheprovider", "-q"]
    options += ["-c", os.devnull, "--rootdir", str(work)]
    environment = os.environ | {
        "GRADING_PROCESS": str(os.getpid()),
        "GRADING_RESULTS": str(results),
        "GRADING_SPEC": str(work / "specs"),
        "GRADING_SOCKETS": str(work / "sockets"),
        "GRADING_KEEP_OUTPUTS": "feedback",
        "PYTHONPATH": str(Path(__file__).resolve().parent.parent),
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    }
    command = [sandbox.PYTHON, "-m", "pytest", *options, *(f"{name}.ipynb" for name in names)]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(
        command, cwd=work, env=environment, start_new_session=True, **quiet
    ) as process:
        _running.add(process)
        try:
            process.wait(timeout=NOTEBOOK_SECONDS * len(names))
        except subprocess.TimeoutExpired:
            pass
        finally:
            _end(process)
    if _interrupted.is_set():
        raise RuntimeError("interrupted")
    return json.loads(results.read_text(encoding="utf-8")) if results.exists() else {}


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
