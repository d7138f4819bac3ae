"""Wrong attention with a cache, as students write it to notebook 04: each is told what is wrong.

Most are the worked answer with one or two lines written otherwise.
"""

import re

import pytest
import torch
import torch.nn.functional as F
from rewritten_answers import refused
from torch import nn

from course_utils import checks
from course_utils.attention import MultiHeadAttention
from course_utils.checks.n04_attention import TELLING, seen_of
from course_utils.checks.n04_wrong_attention import WRONG_ATTENTION
from course_utils.checks.n04_wrong_caches import GROWING
from course_utils.kv_cache import GrowingCache, PreallocatedCache

pytestmark = pytest.mark.authors

APPENDED = "k, v = cache.append(layer, k, v)"
ATTENDED = "self.attend(q, k, v)"
MASKED = "attention.attention(q, k, v, {})"
RAISED = "mask = causal_mask(x.size(1), x.size(1), x.device)"


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ([(APPENDED, "cache.append(layer, k, v)")], "each chunk attends only to itself"),
        ([(APPENDED, "k, v = cache.append(0, k, v)")], "hand `layer` on to append"),
        (
            [(APPENDED, "k, v = cache.append(layer, v, k)")],
            "k and v are exchanged on their way into",
        ),
        ([(APPENDED, "v, k = cache.append(layer, v, k)")], "and again on their way out"),
        ([(APPENDED, "v, k = cache.append(layer, k, v)")], "What append returns is exchanged"),
        ([(APPENDED, "k, v = cache.append(layer, q, v)")], "q is appended as the keys"),
        ([(APPENDED, "k, v = cache.append(layer, k, q)")], "q is appended as the values"),
        ([(APPENDED, f"{APPENDED}; {APPENDED}")], "What append returns is appended again"),
        ([(APPENDED, "cache.append(layer, k, v); " + APPENDED)], "appended twice"),
        ([(APPENDED, "k, _ = cache.append(layer, k, v)")], "Only the keys come from the cache"),
        ([(APPENDED, "k = cache.append(layer, k, v)[0]")], "Only the keys come from the cache"),
        ([("cache is not None", "cache is not None and cache.length")], "it never gets filled"),
        ([("if cache is not None:", "if True:")], "Without a cache, cache is None"),
        ([(ATTENDED, MASKED.format("None"))], "Nothing is masked"),
        (
            [(ATTENDED, f"({MASKED.format('None')} if cache else {ATTENDED})")],
            "With a cache nothing",
        ),
        (
            [(ATTENDED, "F.scaled_dot_product_attention(q, k, v, is_causal=True)")],
            "The mask has no offset",
        ),
        (
            [(ATTENDED, MASKED.format("causal_mask(x.size(1), x.size(1), x.device)"))],
            "The mask is made for the queries alone",
        ),
        (
            [(ATTENDED, MASKED.format("causal_mask(q.size(-2), k.size(-2))"))],
            "fails on another device",
        ),
        ([(ATTENDED, "self.attend(q.float(), k.float(), v.float()).to(x)")], "the output is"),
        ([(ATTENDED, "self.attend(q[:, :, -1:], k, v)")], "has shape (2, 1, 12), expected (2, 7"),
        ([("self.W_o(", "(")], "W_o is missing"),
        ([("self.merge_heads(", "(")], "self.merge_heads comes before W_o"),
        ([("self.split_heads(W(x)", "W(self.split_heads(x)")], "W_q comes before the heads are s"),
        ([("self.split_heads(W(x)", "W(x")], "(expected 4, got 3). q, k and v have to be split"),
        (
            [("self.split_heads(W(x)", "W(x"), ("self.merge_heads(", "(")],
            "There is one head of all D numbers",
        ),
        ([(APPENDED, "k, v = cache.append(k, v)")], "GrowingCache.append() missing 1 required"),
        ([(APPENDED, "k, v = cache.append(k, v)")], "It takes the layer's number first"),
        ([(APPENDED, "k, v = cache.append(k, v, layer)")], "append is handed 0 as v. It takes"),
        (
            [(APPENDED, "k, v = cache.append(layer, k.detach(), v.detach())")],
            "<a cache of 0 positions>, 0) is 0 at [0, 1]",
        ),
        (
            [(APPENDED, f"past = cache.length; {APPENDED}; k = k.detach() if past > 2 else k")],
            "<a cache of 3 positions>, 0) is 0 at [0, 1]",
        ),
        ([("q, k, v = (", "x *= 1.01; q, k, v = (")], "x, which was handed in, is"),
        (
            [(APPENDED, "pass"), (ATTENDED, "self.attend(q, k.detach(), v)")],
            "The cache is not used",
        ),
        ([(ATTENDED, "self.attend(q, k.detach(), v)")], "(the gradient of W_k.weight). Is there a"),
        ([("layer: int = 0", "layer: int = 1")], "as layer 0 with a"),
    ],
)
def test_wrong_attention(changes, words):
    imported = ("class Multi", "import torch.nn.functional as F\nclass Multi")
    assert words in refused("cached_attention", imported, *changes)


def test_a_mask_from_the_length_of_the_cache_is_wrong_from_layer_1_on():
    where = "torch.arange(k.size(-2)) <= torch.arange(len0, len0 + q.size(-2))[:, None]"
    changes = (
        (APPENDED, f"len0 = cache.length; {APPENDED}"),
        ("if cache", "len0 = 0\n        if cache"),
        (ATTENDED, MASKED.format(where)),
    )
    assert "that of layer 0, which has appended before" in refused("cached_attention", *changes)


@pytest.mark.sampled(3)
@pytest.mark.parametrize(("cls", "advice"), WRONG_ATTENTION)
def test_each_mistake_in_attention_has_a_name(cls, advice):
    with pytest.raises(AssertionError, match=re.escape(advice)):
        checks.check_cached_attention(cls, GrowingCache)


def test_right_attention_with_a_wrong_cache_is_told_which_exercise_comes_first():
    for cls, _ in GROWING[:3]:
        with pytest.raises(AssertionError, match="With your Wrong it is not: .*Exercise 1 comes"):
            checks.check_cached_attention(MultiHeadAttention, cls)

    class ToDo(GrowingCache):
        def append(self, layer, k, v):
            raise NotImplementedError

    with pytest.raises(AssertionError, match="it is still to be written. Exercise 1 comes first"):
        checks.check_cached_attention(MultiHeadAttention, ToDo)


def test_what_is_seen_is_the_same_twice():
    for case in TELLING:
        one, other = (seen_of(MultiHeadAttention, case) for _ in range(2))
        assert all(torch.equal(one[name], other[name]) for name in one)


class Fused(MultiHeadAttention):
    def forward(self, x, cache=None, layer=0):
        q, k, v = (self.split_heads(W(x)) for W in (self.W_q, self.W_k, self.W_v))
        k, v = (k, v) if cache is None else cache.append(layer, k, v)
        mask = q.new_ones(q.size(2), k.size(2), dtype=torch.bool).tril(k.size(2) - q.size(2))
        return self.W_o(self.merge_heads(F.scaled_dot_product_attention(q, k, v, attn_mask=mask)))


class TokenByToken(MultiHeadAttention):
    """Each token appends, and attends, before the next one does."""

    def forward(self, x, cache=None, layer=0):
        q, k, v = (self.split_heads(W(x)) for W in (self.W_q, self.W_k, self.W_v))
        outputs = []
        for at in range(x.size(1)):
            now = slice(at, at + 1)
            keys, values = k[:, :, : at + 1], v[:, :, : at + 1]
            if cache is not None:
                keys, values = cache.append(layer, k[:, :, now], v[:, :, now])
            weights = (q[:, :, now] @ keys.mT / q.size(-1) ** 0.5).softmax(-1)
            outputs.append(weights @ values)
        return self.W_o(self.merge_heads(torch.cat(outputs, dim=2)))


class ByEinsum(MultiHeadAttention):
    def forward(self, x, cache=None, layer=0):
        q, k, v = (
            nn.functional.linear(x, W.weight).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for W in (self.W_q, self.W_k, self.W_v)
        )
        if cache is not None:
            k, v = cache.append(layer, k, v)
        scores = torch.einsum("bhqd,bhkd->bhqk", q, k) / q.size(-1) ** 0.5
        places = torch.arange(k.size(2), device=x.device)
        scores = scores.masked_fill(places > places[-q.size(2) :, None], -torch.inf)
        return self.W_o(torch.einsum("bhqk,bhkd->bqhd", scores.softmax(-1), v).flatten(2))


@pytest.mark.parametrize("cls", [MultiHeadAttention, Fused, TokenByToken, ByEinsum])
def test_right_attention_passes(cls):
    checks.check_cached_attention(cls, PreallocatedCache)
