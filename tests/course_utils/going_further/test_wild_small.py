"""Caches in the wild: small models of types that need more than their sizes."""

import copy

import pytest
import torch

from course_utils.going_further import wild
from course_utils.going_further.wild.exceptions import EXCEPTIONS
from course_utils.going_further.wild.small import with_exceptions


def test_exceptions_are_merged_where_both_sides_are_dictionaries():
    found = {"vision_config": {"depth": 1, "size": 2}, "layers": 3, "rope": None}
    exceptions = {"vision_config": {"size": 4}, "layers": {"kind": 5}, "rope": {"theta": 6}}
    assert with_exceptions(found, exceptions) == {
        "vision_config": {"depth": 1, "size": 4},
        "layers": {"kind": 5},
        "rope": {"theta": 6},
    }


def test_a_configuration_does_not_write_into_the_exceptions():
    before = copy.deepcopy(EXCEPTIONS)
    for name in ("glm_ocr", "hunyuan_vl", "dots3_note"):
        wild.small_config(name)
    assert before == EXCEPTIONS


@pytest.mark.parametrize("name", ["kimi_linear", "ctrl", "dots3_note_text", "gemma3n_text"])
def test_what_is_large_by_fields_of_its_own_is_small(name):
    model = wild.small_model(name)
    assert sum(weight.numel() for weight in model.parameters()) < 400_000


def test_a_class_that_hands_its_cache_on_by_keyword_has_one():
    model = wild.Adapted(wild.small_model("evolla"))
    assert model.kept_as == "past_key_values"
    assert wild.first_cache(model) == "DynamicCache of DynamicLayer"


def test_generate_follows_the_logits_alone():
    """Blenderbot forbids three tokens in a row that the prompt has, others what was said before."""
    model = wild.small_model("blenderbot")
    model.generation_config.repetition_penalty = 5.0
    adapted = wild.Adapted(model)
    ids = torch.tensor([[3, 4, 5, 3, 4, 5, 3, 4]])
    with torch.no_grad():
        found = adapted.generate(ids, 12, temperature=0.0)
        likeliest = adapted(found)[0].argmax(-1)
    assert adapted.model.generation_config.encoder_no_repeat_ngram_size is None
    assert torch.equal(found[:, 8:], likeliest[:, 7:-1])
