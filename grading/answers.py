"""What a student wrote, out of a notebook that may be anything.

Only code is taken: the cells of an exercise, found by nbgrader's `grade_id`, and the code cells
that the student has put beside them. Outputs, metadata and the student's copy of the checks are not
used.
"""

import ast
import json
import os
import stat
import warnings
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from .names import LONGEST, bound, changed, course_apart, helpers, parsed

LARGEST = 20_000_000  # bytes of a file
MOST_CELLS = 2000
# Follow no link, wait for nobody who writes into a pipe.
AS_IT_IS = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
MISSING, UNTOUCHED, TOO_LONG = "missing", "not done", "too long to be read"
ANSWER, BESIDE = "answer", "beside"
STUB = "Your turn: the card above says what to build."
STUB_LINE = f'raise NotImplementedError("{STUB}")'


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
    """The content of a submission. Raises Unreadable if it is not a file of a sensible size.

    It is looked at after it was opened: what is there may be replaced or grow meanwhile.
    """
    try:
        if path.is_symlink():
            raise Unreadable("is a symbolic link: hand in the notebook itself")
        opened = os.open(path, os.O_RDONLY | AS_IT_IS)
        with os.fdopen(opened, "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise Unreadable("is no regular file")
            content = file.read(LARGEST + 1)
    except OSError as error:
        if not path.is_file():
            raise Unreadable("is no regular file") from None
        raise Unreadable(f"cannot be read ({error.strerror})") from None
    if len(content) > LARGEST:
        raise Unreadable(f"is larger than {LARGEST // 1_000_000} MB: clear its outputs")
    return content


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

    JupyterLab's "split cell" gives both halves the same id, and a copied cell has it, too: they are
    taken in their order, with whatever is between them. Code cells that are not in `master` belong
    to the exercise whose check comes next. An exercise whose id is nowhere (cells were merged, or
    saved by a program that drops metadata) is looked for by what it defines. What an answer uses
    and has from elsewhere in the notebook (an import at its top, a helper) comes first, unless the
    course's notebook has something of that name.
    """
    wanted = {_id(c): _defines(c.source) for c in master.cells if _kind(c, "solution")}
    known = set().union(*wanted.values())
    known |= {name for c in master.cells if c.cell_type == "code" for name in _binds(c.source)}
    own = _own_cells(submission, master, wanted)
    found = {}
    for name, asked in wanted.items():
        places = [at for at, (owner, kind, _) in enumerate(own) if (owner, kind) == (name, ANSWER)]
        beside = [at for at, (owner, _, _) in enumerate(own) if owner == name]
        answer = found[name] = Answer()
        if places:
            first, last = places[0], places[-1]
            parts = _parts([own[at][2] for at in beside if first <= at <= last])
            answer.before = [own[at][2] for at in beside if at < first] + parts[:-1]
            answer.code = parts[-1]
            answer.after = [own[at][2] for at in beside if at > last]
        else:
            having = [text for _, _, text in own if asked and asked <= _defines(text)]
            answer.code = having[-1] if having else None
        answer.problem = _problem(answer, asked)
        if not answer.problem:
            texts = [*answer.before, answer.code, *answer.after]
            answer.before[:0] = helpers(texts, [text for _, _, text in own], known)
            *imports, answer.code = course_apart(answer.code)
            answer.before = [*chain.from_iterable(map(course_apart, answer.before)), *imports]
            answer.after = [*chain.from_iterable(map(course_apart, answer.after))]
    return found


def _own_cells(
    submission: NotebookNode, master: NotebookNode, wanted: dict[str, set[str]]
) -> list[tuple[str, str, str]]:
    """What the student wrote, in its order: the exercise it belongs to, as what, and the text."""
    checks = {_text(c).strip(): _id(c) for c in master.cells if _kind(c, "grade")}
    given = {_text(cell).strip() for cell in master.cells if not _kind(cell, "solution")}
    given |= {_text(cell).strip() for cell in submission.cells if _kind(cell, "grade")}
    codes = [cell for cell in submission.cells if cell.get("cell_type") == "code"]
    lost = set(wanted) - {_id(cell) for cell in codes}
    found: list[tuple[str, str, str]] = []
    waiting: list[str] = []
    for cell in codes:
        text = _text(cell)
        name = _id(cell) or checks.get(text.strip(), "")
        exercise = name if name in wanted else name.removesuffix("_check")
        if not name and text.strip() not in given:
            exercise = name = next(
                (n for n in wanted if n in lost and wanted[n] & _binds(text)), ""
            )
        if exercise in wanted:
            found += [(exercise, BESIDE, own) for own in waiting]
            found += [(exercise, ANSWER, text)] if name == exercise else []
            waiting = []
        elif text.strip() and text.strip() not in given:
            waiting.append(text)
    return found + [("", BESIDE, own) for own in waiting]


def _parts(texts: list[str]) -> list[str]:
    """The parts of an answer: one, where a cell was split inside of a function."""
    joined = "\n".join(texts)
    if parsed(joined) is not None and any(parsed(text) is None for text in texts):
        return [joined]
    return texts


def _problem(answer: Answer, wanted: set[str]) -> str:
    """Why there is nothing to run, or an empty string."""
    if not (answer.code or "").strip():
        return MISSING
    if sum(map(len, (*answer.before, answer.code, *answer.after))) > LONGEST:
        return TOO_LONG
    cells = [*answer.before, answer.code, *answer.after]
    return UNTOUCHED if is_stub(cells, wanted) else ""


def is_stub(cells: list[str], wanted: set[str]) -> bool:
    """Whether something that the exercise asks for still raises what its stub raises.

    Of several definitions the last one counts: the stub may have been kept above the answer.
    """
    last: dict[str, ast.stmt] = {}
    broken = False
    for code in cells:
        body = parsed(code)
        broken |= body is None and any(line.strip() == STUB_LINE for line in code.splitlines())
        last |= {name: node for node in body or [] for name in changed(node)}
    if broken and not wanted <= set(last):
        return True
    asked = [last[name] for name in wanted if name in last]
    inside = [part for node in asked for part in ast.walk(node)]
    return any(_meets_the_stub(part.body) for part in inside if isinstance(part, ast.FunctionDef))


def _meets_the_stub(body: list[ast.stmt]) -> bool:
    """Whether these lines come to the one that the student edition has there, in no branch."""
    for line in body:
        if isinstance(line, ast.Return | ast.Raise):
            return _is_the_stub(line)
        if isinstance(line, ast.For | ast.While | ast.With) and _meets_the_stub(line.body):
            return True
    return False


def _is_the_stub(line: ast.stmt) -> bool:
    call = line.exc if isinstance(line, ast.Raise) else None
    said = call.args if isinstance(call, ast.Call) else []
    return len(said) == 1 and isinstance(said[0], ast.Constant) and said[0].value == STUB


def _defines(source: str) -> set[str]:
    """Names of the functions and classes at the top of a source text; none if it is no Python."""
    body = parsed(source) or []
    return {n.name for n in body if isinstance(n, ast.FunctionDef | ast.ClassDef)}


def _binds(source: str) -> set[str]:
    return {name for node in parsed(source) or [] for name in bound(node)}


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
    text = "".join(line for line in lines if isinstance(line, str))
    return text.replace("\r\n", "\n").replace("\r", "\n")
