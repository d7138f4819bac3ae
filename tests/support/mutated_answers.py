"""The worked answers to all exercises, and what a check says of one that has been changed.

An answer runs in what its notebook has defined before it, and that as it is needed: imports, other
answers, small cells. Only the answer itself is changed (`mutants` says how).
"""

import ast
import builtins
import contextlib
import io
import re
import symtable
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import nbformat
import pandas as pd
from mutants import Mutant, mutants

from course_utils.transformer import ROOT
from grading.answers import Answer
from grading.graft import expected_output, graft

NOTEBOOKS = ROOT / "notebooks"
REASONS = ROOT / "data" / "equivalent_answers.csv"
MARK = re.compile(r"^ *### (BEGIN|END) SOLUTION\n?", re.MULTILINE)


@dataclass(frozen=True)
class Exercise:
    """A worked answer, the cell that checks it, and the cells before it that both need."""

    notebook: str
    name: str
    answer: str
    check: str
    needs: tuple[str, ...]

    def mutants(self) -> list[Mutant]:
        return _mutants(self.answer)


@cache
def _mutants(source: str) -> list[Mutant]:
    return list(mutants(source))


@cache
def exercises() -> dict[str, Exercise]:
    """Every exercise of every notebook, by its name (nbgrader's grade_id)."""
    paths = sorted([*NOTEBOOKS.glob("[01][0-9]_*.ipynb"), *NOTEBOOKS.glob("going_further/*.ipynb")])
    return {exercise.name: exercise for path in paths for exercise in _exercises(path)}


def _exercises(path: Path) -> Iterator[Exercise]:
    cells = [c for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code"]
    sources = [MARK.sub("", cell.source) for cell in cells]
    for number, cell in enumerate(cells):
        grading = cell.metadata.get("nbgrader", {})
        if grading.get("solution"):
            check = sources[number + 1]
            needs = _needed(sources[:number], sources[number] + "\n" + check)
            yield Exercise(path.name[:2], grading.grade_id, sources[number], check, needs)


def _needed(before: list[str], source: str) -> tuple[str, ...]:
    """Those of the cells before, in their order, that define what the source uses."""
    wanted, taken = _used(source), []
    for cell in reversed(before):
        if wanted & _defined(cell):
            taken.append(cell)
            wanted = (wanted - _defined(cell)) | _used(cell)
    return tuple(reversed(taken))


def _used(source: str) -> set[str]:
    """The names that a cell takes from those before it."""
    tables = [symtable.symtable(source, "cell", "exec")]
    names = set()
    for table in tables:
        tables.extend(table.get_children())
        at_top = table.get_type() == "module"
        names |= {s.get_name() for s in table.get_symbols() if at_top or s.is_global()}
    return names - set(dir(builtins))


def _defined(source: str) -> set[str]:
    """What a cell binds by an import, a definition or an assignment at its top level."""
    found = set()
    for node in ast.parse(source).body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            found |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            stored = [n for n in ast.walk(node) if isinstance(n, ast.Name)]
            found |= {n.id for n in stored if isinstance(n.ctx, ast.Store)}
    return found


@cache
def _before(name: str) -> dict[str, object]:
    """What the cells that an answer needs define."""
    namespace = {"__name__": "answers"}
    with contextlib.redirect_stdout(io.StringIO()):
        for number, cell in enumerate(exercises()[name].needs):
            exec(compile(cell, f"{name}, cell {number}", "exec"), namespace)
    return namespace


def probed(name: str, source: str, seed: int = 0) -> tuple[str, str]:
    """What grading says of an answer with this source: the probe's print beside the expected one.

    It is what `python -m grading grade` compares, without a kernel and a sandbox around it.
    """
    try:
        cells = graft(name, Answer(code=source), seed).cells
        namespace: dict[str, object] = {"__name__": "probe"}
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            for cell in cells:
                exec(compile(cell.source, name, "exec"), namespace)
    except Exception as error:
        return "raised", f"{type(error).__name__}: {error}"
    if printed.getvalue() == _expected(name, seed):
        return "accepted", ""
    return "refused", "another output"


_expected = cache(expected_output)


def verdict(name: str, source: str) -> tuple[str, str]:
    """What the check of an exercise says of an answer with this source, and its message."""
    namespace = dict(_before(name))
    with contextlib.redirect_stdout(io.StringIO()) as said:
        try:
            exec(compile(source, name, "exec"), namespace)
        except Exception as error:
            return "does not load", f"{type(error).__name__}: {error}"
        try:
            exec(compile(exercises()[name].check, f"{name}_check", "exec"), namespace)
        except AssertionError as error:
            return "refused", str(error)
        except Exception as error:
            return "raised", f"{type(error).__name__}: {error}"
    return "accepted", said.getvalue().strip()


def reasons() -> dict[tuple[str, str], str]:
    """Why a mutant of an exercise, by its words, is rightly accepted."""
    table = pd.read_csv(REASONS)
    return {(row.exercise, row.what): row.reason for row in table.itertuples()}
