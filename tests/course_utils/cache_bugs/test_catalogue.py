"""Every wrong cache of the catalogue is right without its cache, is caught, and says why."""

import pytest

from course_utils.cache_bugs import CATALOGUE
from course_utils.evaluation import evaluate, kv_evaluate


def test_there_are_at_least_twenty():
    assert len(CATALOGUE) >= 20


@pytest.mark.parametrize("name", CATALOGUE)
def test_it_is_right_without_a_cache_and_kv_evaluate_catches_it(
    name, reference, few_cases, request
):
    if name != "cache_on_the_cpu":  # this one is caught there only
        request.getfixturevalue("on_no_other_device")
    assert evaluate(CATALOGUE[name].build(reference), few_cases).all_passed
    assert not kv_evaluate(CATALOGUE[name].build(reference), few_cases).all_passed


@pytest.mark.parametrize("entry", CATALOGUE.values(), ids=list(CATALOGUE))
def test_every_entry_says_what_where_and_why(entry):
    for text in (entry.mistake, entry.symptom, entry.look):
        assert len(text) > 15
        assert not text.endswith(".")
