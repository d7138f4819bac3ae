"""`kv_evaluate` refuses the wrong caches that others have reported, and accepts unusual right ones.

A sample from all files of both runs each time. With `-m thorough` all run, each right one as 20
models with other weights, of other sizes, and other scripts are drawn for each: that takes an hour.
"""

from unittest import mock

import pytest
import torch
from helpers import cases_for, small_model
from reported_bugs import REPORTED
from right_caches import RIGHT

from course_utils.evaluation import evaluate, kv_evaluate, trial
from course_utils.evaluation.random_scripts import search

pytestmark = pytest.mark.authors

OUTSIDE = {
    "prefix_survives_a_cast": "the weights change while what was computed before is kept",
    "prefix_of_other_weights": "the weights change while what was computed before is kept",
    "weights_joined_once": "the weights change after the model was used",
    "mask_stays_on_its_first_device": "the model moves to another device after its cache was used",
}
SOME_WRONG, SOME_RIGHT = list(REPORTED)[::4], list(RIGHT)[::5]
NUM_SEEDS = 20
SIZES = (
    {},
    {"num_heads": 4, "num_layers": 3},
    {"max_seq_len": 9, "vocab_size": 200},
    {"num_heads": 1, "num_layers": 1},
    {"max_seq_len": 150},
)


def judge_reported(name):
    model_class = REPORTED[name]
    model = small_model(model_class, dtype=torch.float32, max_seq_len=model_class.room)
    cases = cases_for(model)
    assert evaluate(model, cases).all_passed
    return kv_evaluate(model, cases, stop=True)


def judge_right(name, seed=0):
    """A model of other weights and size for each seed, and other drawn scripts."""
    dtype = getattr(RIGHT[name], "exact_in", torch.float64 if seed % 4 == 3 else torch.float32)
    model = small_model(RIGHT[name], seed, dtype, **SIZES[seed % len(SIZES)])

    def from_another_seed(fails, offers, room, number, usual, most):
        return search(fails, offers, room, number, usual + 2 * seed, most)

    with mock.patch.object(trial, "search", side_effect=from_another_seed) as draws:
        report = kv_evaluate(model, cases_for(model, seed=10 * seed))
    assert draws.called
    return report


def accepted(report):
    """No problem, something was judged, and of what was not judged it says why."""
    reasons = all(result.not_judged for result in report.others if not result.passed)
    judged = any(result.passed for result in report.others)
    return report.all_passed and not report.problems and judged and reasons


@pytest.mark.parametrize("name", [name for name in SOME_WRONG if name not in OUTSIDE])
def test_a_reported_bug_is_refused(name):
    assert judge_reported(name).problems


@pytest.mark.sampled(2)
@pytest.mark.parametrize("name", OUTSIDE)
def test_what_is_outside_the_interface_is_accepted(name):
    assert accepted(judge_reported(name)), f"{name} can be struck off the list"


@pytest.mark.sampled(2)
@pytest.mark.parametrize("name", SOME_RIGHT)
def test_an_unusual_right_cache_is_accepted(name):
    report = judge_right(name)
    assert accepted(report), report


@pytest.mark.thorough
@pytest.mark.parametrize("name", [name for name in REPORTED if name not in OUTSIDE])
def test_every_reported_bug_is_refused(name):
    assert judge_reported(name).problems


@pytest.mark.thorough
@pytest.mark.parametrize("name", RIGHT)
def test_every_right_cache_is_accepted_as_many_models(name):
    refused = [
        f"seed {seed}: {report}"
        for seed in range(NUM_SEEDS)
        if not accepted(report := judge_right(name, seed))
    ]
    assert not refused, "\n".join(refused)
