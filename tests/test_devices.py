"""The same harness on every device that is here, in every precision that it has."""

import pytest
import torch
from helpers import cases_for, random_ids, small_model

from course_utils.evaluation import evaluate, kv_evaluate
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
