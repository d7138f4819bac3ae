"""The student edition: the worked notebooks without solutions and outputs, in notebooks/exercises.

    python -m authoring.exercises

nbgrader's own preprocessors make it, so that the result is what nbgrader calls an assignment.
"""

import re
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell
from nbgrader.preprocessors import (
    CheckCellMetadata,
    ClearOutput,
    ClearSolutions,
    ComputeChecksums,
    LockCells,
)
from traitlets.config import Config

from course_utils.checks.progress import THE_COURSES

from . import COLAB, LINKS
from .go_on import GO_ON

NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"
STUB = 'raise NotImplementedError("Your turn: the card above says what to build.")'
DO_IT = re.compile(r"> \*\*\[Do it yourself\]\((?:\.\./)?exercises/(.+?)\)\*\* · (.+)\n>\n")
SEE_IT = "> **[See it worked]({folder}{name})** · [start here](../00_start_here.ipynb)\n>\n"
WORDS = "\n>\n> Words: [glossary](glossary.ipynb) · letters: [notation](notation.ipynb)"
TO_EXERCISE = re.compile(r'(?<=[/"]notebooks/)(?:going_further/)?(?=\d\d_\w+\.ipynb)')
STEPS = (LockCells, ClearSolutions, ClearOutput, CheckCellMetadata, ComputeChecksums)


def student_edition(
    notebook: NotebookNode, handout: bool = False, chapter: bool = False
) -> NotebookNode:
    """A worked notebook as a student gets it. Raises nbgrader's errors for wrong metadata.

    In a hand-out it stays in its folder, without the glossary and the notation, without links to a
    copy on GitHub, and nothing shows the course's version. A chapter of "Going further" is as deep
    in the folders as its student edition, so its links stay.
    """
    worked = {c.metadata.get("nbgrader", {}).get("grade_id"): c.source for c in notebook.cells}
    config = Config({"ClearSolutions": {"code_stub": {"python": STUB}}})
    resources = {}
    for step in STEPS:
        notebook, resources = step(config=config).preprocess(notebook, resources)
    cells = []
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "markdown" and not handout and not chapter:
            cell.source = cell.source.replace("](../", "](../../").replace("](going_further/", "](")
            cell.source = re.sub(r"\]\((glossary|notation)\.ipynb", r"](../\1.ipynb", cell.source)
        elif cell.cell_type == "markdown" and handout:
            cell.source = cell.source.replace(WORDS, "")
        cells.append(cell)
        grading = cell.metadata.get("nbgrader", {})
        if grading.get("grade") and not handout:
            exercise = grading["grade_id"].removesuffix("_check")
            code = GO_ON.get(exercise) or f"{THE_COURSES}\n{without_marks(worked[exercise])}"
            cells.append(_go_on(code, cell["id"]))
    see_it = SEE_IT.format(folder="../going_further/" if chapter else "../", name=r"\1")
    cells[0].source = DO_IT.sub("" if handout else see_it, cells[0].source)
    notebook.cells = _for_this_copy(cells, handout)
    return notebook


def _for_this_copy(cells: list[NotebookNode], handout: bool) -> list[NotebookNode]:
    """What `course.py links` wrote leads to the exercises; a hand-out has nothing of it."""
    if handout:
        cells[0].source = re.sub(LINKS, "", cells[0].source)
        return [cell for cell in cells if cell.get("id") != COLAB]
    for cell in cells:
        if cell is cells[0] or cell.get("id") == COLAB:
            cell.source = TO_EXERCISE.sub("exercises/", cell.source)
    return cells


def without_marks(source: str) -> str:
    """A worked cell without the lines that mark its solution."""
    lines = source.splitlines()
    return "\n".join(line for line in lines if not line.strip().startswith("### "))


def _go_on(code: str, cell_id: str) -> NotebookNode:
    text = (
        "<details><summary>Stuck? Go on with the course's version</summary>\n\n"
        "Copy this into a new cell below, run it, and come back later.\n\n"
        f"```python\n{code}\n```\n</details>"
    )
    cell = new_markdown_cell(text)
    cell["id"] = f"{cell_id}-go-on"
    return cell


def write_all(folder: Path = NOTEBOOKS / "exercises") -> list[Path]:
    """Write the student edition of every notebook into `folder`; returns the paths."""
    folder.mkdir(exist_ok=True)
    written = []
    for path in [*NOTEBOOKS.glob("*.ipynb"), *NOTEBOOKS.glob("going_further/*.ipynb")]:
        if re.match(r"(?!00)\d\d_", path.name):
            chapter = path.parent != NOTEBOOKS
            notebook = student_edition(nbformat.read(path, as_version=4), chapter=chapter)
            written.append(folder / path.name)
            nbformat.write(notebook, written[-1])
    return sorted(written)


if __name__ == "__main__":
    for path in write_all():
        print(path.relative_to(NOTEBOOKS.parent))
