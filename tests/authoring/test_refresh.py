"""`python -m authoring.refresh`, on small notebooks: what it rewrites, and what it leaves alone.

python -m pytest -m instructor tests/authoring/test_refresh.py
"""

import base64
import io

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

refresh = pytest.importorskip("authoring.refresh", reason="needs nbgrader")
pytestmark = pytest.mark.instructor
TAG = {"tags": ["nbval-ignore-output"]}
PICTURE = """
import io
from IPython.display import Image, display
from matplotlib.image import imsave
file = io.BytesIO()
imsave(file, [[0.0, 0.5], [SHADE, 1.0]], metadata={"Title": str(SALT)}, format="png")
display(Image(file.getvalue()), metadata={"image/png": {"alt": ALT}})
"""


def code(source, **metadata):
    return new_code_cell(source, metadata=metadata)


@pytest.fixture
def course(tmp_path, monkeypatch):
    """An empty folder of notebooks, and the number of student editions made of it."""
    (tmp_path / "going_further").mkdir()
    (tmp_path / "exercises").mkdir()
    made = []
    monkeypatch.setattr(refresh, "NOTEBOOKS", tmp_path)
    monkeypatch.setattr(refresh, "write_all", lambda: made.append(1))
    return tmp_path, made


def write(path, *cells):
    notebook = new_notebook(cells=[new_markdown_cell("# Title"), *cells])
    notebook.metadata = {"kernelspec": {"name": "python3", "display_name": "P", "language": "py"}}
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number}"
    nbformat.write(notebook, path)
    return path


def edit(path, number, **changes):
    """Change attributes of a code cell, as another hand would."""
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[number].update(changes)
    nbformat.write(notebook, path)


def outputs(path, number):
    return nbformat.read(path, as_version=4).cells[number].outputs


def test_a_notebook_is_run_in_its_folder_and_only_its_run_is_written(course):
    folder, made = course
    path = write(folder / "going_further" / "07_b.ipynb", code("print(open('here').read())"))
    (folder / "going_further" / "here").write_text("found")
    before = nbformat.read(path, as_version=4)
    assert refresh.main([]) == 0
    after = nbformat.read(path, as_version=4)
    assert after.cells[1].outputs[0].text == "found\n"
    assert after.cells[1].execution_count == 1
    assert [c.id for c in after.cells] == ["cell-0", "cell-1"]
    assert after.metadata == before.metadata
    assert after.cells[1].metadata == {}
    assert made == [1]
    text = path.read_bytes()
    assert refresh.main(["07"]) == 0
    assert path.read_bytes() == text


def test_prints_that_came_in_pieces_are_joined_and_times_of_execution_dropped(course):
    path = write(course[0] / "01_a.ipynb", code("print(1)\nprint(2)", execution={"started": "now"}))
    refresh.main([])
    whole = path.read_bytes()
    assert b'execution"' not in whole
    pieces = [nbformat.v4.new_output("stream", text=text) for text in ("1\n", "2\n")]
    edit(path, 1, outputs=pieces, metadata={"execution": {"started": "now"}})
    assert path.read_bytes() != whole
    assert refresh.refresh(path) == "tidied"
    assert path.read_bytes() == whole


def test_prints_around_a_picture_keep_their_order(course):
    source = "print(1)\ndisplay(2)\nprint(3)"
    path = write(course[0] / "01_a.ipynb", code(source))
    refresh.main([])
    assert [o.output_type for o in outputs(path, 1)] == ["stream", "display_data", "stream"]


@pytest.fixture
def timed(course):
    """A notebook whose first cell prints another number in each run, and draws it."""
    path = write(
        course[0] / "05_t.ipynb",
        code("import time; now = time.perf_counter(); print(now)", **TAG),
        code("SHADE = now % 1; SALT = 0; ALT = 'a time'" + PICTURE),
        code("print('faster')"),
    )
    assert refresh.refresh(path) == "rewritten"
    return path


def test_new_times_alone_leave_the_file_alone(timed):
    before = timed.read_bytes()
    assert refresh.refresh(timed).startswith("as it was, but for times")
    assert timed.read_bytes() == before


def test_new_times_are_taken_over_when_asked_for(timed):
    before = [outputs(timed, number) for number in (1, 2)]
    assert refresh.refresh(timed, timings=True) == "rewritten"
    assert outputs(timed, 1) != before[0]
    assert outputs(timed, 2) != before[1]


@pytest.mark.parametrize(
    "number, source",
    [
        (3, "print('slower')"),
        (2, "SHADE = now % 1; SALT = 0; ALT = 'another text'" + PICTURE),
        (1, "now = 0"),
    ],
)
def test_times_are_taken_over_where_something_else_changed(timed, number, source):
    before = [outputs(timed, cell) for cell in (1, 2)]
    edit(timed, number, source=source)
    assert refresh.refresh(timed) == "rewritten"
    assert outputs(timed, 1) != before[0]
    assert outputs(timed, 2) != before[1]


def test_a_picture_is_new_only_if_a_pixel_is(course):
    start = "import time; SALT = time.perf_counter(); ALT = 'x'; SHADE = "
    path = write(course[0] / "01_a.ipynb", code(start + "0.2" + PICTURE))
    refresh.main([])
    first = path.read_bytes()
    assert refresh.refresh(path) == "as it was"
    assert path.read_bytes() == first
    edit(path, 1, source=start + "0.3" + PICTURE)
    picture = outputs(path, 1)[0].data["image/png"]
    assert refresh.refresh(path) == "rewritten"
    new = outputs(path, 1)[0].data["image/png"]
    assert new != picture
    assert io.BytesIO(base64.b64decode(new)).read(4) == b"\x89PNG"


@pytest.mark.parametrize(
    "source, reason",
    [
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("import warnings; warnings.warn('careful')", "careful"),
        ("print('/home/me/course')", "a path of this machine, with /home/"),
        (r"print(r'C:\course')", "a path of this machine, with C:"),
        ("'/tmp/x'", "a path of this machine, with /tmp/"),
        ("import os; os._exit(1)", "Kernel died"),
        ("import time; time.sleep(60)", "timed out"),
    ],
)
def test_what_must_not_be_committed_stops_it(course, monkeypatch, capsys, source, reason):
    monkeypatch.setattr(refresh, "CELL_SECONDS", 60 if "sleep" not in source else 2)
    folder, made = course
    first = write(folder / "01_a.ipynb", code("print(1)"))
    failing = write(folder / "02_b.ipynb", code("x = 1"), code(source), code("x"))
    third = write(folder / "03_c.ipynb", code("print(3)"))
    before = [path.read_bytes() for path in (first, failing, third)]
    assert refresh.main([]) == 1
    said = capsys.readouterr().out
    assert "02_b: not rewritten. cell [2] (cell-2): " in said
    assert reason in said
    after = [path.read_bytes() for path in (first, failing, third)]
    assert [old == new for old, new in zip(before, after, strict=True)] == [False, True, True]
    assert sorted(path.name for path in folder.glob("*.*")) == sorted(
        path.name for path in (first, failing, third)
    )
    assert made == []


def test_an_edit_made_meanwhile_is_not_lost(course, capsys):
    source = "from pathlib import Path; Path('01_a.ipynb').write_text('mine')"
    path = write(course[0] / "01_a.ipynb", code(source + "; None"))
    assert refresh.main([]) == 1
    assert path.read_text() == "mine"
    assert "somebody edited it" in capsys.readouterr().out


def test_only_worked_notebooks_are_run_and_only_those_named(course):
    folder, _ = course
    asked = write(folder / "02_b.ipynb", code("print(2)"))
    others = [
        write(folder / name, code("print(1)"))
        for name in ("01_a.ipynb", "glossary.ipynb", "exercises/02_b.ipynb")
    ]
    before = [path.read_bytes() for path in (asked, *others)]
    assert refresh.main(["02"]) == 0
    after = [path.read_bytes() for path in (asked, *others)]
    assert [old == new for old, new in zip(before, after, strict=True)] == [False, True, True, True]


def test_an_unknown_number_runs_nothing(course, capsys):
    with pytest.raises(SystemExit) as ended:
        refresh.main(["77"])
    assert ended.value.code == 2
    assert "there is no notebook 77" in capsys.readouterr().err
