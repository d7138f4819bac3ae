"""The minutes that a notebook and the README state are those of its words, code and exercises."""

import re

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from authoring.minutes import minutes, timed
from course_utils.transformer import ROOT

pytestmark = pytest.mark.authors

NEAR = 5


@pytest.mark.parametrize("path", timed(), ids=lambda path: path.stem)
def test_the_stated_minutes_are_the_counted_ones(path):
    found = minutes(path)
    assert abs(found.counted - found.stated) <= NEAR, f"{path.name}: {found.counted:.0f}"
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (in_readme,) = re.findall(rf"{path.name}\) \|[^|]*\| (\d+) \|", readme)
    assert int(in_readme) == found.stated


def test_words_lines_and_exercises_are_counted_apart(tmp_path):
    card = "| **Difficulty** | ●○○ · 7 minutes |\n<details>\nnot these\n</details>"
    guess = "> Guess!\n>\n> <details><summary>not</summary>\n>\n> these\n> </details>"
    answer = "def f():\n    ### BEGIN SOLUTION\n    return 1\n    ### END SOLUTION\n\n\nf()"
    cells = [new_markdown_cell(text) for text in ("About 12 minutes. $$a+b$$", card, guess)]
    path = tmp_path / "01_x.ipynb"
    nbformat.write(new_notebook(cells=[*cells, new_code_cell(answer)]), path)
    found = minutes(path)
    assert (found.words, found.lines, found.exercises, found.stated) == (7, 2, 7, 12)
    assert found.counted == 7 / 180 + 2 / 8 + 7
