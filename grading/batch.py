"""Grade a folder of submissions: every one gets its rows, and the batch always ends."""

import functools
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import nbformat
import pandas as pd
from nbformat.v4 import new_output
from tqdm import tqdm

from . import sandbox
from .answers import Answer, Unreadable, answers, is_stub, read_notebook
from .graft import exercises, expected_output, graft, master

CELL_SECONDS = 20
NOTEBOOK_SECONDS = 60
RIGHT, WRONG, MISSING, UNTOUCHED = "right", "wrong", "missing", "not done"
COLUMNS = [
    *("student", "notebook", "exercise", "points", "out of", "status"),
    *("isolation", "seed", "versions"),
]


@dataclass(frozen=True)
class Submission:
    """One student's file; `path` is None, and `problem` says why, where there is none."""

    student: str
    path: Path | None
    problem: str = ""


def submissions(folder: Path, notebook: str) -> Iterator[Submission]:
    """What is handed in for `notebook` ("01" to "05"): one file or folder for each student.

    Raises OSError if `folder` cannot be read.
    """
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith("."):
            continue
        if entry.is_symlink():
            yield Submission(entry.name, None, "is a symbolic link: hand in the file itself")
        elif entry.is_dir():
            yield _in_folder(entry, notebook)
        elif entry.suffix == ".ipynb":
            yield Submission(entry.stem, entry)
        else:
            kind = entry.suffix or "a file without an ending"
            yield Submission(
                entry.name, None, f"is {kind}, not a notebook (.ipynb): unpack it first"
            )


def _in_folder(folder: Path, notebook: str) -> Submission:
    found = [
        path
        for path in sorted(folder.glob("*.ipynb"))
        if path.name.startswith(f"{notebook}_") or len(list(folder.glob("*.ipynb"))) == 1
    ]
    if not found:
        return Submission(folder.name, None, f"holds no notebook {notebook}_....ipynb")
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        return Submission(folder.name, None, f"holds more than one notebook {notebook}: {names}")
    return Submission(folder.name, found[0])


_running: set[subprocess.Popen] = set()
_interrupted = threading.Event()


@functools.cache
def _expected(name: str, seed: int) -> str:
    return expected_output(name, seed)


def grade_one(path: Path, notebook: str, seed: int, isolated: bool) -> dict[str, str]:
    """The status of each exercise of one submission. Raises Unreadable."""
    found = answers(read_notebook(path), master(notebook))
    statuses, to_run = {}, {}
    for name in exercises(notebook):
        answer = found[name]
        if answer.code is None or not answer.code.strip():
            statuses[name] = MISSING
        elif is_stub(answer.code, exercises(notebook)[name].code):
            statuses[name] = UNTOUCHED
        else:
            to_run[name] = answer
    if to_run:
        statuses |= _judge(to_run, seed, isolated)
    return {name: statuses[name] for name in exercises(notebook)}


def _judge(to_run: dict[str, Answer], seed: int, isolated: bool) -> dict[str, str]:
    """Run `pytest --nbval` on one graft for each answer; only a probe that passes is right."""
    work = Path(tempfile.mkdtemp(prefix="grading-"))
    try:
        probes = {}
        for name, answer in to_run.items():
            notebook = graft(name, answer, seed)
            printed = new_output("stream", name="stdout", text=_expected(name, seed))
            notebook.cells[-1].outputs = [printed]
            notebook.cells[-1].execution_count = 1
            nbformat.write(notebook, work / f"{name}.ipynb")
            probes[name] = str(len(notebook.cells) - 1)
        (work / "sockets").mkdir()
        sandbox.kernelspec(work / "specs", work / "sockets", isolated)
        outcomes = _pytest(work, [f"{name}.ipynb" for name in to_run])
        passed = {n for n, cell in probes.items() if outcomes.get(n, {}).get(cell) == "passed"}
        return {name: RIGHT if name in passed else WRONG for name in to_run}
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _pytest(work: Path, names: list[str]) -> dict[str, dict[str, str]]:
    """Outcomes by notebook and cell; none for what was not reached within the deadline."""
    results = work / "results.json"
    options = ["-p", "nbval.plugin", "--nbval", "--nbval-kernel-name", sandbox.NAME]
    options += ["-p", "grading.watchdog"]
    options += ["--nbval-cell-timeout", str(CELL_SECONDS), "-p", "no:cacheprovider", "-q"]
    options += ["-c", os.devnull, "--rootdir", str(work)]
    environment = os.environ | {
        "GRADING_RESULTS": str(results),
        "GRADING_SPEC": str(work / "specs"),
        "GRADING_SOCKETS": str(work / "sockets"),
        "PYTHONPATH": str(Path(__file__).resolve().parent.parent),
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    }
    command = [sys.executable, "-m", "pytest", *options, *names]
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


def _key(submission: Submission, notebook: str, seed: int, isolated: bool) -> str:
    parts = [notebook, str(seed), str(isolated), versions()]
    content = submission.path.read_bytes() if submission.path else submission.problem.encode()
    return hashlib.sha256(content + "\0".join(parts).encode()).hexdigest()


def versions() -> str:
    return " ".join(f"{name} {version(name)}" for name in ("kv-cache-course", "torch", "nbval"))


def _reason(error: Exception) -> str:
    return str(error).splitlines()[0][:200] if str(error) else type(error).__name__


def _statuses(
    submission: Submission, notebook: str, seed: int, isolated: bool, results: Path
) -> dict[str, str]:
    """Statuses from an earlier run of the same content, or by grading; an error is a status too."""
    if submission.path is None:
        return dict.fromkeys(exercises(notebook), submission.problem)
    try:
        kept = results / f"{_key(submission, notebook, seed, isolated)}.json"
        if kept.exists():
            return json.loads(kept.read_text(encoding="utf-8"))
        statuses = grade_one(submission.path, notebook, seed, isolated)
    except Unreadable as error:
        return dict.fromkeys(exercises(notebook), f"the file {error}")
    except Exception as error:
        return dict.fromkeys(exercises(notebook), f"could not be graded ({_reason(error)})")
    part = kept.with_suffix(".part")
    part.write_text(json.dumps(statuses), encoding="utf-8")
    part.replace(kept)
    return statuses


def _rows(item: Submission, notebook: str, statuses: dict[str, str], how: dict) -> list[dict]:
    """The rows of the gradebook for one submission."""
    return [
        {
            "student": item.student,
            "notebook": notebook,
            "exercise": exercise.title,
            "points": exercise.points if statuses[name] == RIGHT else 0,
            "out of": exercise.points,
            "status": statuses[name],
            **how,
        }
        for name, exercise in exercises(notebook).items()
    ]


def _stop(pool: ThreadPoolExecutor) -> None:
    """After an interrupt: start nothing more, end what runs, and keep no result of it."""
    _interrupted.set()
    pool.shutdown(wait=False, cancel_futures=True)
    for process in list(_running):
        _end(process)


def grade(
    folder: Path, out: Path, notebook: str, seed: int, jobs: int = 1, isolated: bool = True
) -> pd.DataFrame:
    """Grade every submission for one notebook; writes and returns the gradebook.

    `out` keeps the result of each submission, so that a run that was interrupted goes on where it
    was, and a corrected submission is graded alone.
    Raises OSError if the folders cannot be used, ValueError for an unknown notebook.
    """
    todo = list(submissions(folder, notebook))
    results = out / "results"
    results.mkdir(parents=True, exist_ok=True)
    for name in exercises(notebook):
        _expected(name, seed)
    how = {"isolation": "bubblewrap" if isolated else "NONE", "seed": seed, "versions": versions()}
    rows = []
    _interrupted.clear()
    with ThreadPoolExecutor(max_workers=jobs) as pool:
        try:
            running = {
                pool.submit(_statuses, item, notebook, seed, isolated, results): item
                for item in todo
            }
            for done in tqdm(as_completed(running), total=len(todo), desc="grading", unit="file"):
                rows += _rows(running[done], notebook, done.result(), how)
        except KeyboardInterrupt:
            _stop(pool)
            raise
    rows.sort(key=lambda row: row["student"])
    book = pd.DataFrame(rows, columns=COLUMNS)
    part = out / "gradebook.csv.part"
    book.to_csv(part, index=False)
    part.replace(out / "gradebook.csv")
    return book
