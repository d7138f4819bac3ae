"""Honest students lose nothing by the state in which they hand a notebook in."""

import nbformat
import pytest
from honest_notebooks import HONEST_NOTEBOOKS, NAMES, honest_notebook
from submitted import EDITION

pytestmark = pytest.mark.instructor
SEED = 20_261_130
STUB = '    raise NotImplementedError("Your turn: the card above says what to build.")\n'


def test_there_are_enough():
    assert len(HONEST_NOTEBOOKS) >= 35


@pytest.mark.sampled(3)
@pytest.mark.parametrize("name", HONEST_NOTEBOOKS)
def test_every_exercise_has_its_points(name):
    from grading import judge
    from grading.extract import extract

    found = extract(honest_notebook(name, nbformat.read(EDITION, as_version=4)), "01")
    judged = judge.judge(found, judge.task("01", SEED))
    assert judged.statuses == dict.fromkeys(NAMES, "right")


def extracted(*sources, name="softmax", elsewhere=()):
    """The answer to an exercise whose cell was copied: one text for each, and other own cells."""
    from grading.extract import extract

    notebook = nbformat.read(EDITION, as_version=4)
    ids = [cell.metadata.get("nbgrader", {}).get("grade_id") for cell in notebook.cells]
    place = ids.index(name)
    metadata = notebook.cells[place].metadata
    cells = [nbformat.v4.new_code_cell(text, metadata=metadata) for text in sources]
    others = [nbformat.v4.new_code_cell(text) for text in elsewhere]
    notebook.cells[place : place + 1] = cells
    notebook.cells[:0] = others
    return extract(nbformat.writes(notebook).encode(), "01")[name]


ANSWER = "def softmax(s):\n    return s.softmax(-1)"


def test_the_last_of_several_definitions_counts():
    assert extracted("def softmax(s):\n" + STUB, ANSWER).problem == ""
    assert extracted(ANSWER, "def softmax(s):\n" + STUB).problem == "not done"
    assert extracted("def softmax(s):\n    (\n" + STUB, ANSWER).problem == ""


def test_a_stub_that_is_never_reached_is_none():
    assert extracted(ANSWER + "\n" + STUB).problem == ""
    assert extracted("def softmax(s):\n    for _ in s:\n    " + STUB).problem == "not done"


def test_what_was_not_done_in_a_loop_is_not_done():
    from grading.extract import extract

    edition = EDITION.with_name("04_kv_cache.ipynb").read_bytes()
    assert extract(edition, "04")["decode_loop"].problem == "not done"


def test_only_what_an_answer_needs_comes_with_it():
    top = "import course_utils\nimport functools as ft, re\nheavy = 1\nlow = 2\n"
    top += "\n\ndef used():\n    return ft"
    answer = "def causal_mask(*given):\n    return used(low)"
    found = extracted(answer, name="causal_mask", elsewhere=[top, "low = 3\nx = 4"])
    assert found.before == [
        "import functools as ft, re",
        "def used():\n    return ft",
        "low = 3",
    ]


def test_what_the_course_gives_is_not_replaced_by_what_a_student_tried():
    answer = "def causal_mask(*given):\n    return softmax(torch.ones(names))"
    tried = "softmax = 1\ntorch = 2\nnames = 3"
    assert extracted(answer, name="causal_mask", elsewhere=[tried]).before == ["names = 3"]


def test_imports_of_the_course_are_in_a_cell_of_their_own():
    found = extracted(f"from course_utils import (\n    checks,\n)\n# mine\n{ANSWER}")
    assert found.before == ["from course_utils import (\n    checks,\n)"]
    assert found.code == f"\n\n\n# mine\n{ANSWER}"
    both = f"import course_utils; import re\n{ANSWER}"
    assert extracted(both).code == both, "a line that does more stays where it is"


def test_lines_that_need_each_other_end():
    first, second = "def f():\n    return g()", "def g():\n    return f()"
    answer = "def causal_mask(*given):\n    return f()"
    assert extracted(answer, name="causal_mask", elsewhere=[first, second]).before == [
        first,
        second,
    ]
