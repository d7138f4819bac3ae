"""What a student wrote, out of a notebook that may be anything.

Only code is taken: the cells of an exercise, found by nbgrader's `grade_id`, and the code cells
that the student has put beside them. Outputs, metadata and the student's copy of the checks are not
used.
"""

import ast
import contextlib
import json
import threading
import warnings
from dataclasses import dataclass, field
from pathlib import Path

import nbformat
from nbformat import NotebookNode

LARGEST = 20_000_000  # bytes of a file
LONGEST = 100_000  # characters of an exercise: Python needs a thousand bytes for each to read it
MOST_CELLS = 2000
MISSING, UNTOUCHED, TOO_LONG = "missing", "not done", "too long to be read"
STUB = "Your turn: the card above says what to build."
STUB_LINE = f'raise NotImplementedError("{STUB}")'
_parser = threading.Lock()


class Unreadable(ValueError):
    """A submission that is no notebook; the message says why, for the gradebook."""


@dataclass
class Answer:
    """One exercise: the student's own cells before it, its code, the own cells after it.

    `problem` is the status of one that need not be run.
    """

    before: list[str] = field(default_factory=list)
    code: str | None = None
    after: list[str] = field(default_factory=list)
    problem: str = ""


def read(path: Path) -> bytes:
    """The content of a submission. Raises Unreadable if it is not a file of a sensible size."""
    try:
        if path.is_symlink():
            raise Unreadable("is a symbolic link: hand in the notebook itself")
        if not path.is_file():
            raise Unreadable("is no regular file")
        if path.stat().st_size > LARGEST:
            raise Unreadable(f"is larger than {LARGEST // 1_000_000} MB: clear its outputs")
        return path.read_bytes()
    except OSError as error:
        raise Unreadable(f"cannot be read ({error.strerror})") from None


def parse(content: bytes) -> NotebookNode:
    """The notebook that a file holds, as nbformat 4. Raises Unreadable."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise Unreadable("is not text in UTF-8, so it is no notebook") from None
    if not text.strip():
        raise Unreadable("is empty")
    try:
        raw = json.loads(text)
    except (ValueError, RecursionError):
        raise Unreadable("is not JSON: was it cut off, or is it another kind of file?") from None
    if not isinstance(raw, dict) or not isinstance(raw.get("nbformat"), int):
        raise Unreadable("is JSON, but no Jupyter notebook")
    parts = raw.get("worksheets", [raw])
    if not isinstance(parts, list) or not parts or not all(map(_has_cells, parts)):
        raise Unreadable("is a notebook without cells, or with cells of an unknown form")
    if sum(len(part["cells"]) for part in parts) > MOST_CELLS:
        raise Unreadable(f"has more than {MOST_CELLS} cells")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return nbformat.convert(nbformat.from_dict(raw), 4)
    except Exception as error:
        raise Unreadable(f"is not a valid notebook ({type(error).__name__})") from None


def _has_cells(part: object) -> bool:
    cells = part.get("cells") if isinstance(part, dict) else None
    return isinstance(cells, list) and all(isinstance(cell, dict) for cell in cells)


def answers(submission: NotebookNode, master: NotebookNode) -> dict[str, Answer]:
    """Each exercise of `master` by its id, with what the submission has for it.

    JupyterLab's "split cell" gives both halves the same id: the parts are joined in their order,
    with whatever is between them. Code cells that are not in `master` belong to the exercise
    whose check comes next. An exercise whose id is nowhere (cells were merged, or saved by a
    program that drops metadata) is looked for by what it defines.
    """
    exercises = [c.metadata.nbgrader.grade_id for c in master.cells if _kind(c, "solution")]
    given = {_text(cell).strip() for cell in master.cells}
    given |= {_text(cell).strip() for cell in submission.cells if _kind(cell, "grade")}
    found = {name: Answer() for name in exercises}
    parts: dict[str, list[tuple[str, str]]] = {name: [] for name in exercises}
    own: list[tuple[str, str]] = []
    for cell in submission.cells:
        if cell.get("cell_type") != "code":
            continue
        name = _id(cell)
        if name in found:
            parts[name] += [*own, (name, _text(cell))]
            own = []
        elif name.removesuffix("_check") in found and name.endswith("_check"):
            parts[name.removesuffix("_check")] += own
            own = []
        elif _text(cell).strip() and _text(cell).strip() not in given:
            own.append(("", _text(cell)))
    for name, cells in parts.items():
        places = [i for i, (owner, _) in enumerate(cells) if owner == name]
        if places:
            first, last = places[0], places[-1] + 1
            found[name].code = "\n".join(text for _, text in cells[first:last])
            found[name].before = [text for _, text in cells[:first]]
            found[name].after = [text for _, text in cells[last:]]
    texts = [_text(c) for c in submission.cells if c.get("cell_type") == "code"]
    for cell in master.cells:
        if _kind(cell, "solution"):
            answer, wanted = found[cell.metadata.nbgrader.grade_id], _defines(cell.source)
            if answer.code is None:
                having = [text for text in texts if wanted and wanted <= _defines(text)]
                answer.code = having[-1] if having else None
            answer.problem = _problem(answer, wanted)
    return found


def _problem(answer: Answer, wanted: set[str]) -> str:
    """Why there is nothing to run, or an empty string."""
    if not (answer.code or "").strip():
        return MISSING
    if sum(map(len, (*answer.before, answer.code, *answer.after))) > LONGEST:
        return TOO_LONG
    return UNTOUCHED if is_stub(answer.code, wanted) else ""


def parsed(code: str) -> list[ast.stmt] | None:
    """The statements of a source text, which may hold magics; None if it is no Python.

    One at a time: Python 3.11 counts the depth of nesting for all threads together.
    """
    if len(code) > LONGEST:
        return None
    with _parser:
        for read in (str, _without_magics):
            with contextlib.suppress(Exception):
                return ast.parse(read(code)).body
    return None


def _without_magics(code: str) -> str:
    from IPython.core.inputtransformer2 import TransformerManager

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of lines that end in strange ways
        return TransformerManager().transform_cell(code)


def is_stub(code: str, wanted: set[str]) -> bool:
    """Whether something that the exercise asks for still raises what its stub raises."""
    body = parsed(code)
    if body is None:
        return any(line.strip() == STUB_LINE for line in code.splitlines())
    asked = [node for node in body if getattr(node, "name", None) in wanted]
    inside = [part for node in asked for part in ast.walk(node)]
    return any(_raises_the_stub(part) for part in inside if isinstance(part, ast.FunctionDef))


def _raises_the_stub(function: ast.FunctionDef) -> bool:
    """Whether its last line, in no branch, is the one that the student edition has there."""
    last = function.body[-1]
    call = last.exc if isinstance(last, ast.Raise) else None
    said = call.args if isinstance(call, ast.Call) else []
    return len(said) == 1 and isinstance(said[0], ast.Constant) and said[0].value == STUB


def _defines(source: str) -> set[str]:
    """Names of the functions and classes at the top of a source text; none if it is no Python."""
    body = parsed(source) or []
    return {n.name for n in body if isinstance(n, ast.FunctionDef | ast.ClassDef)}


def _id(cell: NotebookNode) -> str:
    metadata = cell.get("metadata")
    nbgrader = metadata.get("nbgrader") if isinstance(metadata, dict) else None
    name = nbgrader.get("grade_id") if isinstance(nbgrader, dict) else None
    return name if isinstance(name, str) else ""


def _kind(cell: NotebookNode, kind: str) -> bool:
    metadata = cell.get("metadata")
    nbgrader = metadata.get("nbgrader") if isinstance(metadata, dict) else None
    return bool(isinstance(nbgrader, dict) and nbgrader.get(kind))


def _text(cell: NotebookNode) -> str:
    source = cell.get("source", "")
    lines = source if isinstance(source, list) else [source]
    return "".join(line for line in lines if isinstance(line, str))
