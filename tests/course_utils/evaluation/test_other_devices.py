"""A fault of devices is one only if tensors of two devices meet."""

import pytest
import torch
from helpers import small_model

from course_utils.cache_bugs import CATALOGUE
from course_utils.evaluation import NotJudged, follows_its_device
from course_utils.going_further.serving.paged_cache import PagedTransformer
from course_utils.kv_cache import GrowingCache
from course_utils.left_padding import LeftPaddedTransformer
from course_utils.transformer import DecoderOnlyTransformer


class Offloaded(GrowingCache):
    """Right: it lives on the CPU and comes back at each use."""

    def append(self, layer, k, v):
        stored = self.keys[layer].cpu(), self.values[layer].cpu()
        keys, values = (
            torch.cat([old, new.cpu()], dim=2) for old, new in zip(stored, (k, v), strict=True)
        )
        self.keys[layer], self.values[layer] = keys, values
        return keys.to(k.device), values.to(v.device)


class WithOffloaded(DecoderOnlyTransformer):
    def new_cache(self, batch_size):
        return Offloaded(self, batch_size)


class Looks(DecoderOnlyTransformer):
    def forward(self, input_ids, past_kv=None, use_cache=False):
        if past_kv is not None:
            self.look(input_ids)
        return super().forward(input_ids, past_kv, use_cache)


class LooksAtAList(Looks):
    def look(self, ids):
        ids.tolist()


class LooksThroughAMask(Looks):
    def look(self, ids):
        return ids[ids > 3]


class LooksByNumpy(Looks):
    def look(self, ids):
        ids.cpu().numpy()


class LooksAtAddresses(Looks):
    def look(self, ids):
        ids.data_ptr()


class CountsOnTheCpu(DecoderOnlyTransformer):
    def embed(self, input_ids, start=0):
        device = None if start else input_ids.device
        positions = torch.arange(start, start + input_ids.size(1), device=device)
        return self.token_embedding(input_ids) + self.pos_embedding(positions)


class PaddingOnTheCpu(LeftPaddedTransformer):
    def positions(self, columns, padding):
        return super().positions(torch.arange(len(columns)), padding)


class RollsBackToTheCpu(GrowingCache):
    def truncate(self, length):
        super().truncate(length)
        self.keys = [torch.zeros(keys.shape, dtype=keys.dtype) for keys in self.keys]


class WithRollback(DecoderOnlyTransformer):
    def new_cache(self, batch_size):
        return RollsBackToTheCpu(self, batch_size)


class WrittenOnTheCpu(GrowingCache):
    """Written by index, into a tensor that was made without saying where."""

    def append(self, layer, k, v):
        found, _ = super().append(layer, k, v)
        stored = torch.zeros(v.shape, dtype=v.dtype)
        stored[torch.zeros(len(v), dtype=torch.long)] = v
        return found, super().append(layer, k, stored)[1]


class WithIndex(DecoderOnlyTransformer):
    def new_cache(self, batch_size):
        return WrittenOnTheCpu(self, batch_size)


class ReordersToTheCpu(GrowingCache):
    def reorder(self, rows):
        super().reorder(rows)
        self.values = [torch.zeros(values.shape, dtype=values.dtype) for values in self.values]


class WithReorder(DecoderOnlyTransformer):
    def new_cache(self, batch_size):
        return ReordersToTheCpu(self, batch_size)


RIGHT = [DecoderOnlyTransformer, WithOffloaded, LeftPaddedTransformer, PagedTransformer]


@pytest.mark.parametrize("model_class", RIGHT)
def test_what_follows_its_model_is_right(model_class):
    follows_its_device(small_model(model_class))


@pytest.mark.parametrize(
    "model_class", [LooksAtAList, LooksThroughAMask, LooksByNumpy, LooksAtAddresses]
)
def test_what_looks_at_numbers_is_not_judged(model_class, capfd):
    with pytest.raises(NotJudged, match="cannot run where there are no numbers"):
        follows_its_device(small_model(model_class))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "model_class", [CountsOnTheCpu, PaddingOnTheCpu, WithRollback, WithReorder, WithIndex]
)
def test_two_devices_in_one_operation_are_wrong(model_class):
    with pytest.raises(RuntimeError, match="mixes devices"):
        follows_its_device(small_model(model_class))


def test_the_bug_of_the_catalogue_is_wrong():
    with pytest.raises(RuntimeError, match="mixes devices"):
        follows_its_device(CATALOGUE["cache_on_the_cpu"].build(small_model()))
