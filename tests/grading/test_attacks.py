"""One batch of attacks and honest answers: only these get points, and all of it ends in time."""

import contextlib
import json
import os
import re
import tempfile
import threading
import time
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from attacks import ATTACKS, RIGHT, WRONG
from honest_answers import HONEST
from more_attacks import MORE_ATTACKS
from submitted import index_of, with_answer

from course_utils.transformer import ROOT
from grading import guard
from grading.answers import Answer, Unreadable
from grading.extract import extract

pytestmark = pytest.mark.instructor
SEED = 20_261_124
KINDS = "attack", "honest"
GAVE_UP = {"time was up", "the kernel died", "too much output", "its run broke off"}
GAVE_UP |= {guard.TOO_MUCH_MEMORY, guard.TOO_MANY_FILES}
OF_THE_FILE = {"not done", "missing", "too long to be read"}
OF_THE_FILE |= {"the file is too large to be read: it took too much memory"}
OF_THE_FILE |= {"is a symbolic link: hand in the file itself", "the file has more than 2000 cells"}
STATUSES = {"right", "wrong"} | GAVE_UP | OF_THE_FILE


def split(notebook):
    """As JupyterLab splits a cell: both halves have its metadata."""
    at = index_of(notebook, "softmax")
    first, second = RIGHT.split("    total", 1)
    for text in ("    total" + second, first):
        cell = nbformat.v4.new_code_cell(text, metadata=notebook.cells[at].metadata)
        notebook.cells.insert(at + 1, cell)
    del notebook.cells[at]


def helper_cell(notebook):
    at = index_of(notebook, "softmax")
    notebook.cells[at].source = "def softmax(s):\n    return helper(s)"
    helper = nbformat.v4.new_code_cell(RIGHT.replace("def softmax", "def helper"))
    notebook.cells.insert(at, helper)


def merged(notebook):
    at, mask = index_of(notebook, "softmax"), index_of(notebook, "causal_mask")
    notebook.cells[mask].source = RIGHT + "\n\n" + notebook.cells[mask].source
    del notebook.cells[at]


def no_metadata(notebook):
    for cell in notebook.cells:
        cell.metadata.clear()
        cell.pop("id", None)
    notebook.metadata.clear()
    notebook.nbformat_minor = 0


def as_vs_code(notebook):
    for cell in notebook.cells:
        cell.metadata["vscode"] = {"languageId": "python"}
        cell.source = cell.source.replace("\n", "\r\n")


def out_of_order(notebook):
    for number, cell in enumerate(c for c in notebook.cells if c.cell_type == "code"):
        cell.execution_count = 99 - number
        cell.outputs = [nbformat.v4.new_output("stream", text="anything")]


def cell_that_fails(notebook):
    at = index_of(notebook, "softmax")
    notebook.cells.insert(at, nbformat.v4.new_code_cell("1 / 0"))


REWRITTEN = (split, helper_cell, merged, no_metadata, as_vs_code, out_of_order, cell_that_fails)


def other_ids(notebook):
    notebook.cells[index_of(notebook, "softmax")].metadata.nbgrader.grade_id = "s\u043eftmax"


def forged_counts(notebook):
    cell = notebook.cells[index_of(notebook, "softmax_check")]
    cell.execution_count = 7
    cell.outputs = [nbformat.v4.new_output("stream", text="softmax is right")]


def deleted_checks(notebook):
    notebook.cells = [c for c in notebook.cells if not c.metadata.get("nbgrader", {}).get("grade")]


def slow_cells(notebook):
    at = index_of(notebook, "softmax")
    for _ in range(30):
        cell = nbformat.v4.new_code_cell("import time\ntime.sleep(5)")
        notebook.cells.insert(at, cell)


def long_source(notebook):
    notebook.cells[index_of(notebook, "softmax")].source += "x = [" + "0, " * 1_000_000 + "]"


def deep_source(notebook):
    notebook.cells[index_of(notebook, "softmax")].source += "x = " + "(" * 90_000


def many_cells(notebook):
    notebook.cells += [nbformat.v4.new_code_cell("0") for _ in range(5000)]


def metadata_of_empty_lists(notebook):
    notebook.metadata["x"] = [[]] * 4_500_000


def sources_of_numbers(notebook):
    notebook.cells[index_of(notebook, "softmax")].source = [1, None, {"a": "b"}]


REFUSED = (other_ids, forged_counts, deleted_checks, slow_cells, long_source, deep_source)
REFUSED += (many_cells, metadata_of_empty_lists, sources_of_numbers)
SILLY = {
    "empty.ipynb": b"",
    "cut off.ipynb": b'{"cells": [{"cell_ty',
    "a list.ipynb": b"[1, 2]",
    "numbers only.ipynb": b'{"nbformat": 4}',
    "cells are text.ipynb": b'{"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": "x"}',
    "not text.ipynb": b"\xff\xfe\x00\x01",
    "old.ipynb": b'{"nbformat": 2, "worksheets": [], "metadata": {}}',
    "other.ipynb": json.dumps(nbformat.v4.new_notebook()).encode(),
    "deep.ipynb": b'{"nbformat": 4, "cells": ' + b"[" * 50_000 + b"]" * 50_000 + b"}",
    "bomb.zip": b"PK\x03\x04",
    "line\nbreak and \u00fcn\u00efcode.ipynb": b"",
}


def sandboxes():
    """The processes of each sandbox that this process has started."""
    for one in guard.below(os.getpid()):
        with contextlib.suppress(OSError):
            if Path(f"/proc/{one}/comm").read_text(encoding="utf-8") == "bwrap\n":
                yield list(guard.below(one))


class Measured:
    """While it lasts, the largest of each: bytes held by one sandbox, and by the rest of a grader.

    What the processes of a sandbox share counts once: a kernel has most of its forker's memory.
    The rest is what is outside: this process less what it had before, pytest, those that read.
    What other tests have left running (a browser, a server) is not of this grader. What is outside
    counts if it is there at two looks in turn: until a new process runs its own program, it has its
    parent's memory.
    """

    def __init__(self):
        self.inside = self.outside = 0
        self.over = threading.Event()
        self.before = guard.held(os.getpid())
        self.others = set(guard.below(os.getpid()))
        self.thread = threading.Thread(target=self.watch)

    def watch(self):
        last = 0
        while not self.over.wait(0.2):
            outside = {os.getpid(), *guard.below(os.getpid())} - self.others
            inside = list(sandboxes())  # after the others: what begins in between is in neither
            outside -= {one for every in inside for one in every}
            now = sum(map(guard.held, outside)) - self.before
            self.outside, last = max(self.outside, min(now, last)), now
            for every in inside:
                if sum(map(guard.held, every)) > self.inside:  # quicker, and never less
                    self.inside = max(self.inside, sum(map(guard.share, every)))

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()


def submissions():
    """What each student hands in: the text of a notebook, by name."""
    found = {}
    for kind, sources in (("attack", ATTACKS | MORE_ATTACKS), ("honest", HONEST)):
        for name, source in sources.items():
            found[f"{kind} {name}"] = json.dumps(with_answer(source))
    for kind, changes, source in (("honest", REWRITTEN, RIGHT), ("attack", REFUSED, WRONG)):
        for change in changes:
            notebook = with_answer(source)
            change(notebook)
            found[f"{kind} {change.__name__}"] = json.dumps(notebook)
    return found


NAMES = {kind: [*filter(lambda name: name.startswith(kind), submissions())] for kind in KINDS}
GROUPS = 6
LATER = [pytest.param(group, marks=pytest.mark.thorough) for group in range(1, GROUPS)]


def test_there_are_enough():
    assert len(NAMES["attack"]) >= 120 and len(NAMES["honest"]) >= 30
    said = (ROOT / "INSTRUCTORS.md").read_text(encoding="utf-8")
    assert f"{len(NAMES['attack']) + 1} attacks" in said, "and a link in place of a notebook"
    assert f"{len(NAMES['honest']) + 1} honest answers" in said, "and a notebook in a folder"


def hand_in(folder, group):
    """A batch: every sixth attack and honest answer, and with the first group what is neither."""
    folder.mkdir()
    chosen = [name for names in NAMES.values() for name in names[group::GROUPS]]
    for name, text in submissions().items():
        if name in chosen:
            (folder / f"{name}.ipynb").write_text(text, encoding="utf-8")
    if group == 0:
        for name, content in SILLY.items():
            (folder / name).write_bytes(content)
        (folder / "attack symlink.ipynb").symlink_to(folder / "honest lambda.ipynb")
        (folder / "honest in a folder").mkdir()
        nbformat.write(with_answer(RIGHT), folder / "honest in a folder" / "01_attention (1).ipynb")
    return folder


class Timed:
    """`judge.judge`, and how long each submission took it."""

    def __init__(self, judge):
        self.judge, self.took = judge, {}

    def __call__(self, given, task, student=""):
        begin = time.monotonic()
        try:
            return self.judge(given, task, student)
        finally:
            self.took[student] = time.monotonic() - begin


SAID = [name for name in ATTACKS if re.search("huge|flood|message|reply of|backspaces", name)]
QUICK = re.compile("100 MB|long|many parts|empty lists")
FLOODS = [
    pytest.param(name, marks=[] if QUICK.search(name) else pytest.mark.thorough) for name in SAID
]


@pytest.mark.parametrize("name", FLOODS)
def test_what_a_kernel_says_takes_little_memory_outside(name, monkeypatch):
    from grading import judge

    monkeypatch.setattr(judge, "CELL_SECONDS", 6)
    monkeypatch.setattr(judge, "NOTEBOOK_SECONDS", 14)
    task = judge.task("01", SEED)
    found = {exercise: Answer(problem="not done") for exercise in task.expected}
    with Measured() as measured:
        judged = judge.judge(found | {"softmax": Answer(code=ATTACKS[name])}, task)
    assert judged.statuses["softmax"] in STATUSES - {"right"}
    assert measured.outside < 400e6, "pytest has 350 MB of addresses"


def test_a_file_that_would_fill_its_readers_memory_is_refused():
    notebook = with_answer(RIGHT)
    metadata_of_empty_lists(notebook)
    with pytest.raises(Unreadable, match="it took too much memory"):
        extract(json.dumps(notebook).encode(), "01")


@pytest.mark.parametrize("group", [0, *LATER])
def test_only_honest_answers_get_points_and_nothing_lasts(tmp_path, monkeypatch, group):
    """Each exercise 1 is worth 2 points. The limits are those that INSTRUCTORS.md states."""
    from grading import batch, judge, sandbox

    assert sandbox.why_not() is None, sandbox.why_not()
    folder, out, timed = hand_in(tmp_path / "in", group), tmp_path / "out", Timed(judge.judge)
    monkeypatch.setattr(judge, "judge", timed)
    monkeypatch.setattr(judge, "CELL_SECONDS", 6)
    monkeypatch.setattr(judge, "NOTEBOOK_SECONDS", 14)
    with tempfile.TemporaryDirectory(prefix="batch-") as work, Measured() as measured:
        with monkeypatch.context() as here:
            here.setattr(tempfile, "tempdir", work)
            book = batch.grade(folder, out, "01", SEED, jobs=2)
        left = list(Path(work).rglob("*"))
    first = book[book["exercise"].str.startswith("1:")].set_index("student")
    points, status = first["points"].to_dict(), first["status"].to_dict()
    chosen = [name for name in points if name.startswith(KINDS)]
    assert len(chosen) >= (len(NAMES["attack"]) + len(NAMES["honest"])) // GROUPS
    unfair = {n: status[n] for n in chosen if points[n] != 2 * n.startswith("honest")}
    assert unfair == {}
    assert {status[name] for name in chosen} <= STATUSES
    assert {name: seconds for name, seconds in timed.took.items() if seconds > 60} == {}
    assert left == [] and not list(Path("/usr").glob("owned"))
    assert 200e6 < measured.inside < 3.5e9 and measured.outside < 1e9
    kept = pd.read_csv(out / "gradebook.csv")
    assert set(kept["isolation"]) == {"bubblewrap"} and set(kept["seed"]) == {SEED}
    if group == 0:
        assert_silly_files_have_their_rows(book)
        assert_only_what_is_new_is_graded(folder, out, timed)


def assert_silly_files_have_their_rows(book):
    for name in SILLY:
        student = " ".join(name.removesuffix(".ipynb").split())
        rows = book[book["student"] == student]
        assert len(rows) == 4 and (rows["points"] == 0).all(), name
        assert all(status not in ("right", "wrong") for status in rows["status"]), name


def assert_only_what_is_new_is_graded(folder, out, timed):
    from grading import batch

    timed.took.clear()
    nbformat.write(with_answer(RIGHT + "# corrected"), folder / "attack plainly wrong.ipynb")
    again = batch.grade(folder, out, "01", SEED, jobs=2)
    assert {*timed.took} == {"", "attack plainly wrong"}, "the course's own answers, what is new"
    corrected = again[again["student"] == "attack plainly wrong"]
    assert corrected["points"].tolist() == [2, 0, 0, 0]
