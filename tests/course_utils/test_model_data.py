"""The shipped weights and data are what their README says."""

import itertools
import json

import pytest
import torch
from reference import gpt2_model, loop_logits

from course_utils.cache_bugs import CATALOGUE
from course_utils.evaluation import RECALL_AIMS, TEST_CASES, load_test_cases, recall
from course_utils.stories import (
    END,
    START,
    Story,
    Tokenizer,
    held_out_stories,
    is_sentence,
    sentences,
)
from course_utils.train import MODEL_CONFIG
from course_utils.transformer import CONFIG, ROOT, WEIGHTS, load_config, load_model


@pytest.fixture(scope="module")
def model():
    return load_model(device="cpu")


def test_files_are_small():
    assert WEIGHTS.stat().st_size <= 12e6
    assert TEST_CASES.stat().st_size <= 6e6


def test_config_is_the_one_that_training_uses():
    assert load_config(CONFIG) == MODEL_CONFIG


def test_cases_differ_in_length_and_batch():
    shapes = [tuple(case.input_ids.shape) for case in load_test_cases()]
    assert len(shapes) == 10
    assert len({batch for batch, _ in shapes}) >= 3
    assert min(length for _, length in shapes) == 1
    assert max(length for _, length in shapes) >= 64


def test_stored_logits_are_those_of_both_reference_implementations(model):
    state = model.state_dict()
    peer = gpt2_model(state, model.num_heads)
    for case in load_test_cases():
        with torch.no_grad():
            of_peer = peer(case.input_ids).logits.numpy()
        for row, ids in enumerate(case.input_ids.tolist()):
            by_loop, by_gpt2 = loop_logits(state, ids, model.num_heads), of_peer[row]
            assert abs(by_loop - by_gpt2).max() < 1e-9
            for stored in (case.no_cache, case.with_cache, case.sequential):
                assert abs(stored[row].numpy() - by_loop).max() < 1e-5


@pytest.mark.authors
def test_recall_with_a_cache_and_without_is_the_same_in_kind(model):
    plain, cached = (recall(model, 4, seed=5, use_cache=use_cache) for use_cache in (False, True))
    assert plain.equals(cached)
    assert plain["questions"].sum() > 30


@pytest.mark.authors
@pytest.mark.parametrize("name", ["no_mask_offset", "values_not_cached"])
def test_a_wrong_cache_ruins_recall(name):
    wrong = load_model(device="cpu", model_class=CATALOGUE[name].model_class)
    assert recall(wrong, 3, use_cache=False)["recall"].min() > 0.9
    assert recall(wrong, 3, use_cache=True)["recall"].max() < 0.2


@pytest.mark.authors
def test_recall_reaches_its_aims_on_the_stored_held_out_stories(model):
    """A quick look; `--mode recall` asks at least 1000 questions in each range."""
    table = recall(model, num_stories=40, seed=0)
    for span, aim in RECALL_AIMS.items():
        assert table.loc[span, "recall"] >= aim - 0.03, table


def test_recall_can_fail():
    model = load_model(device="cpu")
    torch.nn.init.zeros_(model.layers[-1].attention.W_o.weight)
    torch.nn.init.zeros_(model.layers[-2].attention.W_o.weight)
    assert recall(model, num_stories=2)["recall"].max() < 0.5


def test_told_stories_are_grammatical(model):
    tokenizer = Tokenizer()
    prompt = torch.tensor([tokenizer.encode([START])] * 20)
    generator = torch.Generator().manual_seed(0)
    told = model.generate(
        prompt, 200, temperature=1.0, generator=generator, stop_token=tokenizer.ids[END]
    )
    found = [s for row in told.tolist() for s in sentences([tokenizer.words[i] for i in row])]
    good = sum(map(is_sentence, found))
    assert len(found) > 200
    assert good / len(found) >= 0.95


@torch.no_grad()
def test_every_position_was_trained(model):
    """The last positions answer as well as the first: the same story, pushed to the end."""
    tokenizer = Tokenizer()
    story = tokenizer.encode("Mia put the red bell in the wooden box. Tom was happy.")
    asked = tokenizer.encode("Where is the red bell? It is in the")
    answer = tokenizer.ids["wooden"]
    filler = tokenizer.encode("Tom walked to the river. Ana was tired. The morning was cold.")
    for length in range(100, model.max_seq_len + 1, 118):
        room = length - 1 - len(story) - len(asked)
        ids = [tokenizer.ids[START], *(filler * 200)[:room], *story, *asked]
        assert model(torch.tensor([ids]))[0][0, -1].argmax() == answer, length


def test_stored_stories_are_those_of_the_seed():
    lines = (ROOT / "data" / "held_out_stories.jsonl").read_text(encoding="utf-8").splitlines()
    made = itertools.islice(held_out_stories(seed=0), len(lines))
    for line, story in zip(lines, made, strict=True):
        assert isinstance(story, Story)
        stored = json.loads(line)
        assert stored["text"] == " ".join(story.words)
        assert stored["questions"] == [vars(question) for question in story.questions]
