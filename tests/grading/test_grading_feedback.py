"""Feedback pages: what the course's checks say, nothing that is hidden, and nothing that runs."""

import base64

import nbformat
import pytest

from course_utils.transformer import ROOT

pytestmark = pytest.mark.instructor
SEED = 987_654_321
STUDENT = "Zoë <script>alert(0)<_script>"
WRONG = """
def softmax(scores):
    return torch.exp(scores) / torch.exp(scores).sum(-1, keepdim=True)

from IPython.display import HTML, Javascript, display
display(HTML("<script>alert(1)</script>"), Javascript("alert(2)"))
print("</pre><script>alert(3)</script>" + "x" * 20_000)
"""
CURIOUS = """
import os, sys
from pathlib import Path
seen = [str(path) for top in ("/tmp", "/sandbox", "/handout", str(Path.home()))
        for path in Path(top).rglob("*")]
own = [path for path in seen if path.startswith(("/handout/", sys.prefix)) or "/sockets" in path]
print("files:", *[p for p in {*seen} - {*own} if p.endswith((".ipynb", ".csv")) or "/probes" in p])
print("names:", *[name for name in globals() if name.startswith("_draw")])
"""


def handed_in(path, **sources):
    edition = nbformat.read(ROOT / "notebooks" / "exercises" / "01_attention.ipynb", as_version=4)
    for cell in edition.cells:
        name = cell.metadata.get("nbgrader", {}).get("grade_id")
        cell.source = sources.get(name, cell.source)
    nbformat.write(edition, path)


@pytest.fixture(scope="module")
def graded(tmp_path_factory):
    from grading.batch import grade
    from grading.graft import course_answer

    folder, out = tmp_path_factory.mktemp("in"), tmp_path_factory.mktemp("out")
    mask = course_answer("causal_mask") + CURIOUS
    (folder / STUDENT).mkdir()
    handed_in(folder / STUDENT / "01_a.ipynb", softmax=WRONG, causal_mask=mask)
    (folder / "empty.ipynb").write_text("")
    book = grade(folder, out, "01", SEED, feedback=True)
    return book, {path.name: path.read_text(encoding="utf-8") for path in out.glob("feedback/*")}


@pytest.fixture(scope="module")
def page(graded):
    (page,) = graded[1].values()
    return page


def test_it_says_what_the_checks_say_and_gives_the_points(graded, page):
    rows = graded[0][graded[0]["student"] == STUDENT]
    assert list(rows["status"]) == ["wrong", "right", "not done", "not done"]
    assert "holds NaN (not a number)" in page
    assert "causal_mask is right: square" in page
    for words in ("0 of 2", "2 of 2", "not done yet"):
        assert words in page


def test_it_shows_nothing_hidden(page):
    """Neither seed, nor inputs, nor expected values; no file of the grader."""
    from grading.graft import expected_output
    from grading.probes import PROBES

    assert str(SEED) not in page
    assert "files:\n" in page and "names:\n" in page
    for name in ("softmax", "causal_mask"):
        for line in PROBES[name].code.strip().splitlines():
            assert len(line) < 12 or line not in page
        for line in expected_output(name, SEED).splitlines():
            assert len(line) < 12 or line[:60] not in page


def test_nothing_on_it_runs(page):
    assert "<script" not in page
    assert "Content-Security-Policy" in page
    assert "alert(3)" in page, "the student's own text is shown, as text"
    assert "more characters]" in page and "x" * 3000 not in page


def test_outputs_are_reduced_to_text_and_pictures():
    from grading.feedback import _plain

    def shown(**data):
        return _plain({"output_type": "display_data", "data": data})

    picture = base64.b64encode(b"picture").decode()
    assert shown(**{"image/png": picture}).data == {"image/png": picture}
    attack = {"image/png": '"><script>alert(1)</script>', "text/plain": "a picture"}
    assert shown(**attack).data == {"text/plain": "a picture"}
    assert shown(**{"text/html": "<b>", "application/javascript": "alert(1)"}) is None
    assert _plain({"output_type": "display_data", "data": 3}) is None


VERDICT = ["---", "AssertionError", "Cell In[1]", "File checks.common (sealed):45", "A: look at q"]
OWN = ["---", "ValueError", "Cell In[1]", "ValueError: mine"]


def failed(lines):
    return {"output_type": "error", "ename": "A", "evalue": lines[-1], "traceback": lines}


def test_outputs_come_below_the_exercise_that_put_them_out():
    """Also if an exercise before it was given up, and so was not run again."""
    from grading.answers import Answer
    from grading.feedback import filled, rendered

    names = ("softmax", "causal_mask", "attention")
    given = {name: Answer(code=f"{name} = 1") for name in names}
    outputs = [[], [], [failed(VERDICT)], [failed(OWN)], []]
    made = filled("01", given, {name: given[name] for name in names[1:]}, outputs)
    found = {(cell.metadata["part"], cell.source[:5]): cell.outputs for cell in made.cells}
    assert found["softmax", "softm"] == found["softmax", "print"] == []
    assert found["causal_mask", "print"][0].traceback == VERDICT[-1:], "no line of the check"
    assert found["attention", "atten"][0].traceback == OWN

    statuses = ("the kernel died", "right", "wrong", "not done")
    page = rendered("01", "a", dict(zip((*names, "multi_head"), statuses, strict=True)), made)
    assert "0 of 2 points: the kernel died. It was not run again for this page." in page
    assert "2 of 2 points: right. The error below is from a run with your own answers" in page
    assert "0 of 3 points: wrong.<" in page
    assert "<b>total</b></td><td>2 of 10</td>" in page


def test_who_handed_in_no_notebook_gets_a_row_and_no_page(graded):
    assert len(graded[1]) == 1
    rows = graded[0][graded[0]["student"] == "empty"]
    assert list(rows["status"]) == ["the file is empty"] * 4


def test_a_second_run_makes_only_the_pages_that_are_missing(tmp_path):
    from grading.batch import grade

    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    handed_in(folder / "a.ipynb")
    grade(folder, out, "01", SEED)
    assert not (out / "feedback").exists()
    grade(folder, out, "01", SEED, feedback=True)
    (made,) = out.glob("feedback/*.html")
    then = made.stat().st_mtime_ns
    grade(folder, out, "01", SEED, feedback=True)
    assert made.name == "a.html" and made.stat().st_mtime_ns == then


def test_a_page_is_of_the_submission_that_is_there(tmp_path):
    """Also if an earlier one is handed in again, whose result is kept."""
    from grading.batch import grade

    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    for stub in ("raise NotImplementedError('first')", "", "raise NotImplementedError('first')"):
        handed_in(folder / "a.ipynb", softmax=f"def softmax(scores):\n    {stub}" if stub else "")
        grade(folder, out, "01", SEED, feedback=True)
        page = (out / "feedback" / "a.html").read_text(encoding="utf-8")
        assert ("not in the notebook" in page) == (not stub)
