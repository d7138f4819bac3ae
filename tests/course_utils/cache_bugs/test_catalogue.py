"""Every wrong cache of the catalogue is right without its cache, is caught, and says why."""

import pytest
import torch
from helpers import cases_for, small_model

from course_utils.cache_bugs import CATALOGUE, diagnose
from course_utils.evaluation import evaluate, kv_evaluate

pytestmark = pytest.mark.authors


def test_there_are_at_least_forty():
    assert len(CATALOGUE) >= 40


@pytest.mark.sampled(4)
@pytest.mark.parametrize("name", CATALOGUE)
def test_it_is_right_without_a_cache_caught_and_named(name, reference, few_cases):
    """To be named, it must differ in some use from all entries before it."""
    assert evaluate(CATALOGUE[name].build(reference), few_cases).all_passed
    report = kv_evaluate(CATALOGUE[name].build(reference), few_cases, stop=True)
    assert not report.all_passed
    diagnosis = diagnose(report, reference)
    assert not diagnosis.right
    assert diagnosis.bug.name == name
    assert CATALOGUE[name].symptom in diagnosis.message


@pytest.mark.sampled(4)
@pytest.mark.parametrize("name", list(CATALOGUE)[::6])
def test_it_is_named_on_other_weights_too_without_a_reference(name):
    reference = small_model(seed=5, dtype=torch.float32)
    report = kv_evaluate(CATALOGUE[name].build(reference), cases_for(reference, [(2, 5)]))
    assert diagnose(report).bug is CATALOGUE[name]


@pytest.mark.parametrize("entry", CATALOGUE.values(), ids=list(CATALOGUE))
def test_every_entry_says_what_where_and_why(entry):
    for text in (entry.mistake, entry.symptom, entry.look):
        assert len(text) > 15
        assert not text.endswith(".")
