"""A model that jumps is not accused of what rounding does to it; one that is wrong still is."""

import pytest
import torch
from helpers import SMALL, small_model

from course_utils.evaluation import Feed, New, kv_evaluate, replay
from course_utils.evaluation.lane import lane_in
from course_utils.going_further.smaller.packed_numbers import quantized
from course_utils.kv_cache import GrowingCache
from course_utils.transformer import DecoderOnlyTransformer

pytestmark = pytest.mark.authors


@pytest.mark.sampled(4)
@pytest.mark.parametrize("seed", range(4))
def test_a_quantised_cache_is_right_in_every_dtype(seed):
    short = DecoderOnlyTransformer(20, 32, 24, 2, 48, num_heads=1, dropout=0.0).eval()
    torch.manual_seed(seed)
    for weight in short.parameters():
        torch.nn.init.normal_(weight, std=0.5)
    report = kv_evaluate(quantized(short, 4), [])
    assert report.all_passed, report.problems


class OffByAThousandth(GrowingCache):
    """What is stored in float32 is off by a thousandth; in float64 it is right."""

    def append(self, layer, k, v):
        found = super().append(layer, k, v)
        if k.dtype == torch.float32:
            self.values[layer] = self.values[layer] * 1.001
        return found


class WrongInFloat32(DecoderOnlyTransformer):
    def new_cache(self, batch_size):
        return OffByAThousandth(self, batch_size)


def test_what_is_wrong_in_float32_is_seen_and_nudging_ends():
    reference = small_model(dtype=torch.float32)
    wrong = WrongInFloat32(**SMALL, dropout=0.0).eval()
    wrong.load_state_dict(reference.state_dict())
    assert replay(wrong, [New(), Feed(3), Feed(1)]).problem is None
    lane = lane_in(wrong, torch.float32)
    for _ in range(9):
        assert lane.play([New(), Feed(3), Feed(1)]).problem is not None
    assert lane.in_vain == 4
    assert not kv_evaluate(wrong, []).all_passed
