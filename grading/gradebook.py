"""The rows of a batch, and how they get on disk: whole, and while the batch goes on."""

import contextlib
import csv
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import pandas as pd

from . import judge
from .graft import exercises
from .summary import page

PAUSE = 1.0  # seconds between two writings
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


class Gradebook:
    """The rows of a batch, on disk while it goes on: a batch that is ended has lost none.

    Used in a `with`, at whose end a summary of the class is written too. Raises OSError there if
    one of the two cannot be.
    """

    def __init__(self, folder: Path, task: judge.Task):
        self.folder, self.task = folder, task
        self.rows: list[dict] = []
        self.found: list[judge.Judged | str] = []
        self.written = 0.0

    def add(self, item: Submission, found: judge.Judged | str) -> None:
        """`found` is what was judged, or why there is nothing to judge: then no exercise is."""
        every = exercises(self.task.notebook)
        statuses = dict.fromkeys(every, found) if isinstance(found, str) else found.statuses
        self.found.append(found)
        self.rows += _rows(item, statuses, self.task)
        if time.monotonic() > self.written + PAUSE:
            with contextlib.suppress(OSError):  # tried again
                self.write()

    def table(self) -> pd.DataFrame:
        return pd.DataFrame(sorted(self.rows, key=lambda row: row["student"]), columns=COLUMNS)

    def write(self) -> None:
        text = self.table().to_csv(index=False, quoting=csv.QUOTE_NONNUMERIC)
        write_whole(self.folder / "gradebook.csv", text)
        self.written = time.monotonic()

    def __enter__(self) -> "Gradebook":
        return self

    def __exit__(self, error: object, *_: object) -> None:
        if self.rows or error is None:
            self.write()
        if self.found:
            write_whole(self.folder / "summary.html", page(self.task.notebook, self.found))


FORMATS = ("nbgrader", "moodle", "canvas")


def exported(book: pd.DataFrame, notebook: str, form: str) -> pd.DataFrame:
    """A score for each student, with the columns that one of `FORMATS` is imported with.

    nbgrader: those of its own export. Moodle: one that says who (map it to "ID number", "username"
    or "email", whatever the submissions are called by), and one named like the grade item. Canvas:
    its five columns, of which the login is filled in, and a row with the points possible.
    """
    name = f"KV cache {notebook}"
    scores = book.groupby("student")[["points", "out of"]].sum().reset_index()
    if form == "nbgrader":
        table = scores.set_axis(["student_id", "score", "max_score"], axis=1)
        table.insert(0, "assignment", name)
        return table
    if form == "moodle":
        return scores[["student", "points"]].set_axis(["ID number", name], axis=1)
    columns = ["Student", "ID", "SIS User ID", "SIS Login ID", "Section", name]
    possible = ["    Points Possible", "", "", "", "", scores["out of"].max()]
    rows = [["", "", "", row.student, "", row.points] for row in scores.itertuples()]
    return pd.DataFrame([possible, *rows], columns=columns)


def _rows(item: Submission, statuses: dict[str, str], task: judge.Task) -> list[dict]:
    """The rows of the gradebook for one submission."""
    isolation = "bubblewrap" if task.isolated else "NONE"
    return [
        {
            "student": _not_a_formula(item.student),
            "notebook": task.notebook,
            "exercise": exercise.title,
            "points": exercise.points if statuses[name] == judge.RIGHT else 0,
            "out of": exercise.points,
            "status": statuses[name],
            "isolation": isolation,
            "seed": task.seed,
            "versions": versions(),
        }
        for name, exercise in exercises(task.notebook).items()
    ]


def _not_a_formula(name: str) -> str:
    """A name that a spreadsheet does not compute."""
    return f"'{name}" if name.startswith(("=", "+", "-", "@")) else name


def write_whole(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8", errors="replace")
    part.replace(path)


def versions() -> str:
    return " ".join(f"{name} {version(name)}" for name in ("kv-cache-course", "torch", "nbval"))
