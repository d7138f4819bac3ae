"""How far a student is, from notebooks as JupyterLab saves them."""

import nbformat
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nbformat import v4

from course_utils.checks import how_far
from course_utils.transformer import ROOT

pytestmark = pytest.mark.authors

PASSED = v4.new_output("stream", text="softmax is right: ...\n")
WARNED = v4.new_output("stream", name="stderr", text="a warning\n")
FAILED = v4.new_output("error", ename="AssertionError", evalue="not yet", traceback=[])


def write(folder, *results, name="01_attention"):
    """An exercise notebook with a check for each of `results`, the outputs that it has."""
    cells = [v4.new_markdown_cell("# 01 · Attention")]
    for number, outputs in enumerate(results, 1):
        grade = {"grade": True, "grade_id": f"{number}_check"}
        cells.append(v4.new_markdown_cell(f"### Exercise {number}: name {number}\n\nA card."))
        cells.append(v4.new_code_cell("...", metadata={"nbgrader": {"solution": True}}))
        cells.append(v4.new_code_cell("check()", outputs=outputs, metadata={"nbgrader": grade}))
        cells.append(v4.new_markdown_cell("Stuck?"))
    folder.mkdir(exist_ok=True)
    nbformat.write(v4.new_notebook(cells=cells), folder / f"{name}.ipynb")


@pytest.mark.parametrize(
    "results, passed, following",
    [
        (([], []), "0 of 2", "1: name 1"),
        (([PASSED], []), "1 of 2", "2: name 2"),
        (([FAILED], [PASSED]), "1 of 2", "1: name 1"),
        (([PASSED, FAILED],), "0 of 1", "1: name 1"),
        (([WARNED, PASSED], [PASSED]), "2 of 2", "all done"),
    ],
)
def test_checks_that_passed_are_counted(tmp_path, results, passed, following):
    write(tmp_path, *results)
    assert how_far(tmp_path).loc["01_attention"].to_list() == [passed, following]


def test_each_notebook_has_a_row_and_a_damaged_one_says_so(tmp_path):
    write(tmp_path, [PASSED], name="02_b")
    for name, content in (("01_a", b"{"), ("03_c", b"[1]"), ("04_d", b'{"cells": [1]}')):
        (tmp_path / f"{name}.ipynb").write_bytes(content)
    table = how_far(tmp_path)
    assert list(table.index) == ["01_a", "02_b", "03_c", "04_d"]
    assert list(table["passed"]) == ["?", "1 of 1", "?", "?"]
    assert "cannot be read" in table["next"]["03_c"]


@given(st.binary())
def test_no_file_stops_it(tmp_path_factory, content):
    folder = tmp_path_factory.mktemp("saved")
    (folder / "01_a.ipynb").write_bytes(content)
    assert len(how_far(folder)) == 1


def test_every_notebook_of_the_student_edition_can_be_read():
    table = how_far()
    assert len(table) == len(list((ROOT / "notebooks" / "exercises").glob("*.ipynb"))) == 13
    assert table["passed"].str.fullmatch(r"\d+ of [1-9]\d*").all()
