"""The hand-outs: each runs on its own, and holds no answer to its notebook or a later one."""

import ast
import importlib.util
import json
import os
import re
import zipfile
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from authoring import COLAB
from course_utils.transformer import ROOT

pytestmark = pytest.mark.instructor

NUMBERS = ("01", "02", "03", "04", "05", "06")
LONG = 30
# There are earlier versions of these, or (token_times) something else; none of them passes.
EARLIER = {
    "attention.MultiHeadAttention",
    "transformer.MultiHeadAttention",
    "transformer.DecoderOnlyTransformer",
}
OTHER_VERSIONS = {
    "01": set(),
    "02": {"attention.MultiHeadAttention"},
    "03": EARLIER,
    "04": EARLIER,
    "05": set(),
    "06": {"benchmark.token_times"},
}
SLOW = {
    "03": {"cell-43", "cell-44"},
    "04": {"cell-35", "cell-36", "preallocated-words"},
    "05": {
        *("cell-41", "cell-43", "cell-45", "cell-46", "cell-48", "cell-50", "cell-52"),
        *("three-readers", "one-mutant"),
        *("patient-2-picture", "patient-3-picture", "patient-4-picture", "hospital-diagnoses"),
    },
}
# The course is installed for editing: without this, what a hand-out lacks would be found there.
ALONE = """
import sys

sys.meta_path = [finder for finder in sys.meta_path if "editable" not in str(finder).lower()]
"""
LOOK = """
import importlib, json
from types import ModuleType
import course_utils.sealed

held, offered = {}, []
for room in ROOMS:
    try:
        held[room] = vars(importlib.import_module("course_utils." + room))
    except ImportError:
        pass
    for name in NAMES:
        try:
            course_utils.sealed.offer(room, name)
            offered.append(f"{room}.{name}")
        except (ImportError, AttributeError):
            pass
objects = {name: thing for room in held for name, thing in held[room].items()}
objects |= {"GrowingCache": GrowingCache} if "NUMBER" == "04" else {}
found = {
    "file": course_utils.__file__,
    "names": [f"{room}.{name}" for room in held for name in held[room]],
    "modules": [
        f"{room}.{name}" for room in held for name, thing in held[room].items()
        if isinstance(thing, ModuleType) and thing.__name__.startswith("course_utils")
    ],
    "offered": offered,
    "states": checks.progress("NUMBER", objects)["state"].to_dict(),
}
print()
print(json.dumps(found))
"""
PACKAGE = sorted(path.stem for path in (ROOT / "course_utils").glob("*.py"))


def worked(number):
    (path,) = (ROOT / "notebooks").glob(f"{number}_*.ipynb")
    return nbformat.read(path, as_version=4)


def exercises(folder):
    (path,) = folder.glob("notebooks/*.ipynb")
    return nbformat.read(path, as_version=4)


def code_cells(notebook):
    """Without the cell for Colab, which a hand-out does not have."""
    return [c for c in notebook.cells if c.cell_type == "code" and c.get("id") != COLAB]


def is_kind(cell, kind):
    return bool(cell.metadata.get("nbgrader", {}).get(kind))


def answer_names(number):
    """What a student has to write in this notebook or in a later one."""
    sources = [
        cell.source
        for later in NUMBERS[NUMBERS.index(number) :]
        for cell in code_cells(worked(later))
        if is_kind(cell, "solution")
    ]
    return {
        node.name for source in sources for node in ast.parse(source).body if "name" in node._fields
    }


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    from grading.release import NUMBERS, release

    out = tmp_path_factory.mktemp("out")
    return {number: release(number, out) for number in NUMBERS}


def with_answers(number, folder):
    """The hand-out's notebook: each stub and its check, then the answer and the check again."""
    answers = {c.id: c.source for c in code_cells(worked(number)) if is_kind(c, "solution")}
    cells, stub = [], None
    for cell in code_cells(exercises(folder)):
        source = cell.source
        if cell.id in SLOW.get(number, ()):
            continue
        if (
            number == "06"
            and not cell.metadata.get("nbgrader")
            and cell.id
            not in (
                "cell-01",
                "progress",
            )
        ):
            continue
        if is_kind(cell, "solution"):
            stub = cell
            cells.append(new_code_cell(source, metadata={"stage": "stub"}))
        elif is_kind(cell, "grade"):
            cells.append(new_code_cell(source, metadata={"stage": "stub's check"}))
            cells.append(new_code_cell(answers[stub.id], metadata={"stage": "answer"}))
            cells.append(new_code_cell(source, metadata={"stage": "check"}))
        else:
            cells.append(new_code_cell(source))
    return cells


@pytest.fixture(scope="module", params=NUMBERS)
def run(request, folders):
    """Number, folder, executed cells, and what the last of them has found in the package."""
    from nbclient import NotebookClient

    number, folder = request.param, folders[request.param]
    look = LOOK.replace("NUMBER", number).replace("NAMES", repr(sorted(answer_names(number))))
    look = look.replace("ROOMS", repr([room for room in PACKAGE if room[0] != "_"]))
    cells = map(new_code_cell, (ALONE, look))
    notebook = new_notebook(cells=[next(cells), *with_answers(number, folder), *cells])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
    resources = {"metadata": {"path": str(folder / "notebooks")}}
    client = NotebookClient(notebook, timeout=120, resources=resources, allow_errors=True)
    alone = {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    client.execute(env=os.environ | alone)
    *cells, last = notebook.cells
    assert not errors(last), errors(last)
    found = json.loads(last.outputs[-1].text.splitlines()[-1])
    assert Path(found["file"]).parent == folder / "course_utils"
    return number, folder, cells, found


def errors(cell):
    return [(o.ename, o.evalue) for o in cell.outputs if o.output_type == "error"]


def test_the_answers_pass_and_the_stubs_say_what_to_do(run):
    number, _, cells, _ = run
    stages = [cell.metadata.get("stage") for cell in cells]
    solutions = [c for c in code_cells(worked(number)) if is_kind(c, "solution")]
    assert stages.count("check") == stages.count("stub's check") == len(solutions)
    for cell, stage in zip(cells, stages, strict=True):
        if stage == "stub's check":
            ((name, message),) = errors(cell)
            assert "the card above says what to build" in message
            assert name == "NotImplementedError"
        else:
            assert not errors(cell), (cell.source, errors(cell))
    assert cells[-1].outputs[-1].data["text/plain"].count("passes") == len(solutions)


def test_no_answer_can_be_imported(run):
    number, _, _, found = run
    secret = answer_names(number)
    within_reach = {name for name in found["names"] if name.partition(".")[2] in secret}
    assert within_reach == OTHER_VERSIONS[number]
    assert found["modules"] == [] and not any(name.endswith("._offer") for name in found["names"])
    assert set(found["offered"]) <= OTHER_VERSIONS["06"]
    for title, state in found["states"].items():
        if (number, title.partition(":")[0]) != ("04", "1"):
            assert state == "to do" or state.startswith("not yet"), title


def code_in(folder):
    """Everything in a hand-out that can be read, but the cards and their hints."""
    for path in folder.rglob("*"):
        if path.suffix == ".ipynb":
            cells = code_cells(nbformat.read(path, as_version=4))
            yield path, "\n".join(cell.source for cell in cells)
        elif path.is_file() and path.suffix != ".pt":
            yield path, path.read_text(encoding="utf-8")


def solution_lines(number):
    """The lines of a notebook's answers, and all its other lines of code."""
    inside, outside = set(), set()
    for cell in code_cells(worked(number)):
        within = False
        for line in map(str.strip, cell.source.splitlines()):
            if line.startswith("### "):
                within = line == "### BEGIN SOLUTION"
            else:
                (inside if within else outside).add(line)
    return inside, outside


@pytest.mark.parametrize("number", NUMBERS)
def test_no_answer_can_be_read(folders, number):
    at = NUMBERS.index(number)
    given = set().union(*(part for n in NUMBERS[:at] for part in solution_lines(n)))
    given |= solution_lines(number)[1]
    secret = set().union(*(solution_lines(n)[0] for n in NUMBERS[at:])) - given
    secret = {line for line in secret if len(line) > LONG}
    assert len(secret) > 5
    for path, text in code_in(folders[number]):
        assert [line for line in secret if line in text] == [], path.name


@pytest.mark.parametrize("number", NUMBERS)
def test_it_is_the_student_edition_without_a_way_round(folders, number):
    public = ROOT / "notebooks" / "exercises"
    folder = folders[number]
    (path,) = folder.glob("notebooks/*.ipynb")
    made, edition = exercises(folder), nbformat.read(public / path.name, as_version=4)
    nbformat.validate(made)
    assert code_cells(made) == code_cells(edition)
    assert "Go on with the course's version" not in nbformat.writes(made)
    assert {p.name for p in (folder / "course_utils").iterdir()} >= {"sealed.py", "sealed.bin"}
    assert not {"__main__.py", "train.py"} & {p.name for p in (folder / "course_utils").iterdir()}


@pytest.mark.parametrize("number", NUMBERS)
def test_links_lead_somewhere_and_no_path_of_this_machine(folders, number):
    folder = folders[number]
    for path in [*folder.glob("*.md"), *folder.glob("notebooks/*.ipynb")]:
        for target in re.findall(r"\]\(([^)#:]+)\)", path.read_text(encoding="utf-8")):
            assert (path.parent / target).exists(), target
    for path in folder.rglob("*"):
        if path.is_file() and path.suffix != ".pt":
            text = path.read_text(encoding="utf-8")
            assert not re.search(r"/(home|Users|root|tmp|work)/|[A-Z]:\\\\", text), path.name


def test_a_link_stays_where_there_is_something_to_read(folders):
    from grading.release import _keep_links_that_lead_somewhere

    text = "[a](../course_utils/attention.py) [b](../course_utils/checks/) [c](#c) [d](03_x.ipynb)"
    notebook = new_notebook(cells=[new_markdown_cell(f"{text} [e](https://example.org)")])
    _keep_links_that_lead_somewhere(notebook, folders["02"] / "notebooks" / "02.ipynb")
    kept = "[a](../course_utils/attention.py) b [c](#c) d [e](https://example.org)"
    assert notebook.cells[0].source == kept


def test_its_front_door_opens_its_notebook(folders):
    path = folders["04"] / "course.py"
    specification = importlib.util.spec_from_file_location("front_door", path)
    course = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(course)
    assert "--LabApp.default_url=/lab/tree/notebooks/04_kv_cache.ipynb" in course.lab_command()
    readme = (folders["04"] / "README.md").read_text(encoding="utf-8")
    assert "04 · The KV cache" in readme and "`notebooks/04_kv_cache.ipynb`" in readme
    assert "{" not in readme


def files(folder):
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder.parent).as_posix(): path.read_bytes() for path in paths}


@pytest.mark.parametrize("number", NUMBERS)
def test_the_zip_holds_the_folder(folders, number):
    folder = folders[number]
    with zipfile.ZipFile(folder.with_name(f"{folder.name}.zip")) as archive:
        assert {name: archive.read(name) for name in archive.namelist()} == files(folder)


def test_released_twice_it_is_the_same(folders, tmp_path):
    from grading.release import release

    first = release("02", tmp_path)
    before = files(tmp_path)
    assert release("02", tmp_path) == first
    assert files(tmp_path) == before
    assert files(first) == files(folders["02"])
    assert {path.name for path in tmp_path.iterdir()} == {first.name, f"{first.name}.zip"}


@pytest.mark.parametrize("changed", ["a new file", "the notebook", "no zip", "a zip alone"])
def test_what_it_did_not_make_is_left_alone(tmp_path, changed):
    from grading.release import release

    folder = release("01", tmp_path)
    archive = folder.with_name(f"{folder.name}.zip")
    if changed == "a new file":
        (folder / "mine.txt").write_text("mine")
    elif changed == "the notebook":
        (folder / "notebooks" / "01_attention.ipynb").write_text("mine")
    elif changed == "no zip":
        archive.unlink()
    else:
        folder.rename(tmp_path / "elsewhere")
        archive.write_text("mine")
    before = files(tmp_path)
    with pytest.raises(FileExistsError, match="in the way"):
        release("01", tmp_path)
    assert files(tmp_path) == before


def test_a_notebook_that_uses_an_answer_is_not_released(tmp_path, monkeypatch):
    from grading import release

    monkeypatch.setattr(release, "OF_THE_SAME_NAME_ONLY", set())
    with pytest.raises(ValueError, match="uses token_times of course_utils.benchmark"):
        release.release("06", tmp_path)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="01, 02, 03, 04, 05, 06"):
        release.release("07", tmp_path)
