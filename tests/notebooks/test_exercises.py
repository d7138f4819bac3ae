"""The student edition: nothing is given away, it is what the worked notebooks give, and one can
go on without an answer."""

import os
import re
import sys
from pathlib import Path

import nbformat
import pytest

from course_utils.transformer import ROOT

pytestmark = pytest.mark.authors

CORE = sorted((ROOT / "notebooks").glob("0[1-9]*.ipynb"))
WORKED = [*CORE, *sorted((ROOT / "notebooks" / "going_further").glob("*.ipynb"))]
QUICK = [path.stem for path in WORKED if path.stem[:2] in ("01", "02", "03")]


def edition(path):
    return nbformat.read(ROOT / "notebooks" / "exercises" / path.name, as_version=4)


def of_kind(notebook, kind):
    return [c for c in notebook.cells if c.metadata.get("nbgrader", {}).get(kind)]


@pytest.mark.parametrize("path", WORKED, ids=lambda path: path.stem)
def test_nothing_is_given_away(path):
    notebook = edition(path)
    nbformat.validate(notebook)
    text = nbformat.writes(notebook)
    assert "BEGIN SOLUTION" not in text and "image/png" not in text
    assert of_kind(notebook, "solution")
    for cell in of_kind(notebook, "solution"):
        assert "raise NotImplementedError(" in cell.source and "card" in cell.source
    for cell in of_kind(notebook, "grade"):
        assert cell.metadata["editable"] is False
        assert cell.metadata["nbgrader"]["checksum"]
    for cell in notebook.cells:
        assert not cell.get("outputs") and cell.get("execution_count") is None


@pytest.mark.parametrize("path", WORKED, ids=lambda path: path.stem)
def test_links_lead_somewhere(path):
    prose = "".join(c.source for c in edition(path).cells if c.cell_type == "markdown")
    targets = re.findall(r"\]\(([^)#:]+)\)", prose)
    assert targets
    for target in targets:
        assert (ROOT / "notebooks" / "exercises" / target).exists(), target


@pytest.mark.instructor
@pytest.mark.parametrize("path", WORKED, ids=lambda path: path.stem)
def test_the_glossary_and_the_notation_are_one_folder_up(path):
    from authoring.exercises import student_edition

    made = student_edition(nbformat.read(path, as_version=4), chapter=path not in CORE)
    links = re.findall(r"\]\((\S*(?:glossary|notation)\.ipynb)\)", made.cells[0].source)
    assert links == ["../glossary.ipynb", "../notation.ipynb"]


@pytest.mark.instructor
@pytest.mark.parametrize("path", CORE, ids=lambda path: path.stem)
def test_a_hand_out_does_not_speak_of_pages_that_it_has_not(path):
    from authoring.exercises import student_edition

    made = student_edition(nbformat.read(path, as_version=4), handout=True)
    assert not re.search("glossary|notation", nbformat.writes(made))


@pytest.mark.instructor
@pytest.mark.parametrize("path", WORKED, ids=lambda path: path.stem)
def test_it_is_up_to_date(path):
    from authoring.exercises import student_edition

    made = student_edition(nbformat.read(path, as_version=4), chapter=path not in CORE)
    assert made == edition(path), "Run python -m authoring.exercises and commit what it writes."


def go_on(notebook):
    """The notebook as it is when every exercise is skipped with the code below its check."""
    exercises = of_kind(notebook, "solution")
    codes = [
        re.search(r"```python\n(.*)\n```", cell.source, re.DOTALL)[1]
        for cell in notebook.cells
        if "Go on with the course's version" in cell.source
    ]
    for cell, code in zip(exercises, codes, strict=True):
        cell.source = code
    return notebook


def execute(notebook, **options):
    from nbclient import NotebookClient

    folder = {"metadata": {"path": str(ROOT / "notebooks" / "exercises")}}
    return NotebookClient(notebook, timeout=300, resources=folder, **options).execute()


@pytest.mark.instructor
@pytest.mark.sampled(3)
@pytest.mark.parametrize("name", QUICK)
def test_one_can_go_on_without_an_answer(name):
    execute(go_on(edition(ROOT / f"{name}.ipynb")))


@pytest.mark.instructor
def test_an_untouched_exercise_says_what_to_do():
    notebook = execute(edition(WORKED[0]), allow_errors=True)
    for cell in of_kind(notebook, "grade"):
        error = next(o for o in cell.outputs if o.output_type == "error")
        assert error.ename == "NotImplementedError"
        assert "the card above" in error.evalue


@pytest.mark.instructor
def test_nbgrader_makes_an_assignment_of_the_worked_notebook(tmp_path, monkeypatch):
    from nbgrader.apps import NbGraderAPI
    from traitlets.config import Config

    tools = Path(sys.executable).parent
    monkeypatch.setenv("PATH", str(tools), prepend=os.pathsep)
    source = tmp_path / "source" / "course"
    source.mkdir(parents=True)
    for path in WORKED:
        (source / path.name).write_bytes(path.read_bytes())
    config = Config({"CourseDirectory": {"root": str(tmp_path), "course_id": "kv"}})
    result = NbGraderAPI(config=config).generate_assignment("course", force=True)
    assert result["success"], result.get("error") or result.get("log")
    assert len(list((tmp_path / "release" / "course").glob("*.ipynb"))) == len(WORKED)


@pytest.mark.instructor
def test_nbgrader_validates_answers_and_refuses_stubs(tmp_path):
    from nbgrader.validator import Validator

    path = tmp_path / WORKED[0].name
    verdicts = {}
    for name, notebook in (("stubs", edition(path)), ("answers", go_on(edition(path)))):
        nbformat.write(notebook, path)
        verdicts[name] = Validator().validate(str(path))
    assert len(verdicts["stubs"]["failed"]) == len(of_kind(edition(path), "grade"))
    assert verdicts["answers"] == {}
