"""The same harness on every device that is here, in every precision that it has."""

import pytest
import torch
from helpers import cases_for, random_ids, small_model
from torch import nn

from course_utils.cache_bugs import CATALOGUE, diagnose
from course_utils.evaluation import evaluate, kv_evaluate, precise_copy, refusing_nan
from course_utils.kv_cache import GrowingCache, PreallocatedCache

DEVICES = ["cpu"]
DEVICES += ["cuda"] if torch.cuda.is_available() else []
DEVICES += ["mps"] if torch.backends.mps.is_available() else []


@pytest.mark.parametrize("device", DEVICES)
def test_model_and_cache_are_right(device):
    model = small_model(dtype=torch.float32)
    cases = cases_for(small_model(dtype=torch.float64))
    model = model.to(device)
    for report in (evaluate(model, cases), kv_evaluate(model, cases)):
        assert report.all_passed, report


@pytest.mark.parametrize("cache", [GrowingCache, PreallocatedCache])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("device", DEVICES)
def test_generation_with_and_without_a_cache(device, dtype, cache):
    if device == "mps" and dtype == torch.float64:
        pytest.skip("MPS has no float64")
    model = small_model(dtype=dtype).to(device)
    prompt = random_ids(2, 4).to(device)
    cached = model.generate(prompt, 10, temperature=0, past_kv=cache(model, 2))
    assert cached.device == prompt.device
    if dtype != torch.bfloat16:
        assert torch.equal(cached, model.generate(prompt, 10, temperature=0, use_cache=False))


@pytest.mark.authors
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", ["mask_inverted", "whole_text_again"])
def test_a_wrong_cache_does_not_end_the_judgement(device, name):
    """One makes NaN, one asks for positions that there are not; what comes after is judged too."""
    reference = small_model(dtype=torch.float32).to(device)
    wrong = CATALOGUE[name].build(reference)
    cases = cases_for(small_model(dtype=torch.float64), shapes=[(1, 4)])
    assert not kv_evaluate(wrong, cases).all_passed
    assert diagnose(wrong, reference).bug is CATALOGUE[name]
    assert evaluate(reference, cases).all_passed


class SilentEmbedding(nn.Embedding):
    """As on a GPU: a row that is missing raises nothing."""

    def forward(self, ids):
        return super().forward(ids.clamp(0, self.num_embeddings - 1))


@pytest.mark.parametrize("make", [lambda m: precise_copy(m)[0], CATALOGUE["mask_inverted"].build])
@pytest.mark.parametrize("outside", [-1, 24])
def test_a_missing_row_is_refused_where_the_device_is_silent(make, outside):
    made = make(small_model())
    made.pos_embedding.__class__ = SilentEmbedding
    made.pos_embedding(torch.tensor([0, 23]))
    with pytest.raises(IndexError, match="index out of range in self"):
        made.pos_embedding(torch.tensor([3, outside]))


class ByShape(nn.Embedding):
    """As in BART: it takes a tensor for its shape only."""

    def forward(self, like):
        return super().forward(torch.arange(like.size(-1)))


def test_what_an_embedding_does_not_look_up_is_not_refused():
    model = small_model()
    model.pos_embedding.__class__ = ByShape
    made, _ = precise_copy(model)
    assert made.pos_embedding(torch.full((1, 3), 1e6)).shape[:1] == (3,)


def test_nan_is_refused_before_it_is_sampled_from_and_only_then():
    model = small_model()
    with torch.no_grad():
        model.output_projection.bias[3] = torch.nan
    with pytest.raises(RuntimeError, match="the logits hold NaN"), refusing_nan(model):
        model(random_ids(1, 4))
    assert model(random_ids(1, 4))[0].isnan().any()


def test_nan_while_generating_is_reported_by_the_harness():
    class Poisoned(type(small_model())):
        def generate(self, ids, steps, **options):
            self.output_projection.bias.data[3] = torch.nan
            return torch.zeros_like(self(ids)[0][..., 0]).long().repeat(1, 2)

    report = kv_evaluate(small_model(Poisoned), cases_for(small_model())[1:2])
    assert any("the logits hold NaN" in problem for problem in report.problems)
