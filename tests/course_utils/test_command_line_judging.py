"""The command line judges a cache: what is printed, the exit status, the diagnosis."""

import re
from functools import partial
from pathlib import Path

import pytest
from helpers import cases_for, small_model

from course_utils import __main__ as command_line
from course_utils import cache_bugs
from course_utils.evaluation import TEST_CASES, Report, Result, kv_evaluate, load_test_cases

pytestmark = pytest.mark.authors

SUPPORT = Path(__file__).resolve().parents[1] / "support"


def mine(tmp_path, source):
    """--model for a file that holds a class `Mine`."""
    (tmp_path / "mine.py").write_text(source)
    return f"{tmp_path / 'mine.py'}:Mine"


def test_somebody_elses_class_is_judged(cli, files, tmp_path):
    wrong = mine(tmp_path, "from course_utils.cache_bugs import NoPositionOffset as Mine\n")
    assert cli("--mode", "evaluate", "--model", wrong, *files)[0] == 0
    status, out, _ = cli("--mode", "kv_evaluate", "--model", wrong, *files)
    assert status == 1
    assert "first differs at position 1 of row 0" in out


def test_the_readme_shows_what_is_printed(cli, tmp_path):
    readme = (SUPPORT.parents[1] / "README.md").read_text(encoding="utf-8")
    shown = re.search(r"^  Smallest failing use: .*\n  Again: .*$", readme, re.MULTILINE)
    wrong = mine(tmp_path, "from course_utils.cache_bugs import NoPositionOffset as Mine\n")
    assert shown.group() in cli("--mode", "kv_evaluate", "--model", wrong)[1]


def test_what_a_cache_does_not_offer_has_neither_passed_nor_failed(cli, files):
    foreign = f"{SUPPORT / 'foreign_model.py'}:TupleCacheTransformer"
    status, out, err = cli("--mode", "kv_evaluate", "--model", foreign, *files)
    assert (status, err) == (0, ""), out
    assert "  After a rollback: not judged, because the cache has no `truncate`" in out
    assert "  Rows reordered: not judged, because the cache has no `reorder`" in out


def test_the_shipped_models_cache_passes_its_first_cases(cli, monkeypatch):
    """All ten, and all scripts, are run by notebook 05, which takes a while."""

    def first(path):
        assert path == TEST_CASES
        return load_test_cases(path)[:3]

    monkeypatch.setattr(command_line, "load_test_cases", first)
    monkeypatch.setattr(command_line, "kv_evaluate", partial(kv_evaluate, brief=True))
    status, out, _ = cli("--mode", "kv_evaluate")
    assert status == 0
    assert "  Pass rate: 100.00% (3/3)" in out
    assert "  Filled to max_seq_len: passed" in out


def test_a_known_wrong_cache_is_named(cli, files, tmp_path):
    known = mine(tmp_path, "from course_utils.cache_bugs import KeysOnlyModel as Mine\n")
    status, out, _ = cli("--mode", "kv_evaluate", "--model", known, *files)
    assert status == 1
    assert "Identical to `values_not_cached`" in out


WRONG = """
from course_utils.transformer import DecoderOnlyTransformer

class Mine(DecoderOnlyTransformer):
    def forward(self, input_ids, past_kv=None, use_cache=False):
        {first}
        logits, past_kv = super().forward(input_ids, past_kv, use_cache)
        {then}
        return logits, past_kv
"""
CHUNKS = "if past_kv is not None and input_ids.size(1) > 1: raise RuntimeError('one at a time')"
NO_CACHE = "if use_cache: raise NotImplementedError"
NO_REORDER = "if use_cache: past_kv.reorder = lambda rows: None"


@pytest.mark.parametrize(
    ("first", "then", "said"),
    [
        (CHUNKS, "", "Diagnosis: prefill 1, then 2 tokens: RuntimeError: one at a time"),
        (NO_CACHE, "", "Diagnosis: something that the model needs is not written yet."),
        ("", NO_REORDER, "Pass rate: 100.00% (2/2)\n"),
    ],
)
def test_every_way_to_fail_is_status_1(cli, files, tmp_path, first, then, said):
    wrong = mine(tmp_path, WRONG.format(first=first, then=then))
    status, out, err = cli("--mode", "kv_evaluate", "--model", wrong, *files)
    assert (status, err) == (1, ""), out
    assert f"  {said}" in out and "  Diagnosis: " in out


def test_the_diagnosis_is_of_the_report_that_failed(cli, files, write_cases, monkeypatch):
    """The stored logits are of other weights; judged again by its own logits, it would pass."""
    monkeypatch.setattr(cache_bugs.diagnosis, "kv_evaluate", None)
    write_cases(cases_for(small_model(seed=1), [(1, 1), (2, 5)]))
    status, out, err = cli("--mode", "kv_evaluate", *files)
    assert (status, err) == (1, "")
    assert "  Diagnosis: case 0: stored logits, at once: first differs" in out


def test_thorough_reaches_the_judgement(cli, files, monkeypatch):
    asked = []

    def judge(model, cases, **options):
        asked.append(options["thorough"])
        return Report("", 0.0, [Result("case 0", "1 x 1", checks=1)])

    monkeypatch.setattr(command_line, "kv_evaluate", judge)
    monkeypatch.setattr(command_line, "run_benchmark", lambda model: True)
    for flags in (["run", "--thorough"], ["kv_evaluate", "--thorough"], ["kv_evaluate"]):
        assert cli("--mode", *flags, *files)[0] == 0
    assert asked == [True, True, False]


@pytest.mark.parametrize("leaves", ["sys.exit()\n", "def Mine():\n    sys.exit(0)\n"])
def test_a_file_that_ends_the_program_has_not_passed(cli, tmp_path, leaves):
    file = mine(tmp_path, "import sys\n\n" + leaves)
    status, out, err = cli("--mode", "kv_evaluate", "--model", file)
    assert (status, out) == (2, "")
    assert err.startswith("error: ") and "sys.exit" in err and err.count("\n") == 1
