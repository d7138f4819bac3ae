"""The alt texts of figures: all in one file, each shown by one cell, none to be read in a cell."""

import ast
import re
import string
import tomllib
from typing import NamedTuple

import nbformat
import pytest

from authoring.minutes import timed
from authoring.site.stage import alt_texts
from course_utils.plots.alt_texts import FILE
from course_utils.transformer import ROOT

pytestmark = pytest.mark.authors

TABLES = tomllib.loads(FILE.read_text(encoding="utf-8"))
ALL = sorted((ROOT / "notebooks").rglob("[0-9][0-9]_*.ipynb"))


class Shown(NamedTuple):
    """A call of `show`: its key, the names of its values, the alt texts of its cell's pictures."""

    key: str
    values: set[str]
    alts: list[str]


def shown(path):
    """The calls of `show` in a notebook, in order."""
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "code":
            for call in calls(cell.source):
                _, key = call.args
                values = {keyword.arg for keyword in call.keywords}
                yield Shown(ast.literal_eval(key), values, alt_texts(cell))


def calls(source):
    nodes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    return [node for node in nodes if ast.unparse(node.func) in ("show", "plots.show")]


def parts(text):
    """A text as pairs: words, and the name of the value after them, or None."""
    return [part[:2] for part in string.Formatter().parse(" ".join(text.split()))]


def test_each_text_is_in_the_table_of_its_notebook_and_shown_by_one_cell_in_this_order():
    assert TABLES.keys() == {path.stem for path in timed()}
    for path in timed():
        assert [call.key for call in shown(path)] == list(TABLES[path.stem])


def test_no_key_is_in_two_tables():
    keys = [key for table in TABLES.values() for key in table]
    assert sorted(keys) == sorted(set(keys))


@pytest.mark.parametrize("path", timed(), ids=lambda path: path.stem)
def test_the_alt_text_of_a_figure_is_that_of_the_file(path):
    for call in shown(path):
        text = parts(TABLES[path.stem][call.key])
        assert call.values == {name for _, name in text if name}
        pattern = "".join(re.escape(words) + ".+" * bool(name) for words, name in text)
        (alt,) = call.alts
        assert re.fullmatch(pattern, alt), f"{call.key}: refresh the notebook"


@pytest.mark.parametrize("path", ALL, ids=lambda path: str(path.relative_to(ROOT / "notebooks")))
def test_no_cell_holds_what_its_figure_shows(path):
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "code":
            assert not re.search(r"\balt\b", cell.source), cell.id
