"""The course in JupyterLab, as a student meets it in Chromium.

python -m pytest -m browser tests/notebooks/test_browser.py

With BROWSER_SCREENSHOTS=FOLDER each notebook is kept there in pictures, as it was at the end.
"""

import re
import shutil
import socket
from pathlib import Path

import nbformat
import pytest
from browser_tools import SCREENSHOTS, Lab, Student, copy_course
from run_all import notebooks

from course_utils.transformer import ROOT

pytestmark = pytest.mark.browser
NOTEBOOKS = [ROOT / path for path in notebooks()]
CHAPTERS = [path for path in NOTEBOOKS if path.parent.name == "going_further"]
CORE = [path for path in NOTEBOOKS if path not in CHAPTERS]
EXERCISES = ROOT / "notebooks" / "exercises"
LONG = ("05_is_it_right", "06_latency_sweep")  # minutes each, and nbval has run them


def unless_long(path):
    marks = [pytest.mark.thorough] if path.stem in LONG else []
    return pytest.param(path, marks=marks, id=path.stem)


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    return copy_course(tmp_path_factory.mktemp("the course"))


@pytest.fixture(scope="module")
def jupyterlab(course, tmp_path_factory):
    with Lab(course, tmp_path_factory.mktemp("settings"), free_port()) as lab:
        yield lab


@pytest.fixture
def opened(browser, jupyterlab, request):
    """A function that opens a notebook of the copy; what it opened is photographed and closed."""
    students = []

    def open_notebook(name):
        students.append(Student(browser, jupyterlab.address(name)))
        return students[-1]

    yield open_notebook
    for student in students:
        if SCREENSHOTS:
            student.photograph(Path(SCREENSHOTS, "lab"), re.sub(r"\W+", "-", request.node.name))
        student.page.close()
    jupyterlab.close_notebooks()


def test_the_readmes_first_command_opens_the_front_door(browser, course, tmp_path):
    assert "\npython3 course.py lab " in (ROOT / "README.md").read_text(encoding="utf-8")
    with Lab(course, tmp_path, free_port()) as lab:
        student = Student(browser, lab.url)
        assert student.page.get_by_role("heading", name="00 · Start here").is_visible()
        student.page.wait_for_timeout(3000)  # time for JupyterLab's question about its news
        assert student.page.get_by_text("news").count() == 0
        assert not student.thrown
        student.page.close()
        assert lab.press_ctrl_c_twice() == 0
        assert "Shutting down 1 kernel" in lab.output


@pytest.mark.parametrize("path", [unless_long(path) for path in CORE])
def test_run_all_cells_finishes_without_an_error(opened, path):
    assert opened(path.relative_to(ROOT / "notebooks").as_posix()).run_all() == []


SHOWN = [*(path for path in CORE if path.stem in LONG), *CHAPTERS]


@pytest.mark.parametrize("path", SHOWN, ids=lambda path: path.stem)
def test_a_long_notebook_is_shown_as_it_was_committed(opened, course, path):
    """Its pictures, and its numbers in order. nbval runs these: twice would take long."""
    shown = f"going_further/{path.name}"
    shutil.copy(path, course / "notebooks" / shown)
    assert opened(shown).wait_until_run(60) == []


@pytest.mark.parametrize(
    "source, problem",
    [
        ("1 / 0", "an error: .*ZeroDivisionError: division by zero"),
        ("import os; os._exit(1)", "a dialog: Kernel Restarting"),
        ("while True: pass", r"not finished after 8 s: \['\[1\]:', '\[\*\]:', '\[\*\]:'\]"),
        ("import warnings; warnings.warn('stray')", "a warning: .*stray"),
        ("from IPython.display import Image; Image(data=b'no', format='png')", "a picture is bro"),
    ],
    ids=["error", "dead", "endless", "warning", "picture"],
)
def test_what_goes_wrong_is_seen(opened, course, source, problem):
    cells = [nbformat.v4.new_code_cell(text) for text in ("1 + 1", source, "2 + 2")]
    metadata = nbformat.read(CORE[0], as_version=4).metadata
    notebook = nbformat.v4.new_notebook(cells=cells, metadata=metadata)
    nbformat.write(notebook, course / "notebooks" / "broken.ipynb")
    problems = opened("broken.ipynb").run_all(seconds=8)
    assert re.match(problem, problems[0], re.DOTALL), problems


IMPORTS = re.compile(r"^from course_utils\S* import .*\bchecks\b", re.M)  # not the first picture


@pytest.fixture
def exercise(opened):
    """A function that opens a student edition and says where its cells are, by grade_id or id."""

    def open_edition(name):
        cells = nbformat.read(EXERCISES / name, as_version=4).cells
        numbers = {cell.id: number for number, cell in enumerate(cells)}
        for number, cell in enumerate(cells):
            numbers[cell.metadata.get("nbgrader", {}).get("grade_id")] = number
        codes = [number for number, cell in enumerate(cells) if cell.cell_type == "code"]
        first = next(number for number in codes if IMPORTS.search(cells[number].source))
        return opened(f"exercises/{name}"), numbers | {"first": first, "last": len(cells) - 1}

    return open_edition


def fold_out(student, number, title):
    """Click on a fold-out; its text, which was not to be seen before."""
    fold = student.cell(number).locator("details", has_text=title).first
    inside = fold.locator("p, pre").last
    assert not inside.is_visible()
    fold.locator("summary").click()
    assert inside.is_visible()
    return inside.inner_text()


def test_a_student_does_the_softmax(exercise):
    student, at = exercise("01_attention.ipynb")
    student.run(at["first"])
    student.run(at["softmax"])
    assert "the card above says what to build" in student.run(at["softmax_check"])
    assert "Three steps" in fold_out(student, at["softmax"] - 1, "Hint 2: the idea")
    assert "0 of 4 pass" in student.run(at["last"])

    head = "def softmax(scores):"
    student.write(at["softmax"], [head, "return scores.exp() / scores.exp().sum(-1, True)"])
    student.run(at["softmax"])
    assert "Subtract each row's own maximum first" in student.run(at["softmax_check"])
    assert "not yet" in student.run(at["last"])

    body = [
        "x = scores.float() if scores.dtype.itemsize == 2 else scores",
        "top = x.amax(-1, keepdim=True)",
        "powers = (x - top.masked_fill(top == -math.inf, 0)).exp()",
        "total = powers.sum(-1, keepdim=True)",
        "return (powers / total.masked_fill(total == 0, 1)).to(scores.dtype)",
    ]
    student.write(at["softmax"], [head, *body])
    student.run(at["softmax"])
    assert student.run(at["softmax_check"]).startswith("softmax is right")
    assert "1 of 4 pass. Next is 2: the causal mask" in student.run(at["last"])
    assert student.thrown == []


def test_a_student_makes_a_cache_grow(exercise):
    student, at = exercise("04_kv_cache.ipynb")
    student.run(at["first"])
    cells = nbformat.read(EXERCISES / "04_kv_cache.ipynb", as_version=4).cells
    before, between, after = re.split(
        r"raise NotImplementedError.*", cells[at["growing_cache"]].source
    )
    length = "return self.keys[0].size(2)"
    right = """self.keys[layer] = torch.cat([self.keys[layer], k], dim=2)
        self.values[layer] = torch.cat([self.values[layer], v], dim=2)
        return self.keys[layer], self.values[layer]"""
    student.paste(at["growing_cache"], before + length + between + "return k, v" + after)
    student.run(at["growing_cache"])
    assert "is not stored: assign it to self.keys" in student.run(at["growing_cache_check"])
    assert "0 of 5 pass" in student.run(at["last"])

    student.paste(at["growing_cache"], before + length + between + right + after)
    student.run(at["growing_cache"])
    assert "right" in student.run(at["growing_cache_check"])
    assert "1 of 5 pass. Next is 2: attention with a cache" in student.run(at["last"])
    assert student.thrown == []


def test_a_stuck_student_goes_on(exercise):
    student, at = exercise("10_many_users.ipynb")
    student.run(at["first"])
    student.write(
        at["continuous"], ["def continuous(waiting, running, max_rows):", "return running, waiting"]
    )
    student.run(at["continuous"])
    wrong = student.run(at["continuous_check"])
    assert "right" not in wrong and wrong.strip()
    assert "0 of 5 pass" in student.run(at["last"])

    code = fold_out(student, at["continuous_check"] + 1, "Stuck? Go on")
    student.paste(at["continuous"], code)
    student.run(at["continuous"])
    assert "right" in student.run(at["continuous_check"])
    progress = student.run(at["last"])
    assert "0 of 5 pass" in progress and "the course's version; yours is to come" in progress
    assert student.thrown == []
