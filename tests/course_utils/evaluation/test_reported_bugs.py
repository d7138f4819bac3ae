"""The reported bugs are bugs: right without their cache, wrong in a use that is allowed."""

import pytest
import torch
from helpers import SMALL, random_ids, small_model
from reported_bugs import REPORTED
from reported_bugs.entry import REPORTS, model_of
from reported_bugs.parts import Counted, Flushed, Loop, MaskedAttention, SeenCache
from reported_bugs.prefixes import FIRST, SECOND, THIRD, PrefixStore
from reported_bugs.uses import again, cut, generated, pick, script, together

from course_utils.left_padding import LeftPaddedTransformer

pytestmark = pytest.mark.authors


def pair(name, model_class=None):
    """A right model, and one of the class `model_class` (the reported one) with its weights."""
    room = REPORTED[name].room
    right = small_model(max_seq_len=room)
    model = (model_class or REPORTED[name])(**(SMALL | {"max_seq_len": room}), dropout=0.0)
    model.load_state_dict(right.state_dict())
    return model.double().eval(), right


def test_there_are_many_and_each_says_where_it_was_reported():
    assert len(REPORTED) >= 45
    assert all("Reported:" in model_class.__doc__ for model_class in REPORTED.values())


@pytest.mark.parametrize("name", REPORTED)
@torch.no_grad()
def test_right_without_its_cache(name):
    model, right = pair(name)
    for rows, length in ((1, 1), (3, 9), (2, model.room)):
        ids = random_ids(rows, length)
        assert torch.equal(model(ids)[0], right(ids)[0])


@pytest.mark.parametrize("name", REPORTED)
def test_right_in_some_use_of_its_cache(name):
    assert not REPORTS[name].right(*pair(name))


@pytest.mark.parametrize("name", REPORTED)
def test_wrong_in_an_allowed_use(name):
    assert REPORTS[name].wrong(*pair(name))


@pytest.mark.parametrize("name", REPORTED)
def test_a_right_cache_is_right_in_the_same_use(name):
    assert not REPORTS[name].wrong(*pair(name, LeftPaddedTransformer))


@pytest.mark.parametrize("part", [Counted, Flushed, Loop, MaskedAttention, SeenCache, PrefixStore])
def test_what_they_are_built_on_is_right(part):
    uses = (
        script(10, cut(5), 3, pick(1, 0), 1, 2, pick(0, 0, 1), cut(9), 4, cut(0), 24, rows=2),
        again(script(FIRST + SECOND), script(FIRST + SECOND, 1), script(FIRST + THIRD + [9])),
        again(generated(4, 20), generated(4, 20, rows=3, temperature=1, seed=1)),
        together(4, 4, 5),
    )
    model = model_of(part)
    assert not any(use(*pair("pool_of_two", model)) for use in uses)
