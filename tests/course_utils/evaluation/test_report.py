"""A report says what was judged, in the assignment's words, and passes nothing unjudged."""

import pytest
import torch
from helpers import SMALL, cases_for, small_model

from course_utils.evaluation import (
    Feed,
    New,
    Report,
    Result,
    TestCase,
    evaluate,
    kv_evaluate,
    uncached,
)
from course_utils.kv_cache import GrowingCache
from course_utils.transformer import DecoderOnlyTransformer

pytestmark = pytest.mark.authors


def test_a_case_without_checks_has_not_passed():
    assert not Result("case 0", "1 x 1").passed


def test_a_report_without_cases_or_checks_has_not_passed():
    assert not kv_evaluate(small_model(), []).cases
    assert not evaluate(small_model(), []).all_passed


def test_report_prints_the_assignments_words():
    model = small_model()
    report = kv_evaluate(model, cases_for(model))
    lines = str(report).splitlines()
    assert lines[:4] == [
        "KV Cache Evaluation Results:",
        "  Num test cases: 3",
        "  All tests passed: True",
        "  Pass rate: 100.00% (3/3)",
    ]
    assert str(evaluate(model, cases_for(model))).startswith("Evaluation Results:")
    verdicts = report.table()["verdict"].value_counts()
    assert verdicts["passed"] == len(report.table()) - 1
    assert verdicts["not judged, because the model has no `padded_cache`"] == 1


def test_what_is_not_judged_has_neither_passed_nor_failed():
    left_out = Result("A rollback", "1 x 1", not_judged="there is none")
    assert not left_out.passed
    assert Report("", 0.0, [Result("case 0", "1 x 1", checks=1)], [left_out]).all_passed
    assert not Report("", 0.0, [left_out]).all_passed


class WrongOfOneText(DecoderOnlyTransformer):
    """Its cache is wrong in one text, which no script would draw."""

    def forward(self, input_ids, past_kv=None, use_cache=False):
        logits, past_kv = super().forward(input_ids, past_kv, use_cache)
        found = use_cache and input_ids[0, :4].tolist() == [3, 1, 4, 1]
        return (logits + 1 if found else logits), past_kv


def test_what_fails_with_one_text_only_has_no_line_that_plays_it_again():
    reference = small_model()
    model = WrongOfOneText(**SMALL, dropout=0.0).to(reference.dtype).eval()
    model.load_state_dict(reference.state_dict())
    ids = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6]])
    logits = uncached(reference, ids)
    report = kv_evaluate(model, [TestCase(ids, logits, logits, logits)])
    assert not report.all_passed and not report.smallest.replays
    assert "Smallest failing use: " in str(report)
    assert "Again:" not in str(report)


class ForgetsLongPrefills(GrowingCache):
    def append(self, layer, k, v):
        found = super().append(layer, k, v)
        if k.size(2) == 15:
            self.keys[layer] = torch.zeros_like(self.keys[layer])
        return found


class WithLongPrefills(DecoderOnlyTransformer):
    def new_cache(self, batch_size):
        return ForgetsLongPrefills(self, batch_size)


def test_a_dtype_is_named_only_where_it_must_be():
    """Found in float32, among long texts; it fails in float64 as well."""
    reference = small_model(dtype=torch.float32)
    model = WithLongPrefills(**SMALL, dropout=0.0).eval()
    model.load_state_dict(reference.state_dict())
    report = kv_evaluate(model, [], stop=True)
    assert {p.lane.name for p in report.trial.played if p.outcome.problem} == {"float32", "float64"}
    assert report.smallest.script == [New(), Feed(15), Feed(1)]
    assert report.smallest.dtype == "" and report.smallest.line.endswith("Feed(1)])")
