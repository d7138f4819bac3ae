"""A report says what was judged, in the assignment's words, and passes nothing unjudged."""

from helpers import cases_for, small_model

from course_utils.evaluation import Result, evaluate, kv_evaluate


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
    assert list(report.table()["verdict"]) == ["passed"] * 6
