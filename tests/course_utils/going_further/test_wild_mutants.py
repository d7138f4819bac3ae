"""Small mistakes in the library's own cache layers are refused through the adapter.

A sample, the same each time; `benchmarks/wild_mutants.py` tries all of them.
"""

import pytest
from mutants import sample
from mutated_library import LAYERS, LOUD, equivalent, replaced, verdict

from course_utils.going_further.wild.installed import library

pytestmark = pytest.mark.authors

OF_EACH = 6
CASES = [(number, place) for number in range(len(LAYERS)) for place in range(OF_EACH)]


@pytest.mark.sampled(14)
@pytest.mark.parametrize(("number", "place"), CASES)
def test_a_small_mistake_in_a_layer_is_refused(number, place):
    """One that is accepted shows a gap in `kv_evaluate`, or belongs into the table of reasons."""
    layer = LAYERS[number]
    found = [some for some in layer.mutants() if some.kind not in LOUD]
    found = [some for some in found if some.what not in equivalent(layer.name)]
    mutant = sample(found, OF_EACH)[place]
    word, problem = verdict(layer, mutant.source)
    assert word != "accepted", mutant.what


def test_the_changes_that_make_no_difference_exist():
    if library().__version__ != "5.23.0":
        pytest.skip("the table of reasons is about transformers 5.23.0")
    for layer in LAYERS:
        assert set(equivalent(layer.name)) <= {mutant.what for mutant in layer.mutants()}


def test_a_method_is_replaced_for_one_judgement_only():
    layer = LAYERS[0]
    before = {name: vars(layer.kind)[name] for name in layer.methods.split()}
    with replaced(layer, layer.source):
        assert all(vars(layer.kind)[name] is not old for name, old in before.items())
    assert {name: vars(layer.kind)[name] for name in before} == before
