"""The page a student gets back: points, own code, and what the course's checks say of it.

The student's own cells and the *visible* checks are run once more, in a kernel of their own, over
the hand-out that the student has. What decides the points, the probes and their inputs, is never
near that kernel, so it cannot be on the page.
"""

import atexit
import base64
import collections
import functools
import html
import re
import shutil
import tempfile
import threading
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from .answers import Answer
from .graft import exercises, master, piece
from .limited import TooMuch, limited
from .probes import PROBES

LONGEST = 2000
MOST_LINES, MOST_CHARACTERS = 400, 20_000  # of a cell in colours, which take a square of its length
NOTHING_RUNS = (
    '<meta http-equiv="Content-Security-Policy" '
    "content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">"
)
IGNORED = {"tags": ["nbval-ignore-output"]}
SAID_BY_CHECK = "checks.common (sealed)"  # where a check raises its verdict; no line of a student's
IMPORTS = re.compile(r"^from course_utils import .*\bchecks\b", re.M)  # in the cell of imports
WORDS = {"right": "right", "not done": "not done yet", "missing": "not in the notebook"}
_lock = threading.Lock()


def handout(notebook: str) -> Path:
    """A folder with the hand-out for `notebook`, made once for this process."""
    with _lock:
        return _handout(notebook)


@functools.cache
def _handout(notebook: str) -> Path:
    from .release import release

    folder = Path(tempfile.mkdtemp(prefix="handout-"))
    atexit.register(shutil.rmtree, folder, True)
    return release(notebook, folder)


def notebook(number: str, given: dict[str, Answer]) -> NotebookNode:
    """The student's answers with the cells of notebook `number` that they need, and the checks."""
    cells = {c.metadata.get("nbgrader", {}).get("grade_id"): c for c in master(number).cells}
    codes = [c.source for c in master(number).cells if c.cell_type == "code"]
    imports = next(code for code in codes if IMPORTS.search(code))
    made, shown = [new_code_cell(imports, metadata=IGNORED | {"part": ""})], set()
    for name, answer in given.items():
        needed = [n for n in PROBES[name].needs if n not in PROBES and n != "bases"]
        sources = [piece(other) for other in needed if other not in shown]
        made += [new_code_cell(source, metadata=IGNORED | {"part": ""}) for source in sources]
        shown.update(needed)
        sources = [*answer.before, answer.code or "", *answer.after, cells[f"{name}_check"].source]
        made += [new_code_cell(source, metadata=IGNORED | {"part": name}) for source in sources]
    return new_notebook(cells=made)


def filled(
    number: str, given: dict[str, Answer], ran: dict[str, Answer], outputs: list[list[dict]]
) -> NotebookNode:
    """The notebook of all answers, with what was put out by those of them that `ran`.

    `outputs` are those of the cells of `notebook(number, ran)`, in their order.
    """
    made, found = notebook(number, given), collections.defaultdict(list)
    for cell, out in zip(notebook(number, ran).cells, outputs, strict=False):
        found[cell.metadata["part"]].append(out)
    for cell in made.cells:
        if cell.metadata["part"] and (left := found[cell.metadata["part"]]):
            cell.outputs = [out for out in map(_plain, left.pop(0)) if out]
    return made


def said(number: str, given: dict[str, Answer], outputs: list[list[dict]]) -> dict[str, str]:
    """What kept each exercise from being right, in one line; "" where its check says it is right.

    It is the check's words, or the error with which an own cell ended. Any text can be in it.
    """
    cells = notebook(number, given).cells
    found = dict.fromkeys(given, "")
    for cell, out in zip(cells, outputs, strict=False):
        name = cell.metadata["part"]
        for error in (one for one in out if one.get("output_type") == "error"):
            kind, text = (" ".join(str(error.get(key)).split()) for key in ("ename", "evalue"))
            found[name] = _short(text if kind == "AssertionError" else f"{kind}: {text}")
    found.pop("", None)
    return found


def _as_shown(cell: NotebookNode) -> NotebookNode:
    """The cell; if it is very long, its beginning in plain text."""
    text = cell.source
    if len(text) <= MOST_CHARACTERS and text.count("\n") < MOST_LINES:
        return cell
    begin = "\n".join(text[:MOST_CHARACTERS].split("\n")[:MOST_LINES])
    more = f"[{len(text) - len(begin)} more characters]"
    plain = new_output("stream", name="stdout", text=f"{begin}\n{more}")
    return new_code_cell(outputs=[plain, *cell.outputs], metadata=cell.metadata)


def _plain(output: dict) -> NotebookNode | None:
    """An output without anything that a page could run, and short; None if nothing is left."""
    kind = output.get("output_type")
    if kind == "stream":
        return new_output("stream", name="stdout", text=_short(output.get("text")))
    if kind == "error":
        lines = [_short(line) for line in list(output.get("traceback", []))[-30:]]
        if len(lines) > 1 and SAID_BY_CHECK in lines[-2]:
            del lines[:-1]
        name, value = (_short(output.get(key)) for key in ("ename", "evalue"))
        return new_output("error", ename=name, evalue=value, traceback=lines)
    data = output.get("data") if isinstance(output.get("data"), dict) else {}
    picture = data.get("image/png")
    if _is_base64(picture):
        kept = {"image/png": picture}
    elif "text/plain" in data:
        kept = {"text/plain": _short(data["text/plain"])}
    else:
        return None
    return new_output("display_data", data=kept)


def _short(text: object) -> str:
    text = text if isinstance(text, str) else ""
    more = len(text) - LONGEST
    return f"{text[:LONGEST]}\n[{more} more characters]" if more > 0 else text


def _is_base64(text: object) -> bool:
    try:
        content = text.replace("\n", "") if isinstance(text, str) else ""
        return bool(base64.b64decode(content, validate=True))
    except ValueError:
        return False


def page(number: str, student: str, statuses: dict[str, str], shown: NotebookNode) -> str:
    """The HTML page, made in a process with limits: where it passes one, without the answers."""
    try:
        return limited("rendered", number, student, statuses, shown)
    except TooMuch:
        return limited("rendered", number, student, statuses, new_notebook())


def _note(status: str, cells: list[NotebookNode]) -> str:
    """What has to be known to understand what is below an exercise, if anything."""
    if status not in ("right", "wrong"):
        return " It was not run again for this page."
    failed = any(out.output_type == "error" for cell in cells for out in cell.outputs)
    if status == "right" and failed:
        return " The error below is from a run with your own answers to the earlier exercises."
    return ""


def rendered(number: str, student: str, statuses: dict[str, str], shown: dict) -> str:
    """The HTML page: a table of points, then each exercise that was answered, with its outputs."""
    from nbconvert import HTMLExporter

    shown = nbformat.from_dict(shown)

    rows, cells = [], []
    for name, exercise in exercises(number).items():
        points = exercise.points if statuses[name] == "right" else 0
        word = WORDS.get(statuses[name], statuses[name])
        rows.append(
            f"<tr><td>{html.escape(exercise.title)}</td><td>{points} of {exercise.points}</td>"
            f"<td>{html.escape(word)}</td></tr>"
        )
        own = [cell for cell in shown.cells if cell.metadata["part"] == name]
        title = f"## Exercise {exercise.title}\n\n{points} of {exercise.points} points: {word}."
        noted = new_markdown_cell(title + _note(statuses[name], own))
        cells += [noted, *map(_as_shown, own)] if own else []
    every = exercises(number)
    got = sum(every[name].points for name in every if statuses[name] == "right")
    whole = sum(exercise.points for exercise in every.values())
    rows.append(f"<tr><td><b>total</b></td><td>{got} of {whole}</td><td></td></tr>")
    head = "<tr><th>exercise</th><th>points</th><th></th></tr>"
    title = master(number).cells[0].source.splitlines()[0].removeprefix("# ")
    top = (
        f"<h1>{html.escape(title)}: feedback for {html.escape(student)}</h1>\n\n"
        f"<table>{head}{''.join(rows)}</table>\n\n"
        "<p>Below each answer is what the course's check says about it. The points were given "
        "separately, on other inputs, with the course's answers to the earlier exercises.</p>"
    )
    document = new_notebook(cells=[new_markdown_cell(top), *cells])
    document.metadata["title"] = f"Feedback for {student}"
    exporter = HTMLExporter(exclude_input_prompt=True, exclude_output_prompt=True)
    made = exporter.from_notebook_node(document)[0].replace("<head>", f"<head>{NOTHING_RUNS}", 1)
    return re.sub(r"<script\b.*?</script>", "", made, flags=re.DOTALL)
