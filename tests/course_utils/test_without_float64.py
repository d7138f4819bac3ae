"""On Apple's GPU, which has no float64: imitated, so that it is tested on every machine."""

import pytest
import torch
from helpers import cases_for, small_model
from pretend_mps import pretend_mps

from course_utils.cache_bugs import CATALOGUE
from course_utils.cache_bugs.diagnosis import _same_without_cache
from course_utils.evaluation import evaluate
from course_utils.evaluation import trial as trials
from course_utils.evaluation.steps import Feed, Generate, New, Reorder, RollBack
from course_utils.stories import Tokenizer
from course_utils.transformer import load_model
from course_utils.watch import watch

SCRIPTS = [
    [New(), Feed(3), Feed(1), Feed(2)],
    [New(), Feed(5), RollBack(2), Feed(3)],
    [New(2), Feed(3), Reorder((1, 0)), Feed(2)],
    [Generate(2, new=3)],
]


@pytest.fixture(autouse=True)
def no_long_generations(monkeypatch):
    monkeypatch.setattr(trials, "repeats_draws", lambda lane: True)


def test_the_imitation_refuses_what_the_device_refuses():
    with pretend_mps() as device:
        there = torch.ones(2, 3, device=device)
        assert there.device == device == (there * 2)[0].device
        assert there.cpu().double().sum() == 6
        for refused in (there.double, lambda: there.to("cpu", torch.float64)):
            with pytest.raises(TypeError, match="MPS framework doesn't support"):
                refused()
        with pytest.raises(TypeError, match="MPS framework doesn't support"):
            torch.ones(2, dtype=torch.float64, device=device)
        with pytest.raises(RuntimeError, match="same device"):
            there + torch.ones(2, 3)


def test_stored_cases_are_compared_there():
    cases = cases_for(small_model(dtype=torch.float64))
    with pretend_mps() as device:
        model = small_model(dtype=torch.float32).to(device)
        assert evaluate(model, cases).all_passed
        with torch.no_grad():
            model.output_projection.bias.add_(0.1)
        report = evaluate(model, cases)
        assert "first differs at position 0" in str(report)


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_a_right_cache_is_right_there(dtype):
    with pretend_mps() as device:
        trial = trials.Trial(small_model(dtype=torch.float32).to(device), thorough=False)
        lane = trial.lane_in(dtype) if dtype else trial.main
        for script in SCRIPTS:
            assert lane.play(script).problem is None


def test_a_wrong_cache_is_found_there_and_compared_with_the_right_one():
    with pretend_mps() as device:
        reference = small_model(dtype=torch.float32).to(device)
        wrong = CATALOGUE["positions_restart"].build(reference)
        trial = trials.Trial(wrong, thorough=False)
        assert trial.main.play(SCRIPTS[0]).difference.position == 3
        assert _same_without_cache(wrong, reference)


def test_a_cache_is_watched_on_the_cpu():
    text = "Mia put the red lamp in the wooden box."
    with pretend_mps() as device:
        seen = watch(load_model(device="cpu").to(device), Tokenizer(), text, calls=(1,))
        [record] = seen.records
        assert not record.ended
        assert record.first_wrong is None
