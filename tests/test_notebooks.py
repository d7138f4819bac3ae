"""The notebooks as documents: executed, in order, clean, and honest about what is not compared."""

import re
from importlib import import_module

import nbformat
import pytest

from course_utils import checks
from course_utils.transformer import ROOT

PATHS = sorted(
    path
    for path in (ROOT / "notebooks").rglob("*.ipynb")
    if not {"exercises", ".ipynb_checkpoints"} & set(path.parts)
)


@pytest.fixture(params=PATHS, ids=lambda path: path.stem)
def notebook(request):
    return nbformat.read(request.param, as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def outputs(notebook):
    return [output for cell in code_cells(notebook) for output in cell.outputs]


def test_there_are_notebooks():
    assert PATHS


def test_it_is_valid(notebook):
    nbformat.validate(notebook)


def test_every_code_cell_was_executed_in_order_from_a_fresh_kernel(notebook):
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))


def test_no_output_is_an_error_or_goes_to_stderr(notebook):
    for output in outputs(notebook):
        assert output.output_type != "error"
        assert output.get("name") != "stderr"


def test_every_ignored_output_says_why(notebook):
    for cell in code_cells(notebook):
        ignored = "nbval-ignore-output" in cell.metadata.get("tags", [])
        first = cell.source.splitlines()[0]
        assert ignored == bool(re.match(r"# Output not compared: .{10,}", first)), first
        assert "NBVAL_" not in cell.source


def test_cells_fit_on_a_screen(notebook):
    assert max(len(cell.source.splitlines()) for cell in code_cells(notebook)) <= 45


def test_every_picture_has_alt_text_and_a_caption(notebook):
    for cell, after in zip(notebook.cells, notebook.cells[1:], strict=False):
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                assert len(output.metadata["image/png"]["alt"]) > 40
                assert after.source.startswith("**Figure")


def test_no_path_of_the_machine_that_ran_it(notebook):
    text = nbformat.writes(notebook)
    assert not re.search(r"/(home|Users|root|tmp|work)/|[A-Z]:\\\\", text)


def test_predictions_are_answered_by_the_next_cell(notebook):
    asked = [i for i, cell in enumerate(notebook.cells) if "**Predict first.**" in cell.source]
    assert len(asked) >= 2
    for i in asked:
        assert notebook.cells[i].source.rpartition("\n\n")[2].startswith("> **Predict first.**")
        assert notebook.cells[i + 1].cell_type == "code"
        assert notebook.cells[i + 1].outputs


def exercises_of(number):
    if number in checks.EXERCISES:
        return checks.EXERCISES[number]
    return import_module(f"course_utils.going_further.checks_{number}").EXERCISES[number]


def test_it_ends_with_the_progress_of_its_own_exercises(notebook):
    number = re.search(r"# (\d\d) ·", notebook.cells[0].source)[1]
    assert notebook.cells[-1].source == f'checks.progress("{number}", globals())'
    cards = re.findall(r"^### Exercise (.+)$", "\n".join(c.source for c in notebook.cells), re.M)
    assert list(exercises_of(number)) == cards
    table = notebook.cells[-1].outputs[-1].data["text/plain"]
    assert table.count(checks.PASSES) == len(cards)
