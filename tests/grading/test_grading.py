"""Grading: every exercise is judged alone, the grader refuses what it cannot do, a run goes on."""

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
from attacks import ATTACKS, RIGHT, WRONG
from submitted import EDITION, index_of, with_answer

from course_utils.transformer import ROOT

pytestmark = pytest.mark.instructor
SEED = 20_261_124


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
