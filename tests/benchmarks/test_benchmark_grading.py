"""The comparison with nbgrader: both graders grade, and a difference between them is seen."""

import subprocess
import sys

import pandas as pd
import pytest

from course_utils.transformer import ROOT

pytestmark = pytest.mark.instructor


def test_both_grade_and_agree(tmp_path):
    """One submission, whose first exercise is wrong and whose others are right."""
    out = tmp_path / "grading.csv"
    options = ["--students", "1", "--rounds", "1", "--jobs", "1", "--out", out]
    command = [sys.executable, ROOT / "benchmarks" / "grading.py", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    table = pd.read_csv(out)
    assert list(table["grader"]) == ["this course", "nbgrader"]
    assert (table[["seconds", "per minute", "start-up", "generate_assignment"]] > 0).all(axis=None)
    assert (table["verdicts"] == 4).all() and (table["both right"] == 4).all()
    assert (table["different"] == 0).all()


def test_a_difference_is_seen():
    from benchmarks.grading import compare

    mistakes = {"ann": "attention", "bob": None}
    names = ["softmax", "attention", "multi_head"]
    other = {"right": "wrong", "wrong": "right"}
    true = {(s, n): "wrong" if n == w else "right" for s, w in mistakes.items() for n in names}
    knock_on = true | {("ann", "multi_head"): "wrong"}
    assert compare(names, mistakes, true, true).to_list() == [6, 6, 0, 0]
    assert compare(names, mistakes, true, knock_on).to_list() == [6, 5, 1, 0]
    assert compare(names, mistakes, knock_on, true)["different"] == 1
    for given in true:
        swapped = true | {given: other[true[given]]}
        assert compare(names, mistakes, swapped, swapped)["different"] == 1
        assert compare(names, mistakes, swapped, true)["different"] == 1
        missing = {key: value for key, value in true.items() if key != given}
        assert compare(names, mistakes, true, missing)["different"] == 1
        assert compare(names, mistakes, missing, true)["different"] == 1
    unlike = true | {("bob", "multi_head"): "wrong"}
    assert compare(names, mistakes, true, unlike)["different"] == 1
    assert compare(names, mistakes, {}, {}).to_list() == [6, 0, 0, 6]
