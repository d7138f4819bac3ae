"""Wrong answers that students write to notebook 05: each fails, with a message about its fault."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F

from course_utils import checks
from course_utils.attention import MultiHeadAttention, attention, causal_mask
from course_utils.cache_bugs import WithAttention
from course_utils.kv_cache import GrowingCache, PreallocatedCache

pytestmark = pytest.mark.authors


class Reordered(GrowingCache):
    """What a reorder does to each tensor, as an argument."""

    def reorder(self, rows):
        self.keys = [self.take(keys, rows) for keys in self.keys]
        self.values = [self.take(values, rows) for values in self.values]
        self.batch_size = len(rows)


def taking(take):
    return type("ReorderedCache", (Reordered,), {"take": staticmethod(take)})


class ValuesStay(GrowingCache):
    def reorder(self, rows):
        self.keys = [keys[rows] for keys in self.keys]
        self.batch_size = len(rows)


class KeysStay(GrowingCache):
    def reorder(self, rows):
        self.values = [values[rows] for values in self.values]
        self.batch_size = len(rows)


class ValuesInAnotherOrder(Reordered):
    def reorder(self, rows):
        super().reorder(rows)
        self.values = [values.flip(0) for values in self.values]

    take = staticmethod(lambda x, rows: x[rows])


class FirstLayerOnly(GrowingCache):
    def reorder(self, rows):
        self.keys[0], self.values[0] = self.keys[0][rows], self.values[0][rows]
        self.batch_size = len(rows)


class AllFromTheFirstLayer(GrowingCache):
    def reorder(self, rows):
        self.keys = [self.keys[0][rows] for _ in self.keys]
        self.values = [self.values[0][rows] for _ in self.values]
        self.batch_size = len(rows)


class Exchanged(GrowingCache):
    def reorder(self, rows):
        self.keys, self.values = ([x[rows] for x in part] for part in (self.values, self.keys))
        self.batch_size = len(rows)


class ValuesFromKeys(GrowingCache):
    def reorder(self, rows):
        self.keys = [keys[rows] for keys in self.keys]
        self.values = [*self.keys]
        self.batch_size = len(rows)


class OneListForBoth(GrowingCache):
    def reorder(self, rows):
        self.keys = [keys[rows] for keys in self.keys]
        self.values = self.keys
        self.batch_size = len(rows)


class LayersForRows(GrowingCache):
    def reorder(self, rows):
        self.keys, self.values = [self.keys[row] for row in rows], [self.values[r] for r in rows]
        self.batch_size = len(rows)


class SizeForgotten(GrowingCache):
    def reorder(self, rows):
        self.keys = [keys[rows] for keys in self.keys]
        self.values = [values[rows] for values in self.values]


class SizeIsTheRows(GrowingCache):
    def reorder(self, rows):
        super().reorder(rows)
        self.batch_size = rows


class NothingMoves(GrowingCache):
    def reorder(self, rows):
        for keys, values in zip(self.keys, self.values, strict=True):
            keys, values = keys[rows], values[rows]  # noqa: PLW2901
        self.batch_size = len(rows)


class InTheSamePlace(GrowingCache):
    def reorder(self, rows):
        for x in (*self.keys, *self.values):
            x[:] = x[rows]
        self.batch_size = len(rows)


class ANewOne(GrowingCache):
    def reorder(self, rows):
        found = copy.copy(self)
        GrowingCache.reorder(found, rows)
        return found


class ChangesTheRows(GrowingCache):
    def reorder(self, rows):
        super().reorder(rows.clone())
        rows.zero_()


@pytest.mark.parametrize(
    ("cls", "words"),
    [
        (
            ValuesStay,
            "the values of layer 0 hold the rows .0, 1, 2., expected .2, 0, 1.. The keys move, ",
        ),
        (KeysStay, "keys of layer 0.* The values move, and the keys stay"),
        (
            ValuesInAnotherOrder,
            "the values of layer 0 hold the rows .1, 0, 2., expected .2, 0, 1.*\\.$",
        ),
        (FirstLayerOnly, "keys of layer 1.* Only the first layer is reordered"),
        (
            AllFromTheFirstLayer,
            "the keys of layer 1 are other numbers than those that were appended there",
        ),
        (Exchanged, "the keys of layer 0 are values"),
        (ValuesFromKeys, "the values of layer 0 are keys"),
        (OneListForBoth, "makes `self.values` the same as `self.keys`"),
        (LayersForRows, "it raised IndexError at `"),
        (SizeForgotten, "batch_size is 3 afterwards, expected 5"),
        (SizeIsTheRows, "batch_size is tensor.* afterwards, expected 3"),
        (NothingMoves, "No row moves"),
        (ANewOne, "No row moves"),
        (InTheSamePlace, "2, 0, 0, 1, 2.* it raised RuntimeError at `"),
        (ChangesTheRows, "changes the tensor of rows"),
        (taking(lambda x, rows: x[rows.flip(0)]), "rows .1, 0, 2., expected .2, 0, 1."),
        (taking(lambda x, rows: x[rows.argsort()]), "rows .1, 2, 0., expected .2, 0, 1."),
        (taking(lambda x, rows: x[rows.sort().values]), "rows .0, 1, 2., expected .2, 0, 1."),
        (taking(lambda x, rows: x[rows.unique()]), "rows .0, 1, 2., expected .2, 0, 1."),
        (taking(lambda x, rows: x[:, rows]), "it raised IndexError at `"),
        (taking(lambda x, rows: x[rows].float()), "other numbers"),
        (taking(lambda x, rows: x[rows][:, :, -1:]), "have shape and dtype .3, 2, 2, 3"),
        (taking(lambda x, rows: x[rows + 0 * torch.arange(len(rows))]), "fails on another device"),
    ],
)
def test_wrong_reorder(cls, words):
    with pytest.raises(AssertionError, match=words):
        checks.check_reorder(cls)


def by_one_hot(x, rows):
    return torch.einsum("nb,bhkd->nhkd", F.one_hot(rows, len(x)).to(x.dtype), x)


@pytest.mark.parametrize(
    "cls",
    [
        PreallocatedCache,
        taking(lambda x, rows: x.index_select(0, rows)),
        taking(lambda x, rows: torch.stack([x[row] for row in rows.tolist()])),
        taking(lambda x, rows: x.gather(0, rows[:, None, None, None].expand(-1, *x.shape[1:]))),
        taking(by_one_hot),
    ],
)
def test_right_reorder(cls):
    checks.check_reorder(cls)


def model_with(attend):
    """A cured patient 1 with this `attend`, or with attention of this class."""
    if not isinstance(attend, type):
        attend = type("CuredAttention1", (MultiHeadAttention,), {"attend": attend})
    return type("Cured1", (WithAttention,), {"attention_class": attend})


def by_mask(mask):
    """The `attend` with a mask made of the numbers of queries and keys."""

    def attend(self, q, k, v):
        return attention(q, k, v, mask(q.size(-2), k.size(-2)).to(q.device))

    return attend


def lower(queries, keys, diagonal=0):
    return torch.ones(queries, keys, dtype=torch.bool).tril(diagonal)


def by_hand(weights):
    """The `attend` with weights made of the scores and the mask."""

    def attend(self, q, k, v):
        scores = q @ k.transpose(-1, -2) / math.sqrt(q.size(-1))
        return weights(scores, causal_mask(q.size(-2), k.size(-2), q.device)) @ v

    return attend


def divided_again(scores, mask):
    weights = torch.softmax(scores, -1) * mask
    return weights / weights.sum(-1, keepdim=True)


def in_float32(scores, mask):
    return torch.softmax(scores.masked_fill(~mask, -math.inf).float(), -1).to(scores.dtype)


def right(q, k, v):
    return attention(q, k, v, causal_mask(q.size(-2), k.size(-2), q.device))


def kept_by_keys(self, q, k, v):
    keys = k.size(-2)
    if not hasattr(self, "mask") or self.mask.size(1) != keys:
        self.mask = causal_mask(q.size(-2), keys, q.device)
    return attention(q, k, v, self.mask)


def kept_and_cut_wrongly(self, q, k, v):
    queries, keys = q.size(-2), k.size(-2)
    if not hasattr(self, "mask") or self.mask.size(0) < keys:
        self.mask = causal_mask(keys, keys, q.device)
    return attention(q, k, v, self.mask[-queries:, :keys])


def keys_changed(self, q, k, v):
    found = right(q, k, v)
    k.mul_(2)
    return found


def of_the_first_row(self, q, k, v):
    return right(q[:1], k[:1], v[:1]).expand(len(q), -1, -1, -1)


def one_query_only(self, q, k, v):
    if q.size(-2) == 1:
        return attention(q, k, v)
    return attention(q, k, v, causal_mask(q.size(-2), q.size(-2)))


def patient_4(queries, keys):
    return lower(keys, keys) if queries == keys else torch.ones(queries, keys, dtype=torch.bool)


@pytest.mark.parametrize(
    ("attend", "words"),
    [
        (lambda self, q, k, v: attention(q, k, v), "2 queries on 2 keys, query 0 looks at keys 0"),
        (
            by_mask(lower),
            "query 0 looks at key 0; expected keys 0, 1.\n.*Identical to `no_mask_off",
        ),
        (by_mask(lambda q, k: lower(k, k)[:q]), "Identical to `no_mask_offset`"),
        (by_mask(lambda q, k: lower(q, k, k - q + 1)), "looks at keys 0, 1; expected key 0. "),
        (by_mask(lambda q, k: lower(q, k, k - q - 1)), "at no key .its result is NaN.; expected"),
        (by_mask(lambda q, k: lower(q, k, k - q + (k > q))), "Identical to `mask_one_too_far`"),
        (by_mask(lambda q, k: lower(q, k, k - q - (k > q))), "Identical to `self_excluded`"),
        (
            by_mask(lambda q, k: lower(k, k)[-q:].flip(0)),
            "query 0 looks at keys 0, 1; expected key",
        ),
        (
            by_mask(lambda q, k: lower(k, k)[:, -q:]),
            "1 query on 2 keys it raised RuntimeError at `",
        ),
        (by_mask(lambda q, k: ~lower(q, k, k - q)), "no key .its result is NaN.; expected key 0"),
        (by_mask(patient_4), "2 queries on 3 keys, query 0.*Identical to `append_unmasked`"),
        (by_mask(lambda q, k: lower(q, k, k - q) & (torch.arange(k) < 50)), "1 query on 61 keys, "),
        (by_mask(lambda q, k: lower(q, k, k - q).triu(k - q - 40)), "on 61 keys, "),
        (lambda self, q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True), "no_mask_"),
        (
            lambda self, q, k, v: right(q, k[:, :, -q.size(-2) :], v[:, :, -q.size(-2) :]),
            "key 1; ex",
        ),
        (lambda self, q, k, v: right(2 * q, k, v), "`attend`, with 1 query on 2 keys, is "),
        (lambda self, q, k, v: right(q, k, k), "`attend` adds up keys; expected: values.$"),
        (lambda self, q, k, v: right(q, v, k), "In `attend` k and v are exchanged.$"),
        (lambda self, q, k, v: right(q, v, v), "the queries with values; expected: with keys.$"),
        (lambda self, q, k, v: right(q, k, v).transpose(1, 2), "Without a cache it raised Runtime"),
        (lambda self, q, k, v: right(q, k, v.detach()), "the gradient of argument 3.* a `detach`"),
        (lambda self, q, k, v: right(q.detach(), k, v), "the gradient of argument 1.* a `detach`"),
        (
            lambda self, q, k, v: attention(q, k, v, mask),  # noqa: F821
            "With 1 query on 1 key it raised NameError at .*'mask' is not defined.$",
        ),
        (lambda self, q, k, v: None, "`attend` returns nothing: it must end in `return ...`.$"),
        (
            lambda self, q, k, v: attention(q, k, v, causal_mask(q.size(-2), k.size(-2))),
            "fails on another device",
        ),
        (by_hand(lambda s, m: torch.softmax(s.masked_fill(~m, -20), -1)), "looks at keys 0, 1; ex"),
        (by_hand(lambda s, m: torch.softmax(s.masked_fill(~m, -1000), -1)), "with 2 queries on 2 "),
        (by_hand(lambda s, m: torch.softmax(s * m, -1)), "query 0 looks at keys 0, 1"),
        (by_hand(lambda s, m: torch.softmax(s, -1) * m), "`attend`, with 2 queries on 2 keys, is"),
        (by_hand(divided_again), "holds NaN"),
        (by_mask(lambda q, k: ~lower(q, k, k - q)), "1 key, holds NaN .not a number..$"),
        (by_hand(in_float32), "`attend`, with 1 query on 2 keys, is"),
        (kept_by_keys, "4 tokens without a cache: wrong from position 0"),
        (kept_and_cut_wrongly, "`attend`, with 2 queries on 2 keys, is"),
        (keys_changed, "2 tokens, 1 at a time from an empty cache: wrong from position 1"),
        (of_the_first_row, "`attend`, with 1 query on 1 key, is .* at .1, "),
        (
            one_query_only,
            "With 2 queries on 3 keys it raised RuntimeError at `.*: The size of tensor",
        ),
    ],
)
def test_a_wrong_cure_of_attention(attend, words):
    with pytest.raises(AssertionError, match=f"(?s)Cured1 is still ill.\\s.*({words})") as refused:
        checks.check_cured(model_with(attend))
    assert "evaluate pass" not in str(refused.value)


def query_by_query(self, q, k, v):
    before = k.size(-2) - q.size(-2) + 1
    rows = (
        attention(q[:, :, i, None], k[:, :, : before + i], v[:, :, : before + i])
        for i in range(q.size(-2))
    )
    return torch.cat(list(rows), dim=2)


def by_positions(self, q, k, v):
    positions = torch.arange(k.size(-2), device=q.device)
    hidden = positions[None] > positions[-q.size(-2) :, None]
    scores = torch.einsum("bhqd,bhkd->bhqk", q, k) / q.size(-1) ** 0.5
    scores = scores + torch.where(hidden, -math.inf, 0.0).to(q.dtype)
    return torch.einsum("bhqk,bhkd->bhqd", scores.softmax(-1), v)


def case_by_case(self, q, k, v):
    queries, keys = q.size(-2), k.size(-2)
    if queries == 1:
        return attention(q, k, v)
    if queries == keys:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)
    old = torch.ones(queries, keys - queries, dtype=torch.bool, device=q.device)
    new = causal_mask(queries, queries, q.device)
    return attention(q, k, v, torch.cat([old, new], dim=1))


def kept_whole(self, q, k, v):
    if not hasattr(self, "mask") or self.mask.device != q.device:
        self.mask = causal_mask(1280, 1280, q.device)  # as many as the course's model reads
    queries, keys = q.size(-2), k.size(-2)
    return attention(q, k, v, self.mask[keys - queries : keys, :keys])


def the_course_s(self, q, k, v):
    return MultiHeadAttention.attend(self, q, k, v)


def with_float32_where(self, q, k, v):
    shape = q.size(-2), k.size(-2)
    hidden = torch.where(causal_mask(*shape, q.device), 0.0, -math.inf)
    return torch.softmax(q @ k.transpose(-1, -2) / q.size(-1) ** 0.5 + hidden, -1) @ v


class InForward(MultiHeadAttention):
    def attend(self, q, k, v):
        raise RuntimeError("nobody calls it")

    def forward(self, x, cache=None, layer=0):
        q, k, v = (self.split_heads(W(x)) for W in (self.W_q, self.W_k, self.W_v))
        if cache is not None:
            k, v = cache.append(layer, k, v)
        return self.W_o(self.merge_heads(right(q, k, v)))


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    "attend",
    [
        query_by_query,
        by_positions,
        case_by_case,
        kept_whole,
        the_course_s,
        with_float32_where,
        InForward,
        by_mask(lambda q, k: lower(k, k)[-q:]),
        by_hand(lambda s, m: torch.softmax(s.masked_fill(~m, torch.finfo(s.dtype).min), -1)),
    ],
)
def test_right_cures_of_attention(attend):
    assert "Cured1 is healthy" in checks.check_cured(model_with(attend))


class Untouched(MultiHeadAttention):
    def attend(self, q, k, v):
        raise NotImplementedError("Your turn: the card above says what to build.")


def test_an_untouched_cure_says_so():
    with pytest.raises(NotImplementedError, match="the card above"):
        checks.check_cured(model_with(Untouched))
