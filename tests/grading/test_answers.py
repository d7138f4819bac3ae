"""What is taken out of a notebook: answers, stubs told from honest code, and never an exception."""

import json
import os

import nbformat
import pytest
from hypothesis import given, seed, settings
from hypothesis import strategies as st

from course_utils.transformer import ROOT

pytestmark = pytest.mark.instructor
EDITION = ROOT / "notebooks" / "exercises" / "01_attention.ipynb"
STUB = '    raise NotImplementedError("Your turn: the card above says what to build.")\n'


def problem(code, before=()):
    from grading.extract import extract

    notebook = nbformat.read(EDITION, as_version=4)
    ids = [cell.metadata.get("nbgrader", {}).get("grade_id") for cell in notebook.cells]
    place = ids.index("softmax")
    notebook.cells[place].source = code
    notebook.cells[place:place] = [nbformat.v4.new_code_cell(source) for source in before]
    return extract(nbformat.writes(notebook).encode(), "01")["softmax"].problem


HONEST = {
    "a docstring that quotes the stub": 'def softmax(s):\n    """raise NotImplementedError('
    '"Your turn: the card above says what to build.")"""\n    return s',
    "a branch that raises it": "def softmax(s):\n    if s.dim() > 9:\n    " + STUB + "    return s",
    "one of its own": 'def softmax(s):\n    raise NotImplementedError("complex numbers")\n',
    "the stub in a comment above a magic": f"# def softmax(s):\n#{STUB}%matplotlib inline\n"
    "def softmax(s):\n    return s",
    "a magic": "%time x = 1\n!ls\ndef softmax(s):\n    return s",
    "a sum of 3000 terms": "def softmax(s):\n    return " + " + ".join(["s"] * 3000),
    "a chain of 200 calls": "def softmax(s):\n    return s" + ".abs()" * 200,
    "a number of 5000 digits": "def softmax(s):\n    return 0x" + "f" * 5000,
    "no Python": "def softmax(s):\n  return (",
}


@pytest.mark.parametrize("code", HONEST.values(), ids=HONEST)
def test_what_was_written_is_run(code):
    assert problem(code) == ""


@pytest.mark.parametrize(
    "code",
    [
        "def softmax(s):\n" + STUB,
        'def softmax(s):\n    """It."""\n' + STUB,
        "%matplotlib inline\ndef softmax(s):\n" + STUB,
        "def softmax(s):\n    (\n" + STUB,
    ],
)
def test_what_was_not_is_not_done(code):
    assert problem(code) == "not done"


def test_too_much_is_not_read():
    assert problem("x = [" + "1," * 60_000 + "]\ndef softmax(s):\n    return s") == (
        "too long to be read"
    )
    assert problem("def softmax(s):\n    return s", ["#" * 99_990]) == "too long to be read"
    assert problem("  \n") == "missing"


@pytest.mark.parametrize("kind", ["link", "pipe", "folder", "large"])
def test_a_file_that_is_replaced_while_it_is_looked_at(tmp_path, monkeypatch, kind):
    """What it was a moment ago is no help: a pipe would be waited for, a link be followed."""
    from pathlib import Path

    from grading import answers

    path = tmp_path / "a.ipynb"
    path.write_bytes(EDITION.read_bytes())

    def replaced(self):
        path.unlink()
        if kind == "link":
            path.symlink_to(EDITION)
        if kind == "pipe":
            os.mkfifo(path)
        if kind == "folder":
            path.mkdir()
        if kind == "large":
            path.write_bytes(bytes(answers.LARGEST + 1))
        return False

    monkeypatch.setattr(Path, "is_symlink", replaced)
    with pytest.raises(answers.Unreadable):
        answers.read(path)


def test_a_notebook_of_too_many_cells_is_refused():
    from grading.answers import Unreadable
    from grading.extract import extract

    cells = [nbformat.v4.new_code_cell("1") for _ in range(2001)]
    with pytest.raises(Unreadable, match="has more than 2000 cells"):
        extract(nbformat.writes(nbformat.v4.new_notebook(cells=cells)).encode(), "01")


def test_a_reader_that_takes_too_long_or_too_much_is_replaced(monkeypatch):
    from grading import limited
    from grading.answers import Unreadable
    from grading.extract import extract

    limited._mine.process = None  # a new one takes a third of a second to start
    monkeypatch.setattr(limited, "SECONDS", 0.0)
    with pytest.raises(Unreadable, match="is too large to be read: it took too much time"):
        extract(EDITION.read_bytes(), "01")
    monkeypatch.undo()
    monkeypatch.setattr(limited, "LONGEST", 10)
    with pytest.raises(Unreadable, match="the result is too large"):
        extract(EDITION.read_bytes(), "01")
    monkeypatch.undo()
    limited.limited("extracted", "", "01")
    limited._mine.process.process.kill()
    with pytest.raises(Unreadable, match="the process that read it died"):
        extract(EDITION.read_bytes(), "01")
    assert extract(EDITION.read_bytes(), "01")["softmax"].problem == "not done"


def damaged():
    """The student edition, with anything in place of any part of it."""
    anything = st.recursive(
        st.none() | st.booleans() | st.integers(-5, 5) | st.floats() | st.text(max_size=9),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner),
        max_leaves=6,
    )
    return st.lists(st.tuples(st.integers(0, 10**6), anything), min_size=1, max_size=6)


def places(part, path=()):
    yield path
    if isinstance(part, dict | list):
        for key, value in part.items() if isinstance(part, dict) else enumerate(part):
            yield from places(value, (*path, key))


RAW = json.loads(EDITION.read_text(encoding="utf-8"))
PLACES = [path for path in places(RAW) if path]


def with_damage(damage):
    notebook = json.loads(json.dumps(RAW))
    for number, value in damage:
        *way, last = PLACES[number % len(PLACES)]
        part = notebook
        try:
            for key in way:
                part = part[key]
            part[last] = value
        except (KeyError, IndexError, TypeError):  # an earlier damage took it away
            continue
    return json.dumps(notebook).encode()


def reads(content):
    from grading.answers import Unreadable, answers, parse
    from grading.graft import master

    try:
        found = answers(parse(content), master("01"))
    except Unreadable as error:
        assert str(error)
    else:
        assert set(found) == {"softmax", "causal_mask", "attention", "multi_head"}
        for answer in found.values():
            assert isinstance(answer.code or "", str) and isinstance(answer.problem, str)


@given(damaged())
@settings(max_examples=300, deadline=None, derandomize=True, database=None)
def test_no_damaged_notebook_raises(damage):
    reads(with_damage(damage))


@given(st.binary(max_size=200), st.integers(0, 10**6), st.integers(0, 200))
@settings(max_examples=200, deadline=None, derandomize=True, database=None)
def test_no_damaged_file_raises(noise, place, cut):
    text = EDITION.read_bytes()
    place %= len(text)
    reads(text[:place] + noise + text[place + cut :])
    reads(noise)


@pytest.mark.thorough
@pytest.mark.parametrize("of_a_hundred", range(100))
def test_a_hundred_thousand_damaged_notebooks_do_not_raise(of_a_hundred):
    @seed(of_a_hundred)
    @given(damaged(), st.binary(max_size=40), st.integers(0, 10**6))
    @settings(max_examples=1000, deadline=None, database=None)
    def none_raises(damage, noise, place):
        content = with_damage(damage)
        place %= len(content)
        reads(content[:place] + noise + content[place:] if place % 3 == 0 else content)

    none_raises()
