"""The notebook that is graded: the student's answer among the course's own, then a probe.

It is made anew from the course's notebooks for every exercise, so nothing of a submission but its
code gets in: no outputs, no metadata, no checks. Each exercise uses the course's answers to
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

from authoring import COLAB

from .answers import Answer
from .names import parsed
from .probes import PREAMBLE, PROBES, asked

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS, PACKAGE = ROOT / "notebooks", ROOT / "course_utils"
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
    """The worked notebook "01" to "06", but for its cell for Colab. Raises ValueError for any
    other.
    """
    found = sorted(NOTEBOOKS.glob(f"{notebook}_*.ipynb"))
    if not found:
        raise ValueError(f"There is no notebook {notebook!r}: choose from 01 to 06.")
    worked = nbformat.read(found[0], as_version=4)
    worked.cells = [cell for cell in worked.cells if cell.get("id") != COLAB]
    return worked


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


BASES = {
    "attention": ("softmax", "causal_mask", "attention", "multi_head"),
    "transformer": ("feed_forward", "decoder_layer", "model"),
    "generation": ("keep_top_k", "keep_top_p", "next_token"),
}
SIZES = """
        self.max_seq_len = max_seq_len
        self.num_layers = num_layers
        self.num_heads = num_heads
        self.d_head = d_model // num_heads
"""
MODULES = """
from typing import Any


def _module(name, source):
    module = ModuleType(name)
    vars(module).update({n: v for n, v in globals().items() if not n.startswith("_")})
    exec(source, vars(module))
    return module
"""


def built(room: str, answers: tuple[str, ...] | None = None) -> str:
    """A room of the package as notebooks 01 to 03 built it, without its imports.

    Its last class also has what notebook 04 asks of it. Nothing in it stores keys or values.
    """
    source = "\n\n\n".join(map(course_answer, answers or BASES[room]))
    if room == "attention":
        source += _methods(room, "MultiHeadAttention", "attend")
    if room == "transformer":
        embedding = "\n        self.token_embedding = "
        source = source.replace(embedding, SIZES.rstrip() + embedding)
        source += _methods(room, "DecoderOnlyTransformer", "dtype", "device", "check_input")
    return source


def _methods(room: str, class_name: str, *names: str) -> str:
    """Methods of a class in the package, to be added at the end of another class."""
    text = (PACKAGE / f"{room}.py").read_text(encoding="utf-8")
    (body,) = [n.body for n in parsed(text) if getattr(n, "name", "") == class_name]
    lines, found = text.splitlines(), ""
    for part in body:
        if getattr(part, "name", "") in names:
            start = min([part.lineno, *(mark.lineno for mark in part.decorator_list)])
            found += "\n\n" + "\n".join(lines[start - 1 : part.end_lineno])
    return found


def piece(name: str) -> str:
    """Code that a probe needs: the course's answer to an exercise, or a part of 04 or 05."""
    if name == "bases":
        return _bases()
    if name == "patients":
        return _cell("class WithAttention(")
    if name == "cached_layer":
        return _cell("class DecoderLayer(")
    if name.startswith("sick_"):
        return _cell(f"class Patient{name[-1]}(").split("\n\n\nexamine(")[0]
    return course_answer(name)


def _bases() -> str:
    """What notebooks 01 to 03 built, as the modules that 04 imports: nothing in it has a cache."""
    made = MODULES.strip() + "\n\n\n"
    for room in BASES:
        made += f"{room} = _module({room!r}, {built(room)!r})\n"
        if room == "attention":
            made += "causal_mask, softmax = attention.causal_mask, attention.softmax\n"
            made += "MultiHeadAttention = attention.MultiHeadAttention\n"
    return made + "next_token = generation.next_token\ndel MultiHeadAttention"


def _cell(start: str) -> str:
    cells = [*master("04").cells, *master("05").cells]
    return next(c.source for c in cells if start in c.source and c.cell_type == "code")


def graft(name: str, answer: Answer, seed: int) -> NotebookNode:
    """The notebook for one exercise, without outputs; the probe is its last cell."""
    probe = PROBES[name]
    sources = [PREAMBLE.strip()]
    sources += [piece(other) for other in probe.needs]
    sources += [probe.before.strip()] if probe.before else []
    sources += [*answer.before, answer.code or "", *answer.after]
    cells = [new_code_cell(source, metadata=IGNORED) for source in sources]
    cells.append(new_code_cell(asked(probe, seed)))
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
