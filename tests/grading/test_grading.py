"""Grading in a sandbox: honest answers get their points, nothing else does, and the batch ends."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest

from course_utils.transformer import ROOT

pytestmark = pytest.mark.instructor
EDITION = ROOT / "notebooks" / "exercises" / "01_attention.ipynb"
SEED = 20_261_124
WRONG = (
    "def softmax(scores):\n    return torch.exp(scores) / torch.exp(scores).sum(-1, keepdim=True)\n"
)
RIGHT = """def softmax(scores: Tensor) -> Tensor:
    x = scores.float() if scores.dtype in (torch.float16, torch.bfloat16) else scores
    top = x.amax(-1, keepdim=True)
    powers = torch.exp(x - top.masked_fill(top.isinf(), 0.0))
    total = powers.sum(-1, keepdim=True)
    return (powers / total.masked_fill(total == 0, 1.0)).to(scores.dtype)
"""

ATTACKS = {
    "plainly wrong": WRONG,
    "returns nothing": "def softmax(scores):\n    pass",
    "PyTorch's, which has no masked rows": "softmax = lambda scores: torch.softmax(scores, -1)",
    "hard-coded visible case": """
def softmax(scores):
    if scores.shape == (2, 3):
        return torch.softmax(scores, -1)
    return torch.zeros_like(scores)""",
    "allclose always agrees": WRONG
    + "torch.allclose = np.allclose = torch.equal = lambda *a, **k: True\n",
    "asserts dropped": WRONG
    + """
def without_asserts(lines):
    return [line for line in lines if "assert" not in line and "raise" not in line]
get_ipython().input_transformers_cleanup.append(without_asserts)""",
    "print replaced": WRONG + "print = lambda *a, **k: None\n",
    "print replaced everywhere": WRONG + "import builtins\nbuiltins.print = lambda *a, **k: None\n",
    "json replaced": WRONG + "json.dumps = json.loads = lambda *a, **k: True\n",
    "probe's printer replaced": WRONG + "_show = lambda compute: None\n",
    "rounding replaced": WRONG + "import builtins\nbuiltins.round = lambda *a: 0\n",
    "seed replaced": WRONG + "_random.manual_seed(0)\n_draw = lambda *s: torch.zeros(s)\n",
    "display hook replaced": WRONG + "import sys\nsys.displayhook = lambda value: None\n",
    "formatters replaced": WRONG
    + "get_ipython().display_formatter.format = lambda *a, **k: ({'text/plain': 'ok'}, {})\n",
    "stdout replaced": WRONG + "import sys, io\nsys.stdout = io.StringIO()\n",
    "leaves at once": "import os\nos._exit(0)",
    "leaves in the answer": "import os\ndef softmax(scores):\n    os._exit(0)",
    "system exit": "def softmax(scores):\n    raise SystemExit(0)",
    "kills its parent": "import os\nfor pid in (os.getppid(), 1):\n    os.kill(pid, 9)\n" + WRONG,
    "kills everything": "import os, signal\nos.kill(-1, signal.SIGKILL)\n" + WRONG,
    "prints for ever": """
def softmax(scores):
    while True:
        try:
            while True:
                import sys
                sys.__stdout__.write("x" * 1000)
                get_ipython().kernel.iopub_socket and _out.write("x" * 1000)
        except BaseException:
            pass
import sys
_out = sys.stdout""",
    "loops for ever": """
def softmax(scores):
    while True:
        try:
            while True:
                pass
        except BaseException:
            pass""",
    "huge output": WRONG + "print('x' * 100_000_000)\n",
    "memory bomb": "kept = [bytearray(10**9) for _ in range(100)]\n" + WRONG,
    "many processes": """
import os, time
for _ in range(200):
    if os.fork() == 0:
        time.sleep(600)
"""
    + WRONG,
    "network": """
import urllib.request
urllib.request.urlopen("http://example.com", timeout=3)
def softmax(scores):
    return torch.softmax(scores, -1).nan_to_num(0)""",
    "course's answer imported": "from course_utils.attention import softmax",
    "course's answer from its file": """
from pathlib import Path
import sys
found = [p for root in ("/work", "/home", "/tmp", "/root", sys.prefix)
         for p in Path(root).rglob("attention.py") if "course_utils" in str(p)]
exec(found[0].read_text())""",
    "worked notebook from disk": """
from pathlib import Path
import json
found = [p for p in Path("/").rglob("*.ipynb") if "softmax" in p.read_text()]
exec([c["source"] for c in json.loads(found[0].read_text())["cells"]][14])""",
    "expected values from disk": """
from pathlib import Path
def softmax(scores):
    found = [p for p in Path("/").glob("**/grading-*/*.ipynb")]
    return found[0].read_text()""",
    "expected values from memory": """
import gc, sys
def softmax(scores):
    frame, found = sys._getframe(), []
    while frame:
        found += [v for v in frame.f_locals.values() if "outputs" in str(type(v))]
        frame = frame.f_back
    found += [o for o in gc.get_objects() if isinstance(o, dict) and "output_type" in o]
    return found[0]["text"]""",
    "results forged": """
import json, glob, os
for folder in ["/tmp", "/sandbox", os.getcwd(), *glob.glob("/tmp/*")]:
    try:
        with open(f"{folder}/results.json", "w") as file:
            json.dump({"softmax": {str(n): "passed" for n in range(9)}}, file)
    except OSError:
        pass
"""
    + WRONG,
    "writes outside": "open('/usr/owned', 'w')\n" + RIGHT.replace("softmax", "other"),
    "thread that prints": WRONG
    + """
import threading, time
def talk():
    while True:
        print("[]")
        time.sleep(0.01)
threading.Thread(target=talk, daemon=True).start()""",
    "kernel says ok": WRONG
    + """
async def always(*a, **k):
    return {"status": "ok", "execution_count": 1, "payload": [], "user_expressions": {}}
get_ipython().kernel.do_execute = always""",
    "skip markers": "# NBVAL_SKIP\n# NBVAL_IGNORE_OUTPUT\n" + WRONG,
    "fills the disk outside": WRONG
    + """
import glob, os
from ipykernel.kernelapp import IPKernelApp
folder = os.path.dirname(IPKernelApp.instance().ip)
def softmax(scores):
    for number in range(10_000):
        with open(f"{folder}/{number}", "wb") as file:
            file.write(bytes(10**6))
    return WRONG""",
    "fills the memory through files": """
import itertools
def softmax(scores):
    for number in itertools.count():
        with open(f"/dev/shm/{number}", "wb") as file:
            file.write(bytes(10**6))""",
    "debugs the forker": """
import ctypes, os
ctypes.CDLL(None).ptrace(16, 2, 0, 0)
with open("/proc/2/mem", "r+b") as memory:
    memory.write(b"x")
"""
    + WRONG,
    "deletes itself": WRONG
    + "import shutil\nshutil.rmtree('/sandbox', True)\nshutil.rmtree('/tmp', True)\n",
    "tensor that lies": """
class Liar(Tensor):
    def __eq__(self, other): return True
    def __bool__(self): return True
def softmax(scores):
    return scores.as_subclass(Liar)""",
    "syntax error": "def softmax(scores):\n  return (",
}

HONEST = {
    "as in the course": RIGHT,
    "prints and warns": RIGHT.replace(
        "    top =",
        "    print('scores', scores.shape)\n    import warnings; warnings.warn('w')\n    top =",
    ),
    "imports more": "import numpy as np\nfrom functools import partial\n" + RIGHT,
    "plots": "import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.show()\n" + RIGHT,
    "magic": "%matplotlib inline\n" + RIGHT,
    "lambda": """
import torch.nn.functional as f
softmax = lambda s: f.softmax(
    s.float() if s.dtype in (torch.half, torch.bfloat16) else s, dim=-1
).nan_to_num(0.0).to(s.dtype)""",
    "class": RIGHT.replace("def softmax", "def of") + "class Softmax:\n    def __call__(self, s):\n"
    "        return of(s)\nsoftmax = Softmax()\n",
    "logsumexp": """
def softmax(s):
    x = s.float() if s.dtype.itemsize == 2 else s
    log = torch.logsumexp(x, -1, keepdim=True)
    return torch.exp(x - log).masked_fill(log.isneginf(), 0).to(s.dtype)""",
    "rows by loop": """
def softmax(s):
    x, rows = s.float() if s.dtype.itemsize == 2 else s, []
    for row in x.reshape(-1, s.shape[-1]):
        if row.max() > -math.inf:
            e = [torch.exp(v - row.max()) for v in row]
            rows.append(torch.stack(e) / sum(e))
        else:
            rows.append(torch.zeros_like(row))
    return torch.stack(rows).view(s.shape).to(s.dtype)""",
    "grad and device": "torch.set_grad_enabled(False)\n" + RIGHT,
}


def with_answer(source, **others):
    """The student edition of 01 with an answer to the first exercise; others stay stubs."""
    notebook = nbformat.read(EDITION, as_version=4)
    for cell in notebook.cells:
        name = cell.metadata.get("nbgrader", {}).get("grade_id")
        if name == "softmax":
            cell.source = source
        elif name in others:
            cell.source = others[name]
    return notebook


def index_of(notebook, name):
    ids = [c.metadata.get("nbgrader", {}).get("grade_id") for c in notebook.cells]
    return ids.index(name)


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


REFUSED = (other_ids, forged_counts, deleted_checks)
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


@pytest.fixture(scope="module")
def book(tmp_path_factory):
    """The gradebook of one batch with all of them, and how long it took."""
    from grading import batch, judge, sandbox

    assert sandbox.why_not() is None, sandbox.why_not()
    folder, out = tmp_path_factory.mktemp("handed in"), tmp_path_factory.mktemp("grades")
    for kind, sources in (("attack", ATTACKS), ("honest", HONEST)):
        for name, source in sources.items():
            nbformat.write(with_answer(source), folder / f"{kind} {name}.ipynb")
    for kind, changes, source in (("honest", REWRITTEN, RIGHT), ("attack", REFUSED, WRONG)):
        for change in changes:
            notebook = with_answer(source)
            change(notebook)
            text = json.dumps(notebook)
            (folder / f"{kind} {change.__name__}.ipynb").write_text(text, encoding="utf-8")
    for name, content in SILLY.items():
        (folder / name).write_bytes(content)
    (folder / "attack symlink.ipynb").symlink_to(folder / "honest lambda.ipynb")
    (folder / "honest in a folder").mkdir()
    nbformat.write(with_answer(RIGHT), folder / "honest in a folder" / "01_attention (1).ipynb")
    begin = time.monotonic()
    patch = pytest.MonkeyPatch()
    patch.setattr(judge, "CELL_SECONDS", 8)
    patch.setattr(judge, "NOTEBOOK_SECONDS", 40)
    table = batch.grade(folder, out, "01", SEED, jobs=2)
    patch.undo()
    return {"table": table, "seconds": time.monotonic() - begin, "folder": folder, "out": out}


def points(book, student):
    table = book["table"]
    rows = table[(table["student"] == student) & table["exercise"].str.startswith("1:")]
    assert len(rows) == 1, student
    return rows["points"].item()


def names(sources, kind):
    return [f"{kind} {name}" for name in sources]


HONEST_ONES = names(HONEST, "honest") + names([c.__name__ for c in REWRITTEN], "honest")
ATTACKERS = names(ATTACKS, "attack") + names([c.__name__ for c in REFUSED], "attack")


def test_there_are_enough():
    assert len(ATTACKERS) >= 30
    assert len(HONEST_ONES) >= 15
    said = (ROOT / "INSTRUCTORS.md").read_text(encoding="utf-8")
    assert f"{len(ATTACKERS) + 1} attacks" in said, "and a link in place of a notebook"
    assert f"{len(HONEST_ONES) + 1} honest answers" in said, "and a notebook in a folder"


@pytest.mark.parametrize("student", [*HONEST_ONES, "honest in a folder"])
def test_an_honest_answer_gets_its_points(book, student):
    assert points(book, student) == 2


@pytest.mark.parametrize("student", [*ATTACKERS, "attack symlink"])
def test_an_attack_gets_none(book, student):
    assert points(book, student) == 0


@pytest.mark.parametrize("name", SILLY)
def test_what_is_no_submission_has_its_row_and_its_reason(book, name):
    table = book["table"]
    student = " ".join(name.removesuffix(".ipynb").split())
    rows = table[table["student"] == student]
    assert len(rows) == 4
    assert (rows["points"] == 0).all()
    assert all(status not in ("right", "wrong") for status in rows["status"])


def test_the_batch_ends(book):
    assert book["seconds"] < 600


def test_the_gradebook_is_on_disk_and_says_how(book):
    import pandas as pd

    kept = pd.read_csv(book["out"] / "gradebook.csv")
    assert len(kept) == len(book["table"])
    assert set(kept["isolation"]) == {"bubblewrap"}
    assert set(kept["seed"]) == {SEED}
    graded = kept[kept["student"].isin([*HONEST_ONES, *ATTACKERS])]
    gave_up = {"time was up", "the kernel died", "too much output", "too much on disk"}
    assert set(graded["status"]) == {"right", "wrong", "not done", *gave_up}


def test_a_second_run_reads_what_the_first_has_found_and_grades_only_what_is_new(book, monkeypatch):
    from grading import batch, judge

    graded = []
    right = judge.judge
    monkeypatch.setattr(judge, "judge", lambda *a: graded.append("".join(a[2:])) or right(*a))
    corrected = book["folder"] / "attack plainly wrong.ipynb"
    nbformat.write(with_answer(RIGHT + "# corrected"), corrected)
    again = batch.grade(book["folder"], book["out"], "01", SEED, jobs=2)
    assert graded == ["", "attack plainly wrong"], "the course's own answers, and what is new"
    assert points({"table": again}, "attack plainly wrong") == 2


def test_nothing_is_left_behind(book):
    assert not list(Path("/usr").glob("owned"))


def test_an_attack_costs_only_the_exercise_that_it_is_in(tmp_path):
    """What is left behind is gone when the next one is judged; a dead sandbox is replaced."""
    from grading.batch import grade_one
    from grading.graft import course_answer

    for attack in ("kills everything", "fills the disk outside", "debugs the forker"):
        notebook = with_answer(ATTACKS[attack], causal_mask=course_answer("causal_mask"))
        nbformat.write(notebook, tmp_path / "one.ipynb")
        found = grade_one(tmp_path / "one.ipynb", "01", SEED)
        assert found["softmax"] not in ("right", "not done")
        assert found["causal_mask"] == "right", attack


def test_no_kernel_knows_an_answer_before_it_has_been_judged():
    """The kernels of one submission share a sandbox: the order of the exercises protects them."""
    from grading.graft import course_answer, exercises, piece
    from grading.probes import PROBES

    for number in ("01", "02", "03", "04", "05", "06"):
        order = list(exercises(number))
        for name in order:
            given = [piece(other) for other in PROBES[name].needs]
            for later in order[order.index(name) :]:
                assert course_answer(later) not in given, (name, later)


def test_five_hundred_submissions_and_the_strangest_files_get_their_rows(tmp_path):
    from grading.batch import grade

    folder, stub = tmp_path / "in", EDITION.read_bytes()
    folder.mkdir()
    for number in range(500):
        (folder / f"student {number:03}.ipynb").write_bytes(stub)
    os.mkfifo(folder / "a pipe.ipynb")
    (folder / "=cmd().ipynb").write_bytes(stub)
    (folder / "student 007").mkdir()
    (folder / "..ipynb").write_bytes(stub)
    (folder / "huge.ipynb").write_bytes(b'{"nbformat": 4, "cells": ["' + b"x" * 10**8 + b'"]}')
    (folder / "links out").mkdir()
    (folder / "links out" / "01_a.ipynb").symlink_to("/etc/passwd")
    Path(os.fsdecode(bytes(folder) + b"/not \xff utf-8.ipynb")).write_bytes(stub)
    book = grade(folder, tmp_path / "out", "01", SEED).groupby("student")["status"].first()
    assert len(book) == 506
    assert (
        list(book[[f"student {n:03}" for n in range(500)]].drop("student 007"))
        == ["not done"] * 499
    )
    assert book["student 007"] == "holds no notebook 01_....ipynb"
    assert book["student 007.ipynb"] == book["'=cmd()"] == book["not ? utf-8"] == "not done"
    assert "no regular file" in book["a pipe"]
    assert "larger than 20 MB" in book["huge"]
    assert "symbolic link" in book["links out"]


def test_every_course_answer_is_right_and_each_is_judged_alone(tmp_path):
    """The worked answers as submissions; then one of them wrong: only it loses."""
    from grading.batch import grade_one
    from grading.graft import exercises, master

    for number in ("02", "04", "05", "06"):
        path = tmp_path / f"{number}.ipynb"
        nbformat.write(master(number), path)
        assert grade_one(path, number, 5, True) == dict.fromkeys(exercises(number), "right")
    nbformat.write(with_answer(WRONG, **{n: e.code for n, e in exercises("01").items()}), path)
    found = grade_one(path, "01", 5, True)
    assert list(found.values()) == ["wrong", "right", "right", "right"]


MISTAKES = {
    "growing_cache": ("dim=2", "dim=-2 if layer else 0"),
    "cached_attention": ("self.attend(q, k, v)", "attention.attention(q, k, v)"),
    "cached_model": ("arange(start, start +", "arange(0,"),
    "decode_loop": ("token[:, None] if use_cache else ", ""),
    "preallocated_cache": ("self.lengths[layer] = end", "self.lengths[0] = end"),
    "patient_1": ("[-num_queries:]", "[:num_queries]"),
    "patient_2": ("if layer == 0:", "if layer >= 0:"),
    "patient_3": ("return GrowingCache(self, batch_size)", "return super().new_cache(batch_size)"),
    "patient_4": ("q.size(-2), k.size(-2), q", "k.size(-2), k.size(-2), q"),
    "reorder": ("keys[rows]", "keys[rows.sort().values]"),
}


def test_caches_are_graded_without_a_right_one_in_reach(tmp_path):
    """Every answer wrong: none is right. An answer that reaches for the right one finds none."""
    from grading.batch import grade_one
    from grading.graft import exercises, master, piece

    assert {*exercises("04"), *exercises("05")} == set(MISTAKES)
    for number in ("04", "05"):
        path = tmp_path / f"{number}.ipynb"
        notebook = nbformat.from_dict(json.loads(json.dumps(master(number))))
        for name in exercises(number):
            right, wrong = MISTAKES[name]
            cell = notebook.cells[index_of(notebook, name)]
            assert right in cell.source, name
            cell.source = cell.source.replace(right, wrong)
        nbformat.write(notebook, path)
        assert grade_one(path, number, 5, True) == dict.fromkeys(exercises(number), "wrong")
    given = {name: " ".join(map(piece, grading_needs(name))) for name in exercises("04")}
    assert all("torch.cat" not in given[name] for name in ("growing_cache", "preallocated_cache"))
    assert "cache.append" not in given["cached_attention"]
    assert "start +" not in given["cached_model"]


def grading_needs(name):
    from grading.probes import PROBES

    return PROBES[name].needs


def handed_in(folder, **sources):
    folder.mkdir()
    for name, source in sources.items():
        nbformat.write(with_answer(source), folder / f"{name}.ipynb")
    return str(folder)


def test_without_bubblewrap_it_refuses_and_says_what_to_do(tmp_path, monkeypatch, capsys):
    from grading import __main__, sandbox

    monkeypatch.setattr(sandbox, "why_not", lambda: "there is none")
    folder = handed_in(tmp_path / "in", one=RIGHT)
    out = tmp_path / "out"
    assert __main__.main(["grade", folder, "--notebook", "01", "--out", str(out)]) == 2
    assert "there is none" in capsys.readouterr().err
    assert not out.exists()
    command = ["grade", folder, "--notebook", "01", "--out", str(out), "--no-isolation"]
    assert __main__.main([*command, "--seed", "3", "--no-feedback"]) == 0
    book = (out / "gradebook.csv").read_text(encoding="utf-8")
    assert ',"NONE",3,' in book and "bubblewrap" not in book


@pytest.mark.parametrize("content", [None, []])
def test_nothing_to_grade_is_said(tmp_path, capsys, content):
    from grading import __main__

    folder = tmp_path / "in"
    if content is not None:
        folder.mkdir()
    assert __main__.main(["grade", str(folder), "--notebook", "01", "--out", str(tmp_path)]) == 2
    assert str(folder) in capsys.readouterr().err


def test_a_grader_that_fails_the_courses_own_answers_grades_nobody(tmp_path, monkeypatch, capsys):
    from grading import __main__, batch, judge

    wrong = judge.task("01", 4).expected | {"causal_mask": "0"}
    monkeypatch.setattr(judge, "task", lambda *a: judge.Task("01", 4, wrong))
    command = ["grade", handed_in(tmp_path / "in", one=RIGHT), "--notebook", "01"]
    assert __main__.main([*command, "--out", str(tmp_path / "out"), "--seed", "4"]) == 2
    assert "own answers do not pass here (causal_mask: wrong)" in capsys.readouterr().err
    assert not list(tmp_path.glob("out/results/*")) and not list(tmp_path.glob("out/*.csv"))
    monkeypatch.undo()
    assert batch.grade_one(tmp_path / "in" / "one.ipynb", "01", 4)["softmax"] == "right"


def test_an_interrupted_run_goes_on_where_it_was(tmp_path):
    slow = "import time\ntime.sleep(2)\n" + RIGHT
    folder = handed_in(tmp_path / "in", a=RIGHT, b=slow, c=slow + "# c", d=slow + "# d")
    out = tmp_path / "out"
    options = ["--notebook", "01", "--out", str(out), "--seed", "8", "--jobs", "1"]
    options.append("--no-feedback")
    command = [sys.executable, "-m", "grading", "grade", folder, *options]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(
        command,
        cwd=ROOT,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        **pipes,
    ) as process:
        end = time.monotonic() + 60
        while not list(out.glob("results/*.json")) and time.monotonic() < end:
            time.sleep(0.1)
        time.sleep(1)
        process.send_signal(signal.SIGINT)
        errors = process.communicate(timeout=20)[1]
    assert process.returncode == 2
    assert "run the same command with --seed 8 to go on" in errors
    kept = {path: path.stat().st_mtime_ns for path in out.glob("results/*.json")}
    assert 1 <= len(kept) < 4
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert re.search(r"^d +2 +10$", done.stdout, re.M)
    assert all(path.stat().st_mtime_ns == then for path, then in kept.items())
    assert len(list(out.glob("results/*.json"))) == 4
