"""Training: resumable, reproducible, and on examples that are what they say."""

import math
import random

import pytest
import torch

from course_utils import train as training
from course_utils.stories import START, WORDS, make_story
from course_utils.train import STAGES, TOKENIZER, TOTAL_STEPS


def weights_of(folder):
    return torch.load(folder / "model_state_dict.pt", weights_only=True)


def test_an_interrupted_run_goes_on_as_if_nothing_had_happened(tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    log = training.train(whole, steps=3)
    training.train(parts, steps=1)
    training.train(parts, steps=3)
    assert list(log["step"]) == [3]
    for name, tensor in weights_of(whole).items():
        assert torch.equal(tensor, weights_of(parts)[name]), name


def test_a_checkpoint_of_another_seed_is_refused(tmp_path):
    training.train(tmp_path, seed=0, steps=1)
    with pytest.raises(ValueError, match="made with seed 0, not 1. Use --fresh"):
        training.train(tmp_path, seed=1, steps=2)


def test_a_failed_write_leaves_the_old_file_whole(tmp_path, monkeypatch):
    path = tmp_path / "checkpoint.pt"
    training.save_whole({"step": 1}, path)

    def fails(state, part):
        part.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(torch, "save", fails)
    with pytest.raises(OSError, match="disk full"):
        training.save_whole({"step": 2}, path)
    assert torch.load(path)["step"] == 1


def test_repetitions_repeat_and_only_repeats_count():
    ids, weights = training.repetitions(random.Random(0), 64)
    run = weights.index(1.0)
    assert 4 <= run <= 32
    assert all(ids[i] == ids[i - run] for i in range(run, 64))
    assert weights == [0.0] * run + [1.0] * (64 - run)


@pytest.mark.parametrize("max_gap", [0, 7])
def test_pairs_count_only_places_that_can_be_known(max_gap):
    rng = random.Random(max_gap)
    for _ in range(50):
        ids, weights = training.pairs(rng, 64, max_gap)
        words, where = [TOKENIZER.words[i] for i in ids], {}
        for i, word in enumerate(words[:-1]):
            if word in WORDS["colour"]:
                thing = (word, words[i + 1])
            elif word in WORDS["material"]:
                place = (word, words[i + 1])
                if weights[i]:
                    assert where[thing] == place
                where[thing] = place
        assert set(weights) <= {0.0, 10.0}


def test_answers_weigh_ten_times_as_much():
    story = make_story(random.Random(1), 200, filler=0.2)
    ids, weights = training.weighted_story(story, 220)
    assert len(ids) == len(weights) == 220
    heavy = [TOKENIZER.words[i] for i, w in zip(ids, weights, strict=True) if w == 10.0]
    expected = [w for q in story.questions for w in story.words[q.end - 3 : q.end - 1]]
    assert heavy == expected
    assert TOKENIZER.words[ids[0]] == START
    assert weights[-1] == 0.0


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_every_stage_makes_full_batches(stage):
    ids, weights = training.batch(stage, random.Random(0), done=0.5)
    assert ids.shape == weights.shape == (stage.batch, stage.length)
    assert (weights.sum(-1) > 0).any()


def test_stages_follow_each_other():
    assert training.stage_at(0) == (STAGES[0], 0.0)
    assert training.stage_at(STAGES[0].steps)[0] == STAGES[1]
    assert training.stage_at(TOTAL_STEPS - 1)[0] == STAGES[-1]
    with pytest.raises(ValueError, match=f"only {TOTAL_STEPS} steps"):
        training.stage_at(TOTAL_STEPS)


def test_the_learning_rate_rises_holds_and_falls():
    rates = [training.learning_rate(step) for step in range(TOTAL_STEPS)]
    assert rates[0] < 1e-5 < max(rates) == pytest.approx(1e-3)
    assert rates[TOTAL_STEPS // 2] == pytest.approx(1e-3)
    assert rates[-1] == pytest.approx(2e-5, rel=0.1)


def test_positions_start_as_sinusoids():
    table = training.sinusoids(4, 6)
    assert table.shape == (4, 6)
    torch.testing.assert_close(table[0], torch.tensor([0.0, 1.0] * 3))
    torch.testing.assert_close(table[3, :2], torch.tensor([math.sin(3), math.cos(3)]))
