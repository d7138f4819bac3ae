"""Wrong lines in a user's own copy of a modeling file are refused, and known ones are named."""

import pytest
from copied_models import PLANTS, Plant

from course_utils.going_further import wild

pytestmark = pytest.mark.authors

ROOM = 24
IN_FIVE_SEEDS = ("window of the cache one short", "rollback keeps one", "positions from 0")


def judged(model, cache="own"):
    return wild.judge(model, cache=cache, room=ROOM, stop=True)


def is_refused_and_named(plant, seed=0):
    found = judged(plant.model(seed), plant.cache)
    assert not found.all_passed
    assert found.report.smallest is not None
    assert found.mistake.startswith(plant.named), str(found)


@pytest.mark.sampled(11)
@pytest.mark.parametrize("name", sorted(PLANTS))
def test_a_wrong_line_in_a_copied_file_is_refused_and_named(name):
    is_refused_and_named(PLANTS[name])


@pytest.mark.sampled(15)
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("name", IN_FIVE_SEEDS)
def test_whatever_the_weights_are(name, seed):
    is_refused_and_named(PLANTS[name], seed)


@pytest.mark.sampled(3)
@pytest.mark.parametrize("name", ["llama", "mistral", "lfm2"])
def test_a_copied_file_without_a_wrong_line_is_right(name):
    assert judged(Plant(name, "import torch\n", "import torch\n").model()).all_passed


def test_a_name_does_not_hang_on_where_a_class_comes_from():
    model = PLANTS["rollback keeps one"].model()
    pretends = {"__module__": "transformers.models.llama.modeling_llama"}
    model.__class__ = type("LlamaForCausalLM", (type(model),), pretends)
    assert judged(model).mistake.startswith("crop_keeps_one:")


def test_a_wrong_model_of_an_unknown_type_is_refused_without_a_name():
    model = PLANTS["rollback keeps one"].model()
    model.config.__class__ = type("Mine", (type(model.config),), {"model_type": "mine"})
    found = judged(model)
    assert not found.all_passed and not found.mistake


def test_a_cache_whose_first_call_fails_is_refused_with_a_report():
    line = "if use_cache and past_key_values is None:"
    fails = f"if use_cache:\n            raise RuntimeError('mine')\n        {line}"
    found = judged(Plant("llama", line, fails).model())
    assert not found.all_passed
    assert "RuntimeError: mine" in str(found)
    assert "unknown, as its first call raises RuntimeError" in str(found)


RIGHT = "llama mistral gpt2 gemma2 lfm2 qwen2 mamba2 gemma3_text phi opt bloom gpt_neox falcon"
RIGHT += " deepseek_v3 qwen2_moe"


@pytest.mark.thorough
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("cache", ["own", "static"])
@pytest.mark.parametrize("name", RIGHT.split())
def test_a_right_model_is_not_accused(name, cache, seed):
    """The whole judgement, of each type in five seeds: about forty minutes on one core."""
    found = wild.judge(wild.small_model(name, seed=seed), name, cache, ROOM)
    assert found.all_passed, str(found)
