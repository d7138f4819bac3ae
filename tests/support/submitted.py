"""Submissions: the student edition with an answer, or with mutants of the course's answers."""

import copy
from collections.abc import Mapping
from pathlib import Path

import nbformat
from mutants import Mutant
from mutated_answers import reasons

from course_utils.transformer import ROOT
from grading.graft import exercises, master

EDITION = ROOT / "notebooks" / "exercises" / "01_attention.ipynb"


def with_answer(source, **others):
    """The student edition of 01 with an answer to the first exercise; others stay stubs."""
    notebook = nbformat.read(EDITION, as_version=4)
    for cell in notebook.cells:
        name = cell.metadata.get("nbgrader", {}).get("grade_id")
        if name == "softmax":
            cell.source = source
        elif name in others:
            cell.source = others[name]
    return notebook


def index_of(notebook, name):
    ids = [c.metadata.get("nbgrader", {}).get("grade_id") for c in notebook.cells]
    return ids.index(name)


def hand_in(path: Path, notebook: str, answers: Mapping[str, str]) -> None:
    """Write a submission for `notebook` with these answers, and the course's to the others."""
    submission = copy.deepcopy(master(notebook))
    for cell in submission.cells:
        name = cell.metadata.get("nbgrader", {}).get("grade_id")
        cell.source = answers.get(name, cell.source)
    nbformat.write(submission, path)


def hand_in_mutants(folder: Path, notebook: str, chosen: Mapping[str, list[Mutant]]) -> None:
    """Number i hands in the i-th mutant of each exercise, while there is one."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(max(map(len, chosen.values()))):
        answers = {name: found[number].source for name, found in chosen.items() if found[number:]}
        hand_in(folder / f"mutants {number:03}.ipynb", notebook, answers)


def got_points(
    book, notebook: str, chosen: Mapping[str, list[Mutant]]
) -> list[tuple[str, str, str]]:
    """Exercise, mutant and status for every row of a gradebook that should not be as it is.

    A mutant has no points, unless `data/equivalent_answers.csv` says why; where a submission has
    the course's answer, it has all.
    """
    known, wrong = reasons(), []
    by_title = {exercise.title: name for name, exercise in exercises(notebook).items()}
    for row in book.itertuples():
        name, number = by_title[row.exercise], int(row.student.split()[-1])
        what = chosen[name][number].what if chosen[name][number:] else "as it is"
        full = row.points > 0
        if full != (what == "as it is") and not (full and (name, what) in known):
            wrong.append((name, what, row.status))
    return wrong
