"""The notebook that is graded: the student's answer among the course's own, then a probe.

It is made anew from the course's notebooks for every exercise, so nothing of a submission but its
code gets in: no outputs, no metadata, no checks. Each exercise stands on the course's answers to
the others, so that a mistake is paid for once, and only on those that it needs.
"""

import contextlib
import io
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_notebook

from .answers import Answer
from .probes import PREAMBLE, PROBES

NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"
IGNORED = {"tags": ["nbval-ignore-output"]}


@dataclass(frozen=True)
class Exercise:
    """An exercise that can be graded: where it is, its points and the course's own answer."""

    name: str
    title: str
    notebook: str
    points: int
    code: str


@cache
def master(notebook: str) -> NotebookNode:
    """The worked notebook "01" to "05". Raises ValueError for any other."""
    found = sorted(NOTEBOOKS.glob(f"{notebook}_*.ipynb"))
    if not found:
        raise ValueError(f"There is no notebook {notebook!r}: choose from 01 to 05.")
    return nbformat.read(found[0], as_version=4)


@cache
def exercises(notebook: str) -> dict[str, Exercise]:
    """The exercises of a notebook that have a probe, in their order."""
    found, title = {}, ""
    cells = master(notebook).cells
    points = {
        c.metadata.nbgrader.grade_id.removesuffix("_check"): c.metadata.nbgrader.points
        for c in cells
        if c.metadata.get("nbgrader", {}).get("grade")
    }
    for cell in cells:
        if cell.source.startswith("### Exercise "):
            title = cell.source.splitlines()[0].removeprefix("### Exercise ")
        if cell.metadata.get("nbgrader", {}).get("solution"):
            name = cell.metadata.nbgrader.grade_id
            if name in PROBES:
                found[name] = Exercise(name, title, notebook, points[name], cell.source)
    return found


def course_answer(name: str) -> str:
    return exercises(PROBES[name].notebook)[name].code


def graft(name: str, answer: Answer, seed: int) -> NotebookNode:
    """The notebook for one exercise, without outputs; the probe is its last cell."""
    probe = PROBES[name]
    sources = [PREAMBLE.replace("SEED", str(seed)).strip()]
    sources += [course_answer(other) for other in probe.needs]
    sources += [*answer.before, answer.code or "", *answer.after]
    cells = [new_code_cell(source, metadata=IGNORED) for source in sources]
    cells.append(new_code_cell(probe.code.strip()))
    notebook = new_notebook(cells=cells)
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
    return notebook


def expected_output(name: str, seed: int) -> str:
    """What the probe prints after the course's own answer. It is trusted code, and runs here."""
    cells = graft(name, Answer(code=course_answer(name)), seed).cells
    namespace, printed = {"__name__": "probe"}, io.StringIO()
    with contextlib.redirect_stdout(printed):
        for cell in cells:
            exec(compile(cell.source, name, "exec"), namespace)
    return printed.getvalue()
