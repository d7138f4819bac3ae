"""A batch: who has handed in, what the rows and pages are called, and what an error costs."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nbformat
import pandas as pd
import pytest

from course_utils.transformer import ROOT

pytestmark = pytest.mark.instructor
EDITION = ROOT / "notebooks" / "exercises" / "01_attention.ipynb"
SEED = 77


def task(feedback=False):
    from grading import judge

    return judge.task("01", SEED, True, feedback)


def test_four_thousand_notebooks_are_listed_in_a_moment(tmp_path):
    from grading.batch import submissions

    for number in range(4000):
        (tmp_path / f"{number}.ipynb").touch()
    (tmp_path / "many").mkdir()
    for number in range(4000):
        (tmp_path / "many" / f"01_{number}.ipynb").touch()
    begin = time.monotonic()
    found = list(submissions(tmp_path, "01"))
    assert time.monotonic() - begin < 20, "it once took 46 seconds"
    assert len({item.student for item in found}) == 4001
    (many,) = [item for item in found if item.student == "many"]
    assert many.problem.startswith("holds more than one notebook 01: 01_0.ipynb, ")
    assert many.problem.endswith(" and 3997 more")


def test_a_name_is_printable_and_no_two_are_the_same(tmp_path):
    from grading.batch import submissions

    names = ["a\x1b[2J\x1b[31mred", "two\nlines", "two lines", "tab\tbed", " ", "\u202eevil", "b"]
    for name in names:
        (tmp_path / f"{name}.ipynb").touch()
    (tmp_path / "b").mkdir()
    found = [item.student for item in submissions(tmp_path, "01")]
    assert len(set(found)) == len(names) + 1
    assert all(name.isprintable() and name.strip() for name in found)


@pytest.mark.parametrize("name", ["字" * 82, "é" * 120, "a" * 250, "x/y", "..", "", "😀" * 40])
def test_a_page_has_a_name_that_a_disk_can_keep(tmp_path, name):
    from grading.batch import Batch

    page = Batch(tmp_path, task()).page(name)
    assert page.parent == tmp_path / "feedback"
    assert len(page.name.encode()) <= 200
    page.parent.mkdir()
    page.write_text("it fits")


def test_nobody_has_the_page_of_another_one(tmp_path):
    from grading.batch import Batch

    batch = Batch(tmp_path, task())
    names = ["a" * 200, "a" * 201, "b/c", "b_c", "b?c", "字" * 82, "字" * 83]
    names += ["\u00e9", "e\u0301", "\ufb01", "fi", "\u1e9e", "\u00df", "a", "\u0430"]
    names += [batch.page(name).stem for name in names]
    names += [batch.page(name).stem for name in names]
    assert len({batch.page(name) for name in set(names)}) == len(set(names))


def judged(status, **more):
    from grading.judge import Judged

    return Judged(dict.fromkeys(task().expected, status), **more)


@pytest.fixture
def fake_judge(monkeypatch):
    """Nothing is run: everybody is wrong, and it is kept who was judged."""
    from grading import judge

    asked = []

    def judge_nobody(found, task, student=""):
        asked.append(student)
        return judged("wrong", said={"softmax": "holds NaN"}, seconds={"softmax": 2.5}, page="page")

    monkeypatch.setattr(judge, "judge", judge_nobody)
    monkeypatch.setattr(judge, "judge_course", lambda task: None)
    return asked


def test_what_is_kept_counts_as_if_it_was_judged_again(tmp_path, fake_judge):
    from grading.batch import grade

    folder, out = stub(tmp_path / "in", "a", "b"), tmp_path / "out"
    book = grade(folder, out, "01", SEED, feedback=True)
    (kept,) = out.glob("results/*.json")
    assert json.loads(kept.read_text()).keys() == {"statuses", "said", "seconds"}
    page = (out / "summary.html").read_text(encoding="utf-8")
    assert "holds NaN" in page and "2.5 s (median)" in page
    (out / "summary.html").unlink()
    assert grade(folder, out, "01", SEED, feedback=True).equals(book)
    assert (out / "summary.html").read_text(encoding="utf-8") == page
    assert sorted(fake_judge) == ["a", "b"], "the second run judges nobody"


def test_what_was_kept_in_another_form_is_not_read(tmp_path, fake_judge, monkeypatch):
    from grading import batch

    folder, out = stub(tmp_path / "in", "a"), tmp_path / "out"
    batch.grade(folder, out, "01", SEED)
    monkeypatch.setattr(batch, "FORMAT", batch.FORMAT + " and more")
    batch.grade(folder, out, "01", SEED)
    assert fake_judge == ["a", "a"]


def test_an_interrupted_batch_has_its_summary(tmp_path, fake_judge, monkeypatch):
    from grading import batch

    def interrupted(self, running):
        raise KeyboardInterrupt

    folder = stub(tmp_path / "in", "a")
    (folder / "b.ipynb").write_text("")
    monkeypatch.setattr(batch.Here, "completed", interrupted)
    with pytest.raises(KeyboardInterrupt):
        batch.grade(folder, tmp_path / "out", "01", SEED)
    page = (tmp_path / "out" / "summary.html").read_text(encoding="utf-8")
    assert "is empty (1)" in page


def stub(folder, *names):
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / f"{name}.ipynb").write_bytes(EDITION.read_bytes())
    return folder


def test_what_cannot_be_written_costs_nobody_a_row(tmp_path, capsys):
    from grading.batch import grade

    folder, out = stub(tmp_path / "in", "a", "b", "字" * 80), tmp_path / "out"
    (out / "feedback").mkdir(parents=True)
    (out / "feedback" / "a.html.part").mkdir()  # in the way
    book = grade(folder, out, "01", SEED, feedback=True)
    assert set(book["status"]) == {"not done"} and len(book) == 12
    kept = pd.read_csv(out / "gradebook.csv")
    assert len(kept) == 12
    assert len(list((out / "feedback").glob("*.html"))) == 2
    assert "a: graded, but not all could be written (" in capsys.readouterr().err


def test_a_name_is_not_computed_and_no_separator_ends_a_cell(tmp_path):
    from grading.batch import grade

    names = ["=1+1", "+1", "-1", "@x", "a;=1+1;b", 'q",=1+1']
    grade(stub(tmp_path / "in", *names), tmp_path / "out", "01", SEED)
    text = (tmp_path / "out" / "gradebook.csv").read_text(encoding="utf-8")
    assert '"\'=1+1"' in text and '"a;=1+1;b"' in text and '"q"",=1+1"' in text
    students = set(pd.read_csv(tmp_path / "out" / "gradebook.csv")["student"])
    assert students == {"'=1+1", "'+1", "'-1", "'@x", "a;=1+1;b", 'q",=1+1'}


def test_rows_are_on_disk_before_the_batch_ends(tmp_path):
    from grading.gradebook import Gradebook, Submission

    path = tmp_path / "gradebook.csv"
    with pytest.raises(RuntimeError), Gradebook(tmp_path, task()) as book:
        book.add(Submission("a", None), "is a symbolic link")
        assert len(pd.read_csv(path)) == 4
        book.add(Submission("b", None), judged("right"))
        raise RuntimeError("ended by something else")
    assert (tmp_path / "summary.html").exists()
    assert pd.read_csv(path).groupby("student")["points"].sum().to_dict() == {"a": 0, "b": 10}


SLOW = "import time\ntime.sleep(30)\ndef softmax(s):\n    return s"


@pytest.fixture
def work():
    """Where the grader keeps what it grades: a short path, since sockets lie in it."""
    with tempfile.TemporaryDirectory(prefix="work-") as folder:
        yield Path(folder)


def test_a_path_that_is_too_long_for_sockets_is_said(tmp_path):
    from grading import sandbox

    folder = tmp_path / ("a" * 80)
    with pytest.raises(OSError, match="set TMPDIR"), sandbox.kernels(folder, "graded", True):
        pass
    assert not folder.exists()


def test_a_grader_that_is_ended_leaves_nothing_running_and_nothing_on_disk(tmp_path, work):
    notebook = nbformat.read(EDITION, as_version=4)
    for cell in notebook.cells:
        if cell.metadata.get("nbgrader", {}).get("grade_id") == "softmax":
            cell.source = SLOW
    (tmp_path / "in").mkdir()
    nbformat.write(notebook, tmp_path / "in" / "a.ipynb")
    (tmp_path / "in" / "b.ipynb").write_text("")
    command = [sys.executable, "-m", "grading", "grade", tmp_path / "in", "--notebook", "01"]
    command += ["--out", tmp_path / "out", "--seed", "5", "--no-feedback"]
    environment = os.environ | {"TMPDIR": str(work)}
    with subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE) as process:
        end = time.monotonic() + 100
        while time.monotonic() < end and not list(work.glob("grading-*/softmax.ipynb")):
            time.sleep(0.1)
        time.sleep(3)
        process.send_signal(signal.SIGTERM)
        said = process.communicate(timeout=30)[1].decode()
    assert process.returncode == 2 and "--seed 5 to go on" in said
    assert not list(work.glob("grading-*"))
    assert set(pd.read_csv(tmp_path / "out" / "gradebook.csv")["student"]) == {"b"}
    running = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout
    assert str(work) not in running


def test_python_may_be_called_from_anywhere(tmp_path):
    """`../.venv/bin/python` from a folder of its own: the sandbox does not have that folder."""
    place = ROOT / "notebooks"
    python = Path(sys.executable)
    if not python.is_relative_to(ROOT):
        pytest.skip("Python is not beside the course")
    command = [
        f"../{python.relative_to(ROOT)}",
        "-c",
        "from grading import sandbox as s\nprint(s.PYTHON)",
    ]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True)
    assert done.stdout.strip() == str(python.parent.resolve() / python.name), done.stderr


def test_a_page_of_a_cell_that_is_very_long_is_made_in_a_moment():
    from grading.answers import Answer
    from grading.feedback import notebook, page

    statuses = dict.fromkeys(task().expected, "wrong")
    for source in ("\n" * 10_000, "  \n" * 8_000, "x = '" + "'" * 90_000, "(" * 90_000):
        shown = notebook("01", {"softmax": Answer(code=source)})
        begin = time.monotonic()
        made = page("01", "a", statuses, shown)
        assert time.monotonic() - begin < 15
        assert "0 of 2 points: wrong." in made and "more characters]" in made
        assert len(made) < 3_000_000


def test_a_page_that_cannot_be_made_still_has_the_points(monkeypatch):
    from grading import feedback, limited
    from grading.answers import Answer

    asked = []

    def too_much(name, *given):
        asked.append(len(given[-1]["cells"]))
        if asked[-1]:
            raise limited.TooMuch("it took too much time")
        return "the table"

    monkeypatch.setattr(feedback, "limited", too_much)
    shown = feedback.notebook("01", {"softmax": Answer(code="x")})
    assert feedback.page("01", "a", dict.fromkeys(task().expected, "wrong"), shown) == "the table"
    assert asked == [len(shown.cells), 0]


def test_scores_can_be_imported_elsewhere(tmp_path, capsys):
    from grading import __main__

    folder, out = stub(tmp_path / "in", "b17", "a;4"), tmp_path / "out"
    command = ["grade", str(folder), "--notebook", "01", "--out", str(out), "--no-feedback"]
    assert __main__.main([*command, "--format", "nbgrader", "moodle", "canvas"]) == 0
    texts = {form: (out / f"scores-{form}.csv").read_text() for form in ("nbgrader", "moodle")}
    assert texts["nbgrader"] == (
        "assignment,student_id,score,max_score\nKV cache 01,a;4,0,10\nKV cache 01,b17,0,10\n"
    )
    assert texts["moodle"] == "ID number,KV cache 01\na;4,0\nb17,0\n"
    canvas = pd.read_csv(out / "scores-canvas.csv", keep_default_na=False)
    assert list(canvas.columns)[:5] == ["Student", "ID", "SIS User ID", "SIS Login ID", "Section"]
    assert canvas["KV cache 01"].tolist() == [10, 0, 0]
    assert canvas["Student"].tolist()[0].strip() == "Points Possible"
    assert canvas["SIS Login ID"].tolist() == ["", "a;4", "b17"]
