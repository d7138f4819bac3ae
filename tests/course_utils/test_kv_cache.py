"""What both caches can do beyond append: forget."""

import pytest
import torch
from helpers import random_ids, small_model

from course_utils.evaluation import uncached
from course_utils.kv_cache import GrowingCache, PreallocatedCache

KINDS = pytest.mark.parametrize("kind", [GrowingCache, PreallocatedCache])


@KINDS
@pytest.mark.parametrize("keep", [0, 1, 5, 8])
def test_after_truncate_other_tokens_can_follow(kind, keep):
    model = small_model()
    guess, ids = random_ids(2, 8, seed=1), random_ids(2, 12, seed=2)
    guess[:, :keep] = ids[:, :keep]
    cache = kind(model, 2)
    with torch.no_grad():
        model(guess, past_kv=cache, use_cache=True)
        cache.truncate(keep)
        assert cache.length == keep
        found, _ = model(ids[:, keep:], past_kv=cache, use_cache=True)
    assert torch.allclose(found, uncached(model, ids)[:, keep:], 0, 1e-9)


@KINDS
@pytest.mark.parametrize("length", [-1, 9])
def test_a_rollback_only_forgets(kind, length):
    model = small_model()
    cache = kind(model, 1)
    with torch.no_grad():
        model(random_ids(1, 8), past_kv=cache, use_cache=True)
    with pytest.raises(ValueError, match="cache of 8 positions: choose a length from 0 to 8"):
        cache.truncate(length)
    assert cache.length == 8
